"""`label` of a mixing step: remix against its published rule, what it may read, and where it must hold."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_references import photos
from torch import Tensor

from augkit import Policy
from augkit.engine.mix_labels import mix_targets
from augkit.engine.mix_plan import MIX_KINDS, Mix
from augkit.engine.plan import Plan
from augkit.errors import DocumentError
from augkit.operators.mix_shapes import cutmix_boxes, kept_share
from augkit.plugins import load_registry
from augkit.strategy.describe import words
from augkit.strategy.document import load_strategy
from augkit.strategy.schema import json_schema

BUILT_IN = load_registry(plugins=False)
COUNTS = [90, 30, 29, 4]
PAIRS = ("mixup", "cutmix", "resizemix", "fmix")


def mixing(*steps: Any, **more: Any) -> dict[str, Any]:
    return {"augkit": 1, "name": "m", "pipeline": [{"batch": list(steps)}], **more}


def load(*steps: Any, **more: Any) -> Policy:
    return Policy.load(mixing(*steps), **{"class_counts": COUNTS, **more})


def targets_of(plan: Plan, size: tuple[int, int], masked: bool = False, classes: int = 4) -> Tensor:
    return mix_targets(plan, plan.targets, classes, 0.0, size, masked=masked)


def remixed(n_i: int, n_j: int, share: float, kappa: float, tau: float) -> float:
    """The weight of the label of image i, as the paper has it."""
    if n_i / n_j >= kappa and share < tau:
        return 0.0
    if n_i / n_j <= 1 / kappa and 1 - share < tau:
        return 1.0
    return share


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 6, 9, 27, 100, 5000]), min_size=2, max_size=6),
    st.lists(st.integers(0, 5), min_size=1, max_size=24),
    st.sampled_from([1, 2, 3, 8]),
    st.sampled_from([0, 0.25, 0.5, 0.75, 1]),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_remix_is_the_published_rule(
    counts: list[int], labels: list[int], kappa: float, tau: float, seed: int, masked: bool
) -> None:
    targets = torch.tensor(labels) % len(counts)
    policy = Policy.load("remix", class_counts=counts, kappa=kappa, tau=tau, seed=seed)
    plan = policy.plan(targets)
    (mix,) = plan.mixes
    found = targets_of(plan, (8, 9), masked, len(counts))
    for i, own in enumerate(targets.tolist()):
        other = int(targets[mix.partner[i]])
        weight = remixed(counts[own], counts[other], float(mix.lam[i]), kappa, tau)
        expected = torch.zeros(len(counts))
        expected[own] += weight
        expected[other] += 1 - weight
        assert torch.allclose(found[i], expected, atol=1e-6)


@pytest.mark.slow
def test_remix_gives_minorities_the_label_and_mixes_pixels_as_mixup_does() -> None:
    targets, images = torch.arange(400) % 4, photos(8, 400)
    remix, mixup = (Policy.load(name, class_counts=COUNTS, seed=3) for name in ("remix", "mixup"))
    (one, rare), (other, plain) = remix(images, targets), mixup(images, targets)
    assert torch.equal(one, other)
    assert rare[:, 3].sum() > plain[:, 3].sum() + 10 and rare[:, 0].sum() < plain[:, 0].sum() - 10


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(PAIRS), min_size=1, max_size=3),
    st.booleans(),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_kept_is_what_shows(kinds: list[str], mosaic: bool, size: tuple[int, int], seed: int, masked: bool) -> None:
    """`label: kept` says nothing new, whatever stands beside it in a one_of."""
    bodies = ({}, {"label": "kept"})
    said = [[{kind: body} for kind in kinds] + (["mosaic"] if mosaic else []) for body in bodies]
    results = []
    for steps in said:
        plan = load({"one_of": steps}, "cutmix", seed=seed).plan(torch.arange(12) % 4)
        results.append(targets_of(plan, size, masked))
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [(32, 32), (7, 20)])
def test_kept_is_the_area_in_the_image_that_labels_are_mixed_for(size: tuple[int, int]) -> None:
    plan = load({"cutmix": {"label": "kept >= 0.75"}}).plan(torch.arange(50) % 4)
    (mix,) = plan.mixes
    shows = kept_share(cutmix_boxes(mix.lam, mix.centre, size), size) >= 0.75
    own = torch.nn.functional.one_hot(plan.targets, 4)
    other = torch.nn.functional.one_hot(mix.partner_class, 4)
    assert torch.equal(targets_of(plan, size), torch.where(shows[:, None], own, other).float())


def test_each_way_of_a_one_of_has_its_own_label() -> None:
    ways = [{"mixup": {"label": 1}}, {"cutmix": {"label": "y == 0"}}, "fmix", {"mixup": {"label": 0}}]
    plan = load({"one_of": ways}).plan(torch.arange(400) % 4)
    (mix,) = plan.mixes
    own = targets_of(plan, (16, 16)).gather(1, plan.targets[:, None])[:, 0]
    apart = mix.partner_class != plan.targets
    kind = mix.kind
    cut = apart & (kind == MIX_KINDS.index("cutmix"))
    assert torch.equal(own[cut], (plan.targets[cut] == 0).float())
    mixed = own[apart & (kind == MIX_KINDS.index("mixup"))]
    assert set(mixed.tolist()) == {0, 1} and 0.4 < mixed.mean() < 0.6
    smooth = own[apart & (kind == MIX_KINDS.index("fmix"))]
    assert ((smooth > 0) & (smooth < 1)).float().mean() > 0.9
    assert torch.allclose(targets_of(plan, (16, 16), masked=True), targets_of(plan, (16, 16)))


def test_a_label_goes_with_its_images() -> None:
    plan = load({"mixup": {"label": "where(y == 1, kept * class_count[partner] / 90, 0.25)"}}).plan(
        torch.arange(20) % 4
    )
    (mix,) = plan.mixes
    kept = torch.linspace(0, 1, 20)
    weight = mix.label_weight(kept)
    expected = torch.where(plan.targets == 1, kept * torch.tensor(COUNTS)[mix.partner_class] / 90, 0.25)
    assert torch.allclose(weight, expected)
    rows = torch.tensor([3, 17, 1, 1])
    assert torch.equal(mix.rows(rows).label_weight(kept[rows]), weight[rows])
    assert torch.equal(mix.part(slice(4, 9)).label_weight(kept[4:9]), weight[4:9])
    assert torch.equal(mix.to("cpu").label_weight(kept), weight)
    here = torch.arange(20) < 5
    (plain,) = load("mixup").plan(plan.targets).mixes
    for one, other in ((mix, plain), (plain, mix)):
        both: Mix = one.where(here, other)
        expected = torch.where(here, one.label_weight(kept), other.label_weight(kept))
        assert torch.equal(both.label_weight(kept), expected)
    told = plan.describe(2)
    assert told.endswith("label 0.25)") and told.startswith("mixup with image")
    assert mix.to("meta").label_weight(torch.empty(20, device="meta")).shape == (20,)


def test_partners_of_the_pool_have_a_class_too() -> None:
    step = {"cutmix": {"partner": "pool", "label": "class_rank[partner] / 4", "p": "partner != 2"}}
    policy = load(step)
    policy.pool.add(photos(8, 40), torch.arange(40) % 4)  # type: ignore[union-attr]
    plan = policy.plan(torch.zeros(60, dtype=torch.int64))
    (mix,) = plan.mixes
    assert (mix.kind[mix.partner_class == 2] == 0).all() and (mix.kind[mix.partner_class != 2] == 2).all()
    own = targets_of(plan, (8, 8))[:, 0]
    mixed = (mix.kind != 0) & (mix.partner_class != 0)
    assert torch.allclose(own[mixed], mix.partner_class[mixed] / 4) and (own[~mixed] == 1).all()


def test_chance_and_share_may_read_the_partner_too() -> None:
    step = {"p": "y != partner", "share": "where(class_count[partner] < class_count[y], 0.3, 0.7)"}
    plan = load({"mixup": step}).plan(torch.arange(60) % 4)
    (mix,) = plan.mixes
    assert torch.equal(mix.kind != 0, mix.partner_class != plan.targets)
    rarer = mix.partner_class > plan.targets  # COUNTS falls
    assert torch.equal(mix.lam, torch.where(rarer, 0.3, 0.7))
    (flat,) = load({"mixup": {"alpha": "class_count[partner] > 30"}}).plan(plan.targets).mixes
    assert torch.equal(flat.kind != 0, flat.partner_class == 0)


def test_a_label_changes_no_draw() -> None:
    plans = [load({"cutmix": body}).plan(torch.arange(30) % 4) for body in ({}, {"label": "kept ** 2"})]
    (one,), (other,) = (plan.mixes for plan in plans)
    for name in ("kind", "partner", "lam", "centre", "partner_class"):
        assert torch.equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("label", "weight"),
    [
        ("kept * 9 + 1", 1.0),
        ("-1 * kept", 0.0),
        ("1 / (kept - kept)", 0.0),
        ("exp(9000 * kept + 9000) - exp(9000 * kept + 9000)", 0.0),
        (0.25, 0.25),
        (True, 1.0),
    ],
)
def test_weights_stay_within_0_and_1(label: Any, weight: float) -> None:
    policy = load({"mixup": {"label": label}})
    images, targets = photos(8, 20), torch.arange(20) % 4
    labels = policy(images, targets)[1]
    (mix,) = policy.last_plan.mixes  # type: ignore[union-attr]
    apart = mix.partner_class != targets
    assert torch.allclose(labels.sum(1), torch.ones(20))
    assert (labels.gather(1, targets[:, None])[apart, 0] == weight).all()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"mosaic": {"label": "kept"}}, "mosaic.label: a mosaic weighs four labels by their areas; leave label out"),
        ({"mosaic": {"p": "y == partner"}}, "`partner` cannot be used here: a mosaic has three partners"),
        ({"mixup": {"label": 2}}, "mixup.label: `2` is 2, never within 0..1"),
        ({"mixup": {"label": "kept - 3"}}, "`kept - 3` is -3..-2, never within 0..1"),
        ({"mixup": {"label": "kept * uniform()"}}, "`uniform` is random, and nothing random is allowed here"),
        ({"mixup": {"label": "kep"}}, 'there is no name "kep". Did you mean "kept"?'),
        ({"mixup": {"label": "class_count[partnr]"}}, "an index is `[y]`, `[index]`, `[group]` or `[partner]`"),
        ({"mixup": {"label": "class_count"}}, "take the image's own with `class_count[y]`"),
        ({"mixup": {"label": "kept[partner]"}}, "`[partner]` needs a value with the axis classes"),
        (
            {"mixup": {"label": "sum(class_count * kept, over=classes)"}},
            "`kept` cannot stand inside sum(..., over=classes); combine it with the result",
        ),
        ({"mixup": {"p": "kept"}}, "`kept` cannot be used here: it is how much shows of an image that was mixed"),
        ({"mixup": {"weights": "class_count[partner]"}}, "`partner` cannot be used here: it is the class of the image"),
        ({"mixup": {"lable": "kept"}}, 'there is no key "lable" here. Did you mean "label"?'),
        ({"one_of": [{"weight": "partner", "steps": ["mixup"]}]}, "`partner` cannot be used here"),
    ],
)
def test_what_a_label_refuses(step: Any, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load_strategy(mixing(step), BUILT_IN)
    (problem,) = caught.value.problems
    assert message in str(problem) and str(problem).startswith("pipeline[0].batch[0]")


@pytest.mark.parametrize(
    "part",
    [
        {"pipeline": [{"rotate": {"strength": "clip(class_count[partner], 0, 1)"}}]},
        {"pipeline": [{"hflip": {"p": "kept"}}]},
        {"palette": ["hflip"], "pipeline": [{"pick": {"weights": "used[partner]"}}]},
        {"state": {"a": {"axes": ["classes"], "init": "partner"}}},
        {"state": {"a": {"init": "kept"}}},
        {"state": {"a": {}}, "update": [{"at": "epoch_end", "set": {"a": "kept"}}]},
        {"state": {"a": {}}, "update": [{"at": "epoch_end", "set": {"a": "sum(seen, over=classes) + partner"}}]},
        {"params": {"kept": 1}},
        {"state": {"partner": {}}},
    ],
)
def test_elsewhere_there_is_no_partner_and_nothing_kept(part: Any) -> None:
    with pytest.raises(DocumentError) as caught:
        load_strategy({"augkit": 1, "name": "m", "pipeline": [], **part}, BUILT_IN)
    (problem,) = caught.value.problems
    assert "cannot be used here: it is " in str(problem) or "is reserved; choose another name" in str(problem)


def test_a_label_belongs_to_the_document() -> None:
    plain, said, again = (
        load_strategy(mixing({"mixup": body}), BUILT_IN)
        for body in ({}, {"label": "kept ** (1 + 1)"}, {"label": "(kept)**2"})
    )
    assert len({plain.hash, said.hash}) == 2 and said.hash == again.hash
    assert "label" in words(said) and "kept ** (1 + 1)" in words(said) and "label" not in words(plain)
    assert load_strategy("remix", BUILT_IN).needs == {"class_counts"} and plain.needs == set()
    validator = jsonschema.Draft202012Validator(json_schema(BUILT_IN))
    assert validator.is_valid(mixing({"cutmix": {"label": "kept"}}, {"one_of": [{"fmix": {"label": 0.5}}]}))
    assert not validator.is_valid(mixing({"mosaic": {"label": "kept"}}))


def test_a_strategy_in_use_brings_its_labels() -> None:
    inner, outer = (
        Policy.load(source, class_counts=COUNTS)
        for source in ("remix", {"augkit": 1, "name": "o", "pipeline": ["hflip", {"use": "remix"}]})
    )
    for policy in (inner, outer):
        plan = policy.plan(torch.arange(80) % 4)
        (mix,) = plan.mixes
        own = targets_of(plan, (8, 8)).gather(1, plan.targets[:, None])[:, 0]
        given_away = (plan.targets == 0) & (mix.partner_class > 0) & (mix.lam < 0.5)
        assert given_away.any() and (own[given_away] == 0).all()
