"""The training of `fit`: every step is a function of seed and step number, so that a killed one goes on bit by bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from augkit.errors import AugkitError, StateError
from augkit.lab.folder import write
from augkit_diffusion.fit_model import NOISE_LEVELS, Shape, autocast, encode, network, schedule

if TYPE_CHECKING:
    from augkit.integrations.keyed import Keyed
    from augkit.lab.data import Split

CHECKPOINT = "checkpoint.safetensors"
DROPPED = 0.1
"""Share of images whose label is hidden in training, so that the network knows the mean of all labels too."""
EMA_DECAY = 0.9995
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises; afterwards it falls as half a cosine."""
WEIGHT_DECAY = 0.01
PAUSE = 2.0
"""Seconds between two words on how far it is."""
LARGEST_GRADIENT = 1.0
"""Norm that gradients are cut to."""


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


def learning_rate(plan: Plan, step: int) -> float:
    """At a step from 0: it rises over the first steps and then falls to 0 as half a cosine."""
    rise = max(1, round(WARM_UP * plan.steps))
    if step < rise:
        return plan.lr * (step + 1) / rise
    return plan.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, plan.steps - rise)))


def ema_share(step: int) -> float:
    """What the mean keeps of itself after a step from 0: less in the beginning, when weights are still far off."""
    return min(EMA_DECAY, (1 + step) / (10 + step))


class Training:
    """A network between two steps. `save` and `load` hold all of it: weights, their mean, both moments, the step."""

    def __init__(self, shape: Shape, plan: Plan, material: Material, device: torch.device) -> None:
        self.shape, self.plan, self.material, self.device = shape, plan, material, device
        with torch.random.fork_rng([]):
            torch.manual_seed(plan.seed)
            model = network(shape)
        self.model = model.to(device)
        if device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)  # on a CPU the plain layout is as quick
        self.names = [name for name, _ in self.model.named_parameters()]
        self.weights = list(self.model.parameters())
        self.mean = [weight.detach().clone() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, lr=plan.lr, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY)
        self.levels = schedule()
        self.step = 0
        self._sum = torch.zeros((), device=device)
        self._since = 0

    def advance(self) -> None:
        """One step: v of images at evenly spread noise levels, a tenth of them without their label."""
        positions, labels, keys = self.material.draw(self.plan, self.step)
        clean = encode(self.material.images(positions, keys).to(self.device), self.shape)
        times, dust, hidden = self._random(clean.shape)
        labels = torch.where(hidden, self.shape.none, labels).to(self.device)
        noisy = self.levels.add_noise(clean, dust, times)
        wanted = self.levels.get_velocity(clean, dust, times)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.plan.precision):
            found = self.model(noisy, times, labels).sample
        loss = functional.mse_loss(found.float(), wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, LARGEST_GRADIENT)
        self.optimizer.step()
        torch._foreach_lerp_(self.mean, [w.detach() for w in self.weights], 1 - ema_share(self.step))
        self._sum += loss.detach()
        self._since += 1
        self.step += 1

    def _random(self, form: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Times [B], noise like the images and which labels are hidden [B] (on the CPU), of this step alone."""
        source = torch.Generator().manual_seed(int(np.random.Philox(key=[self.plan.seed, self.step]).random_raw() >> 1))
        count = form[0]
        spread = (torch.randperm(count, generator=source) + torch.rand((), generator=source)) / count
        times = (spread * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
        hidden = torch.rand(count, generator=source) < DROPPED
        return times.to(self.device), torch.randn(form, generator=source).to(self.device), hidden

    def told(self) -> float:
        """The mean loss since this was last asked.

        Raises:
            AugkitError: it is no longer finite.
        """
        mean = float(self._sum) / max(1, self._since)
        self._sum.zero_()
        self._since = 0
        if not math.isfinite(mean):
            raise AugkitError(f"the loss of fit is {mean} at step {self.step}: give a lower lr or precision=float32")
        return mean

    def averaged(self) -> dict[str, Tensor]:
        """The mean of the weights by name, on the CPU: what samples."""
        return {name: _plain(mean) for name, mean in zip(self.names, self.mean, strict=True)}

    def save(self, folder: Path, mark: str) -> None:
        """Replace the checkpoint, whole or not at all; `mark` tells whose it is."""
        from safetensors.torch import save

        tensors = {f"mean/{name}": value for name, value in self.averaged().items()}
        for name, weight in zip(self.names, self.weights, strict=True):
            tensors[f"weight/{name}"] = _plain(weight)
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"{moment}/{name}"] = _plain(self.optimizer.state[weight][moment])
        write(folder / CHECKPOINT, save(tensors, {"step": str(self.step), "mark": mark}))

    def load(self, folder: Path, mark: str) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            StateError: it is damaged, or of another training.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return
        tensors, facts = read_tensors(path, "remove it to train anew")
        if facts.get("mark") != mark:
            raise StateError("this checkpoint is of a training with other settings; remove it to train anew", file=path)
        try:
            with torch.no_grad():
                for name, weight, mean in zip(self.names, self.weights, self.mean, strict=True):
                    weight.copy_(tensors[f"weight/{name}"])
                    mean.copy_(tensors[f"mean/{name}"])
                    moments = {key: tensors[f"{key}/{name}"].to(weight) for key in ("exp_avg", "exp_avg_sq")}
                    self.optimizer.state[weight] = {"step": torch.tensor(float(facts["step"])), **moments}
            self.step = int(facts["step"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise StateError(
                "this checkpoint lacks parts of the network; remove it to train anew", file=path
            ) from error


def run(training: Training, folder: Path, mark: str, every: float, tell: Callable[[int, float], None]) -> None:
    """All steps that are left, with a checkpoint after `every` seconds; `tell` hears the step and the mean loss."""
    training.load(folder, mark)
    training.model.train()
    told = saved = time.monotonic()
    while training.step < training.plan.steps:
        training.advance()
        now, end = time.monotonic(), training.step == training.plan.steps
        save = end or now - saved >= every
        if save or now - told >= PAUSE:
            tell(training.step, training.told())
            told = now
        if save:
            training.save(folder, mark)
            saved = time.monotonic()


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


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
