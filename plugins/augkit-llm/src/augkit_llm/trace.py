"""What a strategy does to images in a training that is played to it: a fixed script of answers over a fixed number of
epochs, the same small images in each, no model.

The script has answers that rise and fall: frequent classes are known early, rare ones late, and every class forgets
something on the way. Draws are keyed by the strategy's own places and one seed, so two strategies that differ in words
alone draw the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from augkit.policy import Policy
from augkit.registry import Registry
from augkit.strategy.model import Strategy

EPOCHS = 60
"""Of the training that is played, unless told otherwise."""
LOOKS = 10
"""Epochs in which images are really made, spread over the training."""
GROUPS = ("many", "medium", "few")
"""Thirds of the classes by their images."""
EACH = 64
"""Images of each group."""
CLASSES = 8
"""Classes of each group that have images."""
SIDE = 32
"""Largest side of the images."""


@dataclass
class Look:
    """What one batch of one epoch looked like."""

    epoch: int
    used: dict[str, Tensor]
    """By operator, [groups] how many of them an image met."""
    strength: Tensor
    """[groups] mean of the strengths, 0 where none was drawn."""
    edge: float
    """Share of the strengths that are 0 or 1 exactly."""
    met: Tensor
    """[groups] share of images that changed at all."""
    changed: Tensor
    """[groups] share of pixels that changed."""
    distance: Tensor
    """[groups] mean absolute change, of white."""
    own: Tensor
    """[groups] weight of the image's own label, below 1 where images are mixed."""
    result: str
    """Hash of the images and their targets as they came out."""


@dataclass
class Trace:
    """A training that was played."""

    groups: tuple[str, ...]
    looks: list[Look] = field(default_factory=list)
    divisions: int = 0
    """How often an expression of a rule or a step divided by zero."""

    @property
    def operators(self) -> float:
        """How many operators an image met, mean over groups and epochs: what it costs, and the same on every run."""
        met = [float(number.mean()) for look in self.looks for number in look.used.values()]
        return sum(met) / max(1, len(self.looks))


class Stage:
    """Where trainings are played: classes, images, the script.

    Args:
        class_counts: training images of each class.
        image_size: side of the images in pixels; larger ones are played smaller.
        epochs: of the training that is played.
    """

    def __init__(self, class_counts: Sequence[int], image_size: int, epochs: int = EPOCHS) -> None:
        self.counts, self.epochs = [int(count) for count in class_counts], max(2, epochs)
        self.sizes = torch.tensor(self.counts, dtype=torch.float32)
        order = sorted(range(len(self.counts)), key=lambda number: (-self.counts[number], number))
        thirds = torch.arange(len(order)).tensor_split(len(GROUPS))
        members = [[order[int(place)] for place in third] for third in thirds]
        self.groups = tuple(name for name, group in zip(GROUPS, members, strict=True) if group)
        shown = [_spread(group, CLASSES) for group in members if group]
        self.targets = torch.tensor([group[number % len(group)] for group in shown for number in range(EACH)])
        self.rank = torch.empty(len(order))
        self.rank[torch.tensor(order)] = torch.linspace(0, 1, len(order))
        self.images = _images(len(self.targets), max(8, min(image_size, SIDE)))
        self.index = torch.arange(len(self.targets)) % max(1, sum(self.counts))
        self.shown = set(_spread(list(range(self.epochs)), LOOKS))

    def policy(self, strategy: Strategy, registry: Registry) -> Policy:
        return Policy(
            strategy,
            class_counts=self.counts,
            epochs=self.epochs,
            device="cpu",
            executor="batched",
            registry=registry,
        )

    def answers(self, epoch: int) -> Tensor:
        """[classes] share of right answers in an epoch of the script."""
        progress = epoch / (self.epochs - 1)
        learned = 1 - torch.exp(-progress * 4 * (1.2 - self.rank))
        wave = 0.12 * torch.sin(2 * math.pi * (3 * progress + self.rank))
        shares: Tensor = 0.05 + 0.9 * learned + wave * math.sqrt(progress)
        return shares.clamp(0, 1)

    def count(self, policy: Policy, epoch: int) -> None:
        """Put the script's answers where a training's would be, and what was used to the scale of whole classes."""
        sums, right = policy.statistics.sums, self.answers(epoch)
        sums["seen"] = self.sizes.clone()
        sums["correct"] = (right * self.sizes).round()
        sums["loss"] = self.sizes * (2.5 * (1 - right) + 0.1)
        for name in policy.statistics.signals:
            sums[name] = self.sizes * right
        seen = torch.bincount(self.targets, minlength=len(self.counts)).clamp(min=1)
        for name in ("used", "strength_used"):
            sums[name] = sums[name] * (self.sizes / seen)[:, None]
        policy.statistics.observed = 1


def play(strategy: Strategy, registry: Registry, stage: Stage, *, enough: float = math.inf) -> Trace:
    """Play a whole training, or until an image has met more than `enough` operators in the mean.

    Raises:
        StateError: a state became infinite or NaN.
    """
    policy = stage.policy(strategy, registry)
    trace = Trace(stage.groups)
    for epoch in range(stage.epochs):
        plan = policy.plan(stage.targets, index=stage.index, images=stage.images)
        if epoch in stage.shown:
            trace.looks.append(_look(policy, stage, epoch, *policy.apply(stage.images, plan)))
            if trace.operators > enough:
                break
        stage.count(policy, epoch)
        policy.end_epoch()
    trace.divisions = int(policy.memory.divisions)
    return trace


def _look(policy: Policy, stage: Stage, epoch: int, images: Tensor, targets: Tensor) -> Look:
    plan = policy.last_plan
    assert plan is not None
    count = len(stage.groups)
    used: dict[str, Tensor] = {}
    total, number, edges = torch.zeros(count), torch.zeros(count), 0
    for part, rows in plan.parts():
        group = torch.arange(count).repeat_interleave(EACH * rows)
        for position, choice in enumerate(part.choices):
            here = (part.choice == position).sum(1).float()
            if bool(here.any()):
                name = choice.operator.name
                used[name] = used.get(name, torch.zeros(count)) + torch.zeros(count).index_add(0, group, here) / EACH
        graded = (part.choice >= 0) & ~part.strength.isnan()
        strength = torch.where(graded, part.strength.nan_to_num(0.0), 0.0)
        total = total.index_add(0, group, strength.sum(1))
        number = number.index_add(0, group, graded.sum(1).float())
        edges += int((graded & ((part.strength <= 0) | (part.strength >= 1))).sum())
    difference = (images.float() - stage.images.float()).abs().amax(1).flatten(1)
    share = (difference > 0).float().mean(1)
    own = targets[torch.arange(len(stage.targets)), stage.targets] if targets.ndim == 2 else torch.ones(len(targets))
    changed, distance, label = (
        value.view(count, EACH).mean(1) for value in (share, difference.mean(1) / 255, own.float())
    )
    met = (share > 0).float().view(count, EACH).mean(1)
    edge = edges / float(number.sum()) if float(number.sum()) else 0.0
    result = hashlib.sha256(images.numpy().tobytes() + targets.float().numpy().tobytes()).hexdigest()
    return Look(epoch, used, total / number.clamp(min=1), edge, met, changed, distance, label, result)


def _spread(items: list[int], most: int) -> list[int]:
    """At most so many of them, the first and the last included."""
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _images(number: int, side: int) -> Tensor:
    """[number, 3, side, side] uint8: soft blots with grain on them, so that no operator finds nothing to change."""
    generator = torch.Generator().manual_seed(0)
    blots = torch.rand(number, 3, 5, 5, generator=generator)
    soft = torch.nn.functional.interpolate(blots, size=(side, side), mode="bilinear", align_corners=True)
    grain = torch.rand(number, 3, side, side, generator=generator) - 0.5
    return (soft * 200 + 25 + grain * 30).clamp(0, 255).to(torch.uint8)


def summary(trace: Trace) -> dict[str, Any]:
    """What happened by group, as plain numbers: operators an image, strength, share of images and pixels changed."""
    looks = trace.looks

    def mean(values: list[Tensor]) -> dict[str, float]:
        made = torch.stack(values).mean(0) if values else torch.zeros(len(trace.groups))
        return {name: round(float(value), 4) for name, value in zip(trace.groups, made, strict=True)}

    names = sorted({name for look in looks for name in look.used})
    nothing = torch.zeros(len(trace.groups))
    return {
        "operators": {name: mean([look.used.get(name, nothing) for look in looks]) for name in names},
        "strength": mean([look.strength for look in looks]),
        "images_changed": mean([look.met for look in looks]),
        "pixels_changed": mean([look.changed for look in looks]),
        "distance": mean([look.distance for look in looks]),
        "own_label": mean([look.own for look in looks]),
    }
