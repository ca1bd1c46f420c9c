"""`augkit synth make`: what it makes, and that nothing about how it is run changes an image."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import processes
import pytest
from augkit_diffusion import png
from augkit_diffusion.store import Store
from PIL import Image
from synth_parts import COUNTS, NAMES, begin, crawled, plugged, recipe, synth, tree

STAMPS = ("--source", "stamps")


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugged(tmp_path_factory.mktemp("plugged") / "site"):
        yield


def made(folder: Path, *words: str | Path | float, target: str = "14") -> Path:
    out = folder / "synth"
    done = synth("make", recipe(folder), "--target", target, "--out", out, *words)
    assert done.exit_code == 0, done.output
    return out


def test_each_class_gets_what_it_lacks(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS)
    store = Store.open(out)
    rows = store.images()
    assert [sum(row["class"] == name for row in rows) for name in NAMES] == [14 - count for count in COUNTS]
    for row in rows:
        assert row["prompt"] == f"a photo of {row['class']}" and row["source"] == "stamps" and row["steps"] == 7
        assert len(row["model"]) == 64 and row["source_image"].startswith("row ")
        assert np.asarray(Image.open(store.path(row))).shape == (12, 12, 3)
    assert len({row["seed"] for row in rows}) == len(rows) == store.manifest().num_rows


def test_again_makes_nothing_and_more_keeps_what_is_there(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS)
    before, times = tree(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert "0 images made" in synth("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *STAMPS).output
    made(tmp_path, *STAMPS, target="max(class_count, 17)")
    after = tree(out)
    assert len(after) == len(before) + 4 * 3 and after.items() >= before.items()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert tree(made(fresh, *STAMPS, target="17")) == after


def test_a_lower_target_removes_nothing(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS)
    before = tree(out)
    made(tmp_path, *STAMPS, target="5")
    assert tree(out) == before


def test_a_missing_image_of_a_chunk_is_the_same_again(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS)
    before = tree(out)
    for name in ("dog/000001.png", "grün blau/000009.png", "grün blau/000010.png"):
        (out / "train" / name).unlink()
    cut = out / "train/%2E%2E/000004.png"
    cut.write_bytes(cut.read_bytes()[:-20])  # as a crash of the machine can leave it
    assert "4 images made" in synth("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *STAMPS).output
    assert tree(out) == before


def test_what_was_rejected_is_not_made_again(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS)
    store = Store.open(out)
    store.reject("dull", ["dog/000000.png", "grün blau/000003.png"])
    done = synth("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *STAMPS)
    assert "0 images made" in done.output and (out / "rejected/dog/000000.png").is_file()


def test_shards_make_the_same_images(tmp_path: Path) -> None:
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    for folder in (whole, apart):
        folder.mkdir()
    first = made(whole, *STAMPS)
    for shard in ("3/3", "1/3", "2/3"):
        second = made(apart, *STAMPS, "--shard", shard)
    assert tree(second) == tree(first)
    assert Store.open(second).manifest().equals(Store.open(first).manifest())


@pytest.mark.slow
def test_processes_make_the_same_images(tmp_path: Path) -> None:
    whole = made(tmp_path, *STAMPS)
    words = ("--target", 14, "--out", tmp_path / "jobs", *STAMPS, "--jobs", 2)
    done = synth("make", tmp_path / "recipe.yaml", *words)
    assert done.exit_code == 0, done.output
    assert tree(tmp_path / "jobs") == tree(whole)
    assert Store.open(tmp_path / "jobs").manifest().equals(Store.open(whole).manifest())


@pytest.mark.slow
def test_two_shards_at_once_in_one_folder(tmp_path: Path) -> None:
    whole = made(tmp_path, *STAMPS, target="40")
    words = ("synth", "make", tmp_path / "recipe.yaml", "--target", 40, "--out", tmp_path / "both", *STAMPS)
    both = [begin(tmp_path / f"logs{i}", *words, "--shard", f"{i}/2", "--option", "seconds=0.05") for i in (1, 2)]
    for process in both:
        assert process.wait()[0] == 0
    assert tree(tmp_path / "both") == tree(whole)
    assert Store(tmp_path / "both", Store.open(whole).settings).manifest().equals(Store.open(whole).manifest())


def test_the_same_shard_twice_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augkit.lab.folder._PATIENCE", 0.2)
    out = made(tmp_path, *STAMPS)
    with Store.open(out).writing("shard-1-of-1"):
        done = synth("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *STAMPS)
    assert done.exit_code == 2 and "another process is at work" in done.output


def test_groups_have_images_of_their_own(tmp_path: Path) -> None:
    path = recipe(tmp_path, groups=True)
    done = synth("make", path, "--target", 6, "--groups", "--out", tmp_path / "synth", *STAMPS)
    assert done.exit_code == 0, done.output
    rows = Store.open(tmp_path / "synth").images()
    assert len(rows) == (0 + 0) + (2 + 3) + (4 + 5) + (5 + 6)
    assert sum(row["class"] == ".." and row["group"] == "on/land" for row in rows) == 4
    assert {path.name for path in (tmp_path / "synth/train/%2E%2E").iterdir()} >= {"on%2Fland-000003.png"}
    assert len({row["seed"] for row in rows}) == len(rows)


def test_a_refused_image_is_noted_and_not_asked_for_again(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS, "--option", "refused=5")
    before, store = tree(out), Store.open(out)
    refused = [row for row in store.manifest().to_pylist() if row["rejected_by"] == "refused"]
    assert [row["number"] for row in refused] == [4, 4, 9, 4, 9]
    assert len(store.images()) == sum(14 - count for count in COUNTS) - 5
    done = synth("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *STAMPS, "--option", "refused=5")
    assert "0 images made" in done.output and tree(out) == before


@pytest.mark.parametrize("content", [b"", b'{"class": "dog", "num', b"\xff\xfe", b"[]"])
def test_a_damaged_note_of_a_refusal_is_made_anew(tmp_path: Path, content: bytes) -> None:
    words = (*STAMPS, "--option", "refused=5")
    out = made(tmp_path, *words)
    before = tree(out)
    note = sorted((out / "refused").rglob("*.json"))[0]
    note.write_bytes(content)
    assert synth("filter", out, "--blank").exit_code == 0
    assert Store.open(out).rebuild() == [note]
    done = synth("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *words)
    assert done.exit_code == 0 and "0 images made, 1 refused" in done.output
    assert tree(out) == before and Store.open(out).rebuild() == []


def test_folders_among_images_are_told_and_left_alone(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS, "--option", "refused=5")
    folders = [out / part / "T-shirt%2Ftop" / ".ipynb_checkpoints" for part in ("train", "rejected", "refused")]
    folders.append(out / "train/dog/000900.png")
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "kept.txt").write_text("mine")
    words = ("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *STAMPS, "--option", "refused=5")
    for verb in (words, ("filter", out, "--blank"), ("filter", out, "--undo", "all")):
        done = synth(*verb)
        assert done.exit_code == 0, done.output
    assert "4 files in" in synth(*words).stderr
    assert all((folder / "kept.txt").read_text() == "mine" for folder in folders)


def test_other_real_images_come_in_turn_and_fit(tmp_path: Path) -> None:
    out = made(tmp_path, "--source", "folder", "--option", f"path={crawled(tmp_path / 'crawled')}")
    rows = [row for row in Store.open(out).images() if row["class"] == "grün blau"]
    assert [row["source_image"] for row in rows] == [f"grün blau/photo {k % 5}.jpg" for k in range(13)]
    pixels = [np.asarray(Image.open(out / "train" / row["file"])) for row in rows]
    assert all(image.shape == (8, 8, 3) for image in pixels) and (pixels[0] == pixels[5]).all()
    assert (pixels[0] != pixels[1]).any()


def test_a_strange_file_is_told_and_left_alone(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS)
    stranger = out / "train/dog/mine.png"
    Image.new("RGB", (8, 8)).save(stranger)
    other = out / "train/dog/000700.png"
    other.write_bytes((out / "train/dog/000000.png").read_bytes())
    done = synth("make", tmp_path / "recipe.yaml", "--target", 14, "--out", out, *STAMPS)
    assert done.exit_code == 0 and "2 files in" in done.output and "train/dog/000700.png; move them away" in done.output
    assert stranger.is_file() and len(Store.open(out).images()) == sum(14 - count for count in COUNTS)


def test_a_lost_manifest_costs_scores_only(tmp_path: Path) -> None:
    out = made(tmp_path, *STAMPS)
    store = Store.open(out)
    table = store.manifest()
    store.reject("dull", ["dog/000000.png"])
    (out / "manifest.parquet").unlink()
    rows = Store.open(out).images(rejected=True)
    assert [row["rejected_by"] for row in rows[:2]] == ["unknown", None]
    store.restore("unknown")
    assert Store.open(out).manifest().equals(table)


@pytest.mark.slow
def test_a_full_disk_stops_in_one_sentence_and_leaves_whole_images(tmp_path: Path) -> None:
    """Files above a size cannot be written, which the same code meets as a disk that is full."""
    path, photos = recipe(tmp_path), crawled(tmp_path / "crawled", size=400, count=2)
    small = photos / "dog" / "photo 0.jpg"
    Image.new("RGB", (404, 400)).save(small)
    words = ("synth", "make", path, "--target", 14, "--out", tmp_path / "synth", "--set", "data.image_size=160")
    words += ("--source", "folder", "--option", f"path={photos}", "--batch", 1)
    status, _, errors = begin(tmp_path / "logs", *words, largest=20_000).wait()
    assert status == 2 and len(errors.splitlines()) == 1, errors
    assert "no room to write (File too large); what is there stays good" in errors
    there = list((tmp_path / "synth/train").rglob("*.png"))
    assert [file.name for file in there] == ["000000.png"] and png.whole(there[0])
    assert begin(tmp_path / "logs", *words).wait()[0] == 0
    assert len(Store.open(tmp_path / "synth").images()) == sum(14 - count for count in COUNTS)


def test_a_disk_that_fills_up_is_gone_on_with_when_there_is_room(tmp_path: Path) -> None:
    disk, path = tmp_path / "disk", recipe(tmp_path)
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount")
    try:
        words = ("make", path, "--target", 60, "--out", disk / "synth", *STAMPS)
        done = synth(*words)
        assert done.exit_code == 2 and "no room to write (No space left on device)" in done.stderr
        there = tree(disk / "synth")
        assert 10 < len(there) < 217
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert f"{217 - len(there)} images made" in synth(*words).output
        whole = made(tmp_path, *STAMPS, target="60")
        assert tree(disk / "synth") == tree(whole) and tree(whole).items() >= there.items()
        assert Store.open(disk / "synth").manifest().equals(Store.open(whole).manifest())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_interruption_leaves_an_orderly_store(tmp_path: Path) -> None:
    words = ("synth", "make", recipe(tmp_path), "--target", 30, "--out", tmp_path / "synth", *STAMPS)
    running = begin(tmp_path / "logs", *words, "--option", "seconds=0.2")
    while len(list((tmp_path / "synth").rglob("*.png"))) < 9 and running.process.is_alive():
        time.sleep(0.02)
    os.kill(running.process.pid, signal.SIGINT)
    status, out, errors = running.wait()
    assert status == 130 and errors.splitlines()[-1].startswith(
        "error: interrupted; the same command goes on: augkit synth make "
    )
    rows = Store(tmp_path / "synth", Store.open(tmp_path / "synth").settings).images()
    assert f"{len(rows)} kept in the store" in out and 8 < len(rows) < 97


def test_a_source_that_breaks_leaves_what_was_made(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    done = synth("make", path, "--target", 14, "--out", tmp_path / "synth", *STAMPS, "--option", "fails=8")
    assert isinstance(done.exception, RuntimeError)
    assert len(Store(tmp_path / "synth", Store.open(tmp_path / "synth").settings).images()) == 2 + 7 + 8


@pytest.mark.slow
def test_a_process_that_breaks_ends_all(tmp_path: Path) -> None:
    words = ("--target", 14, "--out", tmp_path / "synth", *STAMPS, "--jobs", 2, "--option", "fails=8")
    with processes.forked_workers():
        done = synth("make", recipe(tmp_path), *words)
    assert done.exit_code == 2 and "RuntimeError: the model broke" in done.output
    assert 0 < len(Store(tmp_path / "synth", Store.open(tmp_path / "synth").settings).images()) < 33


@pytest.mark.slow
def test_shards_at_once_learn_once(tmp_path: Path) -> None:
    """The process that comes second waits for the first one to learn, and takes what it learnt."""
    options = ("width=16", "patch=4", "steps=4", "train_steps=30", "train_batch=8")
    words = ("make", recipe(tmp_path), "--target", 14, "--source", "fit", "--batch", 4)
    words += tuple(word for option in options for word in ("--option", option))
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    assert begin(tmp_path / "logs", "synth", *words, "--out", whole).wait()[0] == 0
    more = ("--out", shards, "--shard")
    both = [begin(tmp_path / f"logs{i}", "synth", *words, *more, f"{i}/2") for i in (1, 2)]
    waited = []
    for process in both:
        status, _, errors = process.wait()
        assert status == 0, errors
        waited.append("another process prepares the source" in errors)
    assert waited.count(True) <= 1
    assert tree(shards) == tree(whole)
    assert (shards / "manifest.parquet").read_bytes() == (whole / "manifest.parquet").read_bytes()


@pytest.mark.slow
def test_a_cluster_makes_the_same_images(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    whole = made(tmp_path, *STAMPS)
    words = ("synth", "make", tmp_path / "recipe.yaml", "--target", 14, "--out", tmp_path / "ray", *STAMPS)
    status, _, errors = begin(tmp_path / "logs", *words, "--on", "ray", "--jobs", 2).wait()
    assert status == 0, errors
    assert tree(tmp_path / "ray") == tree(whole)
