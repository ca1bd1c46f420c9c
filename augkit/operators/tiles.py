"""Operators that cut an image into tiles: shuffled (a map of whole pixels) or masked (opaque)."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.operators.base import operator
from augkit.operators.deform import centres, joined
from augkit.operators.erase import MOST_CELLS
from augkit.operators.options import Cells, Degrees, Shares


@operator(
    kind="map",
    range=(0, 1),
    limits=(0, 1),
    unit="of the cells",
    identity=0.0,
    draws=MOST_CELLS**2,
    tolerance=0.0,
    source="Jigsaw puzzles (Noroozi and Favaro 2016), as Kornia RandomJigsaw",
)
def jigsaw(share: Tensor, size: tuple[int, int], u: Tensor, *, cells: Cells = 4) -> Tensor:
    """Exchange such a share of a grid's `cells` by `cells` at random, none staying in place; stronger as it grows.

    Cells have whole pixels; the rest of a size that does not divide, at the bottom and on the right, stays.
    """
    count = cells * cells
    height, width = size[0] // cells, size[1] // cells
    source = cycle(u[:, :count], (share.clamp(0, 1) * count).round())
    here = torch.arange(count, device=u.device)
    down = (source.div(cells, rounding_mode="floor") - here.div(cells, rounding_mode="floor")) * height
    across = (source % cells - here % cells) * width
    row, column = (torch.arange(extent, device=u.device) // max(1, extent // cells) for extent in size)
    inside = (row < cells)[:, None] & (column < cells) & (height > 0 and width > 0)
    cell = (row[:, None] * cells + column).clamp(max=count - 1).view(-1)
    across, down = (part.float().index_select(1, cell).view(-1, *size) * inside for part in (across, down))
    x, y = centres(size, u.device)
    return joined(x + across, y + down)


def cycle(u: Tensor, taking_part: Tensor) -> Tensor:
    """[N, K] uniform numbers and how many take part [N] to [N, K]: a random cycle of so many, the others themselves."""
    order = u.argsort(dim=1)
    place = torch.arange(u.shape[1], device=u.device).expand_as(order)
    last = taking_part[:, None] - 1
    following = torch.where(place < last, place + 1, torch.where(place == last, 0, place))
    return torch.empty_like(order).scatter_(1, order, order.gather(1, following))


@operator(
    range=(0, 0.6),
    limits=(0, 1),
    unit="of the period",
    identity=0.0,
    draws=4,
    keeps_black=True,
    channels="any",
    tolerance=0.0,
    source="GridMask (Chen et al. 2020)",
)
def grid_mask(
    images: Tensor, side: Tensor, u: Tensor, *, period: Shares = (0.4, 1.0), degrees: Degrees = 0.0
) -> Tensor:
    """Paint a regular grid of squares, each such a share of the grid's period wide; stronger as it grows.

    The period is a random share of the shorter side out of `period`, in whole pixels and at least 2; where the grid
    begins is random, and its angle, up to `degrees`.
    """
    height, width = images.shape[2:]
    longest = min(height, width)
    step = ((period[0] + (period[1] - period[0]) * u[:, 0]) * longest).round().clamp(min=2)
    angle = torch.deg2rad(u[:, 3] * degrees)
    x, y = centres((height, width), u.device)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    step_, painted = step.view(-1, 1, 1), (step * side).round().view(-1, 1, 1)
    first, second = ((step * u[:, k]).floor().view(-1, 1, 1) for k in (1, 2))
    hidden = ((x * cos - y * sin + first) % step_ < painted) & ((x * sin + y * cos + second) % step_ < painted)
    return images * ~hidden[:, None]
