"""An artificial group for images of which none is known: the colour of a border that is painted around each.

With `data.correlation` any data set becomes one whose classes go with something that has nothing to do with them, as
coloured digits are made for studies of spurious correlation (Arjovsky et al., Invariant Risk Minimization, 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from augkit.errors import DataError
from augkit.lab.readers import SPLIT_NAMES, Reader, Source

COLOURS = {"red": (200, 40, 40), "blue": (40, 80, 200)}
"""The groups and what their borders look like, RGB."""
PART = 16
"""A border is this part of the image's side wide, at least a pixel."""


@dataclass(frozen=True)
class Bordered:
    """Images of a reader, each cut to the square in its middle, with a border in the colour of its group [N] int64."""

    reader: Reader
    groups: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.reader.labels

    def read(self, i: int) -> np.ndarray:
        image = self.reader.read(i)
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        width = max(1, side // PART)
        painted = np.empty((side, side, 3), np.uint8)
        painted[:] = list(COLOURS.values())[int(self.groups[i])]
        inner = slice(width, side - width)
        painted[inner, inner] = image[top : top + side, left : left + side][inner, inner]
        return painted


def with_borders(source: Source, seed: int) -> Source:
    """The source with half of each class's images in either group, in each split; which ones depends on the seed.

    Raises:
        DataError: the source has groups of its own.
    """
    if source.groups:
        raise DataError("data.groups: border is for data without groups, and these have some: leave it out")
    splits: dict[str, Reader] = {}
    groups: dict[str, np.ndarray] = {}
    for number, name in enumerate(SPLIT_NAMES):
        if name not in source.splits:
            continue
        reader, random = source.splits[name], np.random.RandomState([seed, number])
        groups[name] = np.empty(len(reader.labels), np.int64)
        for label in np.unique(reader.labels):
            own = random.permutation(np.flatnonzero(reader.labels == label))
            groups[name][own] = np.arange(len(own)) % len(COLOURS)
        splits[name] = Bordered(reader, groups[name])
    return replace(source, splits=splits, groups=groups, group_names=tuple(COLOURS))
