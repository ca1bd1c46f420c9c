"""Choosers by name: which images of each class stand for the others, and how much each weighs.

A chooser is `function(labels, budgets, *, facts, options) -> (positions, weights)`, a function of its arguments alone.
`labels` [n] int64 are those of the images it chooses among, `budgets` [C] int64 how many of each class it takes. Of
class c `positions` [S] int64 holds `budgets[c]` different images; `weights` [S] are not negative, of any scale, and are
brought to a mean of 1. Everything is on one device, which it may wait for. Facts, each given to a function that has a
parameter of its name: `gradients` [n, C] float32, the softmax of the model's answer to the image as it is, in eval
mode, less its one-hot label, which is the gradient of its cross-entropy at the logits; `losses` [n] float32, that
cross-entropy; `seed`, another one each time. Every other keyword-only parameter is an option. A chooser that asks for
neither gradients nor losses costs no forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from augkit.errors import DocumentError

_AHEAD = 32
"""Candidates that the lazy greedy search looks at together."""
_CELLS = 1 << 22
"""Distances that are held at once."""

Choice = tuple[Tensor, Tensor]


def facility_location(labels: Tensor, budgets: Tensor, *, gradients: Tensor, weighted: bool = True) -> Choice:
    """Images whose gradients stand for all of their class (Liu and Mirzasoleiman, NeurIPS 2022).

    In each class the greedy search for the set S with the least sum over all images of the distance from their gradient
    to the nearest one of S; an image weighs as many as it is nearest to. Without `weighted` all weigh alike, as the
    authors' own scripts have it for augmented images.
    """
    positions, sizes = [], []
    for label in budgets.nonzero()[:, 0].tolist():
        own = (labels == label).nonzero()[:, 0]
        picked, size = medoids(gradients[own], int(budgets[label]))
        positions.append(own[picked])
        sizes.append(size)
    where, weights = torch.cat(positions), torch.cat(sizes)
    return where, weights if weighted else torch.ones_like(weights)


def random(labels: Tensor, budgets: Tensor, *, seed: int) -> Choice:
    """Any images of each class, all alike."""
    raw = np.random.Philox(key=seed).random_raw(len(labels)) >> np.uint64(11)  # int64 and doubles hold 53 bits
    return _highest(labels, budgets, torch.from_numpy(raw.astype(np.int64)).to(labels.device))


def max_loss(labels: Tensor, budgets: Tensor, *, losses: Tensor) -> Choice:
    """The images of each class that the model gets most wrong, the earlier of equals."""
    return _highest(labels, budgets, losses)


SUBSETS: Mapping[str, Callable[..., Choice]] = {
    chooser.__name__: chooser for chooser in (facility_location, random, max_loss)
}


def _highest(labels: Tensor, budgets: Tensor, score: Tensor) -> Choice:
    """Of each class its budget of those with the highest scores [n]."""
    order = score.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    sizes = torch.bincount(labels, minlength=len(budgets))
    rank = torch.arange(len(labels), device=labels.device) - (sizes.cumsum(0) - sizes)[labels[order]]
    where = order[rank < budgets[labels[order]]]
    return where, torch.ones(len(where), device=labels.device)


def medoids(points: Tensor, budget: int) -> Choice:
    """Greedy facility location, lazily: the gain of a point never grows, so only those that may be the best are asked.

    It picks the point that shortens the sum of distances to the nearest picked one most, again and again, which comes
    within 1 - 1/e of the best that any set of the size gains (Nemhauser, Wolsey and Fisher, Mathematical Programming
    1978; so CRAIG, Mirzasoleiman et al., ICML 2020, chooses). Distances are reckoned anew when they are needed, so
    memory grows with the number of points, not with its square.

    Args:
        points: [n, D] float32.
        budget: 1 to n.

    Returns:
        [budget] int64 in the order in which they were picked, and [budget] float32 how many points each stands for,
        itself included; they sum to n.
    """
    count = len(points)
    if budget >= count:
        return torch.arange(count, device=points.device), torch.ones(count, device=points.device)
    far = 2 * points.norm(dim=1).max()  # no distance is larger, so a first pick's gain is as the others' are
    nearest = far.expand(count).clone()
    owner = torch.zeros(count, dtype=torch.int64, device=points.device)
    most = torch.cat([_gains(points, part, nearest) for part in _blocks(count, points.device)])
    picked: list[int] = []
    for number in range(budget):
        asked = torch.zeros(count, dtype=torch.bool, device=points.device)
        while not asked[best := int(most.argmax())]:
            ahead = torch.where(asked, -torch.inf, most).topk(min(_AHEAD, count)).indices
            most[ahead] = torch.where(most[ahead].isinf(), -torch.inf, _gains(points, ahead, nearest))
            asked[ahead] = True
        distance = _distances(points, points[best : best + 1])[:, 0]
        owner = torch.where(distance < nearest, number, owner)
        nearest = torch.minimum(nearest, distance)
        most[best] = -torch.inf
        picked.append(best)
    found = torch.tensor(picked, device=points.device)
    owner[found] = torch.arange(budget, device=points.device)  # of equal points, too, each stands for itself
    return found, torch.bincount(owner, minlength=budget).to(torch.float32)


def _blocks(count: int, device: torch.device) -> tuple[Tensor, ...]:
    blocks: tuple[Tensor, ...] = torch.arange(count, device=device).split(max(1, _CELLS // count))
    return blocks


def _gains(points: Tensor, candidates: Tensor, nearest: Tensor) -> Tensor:
    """[b] by how much the sum of `nearest` [n] would shrink with each candidate."""
    return (nearest[:, None] - _distances(points, points[candidates])).clamp(min=0).sum(0)


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """[n, b] Euclidean; not by products, which lose the digits of short ones."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def checked(choice: Choice, labels: Tensor, budgets: Tensor, name: str) -> Choice:
    """Positions [S] in rising order, and weights [S] float32 with a mean of 1.

    Raises:
        DocumentError: the chooser returned something else than as many different images of each class as it was told.
    """
    where, weights = choice
    counts = torch.bincount(labels[where], minlength=len(budgets)) if len(where) else torch.zeros_like(budgets)
    if len(where.unique()) != len(where) or not torch.equal(counts, budgets):
        raise DocumentError(
            f'"{name}" must choose {int(budgets.sum())} different images, of each class as many as its budget says',
            path="subset",
        )
    weights = weights.to(torch.float32)
    if weights.shape != where.shape or not bool((weights >= 0).all()) or not 0 < float(weights.sum()) < float("inf"):
        raise DocumentError(f'"{name}" must give each image a weight that is finite and not negative', path="subset")
    order = where.argsort()
    return where[order], weights[order] * (len(weights) / weights.sum())
