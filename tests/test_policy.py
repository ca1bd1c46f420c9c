"""The Policy: draws that depend on images alone, state that learns, exact resume."""

from __future__ import annotations

import pytest
import torch
from policy_parts import COUNTS, LEARNER, PICK, answers, batch
from scipy import stats

from augkit import Output, Policy
from augkit.errors import InputError


def test_with_indices_batching_and_order_change_nothing() -> None:
    images, targets, index = batch(64)
    whole, _ = Policy.load(PICK, class_counts=COUNTS, seed=5)(images, targets, index=index)
    single = Policy.load(PICK, class_counts=COUNTS, seed=5)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(9))
    for i in order.tolist():
        one, _ = single(images[i : i + 1], targets[i : i + 1], index=index[i : i + 1])
        assert torch.equal(one[0], whole[i])


def test_a_repeated_index_draws_anew_and_an_epoch_repeats_nothing() -> None:
    _, targets, index = batch(200)
    policy = Policy.load(PICK, class_counts=COUNTS)
    first = policy.plan(targets, index=index)
    again = policy.plan(targets, index=index)
    policy.end_epoch()
    later = policy.plan(targets, index=index)
    width = min(plan.choice.shape[1] for plan in (first, again, later))
    for other in (again, later):
        assert (first.choice[:, :width] != other.choice[:, :width]).any(1).float().mean() > 0.5
    fresh = Policy.load(PICK, class_counts=COUNTS).plan(targets, index=index)
    assert torch.equal(fresh.choice, first.choice) and torch.equal(fresh.value, first.value)


def test_operator_frequencies_and_the_gate_are_as_written() -> None:
    policy = Policy.load(PICK, class_counts=COUNTS)
    plan = policy.plan(torch.zeros(8000, dtype=torch.int64))
    active = plan.choice[plan.choice >= 0]
    assert stats.chisquare(torch.bincount(active, minlength=4).numpy()).pvalue > 1e-3
    gated = (plan.choice >= 0).any(1).sum().item()
    assert stats.binomtest(gated, 8000, 0.8).pvalue > 1e-3
    both = plan.choice[(plan.choice >= 0).all(1)]
    assert (both[:, 0] != both[:, 1]).all(), "without replacement no operator comes twice"
    degrees = plan.value[plan.choice == 2]
    assert stats.binomtest(int((degrees < 0).sum()), len(degrees), 0.5).pvalue > 1e-3
    assert stats.kstest(degrees.abs().numpy() / degrees.abs().max().item(), "uniform").pvalue > 1e-3


def test_a_plan_replays_and_says_what_it_does() -> None:
    images, targets, index = batch(16)
    kept = images.clone()
    policy = Policy.load(PICK, class_counts=COUNTS)
    out, labels = policy(images, targets, index=index)
    assert policy.last_plan is not None
    again, _ = policy.apply(images, policy.last_plan)
    assert torch.equal(out, again) and labels is targets
    assert torch.equal(images, kept), "the caller's images are never written to"
    words = [policy.last_plan.describe(i) for i in range(16)]
    assert any("rotate" in text and "degrees" in text for text in words)
    unchanged = [i for i, text in enumerate(words) if text == "unchanged"]
    assert unchanged and all(torch.equal(out[i], images[i]) for i in unchanged)


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["randaugment", "mixup_cutmix"])
def test_any_batch_size_and_dtype(size: int, dtype: torch.dtype, name: str) -> None:
    images, targets, _ = batch(size)
    given = images if dtype == torch.uint8 else (images.float() / 255).to(dtype)
    out, labels = Policy.load(name, class_counts=COUNTS)(given, targets)
    assert out.dtype == dtype and out.shape == images.shape
    assert labels.shape == ((size, 3) if name == "mixup_cutmix" else (size,))


def test_mixing_documents_give_dense_labels_that_sum_to_one() -> None:
    images, targets, _ = batch(33)
    policy = Policy.load("mixup_cutmix", class_counts=COUNTS, label_smoothing=0.1)
    _, labels = policy(images, targets)
    assert torch.allclose(labels.sum(1), torch.ones(33))
    policy.mixing = False
    out, labels = policy(images, targets)
    assert torch.equal(out, images)
    assert torch.allclose(labels.max(1).values, torch.tensor(1 - 0.1 + 0.1 / 3))


def test_output_normalises_in_the_same_call() -> None:
    images, targets, index = batch(32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    plain, _ = Policy.load("randaugment", class_counts=COUNTS)(images, targets, index=index)
    policy = Policy.load("randaugment", class_counts=COUNTS, out=Output(torch.float32, mean, std))
    normal, _ = policy(images, targets, index=index)
    expected = (plain.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert (normal - expected).abs().max() < 1e-4


def test_class_state_follows_the_published_rule_step_by_step() -> None:
    policy = Policy.load(LEARNER, class_counts=COUNTS, seed=3)
    images, targets, index = batch(30)
    oracle = {name: value.clone() for name, value in policy.state.items()}
    for epoch in range(6):
        right = torch.rand(30, generator=torch.Generator().manual_seed(epoch)) < 0.2 + 0.1 * epoch
        policy(images, targets, index=index)
        policy.observe(answers(targets, right))
        policy.end_epoch()
        correct = torch.zeros(3).scatter_add_(0, targets, right.float())
        weight = oracle["weight"]
        if epoch > 0:
            weight = (weight + oracle["chosen"] * torch.sign(correct - oracle["previous"])[:, None]).clamp(min=1)
        state = policy.state
        assert torch.equal(state["weight"], weight)
        assert torch.equal(state["previous"], correct)
        assert torch.equal(state["chosen"].sum(1), torch.ones(3))
        oracle = {name: value.clone() for name, value in state.items()}


def test_only_the_chosen_operator_of_a_class_is_used() -> None:
    policy = Policy.load(LEARNER, class_counts=COUNTS)
    targets = torch.arange(3).repeat(100)
    policy(torch.zeros(300, 3, 4, 4, dtype=torch.uint8), targets)
    used = policy.statistics.used
    assert torch.equal((used > 0).float(), policy.state["chosen"])
    assert stats.binomtest(int(used.sum()), 300, 0.5).pvalue > 1e-3


def test_resume_in_the_middle_of_an_epoch_is_exact() -> None:
    def run(policy: Policy, steps: range) -> list[torch.Tensor]:
        outs = []
        for step in steps:
            images, targets, index = batch(16, seed=step)
            outs.append(policy(images, targets, index=index)[0])
            policy.observe(answers(targets, torch.arange(16) % 2 == 0))
            if step % 4 == 3:
                policy.end_epoch()
        return outs

    whole = Policy.load(LEARNER, class_counts=COUNTS, seed=1)
    expected = run(whole, range(12))
    first = Policy.load(LEARNER, class_counts=COUNTS, seed=1)
    run(first, range(6))
    resumed = Policy.load(LEARNER, class_counts=COUNTS, seed=99)
    resumed.load_state_dict(first.state_dict())
    rest = run(resumed, range(6, 12))
    assert all(torch.equal(a, b) for a, b in zip(expected[6:], rest, strict=True))
    assert torch.equal(whole.state["weight"], resumed.state["weight"])
    assert len(whole.history) == len(resumed.history) == 3
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert all(torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name])) for name in a)


def test_sample_state_and_nested_strategies() -> None:
    flip = {
        "augkit": 1,
        "name": "alternating",
        "state": {"start": {"axes": ["samples"], "init": "bernoulli(0.5)"}},
        "pipeline": [{"hflip": {"p": "(start[index] + epoch) % 2"}}, {"use": "none"}],
    }
    policy = Policy.load(flip, class_counts=COUNTS)
    images, targets, index = batch(40)
    first, _ = policy(images, targets, index=index)
    policy.end_epoch()
    second, _ = policy(images, targets, index=index)
    assert torch.equal(first.flip(-1), second), "every image is flipped in one of two epochs"
    flipped = (first != images).flatten(1).any(1)
    assert torch.equal(flipped, policy.state["start"][:40].bool())
    with pytest.raises(InputError, match="index"):
        policy(images, targets)


def test_single_operators_do_not_count_as_picks() -> None:
    """A palette's `used` counts what was picked from it, not the same operator elsewhere."""
    document = {**PICK, "pipeline": [{"pick": {"p": 0}}, "hflip"]}
    policy = Policy.load(document, class_counts=COUNTS)
    policy(*batch(8)[:2])
    policy.end_epoch()
    assert policy.memory.values[""]["used"].sum() == 0
    assert policy.history[0]["used"].sum() == 8


def test_counts_stay_with_the_policy_when_the_model_is_elsewhere() -> None:
    policy = Policy.load("randaugment", class_counts=COUNTS)
    images, targets, _ = batch(8)
    policy(images, targets)
    policy.observe(torch.zeros(8, 3))
    assert policy.device.type == "cpu" and policy.statistics.seen.sum() == 8


def test_integer_state_stays_whole_and_within_its_clamp() -> None:
    document = {**PICK, "state": {"s": {"axes": ["classes"], "init": 2.4, "clamp": [0.5, 2.6], "dtype": "int"}}}
    document["update"] = [{"at": "epoch_end", "set": {"s": "s + 1"}}]
    policy = Policy.load(document, class_counts=COUNTS)
    policy.end_epoch()
    assert policy.state["s"].tolist() == [2.0, 2.0, 2.0]


def test_pool_partners_come_by_class_weight() -> None:
    cmo = {
        "augkit": 1,
        "name": "cmo",
        "pipeline": [{"batch": [{"mixup": {"p": 1, "alpha": 1, "partner": "pool", "weights": "1 / class_count"}}]}],
    }
    policy = Policy.load(cmo, class_counts=[100, 10, 10])
    targets = torch.tensor([0] * 50 + [1] * 5 + [2] * 5)
    for _ in range(40):
        policy(torch.zeros(60, 3, 4, 4, dtype=torch.uint8), targets)
        assert policy.last_plan is not None
        assert torch.equal(
            policy.last_plan.mixes[0].partner // policy.pool.per_class, policy.last_plan.mixes[0].partner_class
        )
    plan = policy.plan(torch.zeros(4000, dtype=torch.int64))
    counts = torch.bincount(plan.mixes[0].partner_class, minlength=3)
    assert stats.chisquare(counts.numpy(), [4000 / 3] * 3).pvalue > 1e-3


def test_without_classes_a_policy_still_augments() -> None:
    images, targets, _ = batch(8)
    out, _ = Policy.load("trivialaugment_wide")(images, targets)
    assert not torch.equal(out, images)


def test_the_history_keeps_the_state_by_class_that_images_were_drawn_with() -> None:
    document = {
        "augkit": 1,
        "name": "steps",
        "palette": ["hflip"],
        "state": {
            "degree": {"axes": ["classes"], "init": 1},
            "total": {"axes": []},
            "wide": {"axes": ["classes", "ops"]},
        },
        "pipeline": [{"pick": {"p": "degree[y] / 10", "count": 1}}],
        "update": [
            {"at": "epoch_start", "set": {"degree": "degree + 2"}},
            {"at": "epoch_end", "set": {"degree": "degree * 2", "total": "epoch + 1"}},
        ],
    }
    policy = Policy.load(document, class_counts=[4, 4])
    for _ in range(3):
        policy.plan(torch.tensor([0, 1]))
        policy.end_epoch()
    assert [epoch["degree"].tolist() for epoch in policy.history] == [[3.0, 3.0], [8.0, 8.0], [18.0, 18.0]]
    assert [float(epoch["total"]) for epoch in policy.history] == [0.0, 1.0, 2.0]
    assert all("wide" not in epoch for epoch in policy.history)
    assert policy.state["degree"].tolist() == [36.0, 36.0]
