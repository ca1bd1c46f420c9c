"""Where images come from: digits, an .npz file, a folder, a list, a published data set, a timm dataset name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DataError, closest
from augkit.lab.archives import open_npz, rgb
from augkit.lab.attribute_sets import Choice
from augkit.lab.datasets import DATA_SETS, open_named
from augkit.lab.folders import GROUP_TABLE, open_folder
from augkit.lab.list_files import open_list
from augkit.lab.readers import Arrays, Reader, Source

TIMM_PREFIXES = ("torch/", "hfds/")
STREAMED = ("hfids/", "tfds/", "wds/")
LIST = ".txt"
LOOKED_AT = 1000
"""Neighbours of a path that is not there, among which the one that was meant is looked for."""


@dataclass(frozen=True)
class TimmDataset:
    """A data set of `timm.data.create_dataset` that can be indexed."""

    dataset: Any
    labels: np.ndarray
    name: str

    def read(self, i: int) -> np.ndarray:
        try:
            return np.asarray(self.dataset[i][0].convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f'image {i} of data set "{self.name}" cannot be read ({error})') from error


def open_source(
    source: str,
    *,
    root: str | None = None,
    download: bool = False,
    grouped: bool = False,
    choice: Choice = Choice(),  # noqa: B008  immutable
) -> Source:
    """Open a data source by name or path.

    Args:
        source: `digits`, a name of `augkit.lab.datasets.DATA_SETS`, a path to an `.npz` file, to a list of images that
            ends in `.txt`, or to a folder, or a timm dataset name such as `torch/cifar100`.
        root: where a published data set, a list's images, or a timm dataset lies, or is downloaded to.
        grouped: a folder has a level of folders above the classes, which are the images' groups.
        choice: label and group of a data set that tells more of an image than these.

    Raises:
        DataError: there is no such source, or it is not laid out as it must be.
    """
    path = Path(source).expanduser()
    if grouped and (_is_name(source) or not path.is_dir()):
        raise DataError(
            f'data.groups: folder is for a folder of GROUP/CLASS folders, not for "{source}"; an .npz file says'
            f" train_groups, a folder of class folders has a {GROUP_TABLE}"
        )
    if source in DATA_SETS:
        return open_named(source, root, choice)
    if choice != Choice():
        chosen = ", ".join(name for name, known in DATA_SETS.items() if known.chooses)
        raise DataError(f'data.label, data.group and data.ages are for {chosen}, not for "{source}": leave them out')
    if source == "digits":
        return _digits()
    if path.is_dir():
        return open_folder(path, grouped=grouped)
    if path.is_file():
        return (
            open_npz(path)
            if path.suffix.lower() != LIST
            else open_list(path, Path(root).expanduser() if root else None)
        )
    if source.startswith(TIMM_PREFIXES):
        return _timm(source, root, download)
    if source.startswith(STREAMED):
        raise DataError(f'data set "{source}" is a stream; the lab needs one that can be indexed (hfds/, torch/)')
    if "/" in source or "\\" in source or "." in source:
        raise _missing(source, path)
    near = closest(source, DATA_SETS)
    raise DataError(
        f'data source "{source}" is neither a file nor a folder, nor "digits" or another name of `augkit datasets`'
        f"{f' (such as {near})' if near else ''}, nor a timm dataset name (those begin with {', '.join(TIMM_PREFIXES)})"
    )


def _missing(source: str, path: Path) -> DataError:
    """A word that can only be meant as a path, or as the name of a timm data set without its prefix."""
    around = islice(path.parent.iterdir(), LOOKED_AT) if path.parent.is_dir() else ()
    near = closest(path.name, [child.name for child in around])
    meant = f' (did you mean "{path.parent / near}"?)' if near else ""
    seen = "" if path.is_absolute() else f" (it begins in {Path.cwd()})"
    kind = "file" if path.suffix and not source.endswith("/") else "folder"
    return DataError(
        f'there is no {kind} "{source}"{meant}: check how the path is written{seen}; published data sets have the names'
        f" of `augkit datasets`, and timm's begin with {', '.join(TIMM_PREFIXES)}"
    )


def _is_name(source: str) -> bool:
    return source == "digits" or source in DATA_SETS


def _digits() -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Source({"train": Arrays(rgb(grey), digits.target.astype(np.int64))}, tuple(str(n) for n in range(10)))


def _timm(name: str, root: str | None, download: bool) -> Source:
    from augkit.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from timm.data import create_dataset  # type: ignore[attr-defined]

    splits: dict[str, Reader] = {}
    class_names: Sequence[str] = ()
    for split, wanted in (("train", "train"), ("test", "validation")):
        try:
            dataset = create_dataset(name, root=root, split=wanted, download=download)
            labels = _labels(dataset)
        except Exception as error:  # whatever the library behind the name raises; only name and root can be mended
            reason = str(error).replace("You can use download=True", "Set data.download to true")
            raise DataError(f'data set "{name}" ({wanted}, root {root}) cannot be opened: {reason}') from error
        splits[split] = TimmDataset(dataset, labels, name)
        class_names = getattr(dataset, "classes", class_names)
    classes = 1 + max(int(reader.labels.max(initial=-1)) for reader in splits.values())
    named = class_names if len(class_names) >= classes else range(classes)
    return Source(splits, tuple(str(name) for name in named))


def _labels(dataset: Any) -> np.ndarray:
    """[N] int64: from the data set's own list where it keeps one, else by reading every item once."""
    labels = getattr(dataset, "targets", None)
    if labels is None:
        labels = [dataset[i][1] for i in range(len(dataset))]
    return np.asarray(labels, dtype=np.int64)
