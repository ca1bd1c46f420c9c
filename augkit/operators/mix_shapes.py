"""Mixing images with their partners: boxes, masks and shares of many images at once; the pixels are the executor's."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from augkit.operators.noise import pixel_normal

CYCLES = 16
"""Highest frequency of an fmix mask in cycles an image: what lies beyond has under a hundredth of its amplitude."""
DECAY = 3
SAMPLES = 64
"""Values along a side that an fmix mask's threshold is found from: exact up to this size, close beyond."""


def cutmix_boxes(lam: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the partner shows: [N, 4] int64 (top, left, bottom, right), half open, clipped to the image.

    Args:
        lam: [N] float32 in 0..1, the share of the image that was drawn; the unclipped box covers 1 - lam.
        centre: [N, 2] float32 in 0..1, (y, x) of the box's centre.
        size: (H, W).
    """
    side = (1 - lam.clamp(0, 1)).sqrt()
    edges = []
    for axis, extent in enumerate(size):
        half = ((side * extent).floor() / 2).floor()
        middle = (centre[:, axis] * extent).floor().clamp(max=extent - 1)
        edges.append(((middle - half).clamp(min=0), (middle + half).clamp(max=extent)))
    (top, bottom), (left, right) = edges
    return torch.stack([top, left, bottom, right], dim=1).long()


def resizemix_boxes(lam: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the shrunken partner shows: [N, 4] int64 (top, left, bottom, right), half open, whole inside the image.

    Args:
        lam: [N] float32 in 0..1; the partner's sides are sqrt(1 - lam) of the image's, rounded down.
        place: [N, 2] float32 in [0, 1), (y, x): how far the box lies along the room it has.
        size: (H, W).
    """
    side = (1 - lam.clamp(0, 1)).sqrt()
    edges = []
    for axis, extent in enumerate(size):
        length = (side * extent).floor()
        start = torch.minimum((place[:, axis] * (extent - length + 1)).floor(), extent - length)
        edges.append((start, start + length))
    (top, bottom), (left, right) = edges
    return torch.stack([top, left, bottom, right], dim=1).long()


def kept_share(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """What is left of the image outside its box: [N, 4] to [N] float32, the weight of its own label."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return 1 - area.float() / max(1, size[0] * size[1])


def fmix_masks(lam: Tensor, u: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the image itself shows: [N, H, W] bool, a share `lam` of it in smooth random patches (FMix, 2020).

    Normal numbers over the frequencies, weighted by frequency^-3, make a smooth field; its highest values are kept.

    Args:
        lam: [N] float32 in 0..1.
        u: [N, K] uniform numbers that the field is hashed from.
        size: (H, W).
    """
    down, across, weights = _waves(size, u.device)
    real, imaginary = (pixel_normal(u, (2, *weights.shape)) * weights).unbind(1)
    upper, lower = torch.cat((real, imaginary), dim=2), torch.cat((-imaginary, real), dim=2)
    field = down @ torch.cat((upper, lower), dim=1) @ across.T
    steps = [-(-extent // SAMPLES) for extent in size]
    ordered = field[:, :: steps[0], :: steps[1]].flatten(1).sort(dim=1).values
    count = ordered.shape[1]
    kept = (lam.clamp(0, 1) * count).round().long()[:, None]
    limit = ordered.gather(1, (count - kept).clamp(max=count - 1))
    limit = limit.masked_fill(kept == 0, math.inf).masked_fill(kept == count, -math.inf)
    return field >= limit[..., None]


@lru_cache(maxsize=16)
def _waves(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Waves down [H, 2K] and across [W, 2M] the image, and the weights [K, M] of their frequencies.

    A field is down @ [[a, b], [-b, a]] @ across.T with [K, M] real parts a and imaginary parts b: what an inverse real
    Fourier transform would give, up to a factor.
    """
    height, width = size
    rows, columns = torch.arange(-CYCLES, CYCLES + 1), torch.arange(CYCLES + 1)
    down, across = (
        2 * math.pi / extent * torch.arange(extent, dtype=torch.float64)[:, None] * cycles
        for extent, cycles in ((height, rows), (width, columns))
    )
    frequency = ((rows[:, None] / height) ** 2 + (columns / width) ** 2).sqrt()
    exists = ((rows >= -(height // 2)) & (rows <= (height - 1) // 2))[:, None] & (columns <= width // 2)
    twice = 2.0 - ((columns == 0) | (2 * columns == width)).float()  # the other half of a real field's spectrum
    weights = exists * twice / frequency.clamp(min=1 / max(size)) ** DECAY
    weights = weights / weights.square().sum().sqrt()
    waves = (torch.cat((down.cos(), down.sin()), 1), torch.cat((across.cos(), -across.sin()), 1), weights)
    return tuple(wave.float().to(device) for wave in waves)  # type: ignore[return-value]


def mosaic_cuts(centre: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The row and the column where a mosaic's four images meet, [N] float32 whole numbers each (RICAP, 2018)."""
    return (centre[:, 0] * size[0]).round(), (centre[:, 1] * size[1]).round()


def mosaic_shares(centre: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, 4] float32: the areas of the upper left, upper right, lower left and lower right part; they sum to 1."""
    row, column = mosaic_cuts(centre, size)
    rows, columns = torch.stack((row, size[0] - row), dim=1), torch.stack((column, size[1] - column), dim=1)
    return (rows[:, :, None] * columns[:, None]).flatten(1) / max(1, size[0] * size[1])


def mosaic_sources(centre: Tensor, u: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel which of the four images it shows, [N, H, W] int64, and that image's row and column.

    Each part shows a random crop of its image, in whole pixels. `u` [N, 8]: down and across for each part.
    """
    cuts = mosaic_cuts(centre, size)
    height, width = (torch.arange(extent, device=u.device) for extent in size)
    below, right = (height >= cuts[0][:, None])[:, :, None], (width >= cuts[1][:, None])[:, None]
    part = below * 2 + right * 1
    places = []
    for axis, here in ((0, height.view(1, -1, 1)), (1, width.view(1, 1, -1))):
        start = torch.stack((torch.zeros_like(cuts[axis]), cuts[axis]), dim=1)
        length = torch.stack((cuts[axis], size[axis] - cuts[axis]), dim=1)
        start, length = (t.repeat_interleave(2, 1) if axis == 0 else t.repeat(1, 2) for t in (start, length))
        crop = (u[:, 4 * axis : 4 * axis + 4] * (size[axis] - length + 1)).floor()
        shift = (torch.minimum(crop, size[axis] - length) - start).long()
        places.append(here + shift.gather(1, part.flatten(1)).view(part.shape))
    return part, places[0], places[1]
