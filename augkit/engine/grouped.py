"""A plan's passes over bytes where looking at values is free: each pass runs over the images that need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.engine import pixels
from augkit.engine.finish import Done, pieces
from augkit.engine.lowering import (
    COLOR,
    ERASE,
    KERNEL,
    KINDS,
    MAP,
    OPAQUE,
    TONE,
    WARP,
    facts,
    lower,
    maps,
    tables,
)
from augkit.engine.opaque import run_opaque
from augkit.engine.passes import schedule
from augkit.engine.plan import ImageSettings, Plan
from augkit.engine.rows import put
from augkit.engine.warp import remap, warp
from augkit.operators.base import Kernel
from augkit.operators.geometry import hflip, vflip

Pass = Callable[[Tensor, slice], Tensor]
"""Bytes of some images of a stage, and which of the stage's images they are, to bytes."""
Numbers = np.ndarray[Any, np.dtype[Any]]
"""Which images and slots a pass is about: numpy, whose calls on a few hundred numbers take a third of torch's time."""
MIRRORS = ((hflip, 3), (vflip, 2))
"""Operators that mirror, and the dimension that they mirror."""


class Grouped:
    """One plan over one batch of bytes [B, C, H, W], which it changes."""

    def __init__(self, plan: Plan, work: Tensor, *, defer: bool) -> None:
        self.plan, self.work, self.defer = plan, work, defer
        self.size = (work.shape[2], work.shape[3])
        self.known = facts(plan.choices, work.device)
        self.lowered = lower(plan, self.size, masked=False)
        self.schedule = schedule(plan, self.lowered, self.size)
        self.choice, self.place = plan.choice.numpy(), self.lowered.place.numpy()
        self.value, self.u = plan.value.reshape(-1), plan.u.reshape(plan.choice.numel(), plan.u.shape[2])
        operators = [choice.operator for choice in plan.choices]
        self.mirrors = [(k, where) for mirror, where in MIRRORS for k, one in enumerate(operators) if one is mirror]
        self.pending: list[tuple[Tensor, Tensor]] = []

    def run(self) -> Done:
        """Every stage in order; with `defer`, the tables that end an image wait for the output."""
        stages = self.schedule.stage.numpy()
        for stage in _present(stages):
            member = stages == stage
            rows = member.any(1).nonzero()[0]
            kind = stage % len(KINDS)
            if kind in (KERNEL, MAP, OPAQUE):
                for k in _present(self.choice[member]):
                    self._single(kind, k, member & (self.choice == k))
            elif kind == TONE:
                self._tones(stage, rows, member[rows])
            else:
                {WARP: self._warps, COLOR: self._colours, ERASE: self._erases}[kind](rows, member[rows])
        return Done(self.work, self.schedule.last >= 0, tuple(self.pending))

    def _sweep(self, rows: Numbers, run: Pass) -> None:
        """Run a pass over some images, a piece at a time."""
        whole = len(rows) == len(self.work)
        for part in pieces(len(rows), self.work[0].numel()):
            if whole:
                self.work[part] = run(self.work[part], part)
            else:
                chosen = torch.from_numpy(rows[part])
                put(self.work, chosen, run(self.work.index_select(0, chosen), part))

    def _entries(self, kind: int, rows: Numbers, levels: list[Numbers]) -> Tensor:
        """Parameters of each level: [N, L, ...], neutral where an image has none."""
        place = self.place[rows]
        index = np.stack([(place * level).sum(1) for level in levels], axis=1)
        entries = self.lowered.rows[kind].index_select(0, torch.from_numpy(index.reshape(-1)))
        return entries.view(*index.shape, *entries.shape[1:])

    def _warps(self, rows: Numbers, member: Numbers) -> None:
        """Images that only move by whole pixels take the nearest pass, which is cheaper and gives the same."""
        settings = self.plan.image
        if self.mirrors:
            others = ~self._mirrored(rows, member)
            rows, member = rows[others], member[others]
        if settings.resample == "nearest":
            self._warp(rows, member, settings)
            return
        shifts = (self.schedule.whole.numpy()[rows] | ~member).all(1)
        for some, how in ((shifts, replace(settings, resample="nearest")), (~shifts, settings)):
            self._warp(rows[some], member[some], how)

    def _mirrored(self, rows: Numbers, member: Numbers) -> Numbers:
        """Mirror those images that do nothing else; returns which [N] these are."""
        drawn = self.choice[rows]
        hits = [member & (drawn == k) for k, _ in self.mirrors]
        only: Numbers = (np.add.reduce(hits) == member).all(1)
        for (_, dimension), hit in zip(self.mirrors, hits, strict=True):
            odd = rows[only & (hit.sum(1) % 2 == 1)]
            self._sweep(odd, _flip(dimension))
        return only

    def _warp(self, rows: Numbers, member: Numbers, settings: ImageSettings) -> None:
        if len(rows):
            matrices = self._entries(WARP, rows, _levels(member, backward=True))
            depth = torch.from_numpy(member.sum(1))
            self._sweep(rows, lambda images, part: warp(images, matrices[part], depth[part], settings))

    def _colours(self, rows: Numbers, member: Numbers) -> None:
        matrices = self._entries(COLOR, rows, [member])[:, 0]
        self._sweep(rows, lambda images, part: pixels.colour(images, matrices[part]))

    def _erases(self, rows: Numbers, member: Numbers) -> None:
        boxes = self.lowered.rows[ERASE][torch.from_numpy(self.place[rows] * member)].flatten(1, 2)
        self._sweep(rows, lambda images, part: pixels.erase(images, boxes[part]))

    def _tones(self, stage: int, rows: Numbers, member: Numbers) -> None:
        """Compose the stage's tables; those that end an image wait for the output if it takes them."""
        composed = self._tables(rows, member)
        if self.defer:
            last = self.schedule.last.numpy()[rows] == stage
            composed = composed.expand(-1, self.work.shape[1], -1)
            self.pending.append((torch.from_numpy(rows[last]), composed[torch.from_numpy(last)]))
            rows, composed = rows[~last], composed[torch.from_numpy(~last)]
        self._sweep(rows, lambda images, part: pixels.look_up(images, composed[part]))

    def _tables(self, rows: Numbers, member: Numbers) -> Tensor:
        """The stage's tables, composed: [N, C, 256] uint8, or [N, 1, 256] where no operator tells channels apart."""
        first, *later = _levels(member)
        whole = self._level_tables(rows, first, None)
        for level in later:
            some = level.any(1).nonzero()[0]
            at = torch.from_numpy(some)
            before = whole.index_select(0, at)
            after = pixels.compose(before, self._level_tables(rows[some], level[some], before))
            whole = whole.expand(-1, after.shape[1], -1).contiguous()
            put(whole, at, after.expand(-1, whole.shape[1], -1))
        return whole

    def _level_tables(self, rows: Numbers, level: Numbers, before: Tensor | None) -> Tensor:
        """Of one slot of each image, with the tables `before` [N, C or 1, 256] under it."""
        if not self.known.statistics:
            return self._plain_tables(rows, level)
        looks = level & self.known.looks.numpy()[self.choice[rows]]
        table = self._plain_tables(rows, level & ~looks)
        return self._looking_tables(table, rows, looks, before) if looks.any() else table

    def _looking_tables(self, table: Tensor, rows: Numbers, asks: Numbers, before: Tensor | None) -> Tensor:
        """`table` with what operators make of the statistics of the images in `asks`, after the tables `before`."""
        table = table.expand(-1, self.work.shape[1], -1).contiguous()
        chosen, slot = asks.nonzero()
        at = rows[chosen] * asks.shape[1] + slot
        drawn = self.choice.reshape(-1)[at]
        for k in _present(drawn):
            own = drawn == k
            seen = self._statistic(self.known.statistics[k], rows[chosen[own]], before, chosen[own])
            where = torch.from_numpy(at[own])
            value, u = self.value.index_select(0, where), self.u.index_select(0, where)
            put(table, torch.from_numpy(chosen[own]), tables(self.plan.choices[k], value, u, self.size, seen))
        return table

    def _statistic(self, name: str, rows: Numbers, before: Tensor | None, chosen: Numbers) -> Tensor:
        """What is asked of these images; after a table (entries `chosen` of `before`) it follows from histograms."""
        wanted = name if before is None else "histogram"
        parts = pieces(len(rows), self.work[0].numel())
        images = (self.work.index_select(0, torch.from_numpy(rows[part])) for part in parts)
        found = torch.cat([pixels.statistic(wanted, some) for some in images])
        if before is None:
            return found
        table = before.index_select(0, torch.from_numpy(chosen)).expand(found.shape)
        return pixels.statistic_of(name, pixels.push(found, table))

    def _plain_tables(self, rows: Numbers, level: Numbers) -> Tensor:
        """Tables of a level that look at no statistic, neutral elsewhere; [N, C or 1, 256]."""
        if TONE not in self.lowered.rows:
            return torch.arange(256, dtype=torch.uint8).expand(len(rows), 1, 256)
        return self._entries(TONE, rows, [level])[:, 0]

    def _single(self, kind: int, k: int, member: Numbers) -> None:
        """One operator that merges with nothing, over the images that drew it in this stage."""
        rows, slot = member.nonzero()
        if kind == KERNEL:
            self._sweep(rows, self._kernel(k, torch.from_numpy(self.place[rows, slot])))
            return
        at = torch.from_numpy(rows * member.shape[1] + slot)
        choice, value, u = self.plan.choices[k], self.value.index_select(0, at), self.u.index_select(0, at)
        if kind == MAP:
            settings = self.plan.image
            self._sweep(
                rows,
                lambda images, part: remap(images, maps(choice, value[part], u[part], self.size), settings),
            )
        else:
            self._sweep(rows, lambda images, part: run_opaque(choice, images, value[part], u[part]))

    def _kernel(self, k: int, place: Tensor) -> Pass:
        weights, blend, border = self.lowered.kernels[k]

        def run(images: Tensor, part: slice) -> Tensor:
            own = [given[:1] if _shared(given) else given[place[part]] for given in (weights, blend)]
            return pixels.filtered(images, Kernel(own[0], own[1], border))

        return run


def _flip(dimension: int) -> Pass:
    return lambda images, part: images.flip(dimension)


def _shared(given: Tensor) -> bool:
    """Whether there is one entry for all images."""
    return len(given) == 1 or given.stride(0) == 0


def _levels(member: Numbers, *, backward: bool = False) -> list[Numbers]:
    """[N, S] slots of a stage to one [N, S] mask a level, with at most one slot of an image in each."""
    most = int(member.sum(1).max())
    if most == 1:
        return [member]
    counted = member[:, ::-1].cumsum(1)[:, ::-1] if backward else member.cumsum(1)
    return [member & (counted == level + 1) for level in range(most)]


def _present(numbers: Numbers) -> list[int]:
    """Which numbers of 0 or more occur, in order; a tenth of what `unique` takes."""
    found: list[int] = np.bincount(numbers.reshape(-1) + 1)[1:].nonzero()[0].tolist()
    return found
