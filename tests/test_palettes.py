"""Named palettes hold what their sources say: timm's level functions, AugMix's, the constants of ImageNet-C."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from operator_references import photos
from timm.data import auto_augment as timm

from augkit import Policy
from augkit.operators.tables import PALETTES
from augkit.operators.tone import solarize, solarize_add
from augkit.registry import Registry
from augkit.strategy.choices import MAX_OPERATORS
from augkit.strategy.document import load_strategy

TIMM = {
    "AutoContrast": "autocontrast",
    "Rotate": "rotate",
    "Posterize": "posterize",
    "Solarize": "solarize",
    "SolarizeAdd": "solarize_add",
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateXRel": "translate_x",
    "TranslateYRel": "translate_y",
}


def entries(palette: str) -> list[tuple[str, dict[str, Any]]]:
    """Names with their ranges, {} for none."""
    return [(entry, {}) if isinstance(entry, str) else next(iter(entry.items())) for entry in PALETTES[palette]]


def effective(name: str, value: float, *, whole: bool = False) -> float:
    """What the operator makes of a value: whole bits, at least 1; a threshold and an addition in whole numbers."""
    if name == "posterize":
        return float(max(1, int(value + 1e-3)))
    if name in ("solarize", "solarize_add"):
        operator = {"solarize": solarize, "solarize_add": solarize_add}[name]
        table = operator.function(torch.tensor([value]), **({"whole": True} if whole else {}))[0, 0]
        return float(table[0] if name == "solarize_add" else (table == torch.arange(256)).sum())
    return value


@pytest.mark.parametrize("palette", sorted(PALETTES))
def test_every_palette_runs(palette: str, registry: Registry) -> None:
    size = len(PALETTES[palette])
    assert 0 < size <= MAX_OPERATORS
    document = {"augkit": 1, "name": "p", "palette": palette, "pipeline": [{"pick": {"count": size}}]}
    strategy = load_strategy(document, registry)
    assert [choice.operator.name for choice in strategy.choices] == [name for name, _ in entries(palette)]
    images = photos(32, 6)
    assert not torch.equal(Policy.load(document)(images, torch.zeros(6).long())[0], images)


@pytest.mark.parametrize("palette", sorted(PALETTES))
def test_a_palette_written_out_is_the_palette(palette: str) -> None:
    """Whoever starts from a table and changes an entry starts from the very same thing."""
    document = {"augkit": 1, "name": "p", "pipeline": [{"pick": {"count": 4}}]}
    named, written = (Policy.load({**document, "palette": one}) for one in (palette, list(PALETTES[palette])))
    assert named.strategy.hash == written.strategy.hash
    for _ in range(3):
        one, other = (policy.plan(torch.zeros(64).long()) for policy in (named, written))
        for name in ("choice", "value", "strength", "u"):
            assert torch.equal(getattr(one, name).nan_to_num(-1), getattr(other, name).nan_to_num(-1))


def sides(palette_range: dict[str, Any], strength: float, middle: float) -> set[float]:
    """The values an image can get: v, and the mirrored one where a side is drawn."""
    value = palette_range["low"] + strength * (palette_range["high"] - palette_range["low"])
    return {value, 2 * middle - value} if palette_range.get("signed") else {value}


@pytest.mark.parametrize("magnitude", [0, 0.5, 1, 2.4, 2.5, 3, 5, 6.3, 7.5, 9, 9.9, 10])
@pytest.mark.parametrize(
    ("palette", "names"),
    [("timm15", timm._RAND_TRANSFORMS), ("timm15_increasing", timm._RAND_INCREASING_TRANSFORMS)],
)
def test_timm15_is_timms(palette: str, names: list[str], magnitude: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = entries(palette)
    assert len(found) == len(names) == 15
    for (own, limits), name in zip(found, names, strict=True):
        plain = name.removesuffix("Increasing")
        assert own == TIMM.get(plain, plain.lower())
        function = timm.LEVEL_TO_ARG[name]
        assert (function is None) == (not limits)
        if function is None:
            continue
        theirs = set()
        for drawn in (0.1, 0.9):
            monkeypatch.setattr(random, "random", lambda drawn=drawn: drawn)
            theirs.add(float(function(magnitude, timm._HPARAMS_DEFAULT)[0]))
        ours = sides(limits, magnitude / 10, 1.0 if "Increasing" in name else 0.0)
        # 0 bits are black in timm, here 1 bit is the least
        ours = {effective(own, value, whole=limits.get("whole", False)) for value in ours}
        theirs = {max(1.0, value) if own == "posterize" else value for value in theirs}
        for one, other in zip(sorted(ours), sorted(theirs), strict=True):
            assert one == pytest.approx(other, abs=1e-6), (own, magnitude)


@pytest.mark.parametrize("level", [0.1, 1, 2.5, 3, 5, 7.4, 10])
def test_augmix_is_the_papers(level: float) -> None:
    """The level functions of the authors' augmentations.py: whole parts of level / 10 times the most."""
    most = {"rotate": 30, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 1 / 3, "translate_y": 1 / 3}
    names = ["autocontrast", "equalize", "posterize", "rotate", "solarize", *list(most)[1:]]
    assert [name for name, _ in entries("augmix")] == names
    for name, limits in entries("augmix")[2:]:
        (value, *_) = sorted(sides(limits, level / 10, 0.0), reverse=True)
        if name == "posterize":
            assert effective(name, value) == max(1, 4 - int(level * 4 / 10))
        elif name == "solarize":
            assert effective(name, value) == 256 - int(level * 256 / 10)
        else:
            assert value == pytest.approx(level / 10 * most[name], abs=1e-6)
            assert limits["signed"]


CORRUPTIONS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (1 / 60, 1 / 25, 1 / 12, 1 / 5, 1 / 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": (3, 4, 6, 8, 10),
    "glass_blur": (1, 2, 2, 3, 4),
    "motion_blur": (6, 10, 17, 23, 30),
    "zoom_blur": (1.1, 1.15, 1.2, 1.25, 1.3),
    "snow": (0.33, 0.5, 0.5, 0.58, 0.75),
    "fog": (0.72, 0.87, 0.99, 0.99, 1),
    "brighten": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic": (0.0036, 0.0036, 0.0036, 0.0051, 0.0087),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg": (25, 18, 15, 10, 7),
}
"""make_imagenet_c.py, in the units of our operators."""


@pytest.mark.parametrize(("number", "name"), list(enumerate(CORRUPTIONS)))
def test_imagenet_c_has_the_published_severities(number: int, name: str) -> None:
    images, targets = photos(64, 4), torch.zeros(4, dtype=torch.int64)
    effect = []
    for severity in (1, 2, 3, 4, 5):
        policy = Policy.load("imagenet_c", severity=severity, only=number)
        result, _ = policy(images, targets)
        plan = policy.last_plan
        assert plan is not None and {plan.choices[int(k)].operator.name for k in plan.choice[:, 0]} == {name}
        assert plan.value[:, 0].tolist() == pytest.approx([CORRUPTIONS[name][severity - 1]] * 4, rel=1e-5)
        effect.append((result.int() - images.int()).abs().float().mean().item())
    assert all(later >= 0.9 * earlier for earlier, later in itertools.pairwise(effect)), effect
    assert effect[-1] > 1.15 * effect[0] > 0


def test_imagenet_c_palette_ends_where_the_document_does() -> None:
    found = entries("imagenet_c")
    assert [name for name, _ in found] == list(CORRUPTIONS)
    for name, limits in found:
        assert (limits["low"], limits["high"]) == pytest.approx((CORRUPTIONS[name][0], CORRUPTIONS[name][-1]))


def test_imagenet_c_draws_any_of_them() -> None:
    policy = Policy.load("imagenet_c")
    plan = policy.plan(torch.zeros(400, dtype=torch.int64))
    assert torch.bincount(plan.choice[:, 0], minlength=14).gt(8).all()
