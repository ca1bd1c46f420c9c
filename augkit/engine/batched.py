"""The batched executor: a plan's passes over a whole batch, with torch alone, on the host or on a device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from augkit.engine import pixels
from augkit.engine.buffers import Recycler, recycler
from augkit.engine.finish import Done, finish, mix_images, mix_targets, pieces
from augkit.engine.lowering import COLOR, ERASE, KERNEL, KINDS, OPAQUE, TONE, WARP, ask, facts, lower, tables
from augkit.engine.output import Output
from augkit.engine.passes import schedule
from augkit.engine.plan import ImageSettings, Plan
from augkit.engine.rows import put, to_bytes
from augkit.engine.warp import warp
from augkit.errors import InputError, OperatorError
from augkit.operators.base import Kernel

__all__ = ["execute", "mix_targets"]

Pass = Callable[[Tensor, slice], Tensor]
"""Bytes of some images of a stage, and which of the stage's images they are, to bytes."""


def execute(
    images: Tensor,
    plan: Plan,
    *,
    out: Output | None = None,
    partners: tuple[Tensor | None, ...] | None = None,
    buffers: Recycler | None = None,
    masked: bool | None = None,
) -> Tensor:
    """Do to each image what the plan says, mixing of images included.

    Args:
        images: [B, C, H, W] with C 3 or 1, uint8 or floating point in 0..1; never written to.
        plan: for B images, on the same device.
        out: a normalised output; without it the result has the images' dtype.
        partners: for each mix of the plan, [B, C, H, W] uint8 pool images, or None where partners are in the batch.
        buffers: where large results take their memory from; the thread's own recycler without it.
        masked: fixed shapes, every pass over every image; by default on any device but the CPU.

    Returns:
        [B, C, H, W], contiguous. Images that meet no operator come out exactly as they went in.

    Raises:
        InputError: images and plan do not fit each other.
        OperatorError: an operator failed or returned something of the wrong shape.
    """
    _check(images, plan)
    masked = images.device.type != "cpu" if masked is None else masked
    recycled = recycler() if buffers is None else buffers
    work = _bytes(images.expand(-1, 3, -1, -1), recycled)
    done = Done(work)
    if work.numel() and plan.choice.shape[1]:
        done = _Run(plan, work, masked=masked, defer=out is not None).run()
    return mix_images(finish(images, done, out, recycled), plan, partners, out)


def _check(images: Tensor, plan: Plan) -> None:
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images must be [B, 3, H, W] or [B, 1, H, W] but are {list(images.shape)}")
    if len(plan) != images.shape[0]:
        raise InputError(f"the plan was drawn for {len(plan)} images but there are {images.shape[0]}")
    if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
        raise InputError(f"images must be uint8 or floating point but are {images.dtype}")


def _bytes(images: Tensor, recycled: Recycler) -> Tensor:
    """A contiguous uint8 copy."""
    result = recycled.empty(tuple(images.shape), torch.uint8, images.device)
    if images.dtype == torch.uint8:
        return result.copy_(images)
    return result.copy_(to_bytes(images.float().mul(255).add_(0.5).clamp_(0, 255)))


class _Run:
    """One plan over one batch of bytes. Grouped: each pass over the images that need it. Masked: over all of them."""

    def __init__(self, plan: Plan, work: Tensor, *, masked: bool, defer: bool) -> None:
        self.plan, self.work, self.masked, self.defer = plan, work, masked, defer
        self.size = (work.shape[2], work.shape[3])
        self.known = facts(plan.choices, work.device)
        self.lowered = lower(plan, self.size, masked)
        self.schedule = schedule(plan, self.lowered, self.size)
        self.pending: list[tuple[Tensor | None, Tensor]] = []
        self.everyone = torch.arange(len(plan), device=work.device)
        self.flat_u = plan.u.reshape(plan.choice.numel(), -1)

    def run(self) -> Done:
        """Every stage in order."""
        stages = self.schedule.stage
        for stage in self._stages():
            member = stages == stage
            rows = self.everyone if self.masked else member.any(1).nonzero()[:, 0]
            kind = stage % len(KINDS)
            if kind == TONE:
                self._tones(stage, rows, member.index_select(0, rows))
            elif kind in (KERNEL, OPAQUE):
                for k in self._present(kind):
                    self._single(kind, k, member & (self.plan.choice == k))
            else:
                {WARP: self._warps, COLOR: self._colours, ERASE: self._erases}[kind](rows, member.index_select(0, rows))
        return Done(self.work, self.schedule.last >= 0, tuple(self.pending))

    def _stages(self) -> list[int]:
        """Stages in order: those that occur, or, masked, all that could."""
        if not self.masked:
            found: list[int] = self.schedule.stage.unique().tolist()
            return [stage for stage in found if stage >= 0]
        kinds = sorted({KINDS.index(choice.operator.kind) for choice in self.plan.choices})
        return [round_ * len(KINDS) + kind for round_ in range(self.plan.choice.shape[1]) for kind in kinds]

    def _present(self, kind: int) -> list[int]:
        return [k for k, choice in enumerate(self.plan.choices) if KINDS.index(choice.operator.kind) == kind]

    def _sweep(self, rows: Tensor, run: Pass) -> None:
        """Run a pass over some images, a piece at a time."""
        whole = len(rows) == len(self.work)
        for part in pieces(len(rows), self.work[0].numel()):
            if whole:
                self.work[part] = run(self.work[part], part)
            else:
                chosen = rows[part]
                put(self.work, chosen, run(self.work.index_select(0, chosen), part))

    def _levels(self, member: Tensor, *, backward: bool = False) -> list[Tensor]:
        """[N, S] slots of a stage to one [N, S] mask a level, with at most one slot of an image in each."""
        counted = member.flip(1).cumsum(1).flip(1) if backward else member.cumsum(1)
        levels = member.shape[1] if self.masked else int(counted.max())
        return [member & (counted == level + 1) for level in range(levels)]

    def _entries(self, kind: int, rows: Tensor, levels: list[Tensor]) -> Tensor:
        """Parameters of each level: [N, L, ...], neutral where an image has none."""
        place = self.lowered.place.index_select(0, rows)
        index = torch.stack([(place * level).sum(1) for level in levels], dim=1)
        entries = self.lowered.rows[kind].index_select(0, index.view(-1))
        return entries.view(*index.shape, *entries.shape[1:])

    def _warps(self, rows: Tensor, member: Tensor) -> None:
        """Grouped, images that only move by whole pixels take the nearest pass, which is cheaper and gives the same."""
        settings = self.plan.image
        if self.masked or settings.resample == "nearest":
            self._sweep(rows, self._warp(rows, member, settings))
            return
        shifts = (self.schedule.whole.index_select(0, rows) | ~member).all(1)
        for some, how in ((shifts, replace(settings, resample="nearest")), (~shifts, settings)):
            if some.any():
                self._sweep(rows[some], self._warp(rows[some], member[some], how))

    def _warp(self, rows: Tensor, member: Tensor, settings: ImageSettings) -> Pass:
        matrices = self._entries(WARP, rows, self._levels(member, backward=True))
        depth = member.sum(1)

        def run(images: Tensor, part: slice) -> Tensor:
            moved = warp(images, matrices[part], depth[part], settings)
            return torch.where((depth[part] > 0).view(-1, 1, 1, 1), moved, images) if self.masked else moved

        return run

    def _colours(self, rows: Tensor, member: Tensor) -> None:
        matrices = self._entries(COLOR, rows, [member])[:, 0]
        self._sweep(rows, lambda images, part: pixels.colour(images, matrices[part]))

    def _erases(self, rows: Tensor, member: Tensor) -> None:
        boxes = self.lowered.rows[ERASE][self.lowered.place[rows] * member]
        self._sweep(rows, lambda images, part: pixels.erase(images, boxes[part]))

    def _tones(self, stage: int, rows: Tensor, member: Tensor) -> None:
        """Compose the stage's tables; those that end an image wait for the output if it takes them."""
        composed = self._tables(rows, member)
        last = (self.schedule.last[rows] == stage) if self.defer else torch.zeros_like(rows, dtype=torch.bool)
        if self.masked:
            self._defer_masked(composed, last)
            return
        if self.defer:
            self.pending.append((rows[last], composed[last]))
            rows, composed = rows[~last], composed[~last]
        self._sweep(rows, lambda images, part: pixels.look_up(images, composed[part]))

    def _defer_masked(self, composed: Tensor, last: Tensor) -> None:
        neutral = torch.arange(256, dtype=torch.uint8, device=composed.device).expand_as(composed)
        now = torch.where(last.view(-1, 1, 1), neutral, composed)
        self._sweep(self.everyone, lambda images, part: pixels.look_up(images, now[part]))
        if self.defer:
            before = self.pending[0][1] if self.pending else neutral
            self.pending = [(None, torch.where(last.view(-1, 1, 1), composed, before))]

    def _tables(self, rows: Tensor, member: Tensor) -> Tensor:
        """The stage's tables, composed: [N, 3, 256] uint8."""
        looks = member & self.known.looks[self.plan.choice.index_select(0, rows)]
        asked, counts = self._counts(rows, looks)
        whole: Tensor | None = None
        for level in self._levels(member):
            table = self._plain_tables(rows, level & ~looks)
            if self.known.statistics:
                self._fill_tables(table, rows[asked], asked, (level & looks)[asked], counts, whole)
            whole = table if whole is None else pixels.compose(whole, table)
        assert whole is not None
        return whole

    def _fill_tables(
        self, table: Tensor, rows: Tensor, asked: Tensor, level: Tensor, counts: Tensor, before: Tensor | None
    ) -> None:
        """Put into `table` what the operators of a level make of the images' histograms; `level` [asked, S]."""
        slot = level.to(torch.uint8).argmax(1)
        at = rows * level.shape[1] + slot
        drawn = torch.where(level.any(1), self.plan.choice.reshape(-1)[at], -1)
        for k in sorted(self.known.statistics):
            own = drawn == k
            chosen = self.everyone if self.masked else own.nonzero()[:, 0]
            if not len(chosen):
                continue
            seen = counts if self.masked else counts.index_select(0, chosen)
            if before is not None:
                seen = pixels.push(seen, before.index_select(0, asked[chosen]))
            slots = at[chosen]
            value, u = self.plan.value.reshape(-1)[slots], self.flat_u[slots]
            fresh = tables(self.plan.choices[k], value, u, self.size, seen)
            if self.masked:
                table.copy_(torch.where(own.view(-1, 1, 1), fresh, table))
            else:
                put(table, asked[chosen], fresh)

    def _plain_tables(self, rows: Tensor, level: Tensor) -> Tensor:
        """Tables of a level that look at no histogram, neutral elsewhere."""
        if TONE not in self.lowered.rows:
            neutral = torch.arange(256, dtype=torch.uint8, device=rows.device)
            return neutral.expand(len(rows), 3, 256).contiguous()
        return self._entries(TONE, rows, [level])[:, 0]

    def _counts(self, rows: Tensor, looks: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the stage's images will be asked for their histograms, and those, [asked, 3, 256]."""
        asked = self.everyone if self.masked else looks.any(1).nonzero()[:, 0]
        counts = torch.zeros(len(asked), 3, 256, device=self.work.device)
        if self.known.statistics:
            for part in pieces(len(asked), self.work[0].numel()):
                counts[part] = pixels.histograms(self.work.index_select(0, rows[asked[part]]))
        return asked, counts

    def _single(self, kind: int, k: int, member: Tensor) -> None:
        """One operator that merges with nothing, over the images that drew it in this stage."""
        own = member.any(1)
        # an opaque operator may do anything, so only those images may see it: on a device that means waiting once
        rows = own.nonzero()[:, 0] if kind == OPAQUE or not self.masked else self.everyone
        if not len(rows):
            return
        slot = member[rows].to(torch.uint8).argmax(1)
        if kind == KERNEL:
            run = self._kernel(k, self.lowered.place[rows, slot] * own[rows])
        else:
            run = self._opaque(k, self.plan.value[rows, slot], self.plan.u[rows, slot])
        if self.masked and kind == KERNEL:
            keep = own.view(-1, 1, 1, 1)
            self._sweep(rows, lambda images, part: torch.where(keep[part], run(images, part), images))
        else:
            self._sweep(rows, run)

    def _kernel(self, k: int, place: Tensor) -> Pass:
        weights, blend, border = self.lowered.kernels[k]

        def run(images: Tensor, part: slice) -> Tensor:
            own = [given if given.shape[0] == 1 else given[place[part]] for given in (weights, blend)]
            return pixels.filtered(images, Kernel(own[0], own[1], border))

        return run

    def _opaque(self, k: int, value: Tensor, u: Tensor) -> Pass:
        choice = self.plan.choices[k]
        if self.work.device.type != "cpu":
            _warn_of_waiting(choice.operator.name)

        def run(images: Tensor, part: slice) -> Tensor:
            given = images.float().div_(255)
            result = ask(choice, value[part], u[part], self.size, images=given)
            if not isinstance(result, Tensor) or result.shape != images.shape:
                got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
                raise OperatorError(
                    f'operator "{choice.operator.name}" must return images of shape {list(images.shape)}'
                    f" but returned {got}"
                )
            return to_bytes(result.float().mul(255).add_(0.5).clamp_(0, 255))

        return run


_warned: set[str] = set()


def _warn_of_waiting(name: str) -> None:
    if name not in _warned:
        _warned.add(name)
        warnings.warn(
            f'operator "{name}" is opaque: each batch waits once for the device to find its images', stacklevel=2
        )
