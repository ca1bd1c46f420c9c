"""ResNets with several experts: the first stages are shared, the last ones are each expert's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

OWN_STAGES = 2
"""The last stages of a ResNet that each expert has for itself, as published for CIFAR, ImageNet and iNaturalist."""


class Experts(nn.Module):
    """A shared trunk and several experts behind it (Wang et al., RIDE, ICLR 2021, without the routing module).

    Input [B, channels, H, W] float, output [B, experts, num_classes] logits. The trunk runs once for all of them.
    """

    def __init__(self, trunk: nn.Module, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunk, self.experts = trunk, nn.ModuleList(experts)
        first: Any = experts[0]
        self.num_classes, self.num_features = first.num_classes, first.num_features
        self.pretrained_cfg = self.default_cfg = first.pretrained_cfg

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """The last layer of each expert."""
        each: Any = self.experts
        return tuple(expert.get_classifier() for expert in each)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New last layers for `num_classes`; 0 leaves each expert's features, [B, experts, num_features]."""
        each: Any = self.experts
        for expert in each:
            expert.reset_classifier(num_classes, global_pool)
        self.num_classes = num_classes

    def forward_features(self, x: Tensor) -> Tensor:
        """What all experts are given: the trunk's feature map."""
        trunk: Any = self.trunk
        shared: Tensor = trunk.forward_features(x)
        return shared

    def forward_head(self, x: Tensor) -> Tensor:
        """[B, experts, num_classes] from the trunk's feature map."""
        return torch.stack([expert(x) for expert in self.experts], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def divided(build: Callable[..., nn.Module], channels: Sequence[int], experts: int, width: float) -> Experts:
    """A ResNet with experts, each a narrower copy of its last two stages with a last layer of its own.

    Args:
        build: makes the ResNet, drawing new weights each time; `channels=` says its stages' widths.
        channels: those widths.
        experts: how many, 1 or more.
        width: what an expert's stages have of the channels, 0..1; published is 0.75 (24 and 48 of 32 and 64 on CIFAR,
            192 and 384 of 256 and 512 elsewhere).
    """
    shared, own = channels[:-OWN_STAGES], channels[-OWN_STAGES:]
    widths = (*shared, *(max(1, round(width * count)) for count in own))
    trunk: Any = build(channels=widths)
    names = [name for name, _ in trunk.named_children()]
    stages = [name for name in names if re.fullmatch(r"layer\d+", name)]
    begin = names.index(stages[-OWN_STAGES])
    trunk.reset_classifier(0)
    # models pass over what is not their part, so that pooling, dropout and the order of layers stay their own affair
    _pass_over(trunk, stages[-OWN_STAGES:])
    each = [build(channels=widths) for _ in range(experts)]
    for expert in each:
        _pass_over(expert, names[:begin])
    return Experts(trunk, each)


def _pass_over(model: nn.Module, parts: Sequence[str]) -> None:
    for part in parts:
        setattr(model, part, nn.Identity())
