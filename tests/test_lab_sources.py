"""Synthetic images in a recipe: how they join the training images, and how a recipe says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_parts import BLUE, is_made, write_archive_and_store, write_npz, write_store

from augkit.errors import DataError, DocumentError
from augkit.lab.data import load
from augkit.lab.ratios import ratio
from augkit.lab.recipe import load_recipe, read_recipe
from augkit.lab.recipe_parts import DataRecipe, SourcesRecipe
from augkit.registry import Registry


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return write_archive_and_store(tmp_path)[0]


@pytest.fixture
def store(npz: Path) -> Path:
    return npz.parent / "synth"


# -- joining --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [4096, 0])
def test_images_of_a_store_join_the_training_images(npz: Path, store: Path, memory: int) -> None:
    plain = load(DataRecipe(source=str(npz)))
    data = load(DataRecipe(source=str(npz), memory=memory), sources=SourcesRecipe(folder=str(store)))
    assert data.class_counts.tolist() == [30, 30, 30] and data.real_counts.tolist() == [30, 12, 6]
    assert data.synthetic.tolist() == [False] * 48 + [True] * 42
    images = torch.cat(list(data.train.batches([torch.arange(90)])))
    assert plain.train.held is not None and torch.equal(images[:48], plain.train.held)
    assert (images[48:, 2] == BLUE).all()
    assert images[48:, 1, 0, 0].tolist() == [*range(18), *range(24)]
    assert data.train.labels.tolist() == [*np.repeat(np.arange(3), [30, 12, 6]), *[1] * 18, *[2] * 24]
    assert len(data.test) == len(plain.test) and data.subset_sha256 == plain.subset_sha256
    assert data.labels_sha256 != plain.labels_sha256


def test_any_class_folders_will_do(npz: Path, tmp_path: Path) -> None:
    root = write_store(tmp_path / "crawled", {"c": 3}, within=".")
    (root / ".cache").mkdir()
    data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(root)))
    assert data.class_counts.tolist() == [30, 12, 9] and is_made(data) == data.synthetic.tolist()


def test_a_class_whose_name_is_no_folders(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "a.npz", class_names=np.array(["a/b", "..", "c"]))
    root = write_store(tmp_path / "synth", {"a%2Fb": 2, "%2E%2E": 3})
    data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(root)))
    assert data.class_counts.tolist() == [32, 15, 6]


@pytest.mark.parametrize("told", [{"validation": 0.3}, {"validation_per_class": 3}, {}])
@pytest.mark.parametrize("split", ["test", None])
def test_held_out_images_are_real(
    npz: Path, store: Path, tmp_path: Path, told: dict[str, Any], split: str | None
) -> None:
    marks = np.arange(48) % 3 == 0
    images = np.random.RandomState(0).randint(0, BLUE, (48, 16, 16, 3), np.uint8)
    images[marks, :, :, 2] = BLUE
    changes: dict[str, Any] = {"train_synthetic": marks, "train_images": images, "train_labels": np.arange(48) // 2 % 3}
    if split is None:
        changes |= {"test_images": None, "test_labels": None}
    source = write_npz(tmp_path / "marked.npz", **changes)
    data = load(DataRecipe(source=str(source), **told), sources=SourcesRecipe(folder=str(store)))
    assert is_made(data) == data.synthetic.tolist() and data.synthetic.sum() == 16 + 42
    for held in (data.val, data.test):
        assert held is None or (held.held is not None and not (held.held[:, 2] == BLUE).all(dim=(1, 2)).any())


def test_imbalance_counts_real_images_only(store: Path, tmp_path: Path) -> None:
    marks = np.repeat([False, True], [40, 8])
    source = write_npz(tmp_path / "a.npz", train_labels=np.arange(48) % 3, train_synthetic=marks)
    data = load(DataRecipe(source=str(source), imbalance=4), sources=SourcesRecipe(folder=str(store)))
    assert data.real_counts.tolist() == [14, 7, 3]
    assert (data.class_counts - data.real_counts).tolist() == [2, 3 + 18, 3 + 24]


def test_folders_that_cannot_join(npz: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "train").mkdir(parents=True)
    for folder, says in (
        (write_store(tmp_path / "x", {"a": 1, "zebra": 1}), r'x/train: class folder "zebra" is not among .*: a, b, c'),
        (tmp_path / "empty", r"empty/train: no image file"),
        (tmp_path / "gone", r"gone: the folder of sources is not there"),
    ):
        with pytest.raises(DataError, match=says):
            load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(folder)))


def test_a_store_that_keeps_no_image_is_told(npz: Path, tmp_path: Path) -> None:
    """Not by the names of its other folders."""
    root = write_store(tmp_path / "empty", {"c": 1})
    (root / "store.yaml").write_text("")
    (root / "train").rename(root / "rejected")
    with pytest.raises(DataError, match="empty: this store keeps no image: make some"):
        load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(root)))


def test_groups_of_a_stores_images(store: Path, tmp_path: Path) -> None:
    groups: dict[str, Any] = {"train_groups": np.arange(48) % 2, "group_names": np.array(["x/y", "z"])}
    source = DataRecipe(source=str(write_npz(tmp_path / "a.npz", **groups)))
    with pytest.raises(DataError, match=r"000000\.png: the data have groups \(x/y, z\) and this image has no group"):
        load(source, sources=SourcesRecipe(folder=str(store)))
    named = write_store(tmp_path / "named", {"c": 4}, prefix="x%2Fy-")
    data = load(source, sources=SourcesRecipe(folder=str(named)))
    assert data.train.groups is not None and data.train.groups.tolist() == [0, 1] * 24 + [0] * 4
    (named / "groups.csv").write_text("file,group\n" + "".join(f"train/c/x%2Fy-00000{i}.png,z\n" for i in range(4)))
    other = load(source, sources=SourcesRecipe(folder=str(named)))
    assert other.train.groups is not None and other.train.groups[48:].tolist() == [1] * 4
    assert other.labels_sha256 != data.labels_sha256
    (named / "groups.csv").write_text("file,group\n" + "".join(f"train/c/x%2Fy-00000{i}.png,w\n" for i in range(4)))
    with pytest.raises(DataError, match=r'groups\.csv: .* has the group "w"'):
        load(source, sources=SourcesRecipe(folder=str(named)))


# -- ratios ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "values"),
    [
        (0.25, [0.25] * 5),
        ("epoch / epochs", [0, 0.2, 0.4, 0.6, 0.8]),
        ("linear(1, 0, epoch / (epochs - 1))", [1, 0.75, 0.5, 0.25, 0]),
        ("where(epoch < 2, 0, 3)", [0, 0, 1, 1, 1]),
        ("1 / epoch", [0, 1, 1 / 2, 1 / 3, 1 / 4]),
    ],
)
def test_values_of_ratios(said: float | str, values: list[float]) -> None:
    assert [ratio(said, epoch, 5) for epoch in range(5)] == pytest.approx(values)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("share=1.5", r": `1\.5` is 1\.5, not within 0\.\.1"),
        ("replace=-1", r": `-1` is -1, not within"),
        ("share=epok", r': there is no name "epok"\. Did you mean "epoch"'),
        ("share=uniform()", r": `uniform` is random, and nothing random is allowed here"),
        ("share=class_count", r': there is no name "class_count"'),
        ("share=[1]", r": expected a number in 0\.\.1 or an expression"),
        ("share=true", r": expected a number in 0\.\.1 or an expression"),
        ("shar=0.5", r': there is no "shar" here\. Did you mean "share"'),
    ],
)
def test_wrong_ratios_are_one_sentence(told: str, says: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=says) as caught:
        load_recipe({"augkit": 1, "name": "plain"}, registry, [f"sources.{told}"])
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"--set sources.{told}: ")


def test_share_and_replace_exclude_each_other(registry: Registry) -> None:
    with pytest.raises(DocumentError, match=r"^--set sources=.*: share and replace are two ways"):
        load_recipe({"augkit": 1, "name": "plain"}, registry, ["sources={share: 0.5, replace: 0.5}"])


def test_recipes_with_and_without_sources(registry: Registry, store: Path, tmp_path: Path) -> None:
    plain, short = load_recipe("demo", registry), load_recipe("demo", registry, [f"sources={store}"])
    assert "sources" not in plain.model_dump()
    assert short.sources == SourcesRecipe(folder=str(store)) and short.hash != plain.hash
    (store / "recipe.yaml").write_text("augkit: 1\nname: mine\nsources: {folder: train, share: 1 / epochs}\n")
    mine = load_recipe(store / "recipe.yaml", registry)
    assert mine.sources is not None and mine.sources.folder == str(store / "train")
    (tmp_path / "resolved.yaml").write_text(json.dumps(mine.model_dump(mode="json")))
    assert read_recipe(tmp_path / "resolved.yaml").hash == mine.hash
