"""Which answers of a model count as right, where the largest logit is not meant.

In a recipe `answer: prior_corrected` or `answer: every_expert`; in a loop of your own `policy.attach_model(model, pool,
answer=every_expert)`, and `answer=functools.partial(prior_corrected, class_counts=counts)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from augkit.checks import answer_of
from augkit.errors import InputError


def prior_corrected(
    output: Any, targets: Tensor, *, class_counts: Tensor, tau: Annotated[float, Field(ge=0)] = 1.0
) -> Tensor:
    """Right is the largest logit less `tau` times the logarithm of the class's share of the training images.

    For models whose loss leaves the prior in the logits (plain cross-entropy), as the reference code's option has it.

    Args:
        output: [N, C] logits, [N, experts, C] of which the mean counts, or any nesting with [N, C] as its first.
        targets: [N] int64.
        class_counts: [C] training images of each class; none counts as one.
        tau: how much of the prior is taken away.

    Raises:
        InputError: the model does not answer with a logit for each class.
    """
    logits, counts = answer_of(output), torch.as_tensor(class_counts, dtype=torch.float32).clamp(min=1)
    if logits is None or logits.shape != (len(targets), len(counts)):
        told = type(output).__name__ if logits is None else tuple(logits.shape)
        raise InputError(f"prior_corrected knows {len(counts)} classes, but the model answered with {told}")
    log_prior = (counts / counts.sum()).log().to(logits.device)
    return (logits.float() - tau * log_prior).argmax(1) == targets


def every_expert(output: Any, targets: Tensor) -> Tensor:
    """Right is what every expert answers rightly, as the reference code counts for RIDE.

    Args:
        output: [N, experts, C] logits, or any nesting of tuples, lists and mappings with an [N, C] tensor for each
            expert; a joint answer beside them must be right as well, and tensors of more or fewer axes are passed over.
        targets: [N] int64.

    Raises:
        InputError: there are no such logits, or tensors [N, D] of different widths, some of which can be none.
    """
    experts = _logits(output, len(targets))
    if not experts:
        raise InputError(
            f"every_expert needs [{len(targets)}, experts, C] logits, or [{len(targets)}, C] of each expert, not"
            f" {tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__}"
        )
    widths = sorted({logits.shape[1] for logits in experts})
    if len(widths) > 1:
        raise InputError(
            f"every_expert takes each [N, C] tensor for the logits of an expert, and these have {widths[0]} and"
            f" {widths[-1]} columns: give it the logits alone"
        )
    return torch.stack([logits.argmax(1) == targets for logits in experts]).all(0)


def _logits(output: Any, images: int) -> list[Tensor]:
    if isinstance(output, Tensor):
        if output.ndim == 3 and len(output) == images:
            return list(output.unbind(1))
        return [output] if output.ndim == 2 and len(output) == images else []
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    return [logits for part in parts for logits in _logits(part, images)]
