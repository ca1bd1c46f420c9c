"""Reports: what they tell of real run folders, that they tell nothing else, and what they refuse."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from browser import Browser
from fixtures import Install
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from report_parts import large_run
from run_parts import QUICK
from typer.testing import CliRunner, Result

from augkit.cli.app import build
from augkit.errors import PluginError
from augkit.lab import folder as files
from augkit.lab.compare import compare
from augkit.lab.grid import plan
from augkit.lab.reports import page, write
from augkit.lab.run_facts import read_run
from augkit.plugins import load_registry
from augkit.report import charts
from augkit.report import page as pages
from augkit.report.maps import map_of

EVIL = '<script>alert("1")</script>'
DOCUMENT = """augkit: 1
name: level
title: A class meets stronger operators once the model knows it
palette: [hflip, autocontrast, {rotate: {low: 0, high: 25}}, posterize]
state:
  level: {axes: [classes], init: 0.2, clamp: [0.1, 1]}
  weight: {axes: [classes, ops], init: 1}
pipeline:
  - pick: {p: 0.8, count: 2, strength: "level[y] * uniform()", weights: "weight[y]"}
update:
  - at: epoch_end
    let: {accuracy: "correct / seen"}
    set: {level: "where(accuracy > 0.6, level + 0.1, level - 0.05)"}
"""


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies with three seeds each, compared."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "level.yaml").write_text(DOCUMENT)
    grid = plan(
        "demo", ["none", str(folder / "level.yaml")], overrides=[*QUICK, "data.image_size=8", "data.validation=0.1"]
    )
    compare(grid, folder / "cmp", say=lambda line: None)
    return folder / "cmp"


@pytest.fixture(scope="module")
def runs(comparison: Path) -> Path:
    """The folder of its runs."""
    return comparison / "runs"


class Page(HTMLParser):
    """Its text (scripts apart), tags, headings, and the words of its charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.charts: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open = ""
        self.feed(text)
        self.text = re.sub(r"\s+", " ", self.text)
        self.headings = [int(tag[1]) for tag in self.tags if re.fullmatch(r"h[1-6]", tag)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = tag
        if ("class", "vega") in attrs:
            self.charts.append(dict(attrs)["aria-label"] or "")

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.scripts.append(data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def bare(*figures: str) -> str:
    """A page of charts alone."""
    body = "{% extends 'page.html.j2' %}{% block title %}x{% endblock %}{% block body %}{{ figures }}{% endblock %}"
    with pytest.MonkeyPatch.context() as patch:
        loaders = jinja2.ChoiceLoader
        patch.setattr(jinja2, "ChoiceLoader", lambda own: loaders([jinja2.DictLoader({"bare": body}), *own]))
        return pages.render("bare", {"figures": Markup("").join(figures)})


def asked(*words: str | Path) -> Result:
    return CliRunner().invoke(build(), ["report", *map(str, words)])


def test_a_run_is_told_from_its_files(runs: Path) -> None:
    told = Page(page([runs / "level-ce-seed0"]))
    summary = json.loads((runs / "level-ce-seed0" / files.SUMMARY).read_text())
    assert f"the model is right for {100 * summary['test']['all']:.1f} %" in told.text
    assert f"few {100 * summary['test']['few']:.1f} %" in told.text
    for words in (
        "Bars: test accuracy of 10 classes",
        "Training accuracy from",
        "Operators an image, mean over classes",
        "Mean strength by class and operator",
        "level by class and epoch",
        "By class and operator, 4 operators",
    ):
        assert any(one.startswith(words) for one in told.charts), (words, told.charts)
    assert "draws 2 operators from the palette" in told.text and "axes: [classes, ops]" in told.text
    assert "augkit train" in told.text and "per_class.csv" in told.text and "test_share: 0.8" in told.text
    assert told.tags.count("main") == 1 and told.headings[0] == 1 and told.headings.count(1) == 1
    steps = zip(told.headings, told.headings[1:], strict=False)
    assert all(later <= before + 1 for before, later in steps)


def test_the_charts_hold_what_the_policy_did(runs: Path) -> None:
    """The numbers in the page are those of operators.json, class by class and operator by operator."""
    use = json.loads((runs / "level-ce-seed0" / files.OPERATORS).read_text())
    run = read_run(runs / "level-ce-seed0", load_registry())
    assert run.use is not None and run.use.operators == use["operators"]
    assert run.use.used.tolist() == use["used"] and run.use.seen.tolist() == use["seen"]
    assert run.use.strength_sum == pytest.approx(np.array(use["strength_used"]), abs=1e-3)
    specs = [json.loads(text) for text in Page(page([runs / "level-ce-seed0"])).scripts if text.startswith('{"config"')]
    values = [spec["data"]["values"] for spec in specs if "data" in spec]
    first = next(rows for rows in values if rows[0].get("at") == use["operators"])
    order = sorted(range(10), key=lambda k: -run.classes[k]["count"])
    used = [sum(epoch[order[0]][k] for epoch in use["used"]) for k in range(4)]
    assert first[0]["v"] == pytest.approx([n / sum(epoch[order[0]] for epoch in use["seen"]) for n in used], rel=1e-3)


def test_without_a_checkpoint_the_page_says_what_is_missing(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "level-ce-seed0", tmp_path / "run"))
    (folder / files.CHECKPOINT).unlink()
    told = Page(page([folder]))
    assert "There is no checkpoint in this folder" in told.text and "What the policy learned" not in told.text
    assert any(one.startswith("Operators an image") for one in told.charts)


def test_a_changed_document_is_not_told_as_the_run_s(runs: Path, tmp_path: Path) -> None:
    document = runs.parent.parent / "level.yaml"
    document.write_text(DOCUMENT.replace("count: 2", "count: 3"))
    try:
        told = Page(page([runs / "level-ce-seed0"]))
    finally:
        document.write_text(DOCUMENT)
    assert "has changed since this run was trained" in told.text and "draws 3 operators" not in told.text
    assert any(one.startswith("Operators an image") for one in told.charts)  # these were counted


def test_a_run_under_way_is_told_as_far_as_it_is(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (files.RECIPE, files.ENVIRONMENT, files.METRICS, files.CHECKPOINT):
        shutil.copy(runs / "level-ce-seed0" / name, folder / name)
    told = Page(page([folder]))
    assert "This run has not ended: after 2 of 2 epochs" in told.text and "level by class and epoch" in str(told.charts)
    assert not any(one.startswith("Bars") for one in told.charts)


def test_names_cannot_become_markup(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "level-ce-seed0", tmp_path / "run"))
    table = (folder / files.PER_CLASS).read_text()
    (folder / files.PER_CLASS).write_text(table.replace("\n0,0,", '\n0,"' + EVIL.replace('"', '""') + '",'))
    text = page([folder])
    assert EVIL not in text and EVIL in Page(text).text
    assert len(re.findall(r"<script", text)) == len(re.findall(r"<script", page([runs / "level-ce-seed0"])))


def test_a_comparison_says_what_can_be_told(comparison: Path) -> None:
    results = json.loads((comparison / "results.json").read_text())
    told = Page(page([comparison]))
    found = next(row["difference"] for row in results["rows"] if row["difference"])
    answer = told.text.partition("Comparison in")[2]
    if found["low"] <= 0 <= found["high"]:
        assert "Cannot be told from none: level (3 seeds, 95 % intervals)" in answer
    else:
        side = "Above" if found["mean"] > 0 else "Below"
        assert f"{side} none on test images: level by {abs(found['mean']):.1f} points (3 seeds" in answer
    assert any(one.startswith("Differences to none: level") for one in told.charts)
    assert f"{found['mean']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]" in told.text
    assert results["command"] in told.text and "draws 2 operators from the palette" in told.text
    assert told.headings[0] == 1 and all(b <= a + 1 for a, b in zip(told.headings, told.headings[1:], strict=False))


def test_a_comparison_under_way_or_without_its_runs(comparison: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(comparison, tmp_path / "cmp"))
    shutil.rmtree(folder / "runs" / "none-ce-seed2")
    told = Page(page([folder])).text
    assert "1 of 6 run folders are gone" in told and "Test accuracy in %" in told
    (folder / "results.json").unlink()
    (folder / "runs" / "none-ce-seed1" / files.SUMMARY).unlink()
    told = Page(page([folder])).text
    assert "This comparison has not ended: 4 of 6 runs are told" in told and "none-ce-seed1 is left out: 2 of 2" in told
    shutil.copy(comparison / "results.json", folder)
    shutil.rmtree(folder / "runs")
    bare = Page(page([folder]))
    assert "6 of 6 run folders are gone" in bare.text and len(bare.charts) == 1  # the differences


def test_runs_named_one_by_one_are_told_as_a_comparison_is(comparison: Path) -> None:
    """Paired differences, means and intervals are those of the comparison's own results."""
    from augkit.lab.several import several

    results = json.loads((comparison / "results.json").read_text())
    found = several(sorted((comparison / "runs").glob("*")), load_registry(), "none").results
    rows = {row["policy"]: row for row in found["rows"]}
    assert found["differences_looked_at"] == results["differences_looked_at"] == 1
    for row in results["rows"]:
        mine = rows[row["policy"]]
        assert {name: mine[name] for name in ("all", "few", "difference", "seeds")} == {
            name: row[name] for name in ("all", "few", "difference", "seeds")
        }


def test_runs_of_a_folder_are_seeds_of_their_kinds(runs: Path) -> None:
    assert write([runs]) == runs / "report.html"
    text = (runs / "report.html").read_text()
    (runs / "report.html").unlink()
    told = Page(text)
    assert "6 runs of demo" in told.text and "(3 seeds, 95 % intervals)" in told.text
    assert any(one.startswith("validation accuracy, at the end: level") for one in told.charts)
    assert '"low"' in text and "none-ce-seed2" in told.text


def test_one_kind_of_run_has_no_difference(runs: Path) -> None:
    told = Page(page([runs / "level-ce-seed0", runs / "level-ce-seed1"]))
    assert "There is no difference to tell" in told.text and not any("Differences" in one for one in told.charts)
    assert "Differences are paired" not in told.text


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "epochs"), [(100, 200), (300, 9)])
def test_a_large_run_stays_small_on_the_page(tmp_path: Path, classes: int, epochs: int) -> None:
    folder = large_run(tmp_path / "run", classes, epochs)
    text = page([folder])
    told = Page(text)
    assert len(text.encode()) < 2e6
    assert f"Bars: test accuracy of {classes} classes" in str(told.charts) and "<i>name</i> 7" in told.text
    assert read_run(folder, load_registry()).use is not None


def test_what_is_no_run_is_refused_in_one_sentence(runs: Path, tmp_path: Path) -> None:
    empty, begun = tmp_path / "empty", tmp_path / "begun"
    empty.mkdir()
    begun.mkdir()
    shutil.copy(runs / "none-ce-seed0" / files.RECIPE, begun)
    broken = Path(shutil.copytree(runs / "none-ce-seed0", tmp_path / "broken"))
    (broken / files.SUMMARY).write_text("{")
    wrong = [
        ([tmp_path / "nothing"], "there is no such folder"),
        ([empty], "this is the folder of no run"),
        ([begun], "no epoch of this run has ended yet"),
        ([broken], "summary.json: this file cannot be read"),
        ([runs / "none-ce-seed0", begun.parent / "broken"], "summary.json: this file cannot be read"),
        ([runs / "none-ce-seed0", runs / "none-ce-seed0", "--out", tmp_path / "r.html"], "this run is there twice"),
        ([runs / "none-ce-seed0", "--out", tmp_path / "no" / "r.html"], "the page cannot be written"),
    ]
    for words, why in wrong:
        answer = asked(*words)
        assert answer.exit_code == 2 and why in answer.stderr and answer.stderr.count("\n") == 1, answer.output
        assert "Traceback" not in answer.output and not answer.stdout


def test_the_verb_says_where_the_page_is(runs: Path, tmp_path: Path) -> None:
    done = asked(runs / "none-ce-seed0", "--out", tmp_path / "r.html", "--json")
    assert json.loads(done.stdout) == {"page": str(tmp_path / "r.html"), "bytes": (tmp_path / "r.html").stat().st_size}
    text = (tmp_path / "r.html").read_text()
    assert "has none, or mixes images instead" in text and not re.search(r"""(src|href)=["']?(https?:)?//""", text)


def test_a_plugin_brings_the_page_of_its_own_folders(install: Install, runs: Path, tmp_path: Path) -> None:
    code = """
    import augkit
    @augkit.hookimpl
    def augkit_report(folders):
        return (folders[0] / "album").read_text() if (folders[0] / "album").exists() else {}["none"]
    """
    install("augkit-album", code)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "album").write_text("<h1>album</h1>")
    assert write([tmp_path / "mine", runs / "none-ce-seed0"], tmp_path / "r.html").read_text() == "<h1>album</h1>"
    assert "the model is right for" in page([runs / "none-ce-seed0"])  # which no plugin is asked about
    with pytest.raises(PluginError, match=r"the report of plugin augkit-album 1\.0 cannot be made: KeyError"):
        page([tmp_path])


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


@pytest.mark.slow
def test_in_a_browser(runs: Path, tmp_path: Path, browser: Browser) -> None:
    with browser.opened(write([runs / "level-ce-seed0"], tmp_path / "run.html")) as opened:
        opened.wait_for_function("[...document.querySelectorAll('figure.chart')].every(one => one.dataset.drawn)")
        bars = opened.locator(".vega svg .mark-rect path").first
        bars.scroll_into_view_if_needed()
        bars.hover()
        opened.wait_for_selector("#vg-tooltip-element.visible")
        said = opened.locator("#vg-tooltip-element").inner_text()
        assert all(words in said for words in ("training images", "test accuracy", "class", "band"))
        opened.get_by_text("All 10 classes as a table").press("Enter")  # by the keyboard
        table = opened.locator("#table-classes")
        table.get_by_role("button", name="training images").click()
        counts = [int(text) for text in table.locator("tbody td:nth-child(3)").all_inner_texts()]
        assert counts == sorted(counts) and counts != sorted(counts, reverse=True)
        opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
        table.get_by_role("button", name="Copy table").click()
        opened.wait_for_function("document.getElementById('said').textContent.startsWith('Copied')")
        copied = opened.evaluate("navigator.clipboard.readText()").split("\n")
        assert len(copied) == 11 and copied[0].split("\t")[:3] == ["class", "band", "training images"]
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with browser.opened(write([runs.parent], tmp_path / "all.html"), dark=True, width=400) as opened:
        opened.wait_for_function("[...document.querySelectorAll('figure.chart')].every(f => f.dataset.drawn == 'dark')")
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        wide = (
            "[...document.querySelectorAll('.vega svg')].every(one => one.getBoundingClientRect().right <= innerWidth)"
        )
        assert opened.evaluate(wide)
