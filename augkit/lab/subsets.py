"""Which images are chosen: long-tailed subsets and what is held out, functions of labels and a seed."""

from __future__ import annotations

import hashlib

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


def index_hash(rows: np.ndarray) -> str:
    """SHA-256 of sorted indices as little-endian int64."""
    return hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()
