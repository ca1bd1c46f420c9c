"""The last pass: from bytes to what the caller asked for, and mixing images in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.engine.buffers import Recycler
from augkit.engine.output import Output
from augkit.engine.pixels import look_up
from augkit.engine.plan import MIX_KINDS, Mix, Plan
from augkit.engine.rows import put
from augkit.errors import InputError
from augkit.operators.mix import cutmix_boxes, kept_share

PIECE = 1 << 20
"""Values that are worked on at once, so that what one step writes is still in the cache when the next reads it."""
LARGE = 1 << 16
"""Values from which an image is worth a call of its own, that writes straight into the result."""


@dataclass(frozen=True)
class Done:
    """What the passes leave behind."""

    work: Tensor
    """[B, 3, H, W] uint8."""
    touched: Tensor | None = None
    """[B] bool: images that met an operator; None for none of them."""
    pending: tuple[tuple[Tensor | None, Tensor], ...] = ()
    """Images (positions, or None for all) whose last tables [N, 3, 256] uint8 have not been applied yet."""


def pieces(count: int, each: int) -> Iterator[slice]:
    """Slices over `count` images of `each` values that hold about `PIECE` values."""
    step = max(1, PIECE // max(1, each))
    return (slice(start, min(count, start + step)) for start in range(0, count, step))


def finish(images: Tensor, done: Done, out: Output | None, recycled: Recycler) -> Tensor:
    """Bytes to the result: dtype and normalisation as asked, untouched images exactly as they came."""
    channels = images.shape[1]
    if out is None and images.dtype == torch.uint8:
        return done.work if channels == 3 else done.work[:, :channels].contiguous()
    dtype = images.dtype if out is None else out.dtype
    scale, shift = (out or Output()).scale_and_shift(channels, images.device)
    result = recycled.empty(tuple(images.shape), dtype, images.device)
    rest = torch.ones(len(images), dtype=torch.bool, device=images.device)
    for rows, tables in done.pending:
        _through_tables(result, done.work[:, :channels], rows, tables[:, :channels], scale, shift)
        if rows is None:
            rest = rest.logical_not_()
        else:
            rest[rows] = False
    original = None
    if images.dtype != torch.uint8:
        original = torch.ones_like(rest) if done.touched is None else ~done.touched
    _plainly(result, done.work[:, :channels], rest, scale, shift)
    if original is not None:
        exact = images if out is None else (images.float() * (255 * scale).view(-1, 1, 1)).add_(shift.view(-1, 1, 1))
        result = torch.where(original.view(-1, 1, 1, 1), exact.to(dtype), result)
    return result


def _through_tables(
    result: Tensor, work: Tensor, rows: Tensor | None, tables: Tensor, scale: Tensor, shift: Tensor
) -> None:
    """Bytes through tables of normalised numbers, straight into the result."""
    values = torch.arange(256.0, device=work.device)
    normalised = (values * scale[:, None] + shift[:, None]).to(result.dtype)
    normalised = normalised.expand(tables.shape).gather(2, tables.long())
    if rows is None:
        result.copy_(look_up(work, normalised))
        return
    if work[0].numel() >= LARGE and result.device.type == "cpu":
        for tables_of_one, row in zip(normalised, rows.tolist(), strict=True):
            torch.gather(tables_of_one, 1, work[row].flatten(1).long(), out=result[row].view(len(work[row]), -1))
        return
    for part in pieces(len(rows), work[0].numel()):
        chosen = rows[part]
        put(result, chosen, look_up(work.index_select(0, chosen), normalised[part]))


def _plainly(result: Tensor, work: Tensor, rest: Tensor, scale: Tensor, shift: Tensor) -> None:
    """Bytes times scale plus shift, for the images in `rest` [B]."""
    if result.device.type != "cpu":
        result.copy_(torch.where(rest.view(-1, 1, 1, 1), work * scale.view(-1, 1, 1) + shift.view(-1, 1, 1), result))
        return
    rows = rest.nonzero()[:, 0]
    whole = len(rows) == len(work)
    each = work[0].numel() if len(work) else 1
    if each >= LARGE and result.dtype == torch.float32:
        for row in rows.tolist():
            result[row].copy_(work[row]).mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))
        return
    for part in pieces(len(rows), each):
        source = work[part] if whole else work.index_select(0, rows[part])
        values = source.float().mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1)).to(result.dtype)
        if whole:
            result[part] = values
        else:
            put(result, rows[part], values)


def mix_images(result: Tensor, plan: Plan, partners: tuple[Tensor | None, ...] | None, out: Output | None) -> Tensor:
    """Do the plan's mixes, in order, each on the images as the one before left them."""
    for number, mix in enumerate(plan.mixes):
        partner = partners[number] if partners is not None and number < len(partners) else None
        if mix.pooled and partner is None:
            raise InputError(
                f"mix {number} of the plan draws its partners from the pool: pass their images in `partners`"
            )
        result = _mixed(result, mix, partner if mix.pooled else None, out)
    return result


def _mixed(result: Tensor, mix: Mix, pooled: Tensor | None, out: Output | None) -> Tensor:
    size = (result.shape[2], result.shape[3])
    others = result.index_select(0, mix.partner) if pooled is None else _like(pooled, result, out)
    if others.shape != result.shape:
        raise InputError(f"pool images are {list(others.shape)} but the batch is {list(result.shape)}")
    blends = mix.kind == MIX_KINDS.index("mixup")
    lam = torch.where(blends, mix.lam, 1.0).view(-1, 1, 1, 1)
    boxes = cutmix_boxes(torch.where(mix.kind == MIX_KINDS.index("cutmix"), mix.lam, 1.0), mix.centre, size)
    rows = torch.arange(size[0], device=result.device).view(1, -1, 1)
    columns = torch.arange(size[1], device=result.device).view(1, 1, -1)
    top, left, bottom, right = boxes.view(-1, 4, 1, 1).unbind(1)
    within = ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None]
    blended = torch.lerp(others.float(), result.float(), lam)
    blended = blended.round_() if result.dtype == torch.uint8 else blended
    mixed = torch.where(blends.view(-1, 1, 1, 1), blended.to(result.dtype), result)
    return torch.where(within, others, mixed)


def _like(images: Tensor, result: Tensor, out: Output | None) -> Tensor:
    """Pool images [B, C, H, W] uint8 in the dtype and normalisation of the result."""
    if result.dtype == torch.uint8:
        return images
    scale, shift = (out or Output()).scale_and_shift(images.shape[1], images.device)
    return (images * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).to(result.dtype)


def mix_targets(plan: Plan, targets: Tensor, num_classes: int, smoothing: float, size: tuple[int, int]) -> Tensor:
    """Dense labels [B, num_classes] float32 of a batch after the plan's mixes.

    Args:
        plan: with its mixes; cutmix weighs labels by the area that its clipped box leaves.
        targets: [B] int64.
        num_classes: columns of the result.
        smoothing: 0..1, spread evenly over all classes before mixing (timm's convention).
        size: (H, W) of the images.
    """

    def dense(labels: Tensor) -> Tensor:
        off = smoothing / num_classes
        result = torch.full((len(labels), num_classes), off, device=labels.device)
        return result.scatter_(1, labels.view(-1, 1), 1 - smoothing + off)

    result = dense(targets)
    for mix in plan.mixes:
        share = kept_share(cutmix_boxes(mix.lam, mix.centre, size), size)
        lam = torch.where(mix.kind == MIX_KINDS.index("mixup"), mix.lam, share)
        lam = torch.where(mix.kind == 0, 1.0, lam).view(-1, 1)
        other = dense(mix.partner_class) if mix.pooled else result[mix.partner]
        result = result * lam + other * (1 - lam)
    return result
