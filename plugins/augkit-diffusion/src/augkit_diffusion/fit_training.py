"""The training of `fit`: a network that learns v of images at all noise levels, and the mean of its weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from augkit_diffusion.fit_model import NOISE_LEVELS, Shape, autocast, encode, network, schedule
from augkit_diffusion.learning import Learner, Material, Plan, plain

DROPPED = 0.1
"""Share of images whose label is hidden in training, so that the network knows the mean of all labels too."""
EMA_DECAY = 0.9995
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises; afterwards it falls as half a cosine."""
WEIGHT_DECAY = 0.01


def learning_rate(plan: Plan, step: int) -> float:
    """At a step from 0: it rises over the first steps and then falls to 0 as half a cosine."""
    rise = max(1, round(WARM_UP * plan.steps))
    if step < rise:
        return plan.lr * (step + 1) / rise
    return plan.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, plan.steps - rise)))


def ema_share(step: int) -> float:
    """What the mean keeps of itself after a step from 0: less in the beginning, when weights are still far off."""
    return min(EMA_DECAY, (1 + step) / (10 + step))


class Training(Learner):
    """A network between two steps, and the mean of its weights."""

    def __init__(self, shape: Shape, plan: Plan, material: Material, device: torch.device) -> None:
        self.shape, self.material, self.device = shape, material, device
        with torch.random.fork_rng([]):
            torch.manual_seed(plan.seed)
            model = network(shape)
        self.model = model.to(device).train()
        if device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)  # on a CPU the plain layout is as quick
        weights = dict(self.model.named_parameters())
        self.mean = {name: weight.detach().clone() for name, weight in weights.items()}
        optimizer = torch.optim.AdamW(weights.values(), lr=plan.lr, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY)
        super().__init__("fit", plan, weights, optimizer, "give a lower lr or precision=float32")
        self.levels = schedule()

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
        with autocast(self.device, self.plan.precision):
            found = self.model(noisy, times, labels).sample
        keep = ema_share(self.step)
        self.learn(functional.mse_loss(found.float(), wanted))
        torch._foreach_lerp_(list(self.mean.values()), [w.detach() for w in self.weights.values()], 1 - keep)

    def _random(self, form: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Times [B], noise like the images and which labels are hidden [B] (on the CPU), of this step alone."""
        source, count = self.random(), form[0]
        spread = (torch.randperm(count, generator=source) + torch.rand((), generator=source)) / count
        times = (spread * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
        hidden = torch.rand(count, generator=source) < DROPPED
        return times.to(self.device), torch.randn(form, generator=source).to(self.device), hidden

    def also(self) -> dict[str, Tensor]:
        """The mean."""
        return {f"mean/{name}": mean for name, mean in self.mean.items()}

    def averaged(self) -> dict[str, Tensor]:
        """The mean of the weights by name, on the CPU: what samples."""
        return {name: plain(mean) for name, mean in self.mean.items()}
