"""Samplers by name: which share of an epoch each class gets, and the order of an epoch's images.

A sampler is `function(class_counts, *, facts, options) -> shares`: `class_counts` [C] float64 is how many images of
each class there are, the result [C] is relative and not negative. Facts: `epoch` and `epochs`, of the stage, 0-based;
`group_counts` [C, G] float64, the same by class and group, for a sampler that returns shares [C, G] (it is refused
where no groups are known). An epoch is always as long as the data: an image of a class with a larger share than its own
comes several times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from augkit.errors import DocumentError


def uniform(class_counts: Tensor) -> Tensor:
    """Every image once: a class has the share of its images."""
    return class_counts


def square_root(class_counts: Tensor) -> Tensor:
    """Shares as the square root of a class's images (Mahajan et al., ECCV 2018)."""
    return class_counts.sqrt()


def class_balanced(class_counts: Tensor) -> Tensor:
    """Every class alike (Kang et al., ICLR 2020); each image weighs 1 / n, as CMO draws its foregrounds."""
    return torch.ones_like(class_counts)


def inverse(class_counts: Tensor) -> Tensor:
    """Shares as 1 / n: the rarest class comes most often (reversed sampling, Zhou et al., BBN, CVPR 2020)."""
    return 1 / class_counts


def group_balanced(class_counts: Tensor, *, group_counts: Tensor) -> Tensor:
    """Every class in every group alike (Idrissi et al., CLeaR 2022, who show how far such re-sampling goes)."""
    return torch.ones_like(group_counts)


SAMPLERS: Mapping[str, Callable[..., Tensor]] = {
    sampler.__name__: sampler for sampler in (uniform, class_balanced, square_root, inverse, group_balanced)
}


def checked_shares(shares: Tensor, counts: Tensor, name: str, path: str) -> np.ndarray:
    """Shares in the shape of `counts`, [C] or [C, G], float64 that sum to 1; where there is no image they are 0.

    Raises:
        DocumentError: the sampler returned something else than a share for each class.
    """
    given = torch.as_tensor(shares, dtype=torch.float64).cpu()
    if given.shape != counts.shape:
        each = f"{len(counts)} classes" if counts.ndim == 1 else f"{len(counts)} classes in {counts.shape[1]} groups"
        raise DocumentError(
            f'"{name}" returned shares of shape {list(given.shape)}, not one for each of {each}', path=path
        )
    given = torch.where(counts.cpu() > 0, given, torch.zeros_like(given))
    if not (given >= 0).all() or not 0 < float(given.sum()) < float("inf"):
        raise DocumentError(f'"{name}" returned shares that are negative, not finite or all 0', path=path)
    result: np.ndarray = (given / given.sum()).numpy()
    return result


def unit(raw: np.ndarray) -> np.ndarray:
    """[N] uint64 to [N] float64 in [0, 1), 53 bits each."""
    return np.asarray((raw >> np.uint64(11)) / 2**53)


def quotas(shares: np.ndarray, size: int, offset: float) -> np.ndarray:
    """[cells] int64 how many of `size` images each cell gets: its share, up or down by one offset in [0, 1)."""
    ends = np.round(np.cumsum(shares) * size, 6)  # so that whole numbers are whole
    ends[-1] = size
    return np.diff(np.floor(ends + offset), prepend=0).astype(np.int64)


def epoch_positions(labels: np.ndarray, shares: np.ndarray, seed: int, epoch: int) -> Tensor:
    """Positions [N] int64 of an epoch's images in their order, a function of the arguments alone.

    Labels may be any cells, such as classes by groups. Of class c come N * share images, rounded up or down by one
    random offset, so that the expectation is exact; each image of a class comes as often as any other, give or take
    one, and chance says which (Kang et al. go through a class likewise). With shares as the classes' images this is
    every image once, in the order of `data.epoch_order`.
    """
    size = len(labels)
    raw = np.random.Philox(key=[seed, epoch]).random_raw(2 * size + 1)
    counts = np.bincount(labels, minlength=len(shares))
    quota = quotas(shares, size, unit(raw[-1:])[0])
    rank = np.empty(size, np.int64)  # of each image within its class, by chance
    by_class = np.lexsort((raw[size : 2 * size], labels))
    rank[by_class] = np.arange(size) - np.repeat(np.cumsum(counts) - counts, counts)
    whole, rest = np.divmod(quota, np.maximum(counts, 1))
    chosen = np.repeat(np.arange(size), whole[labels] + (rank < rest[labels]))
    return torch.from_numpy(chosen[np.argsort(raw[:size], kind="stable")])
