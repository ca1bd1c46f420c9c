"""Operators with OpenCV and Pillow, for one image on the CPU: what the OpenCV executor runs on its threads.

Most are opaque; some are maps that move whole pixels. Each takes and gives planes [C, H, W] uint8 and does what the
operator of its name does, within rounding; the catalogue of operators states by how much. Opaque operators that are not
here run in the batched way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from augkit.operators.base import Operator
from augkit.operators.blur import TAPS, median_blur, zoom_blur
from augkit.operators.hsv import brighten, hue, saturate
from augkit.operators.quality import clahe, downscale, jpeg, pixelate, pixels_left
from augkit.operators.tiles import cycle, jigsaw

Planes = np.ndarray
Host = Callable[..., Planes]
"""Planes and value to planes; options by keyword, and the numbers `u` [draws] of an operator that draws some."""

HOST: dict[Callable[..., Any], Host] = {}
"""By the operator's function."""


def stands_for(operator: Operator) -> Callable[[Host], Host]:
    """Run the function for this operator."""

    def add(function: Host) -> Host:
        HOST[operator.function] = function
        return function

    return add


def _flat(planes: Planes) -> Planes:
    """[C, H, W] to [C * H, W], which OpenCV does not take for an image of W channels."""
    return planes.reshape(-1, planes.shape[2])


def _packed(planes: Planes) -> Any:
    return cv2.merge([np.ascontiguousarray(plane) for plane in planes])


def _planar(packed: Any) -> Planes:
    planes = np.empty((packed.size // math.prod(packed.shape[:2]), *packed.shape[:2]), np.uint8)
    cv2.split(packed, list(planes))
    return planes


@stands_for(median_blur)
def _median_blur(planes: Planes, share: float, *, window: int = 3) -> Planes:
    found = np.empty_like(planes)
    for plane, target in zip(planes, found, strict=True):
        cv2.medianBlur(plane, window, target)
    if share == 1:
        return found
    return cv2.addWeighted(_flat(found), share, _flat(planes), 1 - share, 0).reshape(planes.shape)


@stands_for(zoom_blur)
def _zoom_blur(planes: Planes, zoom: float) -> Planes:
    packed = _packed(
        planes if len(planes) != 3 else planes[[0, 1, 2, 2]]
    )  # OpenCV warps four channels faster than three
    height, width = packed.shape[:2]
    total = packed.astype(np.float32)
    for tap in range(1, TAPS):
        scale = 1 / (1 + (zoom - 1) * tap / (TAPS - 1))
        matrix = np.array([[scale, 0, (1 - scale) * (width - 1) / 2], [0, scale, (1 - scale) * (height - 1) / 2]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        taken = cv2.warpAffine(packed, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        cv2.accumulate(taken.reshape(total.shape), total)
    return _planar(cv2.convertScaleAbs(total, alpha=1 / TAPS))[: len(planes)]


@stands_for(jpeg)
def _jpeg(planes: Planes, quality: float) -> Planes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, min(100, max(1, round(quality)))]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    written = cv2.imencode(".jpg", _packed(planes[::-1]), settings)[1]
    return _planar(cv2.imdecode(written, cv2.IMREAD_COLOR))[::-1]


@stands_for(pixelate)
def _pixelate(planes: Planes, scale: float) -> Planes:
    return _resized(planes, scale, cv2.INTER_NEAREST_EXACT)


@stands_for(downscale)
def _downscale(planes: Planes, scale: float) -> Planes:
    return _resized(planes, scale, cv2.INTER_LINEAR_EXACT)


def _resized(planes: Planes, scale: float, up: int) -> Planes:
    """Down by Pillow, whose box OpenCV does not have, and up again by OpenCV in half of Pillow's time."""
    height, width = planes.shape[1:]
    down, across = (int(pixels_left(torch.tensor([scale]), extent)) for extent in (height, width))
    result = np.empty_like(planes)
    for plane, target in zip(planes, result, strict=True):
        small = np.asarray(Image.fromarray(plane).resize((across, down), Image.Resampling.BOX))
        if up == cv2.INTER_LINEAR_EXACT:  # one way after the other, each rounded, as Pillow does it
            small = cv2.resize(small, (width, down), interpolation=up)
        cv2.resize(small, (width, height), target, interpolation=up)
    return result


@stands_for(jigsaw)
def _jigsaw(planes: Planes, share: float, *, u: torch.Tensor, cells: int = 4) -> Planes:
    count = cells * cells
    source = cycle(u[None, :count], (torch.tensor([share]).clamp(0, 1) * count).round())[0].tolist()
    height, width = planes.shape[1] // cells, planes.shape[2] // cells
    result: Planes = planes.copy()
    for here, there in enumerate(source):
        if here != there:
            (top, left), (down, across) = ((k // cells * height, k % cells * width) for k in (here, there))
            box = planes[:, down : down + height, across : across + width]
            result[:, top : top + height, left : left + width] = box
    return result


@stands_for(clahe)
def _clahe(planes: Planes, limit: float, *, cells: int = 4) -> Planes:
    light = cv2.cvtColor(_packed(planes), cv2.COLOR_RGB2GRAY)
    change = cv2.subtract(cv2.createCLAHE(limit, (cells, cells)).apply(light), light, dtype=cv2.CV_16S)
    changes = np.concatenate([change] * len(planes))
    return cv2.add(_flat(planes), changes, dtype=cv2.CV_8U).reshape(planes.shape)


@stands_for(hue)
def _hue(planes: Planes, turns: float) -> Planes:
    parts = list(cv2.split(cv2.cvtColor(_packed(planes), cv2.COLOR_RGB2HSV_FULL)))
    parts[0] = parts[0] + np.uint8(round(turns * 256) % 256)  # wraps
    return _planar(cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2RGB_FULL))


@stands_for(saturate)
def _saturate(planes: Planes, factor: float, *, add: float = 0.0) -> Planes:
    parts = list(cv2.split(cv2.cvtColor(_packed(planes), cv2.COLOR_RGB2HSV_FULL)))
    parts[1] = cv2.LUT(parts[1], np.clip(np.arange(256) * factor + add * 255 + 0.5, 0, 255).astype(np.uint8))
    return _planar(cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2RGB_FULL))


@stands_for(brighten)
def _brighten(planes: Planes, addition: float) -> Planes:
    parts = list(cv2.split(cv2.cvtColor(_packed(planes), cv2.COLOR_RGB2HSV_FULL)))
    parts[2] = cv2.LUT(parts[2], np.clip(np.arange(256) + addition * 255 + 0.5, 0, 255).astype(np.uint8))
    return _planar(cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2RGB_FULL))
