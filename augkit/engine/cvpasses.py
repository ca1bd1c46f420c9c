"""Passes over a single image with OpenCV, which lets other threads run meanwhile.

Warps are faster on packed pixels, everything else on planes; turning one into the other costs a few microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from augkit.engine.cvmoves import HALF, Array, flat, move
from augkit.engine.plan import ImageSettings

BORDERS = {"black": cv2.BORDER_CONSTANT, "mean": cv2.BORDER_CONSTANT, "reflect": cv2.BORDER_REFLECT}
NOTHING = 1e-5
"""A filter's weight that changes no pixel."""
SAMPLING = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR}


class Scratch:
    """Arrays that are used again while they are still in the cache."""

    def __init__(self) -> None:
        self.free: dict[tuple[int, ...], list[Array]] = {}

    def take(self, shape: tuple[int, ...]) -> Array:
        """Uninitialised uint8; lists may be shared by threads, since popping is one step for the interpreter."""
        try:
            return self.free[shape].pop()
        except (KeyError, IndexError):
            # an odd address: into aligned memory OpenCV's merge writes past the cache, and the warp after it then takes
            # twice as long to read it
            size = math.prod(shape)
            memory = np.empty(size + 64, np.uint8)
            start = (1 - memory.ctypes.data) % 64
            return memory[start : start + size].reshape(shape)

    def give(self, array: Array) -> None:
        """An array from `take` that nobody looks at any more."""
        self.free.setdefault(array.shape, []).append(array)


class Canvas:
    """One image under way: planes [C, H, W], or `packed` [H, W, C] for warps. `source` is never written to."""

    def __init__(self, source: Array, scratch: Scratch, *, planar: bool) -> None:
        self.image, self.scratch, self.packed = source, scratch, not planar
        self.owned = False
        self.channels = source.shape[0 if planar else 2]

    def put(self, image: Array, *, packed: bool) -> None:
        """What a pass made, in an array from the scratch."""
        if self.owned:
            self.scratch.give(self.image)
        self.image, self.packed, self.owned = image, packed, True

    def planes(self) -> Array:
        """[C, H, W]; what was added for packing is left out."""
        if self.packed:
            height, width, channels = self.image.shape
            out = self.scratch.take((channels, height, width))
            cv2.split(self.image, list(out))
            self.put(out, packed=False)
        return self.image[: self.channels]

    def pack(self) -> Array:
        """[H, W, C], with a fourth channel beside three: OpenCV warps four in 90 us where it takes 155 us for three."""
        if self.packed and self.image.shape[2] != 3:
            return self.image
        planes = list(self.planes())
        if len(planes) == 3:
            planes.append(planes[2])
        out = self.scratch.take((*planes[0].shape, len(planes)))
        cv2.merge(planes, out)
        self.put(out, packed=True)
        return self.image

    # -- passes -------------------------------------------------------------------------------------------------

    def warp(self, matrix: Array, settings: ImageSettings) -> None:
        """Through one matrix [3, 3] float32, output to input, in pixel-edge coordinates."""
        a, b, x, d, e, y = matrix[:2].reshape(6).tolist()
        if not b and not d:
            moved = move(self.image, self.packed, (a, x), (e, y), settings, self.scratch.take)
            if moved is not None:
                if moved is not self.image:
                    self.put(moved, packed=self.packed)
                return
        centred = np.array([[a, b, x + HALF * (a + b) - HALF], [d, e, y + HALF * (d + e) - HALF]])
        image = self.pack()
        size = (image.shape[1], image.shape[0])
        flags = SAMPLING[settings.resample] | cv2.WARP_INVERSE_MAP
        border, value = BORDERS[settings.fill], self._fill(settings)
        out = self.scratch.take(image.shape)
        cv2.warpAffine(image, centred, size, dst=out, flags=flags, borderMode=border, borderValue=value)
        self.put(out, packed=True)

    def remap(self, source: Array, settings: ImageSettings) -> None:
        """Each pixel from where `source` [H, W, 2] float32 says, in pixel-edge coordinates."""
        x, y = (np.ascontiguousarray(source[:, :, i]) - np.float32(HALF) for i in range(2))
        border, value = BORDERS[settings.fill], self._fill(settings)
        image = self.pack()
        out = self.scratch.take(image.shape)
        cv2.remap(image, x, y, SAMPLING[settings.resample], dst=out, borderMode=border, borderValue=value)
        self.put(out, packed=True)

    def opaque(self, function: Callable[..., Array], value: float, options: Mapping[str, Any]) -> None:
        """Through an opaque operator's form for one image; see `augkit.operators.host`."""
        planes = self.planes()
        out = self.scratch.take(planes.shape)
        np.copyto(out, function(planes, value, **options))  # it may have given back what it was given
        self.put(out, packed=False)

    def _fill(self, settings: ImageSettings) -> tuple[float, ...]:
        if settings.fill != "mean":
            return (0.0, 0.0, 0.0, 0.0)
        return tuple(round(value) for value in cv2.mean(self.pack()))

    def colour(self, matrix: Array) -> None:
        """Mix three channels by [3, 4]."""
        rounded = matrix.copy()
        rounded[:, 3] -= HALF
        planes = self.planes()
        size = planes.shape[1:]
        mixed = self.scratch.take((*size, 3))
        out = self.scratch.take((*size, 3))
        cv2.transform(cv2.merge(list(planes), mixed), rounded, dst=out)
        self.scratch.give(mixed)
        self.put(out, packed=True)

    def kernel(self, weights: Array, blend: float, border: str) -> None:
        """A filter [k, k], or [k] along rows and columns, blended with the image; see `operators.base.Kernel`."""
        planes = self.planes()
        reach = weights.shape[-1] // 2
        if border == "copy" and min(planes.shape[1:]) < weights.shape[-1]:
            return
        result = self.scratch.take(planes.shape)
        for plane, into in zip(planes, result, strict=True):
            _filter(plane, into, weights, blend)
        if border == "copy":
            for edge in (slice(None, reach), slice(-reach, None)):
                result[:, edge] = planes[:, edge]
                result[:, :, edge] = planes[:, :, edge]
        self.put(result, packed=False)

    def erase(self, boxes: Array) -> None:
        """Paint boxes [L, 4] (top, left, bottom, right) black."""
        planes = self.planes()
        image = self.scratch.take(planes.shape)
        np.copyto(image, planes)
        for top, left, bottom, right in boxes.astype(np.int64).tolist():
            image[:, top:bottom, left:right] = 0
        self.put(image, packed=False)

    def look_up(self, table: Array) -> None:
        """Through tables [C, 256] uint8, or one for all channels."""
        planes = self.planes()
        result = self.scratch.take(planes.shape)
        _through(planes, table, result)
        self.put(result, packed=False)

    # -- what is asked and what leaves --------------------------------------------------------------------------

    def statistic(self, name: str) -> Array:
        """`histogram` [C, 256] float32, `means` [C] float64 or `extremes` [C, 2] float32."""
        if name == "means":
            if self.packed:
                return np.array(cv2.mean(self.image)[: self.channels])
            return np.array([cv2.mean(plane)[0] for plane in self.planes()])
        planes = self.planes()
        if name == "extremes":
            return np.array([cv2.minMaxLoc(plane)[:2] for plane in planes], np.float32)
        return np.array([cv2.calcHist([plane], [0], None, [256], [0, 256]) for plane in planes]).reshape(-1, 256)

    def leave(self, into: Array, table: Array | None, line: Sequence[tuple[float, float]] = ()) -> None:
        """Write the image into [C, H, W] of bytes, or of numbers: through a `table` [C, 256] of their dtype, or as each
        channel's `line` (scale, shift) says, which takes two thirds of the time."""
        planes = self.planes()[: len(into)]
        if table is not None:
            _through(planes, table[: len(into)], into)
        elif line:
            for plane, target, (scale, shift) in zip(planes, into, line, strict=True):
                cv2.addWeighted(plane, scale, plane, 0, shift, target, cv2.CV_32F)
        else:
            np.copyto(into, planes)
        if self.owned:
            self.scratch.give(self.image)


def _filter(plane: Array, into: Array, weights: Array, blend: float) -> None:
    """One plane through a filter and blended with itself, in as few sweeps as give the same."""
    delta = -HALF if blend else 0.0
    if weights.ndim == 1:
        weights = _trimmed(weights)
        cv2.sepFilter2D(plane, -1, weights, weights, dst=into, borderType=cv2.BORDER_REPLICATE)
    elif weights.min() < 0:  # what it gives is clipped before it is blended
        cv2.filter2D(plane, -1, weights, dst=into, borderType=cv2.BORDER_REPLICATE)
    else:
        reach = weights.shape[0] // 2
        around = float(weights[0, 0]) * (1 - blend)
        middle = float(weights[reach, reach]) * (1 - blend) + blend
        share = around * weights.size
        if abs(share) <= 1 and np.count_nonzero(weights == weights[0, 0]) >= weights.size - 1:
            # a box and the pixel itself: less than half of what a general filter costs
            cv2.blur(plane, weights.shape, dst=into, borderType=cv2.BORDER_REPLICATE)
            cv2.addWeighted(into, share, plane, middle - around, delta, dst=into)
            return
        whole = (1 - blend) * weights
        whole[reach, reach] = middle
        cv2.filter2D(plane, -1, whole, dst=into, delta=delta, borderType=cv2.BORDER_REPLICATE)
        return
    if blend:
        cv2.addWeighted(plane, blend, into, 1 - blend, delta, dst=into)


def _trimmed(weights: Array) -> Array:
    """Exactly symmetric and without zeros at its ends, which OpenCV's filters take a third of the time for."""
    even = (weights + weights[::-1]) / 2
    idle = int(np.argmax(even > NOTHING))
    trimmed: Array = even[idle : len(even) - idle]
    return trimmed


def compose(first: Array | None, then: Array) -> Array:
    """The tables that do both, [C or 1, 256] each; `then` may hold any numbers."""
    if first is None:
        return then
    result: Array = then[0][first] if len(then) == 1 else then[np.arange(len(then))[:, None], first]
    return result


def _through(planes: Array, table: Array, into: Array) -> None:
    if len(table) == 1:
        cv2.LUT(flat(planes), table, flat(into))
        return
    for plane, each, target in zip(planes, table, into, strict=True):
        cv2.LUT(plane, each, target)
