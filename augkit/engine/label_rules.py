"""What a mixing step's `label` says, as a part of the plan: all but what shows of the image is worked out already."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augkit.engine.environment import Environment
from augkit.strategy.evaluate import evaluate
from augkit.strategy.labels import KEPT, rest_of
from augkit.strategy.typing import Typed


@dataclass(frozen=True)
class LabelRule:
    """How much the own label of each image weighs, given how much shows of the image."""

    rest: Typed
    """What is left of the expression: it reads `kept` and, as `0`, `1` and so on, the columns of `facts`."""
    facts: Tensor
    """[B, F] float32."""
    here: Tensor
    """[B] bool: the images that it is for."""

    def weight(self, kept: Tensor) -> Tensor:
        """[B] shares that show to [B] weights in 0..1, whether or not it is for an image."""
        weight = evaluate(self.rest, _Numbers(kept, self.facts)).expand(len(kept))
        return weight.nan_to_num(0.0).clamp(0, 1)

    def gated(self, here: Tensor) -> LabelRule:
        """The same for the images in `here` [B] alone."""
        return replace(self, here=self.here & here)

    def to(self, device: torch.device | str) -> LabelRule:
        """The same on another device."""
        return replace(self, facts=self.facts.to(device), here=self.here.to(device))

    def rows(self, rows: Tensor) -> LabelRule:
        """The same for some images, [N] int64 positions."""
        return replace(self, facts=self.facts.index_select(0, rows), here=self.here.index_select(0, rows))

    def part(self, part: slice) -> LabelRule:
        """The same for the images of a slice."""
        return replace(self, facts=self.facts[part], here=self.here[part])


def label_rule(env: Environment, path: str) -> LabelRule:
    """The rule of the expression at a path of the document, for the images of a batch whose partners are known.

    Divisions by zero give 0 there as everywhere, but are not counted.
    """
    batch = len(env.batch_keys)
    rest, parts = rest_of(env.bound.strategy.typed[path])
    quiet = replace(env, divisions=torch.zeros_like(env.divisions))
    columns = [evaluate(part, quiet).expand(batch) for part in parts]
    facts = torch.stack(columns, dim=1) if columns else torch.zeros(batch, 0, device=env.device)
    return LabelRule(rest, facts, torch.ones(batch, dtype=torch.bool, device=env.device))


class _Numbers:
    """An environment of a number for each image and name; what is left of a label asks for nothing else."""

    def __init__(self, kept: Tensor, facts: Tensor) -> None:
        self.kept, self.facts = kept, facts
        self.device = kept.device

    def value(self, name: str) -> Tensor:
        """[B] float32."""
        return self.kept if name == KEPT else self.facts[:, int(name)]

    def size(self, axis: str) -> int:
        """There is no axis but the batch."""
        return {"batch": len(self.kept)}[axis]

    def uniform(self, site: str, axes: tuple[str, ...], count: int) -> Tensor:
        """Nothing is random here: the static check refuses it."""
        raise LookupError(site)

    def index(self, name: str) -> Tensor:
        """Nothing is indexed any more: what was is a fact."""
        raise LookupError(name)

    def count_division_by_zero(self, where: Tensor) -> None:
        """Not counted."""
