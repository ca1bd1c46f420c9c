"""Which slots of which image run together as one pass.

Every image goes through *rounds*. A round runs its passes in one fixed order - warp, colour, kernel, tone, erase, opaque -
and holds at most one of each. A slot joins the round under way if its kind comes later in that order, or if it may
merge with the pass of its own kind; a warp may also step back before the pointwise passes that let it. Otherwise the slot
opens the next round. All of it is arithmetic over [B] tensors, one step a slot, so it costs the same for any mixture of
operators and never waits for a device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.engine.lowering import COLOR, ERASE, KINDS, TONE, WARP, Lowered, facts
from augkit.engine.plan import Plan


@dataclass(frozen=True)
class Schedule:
    """`stage` [B, S] int64: round * len(KINDS) + kind, -1 for slots without effect."""

    stage: Tensor
    last: Tensor
    """[B] int64: the last stage of each image, -1 where nothing happens."""


def schedule(plan: Plan, lowered: Lowered) -> Schedule:
    """Assign each slot of each image its round.

    The rules, and why they change no pixel beyond rounding:

    - nearest warps merge by applying their coordinate maps, rounding included, one after another: bit for bit the same.
    - bilinear warps merge unless both would interpolate, since two interpolations blur more than one.
    - a warp steps back before a pointwise pass that maps the fill to itself and does not look at the image's statistics;
      a bilinear one only if it moves whole pixels, since a table of an average is no average of tables.
    - with the image's mean as fill no warp merges or steps back: each has a fill of its own.
    - tables compose, boxes unite; matrices multiply only if the first cannot leave 0..255, where values would be clipped.
    """
    known = facts(plan.choices, plan.choice.device)
    batch, slots = plan.choice.shape
    device = plan.choice.device
    kinds = known.kind[plan.choice]
    settings = plan.image
    passable = known.transparent if settings.fill == "black" else known.blind
    passable = passable[plan.choice]
    whole = _whole(lowered) if settings.resample != "nearest" else torch.ones_like(plan.choice, dtype=torch.bool)
    bounded = _bounded(lowered, kinds)
    never = torch.zeros(batch, dtype=torch.bool, device=device)
    round_ = torch.full((batch,), -1, dtype=torch.int64, device=device)
    at, clear, straight, tame = round_.clone(), ~never, ~never, ~never
    stage = torch.full_like(plan.choice, -1)
    for s in range(slots):
        kind = kinds[:, s]
        active = kind >= 0
        if settings.exact:
            joins = never
        else:
            warps = (at == WARP) | (clear & whole[:, s])
            if settings.fill == "mean":
                warps = never
            else:
                warps = warps & (whole[:, s] | straight)
            same = (kind == TONE) | (kind == ERASE) | ((kind == COLOR) & tame)
            joins = torch.where(kind == WARP, warps, (kind > at) | ((kind == at) & same))
            joins = joins & active & (round_ >= 0)
        opens = active & ~joins
        round_ = round_ + opens
        at = torch.where(opens, kind, torch.where(joins, torch.maximum(at, kind), at))
        is_warp = kind == WARP
        clear = torch.where(opens, True, clear) & (~active | is_warp | passable[:, s])
        straight = torch.where(opens, True, straight) & (~is_warp | whole[:, s])
        tame = torch.where(opens, True, tame) & ((kind != COLOR) | bounded[:, s])
        stage[:, s] = torch.where(active, round_ * len(KINDS) + kind, -1)
    last = torch.where(round_ >= 0, round_ * len(KINDS) + at, -1)
    return Schedule(stage, last)


def _whole(lowered: Lowered) -> Tensor:
    """[B, S] bool: the slot's warp maps pixel centres to pixel centres (a flip, a quarter turn, a shift by whole pixels)."""
    if WARP not in lowered.rows:
        return torch.ones_like(lowered.place, dtype=torch.bool)
    matrix = lowered.rows[WARP][:, :2]
    turn = (matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]).abs() == 1
    flags = (matrix == matrix.round()).flatten(1).all(1) & turn
    return flags[lowered.place.clamp(max=flags.shape[0] - 1)]


def _bounded(lowered: Lowered, kinds: Tensor) -> Tensor:
    """[B, S] bool: the slot's colour matrix keeps 0..255 within 0..255, so that nothing is clipped."""
    if COLOR not in lowered.rows:
        return torch.ones_like(kinds, dtype=torch.bool)
    matrix = lowered.rows[COLOR]
    above = matrix[:, :, :3].clamp(min=0).sum(2) * 255 + matrix[:, :, 3] < 256
    below = matrix[:, :, :3].clamp(max=0).sum(2) * 255 + matrix[:, :, 3] >= 0
    flags = (above & below).all(1)
    return flags[lowered.place.clamp(max=flags.shape[0] - 1)]


def describe(stage: int) -> str:
    """'round 1, tone' of a stage's number, for people."""
    return f"round {stage // len(KINDS)}, {KINDS[stage % len(KINDS)]}"
