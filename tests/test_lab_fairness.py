"""Accuracy and fairness by group, against fairlearn and against the definitions written out."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lab_groups import write_npz

from augkit.cli import main
from augkit.lab import tables
from augkit.lab.compare import compare
from augkit.lab.fairness import GroupScores, lines
from augkit.lab.grid import plan
from augkit.lab.run import train


def scores(truth: np.ndarray, said: np.ndarray, groups: np.ndarray, classes: int, number: int) -> GroupScores:
    answers = torch.zeros(number, classes, classes, dtype=torch.int64)
    for a, y, p in zip(groups, truth, said, strict=True):
        answers[a, y, p] += 1
    return GroupScores(answers, tuple(f"c{y}" for y in range(classes)), tuple(f"g{a}" for a in range(number)))


def drawn(seed: int, classes: int, number: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    truth, groups = random.randint(0, classes, count), random.randint(0, number, count)
    said = np.where(random.rand(count) < 0.6, truth, random.randint(0, classes, count))
    return truth, said, groups


sizes = st.tuples(st.integers(0, 2**31 - 1), st.integers(2, 5), st.integers(2, 4))


def whole(truth: np.ndarray, groups: np.ndarray) -> bool:
    """Whether every class is in every group, and not alone there."""
    return all(
        0 < (truth[groups == a] == y).sum() < (groups == a).sum() for a in np.unique(groups) for y in np.unique(truth)
    )


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(sizes)
def test_differences_are_fairlearns_one_class_against_the_rest(drawing: tuple[int, int, int]) -> None:
    metrics = pytest.importorskip("fairlearn.metrics")
    truth, said, groups = drawn(*drawing, 200)
    if not whole(truth, groups):
        return
    found = scores(truth, said, groups, drawing[1], drawing[2]).summary()
    dp, eo, ed, ed_mean = [], [], [], []
    for y in range(drawing[1]):
        told: dict[str, Any] = {"y_true": truth == y, "y_pred": said == y, "sensitive_features": groups}
        dp.append(metrics.demographic_parity_difference(**told))
        eo.append(metrics.equal_opportunity_difference(**told))
        ed.append(metrics.equalized_odds_difference(**told))
        ed_mean.append(metrics.equalized_odds_difference(**told, agg="mean"))
    wanted = {"dp": (max(dp), np.mean(dp)), "eo": (max(eo), np.mean(eo)), "ed": (max(ed), np.mean(ed_mean))}
    for name, (largest, mean) in wanted.items():
        assert found[f"{name}_max"] == pytest.approx(largest, abs=1e-12)
        assert found[f"{name}_mean"] == pytest.approx(mean, abs=1e-12)


def written_out(truth: np.ndarray, said: np.ndarray, groups: np.ndarray, classes: int, number: int) -> dict[str, float]:
    """The definitions, pair of groups by pair of groups, over whatever rates there are."""

    def largest(y: int, condition: np.ndarray) -> float | None:
        rates = [
            float((said[(groups == a) & condition] == y).mean())
            for a in range(number)
            if ((groups == a) & condition).any()
        ]
        return max((abs(p - q) for p, q in itertools.combinations(rates, 2)), default=None)

    always = np.ones(len(truth), bool)
    dp = [largest(y, always) for y in range(classes)]
    eo = [largest(y, truth == y) for y in range(classes)]
    ed = eo + [largest(y, truth != y) for y in range(classes)]
    found = {}
    for name, values in (("dp", dp), ("eo", eo), ("ed", ed)):
        known = [value for value in values if value is not None]
        if known:
            found |= {f"{name}_max": max(known), f"{name}_mean": sum(known) / len(known)}
    return found


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 60))
def test_everything_by_its_definition_even_where_cells_are_empty(drawing: tuple[int, int, int], count: int) -> None:
    truth, said, groups = drawn(*drawing, count)
    _, classes, number = drawing
    found = scores(truth, said, groups, classes, number).summary()
    cells = {
        (y, a): float((said == truth)[(truth == y) & (groups == a)].mean())
        for y in range(classes)
        for a in range(number)
        if ((truth == y) & (groups == a)).any()
    }
    by_group = {a: float((said == truth)[groups == a].mean()) for a in range(number) if (groups == a).any()}
    assert found["worst_cell"] == pytest.approx(min(cells.values()))
    y, a = (int(name[1:]) for name in found["worst_cell_is"])
    assert cells[y, a] == pytest.approx(min(cells.values()))
    assert found["mean_cell"] == pytest.approx(np.mean(list(cells.values())))
    assert found["worst_group"] == pytest.approx(min(by_group.values()))
    assert by_group[int(found["worst_group_is"][1:])] == pytest.approx(found["worst_group"])
    assert found["mean_group"] == pytest.approx(np.mean(list(by_group.values())))
    assert found["by_group"] == {f"g{a}": pytest.approx(by_group[a]) if a in by_group else None for a in range(number)}
    wanted = written_out(truth, said, groups, classes, number)
    for name in ("dp_max", "dp_mean", "eo_max", "eo_mean", "ed_max", "ed_mean"):
        assert found[name] == (pytest.approx(wanted[name], abs=1e-12) if name in wanted else None)
    assert len(lines(found)) == (2 if "dp_max" in wanted else 1)


def test_a_table_by_class_and_group_holds_all_that_differences_are_made_of() -> None:
    truth, said = np.array([0, 0, 0, 1, 1, 0, 0]), np.array([0, 1, 0, 1, 0, 0, 0])
    found = scores(truth, said, np.array([0, 0, 0, 0, 0, 1, 1]), 2, 2)
    train = torch.tensor([[9, 8], [7, 0]])
    assert list(found.rows(train)) == [
        (0, "c0", 0, "g0", 9, 3, 2, pytest.approx(2 / 3), pytest.approx(3 / 5), pytest.approx(1 / 2)),
        (0, "c0", 1, "g1", 7, 2, 2, 1.0, 1.0, None),
        (1, "c1", 0, "g0", 8, 2, 1, 0.5, pytest.approx(2 / 5), pytest.approx(1 / 3)),
        (1, "c1", 1, "g1", 0, 0, 0, None, 0.0, 0.0),
    ]
    assert lines(found.summary())[0] == (
        "by group: worst class in a group 50.0% (c1 of g0)  mean of these 72.2%  worst group 60.0% (g0)  mean 80.0%"
    )


def test_answers_that_suit_every_group_alike_differ_in_nothing() -> None:
    truth = np.tile(np.arange(3), 4)
    found = scores(truth, truth, np.repeat([0, 1], 6), 3, 2).summary()
    assert [found[name] for name in ("dp_max", "eo_mean", "ed_max", "worst_cell")] == [0, 0, 0, 1]


def told_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_tells_how_it_serves_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["epochs=1", f"data.source={write_npz(tmp_path / 'a.npz')}", "data.imbalance=null", "base={}", "threads=1"]
    told += ["data.image_size=16", "stages=[train, {finetune_head: {epochs: 1}}]"]
    words = [word for override in told for word in ("--set", override)]
    with pytest.raises(SystemExit, match="0"):
        main(["train", "demo", *words, "--out", str(tmp_path / "run")])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found, rows = summary["groups"], told_of(tmp_path / "run" / "per_group.csv")
    assert sum(int(row["images"]) for row in rows) == 12 and sum(int(row["train_images"]) for row in rows) == 48
    assert sum(int(row["correct"]) for row in rows) / 12 == pytest.approx(summary["test"]["all"])
    assert found["worst_cell"] == min(float(row["accuracy"]) for row in rows if row["accuracy"])
    for kind, column in (("dp", "selection_rate"), ("eo", "accuracy")):
        by_class = [[float(row[column]) for row in rows if row["class"] == y and row[column]] for y in "012"]
        assert found[f"{kind}_max"] == pytest.approx(max(max(r) - min(r) for r in by_class if len(r) > 1))
    assert summary["stages"][-1]["groups"] == found and set(summary["stages"][0]["groups"]) == set(found)
    printed = capsys.readouterr().out
    assert all(line in printed for line in lines(found))


def test_a_run_without_groups_says_nothing_of_them(tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz", train_groups=None, test_groups=None)
    told = ["epochs=1", f"data.source={source}", "data.imbalance=null", "base={}", "data.image_size=16", "threads=1"]
    folder = train("demo", told, tmp_path / "run")
    assert "groups" not in json.loads((folder / "summary.json").read_text())
    assert not (folder / "per_group.csv").exists()


def test_groups_of_test_images_suffice(tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz", train_groups=None)
    told = ["epochs=1", f"data.source={source}", "data.imbalance=null", "base={}", "data.image_size=16", "threads=1"]
    folder = train("demo", told, tmp_path / "run")
    assert 0 <= json.loads((folder / "summary.json").read_text())["groups"]["worst_cell"] <= 1
    assert {row["train_images"] for row in told_of(folder / "per_group.csv")} == {"0"}


@pytest.mark.slow
def test_a_comparison_has_columns_for_groups_only_where_there_are_some(tmp_path: Path) -> None:
    told = ["epochs=1", f"data.source={write_npz(tmp_path / 'a.npz')}", "data.imbalance=null", "base={}"]
    grid = plan("demo", ["none"], seeds=[0, 1], overrides=[*told, "data.image_size=16"])
    results = compare(grid, tmp_path / "cmp", say=lambda line: None)
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "cmp" / "runs").glob("*/summary.json")]
    mean = 100 * sum(summary["groups"]["worst_cell"] for summary in summaries) / 2
    (line,), (row,) = told_of(tmp_path / "cmp" / "table.csv"), results["rows"]
    assert float(line["worst_cell_mean"]) == pytest.approx(mean) == row["worst_cell"]["mean"]
    assert tables.rows(results)[0]["worst class in a group"].startswith(f"{mean:.1f}")
    plain = {name: value for name, value in row.items() if name not in tables.BY_GROUP}
    assert not any("group" in column for column in tables.rows({**results, "rows": [plain]})[0])
