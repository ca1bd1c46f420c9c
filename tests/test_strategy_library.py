"""The built-in documents: complete, faithful to their sources, and told in words."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy import stats
from strategy_parts import Box

from augkit import Policy
from augkit.registry import Registry
from augkit.strategy.describe import most_operators, words
from augkit.strategy.document import load_strategy
from augkit.strategy.evaluate import evaluate
from augkit.strategy.model import BatchStep, OneOfStep, OperatorStep, PickStep
from augkit.strategy.needs import nested

LIBRARY = {
    "none",
    "randaugment",
    "trivialaugment",
    "trivialaugment_wide",
    "uniformaugment",
    "autoaugment_cifar10",
    "autoaugment_svhn",
    "autoaugment_imagenet",
    "mixup",
    "cutmix",
    "mixup_cutmix",
    "resizemix",
    "fmix",
    "mosaic",
    "cmo",
    "imagenet_c",
    "random_erasing",
    "cutout",
    "augmix",
    "bcl_views",
    "bcl_views_autoaugment",
    "sim_augment",
    "augmix_single",
    "three_augment",
    "alternating_flip",
    "uniform_class_choice",
}


def test_the_library_is_complete(registry: Registry) -> None:
    assert set(registry.strategies) >= LIBRARY
    for name in LIBRARY:
        strategy = load_strategy(name, registry)
        assert strategy.name == name and strategy.title and (strategy.source or name == "none")
        assert not list(nested(strategy.pipeline))
    assert len({load_strategy(name, registry).hash for name in LIBRARY}) == len(LIBRARY)


def pick_of(name: str, registry: Registry, **params: Any) -> tuple[PickStep, Any]:
    strategy = load_strategy(name, registry, params=params)
    (step,) = strategy.pipeline
    assert isinstance(step, PickStep)
    return step, strategy


def test_randaugment(registry: Registry) -> None:
    pick, strategy = pick_of("randaugment", registry)
    assert strategy.params == {"n": 2, "m": 9, "mstd": 0, "each_p": 1} and pick.replace
    typed = strategy.typed
    assert typed["pipeline[0].pick.count"].constant == 2
    assert typed["pipeline[0].pick.strength"].constant == pytest.approx(0.9)
    assert len(strategy.choices) == 14
    _, loose = pick_of("randaugment", registry, mstd=0.5, m=5)
    strength = evaluate(loose.typed["pipeline[0].pick.strength"], Box(sizes={"batch": 5000, "picks": 2}))
    assert strength.shape == (5000, 2)
    assert strength.mean() == pytest.approx(0.5, abs=0.005) and strength.std() == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(("name", "rotation"), [("trivialaugment", 30), ("trivialaugment_wide", 135)])
def test_trivialaugment(name: str, rotation: float, registry: Registry) -> None:
    _, strategy = pick_of(name, registry)
    ranges = {choice.operator.name: (choice.low, choice.high) for choice in strategy.choices}
    assert len(ranges) == 14 and ranges["rotate"] == (0, rotation)
    assert strategy.typed["pipeline[0].pick.count"].constant == 1
    strength = evaluate(strategy.typed["pipeline[0].pick.strength"], Box(sizes={"batch": 4000, "picks": 1}))
    torch.testing.assert_close(strength.unique(), torch.arange(31) / 30)


def test_uniformaugment(registry: Registry) -> None:
    pick, strategy = pick_of("uniformaugment", registry)
    assert strategy.typed["pipeline[0].pick.count"].constant == 2 and pick.replace
    assert strategy.typed["pipeline[0].pick.each_p"].constant == 0.5


# First, two middle and last sub-policies of the paper's tables: operator, probability, magnitude 0..9.
PAPER = {
    "cifar10": {
        0: (("invert", 0.1, None), ("contrast", 0.2, 6)),
        3: (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        5: (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        24: (("translate_y", 0.7, 9), ("autocontrast", 0.9, None)),
    },
    "svhn": {
        0: (("shear_x", 0.9, 4), ("invert", 0.2, None)),
        9: (("equalize", 0.6, None), ("rotate", 0.9, 3)),
        18: (("shear_y", 0.3, 7), ("translate_x", 0.9, 3)),
        24: (("shear_x", 0.7, 2), ("invert", 0.1, None)),
    },
    "imagenet": {
        0: (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        1: (("solarize", 0.6, 5), ("autocontrast", 0.6, None)),
        12: (("equalize", 0.0, None), ("equalize", 0.8, None)),
        24: (("equalize", 0.8, None), ("equalize", 0.6, None)),
    },
}
RANGES = {
    "shear_x": (0, 0.3),
    "shear_y": (0, 0.3),
    "translate_x": (0, 150 / 331),
    "translate_y": (0, 150 / 331),
    "rotate": (0, 30),
    "color": (0.1, 1.9),
    "posterize": (8, 4),
    "solarize": (256, 0),
    "contrast": (0.1, 1.9),
    "sharpness": (0.1, 1.9),
    "brightness": (0.1, 1.9),
}


def table(dataset: str, registry: Registry) -> list[list[tuple[str, float, float | None, Any]]]:
    """Operator, probability, value in its own unit, and range, as the document says."""
    strategy = load_strategy(f"autoaugment_{dataset}", registry)
    (step,) = strategy.pipeline
    assert isinstance(step, OneOfStep)
    rows = []
    for row, way in enumerate(step.alternatives):
        assert strategy.typed[f"pipeline[0].one_of[{row}].weight"].constant == 1
        cells = []
        for column, inner in enumerate(way.steps):
            assert isinstance(inner, OperatorStep)
            choice, name = inner.choice, inner.choice.operator.name
            path = f"pipeline[0].one_of[{row}].steps[{column}].{name}"
            p = strategy.typed[f"{path}.p"].constant
            strength = strategy.typed[f"{path}.strength"].constant if f"{path}.strength" in strategy.typed else None
            value = None if strength is None else choice.low + strength * (choice.high - choice.low)
            assert p is not None
            cells.append((name, p, value, (choice.low, choice.high)))
        rows.append(cells)
    return rows


@pytest.mark.parametrize("dataset", PAPER)
def test_autoaugment_is_the_published_table(dataset: str, registry: Registry) -> None:
    rows = table(dataset, registry)
    assert len(rows) == 25 and all(len(row) == 2 for row in rows)
    for number, expected in PAPER[dataset].items():
        for cell, (name, p, magnitude) in zip(rows[number], expected, strict=True):
            assert cell[:2] == (name, pytest.approx(p))
            if magnitude is None:
                assert cell[2] is None
                continue
            low, high = RANGES[name]
            value = low + magnitude / 9 * (high - low)
            assert cell[2] == pytest.approx(8 - round(8 - value) if name == "posterize" else value)


@pytest.mark.parametrize("dataset", PAPER)
def test_autoaugment_agrees_with_torchvision(dataset: str, registry: Registry) -> None:
    from augkit.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    theirs = AutoAugment(AutoAugmentPolicy(dataset))
    space = theirs._augmentation_space(10, (1000, 1000))
    ours = table(dataset, registry)
    assert len(theirs.policies) == len(ours) == 25
    for row, pairs in zip(ours, theirs.policies, strict=True):
        for (name, p, value, _), (label, chance, magnitude) in zip(row, pairs, strict=True):
            assert name.replace("_", "") == label.lower() and p == chance
            if magnitude is None:
                assert value is None
                continue
            assert value is not None
            magnitudes = [float(number) for number in space[label][0]]
            if name in ("color", "contrast", "brightness", "sharpness"):
                continue  # they draw a sign around 1 instead of going from 0.1 to 1.9
            if name.startswith("translate"):
                value *= 1000  # theirs is in pixels, ours relative
            assert value == pytest.approx(magnitudes[magnitude], abs=1.0 if name == "solarize" else 1e-3)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing(kind: str, registry: Registry) -> None:
    strategy = load_strategy(kind, registry, params={"alpha": 0.2, "p": 0.5})
    (step,) = strategy.pipeline
    assert isinstance(step, BatchStep) and strategy.mixes and not strategy.needs
    assert strategy.typed[f"pipeline[0].batch[0].{kind}.alpha"].constant == pytest.approx(0.2)
    assert strategy.typed[f"pipeline[0].batch[0].{kind}.p"].constant == 0.5


def test_mixup_cutmix_switches_as_timm_does(registry: Registry) -> None:
    typed = load_strategy("mixup_cutmix", registry, params={"switch": 0.25}).typed
    weights = [typed[f"pipeline[0].batch[0].one_of[{k}].weight"].constant for k in range(2)]
    assert weights == [0.75, 0.25]
    assert typed["pipeline[0].batch[0].one_of[0].mixup.alpha"].constant == 0.8


def test_uniform_class_choice_draws_one_operator_a_class(registry: Registry) -> None:
    strategy = load_strategy("uniform_class_choice", registry)
    sizes = {"classes": 2800, "ops": len(strategy.choices)}
    chosen = evaluate(strategy.typed["state.chosen.init"], Box(sizes=sizes))
    assert torch.equal(chosen.sum(1), torch.ones(2800))
    counts = chosen.sum(0)
    assert ((counts - 200) ** 2 / 200).sum() < 34.5, "chi-squared, 13 degrees of freedom, 0.1 %"
    assert strategy.needs == frozenset() and strategy.update[0].at == "epoch_end"


def test_words(registry: Registry) -> None:
    told = words(load_strategy("uniform_class_choice", registry))
    for part in (
        "uniform_class_choice: One random operator for each class, drawn anew each epoch",
        "draws one operator from the palette",
        "weighted by chosen[y]",
        "rotate 0 to 30 degrees, either sign",
        "chosen for each class and operator begins as onehot(argmax(uniform(), over=ops), ops)",
        "at each epoch's end: chosen becomes",
        "cost: at most 1 operator an image",
    ):
        assert part in told, told
    assert "stays as it is" in words(load_strategy("none", registry))
    assert "  cutout, always\n" in words(load_strategy("cutout", registry))
    assert "    - grayscale\n" in words(load_strategy("three_augment", registry))
    warm = {
        "augkit": 1,
        "name": "x",
        "palette": [{"planckian_jitter": {"high": 15000, "signed": False}}],
        "pipeline": [{"pick": None}],
    }
    assert "6500 to 15000 kelvin" in words(load_strategy(warm, registry))
    assert words(load_strategy("autoaugment_svhn", registry)).count("\n    - ") == 25
    assert "and mixing" in words(load_strategy("mixup_cutmix", registry))
    document = {
        "augkit": 1,
        "name": "x",
        "palette": ["hflip", {"cutout": {"length": 4}}],
        "pipeline": [
            {"use": {"name": "randaugment", "p": "clip(epoch / epochs, 0, 1)"}},
            {"pick": {"count": "randint(0, 9)", "order": "palette", "each_p": 0.5}},
            {"rotate": {"degrees": 12, "p": "correct[y] / seen[y]"}},
            {"one_of": ["hflip", {"weight": 3, "steps": []}]},
            {"batch": [{"mixup": {"partner": "pool", "weights": "1 / class_count"}}]},
        ],
    }
    strategy = load_strategy(document, registry)
    told = words(strategy)
    for part in (
        "meets the strategy randaugment with probability clip(epoch / epochs, 0, 1)",
        "draws randint(0, 9) operators",
        "cutout (length 4)",
        "rotate of 12 degrees with probability correct[y] / seen[y]",
        "- stays as it is (weight 3)",
        "mixup with an image of the pool",
        "partners weighted by 1 / class_count",
        "needs: the number of images of each class, the planned number of epochs, the model's answers (observe), a ",
    ):
        assert part in told, told
    assert most_operators(strategy) == 2 + 2 + 1 + 1


def test_three_augment_is_exactly_one_of_three_and_jitter() -> None:
    plan = Policy.load("three_augment").plan(torch.zeros(3000, dtype=torch.int64))
    names = [[plan.choices[k].operator.name for k in row] for row in plan.choice.tolist()]
    assert all(row[1:] == ["brightness", "contrast", "color"] for row in names)
    first = torch.bincount(torch.tensor([["grayscale", "solarize", "gaussian_blur"].index(row[0]) for row in names]))
    assert stats.chisquare(first.numpy()).pvalue > 1e-3
    blurred, solarized = (torch.tensor([row[0] == name for row in names]) for name in ("gaussian_blur", "solarize"))
    assert set(plan.value[solarized, 0].tolist()) == {128.0}
    assert stats.kstest(plan.value[blurred, 0].numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    for slot in (1, 2, 3):
        assert stats.kstest(plan.value[:, slot].numpy(), stats.uniform(0.7, 0.6).cdf).pvalue > 1e-3


def test_alternating_flip_flips_each_image_exactly_every_other_epoch() -> None:
    policy = Policy.load("alternating_flip", num_samples=200)
    images = torch.arange(200 * 3 * 4 * 6).view(200, 3, 4, 6).remainder(251).to(torch.uint8)
    flips = []
    for epoch in range(4):
        order = torch.randperm(200, generator=torch.Generator().manual_seed(epoch))
        flipped = torch.zeros(200, dtype=torch.bool)
        for index in order.split(64):
            out, _ = policy(images[index], torch.zeros(len(index), dtype=torch.int64), index=index)
            turned = (out == images[index].flip(3)).flatten(1).all(1)
            assert torch.equal(turned, ~(out == images[index]).flatten(1).all(1))
            flipped[index] = turned
        flips.append(flipped)
        policy.end_epoch()
    assert all(torch.equal(later, ~earlier) for earlier, later in pairwise(flips))
    assert stats.binomtest(int(flips[0].sum()), 200, 0.5).pvalue > 1e-3, "half of them begin flipped"


def test_augmix_is_as_in_the_authors_code() -> None:
    policy = Policy.load("augmix")
    assert policy.views == ("clean", "mix 1", "mix 2")
    plan = policy.plan(torch.zeros(2000, dtype=torch.int64))
    (_, clean), *mixes = plan.views
    assert clean.choice.shape[1] == 0 and clean.branches is None
    single = Policy.load("augmix_single", seed=1).plan(torch.zeros(2000, dtype=torch.int64)).branches
    for branches in (*(mix.branches for _, mix in mixes), single):
        assert branches is not None and branches.weights.shape == (2000, 3)
        chains = branches.plan
        drawn = torch.bincount(chains.choice[chains.choice >= 0], minlength=9)
        assert stats.chisquare(drawn.numpy()).pvalue > 1e-3
        level = chains.strength[~chains.strength.isnan()] * 10
        assert stats.kstest(level.numpy(), stats.uniform(0.1, 2.9).cdf).pvalue > 1e-3
        bits = [k for k, choice in enumerate(chains.choices) if choice.operator.name == "posterize"]
        kept = (chains.value[chains.choice == bits[0]] + 1e-3).floor()
        # 4 - int(0.4 * level): 4 bits below 2.5, 3 bits above
        share = stats.binomtest(int((kept == 4).sum()), len(kept), 2.4 / 2.9)
        assert set(kept.tolist()) == {3.0, 4.0} and share.pvalue > 1e-3
