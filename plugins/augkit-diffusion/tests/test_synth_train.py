"""What was made is trained on: beside the real images, flagged, and never measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synth_parts import COUNTS, begin, plugged, recipe, synth

from augkit.lab.data import load
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugged(tmp_path_factory.mktemp("plugged") / "site"):
        yield


@pytest.mark.parametrize("groups", [False, True])
def test_a_store_joins_the_training_images_of_its_classes(groups: bool, tmp_path: Path) -> None:
    path, more = recipe(tmp_path, groups=groups), ("--groups",) if groups else ()
    done = synth("make", path, "--target", 8, "--source", "stamps", "--out", tmp_path / "synth", *more)
    assert done.exit_code == 0, done.output
    read = load_recipe(path, registry(), [f"sources={tmp_path / 'synth'}"])
    data = load(read.data, sources=read.sources)
    labels, synthetic = data.train.labels.numpy(), data.synthetic
    assert np.bincount(labels[~synthetic]).tolist() == [*COUNTS]
    if not groups:
        assert np.bincount(labels).tolist() == [12, 8, 8, 8]
        return
    assert data.train.groups is not None
    cells = np.bincount(labels * 2 + data.train.groups.numpy(), minlength=8)
    assert cells.tolist() == [8] * 8


def test_making_again_looks_at_real_images_alone(tmp_path: Path) -> None:
    """A recipe that trains on the store is a recipe of the same data."""
    path, out = recipe(tmp_path), tmp_path / "synth"
    words = ("--target", 14, "--source", "stamps", "--out", out)
    assert synth("make", path, *words).exit_code == 0
    done = synth("make", path, *words, "--set", f"sources={out}")
    assert done.exit_code == 0 and "0 images made" in done.output


@pytest.mark.slow
def test_a_training_run_on_a_store(tmp_path: Path) -> None:
    path, out = recipe(tmp_path), tmp_path / "synth"
    assert synth("make", path, "--target", 14, "--source", "stamps", "--out", out).exit_code == 0
    sets = (f"sources={out}", "epochs=1", "batch_size=8", "device=cpu")
    words = [word for one in sets for word in ("--set", one)]
    status, _, errors = begin(tmp_path / "logs", "train", path, *words, "--out", tmp_path / "run").wait()
    assert status == 0, errors
    noted = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert noted["images"]["train"] == 4 * 14 and noted["images"]["test"] == sum(COUNTS)
