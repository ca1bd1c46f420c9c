"""Operators that paint a box: each lowers to [N, 4] boxes (top, left, bottom, right) in pixels, half open."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augkit.operators.base import operator
from augkit.operators.options import Aspects, Length, Shares

TRIES = 10


@operator(kind="erase", draws=2, keeps_black=True, source="Cutout (DeVries and Taylor 2017)", tolerance=0.0)
def cutout(size: tuple[int, int], u: Tensor, *, length: Length = 16) -> Tensor:
    """Paint a square of `length` pixels around a random pixel, cut off at the border; no strength."""
    edges = []
    for axis, extent in enumerate(size):
        start = (u[:, axis] * extent).floor().clamp(max=extent - 1) - length // 2
        edges.append((start.clamp(min=0), (start + length).clamp(max=extent)))
    (top, bottom), (left, right) = edges
    return torch.stack([top, left, bottom, right], dim=1)


@operator(
    kind="erase",
    draws=2 * TRIES + 2,
    keeps_black=True,
    source="Random erasing (Zhong et al. 2020), as timm",
    tolerance=0.0,
)
def random_erasing(
    size: tuple[int, int],
    u: Tensor,
    *,
    scale: Shares = (0.02, 1 / 3),
    ratio: Aspects = (0.3, 10 / 3),
) -> Tensor:
    """Paint a box of a random share of the area and a random aspect; no strength.

    The first of ten tries that fits, else nothing. `u` [N, 22]: ten areas, ten aspects, and the place.
    """
    height, width = size
    area = (scale[0] + (scale[1] - scale[0]) * u[:, :TRIES]) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * u[:, TRIES : 2 * TRIES]).exp()
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.float().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    h, w = tall.gather(1, first)[:, 0] * found, wide.gather(1, first)[:, 0] * found
    top = torch.minimum((u[:, 2 * TRIES] * (height - h + 1)).floor(), height - h)
    left = torch.minimum((u[:, 2 * TRIES + 1] * (width - w + 1)).floor(), width - w)
    return torch.stack([top, left, top + h, left + w], dim=1)
