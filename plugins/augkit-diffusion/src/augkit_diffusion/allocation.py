"""How many synthetic images which class, or which group of a class, gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from augkit.errors import AugkitError, DataError, ExpressionError
from augkit.strategy.expression import parse
from augkit.strategy.typing import Scope, Typed
from augkit.strategy.typing import check as check_expression
from augkit_diffusion.chunks import Cell

if TYPE_CHECKING:
    import torch

    from augkit.lab.data import Data

MOST = 10_000_000
"""Images of a class."""


def cells_of(data: Data, groups: bool) -> dict[Cell, int]:
    """The training images of each class, or with `groups` of each class in each group, those without any included.

    Raises:
        DataError: the data have no groups.
    """
    labels = data.train.labels.cpu().tolist()
    if not groups:
        counts: dict[Cell, int] = {(label, None): 0 for label in range(data.num_classes)}
        for label in labels:
            counts[label, None] += 1
        return counts
    if data.train.groups is None:
        raise DataError("--groups wants data that say each image's group; see data.groups, or leave it out")
    counts = {(label, g): 0 for label in range(data.num_classes) for g in range(len(data.group_names))}
    for label, group in zip(labels, data.train.groups.cpu().tolist(), strict=True):
        counts[label, group] += 1
    return counts


def by_target(counts: Mapping[Cell, int], target: str) -> dict[Cell, int]:
    """How many images to make so that each cell has `target` in the end; none where it has more.

    Args:
        counts: real images of each cell.
        target: an expression over `class_count` (of the cell), `class_rank` (0 for the largest cell) and `classes`
            (the number of cells), such as `500`, `max(class_count, 200)` or `max(class_count, over=classes)`.

    Raises:
        AugkitError: it is no such expression, or no number of images.
    """
    totals = _values("--target", target, counts)
    bad = next((total for total in totals if not 0 <= total <= MOST), None)  # also what is no number
    if bad is not None:
        raise AugkitError(f'--target "{target}": a class cannot have {bad:g} images; say 0 to {MOST:,}')
    return {cell: max(0, round(total) - count) for (cell, count), total in zip(counts.items(), totals, strict=True)}


def by_budget(counts: Mapping[Cell, int], budget: int, weights: str = "1") -> dict[Cell, int]:
    """Share `budget` images out in proportion to weights, by largest remainders; of equals the first cell gets more.

    Args:
        counts: real images of each cell.
        budget: images in all.
        weights: an expression, as in `by_target`; not negative, not all 0.

    Raises:
        AugkitError: these are no weights.
    """
    found = _values("--weights", weights, counts)
    if not all(0 <= weight < math.inf for weight in found) or not sum(found) > 0:
        shown = ", ".join(f"{weight:g}" for weight in found[:5])
        raise AugkitError(f'--weights "{weights}": weights are 0 or more and not all 0, but these are {shown}, ...')
    shares = [budget * weight / sum(found) for weight in found]
    given = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (given[i] - shares[i], i))
    for i in order[: budget - sum(given)]:
        given[i] += 1
    return dict(zip(counts, given, strict=True))


def allocate(
    counts: Mapping[Cell, int], target: str | None, budget: int | None, weights: str | None
) -> dict[Cell, int]:
    """`by_target` or `by_budget`, whichever was asked for; `check_request` has found nothing wrong."""
    if target is not None:
        return by_target(counts, target)
    assert budget is not None
    return by_budget(counts, budget, weights if weights is not None else "1")


def check_request(target: str | None, budget: int | None, weights: str | None) -> None:
    """Raise unless this says how many images to make; no data are needed for that.

    Raises:
        AugkitError: nothing or too much is said, or an expression cannot be read.
    """
    if target is None and budget is None:
        raise AugkitError("say how many images: --target 500 for each class in the end, or --budget 10000 in all")
    if target is not None and budget is not None:
        raise AugkitError("--target and --budget are two ways to say how many images: say one")
    if weights is not None and budget is None:
        raise AugkitError("--weights shares a --budget out: say how many images there shall be in all")
    for option, text in (("--target", target), ("--weights", weights)):
        if text is not None:
            _read(option, text, 2)


def _read(option: str, text: str, cells: int) -> Typed:
    names = {"class_count": ("classes",), "class_rank": ("classes",)}
    ranges = {"class_count": (0.0, math.inf), "class_rank": (0.0, float(cells))}
    scope = Scope(
        names=names,
        ranges=ranges,
        constants={"classes": float(cells)},
        sizes={"classes": cells},
        axes=frozenset({"classes"}),
        random=False,
    )
    try:
        return check_expression(parse(text), scope, ("classes",), option)
    except ExpressionError as error:
        raise AugkitError(f'{option} "{text}": {error}') from error


def _values(option: str, text: str, counts: Mapping[Cell, int]) -> list[float]:
    """What an expression says for each cell."""
    import torch

    from augkit.strategy.evaluate import align, evaluate

    typed = _read(option, text, len(counts))
    value = align(
        evaluate(typed, _Cells(torch.tensor(list(counts.values()), dtype=torch.float32))), typed.axes, ("classes",)
    )
    return [float(number) for number in value.expand(len(counts)).tolist()]


class _Cells:
    """What an expression over cells reads: its cells are the axis `classes`."""

    def __init__(self, counts: torch.Tensor) -> None:
        import torch

        order = torch.argsort(counts, descending=True, stable=True)
        rank = torch.empty_like(counts).scatter_(0, order, torch.arange(len(counts), dtype=torch.float32))
        self.values = {"class_count": counts, "class_rank": rank}
        self.device = counts.device

    def value(self, name: str) -> torch.Tensor:
        return self.values[name]

    def size(self, axis: str) -> int:
        return len(self.values["class_count"])

    def uniform(self, site: str, axes: tuple[str, ...], count: int) -> torch.Tensor:
        raise AssertionError("nothing here draws")

    def index(self, name: str) -> torch.Tensor:
        raise AssertionError("there are no images here")

    def count_division_by_zero(self, where: torch.Tensor) -> None:
        """A division by zero gives 0."""
