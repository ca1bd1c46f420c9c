"""Images in an .npz file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import is_zipfile

import numpy as np

from augkit.errors import DataError
from augkit.lab.readers import IMAGE_ENDINGS, SPLIT_NAMES, Arrays, Reader, Source


def rgb(images: np.ndarray) -> np.ndarray:
    """[N, H, W] to [N, H, W, 3] without a copy; [N, H, W, 3] as it is."""
    return np.broadcast_to(images[..., None], (*images.shape, 3)) if images.ndim == 3 else images


def open_npz(path: Path) -> Source:
    """Images, labels, and if there are any class names, marks of synthetic images and groups.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    if path.suffix.lower() in IMAGE_ENDINGS:
        raise DataError("this is one image; give the folder it is in", file=path)
    if not is_zipfile(path):  # numpy would take it for pickled objects and advise to load those, which can run code
        raise DataError("not a readable .npz file; mend or replace it, or give a folder of class folders", file=path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # whatever damaged bytes make numpy, zipfile and zlib stumble over
        reason = str(error) or type(error).__name__
        raise DataError(f"not a readable .npz file ({reason}); mend or replace it", file=path) from error
    splits: dict[str, Reader] = {}
    for split in SPLIT_NAMES:
        if f"{split}_images" in arrays:
            splits[split] = _arrays(path, split, arrays)
    if "train" not in splits:
        raise DataError(
            f"train_images and train_labels are missing; there are {', '.join(arrays) or 'none'}", file=path
        )
    classes = 1 + max(int(reader.labels.max(initial=-1)) for reader in splits.values())
    names = tuple(str(name) for name in arrays.get("class_names", np.arange(classes)))
    if len(names) < classes:
        raise DataError(f"class_names has {len(names)} names, but the labels reach {classes - 1}", file=path)
    groups, group_names = _groups(path, arrays, splits)
    return Source(splits, names, _synthetic(path, arrays), groups, group_names)


def _synthetic(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    marks = arrays.get("train_synthetic")
    if marks is not None and (marks.dtype != bool or marks.shape != arrays["train_labels"].shape):
        raise DataError(
            f"train_synthetic must be true or false for each training image, not {marks.dtype} {list(marks.shape)}",
            file=path,
        )
    return marks


def _groups(
    path: Path, arrays: Mapping[str, np.ndarray], splits: Mapping[str, Reader]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """`train_groups` and the like of the splits that have them, and the groups' names."""
    found: dict[str, np.ndarray] = {}
    for split, reader in splits.items():
        groups = arrays.get(f"{split}_groups")
        if groups is None:
            continue
        if groups.shape != reader.labels.shape or groups.dtype.kind not in "iu" or (len(groups) and groups.min() < 0):
            raise DataError(
                f"{split}_groups must be {len(reader.labels)} whole numbers from 0, not {groups.dtype}"
                f" {list(groups.shape)}",
                file=path,
            )
        found[split] = groups.astype(np.int64)
    if not found:
        return {}, ()
    most = 1 + max(int(groups.max(initial=-1)) for groups in found.values())
    names = tuple(str(name) for name in arrays.get("group_names", np.arange(most)))
    if len(names) < most:
        raise DataError(f"group_names has {len(names)} names, but the groups reach {most - 1}", file=path)
    return found, names


def _arrays(path: Path, split: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    images, labels = arrays[f"{split}_images"], arrays.get(f"{split}_labels")
    if labels is None:
        raise DataError(f"the file has {split}_images but no {split}_labels", file=path)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise DataError(
            f"{split}_images must be uint8 [N, H, W, 3] or [N, H, W], not {images.dtype} {list(images.shape)}",
            file=path,
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise DataError(
            f"{split}_labels must be {len(images)} whole numbers from 0, not {labels.dtype} {list(labels.shape)}",
            file=path,
        )
    return Arrays(rgb(images), labels.astype(np.int64))
