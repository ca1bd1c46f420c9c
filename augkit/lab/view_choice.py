"""Losses that choose which of a policy's views are trained on, and losses that tell what an epoch was like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@runtime_checkable
class ChoosesViews(Protocol):
    """A loss that looks at all views of a batch before some of them are trained on.

    It is refused beside a policy without views. The policy then counts the operators of what is trained on alone.
    """

    def choose(self, ask: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
        """Which results go through the model with gradients.

        Args:
            ask: inputs [N, 3, H, W] to logits [N, C] float32 of the model as it trains, dropout and the batch's own
                statistics included, without gradients; running statistics of batch norms stay as they are.
            inputs: [V * B, 3, H, W], all images of the first view, then of the second.
            targets: [V * B] int64.
            keys: [B] int64, each image's stream of random numbers, a function of seed, epoch and image; see
                `augkit.engine.streams.uniforms`.

        Returns:
            [P, B] int64 rows of the inputs, image i of any view in column i and the whole first view in the first row.
            The model is called for each row of this table alone, and the loss with all P * B answers and targets.
        """

    def passes(self, views: int) -> Mapping[str, float]:
        """Its price: images through the model, `forward` (those asked about included) and `backward`, for one image."""


@runtime_checkable
class Tells(Protocol):
    """A loss with something to tell of an epoch."""

    def tell(self) -> Mapping[str, float]:
        """Numbers for the record of the epoch that ends, as `constraint`; what they were counted from begins anew."""


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norms go on using the batch's own statistics where they train, but do not add them to the running ones."""
    learning: list[Any] = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    learning = [module for module in learning if module.training]
    try:
        for module in learning:
            module.track_running_stats = False
        yield
    finally:
        for module in learning:
            module.track_running_stats = True
