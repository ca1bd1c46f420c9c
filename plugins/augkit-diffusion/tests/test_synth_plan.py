"""`augkit synth plan` and `augkit synth sources`: what they tell, and that nothing is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from augkit_diffusion.fit_training import Training
from augkit_diffusion.plan_command import size_text, time_text
from PIL import Image
from synth_parts import COUNTS, NAMES, crawled, plugged, recipe, synth

from augkit.lab import seen


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugged(tmp_path_factory.mktemp("plugged") / "site"):
        yield


def test_a_plan_tells_every_class_and_the_sum(tmp_path: Path) -> None:
    done = synth("plan", recipe(tmp_path), "--target", 10)
    rows = [re.split(r"  +", line) for line in done.output.splitlines()[1:5]]
    assert rows == [[name, str(n), str(max(0, 10 - n))] for name, n in zip(NAMES, COUNTS, strict=True)]
    assert "19 images to make for 3 of 4 classes" in done.output
    assert "disk: 5" in done.output and "23 training images as PNG" in done.output
    assert "time: not known; say --source" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "recipe.yaml"]


def test_a_plan_with_a_source_measures_it_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path)
    words = ("recipe.yaml", "--target", 30, "--source", "stamps", "--batch", 8, "--option", "seconds=0.05")
    found = json.loads(synth("plan", *words, "--json").output)
    assert found["images"] == 120 - 23
    chunks = sum(-(-(30 - count) // 8) for count in COUNTS)
    assert chunks * 0.05 < found["seconds"] < chunks * 5
    assert found["images"] * 432 < found["bytes"] < found["images"] * 1000
    assert "8 images made by stamps" in synth("plan", *words).output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "recipe.yaml"]


def test_a_plan_for_a_store_counts_what_is_there(tmp_path: Path) -> None:
    path, out = recipe(tmp_path), tmp_path / "synth"
    words = ("--source", "stamps", "--out", out)
    assert synth("make", path, "--target", 10, *words).exit_code == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    found = json.loads(synth("plan", path, "--target", 12, "--out", out, "--json").output)
    assert found["images"] == (5 - 3) + (9 - 7) + (11 - 9)
    assert [cell["there"] for cell in found["cells"]] == [0, 3, 7, 9]
    assert found["seconds"] is None
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    other = synth("plan", path, "--target", 12, "--out", out, "--set", "data.image_size=16")
    assert other.exit_code == 2 and "begun with other data (image_size)" in other.stderr
    for verb in (("plan",), ("plan", *words[:2]), ("make", *words[:2])):
        other = synth(*verb, path, "--target", 12, "--out", out, "--set", "sources.tuning=0.5")
        assert other.exit_code == 2 and "other data (sources.tuning 0, not 0.5)" in other.stderr, other.output
    nowhere = synth("plan", path, "--target", 12, "--out", tmp_path / "nowhere")
    assert nowhere.exit_code == 2 and "is no store of synthetic images" in nowhere.stderr


def test_a_plan_by_group_and_by_budget(tmp_path: Path) -> None:
    path = recipe(tmp_path, groups=True)
    words = ("--target", "max(class_count, over=classes)", "--groups")
    found = json.loads(synth("plan", path, *words, "--json").output)
    assert [(cell["class"], cell["group"], cell["real"], cell["synthetic"]) for cell in found["cells"][:4]] == [
        ("dog", "on/land", 6, 0),
        ("dog", "on water", 6, 0),
        ("T-shirt/top", "on/land", 4, 2),
        ("T-shirt/top", "on water", 3, 3),
    ]
    assert f"{found['images']} images to make for 6 of 8 classes in 2 groups" in synth("plan", path, *words).output
    words = ("--budget", 23, "--weights", "class_count")
    assert [cell["synthetic"] for cell in json.loads(synth("plan", path, *words, "--json").output)["cells"]] == [
        *COUNTS
    ]


TINY = ("--option", "train_steps=40", "--option", "width=16", "--option", "train_batch=2", "--batch", 2, "--steps", 2)


@pytest.mark.slow
def test_learning_is_timed_too_and_what_is_learnt_is_taken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = recipe(tmp_path), tmp_path / "synth"
    words = ("plan", path, "--target", 10, "--source", "fit", *TINY)
    found = json.loads(synth(*words, "--json").output)
    assert found["learning"]["steps"] == found["learning"]["left"] == 40
    assert 0 < found["learning"]["seconds"] < found["seconds"]
    assert re.search(r"time: .* s to learn \(40 of 40 steps are left, .* s each\), .* for images", synth(*words).output)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.npz", "recipe.yaml"]
    advance = Training.advance

    def stopping(training: Training) -> None:
        if training.step == 25:
            raise KeyboardInterrupt
        advance(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", stopping)
        often = ("--option", "checkpoint_seconds=1e-6")
        assert synth("make", *words[1:], *often, "--out", out).exit_code == 130
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert json.loads(synth(*words, "--out", out, "--json").output)["learning"]["left"] == 15
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_a_plan_says_of_a_model_to_be_taken_over_what_making_does(tmp_path: Path) -> None:
    """Images that changed, though neither their names nor their sizes did, are others."""
    path = tmp_path / "recipe.yaml"
    path.write_text("augkit: 1\nname: tiny\ndata: {source: photos, image_size: 8, memory: 0}\n")
    photos = [tmp_path / "photos" / part for part in ("train/a/0.bmp", "train/b/0.bmp", "test/a/0.bmp", "test/b/0.bmp")]
    for number, photo in enumerate(photos):
        photo.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(photo)
    words = (path, "--target", 2, "--source", "fit", *TINY)
    assert synth("make", *words, "--out", tmp_path / "one").exit_code == 0
    taught = ("--option", f"learnt={tmp_path / 'one'}")
    assert synth("plan", *words, *taught).exit_code == 0
    Image.new("RGB", (8, 8), (99, 0, 0)).save(photos[0])
    for verb in (("plan",), ("make", "--out", tmp_path / "two")):
        told = synth(verb[0], *words, *taught, *verb[1:])
        assert told.exit_code == 2 and "1 of 2 real images" in told.stderr and "leave out the option" in told.stderr
    note = tmp_path / "one" / seen.NOTE
    note.unlink()  # then nothing tells, and both go on
    assert synth("plan", *words, *taught).exit_code == 0


@pytest.mark.slow
def test_nothing_is_timed_for_a_store_that_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = recipe(tmp_path), tmp_path / "synth"
    words = (path, "--target", 8, "--source", "fit", *TINY, "--out", out)
    assert synth("make", *words).exit_code == 0

    def asked(*words: object) -> None:
        raise AssertionError("it makes images")

    monkeypatch.setattr("augkit_diffusion.plan_command.ask_for", asked)
    found = json.loads(synth("plan", *words, "--json").output)
    assert (found["images"], found["seconds"], found["learning"]) == (0, 0, None)


def test_what_a_source_that_learns_lacks_is_told_by_a_plan(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    lacking = dict(np.load(tmp_path / "data.npz"))
    kept = lacking["train_labels"] != 3
    np.savez(
        tmp_path / "data.npz", **lacking | {name: lacking[name][kept] for name in ("train_images", "train_labels")}
    )
    done = synth("plan", path, "--target", 10, "--source", "fit")
    assert done.exit_code == 2 and 'class "grün blau"' in done.stderr, done.output


def test_a_plan_of_nothing_makes_nothing(tmp_path: Path) -> None:
    words = (
        "plan",
        recipe(tmp_path),
        "--target",
        1,
        "--source",
        "stamps",
        "--option",
        "fails=0",
        "--option",
        "seconds=60",
    )
    done = synth(*words)
    assert done.exit_code == 0 and "0 images to make for 0 of 4 classes" in done.output and "time: none" in done.output
    assert json.loads(synth(*words, "--json").output)["seconds"] == 0


def test_sources_are_listed_with_their_options(tmp_path: Path) -> None:
    found = {row["source"]: row for row in json.loads(synth("sources", "--json").output)}
    assert {"folder", "fit", "stamps", "odd"} <= set(found)
    assert found["stamps"]["options"] == {"batch": 4, "refused": 0, "seconds": 0.0, "fails": 0}
    assert found["stamps"]["from"] == "augkit-stamps 1.0" and found["folder"]["options"]["path"] is None
    assert re.search(r"^stamps +Noise\. +batch: 4, refused: 0", synth("sources").output, re.MULTILINE)


def test_a_photo_that_is_missing_is_told_by_a_plan(tmp_path: Path) -> None:
    photos = crawled(tmp_path / "crawled")
    for photo in (photos / "dog").iterdir():
        photo.unlink()
    done = synth("plan", recipe(tmp_path), "--target", 30, "--source", "folder", "--option", f"path={photos}")
    assert done.exit_code == 2 and 'no image of class "dog"' in done.stderr


def test_sizes_and_times_in_words() -> None:
    assert [size_text(size) for size in (12, 1234, 5.6e7, 8e9, 2.5e13)] == [
        "12 bytes",
        "1.23 kB",
        "56 MB",
        "8 GB",
        "25 TB",
    ]
    assert [time_text(s) for s in (0.234, 42, 90, 3600 * 3 + 1200)] == ["0.23 s", "42 s", "2 min", "3 h 20 min"]
