"""How far two sides' features lie apart, as Gaussians (Fréchet's distance)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augkit_diffusion.telling_apart import FEWEST, LARGEST, balanced, spread

SHUFFLES = 8
"""Times that the sides are dealt out by chance."""


@dataclass(frozen=True)
class Apart:
    """How far two sides lie apart, in the units of the features, squared."""

    distance: float
    by_chance: float
    """The same with the sides dealt out by chance: what so few images alone make of no difference."""
    images: int
    """On each side."""
    dimensions: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Fréchet's distance of the Gaussians with the means and covariances of features [N, D] and [M, D], squared.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), Dowson and Landau, 1982; of a network's features it is the FID (Heusel et
    al., NeurIPS 2017). The trace of the root is the sum of the singular values of A A'^T where C = A^T A, and A needs
    no more rows than there are images or dimensions.
    """
    roots: list[np.ndarray] = []
    for values in (one, other):
        centred = (values - values.mean(0)) / max(1, len(values) - 1) ** 0.5
        roots.append(np.asarray(np.linalg.qr(centred, mode="r")) if len(values) > values.shape[1] else centred)
    between = float(((one.mean(0) - other.mean(0)) ** 2).sum())
    within = sum(float((root**2).sum()) for root in roots)
    common = float(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())
    return max(0.0, between + within - 2 * common)


def apart(one: np.ndarray, labels: np.ndarray, other: np.ndarray, others: np.ndarray) -> Apart | None:
    """How far two sides lie apart, with as many images of each class on both; None with fewer than `FEWEST` on a side.

    The distance of few images is too large, and by more the more dimensions there are (Chong and Forsyth, CVPR 2020),
    so `by_chance` stands beside it: that of sides without a difference, from the same images.

    Args:
        one: [N, D] features.
        labels: [N] classes.
        other: [M, D] features of the other side.
        others: [M] their classes.
    """
    mine, theirs = balanced(labels, others, LARGEST)
    if len(mine) > LARGEST:
        mine, theirs = (spread(part, LARGEST) for part in (mine, theirs))
    if len(mine) < FEWEST:
        return None
    first, second = one[mine].astype(np.float64), other[theirs].astype(np.float64)
    random, by_chance = np.random.default_rng(0), []
    for _ in range(SHUFFLES):
        swap = random.integers(0, 2, (len(first), 1)).astype(bool)  # the two images of a place are of one class
        by_chance.append(frechet(np.where(swap, second, first), np.where(swap, first, second)))
    return Apart(frechet(first, second), float(np.mean(by_chance)), len(first), first.shape[1])
