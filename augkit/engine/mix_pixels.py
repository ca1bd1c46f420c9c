"""Mixing the images of a batch with their partners."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.engine.finish import pieces
from augkit.engine.mix_plan import MIX_KINDS, Mix
from augkit.engine.output import Output
from augkit.engine.plan import Plan
from augkit.engine.rows import put
from augkit.errors import InputError
from augkit.operators.deform import joined
from augkit.operators.mix_shapes import cutmix_boxes, fmix_masks, mosaic_sources, resizemix_boxes
from augkit.operators.patches import within


def mix_images(
    result: Tensor,
    plan: Plan,
    partners: tuple[Tensor | None, ...] | None,
    out: Output | None,
    *,
    masked: bool | None = None,
) -> Tensor:
    """Do the plan's mixes, in order, each on the images as the one before left them.

    Args:
        result: [B, C, H, W], uint8 or floating point; written to.
        plan: with its mixes.
        partners: for each mix, [B, C, H, W] uint8 pool images, or None where partners are in the batch.
        out: how `result` was normalised, for pool images.
        masked: fixed shapes, every kind over every image; by default on any device but the CPU.
    """
    masked = result.device.type != "cpu" if masked is None else masked
    for number, mix in enumerate(plan.mixes):
        partner = partners[number] if partners is not None and number < len(partners) else None
        if mix.pooled and partner is None:
            raise InputError(
                f"mix {number} of the plan draws its partners from the pool: pass their images in `partners`"
            )
        result = _mixed(result, mix, partner if mix.pooled else None, out, masked)
    return result


def _mixed(result: Tensor, mix: Mix, pooled: Tensor | None, out: Output | None, masked: bool) -> Tensor:
    if pooled is not None and pooled.shape != result.shape:
        raise InputError(f"pool images are {list(pooled.shape)} but the batch is {list(result.shape)}")
    made = []
    for kind in mix.kinds:
        rows, own = mix.members(kind, masked)
        if not len(rows):
            continue
        if kind == "mosaic":
            made.append((rows, _mosaic(result, own, rows)))
            continue
        parts = []
        for part in [slice(None)] if masked else pieces(len(rows), result[0].numel()):
            some = own.part(part)
            others = result.index_select(0, some.partner) if pooled is None else _like(pooled[rows[part]], result, out)
            parts.append(_pair(kind, result.index_select(0, rows[part]), others, some))
        made.append((rows, parts[0] if len(parts) == 1 else torch.cat(parts)))
    if not masked:  # only now, when every partner was read
        for rows, values in made:
            put(result, rows, values)
        return result
    for kind, (_, values) in zip(mix.kinds, made, strict=False):
        result = torch.where((mix.kind == MIX_KINDS.index(kind)).view(-1, 1, 1, 1), values, result)
    return result


def _pair(kind: str, images: Tensor, others: Tensor, mix: Mix) -> Tensor:
    """[N, C, H, W] images and their partners, of one dtype, to the mixture."""
    size = (images.shape[2], images.shape[3])
    if kind == "mixup":
        return _cast(torch.lerp(others.float(), images.float(), mix.lam.view(-1, 1, 1, 1)), images.dtype)
    if kind == "cutmix":
        return torch.where(within(cutmix_boxes(mix.lam, mix.centre, size), size), others, images)
    if kind == "resizemix":
        boxes = resizemix_boxes(mix.lam, mix.centre, size)
        return torch.where(within(boxes, size), _shrunken(others, boxes), images)
    assert mix.u is not None  # whatever draws an fmix draws its numbers
    return torch.where(fmix_masks(mix.lam, mix.u, size)[:, None], images, others)


def _cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    return (values.round_() if dtype == torch.uint8 else values).to(dtype)


def _shrunken(images: Tensor, boxes: Tensor) -> Tensor:
    """Each image as it looks inside its box [N, 4], read between pixels; what is shown elsewhere means nothing."""
    size = images.shape[2:]
    along = []
    for axis, extent in enumerate(size):
        start, end = boxes[:, axis, None], boxes[:, axis + 2, None]
        place = torch.arange(extent, device=images.device) + 0.5
        along.append((place - start) * 2 / (end - start).clamp(min=1) - 1)
    shape = (len(images), *size)
    grid = joined(along[1][:, None].expand(shape), along[0][:, :, None].expand(shape))
    read = torch.nn.functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return _cast(read, images.dtype)


def _mosaic(result: Tensor, mix: Mix, rows: Tensor) -> Tensor:
    """Four images of the batch in one, for the images at `rows`: whole pixels, fetched once."""
    assert mix.u is not None and mix.more is not None  # whatever draws a mosaic draws both
    channels, height, width = result.shape[1:]
    made = torch.empty(len(rows), channels, height, width, dtype=result.dtype, device=result.device)
    four = torch.stack((rows, mix.partner, *mix.more.unbind(1)), dim=1)
    plane = torch.arange(channels, device=result.device).view(1, -1, 1, 1) * (height * width)
    for part in pieces(len(rows), made[0].numel()) if result.device.type == "cpu" else [slice(None)]:
        which, row, column = mosaic_sources(mix.centre[part], mix.u[part], (height, width))
        image = four[part].gather(1, which.flatten(1)).view(which.shape)
        index = (image * (channels * height * width) + row * width + column)[:, None] + plane
        made[part] = result.reshape(-1).take(index)
    return made


def _like(images: Tensor, result: Tensor, out: Output | None) -> Tensor:
    """Pool images [N, C, H, W] uint8 in the dtype and normalisation of the result."""
    if result.dtype == torch.uint8:
        return images
    scale, shift = (out or Output()).scale_and_shift(images.shape[1], images.device)
    return (images * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).to(result.dtype)
