"""A making that is killed again and again makes the images of one that was not."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from augkit_diffusion import png
from augkit_diffusion.store import Store
from synth_parts import begin, crawled, recipe, tree

KILLS = int(os.environ.get("AUGKIT_KILLS", "5"))
"""At random moments, over as many stores as it takes; 20 take some minutes."""
LEARNT = ("width=16", "patch=4", "steps=4", "train_steps=40", "train_batch=8", "checkpoint_seconds=0.05")


def words(source: str, folder: Path) -> tuple[str | Path | int, ...]:
    """The command for a source; images take a while, since photographs are large or a network is asked."""
    path = recipe(folder)
    if source == "folder":
        photos = crawled(folder / "crawled", size=900)
        more: tuple[str | Path | int, ...] = ("--option", f"path={photos}", "--batch", 4)
    else:
        more = ("--batch", 4, *(word for option in LEARNT for word in ("--option", option)))
    return ("synth", "make", path, "--target", 40, "--source", source, *more, "--out")


@pytest.mark.slow(30)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("source", ["folder", "fit"])
def test_kills_change_nothing(source: str, tmp_path: Path) -> None:
    """The same images bit by bit, none twice, none broken at any moment, and the same manifest."""
    make = words(source, tmp_path)
    assert begin(tmp_path / "logs", "--version").wait()[0] == 0  # what processes share is imported once
    took = time.monotonic()
    status, _, errors = begin(tmp_path / "logs", *make, tmp_path / "whole").wait()
    assert status == 0, errors
    took = time.monotonic() - took
    expected, manifest = tree(tmp_path / "whole"), (tmp_path / "whole/manifest.parquet").read_bytes()
    assert len(expected) == 137

    chance, kills, stores = random.Random(0), 0, 0
    while kills < KILLS:
        stores += 1
        folder = tmp_path / f"store{stores}"
        while not finished(tmp_path / "logs", make, folder, chance, took):
            kills += 1
            assert_whole(folder, expected)
        assert tree(folder) == expected
        assert (folder / "manifest.parquet").read_bytes() == manifest
        assert {path.name for path in folder.iterdir()} <= {
            ".parts",
            "manifest.parquet",
            "model",
            "real.npy",
            "store.yaml",
            "train",
        }
        assert not list(folder.rglob("*.part"))
        assert len(Store.open(folder).images()) == 137


def finished(logs: Path, make: tuple[str | Path | int, ...], folder: Path, chance: random.Random, took: float) -> bool:
    """Let it run and kill it at a random moment; whether it came to its end before.

    Every other time the moment is one after so many more images, which a clock might miss.
    """
    before = count(folder)
    process = begin(logs, *make, folder).process
    if chance.random() < 0.5:
        process.join(chance.uniform(0, took))
    else:
        more = chance.randint(1, 80)
        while process.is_alive() and count(folder) < before + more:
            time.sleep(chance.uniform(0, 0.01))
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError((logs / "stderr").read_text())
    return bool(process.exitcode == 0)


def count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder / "train"))


def assert_whole(folder: Path, expected: dict[str, str]) -> None:
    """Whatever is there is an image of the store."""
    assert tree(folder).items() <= expected.items()
    assert all(png.facts_of(path) for path in (folder / "train").rglob("*") if path.is_file())
