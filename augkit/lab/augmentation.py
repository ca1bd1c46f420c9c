"""A recipe's augmentation as one document: base before, the policy, base after, normalised in the last pass.

One document means one plan and one run over the pixels. The policy inside `use` keeps its own palette and state; the
`image` settings of its document hold for the base too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augkit.engine.output import Output
from augkit.engine.program import Program, Sizes, bind
from augkit.errors import DocumentError
from augkit.lab.coreset_epochs import MET, places
from augkit.lab.course import counts_of
from augkit.lab.data import NO_GROUPS, Data, Split
from augkit.lab.recipe import Recipe
from augkit.learning.probe_pool import MAX_BYTES, ProbePool, rows_within
from augkit.policy import Policy
from augkit.registry import Registry
from augkit.strategy.document import is_path, load_strategy
from augkit.strategy.model import Strategy
from augkit.strategy.order import kinds

_STEP = re.compile(r"^pipeline\[(\d+)\]")
_UNFILLED = ("hflip", "vflip")
"""Warps that never look beyond the image's edge."""


class Normalise(nn.Module):
    """uint8 [B, 3, H, W] to float32 `(x / 255 - mean) / std`: what test images go through."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        column = torch.tensor(std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * column), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).view(1, 3, 1, 1) / column, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images.float(), self.scale)


def strategy_of(recipe: Recipe, registry: Registry) -> Strategy:
    """The combined document of a recipe, loaded and checked. A policy that mixes, blends or has views comes last.

    Raises:
        DocumentError: the policy or a step of the base is wrong, the policy's fill would show in the base, or `subset`
            wants single images left alone and the policy cannot.
    """
    policy = load_strategy(recipe.policy.load, registry, params=recipe.policy.params)
    name, folder = recipe.policy.load, None
    if is_path(name):
        folder, name = Path(name).parent, Path(name).name
    chooses = _chooses(recipe, policy)
    gate = {"p": f"{MET}[index]"} if chooses else {}
    steps = {
        "before": list(recipe.base.before),
        "policy": [{"use": {"name": name, "params": recipe.policy.params, **gate}}],
        "after": list(recipe.base.after),
    }
    last = policy.view_names or kinds(policy.pipeline) & {"branches", "mixing"}
    order = ("before", "after", "policy") if last else ("before", "policy", "after")
    document: dict[str, Any] = {
        "augkit": 1,
        "name": f"{recipe.name}-{policy.name}",
        "image": policy.image.model_dump(),  # the policy's pixels stay as its document wants them
        "pipeline": [step for part in order for step in steps[part]],
    }
    if chooses:
        document["state"] = {MET: {"axes": ["samples"], "init": 0, "clamp": [0, 1]}}  # `coreset_epochs` says which
    try:
        strategy = load_strategy(document, registry, folder=folder)
    except DocumentError as error:
        raise _in_recipe(error, [(part, step) for part in order for step in range(len(steps[part]))]) from error
    if policy.image.fill != "black":
        for part in ("before", "after"):
            for number, step in enumerate(steps[part]):
                _keep_black(step, f"base.{part}[{number}]", policy, registry, folder)
    return strategy


def _chooses(recipe: Recipe, policy: Strategy) -> bool:
    """Whether the recipe's `subset` says which images meet the policy.

    Raises:
        DocumentError: it does, and the policy cannot leave single images alone.
    """
    if recipe.subset is None or recipe.subset.of == "training":
        return False
    if policy.mixes or policy.view_names:
        does = "mixes images" if policy.mixes else "has views, which every image gets,"
        raise DocumentError(
            f'"{policy.name}" {does} and so cannot leave single images alone: say of: training, which trains on the'
            " chosen images only, or take another policy",
            path="subset",
        )
    return True


def _keep_black(step: Any, path: str, policy: Strategy, registry: Registry, folder: Path | None) -> None:
    """Refuse a step of the base that can show the policy's fill, which a run with `none` would show black.

    Raises:
        DocumentError: naming the first operator that can.
    """
    alone = load_strategy({"augkit": 1, "name": "base", "pipeline": [step]}, registry, folder=folder)
    for choice in bind(alone, Sizes()).choices:
        name = choice.operator.name
        if choice.operator.kind == "warp" and name not in _UNFILLED:
            raise DocumentError(
                f'"{name}" would fill its border as the policy "{policy.name}" does ({policy.image.fill}), but black'
                f" beside other policies: give a base without {name}, or a policy with fill: black",
                path=path,
            )


def _in_recipe(error: DocumentError, places: list[tuple[str, int]]) -> DocumentError:
    """An error of the combined document, told by the paths of the recipe."""

    def moved(match: re.Match[str]) -> str:
        part, step = places[int(match[1])]
        return "policy" if part == "policy" else f"base.{part}[{step}]"

    parts = [DocumentError(part.message, path=_STEP.sub(moved, part.path)) for part in error.problems]
    return parts[0] if len(parts) == 1 else DocumentError(error.message, problems=parts)


def build_policy(recipe: Recipe, data: Data, registry: Registry, device: torch.device) -> Policy:
    """The combined policy, bound to the classes of the first stage's images; its output is normalised float32.

    Raises:
        DocumentError: the policy is wrong, or needs groups or a validation split that the run does not have.
    """
    strategy = strategy_of(recipe, registry)
    if "group" in strategy.needs and data.train.groups is None:
        raise DocumentError(f'"{recipe.policy_name}" works by group, and {NO_GROUPS}', path="policy")
    if "val" in strategy.needs and data.val is None:
        raise DocumentError(
            f'"{recipe.policy_name}" learns from validation answers (val_correct, val_seen), but this run has no'
            " validation split: set data.validation to a share of each class, such as 0.1",
            path="policy",
        )
    return Policy(
        strategy,
        class_counts=counts_of(recipe, data),
        class_names=data.class_names,
        groups=data.group_names if data.train.groups is not None else None,
        num_samples=places(recipe, len(data.train)),
        epochs=recipe.stage_epochs[0],
        seed=recipe.seed,
        device=device,
        out=Output(torch.float32, recipe.data.mean, recipe.data.std),
        executor=recipe.executor,
        registry=registry,
    )


def probe_pool(split: Split, seed: int, max_bytes: int = MAX_BYTES) -> ProbePool:
    """The training images for probes: those that are held on the device anyway, or as many as there is room for."""
    if split.held is not None:
        return ProbePool(split.held, split.labels, group=split.groups, is_synthetic=split.is_synthetic)
    rows = rows_within(split.labels.cpu(), max(1, max_bytes // (3 * split.size**2)), seed).to(split.labels.device)
    images = torch.cat(list(split.batches(rows.split(256))))
    return ProbePool(images, split.labels[rows], **split.companions(rows), of=len(split))


def own_operators(policy: Policy) -> list[int]:
    """Columns of `used` that belong to the recipe's policy and not to its base alone."""
    return own_columns(policy.program)


def own_columns(program: Program) -> list[int]:
    """The same of a bound strategy."""
    inner = [bound for bound in program.bounds if bound is not program.root]
    columns = {bound.offset + i for bound in inner for i in range(bound.ops)}
    return sorted(columns.union(*(bound.single.values() for bound in inner)))
