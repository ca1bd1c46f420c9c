"""How much a run's policy really did to the images of each class group: operators, strength, changed pixels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.engine.plan import Plan
from augkit.lab import data as lab_data
from augkit.lab import folder as files
from augkit.lab.augmentation import build_policy, own_operators
from augkit.lab.coreset_epochs import MET
from augkit.lab.data import Data
from augkit.lab.metrics import GROUPS, group_of
from augkit.lab.recipe import read_recipe
from augkit.policy import Policy
from augkit.registry import Registry

INTENSITY = "intensity.json"
SAMPLE = 256
"""Training images that plans are replayed on, as evenly over the classes as they have images."""
MOMENTS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the training, at which plans are drawn again."""


def measure(folder: Path, registry: Registry) -> dict[str, dict[str, float] | None]:
    """The intensity of a finished run by group, `all` included; writes `intensity.json` if it is not there yet.

    `operators`, how many met an image, and `strength`, the mean 0..1 of those that have one (None if none has), are
    what was counted over the whole training. `changed`, the share of pixels that differ from what the base alone
    gives, is measured on a small sample with plans drawn at five moments of the training, with what the policy had
    learned at its end. A group without a class is None. Beside a loss that chooses among views the counts are of what
    was trained on, and `changed` takes the first view for half and every other one for as likely as any. Where `subset`
    appends, an image counts each time that it comes, without the policy too; for `changed` the last choice is taken.
    """
    path = folder / INTENSITY
    if not path.exists():
        recipe = read_recipe(folder / files.RECIPE)
        data = lab_data.load(recipe.data, sources=recipe.sources)
        policy = build_policy(recipe, data, registry, torch.device("cpu"))
        policy.load_state_dict((files.load_checkpoint(folder, "policy") or {})["policy"])
        chooses = hasattr(registry.losses[(recipe.stages[0].loss or recipe.loss).name], "choose")
        appended = recipe.subset is not None and recipe.subset.of == "appended"
        files.write_json(path, _by_group(policy, data, recipe.stage_epochs[0], chooses, appended))
    found: dict[str, dict[str, float] | None] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _by_group(policy: Policy, data: Data, epochs: int, chooses: bool = False, appended: bool = False) -> dict[str, Any]:
    own = own_operators(policy)
    used, strength = (
        sum(
            (epoch[name][:, own].double() for epoch in policy.history), torch.zeros(data.num_classes, len(own)).double()
        )
        for name in ("used", "strength_used")
    )
    seen = sum((epoch["seen"].double() for epoch in policy.history), torch.zeros(data.num_classes).double())
    where = sample(data)
    times = torch.ones(len(where))  # that an image comes in an epoch; with the policy once at most
    if appended:
        times += policy.state[MET][where].cpu()
    changed, graded = torch.zeros(len(where)), strength.sum(0) > 0
    for plan, share in _replayed(policy, data, where, epochs, own, chooses):
        changed += share / len(MOMENTS)
        graded |= _graded(plan, own)
    groups = np.array(group_of(data.real_counts))
    labels = data.train.labels[where].cpu().numpy()
    result: dict[str, Any] = {}
    for group in ("all", *GROUPS):
        member = (groups == group) | (group == "all")
        if not member.any():
            result[group] = None
            continue
        rows = torch.from_numpy(member)
        mine = torch.from_numpy(member[labels])
        amount, many = float(strength[rows].sum()), float(used[rows][:, graded].sum())
        result[group] = {
            "operators": float(used[rows].sum() / seen[rows].sum().clamp(min=1)),
            "strength": amount / many if many else None,
            "changed": float(changed[mine].sum() / times[mine].sum()),
        }
    return result


def sample(data: Data) -> Tensor:
    """Positions in the training split: the first images of each class, in turn, until there are enough."""
    labels = data.train.labels.cpu().numpy()
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    order = np.lexsort((labels, rank))
    enough = max(SAMPLE, data.num_classes)  # one of every class at least
    return torch.from_numpy(np.sort(order[:enough])).to(data.train.labels.device)


def _replayed(
    policy: Policy, data: Data, where: Tensor, epochs: int, own: list[int], chooses: bool
) -> Iterator[tuple[Plan, Tensor]]:
    """The plan of each moment, and the share of changed pixels of each image, [N] float32."""
    policy.out = None  # bytes can be compared
    images, labels = next(data.train.batches([where])), data.train.labels[where]
    mine = torch.zeros(len(policy.program.choices) + 1, dtype=torch.bool)  # the last entry is that of an empty slot
    mine[own] = True
    for moment in MOMENTS:
        policy.epoch = int(moment * epochs)
        policy.began = True  # rules of an epoch's start would learn on
        policy.memory.set_signals({"epoch": torch.full((), float(policy.epoch))})
        plan = policy.plan(labels, **data.train.companions(where), images=images)
        base = replace(plan, choice=torch.where(mine[plan.choice], -1, plan.choice), branches=None, views=(), mixes=())
        after, before = policy.apply(images, plan)[0], policy.apply(images, base)[0]
        by_view = (after.unflatten(0, (-1, len(images))) != before).any(2).float().mean((2, 3))
        yield plan, (by_view[0] + by_view[1:].mean(0)) / 2 if chooses else by_view.mean(0)


def _graded(plan: Plan, own: list[int]) -> Tensor:
    """[own] bool: which operators a plan gives a strength."""
    result = torch.zeros(len(plan.choices), dtype=torch.bool)
    for part, _ in plan.parts():
        result[part.choice[(part.choice >= 0) & ~part.strength.isnan()]] = True
    return result[own]
