"""Which slots of which image run together as one pass.

Every image goes through *rounds*. A round runs its passes in one fixed order - warp, colour, kernel, tone, erase,
opaque - and holds at most one of each. A slot joins the round under way if its kind comes later in that order, or if it
may merge with the pass of its own kind; a warp may also step back before the pointwise passes that let it. Otherwise
the slot opens the next round. All of it is arithmetic over [B] tensors, one step a slot, so it costs the same for any
mixture of operators and never waits for a device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.engine.lowering import ERASE, KINDS, TONE, WARP, Lowered, facts
from augkit.engine.plan import Plan


@dataclass(frozen=True)
class Schedule:
    """`stage` [B, S] int64: round * len(KINDS) + kind, -1 for slots without effect."""

    stage: Tensor
    last: Tensor
    """[B] int64: the last stage of each image, -1 where nothing happens."""
    whole: Tensor
    """[B, S] bool: the slot's warp maps pixel centres to pixel centres, so that nearest resampling does for it."""


def schedule(plan: Plan, lowered: Lowered, size: tuple[int, int]) -> Schedule:
    """Assign each slot of each image its round.

    The rules change no pixel:

    - nearest warps merge by applying their coordinate maps, rounding and frames included, one after another.
    - bilinear warps merge if the later one moves whole pixels (not with reflection as fill), or if those before it are
      flips: two interpolations blur more than one, and interpolation after a shift would have to mix in the fill along
      the border.
    - a warp steps back before a pointwise pass that maps the fill to itself and does not look at the image's
      statistics; a bilinear one only if it moves whole pixels, since a table of an average is no average of tables.
    - with the image's mean as fill no warp merges or steps back: each has a fill of its own.
    - tables compose and boxes unite. Colour matrices, kernels and opaque operators stand alone: each rounds to bytes.
    """
    known = facts(plan.choices, plan.choice.device)
    batch, slots = plan.choice.shape
    device = plan.choice.device
    kinds = known.kind[plan.choice]
    settings = plan.image
    nearest = settings.resample == "nearest"
    whole = _whole(lowered, nearest)
    if slots < 2:
        return Schedule(kinds, kinds[:, 0] if slots else torch.full_like(plan.targets, -1), whole)
    flips = _flips(lowered, whole, size, nearest)
    passable = known.transparent if settings.fill == "black" else known.blind
    passable = passable[plan.choice]
    # a matrix product cannot mirror between two interpolating warps; coordinates that are applied in turn can
    through = settings.fill != "reflect" or nearest
    never = torch.zeros(batch, dtype=torch.bool, device=device)
    # the first slot opens the first round
    at = kinds[:, 0]
    round_, is_warp = (at >= 0).long() - 1, at == WARP
    clear, flipped = (at < 0) | is_warp | passable[:, 0], ~is_warp | flips[:, 0]
    stage = kinds.clone()
    for s in range(1, slots):
        kind = kinds[:, s]
        active = kind >= 0
        if settings.exact:
            joins = never
        else:
            warps = (at == WARP) | (clear & whole[:, s])
            warps = never if settings.fill == "mean" else warps & (flipped | (whole[:, s] & through))
            joins = torch.where(kind == WARP, warps, (kind > at) | ((kind == at) & ((kind == TONE) | (kind == ERASE))))
            joins = joins & active & (round_ >= 0)
        opens = active & ~joins
        round_ = round_ + opens
        at = torch.where(opens, kind, torch.where(joins, torch.maximum(at, kind), at))
        is_warp = kind == WARP
        clear = torch.where(opens, True, clear) & (~active | is_warp | passable[:, s])
        flipped = torch.where(opens, True, flipped) & (~is_warp | flips[:, s])
        stage[:, s] = torch.where(active, round_ * len(KINDS) + kind, -1)
    last = torch.where(round_ >= 0, round_ * len(KINDS) + at, -1)
    return Schedule(stage, last, whole)


def _whole(lowered: Lowered, nearest: bool) -> Tensor:
    """[B, S] bool: the slot's warp maps pixel centres to pixel centres.

    With nearest resampling every warp counts as such: it hands on whole pixels.
    """
    if nearest or WARP not in lowered.rows:
        return torch.ones_like(lowered.place, dtype=torch.bool)
    matrix = lowered.rows[WARP][:, :2]
    turn = (matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]).abs() == 1
    whole = (matrix == matrix.round()).flatten(1).all(1) & turn
    return whole[lowered.place.clamp(max=len(matrix) - 1)]


def _flips(lowered: Lowered, whole: Tensor, size: tuple[int, int], nearest: bool) -> Tensor:
    """[B, S] bool: those of `whole` [B, S] that map the frame to itself as well.

    With nearest resampling all do: each tests every frame by itself.
    """
    if nearest or WARP not in lowered.rows:
        return whole
    matrix = lowered.rows[WARP][:, :2]
    first = matrix[:, :, 2]
    opposite = matrix[:, :, 0] * size[1] + matrix[:, :, 1] * size[0] + first
    low, high = torch.minimum(first, opposite), torch.maximum(first, opposite)
    frame = (low == 0).all(1) & (high[:, 0] == size[1]) & (high[:, 1] == size[0])
    return whole & frame[lowered.place.clamp(max=len(matrix) - 1)]
