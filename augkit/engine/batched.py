"""The batched executor: a plan's passes over a whole batch, with torch alone, on the host or on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.engine.buffers import Recycler, recycler
from augkit.engine.finish import Done, finish, layout, waits
from augkit.engine.grouped import Grouped
from augkit.engine.lowering import check_channels
from augkit.engine.masked import execute as run_masked
from augkit.engine.mix_labels import mix_targets
from augkit.engine.mix_pixels import mix_images
from augkit.engine.output import Output
from augkit.engine.plan import Plan
from augkit.engine.rows import to_bytes
from augkit.errors import InputError

__all__ = ["execute", "mix_targets"]


def execute(
    images: Tensor,
    plan: Plan,
    *,
    out: Output | None = None,
    partners: tuple[Tensor | None, ...] | None = None,
    buffers: Recycler | None = None,
    masked: bool | None = None,
) -> Tensor:
    """Do to each image what the plan says, mixing of images included.

    Args:
        images: [B, C, H, W], uint8 or floating point in 0..1; never written to. Operators that tell red, green and
            blue apart need 3 channels, or 1, which counts as grey in all three.
        plan: for B images, on the same device.
        out: a normalised output; without it the result has the images' dtype.
        partners: for each mix of the plan, [B, C, H, W] uint8 pool images, or None where partners are in the batch.
        buffers: where large results take their memory from; the thread's own recycler without it.
        masked: fixed shapes, every pass over every image; by default on any device but the CPU, where it gives the same
            bytes.

    Returns:
        [B, C, H, W], channels_last if the images are. Images that meet no operator come out exactly as they went in.

    Raises:
        InputError: images and plan do not fit each other.
        OperatorError: an operator failed or returned something of the wrong shape.
    """
    check(images, plan)
    masked = images.device.type != "cpu" if masked is None else masked
    recycled = recycler() if buffers is None else buffers
    colours = check_channels(plan.choices, images)
    if masked:
        result = run_masked(images, plan, 3 if colours else images.shape[1], out=out)
        return mix_images(result, plan, partners, out, masked=True).contiguous(memory_format=layout(images))
    work = to_work(images.expand(-1, 3, -1, -1) if colours else images, recycled)
    done = Done(work)
    if work.numel() and plan.choice.shape[1]:
        done = Grouped(plan, work, defer=out is not None and waits(work)).run()
    result = mix_images(finish(images, done, out, recycled), plan, partners, out)
    return result.contiguous(memory_format=layout(images))


def check(images: Tensor, plan: Plan) -> None:
    """Refuse images that are none, or not those of the plan."""
    if images.dim() != 4 or not images.shape[1]:
        raise InputError(f"images must be [B, C, H, W] but are {list(images.shape)}")
    if len(plan) != images.shape[0]:
        raise InputError(f"the plan was drawn for {len(plan)} images but there are {images.shape[0]}")
    if images.dtype != torch.uint8 and not images.dtype.is_floating_point:
        raise InputError(f"images must be uint8 or floating point but are {images.dtype}")
    if plan.branches is not None or plan.views:
        raise InputError("the plan has branches or views; run it with policy.apply, or augkit.engine.nested.execute")


def to_work(images: Tensor, recycled: Recycler) -> Tensor:
    """A contiguous uint8 copy."""
    result = recycled.empty(tuple(images.shape), torch.uint8, images.device)
    if images.dtype == torch.uint8:
        return result.copy_(images)
    return result.copy_(to_bytes(images.float().mul(255).add_(0.5).clamp_(0, 255)))
