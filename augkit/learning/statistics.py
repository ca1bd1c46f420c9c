"""Counts of one epoch, by class, on the device: what the model answered and what really happened to the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from augkit.engine.plan import Plan

BY_CLASS = ("correct", "seen", "loss", "val_correct", "val_seen")
Signal = Callable[[Tensor, Tensor], Tensor]


class Statistics:
    """Running sums over an epoch; nothing here waits for the device.

    Args:
        num_classes: C.
        num_choices: operators of the program.
        signals: what plugins count: `function(logits [B, C], targets [B]) -> [B]`, summed by class.
        levels: number of levels of each probe that counts training answers, by its path and name.
    """

    def __init__(
        self,
        num_classes: int,
        num_choices: int,
        signals: Mapping[str, Signal] | None = None,
        levels: Mapping[str, int] | None = None,
    ) -> None:
        self.signals = dict(signals or {})
        self.sums = {name: torch.zeros(num_classes) for name in (*BY_CLASS, *self.signals)}
        self.sums["used"] = torch.zeros(num_classes, num_choices)
        self.sums["strength_used"] = torch.zeros(num_classes, num_choices)
        self.levels = dict(levels or {})
        for name, number in self.levels.items():
            self.sums |= {f"{name}.{result}": torch.zeros(num_classes, number) for result in ("correct", "drawn")}
        self.drawn = self.observed = self.observed_val = 0

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self.__dict__["sums"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device: torch.device) -> None:
        """Move the counts."""
        self.sums = {name: value.to(device) for name, value in self.sums.items()}

    @torch.no_grad()
    def count_plan(self, plan: Plan, classes: Tensor, times: Tensor | None = None) -> None:
        """Count which operators a plan applies, and how strongly, branches and views included: `classes` [B] int64.

        `times` [V, B] is how often each image's views count, once each unless it is said.
        """
        self.drawn += 1
        for part, rows in replace(plan, views=()).parts():
            self._count(part, classes, rows)
        for number, (_, view) in enumerate(plan.views):
            for part, rows in view.parts():
                self._count(part, classes, rows, None if times is None else times[number])

    def _count(self, plan: Plan, classes: Tensor, rows: int, times: Tensor | None = None) -> None:
        used = self.sums["used"]
        if plan.choice.numel() == 0 or used.shape[1] == 0:
            return
        classes = classes if rows == 1 else classes.repeat_interleave(rows)
        active = plan.choice >= 0
        cell = (classes[:, None] * used.shape[1] + plan.choice.clamp(min=0)).flatten()
        met = active.to(used.dtype)
        met = met if times is None else met * times.repeat_interleave(rows)[:, None]
        used.view(-1).scatter_add_(0, cell, met.flatten())
        # an operator without strength is used in full; one given in its own unit counts no strength
        strength = (met * plan.strength.nan_to_num(0.0)).flatten()
        self.sums["strength_used"].view(-1).scatter_add_(0, cell, strength)

    @torch.no_grad()
    def count_answers(self, logits: Tensor, targets: Tensor, split: str) -> None:
        """Count the model's answers: `logits` [B, C], `targets` [B] int64."""
        right = (logits.argmax(1) == targets).to(torch.float32)
        one = torch.ones_like(right)
        if split == "val":
            self.observed_val += 1
            added = {"val_correct": right, "val_seen": one}
        else:
            self.observed += 1
            loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
            added = {"correct": right, "seen": one, "loss": loss}
            added |= {name: function(logits, targets).to(torch.float32) for name, function in self.signals.items()}
        for name, value in added.items():
            self.sums[name].scatter_add_(0, targets, value)

    @torch.no_grad()
    def count_levels(self, levels: Mapping[str, Tensor], targets: Tensor, right: Tensor) -> None:
        """Count right answers [B] bool by class [B] and by each probe's level [B]; -1 is not counted."""
        for name, level in levels.items():
            counts = level >= 0
            cell = targets * self.sums[f"{name}.drawn"].shape[1] + level.clamp(min=0)
            for result, added in (("correct", right & counts), ("drawn", counts)):
                self.sums[f"{name}.{result}"].view(-1).scatter_add_(0, cell, added.to(torch.float32))

    def reduce(self) -> None:
        """Sum over the ranks of a distributed run, so that every rank learns the same."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        device = next(iter(self.sums.values())).device
        counts = torch.tensor([self.drawn, self.observed, self.observed_val], dtype=torch.float32, device=device)
        flat = torch.cat([counts, *(value.flatten() for value in self.sums.values())])
        distributed.all_reduce(flat)
        self.drawn, self.observed, self.observed_val = (int(count) for count in flat[:3])
        parts = flat[3:].split([value.numel() for value in self.sums.values()])
        self.sums = {
            name: part.view_as(value).clone() for (name, value), part in zip(self.sums.items(), parts, strict=True)
        }

    def reset(self) -> None:
        """Begin a new epoch."""
        self.sums = {name: torch.zeros_like(value) for name, value in self.sums.items()}
        self.drawn = self.observed = self.observed_val = 0

    def restart(self) -> None:
        """Begin the epoch under way anew; counts of validation stay."""
        validated, kept = self.observed_val, {n: v for n, v in self.sums.items() if n.startswith("val_")}
        self.reset()
        self.observed_val = validated
        self.sums |= kept

    def state_dict(self) -> dict[str, Any]:
        """Counts on the CPU."""
        sums = {name: value.to("cpu", copy=True) for name, value in self.sums.items()}
        return {"sums": sums, "drawn": self.drawn, "observed": self.observed, "observed_val": self.observed_val}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; a signal that was not counted then begins at 0."""
        stored = state["sums"]
        self.sums = {
            name: stored[name].to(value.device, copy=True) if name in stored else torch.zeros_like(value)
            for name, value in self.sums.items()
        }
        self.drawn, self.observed, self.observed_val = state["drawn"], state["observed"], state["observed_val"]
