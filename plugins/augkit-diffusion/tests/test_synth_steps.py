"""`augkit synth steps`: stores as `make` would make them, learnt once, and figures that say what is true of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augkit_diffusion import steps_picture, telling_apart
from augkit_diffusion.distances import apart, frechet
from augkit_diffusion.fit_training import Training
from augkit_diffusion.making import ask as ask_for
from augkit_diffusion.store import Store
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from PIL import Image
from scipy.linalg import sqrtm
from synth_parts import recipe, synth, tree

from augkit.lab import folder as files

EACH, VALUES = 4, (1, 3, 8)
SET = ("--set", "data.image_size=8", "--set", "data.imbalance=20", "--set", "data.validation_per_class=6")
TINY = ("train_steps=6", "train_batch=4", "width=16")
FIT = ("demo", *SET, "--source", "fit", "--batch", 4, *(word for one in TINY for word in ("--option", one)))
WORDS = ("steps", *FIT, "--values", "8,1,3", "--per-class", EACH, "--out")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """How wide an interval is costs most of the time, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telling_apart, "SHUFFLES", 2)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], int]:
    """A comparison, its results, and how often its source took a step of learning."""
    out = tmp_path_factory.mktemp("steps") / "out"
    steps, advance = [0], Training.advance

    def counting(training: Training) -> None:
        steps[0] += 1
        advance(training)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "advance", counting)
        result = synth(*WORDS, out, "--json")
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout), steps[0]


def without_speed(results: dict[str, Any]) -> dict[str, Any]:
    return results | {"rows": [row | {"images_per_second": None} for row in results["rows"]]}


@pytest.mark.slow
def test_stores_are_those_that_make_makes_and_their_model_is_learnt_once(
    done: tuple[Path, dict[str, Any], int], tmp_path: Path
) -> None:
    out, _, learnt = done
    stores = {steps: Store.open(out / f"steps-{steps:03d}") for steps in VALUES}
    assert learnt == 6 and len({store.settings["identity"]["model"] for store in stores.values()}) == 1
    assert [store.settings["identity"]["steps"] for store in stores.values()] == [*VALUES]
    assert len({json.dumps(sorted(tree(store.folder).items())) for store in stores.values()}) == len(VALUES)
    words = ("make", *FIT, "--budget", 10 * EACH, "--weights", 1)
    assert synth(*words, "--steps", 3, "--out", tmp_path / "made").exit_code == 0
    assert tree(tmp_path / "made") == tree(out / "steps-003")
    copy = shutil.copytree(out / "steps-008", tmp_path / "copy")
    more = synth("make", *FIT, "--budget", 60, "--weights", 1, "--steps", 8, "--out", copy)
    assert more.output.startswith("20 images made"), more.output  # a store like any other


@pytest.mark.slow
def test_figures_are_those_of_the_stores(done: tuple[Path, dict[str, Any], int]) -> None:
    out, results, _ = done
    assert json.loads((out / "steps.json").read_text()) == results
    rows = results["rows"]
    assert [(row["steps"], row["store"], row["images"]) for row in rows] == [
        (steps, f"steps-{steps:03d}", 10 * EACH) for steps in VALUES
    ]
    for row in rows:
        assert row["images_per_second"] > 0 and 0 <= row["agree"] <= 1 and 0 <= row["near_copies"] <= 1
        low, accuracy, high = (row["told_apart"][part] for part in ("low", "accuracy", "high"))
        assert low < accuracy <= high + 1e-9
        assert row["told_apart"]["accuracy"] > 0.6  # what six steps of learning give is noise
        assert row["frechet"]["distance"] > row["frechet"]["by_chance"] > 0
    assert results["training"] is None and results["real"]["told_apart"]["accuracy"] < 0.7
    with Image.open(out / "steps.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300


@pytest.mark.slow
def test_a_second_call_makes_nothing_and_a_table_says_the_same(
    done: tuple[Path, dict[str, Any], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results, _ = done

    def making(*words: Any) -> Any:
        raise AssertionError("it makes images")

    monkeypatch.setattr("augkit_diffusion.making.ask", making)
    again = synth(*WORDS, out)
    assert again.exit_code == 0 and str(out) in again.stdout.replace("\n", "")
    lines = again.stdout.splitlines()
    assert lines[0].split()[:3] == ["steps", "images", "images/s"]
    assert [line.split()[0] for line in lines[1:4]] == [str(steps) for steps in VALUES]
    assert f"{results['rows'][0]['agree']:.1%}" in lines[1]
    assert "a trained network judges better: --run RUN" in again.stderr


@pytest.mark.slow
def test_interrupted_anywhere_it_goes_on_to_the_same(
    done: tuple[Path, dict[str, Any], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, calls = {4, 17, 29}, [0]

    def stopping(*words: Any) -> Any:
        calls[0] += 1
        if calls[0] in stop:
            raise KeyboardInterrupt
        return ask_for(*words)

    monkeypatch.setattr("augkit_diffusion.making.ask", stopping)
    stops = 0
    while (result := synth(*WORDS, tmp_path / "out", "--json")).exit_code == 130:
        assert "interrupted; the same command goes on" in result.stderr
        stops += 1
    assert stops == len(stop) and result.exit_code == 0, result.output
    assert without_speed(json.loads(result.stdout)) == without_speed(done[1])


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    plain = recipe(tmp_path)
    fit = ("steps", plain, "--source", "fit", "--values", "3")
    for words, sentence in (
        (("steps", *FIT, "--values", "3,many"), "--values takes numbers of steps from 1 to 1000"),
        (("steps", *FIT, "--values", "0"), 'not "0"'),
        (("steps", *FIT, "--values", "3", "--option", "steps=4"), "leave --option steps out"),
        (("steps", plain, "--source", "folder", "--values", "3", "--option", "path=."), "has no denoising steps"),
        (("steps", plain, "--source", "fot", "--values", "3"), 'Did you mean "fit"?'),
        ((*fit, "--train"), "none are held out: say data.validation_per_class"),
        ((*fit, "--train", "--set", "data.validation=0.1"), 'class ".." has no validation image'),
        ((*fit, "--run", tmp_path / "nowhere"), "this is no run folder"),
        ((*fit, "--train", "--seeds", "a"), "--seeds takes how many"),
        ((*fit, "--option", "learnt=nowhere"), "nothing was learnt here to its end"),
    ):
        result = synth(*words, "--out", tmp_path / "out")
        assert result.exit_code == 2 and sentence in result.stderr, result.output
        assert not list((tmp_path / "out").glob("steps*"))
    result = synth(*fit, "--out", tmp_path / "full")
    assert result.exit_code == 2 and "this folder holds something else" in result.stderr


@pytest.mark.slow
def test_a_store_that_was_begun_otherwise_is_told(done: tuple[Path, dict[str, Any], int]) -> None:
    result = synth(*WORDS, done[0], "--guidance", 3)
    assert result.exit_code == 2 and "this store was begun with guidance: 1.5, not 3.0" in result.stderr
    result = synth(*WORDS, done[0], "--option", "exponent=1")
    assert result.exit_code == 2 and "learnt with training.exponent 0.5, not 1.0" in result.stderr


@pytest.mark.slow
def test_trainings_are_measured_on_validation_images_and_not_repeated(tmp_path: Path) -> None:
    quick = {"model": "resnet8_cifar", "epochs": 2, "loss": "balanced_softmax"}
    own = [word for name, value in quick.items() for word in ("--set", f"{name}={value}")]
    words = ("steps", *FIT, *own, "--values", "1,3", "--per-class", EACH, "--out", tmp_path / "out")
    words = (*words, "--train", "--seeds", "0,1", "--json")
    result = synth(*words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["training"]
    assert list(found["rows"]) == ["real", "steps-001", "steps-003"] and not found["failed"]
    runs = {path.name: path for path in (tmp_path / "out/runs").iterdir()}
    assert len(runs) == 6 == result.stderr.count("trained")
    for name, row in found["rows"].items():
        values = []
        for seed in (0, 1):
            (run,) = (path for run, path in runs.items() if run.startswith(f"{name}-seed{seed}"))
            summary = json.loads((run / files.SUMMARY).read_text())
            assert summary["test"] is None and summary["seed"] == seed
            values.append(100 * summary["val"]["all"])  # as many validation images of each class
            train = json.loads((run / files.ENVIRONMENT).read_text())["images"]
            assert train.get("synthetic", 0) == (0 if name == "real" else 10 * EACH)
        assert [row["values"][str(seed)] for seed in (0, 1)] == pytest.approx(values)
        assert row["accuracy"]["mean"] == pytest.approx(np.mean(values))
    again = synth(*words)
    assert json.loads(again.stdout)["training"] == found and "trained" not in again.stderr
    store = Store.open(tmp_path / "out/steps-003")
    store.reject("mine", [store.images()[0]["file"]])
    third = synth(*words)
    assert third.stderr.count("trained") == 2 and json.loads(third.stdout)["rows"][1]["images"] == 10 * EACH - 1


@pytest.mark.slow
@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=5), st.lists(st.floats(0, 1), min_size=1, max_size=5))
@settings(deadline=None, max_examples=25)
def test_axes_can_be_read(speeds: list[float], shares: list[float]) -> None:
    """Two ticks or more around all speeds, and no zoom into a few points of a share."""
    figure, (first, second) = plt.subplots(1, 2)
    rows = [{"images_per_second": speed} for speed in speeds]
    steps_picture._speed(first, range(1, len(speeds) + 1), rows)
    assert len(first.get_yticks()) >= 2
    assert first.get_yticks()[0] <= min(speeds) and first.get_yticks()[-1] >= max(speeds)
    steps_picture._agree(second, range(1, len(shares) + 1), [{"agree": share} for share in shares], 10)
    low, high = second.get_ylim()
    assert high - low > 9.999 and low <= min(10, *(100 * one for one in shares))
    assert high >= max(10, *(100 * one for one in shares))
    assert second.get_legend_handles_labels()[1] == ["guessing"]
    plt.close(figure)


def features(seed: int, count: int, width: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ random.normal(size=(width, width)) + random.normal(size=width)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 12), st.integers(1, 6))
def test_frechets_distance_is_that_of_the_gaussians(seed: int, first: int, second: int, width: int) -> None:
    """With fewer images than dimensions and with more."""
    one, other = features(seed, first, width), features(seed + 1, second, width)
    covariances = [np.atleast_2d(np.cov(values.T)) for values in (one, other)]
    root = sqrtm(sqrtm(covariances[0]) @ covariances[1] @ sqrtm(covariances[0]))
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(sum(covariances) - 2 * root).real
    scale = sum(np.trace(one) for one in covariances)
    assert frechet(one, other) == pytest.approx(expected, abs=1e-4 * scale, rel=1e-5)
    assert frechet(one, other) == pytest.approx(frechet(other, one), abs=1e-9 * scale)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9 * scale)
    assert frechet(one, one + 2.0) == pytest.approx(4 * width, abs=1e-9 * scale)


def test_a_distance_stands_beside_that_of_no_difference() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    one, other = random.normal(size=(2, 120, 20))
    same = apart(one, labels, other, labels)
    assert same is not None and same.images == 120 and same.dimensions == 20
    assert same.distance == pytest.approx(same.by_chance, rel=0.3)
    few = apart(one[::8], labels[::8], other, labels)
    assert few is not None and few.images == 15 and few.by_chance > 2 * same.by_chance  # few images lie farther apart
    far = apart(one, labels, 1.5 * other, labels)
    assert far is not None and far.distance > 2 * far.by_chance
    assert apart(one[:4], labels[:4], other, labels) is None
