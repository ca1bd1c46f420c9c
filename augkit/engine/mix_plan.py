"""What one mixing step of a plan holds: for each image the partner, and how much of the image stays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from augkit.engine.label_rules import LabelRule

MIX_KINDS = ("none", "mixup", "cutmix", "resizemix", "fmix", "mosaic")
PLACES = 8
"""Further uniform numbers of an image in a mixing step: a mosaic's four crops, or what an fmix mask is hashed from."""


@dataclass(frozen=True)
class Mix:
    """One mixing step of a batch."""

    kind: Tensor
    """[B] int64 index into `MIX_KINDS`; 0 leaves the image alone."""
    partner: Tensor
    """[B] int64: position in the batch, or in the pool when `pooled`."""
    lam: Tensor
    """[B] float32: weight of the image itself in 0..1. But for mixup the one that was drawn: what shows decides."""
    centre: Tensor
    """[B, 2] float32 (y, x) in 0..1: centre of a cutmix box, place of a resizemix one, where a mosaic's four meet."""
    partner_class: Tensor
    """[B] int64 label of the partner."""
    pooled: bool = False
    kinds: tuple[str, ...] = ("mixup", "cutmix")
    """The kinds that can occur here, so that nothing else need be worked out."""
    u: Tensor | None = None
    """[B, PLACES] float32 uniform in [0, 1), for fmix and mosaic."""
    more: Tensor | None = None
    """[B, 2] int64: a mosaic's two further partners, positions in the batch."""
    rules: tuple[LabelRule, ...] = ()
    """What the document says of the labels' weights; without one labels weigh what shows."""

    def to(self, device: torch.device | str) -> Mix:
        """The same on another device."""
        rules = tuple(rule.to(device) for rule in self.rules)
        return replace(self, rules=rules, **{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def rows(self, rows: Tensor) -> Mix:
        """The same for some images, [N] int64 positions."""
        rules = tuple(rule.rows(rows) for rule in self.rules)
        chosen = {name: tensor.index_select(0, rows) for name, tensor in self._tensors().items()}
        return replace(self, rules=rules, **chosen)

    def part(self, part: slice) -> Mix:
        """The same for the images of a slice."""
        rules = tuple(rule.part(part) for rule in self.rules)
        return replace(self, rules=rules, **{name: tensor[part] for name, tensor in self._tensors().items()})

    def where(self, here: Tensor, other: Mix) -> Mix:
        """This step's numbers for the images in `here` [B], those of `other` for the rest."""
        own, others = self._tensors(), other._tensors()
        chosen = {**others, **own}
        for name in own.keys() & others.keys():
            mask = here.view(-1, *[1] * (own[name].dim() - 1))
            chosen[name] = torch.where(mask, own[name], others[name])
        elsewhere = ~here
        rules = (*(rule.gated(here) for rule in self.rules), *(rule.gated(elsewhere) for rule in other.rules))
        return replace(self, kinds=tuple(dict.fromkeys(other.kinds + self.kinds)), rules=rules, **chosen)

    def label_weight(self, kept: Tensor) -> Tensor:
        """[B] shares that show of the images to [B] float32 in 0..1, the weights of their own labels."""
        weight = kept
        for rule in self.rules:
            weight = torch.where(rule.here, rule.weight(kept), weight)
        return weight

    def members(self, kind: str, masked: bool) -> tuple[Tensor, Mix]:
        """The images of one kind, [N] positions, and their numbers; masked all images, as finding them would wait."""
        if masked:
            return torch.arange(len(self.kind), device=self.kind.device), self
        rows = (self.kind == MIX_KINDS.index(kind)).nonzero()[:, 0]
        return rows, self.rows(rows)

    def describe(self, i: int) -> str:
        """What image `i` is mixed with, in words; "" for nothing."""
        kind = MIX_KINDS[int(self.kind[i])]
        if kind == "none":
            return ""
        others = [int(self.partner[i])]
        if kind == "mosaic" and self.more is not None:
            others += self.more[i].tolist()
        where = ("pool image" if self.pooled else "image") + ("s" if len(others) > 1 else "")
        named = " and ".join(", ".join(str(other) for other in others).rsplit(", ", 1))
        label = ""
        if self.rules:
            weight = self.part(slice(i, i + 1)).label_weight(self.lam[i : i + 1]).item()
            label = f", label {weight:.2f}"
        return f"{kind} with {where} {named} (keeps {self.lam[i].item():.2f}{label})"

    def _tensors(self) -> dict[str, Any]:
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}
