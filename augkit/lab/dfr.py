"""Deep feature re-weighting: a last layer that is fitted anew, on as many images of each class in each group.

Kirichenko, Izmailov and Wilson, Last layer re-training is sufficient for robustness to spurious correlations, ICLR
2023; for more than two classes with a softmax.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from augkit.errors import DataError
from augkit.lab.embeddings import Embeddings
from augkit.lab.heads import linear_layer

PASSES = 200
"""Over a subset, at most; the solver stops earlier once coefficients move by less than a thousandth."""
Positive = Annotated[float, Field(gt=0)]


def dfr(
    model: nn.Module,
    *,
    embeddings: Callable[[str], Embeddings],
    group_names: tuple[str, ...],
    seed: int,
    fit_on: Literal["validation", "training"] = "validation",
    subsets: Annotated[int, Field(ge=1)] = 20,
    c: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
) -> nn.Module:
    """The last layer becomes the mean of L1 logistic regressions on group-balanced subsets (DFR, ICLR 2023).

    Embeddings are standardised by all images that it fits on. A subset holds as many images of each class in each group
    as the smallest of these cells has; cells without an image are left out. Of several `c` (inverse strengths of the
    penalty) the one is taken whose fit on one subset has the best accuracy in its worst cell, judged by images that it
    was not fitted on: with `fit_on: validation` half of those, with `training` (DFR_tr) the validation images. Ties go
    to the better mean over cells, then to the stronger penalty.

    Raises:
        DocumentError: the last layer is not one linear layer with a bias.
        DataError: a class has no image to fit on.
    """
    head = linear_layer(model)
    random = np.random.RandomState(seed % 2**32)
    found = embeddings("val" if fit_on == "validation" else "train")
    low, scale = found.values.mean(0, np.float64), found.values.std(0, np.float64)
    scale = np.where(scale > 0, scale, 1)

    def table(given: Embeddings) -> _Table:
        assert given.groups is not None  # the lab refuses such a run
        return _Table((given.values - low) / scale, given.labels, given.labels * len(group_names) + given.groups)

    whole = fitted = judged = table(found)
    if len(c) > 1 and fit_on == "validation":
        fitted, judged = whole.halves(random)
    elif len(c) > 1:
        judged = table(embeddings("val"))
    missing = np.setdiff1d(np.arange(head.out_features), fitted.labels)
    if len(missing):
        raise DataError(f"dfr needs {fit_on} images of every class, and class {missing[0]} has none: hold others out")
    best = c[0] if len(c) == 1 else _choose(sorted(c), fitted, judged, random)
    fits = [_fit(whole, whole.balanced(random), best, random) for _ in range(subsets)]
    weight, bias = (np.mean([fit[part] for fit in fits], axis=0) for part in (0, 1))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight / scale))
        head.bias.copy_(torch.from_numpy(bias - weight @ (low / scale)))
    return head


@dataclass(frozen=True)
class _Table:
    """Images to fit on or to judge by."""

    values: np.ndarray
    """[n, D] float64 standardised embeddings."""
    labels: np.ndarray
    cells: np.ndarray
    """[n] int64: the class in a group of each."""

    def part(self, rows: np.ndarray) -> _Table:
        """Some of the images."""
        return _Table(self.values[rows], self.labels[rows], self.cells[rows])

    def halves(self, random: np.random.RandomState) -> tuple[_Table, _Table]:
        """Each cell cut into halves, by chance; the odd image goes to the first."""
        first, second = [], []
        for cell in np.unique(self.cells):
            own = random.permutation(np.flatnonzero(self.cells == cell))
            first.append(own[: (len(own) + 1) // 2])
            second.append(own[(len(own) + 1) // 2 :])
        return self.part(np.sort(np.concatenate(first))), self.part(np.sort(np.concatenate(second)))

    def balanced(self, random: np.random.RandomState) -> np.ndarray:
        """[n] sorted positions of as many images of each cell as the smallest has."""
        cells, counts = np.unique(self.cells, return_counts=True)
        kept = [random.permutation(np.flatnonzero(self.cells == cell))[: counts.min()] for cell in cells]
        return np.sort(np.concatenate(kept))


def _choose(strengths: list[float], fitted: _Table, judged: _Table, random: np.random.RandomState) -> float:
    """The c whose fit serves its worst cell best."""
    rows, scores = fitted.balanced(random), []
    for strength in strengths:
        weight, bias = _fit(fitted, rows, strength, random)
        right = (judged.values @ weight.T + bias).argmax(1) == judged.labels
        cells = [float(right[judged.cells == cell].mean()) for cell in np.unique(judged.cells)]
        scores.append((min(cells, default=0.0), float(np.mean(cells)) if cells else 0.0, -strength))
    return -max(scores)[2]


def _fit(table: _Table, rows: np.ndarray, c: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [C, D] and intercepts [C] of one logistic regression with softmax."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # up to 1.7 scikit-learn was told the penalty by name
    penalty: dict[str, Any] = {"penalty": "l1"} if LogisticRegression().l1_ratio is None else {"l1_ratio": 1.0}
    model = LogisticRegression(
        C=c, solver="saga", max_iter=PASSES, tol=1e-3, random_state=random.randint(2**31), **penalty
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(table.values[rows], table.labels[rows])
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # of two classes it tells the second from the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
