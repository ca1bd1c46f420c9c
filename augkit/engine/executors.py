"""Which executor runs a plan: by name, or by device and image size as `make bench` found them."""

from __future__ import annotations

from torch import Tensor

from augkit.engine import batched
from augkit.engine.nested import Executor
from augkit.errors import InputError

NAMES = ("auto", "batched", "compiled", "opencv")
LARGE = 80 * 80
"""Pixels an image from which one image at a time is faster on the host than whole batches, whatever the policy; with
bilinear warps it is so from about 64 x 64."""


def check_name(name: str) -> None:
    """Refuse what is no executor."""
    if name not in NAMES:
        raise InputError(f"executor must be one of {', '.join(NAMES)}, not {name!r}")


def choose(name: str, images: Tensor) -> tuple[str, Executor]:
    """The executor for these images [B, C, H, W], and what it is called.

    Raises:
        InputError: the executor cannot work there.
    """
    on_host = images.device.type == "cpu"
    if name == "opencv" and not on_host:
        raise InputError(f"the opencv executor works on the CPU but the images are on {images.device}; use batched")
    large = images.shape[2] * images.shape[3] >= LARGE and images.shape[1] <= 3
    if name == "opencv" or (name == "auto" and on_host and large):
        from augkit.engine import opencv  # takes a moment to import, and a device does without

        return "opencv", opencv.execute
    if name == "compiled":
        from augkit.engine import compiled  # as does this, of which only who asks for it has a use

        return "compiled", compiled.execute
    return "batched", batched.execute
