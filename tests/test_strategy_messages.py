"""What is said of the slips that people make first: each message shows what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from augkit.errors import DocumentError
from augkit.plugins import load_registry
from augkit.strategy.document import load_strategy

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
    assert "of the characters A-Z a-z 0-9 _" in fault(**parts)
