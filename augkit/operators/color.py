"""Operators that mix an image's channels: each lowers to a 3x4 matrix on (R, G, B, 1) in 0..255."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.operators.base import operator

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""Pillow's integer weights of red, green and blue in a grey value."""
ABOVE = 0.01
"""Added before truncation, so that 200 does not become 199 by a rounding error of float32."""


@operator(
    kind="color",
    range=(0.1, 1.9),
    limits=(0, 10),
    unit="times",
    identity=1.0,
    keeps_black=True,
    tolerance=0.3,
    source="Pillow ImageEnhance.Color",
)
def color(factor: Tensor) -> Tensor:
    """Saturation: 0 is grey, 1 the image itself; stronger with the distance from 1."""
    keep = factor[:, None, None] * torch.eye(3, device=factor.device)
    grey = torch.stack([(1 - factor) * weight for weight in LUMA], dim=1)[:, None]
    bias = torch.full_like(keep[:, :, :1], ABOVE)
    return torch.cat([keep + grey, bias], dim=2)


@operator(kind="color", keeps_black=True, tolerance=0.0, source='Pillow Image.convert("L")')
def grayscale() -> Tensor:
    """The grey value in all three channels, rounded as Pillow does; no strength."""
    row = torch.tensor([*LUMA, 0.5])
    return row.expand(1, 3, 4)
