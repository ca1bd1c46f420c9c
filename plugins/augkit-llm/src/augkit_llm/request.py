"""What is asked for: the wish or the operator of a search, facts of the data set, parents, failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataFacts:
    """A data set, as far as a model may know it."""

    counts: tuple[int, ...]
    """Training images of each class."""
    image_size: int
    """Side in pixels."""
    names: tuple[str, ...] | None = None
    """Of the classes; None where they are not to be told."""
    sheet: bytes | None = None
    """A PNG with a few training images of each class, for models that see."""
    title: str = ""
    """What the recipe says of itself."""


@dataclass(frozen=True)
class Parent:
    """A strategy that was measured before."""

    document: Mapping[str, Any]
    reward: float
    """0..1, higher is better."""
    standard_error: float
    groups: Mapping[str, Any]
    """Accuracy 0..1 by group of classes: many, medium, few."""
    intensity: Mapping[str, Any]
    """By group: operators an image met, their mean strength, share of pixels that changed."""


@dataclass(frozen=True)
class Request:
    """What a prompt is made of."""

    wish: str
    """A person's sentence; "" in a search."""
    operator: str
    """initial; e1 unlike the parents, e2 their shared idea in a new form; m1 structure, m2 parameters, m3 simpler."""
    data: DataFacts | None = None
    parents: tuple[Parent, ...] = ()
    failures: tuple[str, ...] = ()
    """What failed lately and why, a sentence each."""
    allowed: tuple[str, ...] = ()
    """Signals and operators that the strategy may use; of a kind that none is named of, all."""
    key: str = ""
    """Questions are called KEY.a0, KEY.a1 and so on."""
    seed: int = 0
