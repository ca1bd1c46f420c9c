"""The charts of reports: what their axes, cells and tooltips say."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from browser import Browser
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from augkit.engine.program import Sizes, bind
from augkit.lab import folder as files
from augkit.lab import run_facts
from augkit.lab.augmentation import own_columns, strategy_of
from augkit.lab.recipe import load_recipe
from augkit.plugins import load_registry
from augkit.report import charts, policy_charts, run_page
from augkit.report import page as pages
from augkit.report.facts import Run, Use
from augkit.report.maps import map_of


def bare(*figures: str) -> str:
    """A page of charts alone."""
    body = "{% extends 'page.html.j2' %}{% block title %}x{% endblock %}{% block body %}{{ figures }}{% endblock %}"
    with pytest.MonkeyPatch.context() as patch:
        loaders = jinja2.ChoiceLoader
        patch.setattr(jinja2, "ChoiceLoader", lambda own: loaders([jinja2.DictLoader({"bare": body}), *own]))
        return pages.render("bare", {"figures": Markup("").join(figures)})


def test_an_operator_with_a_value_does_not_thin_the_strengths_of_the_same_one() -> None:
    """`rotate` by strength met 4 images at 0.5; another `rotate`, by degrees, met 40."""
    used, strength = np.asarray([[[4.0, 40.0]]]), np.asarray([[[2.0, 0.0]]])
    use = run_facts._by_name(["rotate", "rotate"], used, np.full((1, 1), 44.0), strength, np.asarray([True, False]))
    assert use.operators == ["rotate", "rotate (by value)"] and use.graded.tolist() == [True, False]
    run = Run(Path(), {}, "two", 1, {}, [], None, [{"name": "a", "count": 9, "group": "few"}], use)
    assert [row["strength"] for row in run_page.operators(run)] == [0.5, None]


def test_a_strength_that_was_always_0_is_a_strength(tmp_path: Path) -> None:
    """Whether an operator has one is the document's to say: of these three one has none, and one a value of its own."""
    document = {
        "augkit": 1,
        "name": "low",
        "pipeline": [{"rotate": {"strength": 0}}, "hflip", {"posterize": {"bits": 4}}],
    }
    strategy = tmp_path / "low.yaml"
    files.write_yaml(strategy, document)
    registry = load_registry(plugins=False)
    program = bind(strategy_of(load_recipe("demo", registry, [f"policy={strategy}"]), registry), Sizes())
    names = [program.choices[column].operator.name for column in own_columns(program)]
    graded = run_facts._graded(program, np.zeros((3, 3)))
    assert dict(zip(names, graded.tolist(), strict=True)) == {"rotate": True, "hflip": False, "posterize": False}
    assert not run_facts._graded(None, np.zeros((3, 3))).any()
    classes = [{"name": "a", "count": 9, "group": "few", "images": 5, "accuracy": 0.5, "made": 0}]
    used = np.full((2, 1, 3), 4.0)
    use = Use(names, used, np.full((2, 1), 4.0), np.zeros((2, 1, 3)), np.zeros((1, 3)), graded)
    run = Run(tmp_path, {"test": True}, "low", 2, {}, [], None, classes, use)
    assert [row["strength"] for row in run_page.amounts(run)] == [0, 0]
    assert {row["name"]: row["strength"] for row in run_page.operators(run)} == {
        "rotate": 0,
        "hflip": None,
        "posterize": None,
    }
    assert any("Mean strength by class and operator" in one for one in policy_charts.of_policy(run, [0]))


def spec(figure: str) -> dict[str, Any]:
    """What Vega-Lite is told to draw."""
    found = re.search(r'<script type="application/json">(.*?)</script>', figure)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


@given(st.integers(1, 5000))
def test_ticks_are_whole_epochs_and_few(epochs: int) -> None:
    ticks = charts.epoch_ticks(range(epochs))
    assert ticks[0] == 0 and ticks[-1] < epochs and 1 <= len(ticks) <= charts.TICKS
    assert len({b - a for a, b in pairwise(ticks)}) <= 1
    assert epochs > charts.TICKS or ticks == list(range(epochs))


def test_cells_that_stand_for_several_say_so() -> None:
    counts, names = list(range(300, 0, -2)), [f"c{k}" for k in range(150)]
    one = map_of(np.ones((3, 6)), names[:3], "level", "words", "By class and epoch.", counts=counts[:3])
    assert "A cell is" not in one and "mean of a class" not in one and '"title":"epoch"' in one
    many = map_of(np.ones((150, 300)), names, "level", "words", "By class and epoch.", counts=counts)
    assert "By class and epoch. A cell is the mean of up to 2 classes and up to 8 epochs." in many
    titles = [tip["title"] for tip in spec(many)["encoding"]["tooltip"]]
    assert titles == ["class", "training images, mean of a class", "epochs", "level"]


def test_a_class_without_training_images_leaves_the_line_of_the_others() -> None:
    rows = [{"name": f"c{n}", "count": n, "group": "few", "images": 5, "accuracy": 0.5} for n in (19, 3, 0)]
    axes = [spec(charts.accuracy_by_class(part, "test"))["layer"][1]["encoding"]["y"] for part in (rows, rows[:2])]
    assert [axis["scale"]["type"] for axis in axes] == ["symlog", "log"]
    assert [axis["axis"]["values"] for axis in axes] == [[0, 1, 3, 10], [1, 3, 10]]


def test_what_is_no_number_is_left_out() -> None:
    rows = [{"epoch": e, "series": "loss", "value": v} for e, v in enumerate([1.0, float("nan"), float("inf")])]
    assert [row["value"] for row in spec(charts.curves(rows, "loss", "words"))["data"]["values"]] == [1, None, None]


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2, 3, 6, 300])
def test_only_whole_epochs_are_named(epochs: int, tmp_path: Path, browser: Browser) -> None:
    """In Chromium, below a line and below a map, in the words of the tooltip too."""
    rows = [{"epoch": e, "series": "loss", "value": 0.5} for e in range(epochs)]
    drawn = [
        charts.curves(rows, "loss", "a line", percent=False),
        map_of(np.ones((2, epochs)), ["a", "b"], "level", "a map", counts=[5, 3]),
    ]
    (tmp_path / "page.html").write_text(bare(*drawn), encoding="utf-8")
    with browser.opened(tmp_path / "page.html", width=1000) as opened:
        opened.wait_for_function("[...document.querySelectorAll('figure.chart')].every(one => one.dataset.drawn)")
        for place in range(2):
            axis = (
                opened.locator("figure.chart").nth(place).locator(".role-axis:has-text('epoch') .role-axis-label text")
            )
            named = [text for text in axis.all_text_contents() if text]
            assert named == [str(epoch) for epoch in charts.epoch_ticks(range(epochs))]
        opened.locator("figure.chart .mark-rect path").nth(1).hover()
        said = opened.locator("#vg-tooltip-element")
        opened.wait_for_selector("#vg-tooltip-element.visible")
        assert ("epochs" in said.inner_text()) == (epochs > 40) and (" to " in said.inner_text()) == (epochs > 40)
