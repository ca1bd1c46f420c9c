"""The last pass: from bytes to what the caller asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.engine.buffers import Recycler
from augkit.engine.output import Output

PIECE = 3 << 17
"""Values that are worked on at once, so that what one step writes is still in the cache when the next reads it, and so
that temporary memory stays small beside a large batch."""
LARGE = 1 << 16
"""Values from which an image is worth a call of its own, that writes straight into the result."""


@dataclass(frozen=True)
class Done:
    """What the passes leave behind."""

    work: Tensor
    """[B, C, H, W] uint8; grey images may have become three channels."""
    touched: Tensor | None = None
    """[B] bool: images that met an operator; None for none of them."""
    pending: tuple[tuple[Tensor, Tensor], ...] = ()
    """Images (positions) whose last tables [N, C, 256] uint8 have not been applied yet."""


def pieces(count: int, each: int) -> Iterator[slice]:
    """Slices over `count` images of `each` values that hold about `PIECE` values."""
    step = max(1, PIECE // max(1, each))
    return (slice(start, min(count, start + step)) for start in range(0, count, step))


def waits(images: Tensor) -> bool:
    """Whether tables that end an image are best left to the output: for few pixels they are as large as the image."""
    return bool(images[0].numel() >= LARGE)


def layout(images: Tensor) -> torch.memory_format:
    """channels_last for images that are laid out so and in no other way."""
    plain = images.is_contiguous()
    last = not plain and images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def finish(images: Tensor, done: Done, out: Output | None, recycled: Recycler) -> Tensor:
    """Bytes to the result: dtype and normalisation as asked, untouched images exactly as they came."""
    channels = images.shape[1]
    if out is None and images.dtype == torch.uint8:
        return done.work if channels == done.work.shape[1] else done.work[:, :channels].contiguous()
    dtype = images.dtype if out is None else out.dtype
    scale, shift = (out or Output()).scale_and_shift(channels, images.device)
    result = recycled.empty(tuple(images.shape), dtype, images.device)
    work = done.work[:, :channels]
    parts: Iterable[slice] = pieces(len(work), work[:1].numel())
    if done.pending:
        rest = set(range(len(work)))
        for rows, tables in done.pending:
            _through_tables(result, work, rows, tables[:, :channels], scale, shift)
            rest.difference_update(rows.tolist())
        parts = (slice(row, row + 1) for row in sorted(rest))
    _plainly(result, work, parts, scale, shift)
    if images.dtype != torch.uint8:
        original = torch.ones(len(images), dtype=torch.bool) if done.touched is None else ~done.touched
        exact = images if out is None else (images.float() * (255 * scale).view(-1, 1, 1)).add_(shift.view(-1, 1, 1))
        result = torch.where(original.view(-1, 1, 1, 1), exact.to(dtype), result)
    return result


def _through_tables(result: Tensor, work: Tensor, rows: Tensor, tables: Tensor, scale: Tensor, shift: Tensor) -> None:
    """Bytes through tables of normalised numbers, straight into the result, one image at a time."""
    values = torch.arange(256.0)
    normalised = (values * scale[:, None] + shift[:, None]).to(result.dtype)
    normalised = normalised.expand(tables.shape).gather(2, tables.long())
    for tables_of_one, row in zip(normalised, rows.tolist(), strict=True):
        torch.gather(tables_of_one, 1, work[row].flatten(1).long(), out=result[row].view(len(work[row]), -1))


def _plainly(result: Tensor, work: Tensor, parts: Iterable[slice], scale: Tensor, shift: Tensor) -> None:
    """Bytes times scale plus shift."""
    scale, shift = scale.view(-1, 1, 1), shift.view(-1, 1, 1)
    for part in parts:
        values = result[part] if result.dtype == torch.float32 else torch.empty(result[part].shape)
        values.copy_(work[part]).mul_(scale).add_(shift)
        if values.dtype != result.dtype:
            result[part] = values
