"""A Plan: every random value of one batch, before a pixel is touched."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augkit.errors import InputError
from augkit.operators.base import Choice

MIX_KINDS = ("none", "mixup", "cutmix")


@dataclass(frozen=True)
class ImageSettings:
    """How a document wants pixels treated. `exact` runs one pass an operator, as Pillow would."""

    resample: str = "bilinear"
    """`nearest` or `bilinear`."""
    fill: str = "black"
    """`black`, `mean` (of the image) or `reflect`."""
    exact: bool = False


@dataclass(frozen=True)
class Mix:
    """One mixing step of a batch: for each image the partner and how much of the image stays."""

    kind: Tensor
    """[B] int64 index into `MIX_KINDS`; 0 leaves the image alone."""
    partner: Tensor
    """[B] int64: position in the batch, or in the pool when `pooled`."""
    lam: Tensor
    """[B] float32: weight of the image itself in 0..1 (for cutmix the drawn one; the box decides the label)."""
    centre: Tensor
    """[B, 2] float32 (y, x) in 0..1: centre of the cutmix box."""
    partner_class: Tensor
    """[B] int64 label of the partner."""
    pooled: bool = False


@dataclass(frozen=True)
class Plan:
    """What happens to each image of a batch, replayable. B images, S slots in order, K extra numbers a slot."""

    choices: tuple[Choice, ...]
    """What the numbers in `choice` mean."""
    choice: Tensor
    """[B, S] int64 index into `choices`; -1 is an empty slot."""
    value: Tensor
    """[B, S] float32 in the operator's own unit, sign included; 0 where the operator has no value."""
    strength: Tensor
    """[B, S] float32 0..1; NaN where the operator has none or the value was given in its own unit."""
    u: Tensor
    """[B, S, K] float32 uniform in [0, 1), for operators that declare draws."""
    targets: Tensor
    """[B] int64 class of each image."""
    mixes: tuple[Mix, ...] = ()
    image: ImageSettings = ImageSettings()

    def __len__(self) -> int:
        return self.choice.shape[0]

    def to(self, device: torch.device | str) -> Plan:
        """The same plan with its tensors on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("choice", "value", "strength", "u", "targets")}
        parts = ("kind", "partner", "lam", "centre", "partner_class")
        mixes = tuple(replace(mix, **{name: getattr(mix, name).to(device) for name in parts}) for mix in self.mixes)
        return replace(self, mixes=mixes, **moved)

    def without_operators(self) -> Plan:
        """The same plan doing nothing to single images."""
        return replace(self, choice=torch.full_like(self.choice, -1))

    def describe(self, i: int) -> str:
        """What happens to image `i`, in words: 'rotate -12.0 degrees, then posterize 4 bits'."""
        if not 0 <= i < len(self):
            raise InputError(f"the plan has no image {i}; it was drawn for {len(self)} images, from 0")
        parts = []
        for slot, index in enumerate(self.choice[i].tolist()):
            if index < 0:
                continue
            operator = self.choices[index].operator
            amount = f" {self.value[i, slot].item():.3g} {operator.unit}".rstrip() if operator.has_value else ""
            parts.append(operator.name + amount)
        for mix in self.mixes:
            kind = MIX_KINDS[int(mix.kind[i])]
            if kind != "none":
                where = "pool image" if mix.pooled else "image"
                parts.append(f"{kind} with {where} {int(mix.partner[i])} (keeps {mix.lam[i].item():.2f})")
        return ", then ".join(parts) or "unchanged"
