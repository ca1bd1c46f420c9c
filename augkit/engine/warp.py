"""Warps: where each pixel comes from, and fetching it.

Coordinates are sums of a part that depends on the column and one that depends on the row, so a warp's own arithmetic is
done on a row and a column, and each pixel costs one addition a coordinate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.engine.plan import ImageSettings
from augkit.engine.rows import to_bytes

ABOVE = 1 / 32
"""Added before truncating an interpolated value: float32 coordinates turn 200 into 199.99."""
EDGE = 1e-4
"""Pixels by which coordinates move for the frame test, so that the left edge is inside and the right one outside."""


def warp(
    images: Tensor, matrices: Tensor, depth: Tensor | None, settings: ImageSettings, *, traced: bool = False
) -> Tensor:
    """Warp each image through one or several matrices.

    Args:
        images: [N, C, H, W] uint8.
        matrices: [N, L, 3, 3] output to input; level 0 is the last warp in time, the first for a coordinate.
        depth: [N] int64, how many of an image's matrices count; those beyond are identities. None for fixed shapes:
            every level over every image.
        settings: resampling and fill.
        traced: for a compiler, which makes one loop of plain arithmetic but not of grid_sample.

    Returns:
        [N, C, H, W] uint8.
    """
    if settings.resample == "nearest":
        if settings.fill == "reflect":
            return _nearest_reflected(images, matrices, depth)
        return _nearest(images, matrices, depth, settings.fill == "mean")
    return _bilinear(images, matrices, depth, settings.fill, traced)


def remap(images: Tensor, source: Tensor, settings: ImageSettings, *, traced: bool = False) -> Tensor:
    """Fetch each pixel from where `source` says.

    Args:
        images: [N, C, H, W] uint8.
        source: [N, H, W, 2] float32 (x, y) in pixel-edge coordinates; what lies outside the frame is fill.
        settings: resampling and fill.
        traced: for a compiler, as for `warp`.

    Returns:
        [N, C, H, W] uint8.
    """
    height, width = images.shape[2:]
    x, y = source.unbind(3)
    if settings.fill == "reflect":
        x, y = _reflect(x, width), _reflect(y, height)
        inside = None
    else:
        inside = (x + (EDGE - width / 2)).abs_() <= width / 2
        inside &= (y + (EDGE - height / 2)).abs_() <= height / 2
    if settings.resample == "nearest":
        column = (x + EDGE).floor().clamp_(0, width - 1).to(torch.int32)
        row = (y + EDGE).floor().clamp_(0, height - 1).to(torch.int32)
        moved = _fetch(images, torch.add(column, row, alpha=width))
    elif traced:
        moved = _between(images, x, y)
    else:
        # joined as complex numbers, since stacking along the last dimension takes three times as long
        grid = torch.view_as_real(torch.complex((x * (2 / width)).sub_(1), (y * (2 / height)).sub_(1)))
        moved = _sampled(images, grid)
    return _filled(images, moved, inside, settings.fill)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear, the border continued, truncated as Pillow does."""
    result = torch.nn.functional.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return to_bytes(result.add_(ABOVE))


def _between(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The same as `_sampled` from pixel-edge coordinates [N, H, W] and in plain arithmetic, but for its rounding."""
    height, width = images.shape[2:]
    x, y = (x - 0.5).clamp(0, width - 1), (y - 0.5).clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    across, down = (x - left)[:, None], (y - top)[:, None]
    columns = [left.long(), (left + 1).clamp(max=width - 1).long()]
    rows = [top.long() * width, (top + 1).clamp(max=height - 1).long() * width]
    corners = [[_fetch(images, row + column).float() for column in columns] for row in rows]
    upper, lower = (first * (1 - across) + second * across for first, second in corners)
    return to_bytes(upper * (1 - down) + lower * down + ABOVE)


def _filled(images: Tensor, moved: Tensor, inside: Tensor | None, fill: str) -> Tensor:
    """`moved`, with fill where `inside` [N, H, W] says no."""
    if inside is None:
        return moved
    return torch.where(inside[:, None], moved, _means(images)) if fill == "mean" else moved.mul_(inside[:, None].byte())


def _parts(matrix: Tensor, row: int, x: Tensor, y: Tensor, upright: bool = False) -> tuple[Tensor, Tensor]:
    """Row 0 (x) or 1 (y) of [N, 3, 3] at coordinates: the part of x and that of y, to be added up."""
    a, b, c = (matrix[:, row, k, None, None] for k in range(3))
    if upright:
        return (a * x, c) if row == 0 else (torch.zeros(()), b * y + c)
    return a * x, b * y + c


def _upright(matrices: Tensor, depth: Tensor | None) -> bool:
    """Whether columns depend on columns and rows on rows alone, in all images: then coordinates are a row and a column.

    Looked for on the host only, where reading a number costs nothing.
    """
    if depth is None or matrices.device.type != "cpu":
        return False
    return not bool(matrices[:, :, 0, 1].any() or matrices[:, :, 1, 0].any())


def _centres(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the columns [1, 1, W] and of the rows [1, H, 1]."""
    x = torch.arange(width, device=device) + 0.5
    y = torch.arange(height, device=device) + 0.5
    return x.view(1, 1, width), y.view(1, height, 1)


def _deeper(depth: Tensor | None, level: int, levels: int) -> Tensor | slice | None:
    """Images with a matrix at this level; in fixed shapes all of them, since the others have identities there."""
    if level >= levels:
        return None
    if depth is None:
        return slice(None)
    found = (depth > level).nonzero()[:, 0]
    return found if len(found) else None


def _nearest(images: Tensor, matrices: Tensor, depth: Tensor | None, mean: bool) -> Tensor:
    """Whole pixels, out of images with a border of fill, so that clamping a coordinate is the frame test."""
    height, width = images.shape[2:]
    centres = _centres(height, width, images.device)
    upright = _upright(matrices, depth)
    x, y = (_bordered(matrices[:, 0], row, *centres, extent, upright) for row, extent in ((0, width), (1, height)))
    level = 1
    while (rows := _deeper(depth, level, matrices.shape[1])) is not None:
        seen_x, seen_y = x[rows], y[rows]
        left, above = (seen_x == 0) | (seen_x > width), (seen_y == 0) | (seen_y > height)
        left = left if upright else left | above
        middles, matrix = (seen_x - 0.5, seen_y - 0.5), matrices[rows, level]
        x[rows] = _bordered(matrix, 0, *middles, width, upright).masked_fill_(left, 0)
        y[rows] = _bordered(matrix, 1, *middles, height, upright).masked_fill_(above, 0)
        level += 1
    if upright:
        x, y = x.long(), y.long()
    index = torch.add(x, y, alpha=width + 2)
    return _fetch(_with_border(images, mean), index)


def _bordered(matrix: Tensor, row: int, x: Tensor, y: Tensor, extent: int, upright: bool) -> Tensor:
    """[N, H, W] int32: the source's column (or row) plus 1; 0 and extent + 1 are the border.

    `upright`: [N, 1, W] for columns and [N, H, 1] for rows.
    """
    first, second = _parts(matrix, row, x, y, upright)
    return torch.add(first, second + 1).clamp_(0, extent + 1).to(torch.int32)


def _with_border(images: Tensor, mean: bool) -> Tensor:
    """[N, C, H, W] to [N, C, H + 2, W + 2] with a border of black, or of each channel's mean."""
    if not mean:
        return torch.nn.functional.pad(images, (1, 1, 1, 1))
    count, channels, height, width = images.shape
    result = _means(images).expand(count, channels, height + 2, width + 2).clone()
    result[:, :, 1:-1, 1:-1] = images
    return result


def _means(images: Tensor) -> Tensor:
    """[N, C, 1, 1] uint8, rounded."""
    return images.float().mean((2, 3), keepdim=True).round().to(torch.uint8)


def _nearest_reflected(images: Tensor, matrices: Tensor, depth: Tensor | None) -> Tensor:
    height, width = images.shape[2:]
    centres = _centres(height, width, images.device)
    x, y = (_mirrored(matrices[:, 0], row, *centres, extent) for row, extent in ((0, width), (1, height)))
    level = 1
    while (rows := _deeper(depth, level, matrices.shape[1])) is not None:
        middle_x, middle_y = x[rows] + 0.5, y[rows] + 0.5
        matrix = matrices[rows, level]
        x[rows] = _mirrored(matrix, 0, middle_x, middle_y, width)
        y[rows] = _mirrored(matrix, 1, middle_x, middle_y, height)
        level += 1
    return _fetch(images, torch.add(x, y, alpha=width))


def _mirrored(matrix: Tensor, row: int, x: Tensor, y: Tensor, extent: int) -> Tensor:
    """[N, H, W] int32 column (or row) of the source, mirrored at the outer edges any number of times."""
    first, second = _parts(matrix, row, x, y)
    return _reflect(first + second, extent).clamp_(0, extent - 1).to(torch.int32)


def _reflect(x: Tensor, extent: int) -> Tensor:
    return extent - (torch.remainder(x, 2 * extent) - extent).abs_()


def _fetch(source: Tensor, index: Tensor) -> Tensor:
    """Pixels [N, C, H, W] of `source` [N, C, h, w] at flat positions [N, H, W] int32."""
    count, channels = source.shape[:2]
    every = index.long().view(count, 1, -1).expand(count, channels, index[0].numel())
    return source.flatten(2).gather(2, every).view(count, channels, *index.shape[1:])


def _bilinear(images: Tensor, matrices: Tensor, depth: Tensor | None, fill: str, traced: bool) -> Tensor:
    """Average four pixels; beyond the outermost centres the border continues. The result is truncated, as Pillow's."""
    height, width = images.shape[2:]
    whole = matrices[:, 0]
    upright = _upright(matrices, depth)
    inside = _inside(whole, height, width, upright) if fill != "reflect" else None
    level = 1
    while (rows := _deeper(depth, level, matrices.shape[1])) is not None:
        whole = product(matrices[:, level], whole)
        if inside is not None:
            inside[rows] &= _inside(whole[rows], height, width, upright)
        level += 1
    if not traced:
        return _filled(images, _sampled(images, _grid(whole, height, width, fill)), inside, fill)
    centres = _centres(height, width, images.device)
    x, y = (torch.add(*_parts(whole, row, *centres)) for row in range(2))
    if fill == "reflect":
        x, y = _reflect(x, width), _reflect(y, height)
    return _filled(images, _between(images, x, y), inside, fill)


def product(second: Tensor, first: Tensor) -> Tensor:
    """[N, 3, 3] matrices multiplied; not by a matrix product, which a GPU may be set to round to ten bits."""
    return (second[:, :, :, None] * first[:, None]).sum(2)


def _scaled(matrix: Tensor, height: int, width: int, shift: float = 0.0) -> Tensor:
    """[N, 3, 3] to pixels, to the same to -1..1 over the frame; `shift` in pixels is added first."""
    result = matrix.clone()
    for row, extent in enumerate((width, height)):
        result[:, row] *= 2 / extent
        result[:, row, 2] += 2 / extent * shift - 1
    return result


def _inside(matrix: Tensor, height: int, width: int, upright: bool = False) -> Tensor:
    """[N, H, W] bool: whether the source lies in the frame, 0 <= x < W and 0 <= y < H."""
    scaled = _scaled(matrix, height, width, EDGE)
    centres = _centres(height, width, matrix.device)
    x, y = (torch.add(*_parts(scaled, row, *centres, upright)).abs_() for row in range(2))
    return (x <= 1) & (y <= 1) if upright else torch.maximum(x, y, out=x) <= 1


def _grid(matrix: Tensor, height: int, width: int, fill: str) -> Tensor:
    """What grid_sample takes, [N, H, W, 2], as complex numbers: one addition a pixel and nothing to interleave."""
    scaled = _scaled(matrix, height, width)
    centres = _centres(height, width, matrix.device)
    x, y = (_parts(scaled, row, *centres) for row in range(2))
    grid = torch.view_as_real(torch.complex(x[0], y[0]) + torch.complex(x[1], y[1]))
    if fill == "reflect":
        grid = _reflect(grid + 1, 2).sub_(1)
    return grid
