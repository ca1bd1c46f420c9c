"""Runs to choose by: a balanced validation set, a test set that stays unread, and weights to begin with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.errors import DataError, DocumentError, StateError
from augkit.lab import data as lab_data
from augkit.lab.folder import load_checkpoint
from augkit.lab.recipe_parts import DataRecipe
from augkit.lab.run import train
from augkit.lab.subsets import spare

TINY = {
    "augkit": 1,
    "name": "tiny",
    "data": {"source": "digits", "imbalance": 10, "image_size": 8, "validation_per_class": 20},
    "model": "resnet8_cifar",
    "epochs": 1,
    "threads": 1,
}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_spare_images_come_first_and_training_images_only_where_they_run_out(
    sizes: list[tuple[int, int]], count: int, seed: int
) -> None:
    labels = np.concatenate([np.full(own + idle, label) for label, (own, idle) in enumerate(sizes)])
    starts = np.cumsum([0] + [own + idle for own, idle in sizes])
    rows = np.concatenate([starts[k] + np.arange(own) for k, (own, _) in enumerate(sizes)])
    unused = np.setdiff1d(np.arange(len(labels)), rows)
    if any(count >= own + idle for own, idle in sizes):
        with pytest.raises(DataError, match="no training image"):
            spare(rows, unused, labels, count, seed)
        return
    rest, taken = spare(rows, unused, labels, count, seed)
    assert (np.bincount(labels[taken], minlength=len(sizes)) == count).all()
    assert not np.intersect1d(rest, taken).size and np.isin(rest, rows).all()
    for label, (own, idle) in enumerate(sizes):
        assert (labels[rest] == label).sum() == own - max(0, count - idle)


def test_a_long_tail_keeps_its_rare_images_and_the_choice_is_balanced() -> None:
    with_it, without = (lab_data.load(DataRecipe(imbalance=20, validation_per_class=count)) for count in (20, 0))
    assert with_it.val is not None and torch.bincount(with_it.val.labels).tolist() == [20] * 10
    assert with_it.class_counts[-1] == without.class_counts[-1] and without.class_counts[-1] < 20
    assert with_it.subset_sha256 == without.subset_sha256  # of the cut, before anything is held out
    assert np.intersect1d(with_it.train.rows, with_it.val.rows).size == 0
    assert np.intersect1d(with_it.test.rows, with_it.val.rows).size == 0
    with pytest.raises(DataError, match="say one"):
        lab_data.load(DataRecipe(validation=0.1, validation_per_class=1))


def test_a_run_to_choose_by_reads_no_test_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    batches = lab_data.Split.batches
    monkeypatch.setattr(lab_data.Split, "batches", lambda split, where: (read.append(split), batches(split, where))[1])
    folder = train(TINY | {"test": False}, out=tmp_path / "run")
    data = lab_data.load(DataRecipe(**TINY["data"]))  # type: ignore[arg-type]
    assert read and not any(np.array_equal(split.rows, data.test.rows) for split in read)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test"] is None and "not read" in summary["reported"] and summary["val"]["all"] > 0
    with (folder / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["val_images"] for row in rows} == {"20"} and "test_images" not in rows[0]
    with pytest.raises(DocumentError, match="nothing measures this run"):
        train(TINY | {"test": False, "data": {"source": "digits"}}, out=tmp_path / "other")


def test_a_file_of_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    for other in ({"weight": torch.ones(1)}, [1]):
        torch.save(other, tmp_path / "checkpoint.pt")
        with pytest.raises(StateError, match="not a checkpoint of augkit train"):
            train(TINY | {"model": {"name": "resnet8_cifar", "weights": str(tmp_path)}}, out=tmp_path / "run")


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    first = train(TINY, out=tmp_path / "first")
    warm = TINY | {"model": {"name": "resnet8_cifar", "weights": str(first)}, "optimizer": {"lr": 1e-12}}
    second = train(warm, out=tmp_path / "second")
    before, after = ((load_checkpoint(folder) or {})["model"] for folder in (first, second))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before if name.endswith("weight"))
    for weights, said in ((tmp_path, "no run folder"), (first, "is another one: .* such as layer1.1")):
        wrong = TINY | {"model": {"name": "resnet20_cifar" if weights == first else "resnet8_cifar"}}
        wrong["model"]["weights"] = str(weights)  # type: ignore[index]
        with pytest.raises(DocumentError, match=said):
            train(wrong, out=tmp_path / "third")
