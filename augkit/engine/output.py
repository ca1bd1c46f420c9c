"""What images look like when they leave: dtype and normalisation, folded into the last pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from augkit.errors import InputError


@dataclass(frozen=True)
class Output:
    """A normalised output: `(image in 0..1 - mean) / std`, one number for all channels, or one of each in a list."""

    dtype: torch.dtype = torch.float32
    mean: float | Sequence[float] = (0.0,)
    std: float | Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        mean, std = _numbers("mean", self.mean), _numbers("std", self.std)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        if not isinstance(self.dtype, torch.dtype):
            raise InputError(f"Output.dtype must be one of torch's, such as torch.float32, not {self.dtype!r}")
        if not self.dtype.is_floating_point:
            raise InputError(
                f"Output.dtype must be a floating point type but is {self.dtype}; leave `out` away for uint8"
            )
        if len(mean) != len(std) or not mean:
            raise InputError(f"Output has {len(mean)} means for {len(std)} deviations; give one of each a channel")
        if any(not value > 0 for value in std):
            raise InputError(f"Output.std must be above 0 but is {self.std}")

    def check(self, shape: Sequence[int]) -> None:
        """Refuse images [B, C, H, W] of another number of channels than there are means."""
        count = len(_numbers("mean", self.mean))
        if count not in (1, shape[1]):
            cure = permuted(shape) or "give a mean and a deviation for each channel, or one for all"
            raise InputError(f"Output has {count} means but images have {shape[1]} channels; {cure}")

    def scale_and_shift(self, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Two [C] float32 tensors: `value in 0..255 * scale + shift` is the normalised value."""
        mean, std = _numbers("mean", self.mean), _numbers("std", self.std)
        self.check((1, channels, 1, 1))
        return _scale_and_shift(mean, std, channels, device)


def permuted(shape: Sequence[int]) -> str:
    """What to do about a batch whose channels seem to come last; "" if they do not."""
    if shape[3] in (1, 3, 4) and shape[2] > 4:
        return f"images are [B, C, H, W], and {list(shape)} looks like [B, H, W, C]: permute(0, 3, 1, 2)"
    return ""


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    """A number, or numbers in anything that can be gone through."""
    try:
        return tuple(float(value) for value in ([given] if isinstance(given, (int, float)) else given))
    except (TypeError, ValueError):
        raise InputError(f"Output.{name} must be a number, or a list of one a channel, not {given!r}") from None


@lru_cache(maxsize=64)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Kept, since sending them to a device waits for it."""
    middle, spread = (torch.tensor(numbers, device=device).expand(channels) for numbers in (mean, std))
    return 1 / (255 * spread), -middle / spread
