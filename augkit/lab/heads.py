"""Finding a model's last layer, and how long its weight vectors are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from augkit.errors import DocumentError


def classifier(model: nn.Module) -> Any:
    """What timm calls the model's classifier: a layer, several, or None for a model without such a thing."""
    getter: Any = getattr(model, "get_classifier", None)
    return getter() if callable(getter) else None


def last_layer(model: nn.Module) -> nn.Module:
    """What timm calls the model's classifier; several (distilled models) as one list.

    Raises:
        DocumentError: the model has none with weights.
    """
    found = classifier(model)
    head = nn.ModuleList(found) if isinstance(found, (tuple, list)) else found
    if not isinstance(head, nn.Module) or not any(True for _ in head.parameters()):
        name = type(model).__name__
        raise DocumentError(f"{name} has no last layer of its own to train: leave this stage out", path="stages")
    return head


def single_layer(model: nn.Module, loss: str) -> nn.Module:
    """The last layer of a model that has one, for a loss that looks at it or at what it is given.

    Raises:
        DocumentError: it has none, or several.
    """
    head = classifier(model)
    if not isinstance(head, nn.Module) or isinstance(head, nn.ModuleList):
        raise DocumentError(
            f'"{loss}" needs a model with one last layer, and {type(model).__name__} has none or several: take another'
            " model or loss",
            path="loss",
        )
    return head


def linear_layer(model: nn.Module) -> nn.Linear:
    """The last layer of a model that has one linear one with a bias.

    Raises:
        DocumentError: it has another one.
    """
    head = last_layer(model)
    if type(head) is not nn.Linear or head.bias is None:
        raise DocumentError(
            f"a stage that fits the last layer needs one linear layer with a bias, and {type(model).__name__} has"
            " another one: leave this stage out, or take another model or loss",
            path="stages",
        )
    return head


def lengths(weight: Tensor) -> Tensor:
    """[C] of a weight [C, ...]: how long each vector along the first dimension is."""
    found: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return found


def weight_norms(model: nn.Module, classes: int) -> list[float] | None:
    """How long each class's weight vector in the last layer is, to five digits, biases left out.

    Of several last layers the mean; None for a model without such vectors.
    """
    found = classifier(model)
    layers = [layer for layer in (found if isinstance(found, (tuple, list)) else [found]) if layer is not None]
    weights = [
        weight for layer in layers for weight in layer.parameters() if weight.ndim > 1 and len(weight) == classes
    ]
    if not weights:
        return None
    mean = torch.stack([lengths(weight.detach().float()) for weight in weights]).mean(0)
    return [float(f"{norm:.5g}") for norm in mean.tolist()]
