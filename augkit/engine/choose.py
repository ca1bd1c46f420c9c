"""Weighted draws, with one rule for weights: what is not positive counts as 0, and where all are 0 nothing is drawn."""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST = 1e30
"""Weights are cut here, so that their sum stays finite."""


def clean(weights: Tensor) -> Tensor:
    """Weights of 0 or more, NaN as 0; any shape."""
    return weights.nan_to_num(nan=0.0, posinf=_LARGEST).clamp(0, _LARGEST)


def weighted(weights: Tensor, u: Tensor) -> Tensor:
    """Positions drawn in proportion to weights, with replacement.

    Args:
        weights: [B, N].
        u: [B, K] uniform in [0, 1).

    Returns:
        [B, K] int64; -1 where no weight is positive.
    """
    if not weights.shape[1]:
        return torch.full(u.shape, -1, dtype=torch.int64, device=u.device)
    total = clean(weights).cumsum(1).contiguous()
    reach = (u * total[:, -1:]).contiguous()
    # right=True passes over positions of weight 0 that share a boundary
    drawn = torch.searchsorted(total, reach, right=True).clamp(max=weights.shape[1] - 1)
    return torch.where(total[:, -1:] > 0, drawn, -1)


def weighted_without_replacement(weights: Tensor, u: Tensor, count: int) -> Tensor:
    """Different positions in drawn order, in proportion to weights (Efraimidis and Spirakis 2006).

    Args:
        weights: [B, N].
        u: [B, N] uniform in [0, 1).
        count: K, how many to draw.

    Returns:
        [B, K] int64; -1 where no positive weight is left.
    """
    noise = -torch.log(-torch.log(u.clamp(1e-12, 1 - 1e-7)))
    best = (clean(weights).log() + noise).topk(min(count, weights.shape[1]), dim=1)
    drawn = torch.where(best.values > float("-inf"), best.indices, -1)
    return torch.nn.functional.pad(drawn, (0, count - drawn.shape[1]), value=-1)
