"""Moving whole images in and out of a batch, and numbers to bytes, the fastest way that was measured."""

from __future__ import annotations

import torch
from torch import Tensor


def put(target: Tensor, rows: Tensor, values: Tensor) -> None:
    """`target[rows] = values` along the first dimension, for contiguous tensors of one dtype.

    On the host through numpy, which copies each row at once: 150 images of 12 KiB take 35 us, torch's index_copy_
    120 us (and 250 us for uint8).
    """
    if target.device.type != "cpu":
        target.index_copy_(0, rows, values)
        return
    if not len(rows):
        return
    into = target.view(len(target), -1).view(torch.uint8).numpy()
    into[rows.numpy()] = values.reshape(len(rows), -1).view(torch.uint8).numpy()


def to_bytes(values: Tensor) -> Tensor:
    """Numbers in 0..255 (below 256) to uint8, truncated; by way of int16, which is three times as fast as directly."""
    return values.to(torch.int16).to(torch.uint8)
