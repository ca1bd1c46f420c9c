"""A comparison grows by policies, losses and seeds: what is finished stays, and no number is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from augkit.cli import main
from augkit.errors import StateError
from augkit.lab.compare import compare
from augkit.lab.grid import Grid, plan, settle, settled, try_out
from augkit.registry import Registry

TINY = ["epochs=1", "data.test_share=0.8", "data.image_size=8", "data.imbalance=10"]
TIMED = {"minutes", "written", "seconds", "command", "begins_at_epoch"}


def tiny(*policies: str, losses: tuple[str, ...] = (), seeds: tuple[int, ...] = (0,), **more: Any) -> Grid:
    return plan("demo", policies, losses, seeds, overrides=[*TINY, *more.pop("overrides", [])], **more)


def numbers(value: Any) -> Any:
    """Everything but what a clock says and where it lies."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items() if key not in TIMED}
    return [numbers(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow(15)
def test_a_grown_comparison_is_the_one_that_was_made_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    compare(tiny("none"), grown, say=lambda line: None)
    there = {path: path.stat().st_mtime_ns for path in (grown / "runs").rglob("*") if path.is_file()}
    told = [word for part in TINY for word in ("--set", part)]
    words = ["compare", "demo", "--policy", "trivialaugment,none", "--seeds", "2", "--jobs", "2", "--out", str(grown)]
    with pytest.raises(SystemExit) as ended:
        main([*words, *told])
    assert not ended.value.code
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("; 1 are finished") and len(said) == 1 + (4 - 1) + 1
    assert said[-1] == f"a page about it: augkit report {grown}"
    assert {path: path.stat().st_mtime_ns for path in there} == there
    again = compare(tiny("trivialaugment", "none", seeds=(0, 1)), whole, jobs=2, say=lambda line: None)
    assert numbers(json.loads((grown / "results.json").read_text())) == numbers(again)
    assert len(again["runs"]) == 4 and json.loads((grown / "grid.json").read_text())["seeds"] == [0, 1]
    with pytest.raises(StateError, match="begun with seeds: 0, 1, not 0;"):
        compare(tiny("trivialaugment", "none"), grown, say=lambda line: None)


def test_more_is_taken_and_fewer_or_other_refused(tmp_path: Path) -> None:
    first = tiny("none", "trivialaugment", losses=("ce", "focal"), seeds=(0, 1))
    settle(first, tmp_path)
    assert settled(first, tmp_path) and not settled(first, tmp_path / "elsewhere")
    for grid in (
        tiny("none", "mixup", "trivialaugment", losses=("ce", "focal"), seeds=(0, 1)),
        tiny("none", "trivialaugment", losses=("focal", "ce", "balanced_softmax"), seeds=(0, 1)),
        tiny("none", "trivialaugment", losses=("ce", "focal"), seeds=(5, 1, 0)),
        tiny("none", "trivialaugment", "mixup", losses=("ce", "focal", "ce_drw"), seeds=(0, 1, 2)),
    ):
        assert not settled(grid, tmp_path)
    for grid, says in (
        (
            tiny("none", "mixup", losses=("ce", "focal"), seeds=(0, 1, 2)),
            r"policies\.trivialaugment: trivialaugment, not",
        ),
        (tiny("none", "trivialaugment", losses=("ce",), seeds=(0, 1, 2)), "losses: ce, focal, not ce; call"),
        (tiny("none", "trivialaugment", losses=("ce", "focal"), seeds=(0, 2)), "seeds: 0, 1, not 0, 2; call"),
        (
            tiny("none", "trivialaugment", losses=("ce", "focal"), seeds=(0, 1, 2), overrides=["epochs=2"]),
            "epochs: 1, not 2; call",
        ),
    ):
        with pytest.raises(StateError, match=f"begun with {says}"):
            settled(grid, tmp_path)
    settle(tiny("none", "trivialaugment", losses=("ce", "focal"), seeds=(0, 1, 2)), tmp_path)
    with pytest.raises(StateError, match="seeds: 0, 1, 2, not 0, 1; call"):
        settled(first, tmp_path)


def test_a_recipe_that_leaves_the_test_set_unread_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--set", "test=false", "--set", "data.validation_per_class=2", "--out", str(tmp_path / "cmp")]
    with pytest.raises(SystemExit) as ended:
        main(["compare", "demo", "--policy", "none,mixup", *told])
    assert ended.value.code == 2 and not (tmp_path / "cmp").exists()
    assert capsys.readouterr().err == "error: test: a comparison is of test accuracies: leave test at true\n"


def test_a_policy_that_has_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "mine.yaml"
    (tmp_path / "cmp").mkdir()
    document.write_text("augkit: 1\nname: mine\npipeline: [{invert: {p: 0.5}}]\n")
    settle(tiny("none", str(document)), tmp_path / "cmp")
    document.write_text("augkit: 1\nname: mine\npipeline: [{invert: {p: 0.6}}]\n")
    with pytest.raises(StateError, match=r"begun with documents\.mine: "):
        settled(tiny("none", str(document), "mixup", seeds=(0, 1)), tmp_path / "cmp")


def test_data_that_have_changed_meanwhile_are_refused_before_anything_is_trained(
    registry: Registry, tmp_path: Path
) -> None:
    settle(tiny("none"), tmp_path)
    run = tmp_path / "runs" / "none-ce-seed0"
    run.mkdir(parents=True)
    (run / "environment.json").write_text(json.dumps({"subset_sha256": "of other images"}))
    with pytest.raises(StateError, match=r"begun with other data.*differing: subset_sha256"):
        compare(tiny("none", seeds=(0, 1)), tmp_path, say=lambda line: None, registry=registry)
    (run / "environment.json").unlink()
    try_out(tiny("none", seeds=(0, 1)), tmp_path, registry)
