"""Which candidate `augkit synth allocate` chooses, and that it calls nothing better that may be noise."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from augkit_diffusion.allocate_command import _lines
from augkit_diffusion.choosing import Choice
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.errors import AugkitError


def choice(
    candidates: list[tuple[int, list[float]]], control: list[float], longer: list[float] | None = None
) -> dict[str, Any]:
    """The results of candidates (images, accuracies)."""
    rows = [
        {"split": 0.0, "weights": "1", "ratio": 1.0, "images": images, "take": {}, "store": "x", "stale": False}
        for images, _ in candidates
    ]
    controls = {"control": (10, dict(enumerate(control)))}
    if longer is not None:
        controls["control-20-epochs"] = (20, dict(enumerate(longer)))
    scores = [dict(enumerate(values)) for _, values in candidates]
    return Choice({"seeds": [*range(len(control))], "failed": {}}, rows, scores, controls).results()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.lists(st.floats(0, 100), min_size=3, max_size=3)), min_size=1, max_size=6
    ),
    st.lists(st.floats(0, 100), min_size=3, max_size=3),
)
def test_the_fewest_images_within_an_error_of_the_best(
    candidates: list[tuple[int, list[float]]], control: list[float]
) -> None:
    found = choice(candidates, control)
    rows, best, chosen = found["candidates"], found["best"], found["chosen"]
    means = [row["accuracy"]["mean"] for row in rows]
    margin = means[best] - rows[best]["accuracy"]["error"]
    assert means[best] == max(means) and means[chosen] >= margin
    assert rows[chosen]["images"] == min(row["images"] for row in rows if row["accuracy"]["mean"] >= margin)
    gap = rows[chosen]["differences"]["control"]
    assert found["better"] == (gap["mean"] > gap["error"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("values", "longer", "better", "words"),
    [
        (
            [81.0, 84.0, 83.1],
            None,
            True,
            r"better by more than its standard error.* contains 0.* low bar .*difference does not hold at 95",
        ),
        ([90.0, 91.0, 92.0], None, True, r"Holm's correction for looking at 2 the difference holds at 95 %"),
        ([80.0, 81.9, 80.4], None, False, r"it cannot be told from 0.*told from the recipe without"),
        (
            [70.0, 71.0, 72.0],
            None,
            False,
            r"worse by more than its .*it is worse than the recipe without",
        ),
        (
            [90.0, 91.0, 92.0],
            [90.0, 91.5, 91.5],
            False,
            r"epochs\): \+0\.0 .* cannot be told from more training steps",
        ),
        (
            [90.0, 91.0, 92.0],
            [95.0, 96.0, 97.0],
            False,
            "it is worse than more training steps on the real",
        ),
        ([90.0, 91.0, 92.0], [70.0, 71.0, 72.0], True, "called better, by the low bar"),
    ],
)
def test_nothing_within_its_error_is_called_better(
    values: list[float], longer: list[float] | None, better: bool, words: str
) -> None:
    found = choice([(5, values), (9, [60.0, 60.0, 60.0])], [80.0, 81.0, 82.1], longer)
    assert found["better"] is better
    assert re.search(words, " ".join(found["verdict"])), found["verdict"]


@pytest.mark.parametrize("values", [[99.0], [99.0, 99.0], [99.0, 98.0]])
def test_two_seeds_prove_nothing(values: list[float]) -> None:
    found = choice([(5, values)], [10.0] * len(values), [20.0] * len(values))
    assert not found["better"] and "points, but fewer than 3 seeds in common are too few to tell" in found["verdict"][1]
    assert found["verdict"][-1] == "So it is not called better: fewer than 3 seeds are too few to tell."


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=1, max_size=3),
    st.lists(st.floats(0, 100), min_size=3, max_size=3),
    st.none() | st.lists(st.floats(0, 100), min_size=3, max_size=3),
)
def test_a_verdict_ends_with_what_it_means(
    values: list[list[float]], control: list[float], longer: list[float] | None
) -> None:
    found = choice([(5, one) for one in values], control, longer)
    last = found["verdict"][-1]
    assert last.startswith("It is called better, by the low bar" if found["better"] else "So it is not called better: ")
    if found["better"]:
        assert ("Holm" in last) == (len(values) > 1) and "at 95 %" in last.lower()
    assert set(_lines(found)[-1]) >= {"to control", *(["to as many steps"] if longer else [])}


def test_runs_that_failed_are_left_out() -> None:
    told = {"seeds": [0, 1], "failed": {"x-seed1": "no room"}}
    row = {"split": 0.0, "weights": "1", "ratio": 1.0, "images": 5, "take": {}, "store": "x", "stale": False}
    controls = {"control": (10, {0: 50.0, 1: 52.0})}
    found = Choice(told, [row, {**row, "images": 9}], [{}, {0: 60.0}], controls).results()
    assert found["chosen"] == 1 and found["candidates"][0]["accuracy"] is None
    for scores, control in (([{}, {}], controls), ([{0: 1.0}, {}], {"control": (10, {})})):
        with pytest.raises(AugkitError, match=r"every run of .* failed, so there is nothing to choose: no room"):
            Choice(told, [row, row], scores, control).results()


def test_stale_figures_are_not_chosen_but_counted() -> None:
    told: dict[str, Any] = {"seeds": [0, 1, 2], "failed": {}}
    row = {"split": 0.0, "weights": "1", "ratio": 1.0, "images": 5, "take": {}, "store": "x", "stale": False}
    scores = [{0: 85.0, 1: 86.0, 2: 87.5}, {0: 95.0, 1: 96.0, 2: 97.5}]
    controls = {"control": (10, {0: 80.0, 1: 81.0, 2: 82.0})}
    found = Choice(told, [row, {**row, "stale": True}], scores, controls).results()
    assert found["best"] == found["chosen"] == 0 and found["better"] and "looking at 2" in found["verdict"][-2]
    assert "1 candidate of earlier calls was measured with images that" in found["verdict"][-1]
    assert _lines(found)[-1]["note"] == "stale"
    with pytest.raises(AugkitError, match="every run of the candidates failed"):
        Choice(told, [row, {**row, "stale": True}], [{}, scores[1]], controls).results()
