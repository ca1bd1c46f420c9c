"""Warps without rotation or shear, on one image: flips, shifts and crops cost a fraction of a general warp."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from augkit.engine.plan import ImageSettings

Array = np.ndarray
Take = Callable[[tuple[int, ...]], Array]
HALF = 0.5
"""OpenCV rounds where Pillow truncates."""
NEAR = 1e-4
"""Pixels by which a border may miss a whole one and still be meant as it."""


def move(
    image: Array, packed: bool, across: tuple[float, float], down: tuple[float, float], how: ImageSettings, take: Take
) -> Array | None:
    """Where pixel edge p shows `scale * p + start`, along each axis; None where that takes a general warp.

    Args:
        image: [C, H, W] uint8, or [H, W, C] if `packed`.
        packed: how the image lies.
        across: scale and start along the columns.
        down: the same along the rows.
        how: resampling and fill.
        take: gives an array of a shape.
    """
    first = 0 if packed else 1
    height, width = image.shape[first : first + 2]
    sideways, over = across == (-1.0, width), down == (-1.0, height)
    if (sideways or across == (1.0, 0.0)) and (over or down == (1.0, 0.0)):
        return _flip(image, packed, sideways, over, take)
    if across[0] == down[0] == 1 and how.fill == "black":
        return _shift(image, packed, across[1], down[1], how.resample, take)
    if how.resample == "bilinear":
        return _crop(image, packed, across, down, take)
    return None


def flat(planes: Array) -> Array:
    """[C, H, W] to [C * H, W]: one call of OpenCV where rows and planes do not matter."""
    return planes.reshape(-1, planes.shape[2])


def _pairs(image: Array, out: Array, packed: bool) -> Iterator[tuple[Array, Array]]:
    """What OpenCV takes at once: the packed image, or plane by plane."""
    return iter([(image, out)]) if packed else zip(image, out, strict=True)


def _flip(image: Array, packed: bool, sideways: bool, over: bool, take: Take) -> Array:
    if not (sideways or over):
        return image
    out = take(image.shape)
    if sideways and not packed and not over:
        cv2.flip(flat(image), 1, flat(out))
        return out
    for source, target in _pairs(image, out, packed):
        cv2.flip(source, -1 if sideways and over else int(sideways), target)
    return out


def _shift(image: Array, packed: bool, x: float, y: float, resample: str, take: Take) -> Array | None:
    """By whole pixels by copying, along one axis between pixels by averaging two neighbours."""
    if resample == "nearest":
        x, y = math.floor(x + HALF), math.floor(y + HALF)
    between_x, between_y = x != math.floor(x), y != math.floor(y)
    if (between_x and y) or (between_y and x):
        return None
    first = 0 if packed else 1
    height, width = image.shape[first : first + 2]
    out = take(image.shape)
    out.fill(0)
    if between_x or between_y:
        axis = first + 1 if between_x else first
        _between(image, out, axis, x or y)
        return out
    into, out_of = [slice(None)] * 3, [slice(None)] * 3
    for axis, start, extent in ((first, int(y), height), (first + 1, int(x), width)):
        low, high = max(0, -start), max(0, -start, min(extent, extent - start))
        into[axis], out_of[axis] = slice(low, high), slice(low + start, high + start)
    out[tuple(into)] = image[tuple(out_of)]
    return out


def _between(image: Array, out: Array, axis: int, start: float) -> None:
    """`out` at p along an axis shows `image` between p + floor(start) and the pixel after it; one may be the border."""
    floor, extent = math.floor(start), image.shape[axis]
    part = start - floor
    low, high = max(0, -floor), min(extent, extent - 1 - floor)  # where both neighbours exist
    rows, step = math.prod(image.shape[:axis]), math.prod(image.shape[axis + 1 :])
    source, target = image.reshape(rows, -1), out.reshape(rows, -1)  # pixels next to each other are `step` apart

    def at(array: Array, begin: int, end: int) -> Array:
        return array[:, begin * step : end * step]

    if high > low:
        left, right = at(source, low + floor, high + floor), at(source, low + floor + 1, high + floor + 1)
        cv2.addWeighted(left, 1 - part, right, part, -HALF, at(target, low, high))
    # within half a pixel of the frame the border continues
    if part >= HALF and 0 <= low - 1 < extent:
        at(target, low - 1, low)[...] = at(source, 0, 1)
    if part < HALF and 0 <= high < extent:
        at(target, high, high + 1)[...] = at(source, extent - 1, extent)


def _crop(
    image: Array, packed: bool, across: tuple[float, float], down: tuple[float, float], take: Take
) -> Array | None:
    """A box of whole pixels, resized to the frame; interpolation does not look beyond the box, as in torchvision."""
    first = 0 if packed else 1
    size = image.shape[first : first + 2]
    spans = []
    for (scale, start), extent in ((down, size[0]), (across, size[1])):
        begin, end = round(start), round(start + scale * extent)
        misses = max(abs(begin - start), abs(end - start - scale * extent))
        if scale <= 0 or misses > NEAR * extent or begin < 0 or end > extent or end <= begin:
            return None
        spans.append(slice(begin, end))
    out = take(image.shape)
    box = image[spans[0], spans[1]] if packed else image[:, spans[0], spans[1]]
    for source, target in _pairs(box, out, packed):
        cv2.resize(source, size[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
    return out
