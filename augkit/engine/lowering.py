"""From a plan's numbers to what passes are made of: matrices, tables, kernels and boxes for every slot."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.engine.output import permuted
from augkit.engine.plan import Plan
from augkit.errors import InputError, OperatorError
from augkit.operators.base import Choice, Kernel, parameters_of
from augkit.operators.tone import identity

KINDS = ("warp", "map", "color", "kernel", "tone", "erase", "opaque")
"""The order in which one round runs its passes; see `passes.schedule`."""
WARP, MAP, COLOR, KERNEL, TONE, ERASE, OPAQUE = range(len(KINDS))
LATE = (MAP, OPAQUE)
"""Kinds that are asked for when they run: a map is as large as its image, an opaque operator needs it."""
SHAPES = {WARP: "3, 3", COLOR: "3, 4", TONE: "channels or 1, 256", ERASE: "4", MAP: "height, width, 2"}
NEUTRAL = {
    WARP: torch.eye(3),
    COLOR: torch.eye(3, 4),
    TONE: torch.arange(256, dtype=torch.uint8)[None],
    ERASE: torch.zeros(1, 4),
}


@dataclass(frozen=True)
class Facts:
    """What the schedule asks about each choice of a plan: [K + 1] tensors, the last entry for an empty slot."""

    kind: Tensor
    """int64 position in `KINDS`; -1 for an empty slot and for `identity`."""
    transparent: Tensor
    """bool: a pointwise pass that maps black to black and does not look at the image's statistics."""
    blind: Tensor
    """bool: a pointwise pass that does not look at the image's statistics."""
    looks: Tensor
    """bool: a tone whose tables depend on the image's statistics."""
    statistics: dict[int, str]
    """Choices whose tables do, and the statistic that each asks for."""


_facts: dict[tuple[int, torch.device], tuple[tuple[Choice, ...], Facts]] = {}


def facts(choices: tuple[Choice, ...], device: torch.device) -> Facts:
    """Facts of a table of choices, kept for the tables used last (a policy's table never changes)."""
    key = (id(choices), device)
    found = _facts.get(key)
    if found is None:
        if len(_facts) >= 64:
            _facts.clear()
        found = _facts[key] = (choices, _facts_of(choices, device))
    return found[1]


def _facts_of(choices: tuple[Choice, ...], device: torch.device) -> Facts:
    operators = [choice.operator for choice in choices]
    kinds = [-1 if op is identity else KINDS.index(op.kind) for op in operators]
    blind = [kind in (COLOR, TONE) and not op.looks_at for kind, op in zip(kinds, operators, strict=True)]
    transparent = [b and op.keeps_black for b, op in zip(blind, operators, strict=True)]
    statistics = {k: op.looks_at for k, op in enumerate(operators) if kinds[k] == TONE and op.looks_at}
    return Facts(
        torch.tensor([*kinds, -1], device=device),
        torch.tensor([*transparent, True], device=device),
        torch.tensor([*blind, True], device=device),
        torch.tensor([*(k in statistics for k in range(len(choices))), False], device=device),
        statistics,
    )


@dataclass(frozen=True)
class Lowered:
    """Parameters of every slot that do not depend on pixels.

    `rows[kind]` are stacked parameters whose entry 0 changes nothing; `place` [B, S] says which entry a slot has.
    """

    place: Tensor
    rows: dict[int, Tensor]
    kernels: dict[int, Kernel] = field(default_factory=dict)
    """By choice, with one entry for each of its slots, within which `place` counts; masked for every slot."""


def lower(plan: Plan, size: tuple[int, int], masked: bool) -> Lowered:
    """Lower every slot but those that depend on pixels and those that are asked for late.

    `masked` keeps shapes fixed: each operator is asked about every slot, and what is not its own is dropped.
    """
    return _lower_masked(plan, size) if masked else _lower_grouped(plan, size)


def _lower_grouped(plan: Plan, size: tuple[int, int]) -> Lowered:
    """Slots in the order of their operators, so that each is asked once, about a slice."""
    flat = plan.choice.reshape(-1)
    counts = np.bincount(flat.numpy() + 1, minlength=len(plan.choices) + 1).tolist()
    values, u = plan.value.reshape(-1), plan.u.reshape(len(flat), plan.u.shape[2])
    order = flat.argsort(stable=True) if max(counts) < len(flat) else None
    if order is not None:
        values, u = values[order], u[order] if u.shape[1] else u
    numbers = np.zeros(len(flat), np.int64)
    parts = _Parts()
    end = counts[0]
    for k, count in enumerate(counts[1:]):
        start, end = end, end + count
        if count and _early(plan, k):
            own = slice(start, end)
            first = parts.add(k, plan.choices[k], ask(plan.choices[k], values[own], u[own], size), count)
            numbers[own] = np.arange(first, first + count)
    place = numbers
    if order is not None:
        place = np.empty_like(numbers)
        place[order.numpy()] = numbers
    return Lowered(torch.from_numpy(place).view_as(plan.choice), parts.rows(flat.device), parts.kernels)


def _lower_masked(plan: Plan, size: tuple[int, int]) -> Lowered:
    """Every slot has a row in every table, what its own operator gave or the neutral one."""
    flat = plan.choice.reshape(-1)
    values, u = plan.value.reshape(-1), plan.u.reshape(len(flat), plan.u.shape[2])
    rows: dict[int, Tensor] = {}
    kernels: dict[int, Kernel] = {}
    for k, choice in enumerate(plan.choices):
        if not _early(plan, k):
            continue
        kind, result = KINDS.index(choice.operator.kind), ask(choice, values, u, size)
        if kind == KERNEL:
            kernels[k] = _checked_kernel(choice, result, len(flat))
            continue
        before = rows[kind] if kind in rows else _neutral(kind, flat.device)
        before, own = _alike([before, _checked(choice, result, kind, len(flat))])
        rows[kind] = torch.where((flat == k).view(-1, *[1] * (own.dim() - 1)), own, before)
    tables = {
        kind: _clean(torch.cat(_alike([_neutral(kind, flat.device).to(own.dtype), own])), kind)
        for kind, own in rows.items()
    }
    place = torch.arange(1, len(flat) + 1, device=flat.device)
    return Lowered(place.view_as(plan.choice), tables, kernels)


def _early(plan: Plan, k: int) -> bool:
    """Whether an operator can be asked before any pixel was touched."""
    operator = plan.choices[k].operator
    late = operator is identity or KINDS.index(operator.kind) in LATE
    return not late and k not in facts(plan.choices, plan.choice.device).statistics


class _Parts:
    """What operators gave, by kind, on the way to one table a kind."""

    def __init__(self) -> None:
        self.kernels: dict[int, Kernel] = {}
        self.stacks: dict[int, list[Tensor]] = {}
        self.lengths: dict[int, int] = {}

    def add(self, k: int, choice: Choice, result: Any, count: int) -> int:
        """Note what operator k lowers to for `count` slots; the number of the first of them in its table."""
        kind = KINDS.index(choice.operator.kind)
        if kind == KERNEL:
            self.kernels[k] = _checked_kernel(choice, result, count)
            return 0
        self.stacks.setdefault(kind, []).append(_checked(choice, result, kind, count))
        first = self.lengths.get(kind, 1)
        self.lengths[kind] = first + count
        return first

    def rows(self, device: torch.device) -> dict[int, Tensor]:
        """The tables, entry 0 neutral."""
        return {
            kind: _clean(torch.cat(_alike([_neutral(kind, device), *stack])), kind)
            for kind, stack in self.stacks.items()
        }


def _clean(rows: Tensor, kind: int) -> Tensor:
    """Tables as bytes; of other parameters nothing that is not finite."""
    if kind == TONE:
        return rows if rows.dtype == torch.uint8 else rows.clamp(0, 255).to(torch.uint8)
    return torch.nan_to_num(rows.float(), nan=0.0, posinf=1e6, neginf=-1e6)


def _alike(parts: list[Tensor]) -> list[Tensor]:
    """Boxes in equal number, tables for as many channels: what one operator has less of is filled up neutrally."""
    most = max(part.shape[1] for part in parts)
    if all(part.shape[1] == most for part in parts):
        return parts
    if parts[0].shape[-1] == 4:
        return [torch.nn.functional.pad(part, (0, 0, 0, most - part.shape[1])) for part in parts]
    return [part.expand(-1, most, -1) for part in parts]


@lru_cache(maxsize=64)
def _neutral(kind: int, device: torch.device) -> Tensor:
    """[1, ...] parameters that change nothing; kept, since sending them to a device waits for it."""
    return NEUTRAL[kind].to(device)[None]


def ask(
    choice: Choice,
    values: Tensor,
    u: Tensor,
    size: tuple[int, int],
    *,
    images: Tensor | None = None,
    statistic: Tensor | None = None,
) -> Any:
    """What the operator lowers to for N slots; entries for one slot stand for all of them.

    Raises:
        OperatorError: the operator failed; the message names it.
    """
    operator = choice.operator
    try:
        if operator.kind != "opaque" and not operator.has_value and not operator.draws and statistic is None:
            return _constant(choice, size if "size" in parameters_of(operator.function) else (0, 0), values.device)
        return choice.lower(values, u, size, images=images, statistic=statistic)
    except OperatorError:
        raise
    except Exception as error:
        raise OperatorError(f'operator "{operator.name}" failed: {type(error).__name__}: {error}') from error


@lru_cache(maxsize=256)
def _constant(choice: Choice, size: tuple[int, int], device: torch.device) -> Any:
    """An operator that needs neither value nor image lowers to the same for every image: ask it once."""
    none = torch.zeros(1, device=device)
    result = choice.lower(none, none[:, None], size)
    if isinstance(result, Kernel):
        return Kernel(result.weights.to(device), result.blend.to(device), result.border)
    return result.to(device) if isinstance(result, Tensor) else result  # the latter is refused by `_checked`


def _checked(choice: Choice, result: Any, kind: int, count: int) -> Tensor:
    """The result as [count, ...] of the kind's shape, or an error that names the operator."""
    if not isinstance(result, Tensor) or result.shape[0] not in (1, count) or not _fits(result, kind):
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise OperatorError(
            f'operator "{choice.operator.name}" ({KINDS[kind]}) must return a tensor of shape ({count}, {SHAPES[kind]})'
            f" but returned {got}"
        )
    every: Tensor = result.expand(count, *result.shape[1:])
    return every[:, None] if kind == ERASE and every.dim() == 2 else every


def _fits(result: Tensor, kind: int) -> bool:
    if kind == TONE:
        return result.dim() == 3 and result.shape[2] == 256
    if kind == ERASE:
        return result.dim() in (2, 3) and result.shape[-1] == 4
    return result.shape[1:] == NEUTRAL[kind].shape


def _checked_kernel(choice: Choice, result: Any, count: int) -> Kernel:
    """The kernel if its shapes fit, or an error that names the operator."""
    if isinstance(result, Kernel):
        weights, blend, border = result
        square = weights.dim() == 2 or (weights.dim() == 3 and weights.shape[1] == weights.shape[2])
        many = weights.shape[0] in (1, count) and blend.shape in ((1,), (count,))
        if square and many and weights.shape[-1] % 2 == 1 and border in ("copy", "replicate"):
            return result
    raise OperatorError(
        f'operator "{choice.operator.name}" (kernel) must return a Kernel of weights [{count}, k, k] or [{count}, k]'
        f" with odd k, blend [{count}] and border copy or replicate"
    )


def tables(choice: Choice, values: Tensor, u: Tensor, size: tuple[int, int], statistic: Tensor) -> Tensor:
    """Tables of a tone operator that looks at the images' `statistic` [N, C, ...]: [N, C, 256] uint8."""
    count, channels = statistic.shape[:2]
    made = _clean(_checked(choice, ask(choice, values, u, size, statistic=statistic), TONE, count), TONE)
    return made.expand(count, channels, 256)


def maps(choice: Choice, values: Tensor, u: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the pixels of N images come from: [N, H, W, 2] float32 (x, y)."""
    made = ask(choice, values, u, size)
    count = values.shape[0]
    if not isinstance(made, Tensor) or made.shape[1:] != (*size, 2) or made.shape[0] not in (1, count):
        got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise OperatorError(
            f'operator "{choice.operator.name}" (map) must return a tensor of shape {(count, *size, 2)}'
            f" but returned {got}"
        )
    return torch.nan_to_num(made.float(), nan=-1e6, posinf=1e6, neginf=-1e6).expand(count, *size, 2)


def check_channels(choices: tuple[Choice, ...], images: Tensor) -> bool:
    """Whether any of the operators tells red, green and blue apart.

    Raises:
        InputError: one does, and the images have neither three channels nor one.
    """
    colours = [choice.operator.name for choice in choices if choice.operator.channels == "rgb"]
    channels = images.shape[1]
    if colours and channels not in (1, 3):
        cure = permuted(images.shape) or "take it out of the document, or give it images with 3 channels or 1"
        raise InputError(
            f'operator "{colours[0]}" needs images of red, green and blue but these have {channels} channels; {cure}'
        )
    return bool(colours)
