"""The stages of a run in their order: what each trains, on which images, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from augkit.errors import DataError, DocumentError
from augkit.lab import named
from augkit.lab.data import NO_GROUPS, Data, in_batches
from augkit.lab.recipe import Recipe
from augkit.lab.recipe_parts import StageRecipe
from augkit.lab.samplers import checked_shares, epoch_positions
from augkit.registry import Registry

_APART = 1_000_003
"""So that no seed of a stage is the recipe's seed of another run's model, for the seeds that people take."""


@dataclass(frozen=True)
class Stage:
    """One stage, with everything that the recipe leaves to it decided."""

    number: int
    name: str
    begin: int
    """The first of its epochs, counted through the whole run."""
    epochs: int
    recipe: Recipe
    """The run's, with this stage's `epochs`, `optimizer.lr` and `schedule`."""
    rows: np.ndarray
    """[n] int64 sorted positions in the training split."""
    labels: np.ndarray
    """[n] int64 of those."""
    class_counts: Tensor
    """[C] float32 images of each class among them, on the device."""
    groups: np.ndarray | None
    """[n] int64 of them, if groups are known."""
    group_names: tuple[str, ...]
    mixing: bool
    function: named.Bound
    sampler: named.Bound
    sampler_name: str
    loss: named.Bound

    @property
    def path(self) -> str:
        """Its place in the recipe."""
        return f"stages[{self.number}]"

    @property
    def end(self) -> int:
        """The first epoch after it."""
        return self.begin + self.epochs

    def enter(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Make the model ready for this stage and return the part that learns; torch's generators stay as they are.

        Raises:
            DocumentError: the stage cannot do anything with this model.
        """
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed((self.recipe.seed + _APART * self.number) % 2**63)
            part = self.function(model)
        part = part.to(device) if isinstance(part, nn.Module) else nn.Identity()
        learning = {id(parameter) for parameter in part.parameters()}
        if not learning or not learning <= {id(parameter) for parameter in model.parameters()}:
            raise DocumentError(f'"{self.name}" must return a part of the model with weights', path=self.path)
        return part

    def batches(self, epoch: int) -> list[Tensor]:
        """The images of an epoch, counted through the whole run: positions in the training split, batch by batch.

        Raises:
            DocumentError: the sampler returned no shares.
        """
        classes, groups = len(self.class_counts), len(self.group_names)
        counts = by_group = torch.from_numpy(np.bincount(self.labels, minlength=classes)).double()
        cells = self.labels
        if self.groups is not None:
            cells = self.labels * groups + self.groups
            by_group = torch.from_numpy(np.bincount(cells, minlength=classes * groups)).double().view(classes, groups)
        shares = self.sampler(counts, epoch=epoch - self.begin, epochs=self.epochs, group_counts=by_group)
        grouped = torch.as_tensor(shares).ndim == 2
        where = checked_shares(shares, by_group if grouped else counts, self.sampler_name, "sampler")
        order = epoch_positions(cells if grouped else self.labels, where.reshape(-1), self.recipe.seed, epoch)
        return in_batches(torch.from_numpy(self.rows)[order], self.recipe.batch_size)


def plan(recipe: Recipe, data: Data, registry: Registry, device: torch.device) -> tuple[Stage, ...]:
    """All stages of a recipe.

    Raises:
        DataError: a stage would have too few images.
    """
    stages: list[Stage] = []
    for number, said in enumerate(recipe.stages):
        stages.append(_stage(number, said, stages[-1].end if stages else 0, recipe, data, registry, device))
    return tuple(stages)


def _stage(
    number: int, said: StageRecipe, begin: int, recipe: Recipe, data: Data, registry: Registry, device: torch.device
) -> Stage:
    epochs = recipe.stage_epochs[number]
    rows = chosen(said, data, recipe.data.subset_seed + 2, f"stages[{number}]")
    labels = data.train.labels.cpu().numpy()[rows]
    counts = torch.from_numpy(np.bincount(labels, minlength=data.num_classes))
    sampler = said.sampler or recipe.sampler
    draw = named.bind(registry.samplers[sampler.name], sampler.options, named.SAMPLER_FACTS)
    if "group_counts" in draw.wanted and data.train.groups is None:
        raise DataError(f'the sampler "{sampler.name}" draws by group, and {NO_GROUPS}')
    own: Mapping[str, object] = {
        "epochs": epochs,
        "schedule": said.schedule or recipe.schedule,
        "optimizer": recipe.optimizer.model_copy(update={"lr": said.lr or recipe.optimizer.lr}),
    }
    return Stage(
        number=number,
        name=said.name,
        begin=begin,
        epochs=epochs,
        recipe=recipe.model_copy(update=own),
        rows=rows,
        labels=labels,
        class_counts=counts.to(device, torch.float32),
        groups=None if data.train.groups is None else data.train.groups.cpu().numpy()[rows],
        group_names=data.group_names,
        mixing=said.mixing,
        function=named.bind(registry.stages[said.name], said.options, named.STAGE_FACTS),
        sampler=draw,
        sampler_name=sampler.name,
        loss=named.bind(registry.losses[recipe.loss.name], recipe.loss.options, named.LOSS_FACTS),
    )


def chosen(said: StageRecipe, data: Data, seed: int, path: str) -> np.ndarray:
    """[n] int64 sorted positions of the training images that a stage takes; a function of data and seed.

    Raises:
        DataError: nothing is left, or a class (or a class of a group) has no image to balance with.
    """
    labels = data.train.labels.cpu().numpy()
    rows = np.arange(len(labels))
    if said.data == "real":
        rows = rows[~data.synthetic]
    if not len(rows):
        raise DataError(f"{path}: no real training image is there; say data: all")
    if said.balance is None:
        return rows
    cells, names = labels[rows], [f'class "{name}"' for name in data.class_names]
    if said.balance == "groups":
        if data.train.groups is None:
            raise DataError(f"{path}: nothing can be balanced by group, as {NO_GROUPS}")
        cells = cells * len(data.group_names) + data.train.groups.cpu().numpy()[rows]
        names = [f'{name} of group "{group}"' for name in names for group in data.group_names]
    counts = np.bincount(cells, minlength=len(names))
    if counts.min() == 0:
        name = names[int(counts.argmin())]
        raise DataError(f"{path}: {name} has no such image, so nothing can be balanced; leave balance out")
    random, kept = np.random.RandomState(seed), []
    for cell in range(len(names)):
        own = rows[cells == cell]
        random.shuffle(own)
        kept.append(own[: counts.min()])
    return np.sort(np.concatenate(kept))
