"""The lab's data: sources, long-tailed subsets, splits held out, and the order of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from augkit.errors import DataError
from augkit.lab import data, readers, subsets
from augkit.lab.recipe_parts import DataRecipe
from augkit.lab.sources import open_source


def write_folder(root: Path, splits: dict[str, dict[str, int]], size: tuple[int, int] = (20, 16)) -> Path:
    """Class folders with as many images as said; pixels tell the class and the number."""
    for split, classes in splits.items():
        for number, (name, count) in enumerate(classes.items()):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", size, (40 * number, i, 7)).save(root / split / name / f"{i:03d}.png")
    return root


def write_npz(path: Path, **changes: np.ndarray) -> Path:
    images = np.arange(12 * 8 * 8 * 3, dtype=np.uint32).reshape(12, 8, 8, 3).astype(np.uint8)
    labels = np.arange(12) % 3
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:6], "test_labels": labels[:6]}
    np.savez(path, **(arrays | changes))
    return path


def test_folders_a_level_too_high_are_refused(tmp_path: Path) -> None:
    for domain in ("art", "photo"):
        write_folder(tmp_path / "pacs", {domain: {"dog": 3, "cat": 2}})
    says = rf'class folder "art" has .* further folders, such as "cat": .* such as {tmp_path}/pacs/art$'
    with pytest.raises(DataError, match=says):
        open_source(str(tmp_path / "pacs"))
    (tmp_path / "pacs").rename(tmp_path / "train")
    with pytest.raises(DataError, match=r'/train: class folder "art"'):
        open_source(str(tmp_path))
    assert open_source(str(tmp_path / "train" / "art")).class_names == ("cat", "dog")


def test_one_class_with_folders_of_its_own_is_kept(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": {"dog": 3}, "train/cat": {"siamese": 2}})
    assert np.bincount(open_source(str(tmp_path)).splits["train"].labels).tolist() == [2, 3]


def test_broken_images_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path, {"train": {"dog": 5, "cat": 5}})
    (root / "train" / "dog" / "003.png").write_bytes(b"no image")
    recipe = DataRecipe(source=str(root), image_size=16)
    with pytest.raises(DataError, match=r"dog/003\.png: the image cannot be read .*; mend or remove the file$"):
        data.load(recipe)
    whole = (root / "train" / "dog" / "000.png").read_bytes()
    (root / "train" / "cat" / "001.png").write_bytes(whole[:40])
    both = r"\(cat/001\.png, dog/003\.png\)"
    with pytest.raises(DataError, match=rf"cat/001\.png: .*; 2 of 10 images are broken in all {both}; mend"):
        data.load(recipe)
    for i in range(5):
        (root / "train" / "cat" / f"00{i}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat/000\.png: .* \(cat/000\.png, .*, cat/004\.png and 1 more\); mend"):
        data.load(recipe)
    monkeypatch.setattr(readers, "SCAN_SECONDS", -1.0)
    with pytest.raises(DataError, match=r"[12] or more of 10 \(1 were tried\) images are broken"):
        data.load(recipe)


@pytest.mark.parametrize(("name", "says"), [("photo.JPG", "give the folder it is in"), ("a.npz", "not a readable")])
def test_a_file_that_is_no_archive(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04 whatever")
    with pytest.raises(DataError, match=says) as caught:
        open_source(str(tmp_path / name))
    assert "pickle" not in str(caught.value)


def test_published_counts_of_long_tailed_cifar100() -> None:
    sums = {factor: sum(subsets.long_tailed_counts(500, factor, 100)) for factor in (100, 50, 10)}
    assert sums == {100: 10847, 50: 12608, 10: 19573}


@given(st.integers(1, 400), st.floats(1, 60), st.integers(2, 12))
def test_long_tailed_counts_fall_and_span_the_factor(largest: int, factor: float, classes: int) -> None:
    counts = subsets.long_tailed_counts(largest, factor, classes)
    assert counts[0] == largest
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] in (int(largest / factor), int(largest / factor * (1 + 1e-9)), int(largest / factor * (1 - 1e-9)))


@given(st.lists(st.integers(60, 200), min_size=2, max_size=8), st.floats(1, 50), st.integers(0, 5))
def test_long_tailed_subset_has_the_exact_profile(available: list[int], factor: float, seed: int) -> None:
    labels = np.random.RandomState(1).permutation(np.repeat(np.arange(len(available)), available))
    rows = subsets.long_tailed(np.arange(len(labels)), labels, factor, len(available), seed)
    counts = np.bincount(labels[rows], minlength=len(available)).tolist()
    assert counts == subsets.long_tailed_counts(counts[0], factor, len(available))
    assert len(set(rows.tolist())) == len(rows)


def test_subset_of_digits_is_the_published_one() -> None:
    recipe = DataRecipe(source="digits", imbalance=50, image_size=32, test_share=0.33)
    loaded = data.load(recipe)
    assert loaded.class_counts.tolist() == [119, 77, 49, 32, 20, 13, 8, 5, 3, 2]
    assert loaded.subset_sha256 == "8e8132a22aaad87c40c5a3c1e317b873ce434dfb96e3f9e9d319ac0b6ccb0186"
    assert data.load(recipe.model_copy(update={"subset_seed": 1})).subset_sha256 != loaded.subset_sha256
    assert not set(loaded.train.rows) & set(loaded.test.rows)


def test_validation_is_held_out_stratified_and_leaves_the_subset_alone() -> None:
    plain = data.load(DataRecipe(imbalance=10))
    held = data.load(DataRecipe(imbalance=10, validation=0.25))
    assert held.subset_sha256 == plain.subset_sha256
    assert held.val is not None
    assert sorted([*held.train.rows, *held.val.rows]) == plain.train.rows.tolist()
    taken = torch.bincount(held.val.labels, minlength=10)
    assert taken.tolist() == [round(0.25 * n) for n in plain.class_counts.tolist()]
    assert (held.class_counts + taken == plain.class_counts).all()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.floats(0.01, 0.99), st.integers(0, 9))
def test_holding_out_never_empties_a_class(counts: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    kept, out = subsets.hold_out(np.arange(len(labels)), labels, share, seed)
    assert sorted([*kept, *out]) == list(range(len(labels)))
    assert (np.bincount(labels[kept], minlength=len(counts)) > 0).all()


def test_impossible_imbalance_names_the_class() -> None:
    with pytest.raises(DataError, match=r"class \d+ would keep no image"):
        data.load(DataRecipe(imbalance=1000))


@given(st.integers(1, 300), st.integers(2, 64), st.integers(0, 2**31), st.integers(0, 500))
def test_batches_hold_every_position_once(count: int, size: int, seed: int, epoch: int) -> None:
    batches = data.epoch_batches(count, size, seed, epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert all(2 <= len(batch) <= size + 1 for batch in batches) or count == 1
    again = data.epoch_batches(count, size, seed, epoch)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_order_changes_with_epoch_and_seed() -> None:
    orders = [data.epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_folder_with_three_splits(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"train": {"a": 3, "b": 2}, "val": {"a": 1}, "test": {"b": 2, "a": 1}}, size=(20, 16))
    loaded = data.load(DataRecipe(source=str(root), image_size=8))
    assert loaded.class_names == ("a", "b")
    assert loaded.class_counts.tolist() == [3, 2]
    assert loaded.val is not None
    assert [len(loaded.val), len(loaded.test)] == [1, 3]
    assert loaded.train.held is not None
    assert loaded.train.held.shape == (5, 3, 8, 8)
    assert loaded.train.held[:, :, 4, 4].tolist() == [[0, 0, 7], [0, 1, 7], [0, 2, 7], [40, 0, 7], [40, 1, 7]]


def test_folder_of_classes_alone_holds_out_a_test_set(tmp_path: Path) -> None:
    write_folder(tmp_path, {".": {"a": 10, "b": 5}})
    loaded = data.load(DataRecipe(source=str(tmp_path), image_size=8, test_share=0.2))
    assert loaded.class_counts.tolist() == [8, 4]
    assert torch.bincount(loaded.test.labels).tolist() == [2, 1]


def test_images_read_when_asked_for_are_those_held(tmp_path: Path) -> None:
    write_folder(tmp_path, {".": {"a": 9, "b": 9}})
    recipe = DataRecipe(source=str(tmp_path), image_size=8)
    held, read = data.load(recipe).train, data.load(recipe.model_copy(update={"memory": 0})).train
    assert held.held is not None
    assert read.held is None
    positions = data.epoch_batches(len(held), 4, 0, 0)
    for a, b in zip(held.batches(positions), read.batches(positions), strict=True):
        assert torch.equal(a, b)


def test_npz_round_trip_and_grey(tmp_path: Path) -> None:
    loaded = data.load(DataRecipe(source=str(write_npz(tmp_path / "a.npz"))))
    with np.load(tmp_path / "a.npz") as file:
        assert loaded.train.held is not None
        assert (loaded.train.held.permute(0, 2, 3, 1).numpy() == file["train_images"]).all()
    grey = np.arange(12 * 64, dtype=np.uint32).reshape(12, 8, 8).astype(np.uint8)
    loaded = data.load(DataRecipe(source=str(write_npz(tmp_path / "b.npz", train_images=grey))))
    assert loaded.train.held is not None
    assert (loaded.train.held.numpy() == grey[:, None]).all()


def test_timm_dataset_name(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"train": {"a": 3, "b": 2}, "val": {"a": 1, "b": 1}})
    loaded = data.load(DataRecipe(source="torch/image_folder", root=str(root), image_size=8))
    assert loaded.class_names == ("a", "b")
    assert loaded.class_counts.tolist() == [3, 2]
    assert len(loaded.test) == 2
    with pytest.raises(DataError, match=r"cannot be opened: .* Set data\.download to true to download it"):
        data.load(DataRecipe(source="torch/cifar10", root=str(tmp_path), image_size=8))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train_images": np.zeros((12, 8, 8, 3), np.float32)}, "must be uint8"),
        ({"train_labels": np.zeros(11, np.int64)}, "12 whole numbers"),
        ({"train_labels": np.zeros(12, np.float32)}, "whole numbers"),
        ({"class_names": np.array(["one"])}, "1 names"),
        ({"class_names": np.array(["a", "b", "c", "never"])}, '"never" has no training image'),
        ({"train_images": np.zeros((12, 8, 9, 3), np.uint8)}, "set data.image_size"),
    ],
)
def test_wrong_npz_is_one_sentence(tmp_path: Path, changes: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DataError, match=says):
        data.load(DataRecipe(source=str(write_npz(tmp_path / "a.npz", **changes))))


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_npz_is_named(tmp_path: Path, compressed: bool) -> None:
    arrays: dict[str, Any] = {"train_images": np.random.RandomState(0).randint(0, 256, (12, 8, 8, 3), np.uint8)}
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays, train_labels=np.arange(12) % 3)
    whole = path.read_bytes()
    middle = whole.index(b"train_images") + 600  # in the pixels, or in their deflated stream
    damaged = [whole[:cut] for cut in (0, 3, 100, len(whole) // 2, len(whole) - 10)]
    damaged += [whole[:middle] + bytes(40) + whole[middle + 40 :]]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz: not a readable \.npz file") as caught:
            data.load(DataRecipe(source=str(path)))
        assert caught.value.file == str(path)


def test_labels_have_a_hash_of_their_own(tmp_path: Path) -> None:
    labels = np.arange(12) % 3
    hashes = []
    for changes in ({}, {"train_labels": labels[::-1].copy()}, {"test_labels": labels[1:7]}):
        loaded = data.load(DataRecipe(source=str(write_npz(tmp_path / "a.npz", **changes))))
        assert loaded.class_counts.tolist() == [4, 4, 4]
        hashes.append((loaded.subset_sha256, loaded.labels_sha256))
    assert len({subset for subset, _ in hashes}) == 1
    assert len({labels for _, labels in hashes}) == 3


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for source, says in {
        "nowhere/at-all": '^there is no folder "nowhere/at-all": check how the path is written',
        "nowhere.npz": '^there is no file "nowhere.npz": check',
        f"{tmp_path}/emty/": rf'^there is no folder "{tmp_path}/emty/" \(did you mean "{tmp_path}/empty"\?\): check',
        "digit": "neither a file nor a folder",
        str(tmp_path / "empty"): "no class folders in it; make a folder for each class",
        str(tmp_path / "text.npz"): "not a readable .npz",
        str(tmp_path / "other.npz"): "train_images and train_labels are missing",
        "tfds/cifar10": "is a stream",
        "torch/nothing": "cannot be opened",
    }.items():
        with pytest.raises(DataError, match=says):
            data.load(DataRecipe(source=source, image_size=8))


def test_corrupt_image_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": {"a": 3, "b": 3}, "test": {"a": 1, "b": 1}})
    bad = tmp_path / "train" / "b" / "001.png"
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(DataError, match=r"001\.png: .*cannot be read") as caught:
        data.load(DataRecipe(source=str(tmp_path), image_size=8))
    assert caught.value.file == str(bad)


def test_sixteen_bits_are_not_cut_off(tmp_path: Path) -> None:
    """Pillow's own conversion makes everything above 255 of 65,535 white."""
    ramp = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    for name in ("train", "test"):
        (tmp_path / name / "a").mkdir(parents=True)
        Image.fromarray(ramp).save(tmp_path / name / "a" / "0.png")
    images = next(data.load(DataRecipe(source=str(tmp_path), image_size=8)).train.batches([torch.zeros(1).long()]))
    assert torch.equal(images[0], torch.from_numpy((ramp >> 8).astype(np.uint8)).expand(3, 8, 8))


def test_test_split_with_an_unknown_class(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": {"a": 3, "b": 3}, "test": {"a": 1, "z": 1}})
    with pytest.raises(DataError, match='"z" is not among the training classes'):
        data.load(DataRecipe(source=str(tmp_path), image_size=8))


def test_own_validation_split_and_a_share_exclude_each_other(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": {"a": 3, "b": 3}, "val": {"a": 1, "b": 1}, "test": {"a": 1, "b": 1}})
    with pytest.raises(DataError, match=r"set data\.validation to 0"):
        data.load(DataRecipe(source=str(tmp_path), image_size=8, validation=0.1))


def test_a_validation_share_that_holds_out_nothing_is_refused(tmp_path: Path) -> None:
    source = str(write_npz(tmp_path / "few.npz"))
    with pytest.raises(DataError, match="larger share"):
        data.load(DataRecipe(source=source, validation=0.01), torch.device("cpu"))
