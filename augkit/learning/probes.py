"""Asking the model: images of each class at each level, augmented as a probe says, in a few large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from augkit.engine.draw import draw
from augkit.engine.environment import Bank
from augkit.engine.plan import Plan
from augkit.engine.program import Bound
from augkit.engine.streams import fold, key_of, site_constants, uniforms
from augkit.errors import InputError
from augkit.learning.memory import Memory
from augkit.learning.probe_pool import ProbePool
from augkit.strategy.probes import LEVEL

Answer = Callable[[Any, Tensor], Tensor]
"""(the model's output, targets [N] int64) to [N] bool: which answers are right."""
PIXELS = {"cpu": 1 << 17}
MOST_PIXELS = 1 << 24
"""Pixels a batch, without gradients: 128 images of 32 x 32 on a CPU, where larger ones leave the caches (ResNet-32 on
one core takes twice as long with 1,024); 16,384 elsewhere."""
AUGMENTED = 1 << 21
"""Pixels that are augmented at once where the model takes fewer: on a CPU images are grouped by what they drew, and
among 128 images that drew up to 10 of 22 operators a group has a few only (three times as slow as among 2,048)."""


@dataclass(frozen=True)
class Asked:
    """The model that probes ask, and how."""

    model: nn.Module
    pool: ProbePool
    answer: Answer
    prepare: Callable[[Tensor], Tensor] | None = None
    """Augmented images to the model's input."""
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    batch: int | None = None
    """Images a batch; by the size of an image where not said."""
    banks: dict[str, Bank] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Images a batch."""
        if self.batch is not None:
            return self.batch
        pixels = self.pool.images.shape[-1] * self.pool.images.shape[-2]
        return max(16, PIXELS.get(self.pool.images.device.type, MOST_PIXELS) // pixels)

    @property
    def augmented(self) -> int:
        """Images that are augmented at once: one batch, or several."""
        pixels = self.pool.images.shape[-1] * self.pool.images.shape[-2]
        return self.size * max(1, AUGMENTED // (pixels * self.size))

    def right(self, images: Tensor, targets: Tensor) -> Tensor:
        """[N] bool: which of these augmented images the model gets right."""
        if self.prepare is not None:
            images = self.prepare(images)
        elif not images.is_floating_point():
            images = images.float() / 255
        model = plain(self.model)
        place = next((parameter.device for parameter in model.parameters()), images.device)
        images = images.to(place)  # the policy may work on the host while the model is elsewhere
        with self.autocast():
            output = model(images)
        found = self.answer(output, targets.to(images.device))
        if found.shape != targets.shape:
            raise InputError(f"answer= must say right or wrong for each of {len(targets)} images, not {found.shape}")
        return found


@dataclass(frozen=True)
class Cells:
    """Every image that a probe asks for, in a fixed order. N images."""

    number: Tensor
    """[C, L] float32 how many for each class and level."""
    classes: Tensor
    levels: Tensor
    draws: Tensor
    """[N] int64 each: the class, the level, and which of its cell the image is."""

    def share(self, rank: int, world: int) -> Cells:
        """What falls to one rank."""
        return Cells(self.number, *(part[rank::world] for part in (self.classes, self.levels, self.draws)))


def ask(memory: Memory, asked: Asked, epoch: int, execute: Callable[[Tensor, Plan], Tensor]) -> int:
    """Make the probes of every strategy of a program, and keep their results in its memory.

    Args:
        memory: of the program; rules have not run yet in this epoch.
        asked: the model, and the images on the device of the memory.
        epoch: under way.
        execute: runs a plan over uint8 images.

    Returns:
        How many images the model was shown, by all ranks together.
    """
    total, results = 0, {}
    with examined(asked.model):
        for bound in memory.program.bounds:
            for name, probe in bound.strategy.probes.items():
                if probe.level is None:
                    cells = cells_of(memory, asked, bound, name, epoch)
                    total += len(cells.classes)
                    results[f"{bound.path}{name}.drawn"] = cells.number
                    correct = _count(memory, asked, bound, name, cells.share(*_ranks()), epoch, execute)
                    results[f"{bound.path}{name}.correct"] = correct
    if _ranks()[1] > 1:
        for name in [name for name in results if name.endswith(".correct")]:
            distributed.all_reduce(results[name])
    memory.set_signals(results)
    return total


def cells_of(memory: Memory, asked: Asked, bound: Bound, name: str, epoch: int) -> Cells:
    """How many images of each class and level, and one entry for each. This waits for the device, before any work."""
    env = memory.environment(bound, "probe", epoch)
    shape = (env.size("classes"), env.size("levels"))
    levels = torch.arange(shape[1], dtype=torch.float32, device=env.device)
    upto = env.ask(f"probes.{name}.upto", ("classes",)).floor()
    number = env.knowing({LEVEL: levels}).ask(f"probes.{name}.samples", ("classes", "levels")).expand(shape).floor()
    there = (levels <= upto[:, None]) & (asked.pool.counts[:, None] > 0)
    number = torch.where(there, number.clamp(min=0), 0.0)
    counts = number.flatten().long()
    cell = torch.repeat_interleave(torch.arange(counts.numel(), device=env.device), counts)
    draws = torch.arange(len(cell), device=env.device) - (counts.cumsum(0) - counts)[cell]
    return Cells(number, cell // shape[1], cell % shape[1], draws)


def _count(
    memory: Memory,
    asked: Asked,
    bound: Bound,
    name: str,
    cells: Cells,
    epoch: int,
    execute: Callable[[Tensor, Plan], Tensor],
) -> Tensor:
    """[C, L] float32: right answers to these images."""
    key = key_of(memory.seed, epoch, "probe", bound.path + name)
    keys = fold(fold(torch.full_like(cells.classes, key), cells.classes), cells.levels)
    keys = fold(keys, cells.draws)
    u = uniforms(keys, site_constants("probe image", 1, keys.device))[:, 0]
    rows = asked.pool.take(cells.classes, u)
    correct = torch.zeros_like(cells.number)
    bank = asked.banks.setdefault(bound.path + name, Bank())
    for part in torch.arange(len(keys), device=keys.device).split(asked.augmented):
        classes, levels = cells.classes[part], cells.levels[part]
        plan = _plan(memory, asked, bound, name, keys[part], rows[part], classes, levels, bank, epoch)
        made = execute(asked.pool.images[rows[part]], plan)
        batches = zip(made.split(asked.size), classes.split(asked.size), strict=True)
        right = torch.cat([asked.right(images, targets) for images, targets in batches])
        cell = classes * correct.shape[1] + levels
        correct.view(-1).scatter_add_(0, cell, right.to(correct))
    return correct


def _plan(
    memory: Memory,
    asked: Asked,
    bound: Bound,
    name: str,
    keys: Tensor,
    rows: Tensor,
    classes: Tensor,
    levels: Tensor,
    bank: Bank,
    epoch: int,
) -> Plan:
    """What happens to some of a probe's images: all around the strategy as in training, its own steps the probe's."""
    program = memory.program
    indices = {"y": classes, "index": asked.pool.index[rows]}
    for known, of_each in (("group", asked.pool.group), ("is_synthetic", asked.pool.is_synthetic)):
        if of_each is not None:
            indices[known] = of_each[rows]
    own = {**memory.values[bound.path], LEVEL: levels.float()}
    values = {**memory.values, bound.path: own}
    bank.begin(keys)
    environment = memory.environment(program.root, "draw", epoch).for_batch(keys, bank, indices)
    environment = environment.of(program.root, values[program.root.path])
    return draw(program, values, environment, None, mixing=False, probe=(bound.path, name))


@contextmanager
def examined(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every part of the model goes back to its own mode, whatever happens.

    With more than one rank the buffers of rank 0 serve all (as DistributedDataParallel has it in each forward pass), so
    that every rank asks the same model; each rank then gets its own back.
    """
    modes = {part: part.training for part in model.modules()}
    was_training = model.training
    kept = _same_buffers(model)
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
        for part, mode in modes.items():
            part.training = mode
        for buffer, value in kept:
            buffer.data.copy_(value)


def _same_buffers(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    if _ranks()[1] == 1:
        return []
    kept = [(buffer, buffer.detach().clone()) for buffer in plain(model).buffers()]
    for buffer, _ in kept:
        distributed.broadcast(buffer.data, 0)
    return kept


def plain(model: nn.Module) -> nn.Module:
    """The module itself, out of DistributedDataParallel (whose forward passes wait for other ranks) and torch.compile
    (which would compile again for these batches)."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _ranks() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
