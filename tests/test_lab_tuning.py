"""A recipe's `sources` set images apart for what makes synthetic ones, and take the first of those that were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_parts import begun, recipe_of, write_archive_and_store, write_npz, write_store

from augkit.errors import DataError, DocumentError
from augkit.lab import seen
from augkit.lab.course import counts_of
from augkit.lab.data import load
from augkit.lab.recipe_parts import DataRecipe, SourcesRecipe
from augkit.lab.run import train
from augkit.lab.subsets import apart
from augkit.registry import Registry


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return write_archive_and_store(tmp_path)[0]


@pytest.fixture
def store(npz: Path) -> Path:
    return npz.parent / "synth"


# -- tuning ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.lists(st.floats(0.01, 0.99), min_size=2, max_size=2),
    st.integers(0, 99),
)
def test_each_class_is_parted_by_its_share(counts: list[int], shares: list[float], seed: int) -> None:
    cells = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(cells)) * 3
    before: set[int] = set()
    for share in sorted(shares):
        kept, learnt = apart(rows, cells, share, seed)
        for cell, n in enumerate(counts):
            own, ours = (set(part[np.isin(part, rows[cells == cell])].tolist()) for part in (kept, learnt))
            assert own | ours == set(rows[cells == cell].tolist()) and own and ours
            assert len(own & ours) == (n == 1)
            if n > 1:
                assert len(ours) == min(max(1, round(share * n)), n - 1)
        assert before <= set(learnt.tolist()) and sorted(learnt) == learnt.tolist() and sorted(kept) == kept.tolist()
        before = set(learnt.tolist())


@pytest.mark.parametrize("memory", [4096, 0])
def test_sources_learn_from_images_that_nothing_trains_on(npz: Path, store: Path, memory: int) -> None:
    recipe = DataRecipe(source=str(npz), memory=memory, validation_per_class=2)
    plain, data = load(recipe), load(recipe, sources=SourcesRecipe(folder=str(store), tuning=0.25))
    assert data.real_counts.tolist() == [21, 8, 3] and data.class_counts.tolist() == [21, 26, 27]
    learning = data.for_sources
    assert learning.class_counts.tolist() == [7, 2, 1] and not learning.synthetic.any()
    assert learning.for_sources is learning and plain.for_sources is plain
    assert not np.intersect1d(data.train.rows, learning.train.rows).size
    real = data.train.rows[~data.synthetic]
    assert np.array_equal(np.union1d(real, learning.train.rows), plain.train.rows)
    assert data.val is not None and plain.val is not None and np.array_equal(data.val.rows, plain.val.rows)
    assert data.subset_sha256 == plain.subset_sha256 and data.labels_sha256 != plain.labels_sha256
    (images,) = learning.train.batches([torch.arange(len(learning.train))])
    with np.load(npz) as arrays:
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), arrays["train_images"][learning.train.rows])
        assert np.array_equal(learning.train.labels.numpy(), arrays["train_labels"][learning.train.rows])


def test_a_class_with_one_image_has_it_in_both(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(3), [40, 7, 1])
    npz = write_npz(tmp_path / "few.npz", train_labels=labels)
    data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(tuning=0.01))
    assert data.class_counts.tolist() == [39, 6, 1] and data.for_sources.class_counts.tolist() == [1, 1, 1]


def test_classes_are_parted_within_groups(tmp_path: Path) -> None:
    groups = np.arange(48) % 2
    npz = write_npz(tmp_path / "grouped.npz", train_groups=groups, test_groups=np.arange(12) % 2)
    data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(tuning=0.34))
    counts = [
        np.bincount(split.labels.numpy() * 2 + split.groups.numpy(), minlength=6).tolist()
        for split in (data.train, data.for_sources.train)
        if split.groups is not None
    ]
    assert counts == [[10, 10, 4, 4, 2, 2], [5, 5, 2, 2, 1, 1]]


def test_images_marked_in_the_source_stay(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "marked.npz", train_synthetic=np.arange(48) < 10)
    data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(tuning=0.5))
    assert data.synthetic.sum() == 10 and data.real_counts.tolist() == [10, 6, 3]
    assert data.for_sources.train.rows.min() >= 10


def test_policies_and_losses_are_told_what_is_trained_on(registry: Registry, npz: Path, store: Path) -> None:
    told = (f"sources={{folder: {store}, tuning: 0.25, take: {{b: 3}}}}", "policy=uniform_class_choice")
    run = begun(registry, npz, *told)
    counts = [22, 12, 4]  # of 30, 12 and 6 real ones; and three that were made of the second class
    assert run.stage.class_counts.tolist() == counts and counts_of(run.recipe, run.data).tolist() == counts
    assert run.policy.state_dict()["class_counts"] == counts


def test_a_run_says_what_it_set_apart(registry: Registry, npz: Path, tmp_path: Path) -> None:
    recipe = recipe_of(registry, npz, "epochs=1", "sources={tuning: 0.5}")
    folder = train(recipe.model_dump(mode="json"), (), tmp_path / "run")
    noted = json.loads((folder / "environment.json").read_text())
    assert noted["images"] == {"train": 24, "tuning": 24, "val": 0, "test": 12}


def test_a_run_is_not_measured_on_images_that_its_source_learnt_from(npz: Path, store: Path) -> None:
    """What the store was made from is the tuning part, and whatever else a run does with the rest is its own affair."""
    recipe = DataRecipe(source=str(npz), validation=0.3)
    (store / seen.STORE).write_text("source: test\n")
    seen.write(store, load(recipe, sources=SourcesRecipe(tuning=0.5)))
    for tuning in (0.5, 0.25, 0.0):
        assert load(recipe, sources=SourcesRecipe(folder=str(store), tuning=tuning)).val is not None
    other = recipe.model_copy(update={"subset_seed": 1})
    for tuning in (0.5, 0.0):
        with pytest.raises(DataError, match="validation images are among the real images"):
            load(other, sources=SourcesRecipe(folder=str(store), tuning=tuning))


def test_an_image_twice_in_the_data_may_be_set_apart(tmp_path: Path, store: Path) -> None:
    """It is a twin within the data that is measured on, as where it is trained on."""
    with np.load(write_npz(tmp_path / "data.npz")) as arrays:
        images = arrays["train_images"]
    npz = write_npz(tmp_path / "twice.npz", test_images=images[:12], test_labels=np.zeros(12, int))
    (store / seen.STORE).write_text("source: test\n")
    sources = SourcesRecipe(folder=str(store), tuning=0.5)
    seen.write(store, load(DataRecipe(source=str(npz)), sources=SourcesRecipe(tuning=0.5)))
    assert load(DataRecipe(source=str(npz)), sources=sources).tuning is not None


# -- take -----------------------------------------------------------------------------------------------------------


def taken(npz: Path, root: Path, take: Any, **more: Any) -> list[list[str]]:
    """The files of each class that are taken."""
    data = load(DataRecipe(source=str(npz), **more), sources=SourcesRecipe(folder=str(root), take=take))
    rows = data.train.rows[data.synthetic] - 48
    second: Any = data.train.reader.second  # type: ignore[attr-defined]
    return [[second.paths[row].name for row in rows if second.labels[row] == label] for label in range(3)]


def test_the_first_in_order_of_name_are_taken(npz: Path, store: Path) -> None:
    first = [f"{i:06d}.png" for i in range(24)]
    assert taken(npz, store, None) == [[], first[:18], first]
    assert taken(npz, store, 20) == [[], first[:18], first[:20]]
    assert taken(npz, store, 0) == [[], [], []]
    assert taken(npz, store, {"c": 2}) == [[], [], first[:2]]
    assert taken(npz, store, {"b": 18, "a": 0}) == [[], first[:18], []]


def test_further_images_of_the_folder_change_nothing(npz: Path, store: Path) -> None:
    def facts() -> tuple[str, list[int]]:
        data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(store), take={"b": 3, "c": 4}))
        return data.labels_sha256, data.train.rows.tolist()

    before = facts()
    for name in ("a", "b"):
        (store / "train" / name).mkdir(exist_ok=True)
        (store / "train" / name / "000099.png").write_bytes(b"another")
    assert facts() == before
    (store / "train/b/000000.png").write_bytes((store / "train/c/000009.png").read_bytes() + b"another")
    assert facts()[0] != before[0]


def test_numbers_are_of_each_group_of_a_class(tmp_path: Path) -> None:
    groups = {"train_groups": np.arange(48) % 2, "test_groups": np.arange(12) % 2, "group_names": np.array(["x", "y"])}
    npz = write_npz(tmp_path / "grouped.npz", **groups)
    for prefix in ("x-", "y-"):
        root = write_store(tmp_path / "synth", {"b": 3, "c": 3}, prefix=prefix) if prefix == "x-" else None
        for name in ("b", "c") if root is None else ():
            for path in sorted((tmp_path / "synth/train" / name).glob("x-*")):
                path.with_name(path.name.replace("x-", "y-")).write_bytes(path.read_bytes())
    root = tmp_path / "synth"
    assert taken(npz, root, 1) == [[], *[["x-000000.png", "y-000000.png"]] * 2]
    assert taken(npz, root, {"b": {"y": 2}, "c": 1}) == [
        [],
        ["y-000000.png", "y-000001.png"],
        ["x-000000.png", "y-000000.png"],
    ]
    with pytest.raises(DataError, match=r'wants 4 images of class "b" in group "x", and 3 are there'):
        taken(npz, root, {"b": 4})
    with pytest.raises(DataError, match=r'sources\.take: there is no group "z"'):
        taken(npz, root, {"b": {"z": 4}})


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ({"b": 19}, r'synth: sources\.take wants 19 images of class "b", and 18 are there: make more, or take fewer'),
        ({"a": 1}, r'sources\.take wants 1 images of class "a", and 0 are there'),
        ({"d": 1}, r'sources\.take: there is no class "d"'),
        ({"b": {"x": 1}}, r'the data have no groups, so class "b" takes a number'),
    ],
)
def test_what_cannot_be_taken_is_told(npz: Path, store: Path, take: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        taken(npz, store, take)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("{folder: x, take: many}", r"sources\.take: take is a number of images, 0 or more, or a mapping"),
        ("{folder: x, take: -1}", "take is a number of images"),
        ("{folder: x, take: true}", "take is a number of images"),
        ("{folder: x, take: {a: 0.5}}", "take is a number of images"),
        ("{folder: x, take: {a: {b: {c: 1}}}}", "take is a number of images"),
        ("{take: 3}", "take chooses among the images of a folder: say which folder"),
        ("{folder: x, tuning: 1}", r"sources\.tuning: this should be less than 1, not 1"),
        ("{folder: x, tuning: -0.1}", r"sources\.tuning: this should be greater than or equal to 0"),
        ("{folder: x, tunning: 0.1}", r'there is no "tunning" here. Did you mean "tuning"'),
    ],
)
def test_what_a_recipe_may_say(registry: Registry, npz: Path, told: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        recipe_of(registry, npz, f"sources={told}")


def test_recipes_from_before_keep_their_hashes(registry: Registry, npz: Path) -> None:
    recipe = recipe_of(registry, npz, "sources=x")
    assert recipe.model_dump(mode="json")["sources"] == {"folder": "x", "share": None, "replace": None}
    said = recipe_of(registry, npz, "sources={folder: x, tuning: 0.5, take: {0: 5}}")
    assert said.model_dump(mode="json")["sources"] | {"folder": ""} == {
        **{"folder": "", "share": None, "replace": None},
        **{"tuning": 0.5, "take": {"0": 5}},
    }
