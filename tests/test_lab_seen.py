"""A store says which real images it was made from, and a run that would be measured on them is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_parts import recipe_of, write_npz, write_store

from augkit.errors import DataError
from augkit.lab import seen
from augkit.lab.data import Data, load
from augkit.lab.readers import Reader
from augkit.registry import Registry

HELD = ("data.validation=0.2", "data.subset_seed=0")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Whatever made its images, they are of classes b and c."""
    folder = write_store(tmp_path / "synth", {"b": 3, "c": 4})
    (folder / "store.yaml").write_text("source: any\n")
    return folder


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "data.npz")


def opened(registry: Registry, source: Path, *told: str, store: Path | None = None) -> Data:
    recipe = recipe_of(registry, source, *told, *([] if store is None else [f"sources={store}"]))
    return load(recipe.data, sources=recipe.sources)


def as_files(npz: Path, root: Path) -> Path:
    """The same images in class folders, in files of their own names."""
    with np.load(npz) as arrays:
        for split in ("train", "test"):
            for number, image in enumerate(arrays[f"{split}_images"]):
                folder = root / split / str(arrays["class_names"][arrays[f"{split}_labels"][number]])
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{7 * number % 48:03d}.png")
    return root


@pytest.mark.parametrize("inner", ["", "train"])
@pytest.mark.parametrize("size", [16, 24])
def test_only_the_split_that_it_was_made_from_goes_with_it(
    inner: str, size: int, registry: Registry, npz: Path, store: Path
) -> None:
    seen.write(store, opened(registry, npz, *HELD))
    fine = opened(registry, npz, *HELD, f"data.image_size={size}", store=store / inner)
    assert int(fine.synthetic.sum()) == 7
    opened(registry, npz, store=store / inner)  # trains on all, and holds nothing of them out
    for told in (("data.validation=0.2", "data.subset_seed=1"), ("data.validation=0.5", "data.subset_seed=0")):
        with pytest.raises(DataError, match=r"^\S+/synth/store.yaml: [0-9]+ of [0-9]+ validation images are among the"):
            opened(registry, npz, *told, f"data.image_size={size}", store=store / inner)


def test_test_images_that_are_cut_off_by_another_seed_are_met(registry: Registry, tmp_path: Path, store: Path) -> None:
    npz = write_npz(tmp_path / "one.npz", test_images=None, test_labels=None)
    seen.write(store, opened(registry, npz, "data.subset_seed=0"))
    opened(registry, npz, "data.subset_seed=0", store=store)
    with pytest.raises(DataError, match=r"of 16 test images are among the real images that this store was made from"):
        opened(registry, npz, "data.subset_seed=1", store=store)


def test_images_are_known_again_in_files(registry: Registry, npz: Path, tmp_path: Path, store: Path) -> None:
    seen.write(store, opened(registry, npz))
    folder = as_files(npz, tmp_path / "files")
    assert len(opened(registry, folder, store=store).train) == 48 + 7
    with pytest.raises(DataError, match="validation images are among"):
        opened(registry, folder, "data.validation=0.2", store=store)


def test_what_the_data_hold_twice_passes_where_it_is_trained_on(
    registry: Registry, tmp_path: Path, store: Path
) -> None:
    npz = write_npz(tmp_path / "data.npz")
    with np.load(npz) as arrays:
        twice = arrays["test_images"].copy()
        twice[0] = arrays["train_images"][0]
    npz = write_npz(tmp_path / "twice.npz", test_images=twice)
    seen.write(store, opened(registry, npz))
    opened(registry, npz, store=store)
    with np.load(npz) as arrays:
        without = {name: arrays[name][1:] for name in ("train_images", "train_labels")}
    lacking = write_npz(tmp_path / "lacking.npz", test_images=twice, **without)
    with pytest.raises(DataError, match="1 of 12 test images are among the real images"):
        opened(registry, lacking, store=store)


def test_held_out_files_are_decoded_once_and_again_when_they_change(
    registry: Registry, npz: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen.write(store, opened(registry, npz))
    folder, read, decoded = as_files(npz, tmp_path / "files"), seen.fingerprints, [0]

    def counting(reader: Reader, rows: np.ndarray) -> np.ndarray:
        decoded[0] += len(rows)
        return read(reader, rows)

    def asked() -> int:
        decoded[0] = 0
        opened(registry, folder, store=store)
        return decoded[0]

    monkeypatch.setattr(seen, "fingerprints", counting)
    tests = asked()
    assert tests == len(list((folder / "test").rglob("*.png"))) and asked() == 0
    (note,) = (store / seen.HELD_OUT).iterdir()
    note.write_bytes(note.read_bytes()[:-8])
    assert asked() == tests and asked() == 0  # a damaged note is made anew
    other = sorted((folder / "test").rglob("*.png"))[0]
    times = other.stat()
    other.write_bytes(sorted((folder / "train").rglob("*.png"))[0].read_bytes())
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert asked() > 0  # it also trains on this one, so it passes
    shutil.rmtree(store / seen.HELD_OUT)
    (store / seen.HELD_OUT).write_text("in the way")
    assert asked() > 0 and asked() > 0  # nothing can be noted: it is checked all the same
    os.remove(sorted((folder / "train").rglob("*.png"))[0])
    with pytest.raises(DataError, match=r"1 of [0-9]+ test images are among the real images"):
        asked()


def test_a_store_from_no_image_goes_with_all(registry: Registry, npz: Path, store: Path) -> None:
    seen.write(store, None)
    for seed in (0, 1):
        opened(registry, npz, "data.validation=0.2", f"data.subset_seed={seed}", store=store)


def test_what_cannot_be_checked_is_told(
    registry: Registry, npz: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(registry, npz, store=store)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {store}: this store does not say which real images it was made from")
    for content in (b"", b"no", b"\x93NUMPY\x01\x00"):
        (store / seen.NOTE).write_bytes(content)
        with pytest.raises(DataError, match=r"real\.npy: this does not tell which real images .*; remove it and give"):
            opened(registry, npz, store=store)
    np.save(store / seen.NOTE, np.zeros(3))
    with pytest.raises(DataError, match="does not tell which real images"):
        opened(registry, npz, store=store)
    for note in (seen.NOTE, seen.STORE):
        (store / note).unlink()
    assert len(opened(registry, npz, store=store).train) == 55 and capsys.readouterr().err == ""  # any class folders


def test_fingerprints_tell_images_and_forms_apart(registry: Registry, npz: Path) -> None:
    reader = opened(registry, npz).train.reader
    rows = np.array([3, 1, 3, 47])
    found = seen.fingerprints(reader, rows)
    assert found.dtype == np.uint64 and found[0] == found[2] and len(set(found.tolist())) == 3
    flat, tall = (type(reader)(np.zeros(shape, np.uint8), np.zeros(1)) for shape in ((1, 2, 8, 3), (1, 4, 4, 3)))
    assert seen.fingerprints(flat, rows[:0]).tolist() == []
    assert seen.fingerprints(flat, np.zeros(1, int)) != seen.fingerprints(tall, np.zeros(1, int))
