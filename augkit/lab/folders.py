"""Images in class folders, and the groups that folders or a table put them into."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from augkit.errors import DataError
from augkit.lab.readers import IMAGE_ENDINGS, SPLIT_NAMES, Files, Source

GROUP_TABLE = "groups.csv"
"""At a folder's root: a line `file,group` for each image, the file as a path from there."""


class DeeperError(DataError):
    """There is a level of folders above the classes, and nobody said that they are groups."""

    def __init__(self, root: Path, inner: Path, *, groups: bool = True) -> None:
        self.root, self.inner = root, inner
        grouped = "say data.groups: folder if the outer folders are groups, or " if groups else ""
        super().__init__(
            f'class folder "{inner.parent.name}" has no image of its own but further folders, such as "{inner.name}":'
            f" {grouped}give the folder whose own folders hold the images of one class each, such as {inner.parent}",
            file=root,
        )


def open_folder(root: Path, *, grouped: bool = False) -> Source:
    """Class folders, or `train/`, `test/` and perhaps `val/` with class folders in each.

    With `grouped` there is a level of folders above the classes, and they are the images' groups.

    Raises:
        DataError: the folder is laid out otherwise, or its table of groups is wrong.
    """
    folders: dict[str, Path] = {}
    for split, names_of in SPLIT_NAMES.items():
        there = [root / name for name in names_of if (root / name).is_dir()]
        folders |= {split: there[0]} if there else {}
    if "train" not in folders:
        folders = {"train": root}
    elif "val" in folders and "test" not in folders:
        folders["test"] = folders.pop("val")  # two splits, as ImageNet has them: what is held out is the test set
    if grouped:
        return _grouped(folders, root)
    names = tuple(sorted(child.name for child in folders["train"].iterdir() if child.is_dir()))
    if not names:
        raise DataError(
            "the folder has no class folders in it; make a folder for each class and put its images there",
            file=folders["train"],
        )
    splits = {split: class_files(folder, names) for split, folder in folders.items()}
    table = root / GROUP_TABLE
    groups, group_names = _from_table(table, splits) if table.is_file() else ({}, ())
    return Source(splits, names, groups=groups, group_names=group_names)


def class_files(root: Path, names: tuple[str, ...]) -> Files:
    """The image files of class folders; classes may be absent.

    Raises:
        DataError: another folder is there, or no image.
    """
    there = sorted(child.name for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    unknown = [name for name in there if name not in names]
    if unknown:
        raise DataError(f'class folder "{unknown[0]}" is not among the training classes: {", ".join(names)}', file=root)
    _refuse_deeper(root, names)
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        folder = root / name
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS) if folder.is_dir() else []
        paths += files
        labels += [label] * len(files)
    if not paths:
        raise DataError(f"no image file ({', '.join(IMAGE_ENDINGS)}) lies in the class folders", file=root)
    return Files(paths, np.asarray(labels, dtype=np.int64))


def _refuse_deeper(root: Path, names: tuple[str, ...]) -> None:
    """Raise a DataError if the class folders hold images only in folders of their own: a level above the classes."""
    deeper: list[Path] = []
    for name in names:
        children = list((root / name).iterdir()) if (root / name).is_dir() else []
        if any(child.suffix.lower() in IMAGE_ENDINGS and child.is_file() for child in children):
            return
        deeper += sorted(child for child in children if child.is_dir())[:1]
    if deeper:
        raise DeeperError(root, deeper[0])


def _grouped(folders: Mapping[str, Path], root: Path) -> Source:
    """SPLIT/GROUP/CLASS/image. The classes are those of the training images, the groups those of any split."""
    if (root / GROUP_TABLE).is_file():
        raise DataError(
            f"data.groups: folder and {GROUP_TABLE} are two ways to say groups: remove one", file=root / GROUP_TABLE
        )
    inside = {split: _children(folder) for split, folder in folders.items()}
    group_names = tuple(sorted({group for groups in inside.values() for group in groups}))
    names = tuple(sorted({name for group in inside["train"] for name in _children(folders["train"] / group)}))
    if not names:
        raise DataError(
            "data.groups: folder wants GROUP/CLASS folders, and there are none; lay them out so, or leave it out",
            file=folders["train"],
        )
    splits: dict[str, Files] = {}
    groups: dict[str, np.ndarray] = {}
    for split, folder in folders.items():
        parts = [class_files(folder / group, names) for group in inside[split]]
        paths = [path for part in parts for path in part.paths]
        splits[split] = Files(paths, np.concatenate([part.labels for part in parts]))
        numbers = [group_names.index(group) for group in inside[split]]
        groups[split] = np.repeat(np.asarray(numbers, np.int64), [len(part.paths) for part in parts])
    return Source(splits, names, groups=groups, group_names=group_names)


def _children(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir())


def _from_table(table: Path, splits: Mapping[str, Files]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Groups of the splits that the table lists: all images of a split, or none of them."""
    said = read_table(table)
    found: dict[str, Sequence[str]] = {}
    for split, files in splits.items():
        written = [path.relative_to(table.parent).as_posix() for path in files.paths]
        missing = [name for name in written if name not in said]
        if missing and len(missing) < len(written):
            raise DataError(f'image "{missing[0]}" has no line here; give every image of {split} its group', file=table)
        if not missing:
            found[split] = [said[name] for name in written]
    if not found:
        first = splits["train"].paths[0].relative_to(table.parent).as_posix()
        raise DataError(f'no image of the folder is listed here; write files as "{first}"', file=table)
    names = tuple(sorted({group for groups in found.values() for group in groups}))
    place = {name: number for number, name in enumerate(names)}
    return {split: np.asarray([place[group] for group in groups], np.int64) for split, groups in found.items()}, names


def read_table(table: Path) -> dict[str, str]:
    """Group by file.

    Raises:
        DataError: with the line that is wrong.
    """
    said: dict[str, str] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if header[:2] != ["file", "group"]:
                raise DataError(f'the first line must be "file,group", not "{",".join(header)}"', file=table, line=1)
            for row in rows:
                if row and (len(row) < 2 or not row[1]):
                    raise DataError(f'"{row[0]}" has no group', file=table, line=rows.line_num)
                if row and said.setdefault(row[0], row[1]) != row[1]:
                    raise DataError(f'"{row[0]}" is in two groups', file=table, line=rows.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a readable table ({error}); mend or remove it", file=table) from error
    return said
