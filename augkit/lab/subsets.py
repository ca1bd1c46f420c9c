"""Which images are chosen: long-tailed subsets and what is held out, functions of labels and a seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from augkit.errors import DataError


def spare(
    rows: np.ndarray, unused: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold `count` images of each class out, of the `unused` before those of `rows`; (rest of rows, held out), sorted.

    Raises:
        DataError: a class would keep no training image.
    """
    random = np.random.RandomState(seed)
    held_out = []
    for label in np.unique(labels[rows]):
        idle, own = (part[labels[part] == label] for part in (unused, rows))
        chosen = np.concatenate([random.permutation(idle), random.permutation(own)])[:count]
        if count >= len(idle) + len(own):
            raise DataError(
                f"data.validation_per_class {count} would leave class {label} no training image: it has"
                f" {len(idle) + len(own)} in all"
            )
        held_out.append(chosen)
    taken = np.sort(np.concatenate(held_out))
    return np.setdiff1d(rows, taken), taken


def long_tailed_counts(largest: int, imbalance: float, classes: int) -> list[int]:
    """Images of each class: `int(largest * imbalance ** (-c / (classes - 1)))` for class c."""
    if classes < 2:
        return [largest] * classes
    return [int(largest * imbalance ** (-c / (classes - 1))) for c in range(classes)]


def long_tailed(rows: np.ndarray, labels: np.ndarray, imbalance: float, classes: int, seed: int) -> np.ndarray:
    """The exponential long-tailed subset of `rows`, sorted: class 0 keeps most, the last class least.

    The largest count is the largest with which every class has enough images, so the profile is always exact
    (500 for CIFAR-100). Within a class the images are the first of a shuffle by numpy's frozen `RandomState(seed)`,
    class after class: the selection of the long-tailed CIFAR papers (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019).
    """
    available = np.bincount(labels[rows], minlength=classes)
    largest = int(available.max())
    while (np.array(long_tailed_counts(largest, imbalance, classes)) > available).any():
        largest -= 1
    counts = long_tailed_counts(largest, imbalance, classes)
    if min(counts) < 1:
        raise DataError(
            f"at imbalance {imbalance:g} class {counts.index(0)} would keep no image (the largest keeps {largest}):"
            " lower data.imbalance"
        )
    random = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(counts):
        own = rows[labels[rows] == label]
        random.shuffle(own)
        chosen.append(own[:count])
    return np.sort(np.concatenate(chosen))


def hold_out(rows: np.ndarray, labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out), both sorted: of each class `round(share * n)` images, never its last one."""
    random = np.random.RandomState(seed)
    held = []
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        random.shuffle(own)
        held.append(own[: min(round(share * len(own)), len(own) - 1)])
    out = np.sort(np.concatenate(held)) if held else rows[:0]
    return np.setdiff1d(rows, out), out


def apart(rows: np.ndarray, cells: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part `rows` [n] into those that are trained on and those that sources learn from, both sorted.

    Of the n images of each of the `cells` [n] (classes, or classes in groups) `round(share * n)` are to learn from, at
    least one and never all; a single one is in both. Those of a smaller share are among those of a larger one.
    """
    random = np.random.RandomState(seed)
    kept, learnt = [], []
    for cell in np.unique(cells):
        own = random.permutation(rows[cells == cell])
        count = min(max(1, round(share * len(own))), len(own) - 1)
        kept.append(own[count:])
        learnt.append(own[: count or 1])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(learnt))


def correlated_counts(available: Sequence[int], own: int, share: float) -> list[int]:
    """Images to keep of each group of a class: as many as there can be with `round(share * n)` of n in group `own`.

    The other groups keep the rest alike, to one image; groups with more images keep that one.
    """
    groups = len(available)
    others = sorted((g for g in range(groups) if g != own), key=lambda g: -available[g])

    def split(total: int) -> list[int]:
        counts = [0] * groups
        counts[own] = math.floor(share * total + 0.5)
        for place, group in enumerate(others):
            counts[group] = (total - counts[own] + len(others) - 1 - place) // len(others)
        return counts

    low, high = 0, sum(available)  # what a total asks of each group only grows with it
    while low < high:
        middle = (low + high + 1) // 2
        fits = all(kept <= there for kept, there in zip(split(middle), available, strict=True))
        low, high = (middle, high) if fits else (low, middle - 1)
    return split(low)


def correlated(
    rows: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    share: float,
    class_names: Sequence[str],
    group_names: Sequence[str],
    seed: int,
) -> np.ndarray:
    """The largest subset of `rows`, sorted, whose classes y have `share` of their images in group y modulo groups.

    Args:
        rows: [n] positions.
        labels: [N] classes of all positions.
        groups: [N] groups of all positions.
        share: 0..1, kept to half an image in each class; the other groups share the rest alike, to one image.
        seed: which images are kept of a class in a group: the first of a shuffle by `RandomState(seed)`.

    Raises:
        DataError: there is one group, or a class has no image of a group that must have some.
    """
    number = len(group_names)
    if number < 2:
        raise DataError(f"data.correlation wants two groups or more, and the only one is {group_names[0]}")
    random, chosen = np.random.RandomState(seed), []
    for label in np.unique(labels[rows]).tolist():
        cells = [rows[(labels[rows] == label) & (groups[rows] == group)] for group in range(number)]
        own, there = label % number, [len(cell) for cell in cells]
        wanted = [share > 0 if group == own else share < 1 for group in range(number)]
        for group in range(number):
            if wanted[group] and not there[group]:
                raise DataError(
                    f'class "{class_names[label]}" has no training image of group "{group_names[group]}", so that no'
                    f" share of {share:g} can be kept: leave that class or group out of the data"
                )
        for cell, count in zip(cells, correlated_counts(there, own, share), strict=True):
            chosen.append(random.permutation(cell)[:count])
    return np.sort(np.concatenate(chosen))


def index_hash(rows: np.ndarray) -> str:
    """SHA-256 of sorted indices as little-endian int64."""
    return hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()
