"""Operators that map each value by itself: each lowers to tables of 256 entries in 0..255, [N, 1, 256] for all channels
or [N, C, 256]. One table for all images is [1, 1, 256]. Tables may look at the image's histogram, means or extremes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from augkit.operators.base import operator
from augkit.operators.color import LUMA
from augkit.operators.options import Threshold


def levels(like: Tensor | None = None) -> Tensor:
    """0, 1, .. 255 as [1, 1, 256] float32; not to be written to."""
    return _levels(torch.device("cpu") if like is None else like.device)


@lru_cache(maxsize=16)
def _levels(device: torch.device) -> Tensor:
    return torch.arange(256.0, device=device).view(1, 1, 256)


def clipped(table: Tensor) -> Tensor:
    """A table [N, 1, 256] for all channels, clipped and truncated."""
    return table.clamp(0, 255).floor()


def column(value: Tensor) -> Tensor:
    """[N] to [N, 1, 1]."""
    return value[:, None, None]


@operator(kind="tone", keeps_black=True, source="every list of operators", tolerance=0.0)
def identity() -> Tensor:
    """Nothing; it stands in a list of operators so that nothing is one of the choices."""
    return clipped(levels())


@operator(kind="tone", source="Pillow ImageOps.invert", tolerance=0.0)
def invert() -> Tensor:
    """The negative; no strength."""
    return clipped(255 - levels())


def whole_bits(bits: float) -> float:
    """What `posterize` makes of its value."""
    return min(8, max(1, math.floor(bits + 1e-3)))  # 4 that arrives as 3.9999998 means 4


@operator(
    kind="tone",
    range=(8, 4),
    limits=(0, 8),  # published ranges begin at 0, where 1 bit is kept
    unit="bits",
    identity=8.0,
    keeps_black=True,
    source="Pillow ImageOps.posterize",
    tolerance=0.0,
    applied=whole_bits,
)
def posterize(bits: Tensor) -> Tensor:
    """Keep so many of the 8 bits, whole ones and at least 1; stronger as the bits fall."""
    step = torch.exp2(8 - (bits + 1e-3).floor().clamp(1, 8))  # as `whole_bits`
    return clipped((levels(bits) / column(step)).floor() * column(step))


@operator(
    kind="tone",
    range=(256, 0),
    limits=(0, 256),
    unit="threshold",
    identity=256.0,
    source="Pillow ImageOps.solarize",
    tolerance=0.0,
)
def solarize(threshold: Tensor, *, whole: bool = False) -> Tensor:
    """Invert every value that reaches the threshold; stronger as the threshold falls.

    `whole`: cut the threshold to a whole number first, as timm does.
    """
    value = levels(threshold)
    if whole:
        threshold = (threshold + 1e-3).floor()  # 128 that arrives as 127.99999 means 128
    return clipped(torch.where(value < column(threshold), value, 255 - value))


@operator(
    kind="tone",
    range=(0, 110),
    limits=(-255, 255),
    unit="addition",
    source="AutoAugment for EfficientNet; `invert` as CUDA",
    tolerance=0.0,
)
def solarize_add(addition: Tensor, *, threshold: Threshold = 128, invert: bool = False) -> Tensor:
    """Add to every value below the threshold; stronger as the addition grows.

    `invert`: add to every value and then solarize at the threshold, as CUDA does; it is never without effect.
    """
    value = levels(addition)
    raised = (value + column(addition).floor()).clamp(0, 255)
    if invert:
        return clipped(torch.where(raised < threshold, raised, 255 - raised))
    return clipped(torch.where(value < threshold, raised, value))


@operator(
    kind="tone",
    range=(0.1, 1.9),
    limits=(0, 10),
    unit="times",
    identity=1.0,
    keeps_black=True,
    source="Pillow ImageEnhance.Brightness",
    tolerance=0.0,
)
def brightness(factor: Tensor) -> Tensor:
    """Every value times the factor; stronger with the distance from 1."""
    return clipped(levels(factor) * column(factor))


@operator(
    kind="tone",
    range=(1, 1.8),
    limits=(0.01, 10),
    unit="exponent",
    signed=True,
    identity=1.0,
    keeps_black=True,
    source="torchvision v2 adjust_gamma",
    tolerance=0.5,
)
def gamma(exponent: Tensor) -> Tensor:
    """Every value in 0..1 to this power, lighter below 1, darker above; stronger with the distance from 1."""
    return clipped((levels(exponent) / 255).pow(column(exponent)) * 255 + 0.5)


@operator(
    kind="tone",
    range=(0.1, 1.9),
    limits=(0, 10),
    unit="times",
    identity=1.0,
    source="Pillow ImageEnhance.Contrast",
    tolerance=0.5,
)
def contrast(factor: Tensor, means: Tensor) -> Tensor:
    """Distance from the image's mean grey times the factor; stronger with the distance from 1."""
    value = levels(factor)
    red, green, blue = means.expand(-1, 3).unbind(1) if means.shape[1] in (1, 3) else [means.mean(1)] * 3
    grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    mean = column((grey + 0.5).floor().float())
    return clipped(mean + column(factor) * (value - mean))


@operator(kind="tone", source="Pillow ImageOps.autocontrast", tolerance=0.0)
def autocontrast(extremes: Tensor) -> Tensor:
    """Stretch each channel to 0..255; no strength, and no effect on a channel of one value."""
    value = levels(extremes)
    low, high = extremes[:, :, :1], extremes[:, :, 1:]
    scale = torch.full_like(_wide(high), 255.0).div(_wide((high - low).clamp(min=1)))  # `255 / x` would round twice
    stretched = (_wide(value) * scale).sub_(low * scale).clamp_(0, 255).floor_().float()
    return torch.where(high > low, stretched, value)


@operator(kind="tone", source="Pillow ImageOps.equalize", tolerance=0.0)
def equalize(histogram: Tensor) -> Tensor:
    """Spread each channel's values evenly over 0..255; no strength, and no effect on a channel of one value."""
    value = levels(histogram)
    highest = ((histogram > 0) * value).amax(2, keepdim=True).long()
    upto = histogram.cumsum(2)  # whole numbers, exact in float32 for images of up to 16 million pixels
    step = ((upto[:, :, -1:] - histogram.gather(2, highest)) / 255).floor_()
    before = (upto - histogram).add_((step / 2).floor_())
    # a quotient of such numbers is never rounded up to the next whole one
    table = (before / step.clamp(min=1)).floor_().clamp_(max=255)
    return torch.where(step > 0, table, value)


def _wide(tensor: Tensor) -> Tensor:
    """float64, which Pillow's Python computes in, where the device has it."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()
