"""Whatever is wrong with a command is one sentence and status 2, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synth_parts import begin, crawled, plugged, recipe, synth

STAMPS = ("--source", "stamps")


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugged(tmp_path_factory.mktemp("plugged") / "site"):
        yield


WRONG = {
    "no number": ((*STAMPS,), "say how many images: --target 500"),
    "two numbers": ((*STAMPS, "--target", 5, "--budget", 5), "say one"),
    "weights alone": ((*STAMPS, "--target", 5, "--weights", "1"), "--weights shares a --budget out"),
    "expression": ((*STAMPS, "--target", "clas_count"), 'Did you mean "class_count"'),
    "too many": ((*STAMPS, "--target", "1e12"), "a class cannot have 1e+12 images"),
    "source": (("--source", "stamp", "--target", 5), 'there is no source "stamp". Did you mean "stamps"?'),
    "option": ((*STAMPS, "--target", 5, "--option", "bach=3"), 'there is no option "bach" here. Did you mean "batch"?'),
    "flag": ((*STAMPS, "--target", 5, "--steps", 3), 'there is no option "steps" here. Valid: batch, fails, refused'),
    "value": ((*STAMPS, "--target", 5, "--option", "batch=many"), "this should be a valid integer, not"),
    "twice": ((*STAMPS, "--target", 5, "--batch", 3, "--option", "batch=3"), 'the option "batch" is given twice'),
    "no value": ((*STAMPS, "--target", 5, "--option", "batch"), "--option takes key=value"),
    "batch": ((*STAMPS, "--target", 5, "--option", "batch=0"), "makes 0 images at once; it must be 1 or more"),
    "missing option": (("--source", "folder", "--target", 5), 'the option "path" is missing'),
    "no folder": (("--source", "folder", "--target", 5, "--option", "path=nowhere"), "no such folder of images"),
    "groups": ((*STAMPS, "--target", 5, "--groups"), "--groups wants data that say each image's group"),
    "shard": ((*STAMPS, "--target", 5, "--shard", "3/2"), "--shard 3/2: parts are counted from 1"),
    "place": ((*STAMPS, "--target", 5, "--on", "moon"), 'tasks are done on local or ray, not on "moon"'),
    "override": ((*STAMPS, "--target", 5, "--set", "data.sauce=x"), 'there is no "sauce" here. Did you mean "source"?'),
    "data": ((*STAMPS, "--target", 5, "--set", "data.source=gone.npz"), 'there is no file "gone.npz": check'),
    "device": ((*STAMPS, "--target", 5, "--device", "toaster"), '"toaster" cannot be used'),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path)
    words, told = WRONG[case]
    before = sorted(tmp_path.rglob("*"))
    done = synth("make", "recipe.yaml", "--out", "synth", *words)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and told in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", ["no number", "expression", "source", "flag", "groups"])
def test_plan_tells_the_same(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path)
    words, told = WRONG[case]
    done = synth("plan", "recipe.yaml", *words)
    assert done.exit_code == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_flag_without_a_source_is_told(tmp_path: Path) -> None:
    done = synth("plan", recipe(tmp_path), "--target", 5, "--steps", 3)
    assert done.exit_code == 2 and 'the option "steps" is one of a source; name it with --source' in done.stderr


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("dog", "cat", "", "bird"), 'the class name "" is empty'),
        (("a/b", "a%2Fb", "c", "d"), 'classes "a/b" and "a%2Fb" would share the folder "a%2Fb"'),
        (("a", "b", "a", "c"), 'two classes are called "a"'),
        (("x" * 201, "b", "c", "d"), "is longer than 200 bytes"),
    ],
)
def test_classes_that_can_have_no_folder_are_told(names: tuple[str, ...], told: str, tmp_path: Path) -> None:
    words = (recipe(tmp_path, names=names), "--target", 5, "--out", tmp_path / "synth", *STAMPS)
    done = synth("make", *words)
    assert done.exit_code == 2 and told in done.stderr and not (tmp_path / "synth").exists()


def test_a_place_that_is_taken_is_told(tmp_path: Path) -> None:
    path, words = recipe(tmp_path), ("--target", 5, *STAMPS)
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("mine")
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    for out, told in (
        (file, "taken by a file"),
        (full, "not empty and no store"),
        (file / "inner", "cannot be made or written here"),
    ):
        done = synth("make", path, *words, "--out", out)
        assert done.exit_code == 2 and told in done.stderr, done.output
    assert file.read_text() == "mine" and [p.name for p in full.iterdir()] == ["thesis.txt"]


def test_a_store_of_other_settings_is_told_with_the_difference(tmp_path: Path) -> None:
    path, out = recipe(tmp_path), tmp_path / "synth"
    words = ("make", path, "--target", 14, "--out", out)
    assert synth(*words, *STAMPS).exit_code == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    photos = crawled(tmp_path / "crawled")
    for more, told in (
        ((*STAMPS, "--seed", 3), "begun with seed: 0, not 3"),
        ((*STAMPS, "--batch", 5), "begun with batch: 4, not 5"),
        (("--source", "folder", "--option", f"path={photos}"), 'begun with source: "stamps", not "folder"'),
        ((*STAMPS, "--set", "data.image_size=16"), "begun with other data"),
    ):
        done = synth(*words, *more)
        assert done.exit_code == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1
    data = dict(np.load(tmp_path / "data.npz"))
    data["train_images"] = data["train_images"] + np.uint8(1)
    np.savez(tmp_path / "data.npz", **data)
    done = synth(*words, *STAMPS)
    assert done.exit_code == 2 and "begun with other data" in done.stderr and "data.images_sha256" in done.stderr
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_settings_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    words = ("make", recipe(tmp_path), "--target", 14, "--out", tmp_path / "synth", *STAMPS)
    assert synth(*words).exit_code == 0
    for text in ("", "seed: [", "seed: 0\n", "- 3\n"):
        (tmp_path / "synth" / "store.yaml").write_text(text)
        done = synth(*words)
        assert done.exit_code == 2 and "not the settings of a store" in done.stderr
    (tmp_path / "synth" / "store.yaml").unlink()
    assert "not empty and no store" in synth(*words).stderr


def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    words = ("make", recipe(tmp_path), "--target", 14, "--out", tmp_path / "synth", *STAMPS)
    assert synth(*words).exit_code == 0
    (tmp_path / "synth" / "manifest.parquet").write_bytes(b"PAR1 no")
    done = synth(*words)
    assert done.exit_code == 2 and "not a readable manifest" in done.stderr and "remove it" in done.stderr


def test_wrong_images_of_a_source_are_told(tmp_path: Path) -> None:
    words = ("make", recipe(tmp_path), "--target", 14, "--source", "odd", "--out")
    assert 'source "odd" gave 3 images for 4 wishes' in synth(*words, tmp_path / "a").stderr
    done = synth(*words, tmp_path / "b", "--option", "gives=floats")
    assert 'source "odd" gave float64 [12, 12, 3]; images are uint8' in done.stderr


def test_a_broken_photo_is_named(tmp_path: Path) -> None:
    photos = crawled(tmp_path / "crawled")
    (photos / "dog" / "photo 1.jpg").write_bytes(b"no photo")
    words = ("--source", "folder", "--option", f"path={photos}", "--out", tmp_path / "synth")
    done = synth("make", recipe(tmp_path), "--target", 14, *words)
    assert done.exit_code == 2 and "photo 1.jpg: the image cannot be read" in done.stderr


def test_a_class_without_photos_is_named(tmp_path: Path) -> None:
    photos = crawled(tmp_path / "crawled")
    for photo in (photos / "grün blau").iterdir():
        photo.unlink()
    words = ("--source", "folder", "--option", f"path={photos}", "--out", tmp_path / "synth")
    done = synth("make", recipe(tmp_path), "--target", 14, *words)
    assert done.exit_code == 2 and 'no image of class "grün blau"' in done.stderr
    assert not (tmp_path / "synth").exists()


def test_real_processes_tell_the_same(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    for case in ("source", "data"):
        words, told = WRONG[case]
        status, out, errors = begin(
            tmp_path / "logs", "synth", "make", path, "--out", tmp_path / "synth", *words
        ).wait()
        assert status == 2 and out == "" and told in errors and "Traceback" not in errors
        assert len(errors.splitlines()) == 1 and not (tmp_path / "synth").exists()


@pytest.mark.parametrize("closed", ["/proc/augkit", "/dev/null/augkit"])  # where not even root may make a folder
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, closed: str) -> None:
    done = synth("make", recipe(tmp_path), "--target", 5, "--out", closed, *STAMPS)
    assert done.exit_code == 2 and "cannot be made or written here" in done.stderr
