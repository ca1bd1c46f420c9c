"""Images to show a policy on: some of a data set's, made squares of one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from augkit.errors import DataError
from augkit.lab.folders import DeeperError
from augkit.lab.readers import IMAGE_ENDINGS, UNREADABLE, Files, Reader
from augkit.lab.sources import open_source
from augkit.report.preview import Samples

MOST_BROKEN = 100
"""Unreadable images after which no others are looked for: a preview is quick, however large the data."""


def sample(data: str, *, count: int = 8, size: int | None = None, seed: int = 0, each: int = 1) -> Samples:
    """Take `count` images, from as many classes as there are, and make them squares of one size.

    Args:
        data: a folder of class folders, a flat folder of images, or any other source of the lab's (`digits`, an .npz).
        size: the side in pixels; by default the median of the chosen images' shorter sides, between 32 and 224.
        each: images of a class at least, where it has so many: of more than `count / each` classes some are shown,
            from the most frequent to the rarest.

    Raises:
        DataError: there are no images, or none that can be read.
    """
    reader, class_names = _open(data)
    order = np.random.default_rng(seed).permutation(len(reader.labels))
    order = order[np.isin(reader.labels[order], _classes(reader.labels, max(1, count // each)))]
    wanted = reader.labels[order[_spread(reader.labels[order], count)]]
    arrays, broken = _readable(reader, order, wanted)
    if not arrays:
        raise _none(reader, broken)
    place = Path(data).expanduser()
    base = place if place.is_dir() else place.parent
    index = np.array(sorted(arrays, key=lambda i: (reader.labels[i], i)))
    pictures = [Image.fromarray(np.ascontiguousarray(arrays[int(i)])) for i in index]
    side = size or min(224, max(32, int(np.median([min(picture.size) for picture in pictures]))))
    squares = [np.array(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)) for picture in pictures]
    return Samples(
        torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(reader.labels[index].astype(np.int64)),
        torch.from_numpy(index.astype(np.int64)),
        class_names,
        tuple(np.bincount(reader.labels, minlength=len(class_names)).tolist()),
        tuple(_name(reader, int(i), base) for i in index) if isinstance(reader, Files) else (),
        tuple(_name(reader, i, base) for i in sorted(broken)),
    )


def _readable(
    reader: Reader, order: np.ndarray, wanted: np.ndarray
) -> tuple[dict[int, np.ndarray], dict[int, Exception]]:
    """Images by their positions, one for each of the `wanted` labels, and why others could not be read.

    For an unreadable image the next of its class in `order` is taken, until `MOST_BROKEN` were met.
    """
    waiting = {int(label): iter(order[reader.labels[order] == label].tolist()) for label in np.unique(wanted)}
    arrays: dict[int, np.ndarray] = {}
    broken: dict[int, Exception] = {}
    for label in wanted.tolist():
        for i in waiting[label]:
            try:
                arrays[i] = reader.decode(i) if isinstance(reader, Files) else reader.read(i)
                break
            except (*UNREADABLE, DataError) as error:
                broken[i] = error
            if len(broken) >= MOST_BROKEN:
                break
    return arrays, broken


def _none(reader: Reader, broken: dict[int, Exception]) -> DataError:
    """Why there is nothing to show."""
    if not broken:
        return DataError("there are no images in the data")
    first, reason = min(broken.items(), key=lambda item: item[0])
    if not isinstance(reader, Files):
        return DataError(str(reason))
    if len(broken) == 1:
        return DataError(f"the image cannot be read ({reason}); mend or remove the file", file=reader.paths[first])
    others = f"nor can any other of the {len(broken)} that were tried"
    return DataError(f"the image cannot be read ({reason}), {others}; mend the files", file=reader.paths[first])


def _name(reader: Reader, i: int, base: Path) -> str:
    """An image's file from the data's folder on, in printable characters; its number if it has no file."""
    if not isinstance(reader, Files):
        return f"image {i}"
    path = reader.paths[i]
    name = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def _open(data: str) -> tuple[Reader, tuple[str, ...]]:
    folder = Path(data).expanduser()
    if folder.is_dir() and not any(child.is_dir() for child in folder.iterdir()):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
        if not paths:
            raise DataError(f"no image file ({', '.join(IMAGE_ENDINGS)}) lies in the folder", file=folder)
        return Files(paths, np.zeros(len(paths), dtype=np.int64)), (folder.resolve().name,)
    try:
        source = open_source(data)
    except DeeperError as error:  # a preview knows no groups
        raise DeeperError(error.root, error.inner, groups=False) from error
    return source.splits["train"], source.class_names


def _classes(labels: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the classes that have images, evenly over their ranks by frequency."""
    there, counts = np.unique(labels, return_counts=True)
    if len(there) <= most:
        return there
    ranked = there[np.argsort(-counts, kind="stable")]
    return np.asarray(ranked[np.unique(np.linspace(0, len(ranked) - 1, most).round().astype(np.int64))])


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` images, taking from each class in turn."""
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        turn[where] = np.arange(len(where))
    return np.argsort(turn, kind="stable")[:count]
