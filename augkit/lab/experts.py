"""Models of several experts: their output is [B, experts, C], or a tuple or list of one [B, C] for each expert.

What such a model answers is the mean of its experts' logits, in training and in testing alike (Wang et al., RIDE,
ICLR 2021). A recipe's loss is that of each expert, summed, unless it asks for all of them with `experts`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augkit.errors import InputError


def stacked(output: Any) -> Tensor:
    """A model's output as one tensor: [B, C] as it is, several experts' logits as [B, experts, C].

    Raises:
        InputError: the output is something else.
    """
    if isinstance(output, Tensor) and output.ndim in (2, 3):
        return output
    parts = list(output) if isinstance(output, (tuple, list)) else [output]
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    if len(parts) > 1 and len(set(shapes)) == 1 and len(shapes[0]) == 2 and isinstance(parts[0], Tensor):
        return torch.stack(parts, 1)
    raise InputError(
        "a model answers with logits [images, classes], or with several experts' as [images, experts, classes] or as a"
        f" tuple of [images, classes], not with {', '.join(map(str, shapes)) or 'nothing'}"
    )


def joint(output: Any) -> Tensor:
    """[B, C] what the model answers: its logits, of several experts their mean."""
    logits = stacked(output)
    return logits if logits.ndim == 2 else logits.float().mean(1)
