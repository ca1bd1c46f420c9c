"""Images that a list names, a line for each: one's own lists, ImageNet-LT's and Places-LT's, and iNaturalist's JSON.

A line is `PATH LABEL`, the label being its last word, or with tabs `PATH<TAB>LABEL<TAB>GROUP`.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from augkit.errors import DataError, nearest
from augkit.lab.readers import SPLIT_NAMES, Files, Source

CLASSES = "classes.txt"
"""Beside a list whose labels are numbers: the name of class 0, of class 1 and so on, a line each."""
LOOKED_AT = 16
"""Images of a split whose files are looked for when the split is opened."""


class Under(Sequence[Path]):
    """Paths [N] below a folder, kept as the words of their list: iNaturalist's take 51 MB, as Path objects 134 more."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> Under: ...
    def __getitem__(self, i: int | slice) -> Path | Under:
        return Under(self.root, self.names[i]) if isinstance(i, slice) else self.root / self.names[i]


@dataclass(frozen=True)
class Listed(Files):
    """Image files that a list names; one that is not there is told by the list's line."""

    origin: Path = Path()
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """[N] int64 line numbers in `origin`, from 1; 0 where lines say nothing, as in JSON."""

    def read(self, i: int) -> np.ndarray:
        self.look(i)
        return super().read(i)

    def look(self, i: int) -> None:
        """Raise a DataError if the file of an image is not there."""
        if not self.paths[i].is_file():
            raise DataError(
                f'the image "{self.paths[i]}" is listed here and there is no such file; mend the list, or set data.root'
                " to the folder that holds the images",
                file=self.origin,
                line=int(self.lines[i]) or None,
            )


class Rows(NamedTuple):
    """What a list says: N images in its order."""

    names: list[str]
    labels: list[str]
    groups: list[str] | None
    lines: np.ndarray


def listed(root: Path, names: Sequence[str], labels: np.ndarray, origin: Path, lines: np.ndarray) -> Listed:
    """A reader of the images `names` below `root`; some of the files are looked for at once.

    Raises:
        DataError: one of these is not there.
    """
    reader = Listed(Under(root, names), labels, origin=origin, lines=lines)
    for i in np.unique(np.linspace(0, len(names) - 1, LOOKED_AT).astype(int)) if names else ():
        reader.look(int(i))
    return reader


def open_list(train: Path, root: Path | None = None, *, named_by_folder: bool = False) -> Source:
    """The data set of a list file, and of the lists beside it that are called `val` and `test` where it says `train`.

    Args:
        train: such as `ImageNet_LT_train.txt`; without `train` in its name it is the only list.
        root: the folder that the paths in the lists begin at; by default that of the lists.
        named_by_folder: name each class by the folders between an image's first folder and its file.

    Raises:
        DataError: a line is wrong, an image is in two lists or has two labels, or an image's file is not there.
    """
    place = root or train.parent
    lists = {"train": train, **_beside(train)}
    if "val" in lists and "test" not in lists:
        lists["test"] = lists.pop("val")  # as in folders: of two splits the one that is held out is the test set
    rows = {split: read_list(path) for split, path in lists.items()}
    _refuse_repeated(lists, rows, place)
    labels, names = _labels(lists, rows)
    if named_by_folder:
        names = _by_folder(rows["train"].names, labels["train"], names)
    groups, group_names = _groups(lists, rows)
    splits = {
        split: listed(place, found.names, labels[split], lists[split], found.lines) for split, found in rows.items()
    }
    return Source(splits, names, groups=groups, group_names=group_names)


def _beside(train: Path) -> dict[str, Path]:
    before, said, after = train.name.rpartition("train")
    found: dict[str, Path] = {}
    for split in ("val", "test") if said else ():
        names = [train.with_name(before + name + after) for name in SPLIT_NAMES[split]]
        there = [path for path in names if path.is_file()]
        found |= {split: there[0]} if there else {}
    return found


def read_list(path: Path) -> Rows:
    """The lines of a list.

    Raises:
        DataError: the file cannot be read or is empty, or a line is not of its form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"not a readable list of images ({error}); mend or replace it", file=path) from error
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]
    if not numbered:
        raise DataError("the list names no image; write a line PATH LABEL for each", file=path)
    tabs = "\t" in numbered[0][1]
    parts = [line.strip("\r ").split("\t") if tabs else line.rsplit(None, 1) for _, line in numbered]
    wanted = len(parts[0]) if tabs else 2
    for (number, line), part in zip(numbered, parts, strict=True):
        if len(part) != wanted or wanted > 3 or not all(part):
            form = "PATH<TAB>LABEL or PATH<TAB>LABEL<TAB>GROUP, alike in all lines" if tabs else "PATH LABEL"
            raise DataError(f'a line must be {form}, not "{line.strip()[:80]}"', file=path, line=number)
    columns = [list(column) for column in zip(*parts, strict=True)]
    lines = np.fromiter((number for number, _ in numbered), np.int64, len(numbered))
    return Rows(columns[0], columns[1], columns[2] if wanted == 3 else None, lines)


def _refuse_repeated(lists: Mapping[str, Path], rows: Mapping[str, Rows], place: Path) -> None:
    """Raise if an image is in two splits, as what trains must not measure, or in one with two labels."""
    before: dict[str, dict[str, int]] = {}
    for split, found in rows.items():
        first: dict[str, int] = {}
        for i, written in enumerate(found.names):
            name = _one_way(written, place)
            for other, known in before.items():
                if name in known:
                    there = f"{lists[other].name}:{rows[other].lines[known[name]]}"
                    raise DataError(
                        f'"{written}" is in another list too ({there}), and an image must not both train and measure:'
                        " remove one of the lines",
                        file=lists[split],
                        line=int(found.lines[i]),
                    )
            j = first.setdefault(name, i)
            if found.labels[j] != found.labels[i]:
                raise DataError(
                    f'"{written}" has the label "{found.labels[i]}" here and "{found.labels[j]}" in line'
                    f" {found.lines[j]}: remove one of the lines",
                    file=lists[split],
                    line=int(found.lines[i]),
                )
        before[split] = first


def _one_way(name: str, place: Path) -> str:
    """The same for all ways of writing a path; links are not followed, which would ask the disk about every image."""
    if name[0] not in "./" and "/." not in name and "//" not in name:
        return name
    return os.path.relpath(place / name, place)


def _labels(lists: Mapping[str, Path], rows: Mapping[str, Rows]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels as numbers by split, and the names of the classes."""
    said = sorted({label for found in rows.values() for label in set(found.labels)})
    _refuse_negative(lists, rows, said)
    if not all(label.isdecimal() and label.isascii() for label in said):
        names = tuple(sorted(set(rows["train"].labels)))
        return {split: numbers(found.labels, names, lists[split], found.lines) for split, found in rows.items()}, names
    _refuse_far(lists, rows)
    labels = {split: np.array(found.labels).astype(np.int64) for split, found in rows.items()}
    least, most = min(int(some.min()) for some in labels.values()), max(int(some.max()) for some in labels.values())
    if least > 0:
        raise DataError(f"labels begin at {least}; count classes from 0", file=lists["train"])
    written = lists["train"].with_name(CLASSES)
    names = tuple(map(str, range(most + 1)))
    if written.is_file():
        names = tuple(written.read_text(encoding="utf-8-sig").splitlines())
        if len(names) <= most or not all(names):
            raise DataError(f"{len(names)} lines of names, but the labels reach {most}; name each class", file=written)
    return labels, names


def _refuse_negative(lists: Mapping[str, Path], rows: Mapping[str, Rows], said: Sequence[str]) -> None:
    """Raise if all labels are whole numbers and one is below 0: as names they would not be what was meant."""
    below = {label for label in said if label[0] == "-"}
    if not below or not all(label.removeprefix("-").isdecimal() and label.isascii() for label in said):
        return
    for split, found in rows.items():
        i = next((i for i, label in enumerate(found.labels) if label in below), None)
        if i is not None:
            raise DataError(
                f"the label is {found.labels[i]}; count classes from 0 without gaps",
                file=lists[split],
                line=int(found.lines[i]),
            )


def _refuse_far(lists: Mapping[str, Path], rows: Mapping[str, Rows]) -> None:
    """Raise if a label is so large that some class below it cannot have a training image."""
    images = len(rows["train"].labels)
    for split, found in rows.items():
        far = {label for label in set(found.labels) if len(label) > len(str(images)) or int(label) >= images}
        first = next((i for i, label in enumerate(found.labels) if label in far), None) if far else None
        if first is not None:
            raise DataError(
                f"there are {images} training images and the label is {found.labels[first]}, so that a class has none:"
                " count classes from 0 without gaps",
                file=lists[split],
                line=int(found.lines[first]),
            )


def numbers(words: Sequence[str], names: Sequence[str], origin: Path, lines: np.ndarray) -> np.ndarray:
    """[N] int64 positions of words [N] in `names`.

    Raises:
        DataError: a word is none of them.
    """
    place = {name: number for number, name in enumerate(names)}
    found = [place.get(word, -1) for word in words]
    if -1 in found:
        i = found.index(-1)
        raise DataError(
            f'"{words[i]}" is not among the names of the training images.{nearest(words[i], names)}'.rstrip(".")
            + "; mend the line",
            file=origin,
            line=int(lines[i]),
        )
    return np.array(found, dtype=np.int64)


def _groups(lists: Mapping[str, Path], rows: Mapping[str, Rows]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    said = {split: found.groups for split, found in rows.items() if found.groups is not None}
    names = tuple(sorted({group for groups in said.values() for group in groups}))
    return {split: numbers(groups, names, lists[split], rows[split].lines) for split, groups in said.items()}, names


def _by_folder(images: Sequence[str], labels: np.ndarray, numbered: tuple[str, ...]) -> tuple[str, ...]:
    """'train/airfield/4851.jpg' names its class airfield; numbers stay where that does not tell all classes apart."""
    found, first = np.unique(labels, return_index=True)
    names = list(numbered)
    for label, i in zip(found, first, strict=True):
        names[label] = "/".join(images[i].split("/")[1:-1]) or names[label]
    return tuple(names) if len(set(names)) == len(names) else numbered


def open_coco(lists: Mapping[str, Path], root: Path) -> Source:
    """Splits whose images, labels and class names stand in JSON files of COCO's form, as iNaturalist publishes them.

    Raises:
        DataError: a file is not of this form, or an image's file is not there.
    """
    read = {split: _coco(path) for split, path in lists.items()}
    names = read["train"][2]
    splits = {}
    for split, (images, labels, own) in read.items():
        if own != names:
            raise DataError(f"its categories are not those of {lists['train'].name}", file=lists[split])
        splits[split] = listed(root, images, labels, lists[split], np.zeros(len(images), np.int64))
    return Source(splits, names)


def _coco(path: Path) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        place = {entry["id"]: entry["file_name"] for entry in data["images"]}
        found = [(place[entry["image_id"]], entry["category_id"]) for entry in data["annotations"]]
        categories = sorted(data["categories"], key=lambda entry: entry["id"])
        number = {entry["id"]: i for i, entry in enumerate(categories)}
        labels = np.array([number[label] for _, label in found], dtype=np.int64)
        return [name for name, _ in found], labels, tuple(str(entry["name"]) for entry in categories)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"no images, annotations and categories can be read here ({reason})", file=path) from error
