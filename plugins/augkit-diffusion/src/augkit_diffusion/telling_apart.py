"""Whether synthetic images can be told from real ones: a domain classifier, and a map of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FOLDS = 5
MOST = 200
"""Images of a class on each side that the domain classifier sees, at most."""
FEWEST = 10
"""Images on each side below which nothing is said."""
LARGEST = 2000
"""The same of all classes together."""
SHUFFLES = 30
DOTS = 700
"""Images on each side of a map, at most."""
Z = 1.959964


@dataclass(frozen=True)
class Told:
    """How often the side of an image was guessed right; half of the images are on each side, so 0.5 is chance."""

    accuracy: float
    error: float
    """Standard error."""
    images: int
    inflation: float = 1.0
    """How much larger the error is than that of as many independent answers."""

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval (Wilson's)."""
        return self._end(-1)

    @property
    def high(self) -> float:
        """Its upper end."""
        return self._end(1)

    def _end(self, sign: int) -> float:
        n, p = self.images / self.inflation**2, self.accuracy
        half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return (p + Z * Z / (2 * n) + sign * half) / (1 + Z * Z / n)

    @property
    def words(self) -> str:
        """What may be said of it."""
        if self.low > 0.5:
            return "can be told apart"
        if self.high >= 0.5:
            return "are not seen to be told apart: the interval holds 50 %"
        return "are told apart less often than by guessing"

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "low": self.low, "high": self.high, "words": self.words}


def told(right: np.ndarray, inflation: float = 1.0) -> Told:
    """Of answers [n] bool, n > 0."""
    share = float(right.mean())
    return Told(share, inflation * math.sqrt(share * (1 - share) / len(right)), len(right), inflation)


def balanced(labels: np.ndarray, others: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of as many images of each class on both sides, at most `most` of a class; spread over all of them.

    Args:
        labels: [N] int64 of one side.
        others: [M] int64 of the other.
        most: of a class.
    """
    mine: list[np.ndarray] = []
    theirs: list[np.ndarray] = []
    for label in np.intersect1d(labels, others):
        one, other = np.flatnonzero(labels == label), np.flatnonzero(others == label)
        count = min(len(one), len(other), most)
        mine.append(spread(one, count))
        theirs.append(spread(other, count))
    empty = np.zeros(0, np.int64)
    return np.concatenate([empty, *mine]), np.concatenate([empty, *theirs])


def spread(places: np.ndarray, count: int) -> np.ndarray:
    """`count` of some places, evenly spread."""
    return np.asarray(places[np.linspace(0, len(places) - 1, count).round().astype(int)] if count else places[:0])


def tell_apart(
    one: np.ndarray, labels: np.ndarray, other: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Let a linear classifier tell two sides apart, each image guessed by one that has not seen it.

    Logistic regression on standardised features, in `FOLDS` folds; both sides have as many images of each class, so
    that classes say nothing. Answers of one classifier hang together, so that their mean varies more than that of
    independent ones; how much more is measured with the sides dealt out by chance, `SHUFFLES` times.

    Args:
        one: [N, D] features.
        labels: [N] classes.
        other: [M, D] features of the other side.
        others: [M] their classes.

    Returns:
        [n] bool, whether the side of each image that took part was guessed right; [n] its class; and `inflation` of
        `Told`. None with fewer than `FEWEST` on a side.
    """
    mine, theirs = balanced(labels, others, MOST)
    if len(mine) > LARGEST:
        mine, theirs = (spread(part, LARGEST) for part in (mine, theirs))  # the same classes: both are in one order
    if len(mine) < FEWEST:
        return None
    inputs = np.concatenate([one[mine], other[theirs]]).astype(np.float64)
    classes = np.concatenate([labels[mine], others[theirs]])
    count = len(mine)
    side = np.repeat([0, 1], [count, count])
    # in turn within each side, so that every fold has its share of both and of every class
    fold = np.tile(np.arange(count) % FOLDS, 2)
    right = _right(inputs, side, fold)
    random = np.random.default_rng(0)
    by_chance = []
    for _ in range(SHUFFLES):
        swap = random.integers(0, 2, count).astype(bool)  # the two images of a place are of one class and one fold
        dealt = np.where(np.tile(swap, 2), 1 - side, side)
        by_chance.append(_right(inputs, dealt, fold).mean())
    variance = float(np.mean((np.array(by_chance) - 0.5) ** 2)) / (0.25 / len(side))
    return right, classes, max(1.0, math.sqrt(variance))


def _right(inputs: np.ndarray, side: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """[n] bool: whether each image's side was guessed right by a classifier of the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.zeros(len(side), bool)
    for number in range(FOLDS):
        own = fold == number
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        model.fit(inputs[~own], side[~own])
        found[own] = model.predict(inputs[own]) == side[own]
    return found


def plane(features: np.ndarray, method: str = "tsne") -> np.ndarray:
    """[N, D] features as points [N, 2]: by t-SNE from their first principal components, or these alone ("pca").

    The same for the same features on one machine.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    count = min(50, *scaled.shape)
    if count < 2:
        return np.zeros((len(features), 2))
    parts = PCA(count, svd_solver="full").fit_transform(scaled)
    if method == "pca" or len(features) < 12:
        return np.asarray(parts[:, :2])
    perplexity = min(30.0, (len(features) - 1) / 3)
    return np.asarray(TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(parts))


def for_map(labels: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of both sides' images for a map, at most `DOTS` on a side; each class has its share on each side."""
    return _share(labels), _share(others)


def _share(labels: np.ndarray) -> np.ndarray:
    present: Sequence[int] = np.unique(labels).tolist()
    most = max(1, DOTS // max(1, len(present)))
    chosen = [spread(own, min(most, len(own))) for label in present if len(own := np.flatnonzero(labels == label))]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))
