"""What the trainings of `fit` and `adapt` have in common: images to learn from, steps, checkpoints.

Every step is a function of seed and step number, so that a killed training goes on bit by bit.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from augkit.errors import AugkitError, StateError
from augkit.lab.folder import write
from augkit_diffusion.pipelines import enough_memory

if TYPE_CHECKING:
    from augkit.integrations.keyed import Keyed
    from augkit.lab.data import Split

CHECKPOINT = "checkpoint.safetensors"
PAUSE = 2.0
"""Seconds between two words on how far it is."""
LARGEST_GRADIENT = 1.0
"""Norm that gradients are cut to."""
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of AdamW."""
WARM_UP_STEPS, TIMED_STEPS, TIMED_SECONDS = 2, 10, 5.0
"""A training is timed by so many steps after the first ones, or by what fits into so many seconds."""


@dataclass(frozen=True)
class Plan:
    """What decides the weights, besides data, network and augmentation."""

    steps: int
    batch: int
    lr: float
    exponent: float
    """A label with n images is drawn in proportion to n to this power: 1 as it comes, 0 all alike."""
    seed: int
    precision: str

    def asdict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass
class Material:
    """Training images: positions of `split` sorted by label, and where each label's begin."""

    split: Split
    positions: Tensor
    """[N] int64 on the CPU."""
    labels: Tensor
    """[N] int64 on the CPU: the label of each."""
    counts: Tensor
    """[labels] int64 on the CPU."""
    augment: Keyed | None = None
    starts: Tensor = field(init=False)

    def __post_init__(self) -> None:
        order = torch.argsort(self.labels, stable=True)
        self.positions, self.labels = self.positions[order], self.labels[order]
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, plan: Plan, step: int) -> tuple[Tensor, Tensor, list[int]]:
        """Positions in the split [B], labels [B] int64 on the CPU and keys for augmentation of one step."""
        raw = np.random.Philox(key=[plan.seed, step]).random_raw(3 * plan.batch).reshape(3, plan.batch)
        unit = (raw[:2] >> np.uint64(11)) * 2.0**-53
        chosen = np.searchsorted(np.cumsum(label_shares(self.counts, plan.exponent)), unit[0], side="right")
        labels = torch.from_numpy(chosen).clamp(
            max=int(self.counts.nonzero().max())
        )  # the last share may round below 1
        within = (torch.from_numpy(unit[1]) * self.counts[labels]).long()
        keys = (raw[2] >> np.uint64(1)).astype(np.int64).tolist()
        return self.positions[self.starts[labels] + within], labels, keys

    def images(self, positions: Tensor, keys: list[int]) -> Tensor:
        """uint8 [B, 3, H, W] on the split's device, augmented."""
        images = next(iter(self.split.batches([positions.to(self.split.labels.device)])))
        return images if self.augment is None else self.augment(images, keys)


def label_shares(counts: Tensor, exponent: float) -> np.ndarray:
    """[labels] float64 that sum to 1: how often each label is drawn; 0 for one without an image."""
    n = counts.numpy().astype(np.float64)
    weights = np.where(n > 0, np.maximum(n, 1) ** exponent, 0.0)
    return np.asarray(weights / weights.sum())


class Learner(ABC):
    """Weights between two steps. `save` and `load` hold all of it: weights, both moments, the step, what `also` gives.

    What inherits from it brings `advance`, which ends with `done`.
    """

    def __init__(self, name: str, plan: Plan, weights: Mapping[str, Tensor], optimizer: Any, advice: str) -> None:
        self.name, self.plan, self.weights, self.optimizer = name, plan, dict(weights), optimizer
        self.step = 0
        self._advice = advice
        """What to do about a loss that is no number."""
        self._losses: list[Tensor] = []

    @abstractmethod
    def advance(self) -> None:
        """One step."""

    def also(self) -> Mapping[str, Tensor]:
        """What else a checkpoint holds, by names of its own; it is overwritten by `load`."""
        return {}

    def random(self) -> torch.Generator:
        """Random numbers of this step alone, made on the CPU."""
        return torch.Generator().manual_seed(int(np.random.Philox(key=[self.plan.seed, self.step]).random_raw() >> 1))

    def learn(self, loss: Tensor) -> None:
        """Let the weights follow a loss; the step is done."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), LARGEST_GRADIENT)
        self.optimizer.step()
        self._losses.append(loss.detach())
        self.step += 1

    def told(self) -> float:
        """The mean loss since this was last asked.

        Raises:
            AugkitError: it is no longer finite.
        """
        mean = float(torch.stack(self._losses).mean()) if self._losses else 0.0
        self._losses.clear()
        if not math.isfinite(mean):
            raise AugkitError(f"the loss of {self.name} is {mean} at step {self.step}: {self._advice}")
        return mean

    def save(self, folder: Path, mark: str) -> None:
        """Replace the checkpoint, whole or not at all; `mark` tells whose it is."""
        from safetensors.torch import save

        tensors = {name: plain(value) for name, value in self.also().items()}
        for name, weight in self.weights.items():
            tensors[f"weight/{name}"] = plain(weight)
            for moment in MOMENTS:
                tensors[f"{moment}/{name}"] = plain(self.optimizer.state[weight][moment])
        write(folder / CHECKPOINT, save(tensors, {"step": str(self.step), "mark": mark}))

    def load(self, folder: Path, mark: str) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            StateError: it is damaged, or of another training.
        """
        path, advice = folder / CHECKPOINT, "remove it to train anew"
        if not path.exists():
            return
        tensors, facts = read_tensors(path, advice)
        if facts.get("mark") != mark:
            raise StateError(f"this checkpoint is of a training with other settings; {advice}", file=path)
        try:
            with torch.no_grad():
                for name, value in self.also().items():
                    value.copy_(tensors[name])
                for name, weight in self.weights.items():
                    weight.copy_(tensors[f"weight/{name}"])
                    moments = {key: tensors[f"{key}/{name}"].to(weight) for key in MOMENTS}
                    self.optimizer.state[weight] = {"step": torch.tensor(float(facts["step"])), **moments}
            self.step = int(facts["step"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise StateError(f"this checkpoint lacks parts of what is learnt; {advice}", file=path) from error


def run(training: Learner, folder: Path, mark: str, every: float, tell: Callable[[int, float], None]) -> None:
    """All steps that are left, with a checkpoint after `every` seconds; `tell` hears the step and the mean loss."""
    training.load(folder, mark)
    told = saved = time.monotonic()
    while training.step < training.plan.steps:
        _advance(training)
        now, end = time.monotonic(), training.step == training.plan.steps
        save = end or now - saved >= every
        if save or now - told >= PAUSE:
            tell(training.step, training.told())
            told = now
        if save:
            training.save(folder, mark)
            saved = time.monotonic()


def _advance(training: Learner) -> None:
    """A step; raises AugkitError where memory is short for it."""
    with enough_memory(f"say a --option train_batch smaller than {training.plan.batch}"):
        training.advance()


def time_of(training: Learner) -> float:
    """Seconds of a step, measured by taking a few, which changes the weights."""
    for _ in range(WARM_UP_STEPS):
        _advance(training)
    training.told()  # waits for an accelerator
    begin, steps = time.perf_counter(), 0
    while steps < TIMED_STEPS and (not steps or time.perf_counter() - begin < TIMED_SECONDS):
        _advance(training)
        steps += 1
    training.told()
    return (time.perf_counter() - begin) / steps


def steps_done(folder: Path, mark: str) -> int:
    """Of the checkpoint of this training; 0 without one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    facts = read_tensors(path, "remove it to train anew")[1]
    return int(facts["step"]) if facts.get("mark") == mark and facts.get("step", "").isdigit() else 0


def read_tensors(path: Path, advice: str) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Tensors of a safetensors file on the CPU, and its facts.

    Raises:
        StateError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StateError(f"not a readable safetensors file ({type(error).__name__}); {advice}", file=path) from error


def plain(tensor: Tensor) -> Tensor:
    """A copy on the CPU."""
    return tensor.detach().to("cpu", copy=True).contiguous()
