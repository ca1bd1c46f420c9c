"""Comparisons: the plan, the same numbers however they are trained, tables, refusals, and kills that lose nothing."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml

from augkit.cli import main
from augkit.cli.compare import parse_seeds
from augkit.errors import AugkitError, DataError, DocumentError, StateError
from augkit.lab import tables
from augkit.lab.compare import compare
from augkit.lab.grid import Cell, Grid, plan, run_one, shorten
from augkit.lab.intensity import measure
from augkit.lab.recipe import load_recipe
from augkit.lab.run import train
from augkit.registry import Registry

TINY = ("epochs=2", "data.test_share=0.8", "data.image_size=8", "data.imbalance=10")
POLICIES = ("none", "trivialaugment")
KILLS = int(os.environ.get("AUGKIT_KILLS", "8"))
"""Of a grid, at random moments."""
TIMED = {"minutes", "written", "seconds"}


def tiny(*overrides: str, policies: tuple[str, ...] = POLICIES, seeds: tuple[int, ...] = (0, 1), **more: Any) -> Grid:
    return plan("demo", policies, seeds=seeds, overrides=[*TINY, *overrides], **more)


def quietly(grid: Grid, out: Path, **more: Any) -> dict[str, Any]:
    return compare(grid, out, say=lambda line: None, **more)


def numbers(value: Any) -> Any:
    """Everything but what a clock says and where it lies."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items() if key not in TIMED | {"command", "begins_at_epoch"}}
    return [numbers(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module", autouse=True)
def forks() -> Iterator[None]:
    """Workers begin as forks, but for the test whose workers are fresh processes."""
    with processes.forked_workers():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A comparison of three policies over three seeds, trained one after another."""
    out = tmp_path_factory.mktemp("compared") / "cmp"
    grid = tiny(policies=(*POLICIES, "uniform_class_choice"), seeds=(0, 1, 2))
    return out, quietly(grid, out)


@pytest.mark.parametrize("text", ["0", "1001"])
def test_a_number_of_seeds_that_cannot_be_is_told_with_what_can(text: str) -> None:
    with pytest.raises(DocumentError, match=f"^--seeds {text}: say how many, 1 to 1000, or which, such as 0,5,7$"):
        parse_seeds(text)
    assert parse_seeds("0,5,7") == [0, 5, 7] and parse_seeds("2") == [0, 1]


def test_a_plan_is_policies_by_losses_by_seeds(registry: Registry) -> None:
    grid = tiny(policies=("none", "mixup"), losses=["ce", "balanced_softmax"], seeds=(0, 5), control="mixup")
    assert len(grid.cells) == len(set(grid.cells)) == 8 and grid.cells[-1] == Cell("mixup", "balanced_softmax", 5)
    recipe = grid.recipe_of(grid.cells[-1], registry)
    assert (recipe.policy_name, recipe.loss.name, recipe.seed, recipe.threads) == ("mixup", "balanced_softmax", 5, 1)
    assert recipe.data == load_recipe("demo", registry, TINY).data
    command = grid.command(Path("runs/it"))
    assert command.startswith("augkit compare demo --policy none,mixup --loss ce,balanced_softmax --seeds 0,5 --set ")
    assert command.endswith("--control mixup --out runs/it")


def test_options_of_the_recipes_own_loss_and_policy_are_kept(registry: Registry) -> None:
    document = {
        "augkit": 1,
        "name": "own",
        "loss": {"name": "focal", "gamma": 3},
        "policy": {"load": "uniform_class_choice", "params": {"p": 1}},
    }
    recipe: Any = document  # a mapping is a recipe too
    grid = plan(recipe, ["uniform_class_choice", "none"], ["focal", "ce"], control="none")
    made = {cell: grid.recipe_of(cell, registry) for cell in grid.cells}
    assert made[Cell("uniform_class_choice", "focal", 0)].loss.options == {"gamma": 3}
    assert made[Cell("uniform_class_choice", "ce", 0)].policy.params == {"p": 1}
    assert made[Cell("none", "ce", 0)].loss.options == made[Cell("none", "ce", 0)].policy.params == {}


def test_fast_is_a_fifth_with_its_schedule(registry: Registry) -> None:
    short = shorten(load_recipe("demo", registry))
    assert short.epochs == 10 and short.schedule.options == {"warmup_epochs": 1, "warmup_lr": 0.01}
    assert shorten(load_recipe("demo", registry, ["epochs=8"])).epochs == 5
    assert shorten(load_recipe("demo", registry, ["epochs=3"])).epochs == 3
    told = ["epochs=200", "schedule={name: multistep, options: {decay_milestones: [100, 150]}}"]
    told.append("stages=[train, {name: retrain_head, epochs: 30, schedule: {name: step, options: {decay_epochs: 10}}}]")
    recipe = shorten(load_recipe("demo", registry, told))
    assert recipe.schedule.options["decay_milestones"] == [20, 30]
    assert recipe.stage_epochs == (40, 6) and recipe.stages[1].schedule.options == {"decay_epochs": 2}
    assert plan("demo", ["none"], fast=True).shortened == "10 of 50 epochs"
    every = [
        shorten(load_recipe("demo", registry, [f"subset={{name: random, share: 0.3, every: {every}}}"])).subset
        for every in (20, 1)
    ]
    assert [part.every for part in every if part is not None] == [4, 1]


def recorded(path: Path) -> dict[str, Any]:
    return {k: v for k, v in numbers(json.loads(path.read_text())).items() if not k.startswith("seconds")}


def same_run(mine: Path, other: Path) -> None:
    for name in ("summary.json", "operators.json", "environment.json"):
        assert recorded(mine / name) == recorded(other / name)
    assert (mine / "per_class.csv").read_bytes() == (other / "per_class.csv").read_bytes()


def test_a_run_of_a_grid_gives_the_numbers_of_one_alone(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = finished
    cell = Cell("trivialaugment", "ce", 1)
    alone = train("demo", [*TINY, f"policy={cell.policy}", f"seed={cell.seed}"], tmp_path / cell.name)
    same_run(alone, out / "runs" / cell.name)


@pytest.mark.slow
def test_several_at_once_give_the_numbers_of_one_after_another(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fresh processes, whose sets and dictionaries are in another order."""
    monkeypatch.setattr("augkit.lab.worker.subprocess", subprocess)
    out, _ = finished
    grid = tiny()
    quietly(grid, tmp_path / "cmp", jobs=2)
    for cell in grid.cells:
        same_run(tmp_path / "cmp" / "runs" / cell.name, out / "runs" / cell.name)


def test_a_finished_comparison_is_read_not_repeated(finished: tuple[Path, dict[str, Any]]) -> None:
    out, results = finished
    trained = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    said: list[str] = []
    again = compare(tiny(policies=(*POLICIES, "uniform_class_choice"), seeds=(0, 1, 2)), out, say=said.append)
    assert again == results == json.loads((out / "results.json").read_text())
    assert said == ["9 runs of demo: 3 policies x 1 loss x 3 seeds, 2 epochs each; 9 are finished"]
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == trained


def test_tables_tell_what_the_runs_say(finished: tuple[Path, dict[str, Any]]) -> None:
    out, results = finished
    assert [row["policy"] for row in results["rows"]] == [*POLICIES, "uniform_class_choice"]
    row = results["rows"][1]
    tests = [
        json.loads((out / f"runs/trivialaugment-ce-seed{seed}/summary.json").read_text())["test"] for seed in range(3)
    ]
    assert row["all"]["mean"] == pytest.approx(100 * sum(test["all"] for test in tests) / 3)
    assert row["many"] is None and row["few"]["seeds"] == 3  # the largest class has 30 images
    assert results["rows"][0]["difference"] is None and results["differences_looked_at"] == 2
    assert all(row["difference"]["p"] <= row["difference"]["p_holm"] <= 1 for row in results["rows"][1:])
    with (out / "table.csv").open() as file:
        sheet = list(csv.DictReader(file))
    assert float(sheet[1]["difference_low"]) == row["difference"]["low"] and sheet[1]["many_mean"] == ""
    page = (out / "table.md").read_text()
    assert "| absent |" in page and "Differences looked at: 2" in page and results["subset_sha256"] in page
    assert f"| {row['difference']['verdict']} |" in page
    assert "uniform_class_choice" in page and "torch " in page and "augkit compare demo --policy none," in page
    assert (out / "differences.png").stat().st_size > 5000
    assert results["policies"].keys() == {*POLICIES, "uniform_class_choice"}
    assert not list(out.rglob("*.part"))


def test_intensity_is_what_happened(finished: tuple[Path, dict[str, Any]], tmp_path: Path, registry: Registry) -> None:
    _, results = finished
    none, trivial, uniform = (row["intensity"] for row in results["rows"])
    assert none["all"] == {"operators": 0, "strength": None, "changed": 0} and none["many"] is None
    assert all(trivial[group]["operators"] == 1 for group in ("all", "medium", "few"))
    assert 0.4 < trivial["all"]["strength"] < 0.6 and 0.1 < trivial["all"]["changed"] < 0.9
    assert uniform["all"]["operators"] == pytest.approx(0.5, abs=0.05)
    document = tmp_path / "inverted.yaml"
    document.write_text("augkit: 1\nname: inverted\npipeline: [{invert: {p: 'class_count[y] < 20'}}]\n")
    found = measure(train("demo", [*TINY, "epochs=1", f"policy={document}"], tmp_path / "run"), registry)
    assert found["medium"] == {"operators": 0, "strength": None, "changed": 0}
    assert found["few"] == {"operators": 1, "strength": None, "changed": 1}


SAYS = {
    "unknown policy": (["--policy", "none,trivialaugmnt"], 'Did you mean "trivialaugment"?'),
    "unknown loss": (["--policy", "none", "--loss", "balanced_softmx"], 'Did you mean "balanced_softmax"?'),
    "no seeds": (["--policy", "none", "--seeds", "0"], "--seeds 0: say how many, 1 to 1000"),
    "seeds in words": (["--policy", "none", "--seeds", "three"], 'not "three"'),
    "seeds twice": (["--policy", "none", "--seeds", "1,1"], "different whole numbers"),
    "no control": (["--policy", "trivialaugment"], 'the control "none" is not among the policies'),
    "policy set": (["--policy", "none", "--set", "policy=mixup"], "takes --policy, --loss and --seeds instead"),
    "loss without views": (["--policy", "none", "--loss", "jsd"], "compares views"),
    "no data": (["--policy", "none", "--set", "data.source=nowhere.npz"], "nowhere.npz"),
    "elsewhere": (["--policy", "none", "--on", "moon"], 'not on "moon"'),
    "in the way": (["--policy", "none", "--out", "full"], "full: this folder holds something else"),
}


def call(*words: str) -> int:
    """The status that the command line ends with in this process."""
    told = [word for part in TINY for word in ("--set", part)]
    with pytest.raises(SystemExit) as ended:
        main(["compare", "demo", *told, *words])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("case", SAYS)
def test_a_mistake_is_one_sentence_and_status_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    arguments, says = SAYS[case]
    assert call(*arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and said.startswith("error: ") and says in said
    assert not (tmp_path / "runs").exists()


def test_another_comparison_is_not_written_over_this_one(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = finished
    three = (*POLICIES, "uniform_class_choice")
    for grid, says in (
        (tiny(policies=three, seeds=(0, 1)), "begun with seeds: 0, 1, 2, not 0, 1;"),
        (
            tiny(policies=POLICIES, seeds=(0, 1, 2)),
            r"begun with policies\.uniform_class_choice: uniform_class_choice, ",
        ),
        (tiny("batch_size=16", policies=three, seeds=(0, 1, 2)), "begun with batch_size: 32, not 16;"),
        (plan("imagefolder", three), "begun with name: demo, not imagefolder;"),
        (tiny(policies=three, seeds=(0, 1, 2), control="trivialaugment"), "begun with control: none, "),
    ):
        with pytest.raises(StateError, match=says):
            quietly(grid, out)
    with pytest.raises(DataError, match="taken by a file"):
        quietly(tiny(), out / "table.md")


@pytest.mark.slow
def test_a_changed_policy_document_is_refused(tmp_path: Path) -> None:
    document, out = tmp_path / "mine.yaml", tmp_path / "cmp"
    document.write_text("augkit: 1\nname: mine\npipeline: [{invert: {p: 0.5}}]\n")
    policies = ("none", str(document))
    quietly(tiny("epochs=1", policies=policies, seeds=(0,)), out)
    document.write_text("augkit: 1\nname: mine\npipeline: [{invert: {p: 0.6}}]\n")
    with pytest.raises(StateError, match=r"begun with documents\.mine: "):
        quietly(tiny("epochs=1", policies=policies, seeds=(0,)), out)
    other = tmp_path / "elsewhere" / "mine.yaml"
    other.parent.mkdir()
    other.write_text(document.read_text())
    with pytest.raises(DocumentError, match='two policies are called "mine"'):
        tiny(policies=(*policies, str(other)))


@pytest.mark.slow
def test_a_failed_run_is_named_and_repeated_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of four runs find their place taken; the rest is compared, and --retry trains them when it is free."""
    out = tmp_path / "cmp"
    taken = [out / "runs" / f"trivialaugment-ce-seed{seed}" / "thesis.txt" for seed in (0, 1)]
    for file in taken:
        file.parent.mkdir(parents=True)
        file.touch()
    (out / "grid.json").write_text(json.dumps(asdict(tiny())))
    words = ["--policy", "none,trivialaugment", "--seeds", "2", "--out", str(out)]
    for _ in range(2):
        assert call(*words) == 1
        said = capsys.readouterr()
        assert f"\nFailed: trivialaugment-ce-seed1: {taken[1].parent}: this is no run folder" in said.out
        assert re.search(r"^trivialaugment  ce    failed ", said.out, re.MULTILINE)
    assert said.err.splitlines() == [
        "4 runs of demo: 2 policies x 1 loss x 2 seeds, 2 epochs each; 2 are finished, 2 failed; --retry repeats them",
        f"a page about it: augkit report {out}",
    ]
    for file in taken:
        file.unlink()
    assert call(*words, "--retry", "--json") == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.err.splitlines()[1:]] == ["3/4", "4/4"]
    results = json.loads(said.out)
    assert results == json.loads((out / "results.json").read_text()) and results["failed"] == {}
    assert results["rows"][1]["difference"]["verdict"] == "too few seeds to tell from none"
    assert results["rows"][1]["difference"]["low"] is None and results["differences_looked_at"] == 0
    assert "no confidence intervals" in " ".join(tables.notes(results))


def start(out: Path, *words: str) -> processes.Command:
    told = [word for part in TINY for word in ("--set", part)]
    given = ["compare", "demo", "--policy", ",".join(POLICIES), "--seeds", "2", *told, "--out", str(out), *words]
    logs = Path(tempfile.mkdtemp(dir=out.parent))
    return processes.Command(given, out.parent, os.environ, logs, forks=True)


@pytest.mark.slow
def test_one_process_in_a_folder(tmp_path: Path, server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from augkit.lab import folder

    out = tmp_path / "cmp"
    first = start(out)
    try:
        deadline = time.monotonic() + 60
        while not (out / "grid.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        monkeypatch.setattr(folder, "_PATIENCE", 0.1)
        with pytest.raises(StateError, match="another process is at work in this folder"):
            quietly(tiny(), out)
        place = out / "runs" / "none-ce-seed0"
        while not (place / "recipe.yaml").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        recipe = yaml.safe_load((place / "recipe.yaml").read_text())
        with pytest.raises(AugkitError, match="another process is at work in this folder"):
            run_one(recipe, str(place))
    finally:
        first.process.kill()
        first.process.join()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path: Path, server: None) -> None:
    out = tmp_path / "cmp"
    running = start(out)
    deadline = time.monotonic() + 60
    while not (out / "runs" / "none-ce-seed0" / "recipe.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(running.process.pid or 0, signal.SIGINT)
    ended = running.end(120)
    assert ended.returncode == 130 and "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: interrupted; the same command goes on: augkit compare demo --policy none,")


def progress(out: Path) -> set[tuple[str, int]]:
    """What is written of the runs, and when."""
    return {(str(path), path.stat().st_mtime_ns) for path in out.glob("runs/*/metrics.jsonl")}


def kill_at_random(places: list[Path], kills: int, longest: float, *told: str) -> None:
    """Kill a grid again and again, now at any moment from its start, now at one while it trains.

    It is the last of `places`; when it ends before it is killed, another one is begun and added.
    """
    moments, killed = random.Random(kills), 0
    while killed < kills:
        out = places[-1]
        before, running = progress(out), start(out, "--jobs", "2", *told)
        if killed % 3:
            while progress(out) == before and running.process.is_alive():
                time.sleep(0.01)
        running.process.join(moments.uniform(0.0, 0.3 if killed % 3 else longest))
        running.process.kill()
        ended = running.end()
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        killed += ended.returncode != 0
        if ended.returncode == 0:
            places.append(out.with_name(f"killed-{len(places)}"))


def let_end(out: Path, *told: str) -> None:
    ended = start(out, "--jobs", "2", *told).end(300)
    assert ended.returncode == 0, ended.stderr


def same_as_undisturbed(out: Path, undisturbed: Path) -> None:
    mine, expected = (json.loads((place / "results.json").read_text()) for place in (out, undisturbed))
    assert len(mine["runs"]) == 4 and numbers(mine) == numbers(expected)
    for run in sorted((undisturbed / "runs").iterdir()):
        again = out / "runs" / run.name
        for name in ("per_class.csv", "operators.json", "intensity.json", "recipe.yaml"):
            assert (again / name).read_bytes() == (run / name).read_bytes(), f"{run.name}/{name}"
        epochs = [
            [{k: v for k, v in json.loads(line).items() if not k.startswith("seconds")} for line in lines]
            for lines in ((place / "metrics.jsonl").read_text().splitlines() for place in (again, run))
        ]
        assert epochs[0] == epochs[1]
    assert not list(out.rglob("*.part"))


@pytest.mark.slow(30)
@pytest.mark.timeout(1800)
def test_kills_lose_nothing_and_change_no_number(tmp_path: Path, server: None) -> None:
    longer, began = f"epochs={max(12, KILLS)}", time.monotonic()
    let_end(tmp_path / "undisturbed", "--set", longer)
    took = time.monotonic() - began
    places = [tmp_path / "killed-0"]
    kill_at_random(places, KILLS, took, "--set", longer)
    let_end(places[-1], "--set", longer)
    for place in places:
        same_as_undisturbed(place, tmp_path / "undisturbed")
