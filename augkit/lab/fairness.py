"""How alike a model serves groups: accuracy by class and group, and differences between groups.

Many classes are told apart one against the rest. With groups a and a', and for each class y:

- DP, demographic parity: the largest |P(answer = y | a) - P(answer = y | a')| over pairs of groups;
- EO, equal opportunity: the same of P(answer = y | label = y, a), the true positive rates;
- ED, equalised odds: EO, and the same of the false positive rates P(answer = y | label is another, a).

`_max` is the largest over classes (for ED over both rates too), `_mean` the mean over the same numbers. With two
classes each kind but EO is that of the positive class alone; the true positive rate of the negative class is one minus
the false positive rate of the other, so `eo_max` and `ed_max` are then the same. Groups in which a rate is not defined,
for want of an image, are left out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augkit.lab.data import Data, Split

HEADER = (
    "class",
    "name",
    "group",
    "group_name",
    "train_images",
    "images",
    "correct",
    "accuracy",
    "selection_rate",
    "false_positive_rate",
)


@dataclass(frozen=True)
class GroupScores:
    """Answers over one split whose groups are known."""

    answers: Tensor
    """[G, C, C] int64, on the CPU: images by group, class and answered class."""
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]

    @property
    def seen(self) -> Tensor:
        """[G, C] int64: images of each class in each group."""
        return self.answers.sum(2)

    @property
    def correct(self) -> Tensor:
        """[G, C] int64."""
        return self.answers.diagonal(dim1=1, dim2=2)

    @property
    def accuracy(self) -> Tensor:
        """[G, C] float64 accuracy of each class in each group (its true positive rate); nan where no image is."""
        return self.correct.double() / self.seen

    @property
    def selection(self) -> Tensor:
        """[G, C] float64: how often each class is the answer; nan for a group without an image."""
        return self.answers.sum(1).double() / self.seen.sum(1, keepdim=True)

    @property
    def false_positives(self) -> Tensor:
        """[G, C] float64: how often each class is the answer to images of other classes; nan where there are none."""
        others = self.seen.sum(1, keepdim=True) - self.seen
        return (self.answers.sum(1) - self.correct).double() / others

    def summary(self) -> dict[str, Any]:
        """Worst and mean accuracy, 0..1, of cells (classes in a group) and of groups, and DP, EO and ED.

        Means weigh cells, or groups, alike; a difference that is not defined anywhere is None.
        """
        cells, groups = self.accuracy, self.correct.sum(1).double() / self.seen.sum(1)
        worst = int(cells.nan_to_num(2.0).argmin())
        group, label = divmod(worst, len(self.class_names))
        lowest = int(groups.nan_to_num(2.0).argmin())
        found: dict[str, Any] = {
            "worst_cell": float(cells[group, label]),
            "worst_cell_is": [self.class_names[label], self.group_names[group]],
            "mean_cell": float(cells.nanmean()),
            "worst_group": float(groups[lowest]),
            "worst_group_is": self.group_names[lowest],
            "mean_group": float(groups.nanmean()),
            "by_group": dict(zip(self.group_names, map(_number, groups.tolist()), strict=True)),
        }
        true, false = gaps(self.accuracy), gaps(self.false_positives)
        for name, of in (("dp", gaps(self.selection)), ("eo", true), ("ed", torch.cat([true, false]))):
            known = of[~of.isnan()]
            found[f"{name}_max"] = float(known.max()) if len(known) else None
            found[f"{name}_mean"] = float(known.mean()) if len(known) else None
        return found

    def rows(self, train: Tensor) -> Iterator[tuple[Any, ...]]:
        """A line for each class and group, as `HEADER` names it; `train` [G, C] counts training images."""
        columns = (train, self.seen, self.correct, self.accuracy, self.selection, self.false_positives)
        for label, name in enumerate(self.class_names):
            for group, group_name in enumerate(self.group_names):
                yield label, name, group, group_name, *(_number(column[group, label].item()) for column in columns)


def _number(value: float) -> float | None:
    return None if value != value else value


def gaps(rates: Tensor) -> Tensor:
    """[C] the largest difference between groups of rates [G, C]; nan where fewer than two groups have one."""
    largest = rates.nan_to_num(-torch.inf).amax(0) - rates.nan_to_num(torch.inf).amin(0)
    return torch.where((~rates.isnan()).sum(0) >= 2, largest, torch.nan)


def measure(logits: Tensor, split: Split, data: Data) -> GroupScores | None:
    """Count the answers, logits [N, C], to the images of a split; None if their groups are not known."""
    if split.groups is None:
        return None
    shape = (len(data.group_names), data.num_classes, data.num_classes)
    where = (split.groups * shape[1] + split.labels) * shape[2] + logits.argmax(1)
    counts = torch.bincount(where.cpu(), minlength=shape[0] * shape[1] * shape[2])
    return GroupScores(counts.view(shape), data.class_names, data.group_names)


def images(data: Data) -> Tensor:
    """[G, C] int64, on the CPU: training images, synthetic ones included; zeros where their groups are unknown."""
    shape, train = (len(data.group_names), data.num_classes), data.train
    if train.groups is None:
        return torch.zeros(shape, dtype=torch.int64)
    return torch.bincount((train.groups * shape[1] + train.labels).cpu(), minlength=shape[0] * shape[1]).view(shape)


def lines(found: dict[str, Any]) -> list[str]:
    """A summary in words: accuracies, and differences between groups."""
    label, group = found["worst_cell_is"]
    worst = f"worst class in a group {found['worst_cell']:.1%} ({label} of {group})"
    first = (
        f"by group: {worst}  mean of these {found['mean_cell']:.1%}"
        f"  worst group {found['worst_group']:.1%} ({found['worst_group_is']})  mean {found['mean_group']:.1%}"
    )
    if found["dp_max"] is None:
        return [first]
    parts = (
        f"{name.upper()} {found[f'{name}_max']:.3f} ({found[f'{name}_mean']:.3f})"
        for name in ("dp", "eo", "ed")
        if found[f"{name}_max"] is not None
    )
    return [first, f"differences between groups, largest over classes (and mean): {'  '.join(parts)}"]
