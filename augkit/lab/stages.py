"""Stages by name: which part of the model learns.

A stage is `function(model, *, options) -> module`: it returns the part that is to be trained, and may change the model
before. The lab freezes everything outside that part and leaves it in eval mode, so batch statistics there stay as they
are. Random numbers that the function takes from torch depend on the recipe's seed and the stage's number alone. When a
run is resumed the function is called again before the stored weights are put back.

A stage that is fitted instead of trained asks for `embeddings`: a function of "train" (the stage's images) or "val"
that returns what the last layer is given, see `augkit.lab.embeddings`; nothing else of the data is open to it. It gives
the last layer, which must be one linear layer, its weights itself. It is the last of a recipe and one epoch long, takes
no step, meets no policy, and wants images held out to validate. Other facts: `group_names` (refused where groups of
training or validation images are not known) and `seed`. An option `fit_on` that is "validation" says that it is fitted
to validation images, which then measure nothing after it.

A part that has a method `project` is asked to after each step of the optimiser, see `Projected`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn

from augkit.lab.dfr import dfr
from augkit.lab.heads import last_layer
from augkit.lab.max_norm import max_norm_head


@runtime_checkable
class Projected(Protocol):
    """A part whose weights are bound to a set."""

    def project(self) -> None:
        """Move the weights to the nearest of that set, in place, without gradients; waits for nothing on a device."""


def train(model: nn.Module) -> nn.Module:
    """The whole model learns."""
    return model


def finetune_head(model: nn.Module) -> nn.Module:
    """Only the last layer learns, from the weights it has (SYNAuG's last step)."""
    return last_layer(model)


def retrain_head(model: nn.Module) -> nn.Module:
    """Only the last layer learns, from new random weights (classifier re-training, Kang et al., ICLR 2020)."""
    head = last_layer(model)
    for module in head.modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    return head


STAGES: Mapping[str, Callable[..., nn.Module]] = {
    stage.__name__: stage for stage in (train, finetune_head, retrain_head, max_norm_head, dfr)
}
