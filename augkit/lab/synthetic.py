"""Images that a recipe's `sources` add to the training images: those of a store, or of any class folders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augkit.errors import DataError
from augkit.lab.class_folders import folder_names
from augkit.lab.folders import GROUP_TABLE, class_files, read_table
from augkit.lab.readers import Files

KEPT = "train"
"""The folder that holds the images, if it is there; a store keeps what filters rejected beside it."""
_NAME = re.compile(r"(?P<group>.*)-[0-9]+\.[^.]*")


@dataclass(frozen=True)
class Added:
    """Images that join the training split."""

    files: Files
    groups: np.ndarray | None
    """[N] int64, where the training images have groups."""
    digest: str
    """SHA-256 of every file's name and size."""


def open_added(folder: Path, class_names: Sequence[str], group_names: Sequence[str] | None) -> Added:
    """Open `PATH/train/CLASS` if there is a `train`, else `PATH/CLASS`; classes may be absent.

    Args:
        folder: PATH.
        class_names: of the data.
        group_names: of the data, if its training images have groups. A file then says its group in its name, as
            `GROUP-000012.png`, or in a `groups.csv` in PATH.

    Raises:
        DataError: there are no such images, a class or group is not one of the data's, or an image has no group.
    """
    root = folder / KEPT if (folder / KEPT).is_dir() else folder
    if not root.is_dir():
        raise DataError("the folder of sources is not there; give one of class folders", file=folder)
    files = class_files(root, folder_names(class_names))
    digest = hashlib.sha256()
    for path in files.paths:
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
    groups = None if group_names is None else _groups(folder, files, group_names)
    if groups is not None:
        digest.update(groups.astype("<i8").tobytes())
    return Added(files, groups, digest.hexdigest())


def _groups(folder: Path, files: Files, names: Sequence[str]) -> np.ndarray:
    table = folder / GROUP_TABLE
    said = read_table(table) if table.is_file() else None
    number = {name: i for i, name in enumerate(names)} if said else {n: i for i, n in enumerate(folder_names(names))}
    found = []
    for path in files.paths:
        if said is not None:
            group = said.get(path.relative_to(folder).as_posix())
        else:
            match = _NAME.fullmatch(path.name)
            group = match["group"] if match else None
        if group not in number:
            cure = f"name it GROUP-NUMBER{path.suffix}, or list it in a {GROUP_TABLE}" if said is None else "list it"
            told = "no group" if group is None else f'the group "{group}"'
            raise DataError(
                f"the data have groups ({', '.join(names)}) and this image has {told}: {cure}",
                file=table if said is not None and group is not None else path,
            )
        found.append(number[group])
    return np.asarray(found, np.int64)
