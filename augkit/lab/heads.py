"""Finding a model's last layer."""

from __future__ import annotations

from typing import Any

from torch import nn

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
