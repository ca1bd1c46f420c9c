"""Every valid document runs: drawn, executed, observed, its rules run, resumed, the same again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augkit import Policy
from augkit.engine.plan import Plan
from augkit.learning.probe_pool import ProbePool
from augkit.plugins import load_registry
from tests.strategies_gen import documents

REGISTRY = load_registry(plugins=False)
COUNTS = [9, 5, 2, 1]


def load(document: dict[str, Any]) -> Policy:
    return with_model(Policy.load(document, class_counts=COUNTS, groups=2, num_samples=17, epochs=3, seed=4))


def with_model(policy: Policy) -> Policy:
    """The policy with something to ask, if its document asks."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (17, 3, 9, 12), dtype=torch.uint8, generator=generator)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(324, 4))
    torch.nn.init.constant_(model[1].weight, 0.01)
    if "model" in policy.needs:
        policy.attach_model(model, ProbePool(images, labels, group=labels % 2, is_synthetic=labels == 1), batch=5)
    return policy


def step(policy: Policy, size: int, start: int) -> tuple[Plan, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(start)
    images = torch.randint(0, 256, (size, 3, 9, 12), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 4, (size,), generator=generator)
    index = torch.arange(start, start + size) % 17
    out, labels = policy(images, targets, index=index, group=index % 2, is_synthetic=index % 3 == 0)
    views = max(1, len(policy.views))
    assert out.dtype == images.dtype and out.shape == (views * size, *images.shape[1:])
    if policy.strategy.mixes:
        assert torch.allclose(labels.sum(1), torch.ones(size), atol=1e-5)
    elif policy.views:
        assert torch.equal(labels, targets.repeat(views))
    else:
        assert labels is targets
    seen = policy.statistics.seen.sum()
    policy.observe(torch.nn.functional.one_hot((targets.repeat(views) + start % 2) % 4, 4).float())
    assert policy.statistics.seen.sum() == seen + size, "the first view counts"
    policy.observe(torch.zeros(1, 4), torch.tensor([3]), split="val")
    assert policy.last_plan is not None
    return policy.last_plan, out, labels


def check(plan: Plan, policy: Policy) -> None:
    for part, rows in plan.parts():
        active = part.choice >= 0
        assert len(part) == rows * len(plan)
        assert (part.choice < len(part.choices)).all() and part.value.isfinite().all()
        strengths = part.strength[active]
        assert ((strengths >= 0) & (strengths <= 1) | strengths.isnan()).all()
    for i in range(len(plan) * max(1, len(plan.views))):
        assert plan.describe(i)
    for name, value in policy.state.items():
        assert value.isfinite().all(), name


def runs_and_resumes(data: st.DataObject) -> None:
    policy = load(data.draw(documents(REGISTRY, samples=True)))
    policy.strategy = policy.strategy
    for start in (0, 5):
        plan, _, _ = step(policy, 5, start)
        check(plan, policy)
    policy.end_epoch()
    kept = policy.state_dict()
    plan, out, labels = step(policy, 7, 3)
    check(plan, policy)
    resumed = with_model(
        Policy(policy.strategy, class_counts=COUNTS, groups=2, num_samples=17, epochs=3, registry=REGISTRY)
    )
    resumed.load_state_dict(kept)
    _, out_again, labels_again = step(resumed, 7, 3)
    assert torch.equal(out, out_again) and torch.equal(labels, labels_again)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_a_valid_document_runs_and_resumes(data: st.DataObject) -> None:
    runs_and_resumes(data)


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_every_valid_document_runs_and_resumes(data: st.DataObject) -> None:
    runs_and_resumes(data)
