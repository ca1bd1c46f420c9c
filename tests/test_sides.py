"""Which images are synthetic: told to policies, read by expressions, and partners from the other side."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from augkit import Policy
from augkit.errors import DocumentError, InputError
from augkit.integrations.albumentations import to_transform
from augkit.integrations.timm import wrap
from augkit.learning.probe_pool import ProbePool
from augkit.plugins import load_registry
from augkit.strategy.describe import words
from augkit.strategy.document import load_strategy
from augkit.strategy.schema import json_schema
from tests.seam_parts import ImageSet, Recorder, loader

BUILT_IN = load_registry(plugins=False)
SIDES = {"synthetic": "is_synthetic", "group": "group"}


def steps(*pipeline: Any, **rest: Any) -> dict[str, Any]:
    return {"augkit": 1, "name": "mine", "pipeline": list(pipeline), **rest}


def mix(kind: str = "mixup", **body: Any) -> dict[str, Any]:
    return steps({"batch": [{kind: {"p": 1, **body}}]})


def made(size: int, every: int = 3) -> Tensor:
    return torch.arange(size) % every == 0


# -- what an image is -------------------------------------------------------------------------------------------------


def test_an_expression_reads_it() -> None:
    policy = Policy.load(steps({"invert": {"p": "is_synthetic"}}, {"rotate": {"strength": "0.3 + 0.4 * is_synthetic"}}))
    assert policy.needs == {"is_synthetic"}
    plan = policy.plan(torch.zeros(60, dtype=torch.int64), is_synthetic=made(60))
    inverted = torch.tensor(["invert" in plan.describe(i) for i in range(60)])
    assert torch.equal(inverted, made(60))
    turned = plan.strength.masked_fill(plan.strength.isnan(), 0).amax(1)
    assert torch.allclose(turned, 0.3 + 0.4 * made(60).float())


def test_its_range_is_known() -> None:
    bounds = load_strategy(steps({"hflip": {"p": "is_synthetic / 2"}}), BUILT_IN).typed["pipeline[0].hflip.p"]
    assert (bounds.low, bounds.high) == (0, 0.5)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (steps({"hflip": {"p": "class_count[is_synthetic]"}}), r"class_count\[is_synthetic\]"),
        (steps(update=[{"at": "epoch_end", "when": "is_synthetic", "set": {"s": 1}}], state={"s": {}}), "one image"),
        (steps({"hflip": {"p": "is_syntetic"}}), 'Did you mean "is_synthetic"'),
        (steps(params={"is_synthetic": 1}), "is_synthetic"),
    ],
)
def test_where_it_cannot_stand(document: dict[str, Any], says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        load_strategy(document, BUILT_IN)


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (steps({"hflip": {"p": "is_synthetic"}}), "is_synthetic"),
        (mix(across="synthetic"), "is_synthetic"),
        (mix(across="group"), "group"),
    ],
)
def test_a_policy_that_is_not_told_says_so(document: dict[str, Any], name: str) -> None:
    policy = Policy.load(document, class_counts=[5, 5], groups=2)
    with pytest.raises(InputError, match=f'^strategy "mine" uses `{name}`: pass {name}= with each batch$'):
        policy.plan(torch.zeros(4, dtype=torch.int64))
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4) % 2
    asks = {**document, "probes": {"ask": {"upto": 1, "samples": 1, "steps": []}}}
    with pytest.raises(InputError, match=f"uses `{name}`: make the probe pool with {name}=$"):
        Policy.load(asks, class_counts=[5, 5], groups=2).attach_model(torch.nn.Identity(), ProbePool(images, labels))
    with pytest.raises((InputError, DocumentError), match="inside a loader"):
        to_transform(document)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            torch.zeros(4, dtype=torch.int64),
            r"^is_synthetic must be a bool tensor \[B\], not torch\.int64 of shape \(4,\)",
        ),
        ([True] * 4, r"^is_synthetic must be a bool tensor \[B\], not list"),
        (made(3), r"^is_synthetic has 3 entries but there are 4 targets"),
    ],
)
def test_what_is_no_mark(told: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Policy.load("none").plan(torch.zeros(4, dtype=torch.int64), is_synthetic=told)


def test_a_probe_asks_about_synthetic_images_as_they_are() -> None:
    document = steps(
        {"invert": {"p": "is_synthetic"}},
        {"use": {"name": "none"}},
        probes={"ask": {"upto": 0, "samples": 30, "steps": [{"invert": {"p": "is_synthetic"}}]}},
        state={"right": {"axes": ["classes"]}},
        update=[{"at": "epoch_start", "set": {"right": "sum(ask.correct, over=levels)"}}],
    )
    policy = Policy.load(document, class_counts=[6, 6])
    images = torch.full((12, 3, 8, 8), 200, dtype=torch.uint8)
    pool = ProbePool(images, torch.arange(12) % 2, is_synthetic=torch.arange(12) % 2 == 1)
    shown: list[Tensor] = []

    class Model(torch.nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            shown.append(batch[:, 0, 0, 0])
            return torch.stack((batch[:, 0, 0, 0], 1 - batch[:, 0, 0, 0]), 1)

    policy.attach_model(Model(), pool)
    policy.begin_epoch()
    assert policy.state["right"].tolist() == [30, 30]  # class 0 stays light, class 1 is turned dark
    assert sorted(torch.cat(shown).mul(255).round().long().tolist()) == [55] * 30 + [200] * 30


def test_marks_go_with_the_sample_in_timm() -> None:
    dataset, marks = ImageSet(24), [i % 3 == 0 for i in range(24)]
    policy = Recorder.load(steps({"hflip": {"p": "is_synthetic"}}))
    list(wrap(loader(dataset), policy, None, sample_synthetic=marks))
    assert len(policy.calls) == 6
    for call in policy.calls:
        assert torch.equal(call["is_synthetic"], call["index"] % 3 == 0)  # type: ignore[operator]
    with pytest.raises(InputError, match="sample_synthetic has 5 entries but the data set 24 samples"):
        wrap(loader(dataset), policy, None, sample_synthetic=marks[:5])
    with pytest.raises(InputError, match=r"uses `is_synthetic`: pass sample_synthetic=, a truth value for each sample"):
        wrap(loader(dataset), policy, None)


# -- partners from the other side -----------------------------------------------------------------------------------


def drawn(document: dict[str, Any], side: Tensor, targets: Tensor, times: int = 1, seed: int = 0) -> list[Any]:
    """The mixing step of each of several batches."""
    policy = Policy.load(document, class_counts=[40, 20, 10], groups=8, seed=seed)
    told = {"group": side} if "group" in policy.needs else {"is_synthetic": side.bool()}
    return [policy.plan(targets, **told).mixes[0] for _ in range(times)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12),
    st.sampled_from(["mixup", "cutmix", "resizemix", "fmix", "mosaic"]),
    st.sampled_from(sorted(SIDES)),
    st.sampled_from([None, "1 / class_count", "class_rank"]),
    st.integers(0, 99),
)
def test_partners_are_of_the_other_side(
    images: list[tuple[int, int]], kind: str, across: str, weights: str | None, seed: int
) -> None:
    side = torch.tensor([pair[0] for pair in images], dtype=torch.int64)
    side = side % 2 if across == "synthetic" else side
    targets = torch.tensor([pair[1] for pair in images], dtype=torch.int64)
    (one,) = drawn(
        mix(kind, across=across, **({} if weights is None else {"weights": weights})), side, targets, seed=seed
    )
    allowed = torch.ones(3) if weights is None else torch.tensor([1.0, 1, 1] if "/" in weights else [0.0, 1, 1])
    there = (side[:, None] != side[None, :]) & (allowed[targets] > 0)[None, :]
    assert torch.equal(one.kind != 0, there.any(1) if len(images) else torch.zeros(0, dtype=torch.bool))
    rows = one.kind != 0
    assert there[rows, one.partner[rows]].all() and torch.equal(one.partner_class[rows], targets[one.partner[rows]])
    if kind == "mosaic":
        assert there[rows].gather(1, one.more[rows]).all()


@pytest.mark.parametrize("across", [pytest.param("synthetic", marks=pytest.mark.slow), "group"])
@pytest.mark.parametrize("weights", [pytest.param(None, marks=pytest.mark.slow), "1 / class_count"])
def test_partners_are_uniform_over_the_other_side(across: str, weights: str | None) -> None:
    side = torch.tensor([0, 1, 0, 0, 1, 2, 1, 2, 0, 1])
    side = (side > 0).long() if across == "synthetic" else side
    targets = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2, 1, 0])
    each = torch.ones(3) if weights is None else 1 / torch.tensor([40.0, 20, 10])
    times = 1500
    document = mix(across=across, **({} if weights is None else {"weights": weights}))
    partners = torch.stack([one.partner for one in drawn(document, side, targets, times)])
    for image in range(len(side)):
        wanted = each[targets] * (side != side[image])
        met = torch.bincount(partners[:, image], minlength=len(side))
        assert not met[wanted == 0].any()
        expected = (wanted / wanted.sum() * times)[wanted > 0]
        assert expected.min() >= 5
        assert chisquare(met[wanted > 0].numpy(), expected.numpy(), sum_check=False).pvalue > 1e-4


@pytest.mark.slow
def test_partners_of_two_images_are_drawn_apart() -> None:
    side, targets = torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.int64)
    pairs = [(int(one.partner[0]), int(one.partner[1])) for one in drawn(mix(across="synthetic"), side, targets, 800)]
    met = [pairs.count(pair) for pair in ((2, 2), (2, 3), (3, 2), (3, 3))]
    assert sum(met) == 800 and chisquare(met).pvalue > 1e-4


def test_pixels_and_labels_of_both_sides_meet() -> None:
    policy = Policy.load(mix(across="synthetic", share=0.25), class_counts=[4, 4])
    images = torch.tensor([0, 0, 240, 240], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 6, 6)
    out, labels = policy(images, torch.tensor([0, 0, 1, 1]), is_synthetic=torch.tensor([False, False, True, True]))
    assert out[:, 0, 0, 0].tolist() == [180, 180, 60, 60]
    assert labels.tolist() == [[0.25, 0.75], [0.25, 0.75], [0.75, 0.25], [0.75, 0.25]]
    alone, labels = policy(images, torch.tensor([0, 0, 1, 1]), is_synthetic=torch.ones(4, dtype=torch.bool))
    assert torch.equal(alone, images) and labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_alternatives_may_differ_in_it() -> None:
    ways = [{"mixup": {"across": "synthetic"}}, "cutmix"]
    policy = Policy.load(steps({"batch": [{"one_of": ways}]}), class_counts=[4, 4])
    side = torch.arange(40) % 4 == 0
    step = policy.plan(torch.arange(40) % 2, is_synthetic=side).mixes[0]
    blended = step.kind == 1
    assert 5 < int(blended.sum()) < 35 and (side[blended] != side[step.partner[blended]]).all()


def test_a_pool_does_not_go_with_it() -> None:
    with pytest.raises(DocumentError, match=r"across: a pool does not know its images' sides") as caught:
        load_strategy(mix(across="synthetic", partner="pool"), BUILT_IN)
    assert "\n" not in str(caught.value)
    with pytest.raises(
        DocumentError, match=r'expected "synthetic" or "group", found "synthetics"\. Did you mean "synthetic"'
    ):
        load_strategy(mix(across="synthetics"), BUILT_IN)


def test_it_is_described_and_in_the_schema() -> None:
    schema = json_schema(BUILT_IN)
    for across, told in (("synthetic", "synthetic ones with real ones"), ("group", "from other groups")):
        jsonschema.validate(mix(across=across), schema)
        strategy = load_strategy(mix(across=across), BUILT_IN)
        assert f"mixup with another of its batch{',' if across == 'synthetic' else ''} {told}" in words(strategy)
    assert "needs: which images are synthetic" in words(load_strategy(mix(across="synthetic"), BUILT_IN))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(mix(across="classes"), schema)


def test_hashes_of_documents_without_it_stay() -> None:
    hashes = {load_strategy(mix(**body), BUILT_IN).hash for body in ({}, {"across": None}, {"across": "synthetic"})}
    assert len(hashes) == 2
