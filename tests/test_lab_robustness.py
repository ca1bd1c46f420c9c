"""Finished runs on corrupted test images: what is measured, what is noted, what may be said of it."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_parts import write_npz
from typer.testing import CliRunner

from augkit.cli.app import build
from augkit.errors import AugkitError, DataError, StateError
from augkit.lab import robustness
from augkit.lab import robustness_tables as tables
from augkit.lab.readers import Arrays
from augkit.lab.recipe import read_recipe
from augkit.lab.robustness import CORRUPTIONS, SEVERITIES, find, measure
from augkit.lab.run import train
from augkit.policy import Policy
from augkit.registry import Registry
from augkit.strategy.document import load_strategy

TOLD = ("epochs=3", "threads=1", "model=resnet8_cifar", "data.image_size=16", "data.imbalance=null", "batch_size=16")
PUBLISHED = {"brighten": "brightness", "elastic": "elastic_transform", "jpeg": "jpeg_compression"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies, on images of three shades that a net of three epochs can begin to tell."""
    root = tmp_path_factory.mktemp("robustness")
    random, labels = np.random.RandomState(0), np.arange(90) % 3
    images = (labels[:, None, None, None] * 80 + random.randint(0, 60, (90, 16, 16, 3))).astype(np.uint8)
    npz = root / "shades.npz"
    np.savez(npz, train_images=images[:60], train_labels=labels[:60], test_images=images[60:], test_labels=labels[60:])
    for policy in ("none", "trivialaugment"):
        train("demo", [*TOLD, f"data.source={npz}", f"policy={policy}"], root / "runs" / policy)
    return root / "runs"


@pytest.fixture
def fresh(runs: Path, tmp_path: Path) -> Path:
    """The same runs with nothing measured."""
    shutil.copytree(runs, tmp_path / "runs", ignore=shutil.ignore_patterns("robustness*"))
    return tmp_path / "runs"


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were no more than three corruptions, for speed."""
    for module in (robustness, tables):
        monkeypatch.setattr(module, "CORRUPTIONS", CORRUPTIONS[:3])


def note(folder: Path) -> Any:
    return json.loads((folder / "robustness.json").read_text())


def test_names_are_those_of_the_strategys_branches(registry: Registry) -> None:
    document = load_strategy("imagenet_c", registry).document["pipeline"][0]["one_of"]
    operators = [next(iter(branch["steps"][0])) for branch in document]
    assert tuple(PUBLISHED.get(name, name) for name in operators) == CORRUPTIONS
    assert len(set(CORRUPTIONS) | set(robustness.MISSING)) == 15


def test_what_is_measured_is_what_the_model_answers(fresh: Path) -> None:
    folder = fresh / "none"
    (record,) = measure([folder])
    assert record == note(folder) and list(record["errors"]) == list(CORRUPTIONS)
    summary = json.loads((folder / "summary.json").read_text())
    assert record["clean"] == pytest.approx(1 - summary["test"]["all"]) and record["clean"] < 0.5
    subject = next(robustness._open([folder], robustness.default_registry()))
    test, run = subject.run.data.test, subject.run
    assert test.held is not None
    for name, severity in (("contrast", 5), ("gaussian_noise", 2)):
        policy = Policy.load("imagenet_c", seed=0, severity=severity, only=CORRUPTIONS.index(name))
        images, _ = policy(test.held, test.labels, index=torch.arange(len(test)))
        with torch.no_grad():
            answers = run.model(run.layout(run.normalise(images))).argmax(1)
        wrong = float((answers != test.labels).double().mean())
        assert record["errors"][name][severity - 1] == pytest.approx(wrong)
    values = [value for errors in record["errors"].values() for value in errors]
    assert record["mean_corruption_error"] == pytest.approx(sum(values) / 70) and max(values) > record["clean"]


@pytest.mark.slow
def test_a_stopped_call_goes_on_and_runs_share_their_images(
    fresh: Path, three: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = find([fresh])
    assert [folder.name for folder in folders] == ["none", "trivialaugment"]

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(folders, say=stop)
    assert all(list(note(folder)["errors"]) == ["gaussian_noise"] for folder in folders)
    loaded: list[int] = []
    original = Policy.load
    monkeypatch.setattr(Policy, "load", lambda *a, **k: (loaded.append(k["only"]), original(*a, **k))[1])
    records = measure(folders)
    assert loaded == [number for number in (1, 2) for _ in SEVERITIES]
    alone = measure([shutil.copytree(folders[1], fresh.parent / "alone", ignore=shutil.ignore_patterns("robust*"))])
    assert alone[0] == records[1]
    loaded.clear()
    assert measure(folders) == records and not loaded
    changed = note(folders[0]) | {"checkpoint_sha256": "another"}
    (folders[0] / "robustness.json").write_text(json.dumps(changed))
    (folders[1] / "robustness.json").write_text("{")
    assert measure(folders) == records and len(loaded) == 15


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["a file", "no room for a file"])
def test_images_too_many_to_hold_are_read_once(
    fresh: Path, three: None, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    folder, read = fresh / "none", Counter[int]()
    original = Arrays.read
    monkeypatch.setattr(Arrays, "read", lambda self, i: (read.update([i]), original(self, i))[1])
    if full:
        monkeypatch.setattr(robustness, "SPARE", 2**60)
    before = sorted(path.name for path in folder.iterdir())
    (mapped,) = measure([folder], memory=0)
    assert len(read) == 30 and set(read.values()) == {1 + 3 * 5 if full else 1}
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "robustness.json"])
    (folder / "robustness.json").unlink()
    assert measure([folder]) == [mapped]


def test_wrong_combinations_are_told_before_anything_is_measured(fresh: Path, tmp_path: Path) -> None:
    def refused(*told: object) -> str:
        done = CliRunner().invoke(build(), ["robustness", *map(str, told)])
        assert done.exit_code == 2 and "mean error" not in done.stderr
        assert not list(fresh.rglob("robustness.json")) and not list(tmp_path.rglob("robustness.json"))
        return done.stderr

    twin = shutil.copytree(fresh / "none", tmp_path / "twin")
    assert "seed 0 is there twice" in refused(fresh / "none", twin)
    both = ("--against", fresh / "none", "--against", fresh / "trivialaugment")
    assert "runs of several recipes" in refused(fresh, *both)
    recipe = read_recipe(fresh / "none" / "recipe.yaml")
    with np.load(recipe.data.source) as arrays:
        fewer = {name: values[:-3] if name.startswith("test") else values for name, values in arrays.items()}
    np.savez(tmp_path / "fewer.npz", **fewer)
    other = train("demo", [*TOLD, f"data.source={tmp_path / 'fewer.npz'}", "policy=none"], tmp_path / "other")
    assert "on different test images cannot be compared" in refused(fresh / "trivialaugment", "--against", other)


@pytest.mark.slow
def test_a_run_is_asked_when_its_teacher_is_gone(fresh: Path, three: None, tmp_path: Path) -> None:
    folder = shutil.copytree(fresh / "none", tmp_path / "teacher")
    loss = f"{{name: ride, base: ce, diversity_factor: 0, teacher: {folder}}}"
    source = f"data.source={read_recipe(folder / 'recipe.yaml').data.source}"
    stages = f"stages=[train, {{train: {{epochs: 1, loss: {loss}}}}}]"
    run = train("demo", [*TOLD, "epochs=2", source, "policy=none", f"loss={loss}", stages], tmp_path / "student")
    shutil.rmtree(folder)
    assert measure([run])[0]["clean"] is not None


def test_runs_that_cannot_be_asked(fresh: Path, tmp_path: Path) -> None:
    def refused(folder: Path, kind: type[AugkitError], says: str) -> None:
        with pytest.raises(kind, match=says):
            measure(find([folder]))

    refused(tmp_path / "gone", DataError, "gone: there is no run folder here")
    folder = fresh / "none"
    whole = (folder / "checkpoint.pt").read_bytes()
    other = torch.load(folder / "checkpoint.pt", weights_only=True)
    for weight in other["model"].values():
        weight.zero_()
    torch.save(other, folder / "checkpoint.pt")
    refused(folder, StateError, "its checkpoint or its images are others now")
    torch.save(other | {"recipe": "another"}, folder / "checkpoint.pt")
    refused(folder, StateError, "the checkpoint belongs to another recipe: train the run anew")
    (folder / "checkpoint.pt").unlink()
    refused(folder, StateError, r"there is no checkpoint\.pt here: train the run anew")
    (folder / "checkpoint.pt").write_bytes(whole)
    recipe, source = (folder / "recipe.yaml").read_text(), write_npz(tmp_path / "others.npz")
    before = next(line for line in recipe.splitlines() if line.startswith("  source: "))
    (folder / "recipe.yaml").write_text(recipe.replace(before, f"  source: {source}"))
    refused(folder, StateError, "begun with other data than its source holds now")
    (folder / "recipe.yaml").write_text(recipe.replace("test: true", "test: false"))
    refused(folder, DataError, "left its test set alone")
    (folder / "summary.json").unlink()
    refused(fresh, DataError, r"none: this run is not finished")


# -- what is said of it -----------------------------------------------------------------------------------------------


def made(policy: str, seed: int, clean: float, errors: Any, **told: Any) -> dict[str, Any]:
    by_name = {name: [errors] * 5 if isinstance(errors, float) else errors[i] for i, name in enumerate(CORRUPTIONS)}
    record = {"name": "r", "policy": policy, "loss": "ce", "seed": seed, "kind_sha256": policy, "clean": clean}
    record |= {"test_sha256": "a", "pixels": 16, "images": 100, "strategy": "imagenet_c", "strategy_sha256": "b"}
    return record | {"strategy_seed": 0, "read": "the test set", "errors": by_name} | told


ERRORS = st.lists(st.lists(st.floats(0.05, 1), min_size=5, max_size=5), min_size=14, max_size=14)


@settings(deadline=None, max_examples=50)
@given(ERRORS, ERRORS, st.floats(0, 0.04))
def test_errors_are_normalised_as_published(own: Any, other: Any, clean: float) -> None:
    one, reference = made("x", 0, clean, own), made("none", 0, clean, other)
    plain, relative = tables.normalised(one, reference)
    mine, theirs = np.array(own), np.array(other)
    assert plain == pytest.approx((mine.sum(1) / theirs.sum(1)).mean())
    assert relative == pytest.approx(((mine - clean).sum(1) / (theirs - clean).sum(1)).mean())
    assert tables.normalised(reference, reference) == (pytest.approx(1), pytest.approx(1))
    assert robustness.mean_error(one) == pytest.approx(mine.mean())


def test_nothing_is_divided_by_nothing() -> None:
    perfect, other = made("none", 0, 0.2, 0.0), made("x", 0, 0.1, 0.3)
    assert tables.normalised(other, perfect) == (None, None)
    assert tables.normalised(other, made("none", 0, 0.2, 0.2)) == (pytest.approx(1.5), None)
    line = tables.lines(tables.tabulate([other], [perfect]))[1]
    assert line["mCE"] == line["relative mCE"] == "undefined"


def test_differences_are_paired_by_seed() -> None:
    reference = [made("none", seed, 0.1, 0.4 + 0.1 * seed) for seed in range(3)]
    better = [made("x", seed, 0.1, 0.3 + 0.1 * seed) for seed in range(3)]
    worse = [made("y", seed, 0.1, 0.4 + 0.2 * (seed == 1)) for seed in range(3)]
    results = tables.tabulate([*better, *worse, *reference], reference)
    first, x, y = results["rows"]
    assert (first["row"], x["row"], results["reference"]) == ("none", "x", "none")
    assert first["mce"]["mean"] == pytest.approx(100) and first["difference"] is None
    assert x["difference"]["mean"] == pytest.approx(-10) and x["difference"]["verdict"] == "10.0 below none"
    assert x["mce"]["mean"] == pytest.approx(100 * (0.3 / 0.4 + 0.4 / 0.5 + 0.5 / 0.6) / 3)
    assert "cannot be told" in y["difference"]["verdict"] and results["differences_looked_at"] == 2
    assert "frost is missing" in " ".join(tables.notes(results))
    single = tables.tabulate(better, reference[:1])["rows"][1]
    assert single["mce"]["mean"] == pytest.approx(100) and "too few seeds" in single["difference"]["verdict"]
    assert math.isnan(single["mce"]["mean"]) is False
    page = tables.markdown(results)
    assert "| gaussian_noise | 50.0 | 40.0 | 46.7 |" in page


def test_what_cannot_be_compared() -> None:
    reference = [made("none", seed, 0.1, 0.4) for seed in range(2)]
    with pytest.raises(DataError, match="test_sha256 of r x seed 0 is z, of r none seed 0 a"):
        tables.tabulate([made("x", 0, 0.1, 0.3, test_sha256="z")], reference)
    with pytest.raises(DataError, match="names no run with seed 5"):
        tables.tabulate([made("x", 5, 0.1, 0.3)], reference)
    with pytest.raises(DataError, match="runs of several recipes"):
        tables.tabulate([], [*reference, made("x", 2, 0.1, 0.3)])
    again = copy.deepcopy(reference[0]) | {"clean": 0.2}
    with pytest.raises(DataError, match="r none seed 0 is there twice"):
        tables.tabulate([again], reference)


def test_rows_are_told_apart_by_as_few_words_as_that_takes() -> None:
    records = [made("none", 0, 0.1, 0.4), made("none", 0, 0.1, 0.3, loss="ldam")]
    assert [row["row"] for row in tables.tabulate(records)["rows"]] == ["none, ce", "none, ldam"]
    records[1] |= {"loss": "ce", "kind_sha256": "other"}
    assert [row["row"] for row in tables.tabulate(records)["rows"]] == ["none, ce, r none", "none, ce, r other"]


@pytest.mark.slow
def test_the_verb(fresh: Path, three: None, tmp_path: Path) -> None:
    told = ["robustness", str(fresh.parent), "--against", str(fresh / "none")]
    done = CliRunner().invoke(build(), [*told, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (
        "trivialaugment" in done.stdout and "frost is missing" in done.stdout and "The test set is read" in done.stdout
    )
    assert "3/3  impulse_noise  mean error" in done.stderr
    for folder in (*fresh.iterdir(), tmp_path / "out"):
        assert (folder / "robustness.png").stat().st_size > 10_000 and note(folder)
    assert (
        (tmp_path / "out" / "robustness.md").read_text().startswith("# Robustness to corruptions\n\n| policy | seeds |")
    )
    again = CliRunner().invoke(build(), [*told, "--json"])
    assert json.loads(again.stdout) == note(tmp_path / "out") and "3/3" not in again.stderr
    alone = CliRunner().invoke(build(), ["robustness", str(fresh / "none")])
    assert alone.stdout.count("gaussian_noise") == 1 and "mCE" not in alone.stdout
