"""Drawing: every field of a pick does what it says, constant tables equal the general path, mixes draw per pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats

from augkit import Policy
from augkit.engine.mix_plan import MIX_KINDS
from augkit.engine.plan import Plan

OPS = ["hflip", "invert", "equalize", "autocontrast"]
MANY = 6000


def plan_of(step: dict[str, Any], targets: torch.Tensor | None = None, **extra: Any) -> Plan:
    document = {"augkit": 1, "name": "draws", "palette": OPS, "pipeline": [step], **extra}
    policy = Policy.load(document, class_counts=[MANY, MANY], epochs=10)
    return policy.plan(torch.zeros(MANY, dtype=torch.int64) if targets is None else targets)


def share(happened: torch.Tensor, p: float) -> None:
    """A binomial test of how often something happened."""
    assert stats.binomtest(int(happened.sum()), happened.numel(), p).pvalue > 1e-3


@pytest.mark.parametrize("replace", [True, False])
def test_weights(replace: bool) -> None:
    plan = plan_of({"pick": {"count": 1, "replace": replace, "weights": "1 + 2 * (correct[y] >= 0) * onehot(2, ops)"}})
    observed = torch.bincount(plan.choice[:, 0], minlength=4)
    assert stats.chisquare(observed.numpy(), [MANY / 6, MANY / 6, MANY / 2, MANY / 6]).pvalue > 1e-3


def test_weight_zero_is_never_drawn_and_too_few_leave_slots_empty() -> None:
    plan = plan_of({"pick": {"count": 3, "weights": "onehot(1, ops) + onehot(3, ops)"}})
    assert set(plan.choice.unique().tolist()) <= {-1, 1, 3}
    assert torch.equal((plan.choice >= 0).sum(1), torch.full((MANY,), 2))
    nothing = plan_of({"pick": {"count": 2, "replace": True, "weights": "0 * onehot(0, ops)"}})
    assert (nothing.choice < 0).all()


def test_with_replacement_operators_are_independent() -> None:
    plan = plan_of({"pick": {"count": 2, "replace": True}})
    pairs = torch.bincount(plan.choice[:, 0] * 4 + plan.choice[:, 1], minlength=16)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


def test_each_p_and_p() -> None:
    plan = plan_of({"pick": {"count": 2, "replace": True, "p": 0.5, "each_p": 0.3}})
    active = plan.choice >= 0
    share(active[:, 0], 0.15)
    share(active[:, 0] & active[:, 1], 0.5 * 0.09)


def test_palette_order() -> None:
    plan = plan_of({"pick": {"count": "randint(1, 4)", "order": "palette"}})
    filled = torch.where(plan.choice < 0, len(OPS), plan.choice)
    assert (filled.diff(dim=1) >= 0).all()
    assert stats.chisquare(torch.bincount((plan.choice >= 0).sum(1), minlength=4)[1:].numpy()).pvalue > 1e-3


def test_a_signed_value_lies_on_either_side_of_what_changes_nothing() -> None:
    palette = [{"brightness": {"low": 1, "high": 1.9, "signed": True}}, "rotate"]
    plan = plan_of({"pick": {"count": 2, "order": "palette", "strength": 0.5}}, palette=palette)
    for slot, up, down in ((0, 1.45, 0.55), (1, 15.0, -15.0)):
        value = plan.value[:, slot]
        assert ((value - up).abs() < 1e-5).logical_or((value - down).abs() < 1e-5).all()
        share(value > (up + down) / 2, 0.5)
    own = plan_of({"color": {"factor": 1.5, "signed": True}})
    assert set(own.value.unique().tolist()) == {0.5, 1.5}


def test_count_by_class() -> None:
    targets = torch.arange(MANY) % 2
    state = {"depth": {"axes": ["classes"], "init": "1 + 2 * class_rank", "clamp": [0, 3]}}
    plan = plan_of({"pick": {"count": "depth[y]"}}, targets, state=state)
    assert torch.equal((plan.choice >= 0).sum(1), 1 + 2 * targets)


def test_constant_alternatives_equal_the_general_path() -> None:
    def document(p: Any) -> dict[str, Any]:
        one_of = [
            {"weight": 3, "steps": [{"rotate": {"p": p, "strength": 0.5}}, {"invert": {"p": 0.4}}]},
            {"weight": 1, "steps": [{"posterize": {"bits": 3}}]},
        ]
        return {"augkit": 1, "name": "subs", "pipeline": [{"one_of": one_of}]}

    targets = torch.zeros(MANY, dtype=torch.int64)
    table = Policy.load(document(0.8), class_counts=[1]).plan(targets)
    general = Policy.load(document("0.8 + 0 * epoch"), class_counts=[1]).plan(targets)
    for plan in (table, general):
        names = [choice.operator.name for choice in plan.choices]
        first = plan.choice[:, 0]
        share(first == names.index("posterize"), 0.25)
        share(first == names.index("rotate"), 0.75 * 0.8)
        share(plan.choice[:, 1] == names.index("invert"), 0.75 * 0.4)
        assert (plan.value[first == names.index("posterize"), 0] == 3).all()


def test_used_strategies_are_gated_and_keep_their_own_palette() -> None:
    document = {
        "augkit": 1,
        "name": "outer",
        "palette": OPS,
        "pipeline": [{"use": {"name": "randaugment", "p": 0.3}}, {"pick": {}}],
    }
    policy = Policy.load(document, class_counts=[1])
    plan = policy.plan(torch.zeros(MANY, dtype=torch.int64))
    share((plan.choice[:, :2] >= len(OPS)).any(1), 0.3)
    assert (plan.choice[:, 2] < len(OPS)).all()


def test_mixes_draw_for_each_pair() -> None:
    document = {"augkit": 1, "name": "mix", "pipeline": [{"batch": [{"mixup": {"p": 0.6, "alpha": 0.4}}]}]}
    plan = Policy.load(document, class_counts=[1, 1]).plan(torch.arange(MANY) % 2)
    (mix,) = plan.mixes
    share(mix.kind == MIX_KINDS.index("mixup"), 0.6)
    assert stats.kstest(mix.lam.numpy(), stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    assert torch.equal(mix.partner.sort().values, torch.arange(MANY)), "partners are a permutation"
    assert (mix.partner != torch.arange(MANY)).all(), "nobody is mixed with himself"
    assert torch.equal(mix.partner_class, mix.partner % 2)


def test_switching_takes_one_mix_an_image() -> None:
    plan = Policy.load("mixup_cutmix", class_counts=[1, 1]).plan(torch.arange(MANY) % 2)
    (mix,) = plan.mixes
    assert (mix.kind > 0).all()
    share(mix.kind == MIX_KINDS.index("cutmix"), 0.5)


def test_a_switched_mix_blends_two_images_only() -> None:
    policy = Policy.load("mixup_cutmix", class_counts=[1] * 64)
    _, labels = policy(torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.arange(64))
    assert ((labels > 0).sum(1) <= 2).all()


def test_partner_weights_are_an_image_s_own_and_none_leaves_it_alone() -> None:
    def partners(partner: str, weights: str, counts: list[int]) -> torch.Tensor:
        mix = {"mixup": {"p": 1, "partner": partner, "weights": weights}}
        policy = Policy.load({"augkit": 1, "name": "w", "pipeline": [{"batch": [mix]}]}, class_counts=counts)
        batch = MANY // 6  # each image weighs each other
        targets, images = (torch.arange(batch) % 10 == 0).long(), torch.zeros(batch, 3, 2, 2, dtype=torch.uint8)
        mixes = [policy.plan(targets, images=images).mixes[0] for _ in range(6)]
        return torch.cat([torch.where(one.kind > 0, one.partner_class, -1) for one in mixes])

    for partner in ("batch", "pool"):
        share(partners(partner, "1", [9, 1]) == 1, 0.1)
        share(partners(partner, "1 / class_count", [9, 1]) == 1, 0.5)
        assert (partners(partner, "class_count < 1", [9, 1]) == -1).all()
        assert (partners(partner, "class_count == 1", [9, 1, 1]) == 1).all(), "no image of class 2 came by"


def test_alternatives_without_weight_are_never_drawn() -> None:
    for weight in (0, "0 * epoch"):
        one_of = [{"weight": weight, "steps": ["invert"]}, {"weight": 0, "steps": ["hflip"]}]
        assert (plan_of({"one_of": one_of}).choice < 0).all()


def test_step_counts_batches() -> None:
    document = {"augkit": 1, "name": "steps", "pipeline": [{"invert": {"p": "step >= 2"}}]}
    policy = Policy.load(document, class_counts=[4])
    inverted = [bool((policy.plan(torch.zeros(4, dtype=torch.int64)).choice >= 0).any()) for _ in range(4)]
    assert inverted == [False, False, True, True]
