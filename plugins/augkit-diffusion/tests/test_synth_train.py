"""What was made is trained on: beside the real images, flagged, and never measured on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from augkit_diffusion.replacing import opened
from augkit_diffusion.store import Store
from synth_parts import COUNTS, begin, crawled, plugged, recipe, synth

from augkit.errors import DataError
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


def doubled(folder: Path) -> Path:
    """A recipe whose test images are others than those it trains on, with enough of each class to hold some out."""
    path, random = recipe(folder), np.random.default_rng(2)
    labels = np.repeat(np.arange(4), 15)
    kept = dict(np.load(folder / "data.npz")) | {"train_labels": labels, "test_labels": labels}
    for split in ("train", "test"):
        kept[f"{split}_images"] = random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", **kept)
    return path


@pytest.mark.parametrize("source", ["stamps", "folder"])
def test_no_run_is_measured_on_what_a_store_was_made_from(source: str, tmp_path: Path) -> None:
    """Made with all training images, the store goes with no run that holds some of them out; made from others it does.

    So it is for replacement tests.
    """
    path, out = doubled(tmp_path), tmp_path / "synth"
    more = ("--option", f"path={crawled(tmp_path / 'crawled')}") if source == "folder" else ()
    make = ("make", path, "--target", 20, "--source", source, *more, "--set", "data.validation=0.2")
    assert synth(*make, "--out", out).exit_code == 0
    for seed in (0, 1):
        sets = ["data.validation=0.2", f"data.subset_seed={seed}"]
        read = load_recipe(path, registry(), [*sets, f"sources={out}"])
        if source == "folder" or seed == 0:
            assert len(load(read.data, sources=read.sources).train) == 80
            assert len(opened(Store.open(out), read).data.train) == 48
            continue
        told = r"of 12 validation images are among the real images that this store was made from"
        with pytest.raises(DataError, match=told):
            load(read.data, sources=read.sources)
        words = [word for one in sets for word in ("--set", one)]
        done = synth("replace", path, out, "--out", tmp_path / "replaced", "--classes", "all", *words)
        assert done.exit_code == 2 and "validation images are among" in done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "replaced").exists()


def test_an_old_store_is_told_and_mended_by_the_command_that_made_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = doubled(tmp_path), tmp_path / "synth"
    words = ("make", path, "--target", 20, "--source", "stamps", "--out", out)
    assert synth(*words).exit_code == 0
    before = (out / "real.npy").read_bytes()
    (out / "real.npy").unlink()
    read = load_recipe(path, registry(), [f"sources={out}"])
    load(read.data, sources=read.sources)
    assert "does not say which real images it was made from" in capsys.readouterr().err
    done = synth(*words)
    assert done.exit_code == 0 and "0 images made" in done.output and (out / "real.npy").read_bytes() == before
