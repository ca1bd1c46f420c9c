"""What is said of the slips that people make first: each message shows what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from augkit.errors import DocumentError, OperatorError
from augkit.operators.base import operator
from augkit.plugins import load_registry
from augkit.strategy.document import load_strategy
from augkit.strategy.schema import json_schema

BUILT_IN = load_registry(plugins=False)


def fault(**parts: Any) -> str:
    with pytest.raises(DocumentError) as caught:
        load_strategy({"augkit": 1, "name": "small", "pipeline": [], **parts}, BUILT_IN)
    assert len(caught.value.problems) == 1, caught.value
    return str(caught.value)


@pytest.mark.parametrize(
    ("step", "cure"),
    [
        ({"hflip": 0.5}, "write {p: 0.5}"),
        ({"rotate": 15}, "write {degrees: 15}"),
        ({"posterize": "randint(4, 8)"}, 'write {bits: "randint(4, 8)"}'),
        ({"hflip": True}, "expected a mapping, found true"),
        ({"one_of": []}, "it must not be empty"),
        ({"batch": []}, "it must not be empty"),
        ({"batch": [{"one_of": []}]}, "it must not be empty"),
        ({"one_of": 3}, "expected a list of alternatives, found 3"),
        ("mixup", "mixup mixes images: write it under batch:, as in - batch: [mixup]"),
        ({"cutmix": {"alpha": 1}}, "cutmix mixes images: write it under batch:"),
        ("ShearX", 'Did you mean "shear_x"?'),
        ("TranslateY", 'Did you mean "translate_y"?'),
        ("kornia:", 'name a class after "kornia:", without a space between, as in kornia:RandomPlasmaShadow'),
        ({"kornia": None}, 'name a class after "kornia:"'),
        ({"albumentations": "Blur"}, 'name a class after "albumentations:"'),
    ],
)
def test_a_step_says_what_to_write(step: Any, cure: str) -> None:
    assert cure in fault(pipeline=[step])


@pytest.mark.parametrize(
    ("palette", "cure"),
    [
        ([], "it must not be empty"),
        ("rotate", '"rotate" is an operator; write [rotate]'),
        ("uniformm", 'Did you mean "uniform"?'),
        ([{"rotate": 15}], "write {high: 15}"),
        ([{"hflip": 0.5}], "write hflip alone"),
    ],
)
def test_a_palette_says_what_to_write(palette: Any, cure: str) -> None:
    assert cure in fault(palette=palette)


@pytest.mark.parametrize("step", [{"pick": {"strength": "level"}}, {"rotate": {"strength": "level"}}])
def test_a_value_of_each_class_is_cured_without_words_of_ours(step: Any) -> None:
    said = fault(palette=["rotate"], state={"level": {"axes": ["classes"]}}, pipeline=[step])
    assert "a number for each image is wanted here; take the image's own with `level[y]`" in said
    assert "batch" not in said and "picks" not in said


@pytest.mark.parametrize("parts", [{"name": "-x"}, {"name": "my policy"}, {"params": {"a-b": 1}}])
def test_a_name_says_which_characters_it_may_have(parts: Any) -> None:
    assert "ASCII letters A-Z a-z, digits 0-9" in fault(**parts)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"rotate": {"degrees": 400000}}, "rotate.degrees: `400000` is 400000, never within -360..360 degrees"),
        ({"gaussian_blur": {"radius": 500}}, "never within 0..50 pixels"),
        ({"posterize": {"bits": 9}}, "never within 0..8 bits"),
        ({"brightness": {"factor": -3}}, "never within 0..10 times"),
        ({"brightness": {"factor": "uniform(-3, -1)"}}, "is -3..-1, never within 0..10 times"),
        ({"rotate": {"high": 1000}}, "rotate.high: 1000 is never within -360..360 degrees"),
        ({"solarize": {"low": -1}}, "solarize.low: -1 is never within 0..256 threshold"),
        ({"random_crop": {"padding": 5000}}, "5000 is no value for padding"),
        ({"cutout": {"length": -1}}, "-1 is no value for length"),
        ({"random_resized_crop": {"scale": [0.9, 0.5]}}, "the first number must not be above the second"),
        ({"random_resized_crop": {"ratio": [-1, 1]}}, "no value for ratio"),
        ({"random_erasing": {"scale": [0.5, 2]}}, "no value for scale"),
        ({"gaussian_blur": {"widest": 900}}, "900 is no value for widest"),
        ({"solarize_add": {"threshold": 1000}}, "1000 is no value for threshold"),
    ],
)
def test_a_number_that_nobody_can_mean_is_refused_with_its_limits(step: Any, said: str) -> None:
    assert said in fault(pipeline=[step])
    if "low" in str(step) or "high" in str(step):
        assert said in fault(palette=[step])


@pytest.mark.parametrize(
    "step",
    [
        {"rotate": {"degrees": "uniform(-500, 500)"}},
        {"rotate": {"degrees": -360}},
        {"posterize": {"bits": 0}},
        {"solarize": {"threshold": 256}},
        {"translate_x_pixels": {"pixels": 5000}},
        {"random_crop": {"padding": 0}},
        {"random_resized_crop": {"scale": [1, 1]}},
    ],
)
def test_a_number_within_the_limits_or_perhaps_within_them_is_not(step: Any) -> None:
    assert load_strategy({"augkit": 1, "name": "small", "pipeline": [step]}, BUILT_IN).pipeline


def test_a_schema_shows_the_limits() -> None:
    steps = json_schema(BUILT_IN)["$defs"]["step"]["anyOf"][1]["properties"]
    degrees = steps["rotate"]["anyOf"][0]["properties"]["degrees"]
    assert (degrees["minimum"], degrees["maximum"]) == (-360, 360)
    assert "minimum" not in steps["translate_x_pixels"]["anyOf"][0]["properties"]["pixels"]
    assert steps["random_crop"]["anyOf"][0]["properties"]["padding"]["maximum"] == 1024


def test_the_ends_of_a_declared_range_are_two_numbers_within_the_limits() -> None:
    def tint(images: Tensor, amount: Tensor) -> Tensor:
        return images * amount[:, None, None, None]

    for declared in ({"range": (0.5,)}, {"range": 3}, {"range": ("a", 1)}, {"range": (0, 1), "limits": (1,)}):
        with pytest.raises(OperatorError, match=r'"tint": (range|limits) must be two numbers'):
            operator(**declared)(tint)
    with pytest.raises(OperatorError, match="must lie within the limits"):
        operator(range=(2, 0), limits=(0, 1))(tint)
    assert operator(range=(1, 0), limits=(0, 1))(tint).limits == (0, 1)


def test_a_palette_that_is_taken_for_a_strategy() -> None:
    with pytest.raises(DocumentError, match="timm15 is a palette, not a strategy; write palette: timm15 in a document"):
        load_strategy("timm15", BUILT_IN)
