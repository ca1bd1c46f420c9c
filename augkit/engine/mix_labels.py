"""The labels of images that were mixed, in the shares that show."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.engine.mix_plan import MIX_KINDS, Mix
from augkit.engine.plan import Plan
from augkit.operators.mix_shapes import cutmix_boxes, fmix_masks, kept_share, mosaic_shares, resizemix_boxes


def mix_targets(
    plan: Plan,
    targets: Tensor,
    num_classes: int,
    smoothing: float,
    size: tuple[int, int],
    *,
    masked: bool | None = None,
) -> Tensor:
    """Dense labels [B, num_classes] float32 of a batch after the plan's mixes.

    Args:
        plan: with its mixes; all but mixup weigh labels by the area that really shows, unless the document says
            otherwise of it.
        targets: [B] int64.
        num_classes: columns of the result.
        smoothing: 0..1, spread evenly over all classes before mixing (timm's convention).
        size: (H, W) of the images.
        masked: fixed shapes, as in `mix_images`.
    """
    masked = targets.device.type != "cpu" if masked is None else masked

    def dense(labels: Tensor) -> Tensor:
        off = smoothing / num_classes
        result = torch.full((len(labels), num_classes), off, device=labels.device)
        return result.scatter_(1, labels.view(-1, 1), 1 - smoothing + off)

    result = dense(targets)
    for mix in plan.mixes:
        share = _shares(mix, size, masked)
        other = dense(mix.partner_class) if mix.pooled else result[mix.partner]
        mixed = result * share[:, :1] + other * share[:, 1:2]
        if mix.more is not None:
            mixed = mixed + result[mix.more[:, 0]] * share[:, 2:3] + result[mix.more[:, 1]] * share[:, 3:]
        result = mixed
    return result


def _shares(mix: Mix, size: tuple[int, int], masked: bool) -> Tensor:
    """[B, 4] float32: how much each image's own label weighs, its partner's, and a mosaic's two further ones."""
    result = torch.zeros(len(mix.kind), 4, device=mix.kind.device)
    result[:, 0] = 1
    for kind in mix.kinds:
        rows, own = mix.members(kind, masked)
        kept = _shown(kind, own, size)
        if masked:
            result = torch.where((mix.kind == MIX_KINDS.index(kind))[:, None], kept, result)
        else:
            result[rows] = kept
    if mix.rules:
        pair = (mix.kind != MIX_KINDS.index("none")) & (mix.kind != MIX_KINDS.index("mosaic"))
        label = mix.label_weight(result[:, 0])
        said = torch.stack((label, 1 - label), dim=1)
        result[:, :2] = torch.where(pair[:, None], said, result[:, :2])
    return result


def _shown(kind: str, mix: Mix, size: tuple[int, int]) -> Tensor:
    if kind == "mosaic":
        return mosaic_shares(mix.centre, size)
    if kind == "fmix":
        assert mix.u is not None
        kept = fmix_masks(mix.lam, mix.u, size).flatten(1).float().mean(1)
    elif kind == "mixup":
        kept = mix.lam
    else:
        boxes = (cutmix_boxes if kind == "cutmix" else resizemix_boxes)(mix.lam, mix.centre, size)
        kept = kept_share(boxes, size)
    return torch.stack((kept, 1 - kept, torch.zeros_like(kept), torch.zeros_like(kept)), dim=1)
