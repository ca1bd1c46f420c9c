"""What a model's last layer is given: one vector for each image of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from augkit.errors import DocumentError

if TYPE_CHECKING:
    from augkit.lab.data import Split


@dataclass(frozen=True)
class Embeddings:
    """Of n images, on the CPU."""

    values: np.ndarray
    """[n, D] float32."""
    labels: np.ndarray
    """[n] int64."""
    groups: np.ndarray | None
    """[n] int64, if groups are known."""


@contextmanager
def watched(head: nn.Module, kept: Callable[[Tensor], Tensor] | None = None) -> Iterator[list[Tensor]]:
    """What a layer is given, [B, D], call after call while the context lasts; `kept` says what is kept of it.

    As it is, gradients flow through it.
    """
    met: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: met.append(kept(given[0]) if kept else given[0]))
    try:
        yield met
    finally:
        hook.remove()


def embed(
    run_over: Callable[[Split], Any], split: Split, head: nn.Module, rows: np.ndarray | None = None
) -> Embeddings:
    """What `head` is given while `run_over` takes a model over a split once, image after image in their order.

    Args:
        run_over: such as `Training.evaluate`.
        split: the images.
        head: the model's last layer.
        rows: [n] positions to keep; None keeps all.

    Raises:
        DocumentError: the layer is not given one vector for each image.
    """
    with watched(head, lambda part: part.detach().float().cpu()) as met:
        run_over(split)
    if any(part.ndim != 2 for part in met) or sum(map(len, met)) != len(split):
        raise DocumentError("this model's last layer is not given one vector for each image: leave this stage out")
    values, labels = torch.cat(met).numpy(), split.labels.cpu().numpy()
    groups = None if split.groups is None else split.groups.cpu().numpy()
    kept = slice(None) if rows is None else rows
    return Embeddings(values[kept], labels[kept], None if groups is None else groups[kept])
