"""The stages of a run in their order: what each trains, on which images, for how long."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augkit.errors import DataError, DocumentError
from augkit.lab import named
from augkit.lab.data import NO_GROUPS, Data, in_batches
from augkit.lab.epochs import Part, Sampler, blended, replaced, whole
from augkit.lab.heads import last_layer, single_layer
from augkit.lab.ratios import ratio
from augkit.lab.recipe import Recipe
from augkit.lab.recipe_parts import LossRecipe, SamplerRecipe, StageRecipe
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
    """The run's, with this stage's `epochs`, `loss`, `optimizer.lr`, `optimizer.weight_decay` and `schedule`."""
    part: Part
    """The images that an epoch is as long as."""
    synthetic: np.ndarray
    """[n] bool: which of those are synthetic."""
    spare: Part
    """Synthetic images that may take real ones' places; none unless the recipe says so."""
    facts: Mapping[str, Any]
    """What a loss may know of the stage: `class_counts` [C] and `group_counts` [C, G] float32 of the part's images, on
    the device, `group_names`, `epochs`, and if it asks for it, the model's last layer, `head`."""
    mixing: bool
    function: named.Bound
    sampler: Sampler
    loss: named.Bound

    @property
    def class_counts(self) -> Tensor:
        """[C] float32 images of each class among the part's, on the device."""
        return self.facts["class_counts"]  # type: ignore[no-any-return]

    @property
    def rows(self) -> np.ndarray:
        """[n] int64 sorted positions in the training split."""
        return self.part.rows

    @property
    def seed(self) -> int:
        """Of what the stage's function draws."""
        return (self.recipe.seed + _APART * self.number) % 2**63

    @property
    def path(self) -> str:
        """Its place in the recipe."""
        return f"stages[{self.number}]"

    @property
    def end(self) -> int:
        """The first epoch after it."""
        return self.begin + self.epochs

    @property
    def fitted(self) -> bool:
        """Whether its function gives the last layer its weights, instead of a training, see `augkit.lab.stages`."""
        return "embeddings" in self.function.wanted

    @property
    def fits_validation(self) -> bool:
        """Whether the last layer is fitted to validation images, so that these cannot measure it."""
        option = named.options_of(self.function.function, named.STAGE_FACTS).get("fit_on")
        said = None if option is None else self.function.options.get("fit_on", option.default)
        return self.fitted and said == "validation"

    def enter(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Make the model ready for this stage and return the part that learns; torch's generators stay as they are.

        Raises:
            DocumentError: the stage cannot do anything with this model.
        """
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            part = last_layer(model) if self.fitted else self.function(model, seed=self.seed, **self.facts)
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
        sources, seed = self.recipe.sources, self.recipe.seed

        def at(said: Any) -> Callable[[int], float]:
            return lambda local: ratio(said, local, self.epochs)

        real, made = self.part.of(~self.synthetic), self.part.of(self.synthetic)
        if sources is not None and sources.share is not None and len(real) and len(made):
            order = blended(real, made, self.sampler, at(sources.share), epoch)
        else:
            order = whole(self.part, self.sampler, epoch)
        if sources is not None and len(self.spare):
            order = replaced(order, self.part, self.spare, at(sources.replace)(epoch - self.begin), seed, epoch)
        return in_batches(torch.from_numpy(order), self.recipe.batch_size)


def plan(recipe: Recipe, data: Data, registry: Registry, device: torch.device, model: nn.Module) -> tuple[Stage, ...]:
    """All stages of a recipe.

    Raises:
        DataError: a stage would have too few images.
        DocumentError: a loss asks for a last layer that the model has not.
    """
    stages: list[Stage] = []
    for number, said in enumerate(recipe.stages):
        stages.append(_stage(number, said, stages[-1].end if stages else 0, recipe, data, registry, device, model))
    return tuple(stages)


def _stage(
    number: int,
    said: StageRecipe,
    begin: int,
    recipe: Recipe,
    data: Data,
    registry: Registry,
    device: torch.device,
    model: nn.Module,
) -> Stage:
    epochs = recipe.stage_epochs[number]
    rows, spare = images_of(recipe, number, data)
    part = _part(data, rows)
    counts = torch.from_numpy(np.bincount(part.labels, minlength=data.num_classes))
    function = named.bind(registry.stages[said.name], said.options, named.STAGE_FACTS)
    _check_facts(function, f'stages[{number}]: "{said.name}"', data)
    cells = np.bincount(part.cells, minlength=data.num_classes * part.group_count)
    facts: dict[str, Any] = {
        "class_counts": counts.to(device, torch.float32),
        "group_counts": torch.from_numpy(cells).to(device, torch.float32).view(data.num_classes, -1),
        "group_names": data.group_names,
        "epochs": epochs,
    }
    return Stage(
        number=number,
        name=said.name,
        begin=begin,
        epochs=epochs,
        recipe=_own_recipe(said, recipe, epochs),
        part=part,
        synthetic=data.synthetic[rows],
        spare=_part(data, spare),
        facts=facts,
        mixing=said.mixing,
        function=function,
        sampler=_sampler(said.sampler or recipe.sampler, recipe, data, registry, begin, epochs),
        loss=_loss_at(number, said, recipe, data, registry, facts, model),
    )


def _own_recipe(said: StageRecipe, recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with what a stage says otherwise."""
    decay = recipe.optimizer.weight_decay if said.weight_decay is None else said.weight_decay
    rates = {"lr": said.lr or recipe.optimizer.lr, "weight_decay": decay}
    own = {
        "epochs": epochs,
        "loss": said.loss or recipe.loss,
        "schedule": said.schedule or recipe.schedule,
        "optimizer": recipe.optimizer.model_copy(update=rates),
    }
    return recipe.model_copy(update=own)


def _loss_at(
    number: int,
    said: StageRecipe,
    recipe: Recipe,
    data: Data,
    registry: Registry,
    facts: dict[str, Any],
    model: nn.Module,
) -> named.Bound:
    """A stage's loss; what is wrong with one of its options is told with the place of that in the recipe."""
    seed = (recipe.seed + _APART * number) % 2**63
    try:
        return _loss(said.loss or recipe.loss, seed, data, registry, facts, model)
    except DocumentError as error:
        if error.path not in (said.loss or recipe.loss).options:
            raise
        place = "loss" if said.loss is None else f"stages[{number}].loss"
        raise DocumentError(error.message, path=f"{place}.{error.path}") from error


def _check_facts(function: named.Bound, what: str, data: Data) -> None:
    """Raise unless the data have what a stage's function asks for."""
    if "embeddings" in function.wanted and data.val is None:
        raise DataError(f"{what} needs images that were held out: set data.validation")
    of_val = data.train.groups if data.val is None else data.val.groups
    if "group_names" in function.wanted and (data.train.groups is None or of_val is None):
        raise DataError(f"{what} works by group, and {NO_GROUPS}, for validation images too")


def _part(data: Data, rows: np.ndarray) -> Part:
    labels, groups = data.train.labels.cpu().numpy()[rows], data.train.groups
    known = None if groups is None else groups.cpu().numpy()[rows]
    return Part(rows, labels, known, data.num_classes, max(1, len(data.group_names)))


def _loss(
    said: LossRecipe, seed: int, data: Data, registry: Registry, facts: dict[str, Any], model: nn.Module
) -> named.Bound:
    """A stage's loss; one that remembers is made anew for each stage, what it draws a function of `seed`."""
    known = registry.losses[said.name]
    loss = named.bind(known, said.options, named.LOSS_FACTS)
    if loss.wanted & {"groups", "group_names", "group_counts"} and data.train.groups is None:
        raise DataError(f'the loss "{said.name}" works by group, and {NO_GROUPS}')
    if {"head", "features"} & loss.wanted:
        facts["head"] = single_layer(model, said.name)
    if inspect.isclass(known):
        device = facts["class_counts"].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            made = loss(**facts)
        loss = named.bind(made.to(device) if isinstance(made, nn.Module) else made, {}, named.LOSS_FACTS)
        if {"head", "features"} & loss.wanted:
            facts["head"] = single_layer(model, said.name)
    return loss


def _sampler(said: SamplerRecipe, recipe: Recipe, data: Data, registry: Registry, begin: int, epochs: int) -> Sampler:
    bound = named.bind(registry.samplers[said.name], said.options, named.SAMPLER_FACTS)
    if "group_counts" in bound.wanted and data.train.groups is None:
        raise DataError(f'the sampler "{said.name}" draws by group, and {NO_GROUPS}')
    return Sampler(said.name, partial(bound, epochs=epochs), recipe.seed, begin)


def images_of(recipe: Recipe, number: int, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Sorted positions in the training split of the images that a stage's epochs are as long as, and of the synthetic
    ones that may take real ones' places in them.

    Raises:
        DataError: nothing is left, or synthetic images are to be mixed in and there are none.
    """
    said, path = recipe.stages[number], f"stages[{number}]"
    sources, nothing = recipe.sources, np.zeros(0, np.int64)
    asked = next((n for n in ("share", "replace") if sources is not None and getattr(sources, n) is not None), None)
    if asked is not None and not data.synthetic.any():
        raise DataError(f"sources.{asked}: there is no synthetic image among the training images; give sources.folder")
    if asked == "replace" and said.data == "all":
        real = said.model_copy(update={"data": "real"})
        return chosen(real, data, recipe.data.subset_seed + 2, path), np.flatnonzero(data.synthetic)
    return chosen(said, data, recipe.data.subset_seed + 2, path), nothing


def counts_of(recipe: Recipe, data: Data, number: int = 0) -> Tensor:
    """[C] int64 images of each class that a stage trains on, on the CPU."""
    rows, _ = images_of(recipe, number, data)
    return torch.bincount(data.train.labels.cpu()[rows], minlength=data.num_classes)


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
