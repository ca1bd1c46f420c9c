"""A policy and the model's answers: which are right, checking those that it is shown, and asking for more.

What is right is a function by name (`ANSWERS`, and those of plugins): `function(output, targets [N] int64, *, facts,
options) -> [N] bool`. In the lab the output is logits [N, C], or [N, experts, C] of a model of several experts;
elsewhere whatever the model gave. Facts, given to a function that has a parameter of the name: `class_counts` [C]
float32, training images of each class. Every other keyword-only parameter is an option of the recipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from augkit.checks import answer_of, check_logits, check_targets
from augkit.engine.executors import choose
from augkit.engine.nested import execute
from augkit.engine.plan import Plan
from augkit.errors import InputError, StateError
from augkit.learning.probes import Asked, ask

if TYPE_CHECKING:
    from augkit.policy import Policy


def right_answers(output: Any, targets: Tensor) -> Tensor:
    """Right is the largest logit: of several experts' mean, or of the first tensor [N, C] in the output."""
    logits = answer_of(output)
    if logits is None or len(logits) != len(targets):
        what = tuple(logits.shape) if logits is not None else type(output).__name__
        raise InputError(f"the model must answer [{len(targets)}, C] logits, not {what}; give answer= for another kind")
    return logits.argmax(1) == targets


ANSWERS: Mapping[str, Callable[..., Tensor]] = {"top1": right_answers}


def count(policy: Policy, kept: Tensor | None = None) -> None:
    """Count the last plan as what happens to its images; with `kept` [P, B], rows of the V * B results, of its views
    only those. They are then what `observe` is shown answers to, the whole first view first."""
    plan = policy.last_plan
    if plan is None:
        raise InputError("there was no batch yet whose operators could be counted")
    times = None
    if kept is not None:
        times = torch.zeros(len(plan.views) * len(plan), device=kept.device)
        times = times.scatter_add(0, kept.flatten(), torch.ones_like(kept.flatten(), dtype=times.dtype))
        times = times.view(len(plan.views), len(plan)).to(policy.device)
    classes = plan.targets if policy.num_classes else torch.zeros_like(plan.targets)
    policy.statistics.count_plan(plan, classes, times)


def observed(policy: Policy, logits: Any, targets: Tensor | None, split: str) -> tuple[Tensor, Tensor]:
    """Answers [B, C] and targets [B] int64 that count, on the policy's device; see `Policy.observe`."""
    logits = check_logits(logits, policy.num_classes, split)
    if targets is None:
        if split == "val":
            raise InputError('observe(logits, split="val") needs targets=, the labels of these validation images')
        if policy.last_plan is None:
            raise InputError("observe(logits) was called before any batch was augmented; pass targets=")
        size = len(policy.last_plan)
        views = len(logits) // max(1, size) if policy.views else 1  # a loss may have chosen among them
        targets = policy.last_plan.targets.repeat(max(1, views))
    else:
        size = len(targets) // max(1, len(policy.views))
    check_targets(targets, policy.num_classes)
    if len(targets) != len(logits):
        raise InputError(
            f"observe got {len(logits)} answers for {len(targets)} targets; pass the targets of this very batch"
        )
    if split == "train" and policy.views:
        logits, targets = logits[:size], targets[:size]
    # the policy may work on the host while the model is elsewhere: counts stay where the policy is
    return logits.detach().to(policy.device), targets.long().to(policy.device)


def judged(policy: Policy, logits: Any, own: Tensor, targets: Tensor) -> Tensor:
    """[B] bool: which of the answers that count (`own`, with their targets) are right; experts are judged by all."""
    experts = isinstance(logits, Tensor) and logits.ndim == 3
    return policy.answer(logits[: len(own)].detach().to(own.device) if experts else own, targets)


def levels_of(policy: Policy, levels: Mapping[str, Tensor] | None, size: int) -> Mapping[str, Tensor]:
    """The levels that so many answers are counted by: those given, or those of the last batch."""
    if levels is None and policy.last_plan is not None and len(policy.last_plan) == size:
        levels = policy.last_plan.levels
    if levels is None or any(len(level) != size for level in levels.values()):
        raise InputError(
            f'strategy "{policy.strategy.name}" counts answers by level: pass levels=plan.levels of these {size} images'
        )
    return {name: level.to(policy.device) for name, level in levels.items()}


def refuse_unwatched(policy: Policy) -> None:
    """Refuse to end an epoch in which nobody showed the answers that a document learns from."""
    counts = policy.statistics
    unseen = {"observe": not counts.observed, "val": not counts.observed_val}
    calls = {"observe": "policy.observe(logits) after each forward pass, or use augkit.integrations.timm.wrap"}
    calls["val"] = 'policy.observe(logits, targets, split="val") on validation images before the epoch ends'
    for need, missing in unseen.items():
        if need in policy.needs and counts.drawn and missing:
            raise StateError(
                f'strategy "{policy.strategy.name}" learns from the model\'s {"val " if need == "val" else ""}answers'
                f" but saw none in epoch {policy.epoch}; call {calls[need]}"
            )


def attach(policy: Policy, asked: Asked) -> None:
    """Take a model and its training images, checked and on the policy's device."""
    asked.pool.to(policy.device).classes(policy.num_classes or 1)
    for name in ("group", "is_synthetic"):
        if name in policy.needs and getattr(asked.pool, name) is None:
            raise InputError(f'strategy "{policy.strategy.name}" uses `{name}`: make the probe pool with {name}=')
    if asked.pool.note and asked.pool.note not in policy.warnings:
        policy.warnings.append(asked.pool.note)
    policy.asked = asked


def ask_model(policy: Policy) -> None:
    """Make the probes of an epoch's start.

    Raises:
        StateError: no model was attached.
    """
    if policy.asked is None:
        raise StateError(
            f'strategy "{policy.strategy.name}" asks the model at each epoch\'s start: call'
            " policy.attach_model(model, ProbePool(images, labels), prepare) before the first batch, or use"
            " augkit.integrations.timm.wrap"
        )

    def run(images: Tensor, plan: Plan) -> Tensor:
        return execute(images, plan, choose(policy.executor, images)[1], out=policy.out)

    begin = time.perf_counter()
    asked = replace(policy.asked, answer=policy.answer)
    asked.pool.to(policy.device)
    policy.probe_images = ask(policy.memory, asked, policy.epoch, run)
    if policy.device.type == "cuda":
        torch.cuda.synchronize(policy.device)  # the rules wait for the results anyway
    policy.probe_seconds = time.perf_counter() - begin
