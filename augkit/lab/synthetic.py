"""Images that a recipe's `sources` add to the training images: those of a store, or of any class folders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DataError, nearest
from augkit.lab.class_folders import folder_names
from augkit.lab.folders import GROUP_TABLE, class_files, read_table
from augkit.lab.readers import Files
from augkit.lab.seen import STORE

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


def open_added(folder: Path, class_names: Sequence[str], group_names: Sequence[str] | None, take: Any = None) -> Added:
    """Open `PATH/train/CLASS` if there is a `train`, else `PATH/CLASS`; classes may be absent.

    Args:
        folder: PATH.
        class_names: of the data.
        group_names: of the data, if its training images have groups. A file then says its group in its name, as
            `GROUP-000012.png`, or in a `groups.csv` in PATH.
        take: how many of each class are taken, see `SourcesRecipe`.

    Raises:
        DataError: there are no such images, a class or group is not one of the data's, an image has no group, or there
            are fewer images of a class than are to be taken.
    """
    root = folder / KEPT if (folder / KEPT).is_dir() else folder
    if not root.is_dir():
        raise DataError("the folder of sources is not there; give one of class folders", file=folder)
    if root == folder and (folder / STORE).is_file():
        raise DataError(
            "this store keeps no image: make some with augkit synth make, or leave out sources", file=folder
        )
    files = class_files(root, folder_names(class_names))
    groups = None if group_names is None else _groups(folder, files, group_names)
    if take is not None:
        chosen = _taken(files.labels, groups, class_names, group_names, take, folder)
        files = Files([files.paths[i] for i in chosen], files.labels[chosen])
        groups = None if groups is None else groups[chosen]
    digest = hashlib.sha256()
    for path in files.paths:
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
    if groups is not None:
        digest.update(groups.astype("<i8").tobytes())
    return Added(files, groups, digest.hexdigest())


def _taken(
    labels: np.ndarray,
    groups: np.ndarray | None,
    class_names: Sequence[str],
    group_names: Sequence[str] | None,
    take: Any,
    folder: Path,
) -> np.ndarray:
    """[n] int64 ascending positions of the images that are taken."""
    known, of_cell = group_names or ("",), 0 if groups is None else groups
    exactly = isinstance(take, Mapping)
    wanted = _by_name(take, class_names, "class", folder) if exactly else dict.fromkeys(class_names, take)
    chosen = [np.zeros(0, np.int64)]
    for label, name in enumerate(class_names):
        said = wanted.get(name, 0)
        if isinstance(said, Mapping) and groups is None:
            raise DataError(f'sources.take: the data have no groups, so class "{name}" takes a number', file=folder)
        numbers = _by_name(said, known, "group", folder) if isinstance(said, Mapping) else dict.fromkeys(known, said)
        for group, number in numbers.items():
            own = np.flatnonzero((labels == label) & (of_cell == known.index(group)))
            if exactly and len(own) < number:
                among = f' in group "{group}"' if groups is not None else ""
                raise DataError(
                    f'sources.take wants {number} images of class "{name}"{among}, and {len(own)} are there: make more,'
                    " or take fewer",
                    file=folder,
                )
            chosen.append(own[:number])
    return np.sort(np.concatenate(chosen))


def _by_name(said: Mapping[str, Any], known: Sequence[str], what: str, folder: Path) -> Mapping[str, Any]:
    """Raise unless every name is known."""
    unknown = next((name for name in said if name not in known), None)
    if unknown is not None:
        raise DataError(f'sources.take: there is no {what} "{unknown}".{nearest(unknown, known)}', file=folder)
    return said


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
