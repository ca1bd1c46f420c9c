"""Warps: where each pixel comes from, and fetching it."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.engine.plan import ImageSettings
from augkit.engine.rows import to_bytes

ABOVE = 1 / 64
"""Added before truncating an interpolated value: float32 coordinates turn 200 into 199.99."""


def warp(images: Tensor, matrices: Tensor, depth: Tensor, settings: ImageSettings) -> Tensor:
    """Warp each image through one or several matrices.

    Args:
        images: [N, C, H, W] uint8.
        matrices: [N, L, 3, 3] output to input; level 0 is the last warp in time, the first for a coordinate.
        depth: [N] int64, how many of an image's matrices count; those beyond are identities.
        settings: resampling and fill.

    Returns:
        [N, C, H, W] uint8.
    """
    x, y, inside = _source(matrices, depth, (images.shape[2], images.shape[3]), settings)
    moved = _fetch(images, x, y) if settings.resample == "nearest" else _interpolate(images, x, y)
    if inside is None:
        return moved
    if settings.fill == "mean":
        return torch.where(inside[:, None], moved, images.float().mean((2, 3), keepdim=True).round().to(torch.uint8))
    return moved.mul_(inside.view(torch.uint8)[:, None])


def _source(
    matrices: Tensor, depth: Tensor, size: tuple[int, int], settings: ImageSettings
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pixel-edge coordinates [N, H, W] that each output pixel reads, clamped, and whether all frames held it."""
    height, width = size
    nearest = settings.resample == "nearest"
    device = matrices.device
    x = torch.arange(width, device=device).add(0.5).view(1, 1, width)
    y = torch.arange(height, device=device).add(0.5).view(1, height, 1)
    x, y = _apply(matrices[:, 0], x, y)
    x, y, inside = _frame(x, y, size, settings)
    for level in range(1, matrices.shape[1]):
        if device.type == "cpu":
            deeper = (depth > level).nonzero()[:, 0]
            if not len(deeper):
                break
            further_x, further_y = _centres(x[deeper], y[deeper], nearest)
            further_x, further_y, held = _frame(*_apply(matrices[deeper, level], further_x, further_y), size, settings)
            x[deeper], y[deeper] = further_x, further_y
            if inside is not None and held is not None:
                inside[deeper] &= held
        else:
            x, y = _centres(x, y, nearest)
            x, y, held = _frame(*_apply(matrices[:, level], x, y), size, settings)
            if inside is not None and held is not None:
                inside &= held
    return x, y, inside


def _centres(x: Tensor, y: Tensor, nearest: bool) -> tuple[Tensor, Tensor]:
    """Where the next coordinate map starts: nearest warps hand on whole pixels, so their centres."""
    return (x + 0.5, y + 0.5) if nearest else (x, y)


def _apply(matrix: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 3, 3] to coordinates."""
    a, b, c, d, e, f = (matrix[:, i, j, None, None] for i in range(2) for j in range(3))
    return a * x + (b * y + c), d * x + (e * y + f)


def _frame(
    x: Tensor, y: Tensor, size: tuple[int, int], settings: ImageSettings
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Coordinates within the frame (whole numbers for nearest) and which of them were."""
    height, width = size
    if settings.fill == "reflect":
        x, y = _reflect(x, width), _reflect(y, height)
        if settings.resample == "nearest":
            x, y = x.floor_().clamp_(max=width - 1), y.floor_().clamp_(max=height - 1)
        return x, y, None
    if settings.resample == "nearest":
        x, y = x.floor_(), y.floor_()
        within_x, within_y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        return within_x, within_y, (within_x == x).logical_and_(within_y == y)
    inside = (x >= 0).logical_and_(x < width).logical_and_(y >= 0).logical_and_(y < height)
    return x, y, inside


def _reflect(x: Tensor, extent: int) -> Tensor:
    """Mirror at the outer edges of the border pixels, any number of times."""
    return extent - (torch.remainder(x, 2 * extent) - extent).abs_()


def _fetch(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Read whole pixels: [N, C, H, W] uint8 and [N, H, W] whole float32 coordinates."""
    count, channels, height, width = images.shape
    exact = height * width < 1 << 24  # whole numbers up to there are exact in float32
    index = (y * width).add_(x).long() if exact else y.long().mul_(width).add_(x.long())
    index = index.view(count, 1, -1).expand(count, channels, height * width)
    return images.reshape(count, channels, -1).gather(2, index).view_as(images)


def _interpolate(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Average four pixels; beyond the outermost centres the border continues. The result is truncated, as Pillow's."""
    height, width = images.shape[2:]
    grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], dim=3)
    result = torch.nn.functional.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return to_bytes(result.add_(ABOVE))
