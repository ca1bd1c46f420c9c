"""Mixing images in pairs: boxes and shares for cutmix, [N] each; the pixels are the executor's."""

from __future__ import annotations

import torch
from torch import Tensor


def cutmix_boxes(lam: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the partner shows: [N, 4] int64 (top, left, bottom, right), half open, clipped to the image.

    Args:
        lam: [N] float32 in 0..1, the share of the image that was drawn; the unclipped box covers 1 - lam.
        centre: [N, 2] float32 in 0..1, (y, x) of the box's centre.
        size: (H, W).
    """
    side = (1 - lam.clamp(0, 1)).sqrt()
    edges = []
    for axis, extent in enumerate(size):
        half = ((side * extent).floor() / 2).floor()
        middle = (centre[:, axis] * extent).floor().clamp(max=extent - 1)
        edges.append(((middle - half).clamp(min=0), (middle + half).clamp(max=extent)))
    (top, bottom), (left, right) = edges
    return torch.stack([top, left, bottom, right], dim=1).long()


def kept_share(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """What is left of the image outside its box: [N, 4] to [N] float32, the weight of its own label."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return 1 - area.float() / max(1, size[0] * size[1])
