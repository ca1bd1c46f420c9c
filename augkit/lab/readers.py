"""What a data source gives: readers of its splits, the names of its classes, and what is known of single images."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from augkit.errors import DataError, some_of

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError)
"""What Pillow raises for a broken file."""
SCAN_SECONDS = 20.0
"""How long the broken images are counted at most, once one was met."""


class Reader(Protocol):
    """One split of a source. `read(i)` gives an RGB image [H, W, 3] uint8; `labels` is [N] int64."""

    @property
    def labels(self) -> np.ndarray: ...

    def read(self, i: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Source:
    """The splits a source has (`train`, and `val` and `test` if it has them) and the names of its classes."""

    splits: Mapping[str, Reader]
    class_names: tuple[str, ...]
    synthetic: np.ndarray | None = None
    """[N] bool: which images of `train` were generated; None if all are real."""
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    """[N] int64 of each split whose images' groups are known: positions in `group_names`."""
    group_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrays:
    """Images that are in memory: [N, H, W, 3] uint8."""

    images: np.ndarray
    labels: np.ndarray

    def read(self, i: int) -> np.ndarray:
        return np.asarray(self.images[i])


@dataclass(frozen=True)
class Files:
    """Image files, decoded with Pillow when they are asked for."""

    paths: Sequence[Path]
    labels: np.ndarray
    _scan: Lock = field(default_factory=Lock, repr=False, compare=False)
    _told: list[DataError] = field(default_factory=list, repr=False, compare=False)

    def read(self, i: int) -> np.ndarray:
        try:
            return self.decode(i)
        except UNREADABLE as error:
            with self._scan:  # readers in other threads may meet the next broken image meanwhile: one scan is enough
                if not self._told:
                    self._told.append(self._broken(self.paths[i], error))
            raise self._told[0] from error

    def decode(self, i: int) -> np.ndarray:
        """What `read` gives; of a broken file it raises one of `UNREADABLE`, and looks at no other."""
        return _decode(self.paths[i])

    def _broken(self, path: Path, error: Exception) -> DataError:
        """The first of all broken images, and how many there are; `path` is one of them."""
        broken: list[tuple[Path, Exception]] = []
        deadline, tried = time.monotonic() + SCAN_SECONDS, 0
        for tried, other in enumerate(self.paths, 1):  # noqa: B007  how far it came is told below
            try:
                _decode(other)
            except UNREADABLE as found:
                broken.append((other, found))
            if time.monotonic() > deadline:
                break
        if path not in (other for other, _ in broken):
            broken.append((path, error))
        (first, reason), whole = broken[0], tried == len(self.paths)
        advice = "mend or remove the file"
        if len(broken) > 1 or not whole:
            among = f"of {len(self.paths)}" if whole else f"or more of {len(self.paths)} ({tried} were tried)"
            advice = f"{len(broken)} {among} images are broken in all{_which(broken)}; mend or remove their files"
        return DataError(f"the image cannot be read ({reason}); {advice}", file=first)


def _which(broken: Sequence[tuple[Path, Exception]]) -> str:
    """In brackets the first files of several, below the folder that holds them all."""
    if len(broken) < 2:
        return ""
    paths = [path for path, _ in broken]
    above = os.path.commonpath([path.parent for path in paths])
    return f" ({some_of([path.relative_to(above).as_posix() for path in paths])})"


def _decode(path: Path) -> np.ndarray:
    """[H, W, 3] uint8. Of 16 bits the upper 8 count; Pillow's `convert` would make them all white."""
    with Image.open(path) as image:
        if image.mode == "F":
            raise ValueError("floating-point pixels have no known range")
        if image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
            return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
        return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Joined:
    """The images of one reader and then those of another."""

    first: Reader
    second: Reader

    @property
    def labels(self) -> np.ndarray:
        return np.concatenate([self.first.labels, self.second.labels])

    def read(self, i: int) -> np.ndarray:
        before = len(self.first.labels)
        return self.first.read(i) if i < before else self.second.read(i - before)
