"""What a data set tells a policy when it is loaded, and whether that is all its document needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.engine.program import Sizes, steps_of
from augkit.errors import DocumentError, InputError
from augkit.strategy.model import Strategy, UseStep
from augkit.strategy.needs import mixes_of
from augkit.strategy.probes import most_images, too_many

Counts = Sequence[int] | Tensor | Mapping[int, int]

TOLD = {
    "class_counts": "class_counts=, the number of training images of each class",
    "classes": "class_counts= or class_names=, since it works by class",
    "epochs": "epochs=, the planned length of the training",
    "group": "groups=, the number of groups or their names",
    "samples": "class_counts= or num_samples=, the length of the training set",
}


@dataclass(frozen=True)
class Facts:
    """Facts of the data set and the run. `num_classes` is None when nothing was said about classes."""

    counts: Tensor | None
    """[C] int64 training images of each class."""
    num_classes: int | None
    num_groups: int | None
    num_samples: int | None
    epochs: int | None

    @classmethod
    def gather(
        cls,
        counts: Counts | None,
        names: Sequence[str] | None,
        groups: int | Sequence[str] | None,
        samples: int | None,
        epochs: int | None,
    ) -> Facts:
        """Check and complete what was given to `Policy.load`.

        Raises:
            InputError: negative counts, gaps in the class numbers, another number of names, epochs below 1.
        """
        table = class_counts_of(counts, names)
        if epochs is not None and epochs < 1:
            raise InputError(f"epochs must be 1 or more, not {epochs}")
        num_classes = len(table) if table is not None else len(names) if names is not None else None
        num_groups = groups if groups is None or isinstance(groups, int) else len(groups)
        if samples is None and table is not None:
            samples = int(table.sum())
        return cls(table, num_classes, num_groups, samples, epochs)

    @property
    def sizes(self) -> Sizes:
        """Axis lengths; 1 for what is not known."""
        return Sizes(self.num_classes or 1, self.num_groups or 1, self.num_samples or 1)

    def require(self, strategy: Strategy) -> None:
        """Refuse a strategy that needs more than these facts.

        Raises:
            DocumentError: naming the first thing that is missing.
        """
        given = {
            "class_counts": self.counts,
            "classes": self.num_classes,
            "epochs": self.epochs,
            "group": self.num_groups,
            "samples": self.num_samples,
        }
        wanted = {*strategy.needs, *(("classes",) if works_by_class(strategy) else ())}
        wanted |= {"samples"} if uses_axis(strategy, "samples") else set()
        for need, told in TOLD.items():
            if need in wanted and given[need] is None:
                raise DocumentError(f'strategy "{strategy.name}" needs {told}', file=strategy.file)

    def first_signals(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Every shared signal before the first epoch; `names` are those counted by class."""
        classes = self.num_classes or 1
        known = self.counts if self.counts is not None else torch.zeros(classes)
        scalars = {"epoch": 0.0, "epochs": float(self.epochs or 0), "step": 0.0}
        signals = {name: torch.zeros(classes) for name in names}
        return {**signals, **class_signals(known), **{n: torch.tensor(v) for n, v in scalars.items()}}


def class_signals(counts: Tensor) -> dict[str, Tensor]:
    """`class_count` and `class_rank`, [C] float32 each, of [C] counts."""
    order = torch.argsort(counts, descending=True, stable=True)
    places = torch.arange(len(counts), dtype=torch.float32, device=counts.device)
    return {"class_count": counts.float(), "class_rank": torch.empty_like(places).scatter_(0, order, places)}


def parts_of(strategy: Strategy) -> list[Strategy]:
    """The strategy and every one that it uses."""
    steps = [step for path, inside in strategy.lists.items() for _, step in steps_of(inside, path)]
    inner = [step.strategy for step in steps if isinstance(step, UseStep)]
    return [strategy, *(part for used in inner for part in parts_of(used))]


def draws_partners(strategy: Strategy) -> bool:
    """Whether any mixing step takes its partners from a pool."""
    return any(mix.partner == "pool" for part in parts_of(strategy) for mix in mixes_of(part.pipeline))


def check_cost(strategy: Strategy, facts: Facts) -> None:
    """Refuse probes that could ask the model about more images than their documents allow.

    Raises:
        DocumentError: saying how many they could ask for.
    """
    known: dict[str, tuple[float, float]] = {}
    if facts.counts is not None:
        known["class_count"] = (float(facts.counts.min()), float(facts.counts.max()))
    if facts.epochs is not None:
        known["epochs"] = (float(facts.epochs), float(facts.epochs))
    for part in parts_of(strategy):
        images = most_images(part.probes, part.typed, known) * (facts.num_classes or 1)
        if images > part.max_probe_images:
            message = too_many(images, f"{facts.num_classes} classes", part.max_probe_images)
            raise DocumentError(f'strategy "{part.name}": {message}', file=part.file)


def uses_axis(strategy: Strategy, axis: str) -> bool:
    """Whether any state has this axis."""
    return any(axis in spec.axes for part in parts_of(strategy) for spec in part.state.values())


def works_by_class(strategy: Strategy) -> bool:
    """Whether it cannot do without the number of classes."""
    learns = bool({"observe", "val", "model"} & strategy.needs)
    return strategy.mixes or uses_axis(strategy, "classes") or learns


def class_counts_of(counts: Counts | None, names: Sequence[str] | None) -> Tensor | None:
    """[C] int64 counts, checked; see `Facts.gather`."""
    if counts is None:
        return None
    if isinstance(counts, Mapping):
        if sorted(counts) != list(range(len(counts))):
            raise InputError(f"class_counts must have an entry for every class 0..{len(counts) - 1}, each once")
        counts = [counts[number] for number in range(len(counts))]
    try:
        given = torch.as_tensor(counts).flatten().cpu()
        result = given.to(torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"class_counts must be a list of numbers, one for each class, not {counts!r}") from error
    if bool((result < 0).any()) or int(result.sum()) == 0 or not bool((result == given).all()):
        raise InputError("class_counts must hold a whole number of 0 or more for each class, and some image in all")
    if names is not None and len(names) != len(result):
        raise InputError(f"class_counts has {len(result)} classes but class_names has {len(names)}; name each class")
    return result
