"""Operators that bend images: each lowers to a map [N, H, W, 2], where each pixel comes from, (x, y) at pixel edges.

Maps are sums of a few smooth shapes, so that they cost a small product of matrices and not a filter over noise.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce

import torch
from torch import Tensor

from augkit.operators.base import operator
from augkit.operators.noise import pixel_normal
from augkit.operators.options import Smoothness, Steps

MOST_STEPS = 10
CONTROL = 3
"""Control points of a thin plate along each side."""


def centres(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """x [W] and y [H, 1] of the pixels, float32."""
    rows, columns = (torch.arange(extent, device=device) + 0.5 for extent in size)
    return columns, rows[:, None]


def joined(x: Tensor, y: Tensor) -> Tensor:
    """x and y [N, H, W] to the map [N, H, W, 2], by way of complex numbers: a third of the time of stacking."""
    return torch.view_as_real(torch.complex(x, y))


def _multiples(numbers: Tensor, bits: int, device: torch.device | None = None) -> Tensor:
    """float64, where the device has it, rounded to multiples of 2^-bits.

    Products of matrices add up in an order that depends on how many images there are. As long as all bits of all terms
    fit the 53 of float64, every order gives the same number, so an image's map does not depend on its batch.
    """
    device = device or numbers.device
    wide = numbers.float() if device.type == "mps" else numbers.double()
    return (wide * 2.0**bits).round_().mul_(2.0**-bits).to(device)


@operator(
    kind="map",
    range=(0, 0.5),
    limits=(0, 0.95),
    unit="of half the side",
    identity=0.0,
    draws=8,
    tolerance=0.3,
    source="torchvision RandomPerspective",
)
def perspective(distortion: Tensor, size: tuple[int, int], u: Tensor) -> Tensor:
    """Move each corner inwards by a random share of half the side, up to the distortion; stronger as it grows."""
    inwards = (distortion[:, None] * u / 2).view(-1, 4, 2)
    corners = torch.stack(
        [
            torch.stack((x + inwards[:, k, 0] * (1 - 2 * x), y + inwards[:, k, 1] * (1 - 2 * y)), dim=1)
            for k, (x, y) in enumerate(((0, 0), (1, 0), (1, 1), (0, 1)))
        ],
        dim=1,
    )
    matrix = _adjugate(_square_to(corners))[..., None, None]
    height, width = size
    x, y = centres(size, u.device)
    # each row is a part that depends on the column and one that depends on the row: one addition a pixel
    rows = [matrix[:, k, 0] * (x / width) + (matrix[:, k, 1] * (y / height) + matrix[:, k, 2]) for k in range(3)]
    return joined((rows[0] / rows[2]).mul_(width), (rows[1] / rows[2]).mul_(height))


def _square_to(corners: Tensor) -> Tensor:
    """[N, 4, 2] corners to [N, 3, 3]: takes the unit square's corners there (Heckbert 1989)."""
    (x0, x1, x2, x3), (y0, y1, y2, y3) = (corners[..., axis].unbind(1) for axis in range(2))
    sum_x, sum_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    ax, ay, bx, by = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    area = ax * by - bx * ay
    g, h = (sum_x * by - bx * sum_y) / area, (ax * sum_y - sum_x * ay) / area
    entries = [x1 - x0 + g * x1, x3 - x0 + h * x3, x0, y1 - y0 + g * y1, y3 - y0 + h * y3, y0, g, h, torch.ones_like(g)]
    return torch.stack(entries, dim=1).view(-1, 3, 3)


def _adjugate(matrix: Tensor) -> Tensor:
    """[N, 3, 3]: the inverse up to a factor, which a perspective does not see."""
    first, second, third = matrix.unbind(2)
    return torch.stack((second.cross(third, 1), third.cross(first, 1), first.cross(second, 1)), dim=1)


@operator(
    kind="map",
    range=(0, 0.1),
    limits=(0, 0.5),
    unit="of the side",
    identity=0.0,
    draws=2 * CONTROL**2,
    tolerance=0.3,
    source="kornia RandomThinPlateSpline, on 3 x 3 points",
)
def thin_plate(reach: Tensor, size: tuple[int, int], u: Tensor) -> Tensor:
    """Move 3 x 3 points by random amounts up to `reach` and bend the rest smoothly; stronger as it grows."""
    moved = (reach[:, None] * (2 * u - 1)).view(-1, CONTROL**2, 2).transpose(1, 2)
    height, width = size
    field = (_multiples(moved, 24) @ _plate(size, u.device)).float()
    across, down = field.view(-1, 2, height, width).unbind(1)
    x, y = centres(size, u.device)
    return joined(x + across * width, y + down * height)


@lru_cache(maxsize=4)
def _plate(size: tuple[int, int], device: torch.device) -> Tensor:
    """[9, H * W]: how far each pixel goes along with each control point; both on the unit square."""
    along = torch.linspace(0, 1, CONTROL, dtype=torch.float64)
    points = torch.cartesian_prod(along, along).flip(1)
    count = len(points)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count] = _bends(points, points)
    system[count:, :count] = system[:count, count:].T
    scale = torch.tensor([size[1], size[0]])
    x, y = centres(size, torch.device("cpu"))
    pixels = torch.stack((x.expand(size), y.expand(size)), dim=2).double().view(-1, 2) / scale
    return _multiples((_bends(pixels, points) @ system.inverse()[:, :count]).T.contiguous(), 24, device)


def _bends(places: Tensor, points: Tensor) -> Tensor:
    """[M, 2] and [K, 2] to [M, K + 3]: the radial functions r^2 log r^2, and 1, x, y (Bookstein 1989)."""
    squared = (places[:, None] - points).square().sum(2)
    return torch.cat((torch.xlogy(squared, squared), torch.ones_like(places[:, :1]), places), dim=1)


@operator(
    kind="map",
    range=(0, 0.5),
    limits=(0, 0.95),
    unit="of a cell",
    identity=0.0,
    draws=2 * MOST_STEPS,
    tolerance=0.3,
    source="albumentations GridDistortion, normalised",
)
def grid_distortion(stretch: Tensor, size: tuple[int, int], u: Tensor, *, steps: Steps = 5) -> Tensor:
    """Stretch and shrink the columns and rows of a grid at random, keeping the frame; stronger as it grows.

    Each of `steps` columns (and rows) gets a random part of the image, 1 +- `stretch` before they are made to fit.
    """
    along = []
    for axis, extent in ((0, size[1]), (1, size[0])):
        part = 1 + stretch[:, None] * (2 * u[:, axis * MOST_STEPS : axis * MOST_STEPS + steps] - 1)
        part = part / part.sum(1, keepdim=True)
        place = (torch.arange(extent, device=u.device) + 0.5) * (steps / extent)
        passed = (place - torch.arange(steps, device=u.device)[:, None]).clamp(0, 1)
        # term by term: `sum` adds in another order where a batch has other numbers of images
        along.append(reduce(torch.add, [part[:, step, None] * passed[step] for step in range(steps)]) * extent)
    x, y = along
    shape = (len(u), *size)
    return joined(x[:, None].expand(shape), y[:, :, None].expand(shape))


@operator(
    kind="map",
    range=(0, 0.3),
    limits=(-0.3, 3),
    unit="at the corners",
    signed=True,
    identity=0.0,
    tolerance=0.3,
    source="Brown's radial term, as OpenCV initUndistortRectifyMap",
)
def lens_distortion(k: Tensor, size: tuple[int, int]) -> Tensor:
    """Barrel (positive) or pincushion, by 1 + k r^2 with r = 1 at the corners; stronger with the distance from 0."""
    return _radial(size, 1 + k[:, None, None] * _squared_radius(size, k.device))


@operator(
    kind="map",
    range=(1, 2),
    limits=(0.2, 5),
    unit="power",
    identity=1.0,
    tolerance=0.3,
    source="the usual power law of the radius",
)
def fisheye(power: Tensor, size: tuple[int, int]) -> Tensor:
    """Swell the centre by r^power with r = 1 at the corners, which stay; stronger with the distance from 1."""
    logarithm = _squared_radius(size, power.device).clamp(min=1e-12).log() / 2
    return _radial(size, ((power[:, None, None] - 1) * logarithm).exp_())


def _offsets(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """x [W] and y [H, 1] from the centre, float32."""
    x, y = centres(size, device)
    return x - size[1] / 2, y - size[0] / 2


def _squared_radius(size: tuple[int, int], device: torch.device) -> Tensor:
    """[H, W] float32: the square of the distance from the centre, 1 at the corners."""
    x, y = _offsets(size, device)
    return (x.square() + y.square()) / (math.hypot(*size) / 2) ** 2


def _radial(size: tuple[int, int], factor: Tensor) -> Tensor:
    """The map [N, H, W, 2] in which a pixel comes from `factor` [N, H, W] times as far from the centre."""
    x, y = _offsets(size, factor.device)
    return joined((factor * x).add_(size[1] / 2), (factor * y).add_(size[0] / 2))


@operator(
    kind="map",
    range=(0, 0.04),
    limits=(0, 0.5),
    unit="of the shorter side",
    identity=0.0,
    draws=2,
    tolerance=0.3,
    source="Simard et al. 2003; torchvision and albumentations ElasticTransform",
)
def elastic(distance: Tensor, size: tuple[int, int], u: Tensor, *, sigma: Smoothness = 0.1) -> Tensor:
    """Push pixels about by smooth random fields with this root mean square; stronger as it grows.

    `sigma`, a share of the shorter side, is the standard deviation of the Gaussian that would smooth noise at each
    pixel as much. The noise stands on a lattice and is spread by cubic splines, which look alike and cost a hundredth.
    """
    shorter = min(size)
    down, across = (_splines(extent, sigma * shorter * math.sqrt(3), u.device) for extent in size)
    field = (down @ _multiples(pixel_normal(u, (2, down.shape[1], across.shape[1])), 16) @ across.T).float()
    x, y = centres(size, u.device)
    far = (distance * shorter).view(-1, 1, 1)
    return joined(torch.addcmul(x, field[:, 0], far), torch.addcmul(y, field[:, 1], far))


@lru_cache(maxsize=32)
def _splines(extent: int, spacing: float, device: torch.device) -> Tensor:
    """[extent, K]: weights of lattice points `spacing` pixels apart at each pixel's centre, of squares that sum to 1.

    The variance of a cubic B-spline is a third of its spacing squared, which is what ties it to a Gaussian's.
    """
    points = torch.arange(math.ceil(extent / spacing) + 3)
    place = (torch.arange(extent) + 0.5) / spacing
    away = (place[:, None] - (points - 1)).abs()
    near, far = 2 / 3 - away.square() + away**3 / 2, (2 - away).clamp(min=0) ** 3 / 6
    weights = torch.where(away < 1, near, far)
    return _multiples(weights / weights.square().sum(1, keepdim=True).sqrt(), 16, device)
