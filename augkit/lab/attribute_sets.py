"""Data sets that tell more of an image than its class, of which one thing is its label and another its group."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from augkit.errors import DataError, nearest
from augkit.lab.list_files import Listed, listed
from augkit.lab.readers import IMAGE_ENDINGS, Files, Source

SPLITS = ("train", "val", "test")
"""As the split's number stands in the tables of Waterbirds and CelebA."""
WATERBIRDS = "metadata.csv"
CELEBA, PARTITION, FACES = "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"
DEFAULTS: Mapping[str, tuple[str, str]] = {"celeba": ("Blond_Hair", "Male"), "utkface": ("gender", "race")}
"""Label and group of the sets that leave them to choose."""
UTKFACE = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_.+")
AGES = (20, 40, 60)
UTKFACE_NAMES = {"gender": ("male", "female"), "race": ("white", "black", "asian", "indian", "other")}


class Choice(NamedTuple):
    """What a recipe says of label and group; None is the data set's own default."""

    label: str | None = None
    group: str | None = None
    ages: tuple[int, ...] = ()
    """First ages of the bins after the youngest, rising; none for those of `AGES`."""


def _chosen(name: str, choice: Choice) -> tuple[str, str]:
    label, group = choice.label or DEFAULTS[name][0], choice.group or DEFAULTS[name][1]
    if label == group:
        raise DataError(f'data.label and data.group are both "{label}": say another of one')
    return label, group


def open_waterbirds(root: Path) -> Source:
    """Land- and waterbirds (`y`) before land and water (`place`), as `metadata.csv` says.

    Raises:
        DataError: a line is wrong, or an image's file is not there.
    """
    table = root / WATERBIRDS
    rows: list[tuple[int, int, int]] = []
    names: list[str] = []
    lines: list[int] = []
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        lacking = {"img_filename", "y", "place", "split"} - set(reader.fieldnames or ())
        if lacking:
            raise DataError(f"the first line names no column {', '.join(sorted(lacking))}", file=table, line=1)
        for row in reader:
            cells = [row["split"], row["y"], row["place"]]
            if cells[0] not in ("0", "1", "2") or not {*cells[1:]} <= {"0", "1"} or not row["img_filename"]:
                raise DataError(
                    f"split, y and place must be 0 to 2, 0 or 1, 0 or 1, and img_filename a file, not"
                    f" {', '.join(map(str, cells))}, {row['img_filename']}",
                    file=table,
                    line=reader.line_num,
                )
            rows.append((int(cells[0]), int(cells[1]), int(cells[2])))
            names.append(row["img_filename"])
            lines.append(reader.line_num)
    facts = np.array(rows, dtype=np.int64).reshape(-1, 3)
    of = _Images(root, names, np.array(lines, np.int64), table)
    return of.source(facts[:, 0], facts[:, 1], facts[:, 2], ("landbird", "waterbird"), ("land", "water"))


def open_celeba(root: Path, choice: Choice) -> Source:
    """Faces of CelebA with one of its 40 attributes as label and another as group.

    Raises:
        DataError: there is no such attribute, a line is wrong, or an image's file is not there.
    """
    table, chosen = root / CELEBA, _chosen("celeba", choice)
    text = table.read_text(encoding="utf-8-sig").splitlines()
    known = text[1].split() if len(text) > 1 else []
    for name in chosen:
        if name not in known:
            raise DataError(f'there is no attribute "{name}".{nearest(name, known)}', file=table, line=2)
    where = [1 + known.index(name) for name in chosen]
    names, values = [], np.empty((max(0, len(text) - 2), 2), np.int64)
    for i, line in enumerate(text[2:]):
        cells = line.split()
        if len(cells) != len(known) + 1 or not {cells[at] for at in where} <= {"-1", "1"}:
            raise DataError(f"a line must be FILE and {len(known)} times -1 or 1", file=table, line=i + 3)
        names.append(cells[0])
        values[i] = [cells[at] == "1" for at in where]
    of = _Images(root / FACES, names, np.arange(len(names)) + 3, table)
    two = [(f"not {name}", name) for name in chosen]
    return of.source(_partition(root / PARTITION, names), values[:, 0], values[:, 1], two[0], two[1])


def _partition(path: Path, names: Sequence[str]) -> np.ndarray:
    """[N] int64: 0 train, 1 val, 2 test."""
    said: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = line.split()
        if cells and (len(cells) != 2 or cells[1] not in ("0", "1", "2")):
            raise DataError(f'a line must be FILE and 0, 1 or 2, not "{line[:80]}"', file=path, line=number)
        said |= {cells[0]: int(cells[1])} if cells else {}
    missing = next((name for name in names if name not in said), None)
    if missing is not None:
        raise DataError(f'"{missing}" has no line here, but attributes in {CELEBA}', file=path)
    return np.array([said[name] for name in names], dtype=np.int64)


class _Images(NamedTuple):
    """Images of all splits, in the order of the table that tells of them."""

    root: Path
    names: Sequence[str]
    lines: np.ndarray
    table: Path

    def source(
        self,
        split: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        class_names: tuple[str, ...],
        group_names: tuple[str, ...],
    ) -> Source:
        """By split [N], label [N] and group [N]."""
        splits: dict[str, Listed] = {}
        by_split: dict[str, np.ndarray] = {}
        for number, name in enumerate(SPLITS):
            rows = np.flatnonzero(split == number)
            if name == "train" and not len(rows):
                raise DataError("no image is marked as one to train on", file=self.table)
            if len(rows):
                own = [self.names[i] for i in rows.tolist()]
                splits[name] = listed(self.root, own, labels[rows], self.table, self.lines[rows])
                by_split[name] = groups[rows]
        return Source(splits, class_names, groups=by_split, group_names=group_names)


def open_utkface(root: Path, choice: Choice) -> Source:
    """Faces whose files are called `AGE_GENDER_RACE_DATE.jpg`; no split is published, so that one is held out.

    A name that lacks one of these (three of the published files) leaves its image out, which is told on stderr.

    Raises:
        DataError: label or group is none of age, gender and race, or names are not of this form.
    """
    label, group = _chosen("utkface", choice)
    ages = choice.ages or AGES
    values = {**UTKFACE_NAMES, "age": age_names(ages)}
    for name in (label, group):
        if name not in values:
            raise DataError(f'"utkface" tells no "{name}" of an image: say one of {", ".join(sorted(values))}')
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
    matches = [UTKFACE.fullmatch(path.name) for path in paths]
    told = [(path, match) for path, match in zip(paths, matches, strict=True) if match]
    left = [path.name for path, match in zip(paths, matches, strict=True) if not match]
    if not told or len(left) > len(told) // 100:
        example = f", such as {left[0]}" if left else ""
        raise DataError(
            f"{len(left)} of {len(paths)} images are not called AGE_GENDER_RACE_DATE.jpg{example}; name data.root the"
            " folder of UTKFace",
            file=root,
        )
    if left:
        print(f"{root}: left out, since their names say no age, gender and race: {', '.join(left)}", file=sys.stderr)
    numbers = {name: _told(name, [match for _, match in told], ages) for name in (label, group)}
    files = Files([path for path, _ in told], numbers[label])
    return Source({"train": files}, values[label], groups={"train": numbers[group]}, group_names=values[group])


def _told(name: str, matches: Sequence[re.Match[str]], ages: Sequence[int]) -> np.ndarray:
    found = np.array([int(match[name]) for match in matches], dtype=np.int64)
    return np.searchsorted(np.array(ages), found, side="right").astype(np.int64) if name == "age" else found


def age_names(ages: Sequence[int]) -> tuple[str, ...]:
    """'0-19', '20-39', ... and '60+' for first ages of 20, 40 and 60."""
    begins = [0, *ages]
    ends = [f"-{end - 1}" for end in ages]
    return tuple(f"{begin}{end}" for begin, end in zip(begins, [*ends, "+"], strict=True))
