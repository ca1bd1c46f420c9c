"""The curriculum as a document, images that a model can read its class, number and level from, and models that do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from augkit import Policy
from augkit.engine.batched import execute as batched
from augkit.engine.nested import execute
from augkit.engine.plan import Plan
from augkit.learning.probe_pool import ProbePool
from augkit.learning.probes import ask

CLASSES = 4
CURRICULUM: dict[str, Any] = {
    "augkit": 1,
    "name": "curriculum",
    "params": {"p": 0.5, "trials": 10, "gamma": 0.6, "full": 30, "deepest": 10},
    "palette": "cuda22",
    "image": {"resample": "nearest", "fill": "black", "exact": True},
    "state": {"depth": {"axes": ["classes"], "dtype": "int", "init": 0, "clamp": [0, "deepest"]}},
    "pipeline": [{"pick": {"p": "p", "count": "depth[y]", "replace": True, "strength": "depth[y] / full"}}],
    "probes": {
        "answers": {
            "upto": "depth",
            "samples": "trials * (level + 1)",
            "pick": {"p": 1, "count": "level", "replace": True, "strength": "level / full"},
        }
    },
    "update": [
        {
            "at": "epoch_start",
            "let": {"passed": "all(answers.correct > gamma * answers.drawn, over=levels)"},
            "set": {"depth": "where(passed, depth + 1, depth - 1)"},
        }
    ],
}
SHIFTS = {
    **CURRICULUM,
    "name": "shifts",
    "palette": None,
    "pipeline": [],
    "probes": {
        "answers": {
            "upto": "depth",
            "samples": "trials * (level + 1)",
            "steps": [{"translate_x_pixels": {"pixels": "level"}}],
        }
    },
}
"""The same, with a level that can be seen: so many columns of the image are black."""
COUNTING = {
    **CURRICULUM,
    "name": "counting",
    "palette": None,
    "params": {"p": 0.7, "gamma": 0.6, "deepest": 10},
    "state": {"depth": {"axes": ["classes"], "dtype": "int", "init": "deepest", "clamp": [0, "deepest"]}},
    "pipeline": [{"translate_x_pixels": {"pixels": "answers.level"}}],
    "probes": {"answers": {"upto": "depth", "level": "where(bernoulli(p), randint(0, depth[y] + 1), 0)"}},
    "update": [{**CURRICULUM["update"][0], "at": "epoch_end"}],
}
"""Levels of the training images themselves."""


def images(each: int = 20, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 6, 16] uint8 that tell their class (red) and number (green), and their labels."""
    labels = torch.arange(each * classes) % classes
    made = torch.zeros(len(labels), 3, 6, 16, dtype=torch.uint8)
    made[:, 0] = (labels * 20 + 10)[:, None, None]
    made[:, 1] = (torch.arange(len(labels)) % 250 + 1)[:, None, None]
    made[:, 2] = 255
    return made, labels


def read(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Class, number and level [N] int64 each of images in 0..1."""
    seen = (x * 255).round().long()
    return (seen[:, 0, 0, 0] - 10) // 20, seen[:, 1, 0, 0], (seen[:, 2, 0] == 0).sum(1)


def is_right(number: Tensor, level: Tensor, probability: Tensor) -> Tensor:
    """A fixed choice of images: about so many are right."""
    return (number * 7919 + level * 10_473 + 13) % 97 < 97 * probability


class Oracle(nn.Module):
    """Right with a known probability for each class and level; has a normalisation to disturb and modes to restore."""

    def __init__(self, probability: Tensor) -> None:
        super().__init__()
        self.probability = probability
        self.norm, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.frozen.eval()
        self.sizes: list[int] = []
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.modes.add(self.training)
        self.norm(x)
        classes, number, level = read(x)
        classes, level = (
            classes.clamp(0, len(self.probability) - 1),
            level.clamp(max=10),
        )  # operators change what it reads
        right = is_right(number, level, self.probability[classes, level])
        return nn.functional.one_hot((classes + ~right) % len(self.probability), len(self.probability)).float()


def load(document: dict[str, Any], **options: Any) -> Policy:
    return Policy.load(document, **{"class_counts": [20] * CLASSES, "seed": 3, **options})


def asked(document: dict[str, Any], model: nn.Module, batch: int | None = None, **options: Any) -> Policy:
    """A policy with a model and a pool of `images()`."""
    policy = load(document, **options)
    policy.attach_model(model, ProbePool(*images()), batch=batch)
    return policy


MIXED = torch.tensor([[1.0] * 11, [0.9] * 4 + [0.3] * 7, [0.62] * 11, [0.0] * 11])


def epochs(policy: Policy, number: int) -> list[list[float]]:
    """Depths after each epoch's start."""
    found = []
    for _ in range(number):
        policy.begin_epoch()
        found.append(policy.state["depth"].tolist())
        policy.end_epoch()
    return found


def plans(policy: Policy) -> list[tuple[Plan, Tensor]]:
    """The plans of one epoch's probes and the images before them."""
    found: list[tuple[Plan, Tensor]] = []

    def run(batch: Tensor, plan: Plan) -> Tensor:
        found.append((plan, batch))
        return execute(batch, plan, batched)

    assert policy.asked is not None
    ask(policy.memory, policy.asked, policy.epoch, run)
    return found


def changed(document: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The same with another probe."""
    return {**document, "probes": {"answers": {**document["probes"]["answers"], **parts}}}
