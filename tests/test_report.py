"""Reports: what they tell of real run folders, that they tell nothing else, and what they refuse."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from fixtures import Install
from report_parts import Page, large_run
from run_parts import QUICK
from typer.testing import CliRunner, Result

from augkit.cli.app import build
from augkit.errors import PluginError
from augkit.lab import folder as files
from augkit.lab import run_files
from augkit.lab.compare import compare
from augkit.lab.grid import plan
from augkit.lab.reports import page, write
from augkit.lab.run_facts import read_run
from augkit.lab.several import several
from augkit.plugins import load_registry
from augkit.report import comparison_page

pytestmark = pytest.mark.slow  # all of them stand on a comparison that was really trained

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


def test_a_damaged_or_foreign_checkpoint_is_as_good_as_none(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "level-ce-seed0", tmp_path / "run"))
    (folder / files.CHECKPOINT).write_bytes((folder / files.CHECKPOINT).read_bytes()[:500])
    told = Page(page([folder]))
    assert "The checkpoint of this run cannot be read, so what the policy learned is not told by epoch." in told.text
    assert any(one.startswith("Operators an image") for one in told.charts) and "train anew" not in told.text
    files.save_checkpoint(folder, {"policy": {"history": [{"epoch": 0}], "memory": {"values": {}}}})
    assert "The checkpoint of this run is of another version of augkit, so what" in Page(page([folder])).text


def test_a_checkpoint_that_counts_in_other_columns_is_told(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "level-ce-seed0", tmp_path / "run"))
    checkpoint = files.load_checkpoint(folder, "policy") or {}
    for epoch in checkpoint["policy"]["history"]:
        epoch |= {name: epoch[name][:, 1:] for name in ("used", "strength_used")}
    files.save_checkpoint(folder, checkpoint)
    told = Page(page([folder]))
    assert "The checkpoint is of another version of augkit, so strengths are not told by epoch." in told.text
    assert any(one.startswith("Operators an image") for one in told.charts)  # as operators.json has them


def test_what_an_incomplete_folder_lacks_is_told_on_its_page(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "level-ce-seed0", tmp_path / "run"))
    (folder / files.CHECKPOINT).unlink()
    use = json.loads((folder / files.OPERATORS).read_text())
    files.write_json(folder / files.OPERATORS, {name: use[name] for name in ("operators", "used", "seen")})
    told = Page(page([folder])).text
    assert "operators.json says nothing of strength_used, so what the policy did is not told" in told
    (folder / files.PER_CLASS).unlink()
    bare = Page(page([folder]))
    assert "There is no per_class.csv in this folder, so accuracy is not told by class." in bare.text
    assert "of the test images (mean over" in bare.text and not any(one.startswith("Bars") for one in bare.charts)
    (folder / files.ENVIRONMENT).unlink()
    assert "so nothing is told by class" in Page(page([folder])).text


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (files.SUMMARY, {"test": 1, "reported": ""}, "test holds no object"),
        (files.SUMMARY, {"val": {}}, "it says nothing of 'test'"),
        (files.SUMMARY, [], "it holds no object"),
        (files.OPERATORS, {"operators": ["a"], "used": [[[1]]], "seen": [[1]], "strength_used": [[1]]}, "10 classes"),
        ("intensity.json", {"all": {"operators": 1}}, "it says nothing of 'strength'"),
        (files.ENVIRONMENT, 3, "it holds no object"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    name: str, content: Any, why: str, runs: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(runs / "level-ce-seed0", tmp_path / "run"))
    (folder / files.CHECKPOINT).unlink()
    files.write_json(folder / name, content)
    answer = asked(folder, "--out", tmp_path / "r.html")
    assert answer.exit_code == 2 and answer.stderr.count("\n") == 1 and not (tmp_path / "r.html").exists()
    assert f"{name}: this file cannot be read" in answer.stderr and why in answer.stderr


def test_accuracies_after_stages_are_told_where_there_are_any(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "none-ce-seed0", tmp_path / "run"))
    summary = json.loads((folder / files.SUMMARY).read_text())
    stages = [{"stage": name, "epochs": 1, "images": 9, "test": None} for name in ("train", "rest")]
    files.write_json(folder / files.SUMMARY, summary | {"stages": stages})
    told = page([folder])
    assert "The stages." in told and "after each stage" not in told
    stages[1] = stages[1] | {"test": summary["test"]}
    files.write_json(folder / files.SUMMARY, summary | {"stages": stages})
    assert "Accuracy on test images after each stage" in page([folder])


def test_a_class_in_a_group_is_named_as_one(runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(runs / "none-ce-seed0", tmp_path / "run"))
    summary = json.loads((folder / files.SUMMARY).read_text())
    by_group: dict[str, Any] = dict.fromkeys((*run_files.FAIR, *run_files.DIFFERENCES), 0.5)
    by_group |= {"worst_cell_is": ["0", "1"], "worst_group_is": "1"}
    files.write_json(folder / files.SUMMARY, summary | {"groups": by_group})
    told = Page(page([folder])).text
    assert "50.0 % (class 0 in group 1)" in told and "50.0 % (group 1)" in told
    del by_group["ed_max"]
    files.write_json(folder / files.SUMMARY, summary | {"groups": by_group})
    assert "it says nothing of 'groups.ed_max'" in asked(folder).stderr


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
    assert "(3 seeds, 95 % intervals)." in told.text  # what the sentence says of figures: test_report_comparison.py
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


def test_runs_of_two_strategies_with_one_name_are_two_rows(runs: Path, tmp_path: Path) -> None:
    """Each has a name, a difference and a place among the strategies; the control is the first, which is said."""
    other = tmp_path / "level.yaml"
    other.write_text(DOCUMENT.replace("count: 2", "count: 1"))
    for seed in range(3):
        folder = Path(shutil.copytree(runs / f"level-ce-seed{seed}", tmp_path / f"other-{seed}"))
        recipe = folder / files.RECIPE
        recipe.write_text(recipe.read_text().replace(str(runs.parent.parent / "level.yaml"), str(other)))
    found = several([*sorted(runs.glob("level-*")), *sorted(tmp_path.glob("other-*"))], load_registry())
    first, second = (row["name"] for row in found.results["rows"])
    assert (
        first != second and found.results["control"] == first and [one.name for one in found.series] == [first, second]
    )
    assert [row["difference"] is None for row in found.results["rows"]] == [True, False]
    assert found.warnings == [f"level is here with several settings: differences are to {first}, the first of them."]
    assert [line["row"] for line in found.lines] == [first, second]
    assert list(comparison_page.strategies(found.series)) == [first, second]
    assert f"told from {first}: {second} (3 seeds" in Page(comparison_page.page(found)).text


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
    empty, begun, folder = tmp_path / "empty", tmp_path / "begun", tmp_path / "folder.html"
    for made in (empty, begun, folder):
        made.mkdir()
    shutil.copy(runs / "none-ce-seed0" / files.RECIPE, begun)
    broken = Path(shutil.copytree(runs / "none-ce-seed0", tmp_path / "broken"))
    (broken / files.SUMMARY).write_text("{")
    wrong: list[tuple[list[str | Path], str]] = [
        ([tmp_path / "nothing"], "there is no such folder"),
        ([empty], "this is the folder of no run"),
        ([begun], "no epoch of this run has ended yet"),
        ([broken], "summary.json: this file cannot be read"),
        ([runs / "none-ce-seed0", begun.parent / "broken"], "summary.json: this file cannot be read"),
        ([runs / "none-ce-seed0", runs / "none-ce-seed0", "--out", tmp_path / "r.html"], "this run is there twice"),
        ([runs / "none-ce-seed0", "--out", begun / files.RECIPE / "r.html"], "r.html: it cannot be written"),
        ([runs / "none-ce-seed0", "--out", folder], "it cannot be written (is a directory); choose another place"),
        ([runs / "none-ce-seed0", "--out", empty], "give --out a name that ends in .html"),
        ([runs / "none-ce-seed0", "--out", tmp_path / "x.png"], "give --out a name that ends in .html"),
    ]
    for words, why in wrong:
        answer = asked(*words)
        assert answer.exit_code == 2 and why in answer.stderr and answer.stderr.count("\n") == 1, answer.output
        assert "Traceback" not in answer.output and not answer.stdout
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "x.png").exists()


def test_the_verb_says_where_the_page_is(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "a" / "new" / "r.html"
    done = asked(runs / "none-ce-seed0", "--out", path, "--json")
    assert json.loads(done.stdout) == {"page": str(path), "bytes": path.stat().st_size}
    text = path.read_text()
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
