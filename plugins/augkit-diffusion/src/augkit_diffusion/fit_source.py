"""The source `fit`: images of a diffusion model that is learnt from the data set itself, with no pretrained model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from augkit.errors import DataError
from augkit_diffusion.sources import Context, Lesson, Source, Wish

if TYPE_CHECKING:
    from torch import Tensor

    from augkit.lab.recipe import Recipe
    from augkit_diffusion.fit_model import Shape
    from augkit_diffusion.fit_training import Training
    from augkit_diffusion.learning import Material, Plan

FLIPS, CROP = ("hflip", "vflip"), "random_crop"
LEAST_STEPS, MOST_STEPS, STEPS_PER_IMAGE = 2000, 100_000, 2
Whole = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


def fit(
    context: Context,
    *,
    steps: Annotated[int, Field(ge=1, le=1000)] = 20,
    guidance: Annotated[float, Field(ge=0, le=100)] = 1.5,
    batch: Whole = 32,
    precision: Literal["auto", "float32", "bf16"] = "auto",
    train_steps: Whole | None = None,
    train_batch: Whole = 32,
    lr: Positive = 2e-3,
    width: Annotated[int, Field(ge=16, multiple_of=16)] = 32,
    patch: Literal[1, 2, 4] = 2,
    exponent: Annotated[float, Field(ge=0, le=1)] = 0.5,
    shift: Annotated[int, Field(ge=0)] | None = None,
    learnt: Path | None = None,
    checkpoint_seconds: Positive = 60.0,
) -> Source:
    """A diffusion model learnt from the data set itself, class by class."""
    from augkit_diffusion.learning import Plan
    from augkit_diffusion.learnt import check, check_other, elsewhere
    from augkit_diffusion.learnt import learnt as learnt_to_end

    if precision == "auto":
        precision = "bf16" if context.device.type == "cuda" else "float32"
    if train_steps is None:
        train_steps = min(MOST_STEPS, max(LEAST_STEPS, STEPS_PER_IMAGE * int((~context.data.synthetic).sum())))
    plan = Plan(train_steps, train_batch, lr, exponent, context.seed, precision)
    augmentation = augmentation_of(context.recipe, shift)
    other = None if learnt is None else elsewhere(learnt)
    source = Fit(context, plan, augmentation, width, patch, steps, guidance, batch, checkpoint_seconds, other)
    check(source.folder, source.settings())
    if other is not None and not learnt_to_end(source.folder):
        check_other(other, source.settings())
    return source


class Fit:
    """A class-conditional diffusion model of the recipe's real training images; with groups, of each group x class."""

    def __init__(
        self,
        context: Context,
        plan: Plan,
        augmentation: list[Any],
        width: int,
        patch: int,
        steps: int,
        guidance: float,
        batch: int,
        checkpoint_seconds: float,
        other: Path | None,
    ) -> None:
        self.context, self.plan, self.augmentation = context, plan, augmentation
        self.width, self.patch = width, patch
        self.steps, self.guidance, self.batch = steps, guidance, batch
        self.checkpoint_seconds = checkpoint_seconds
        self.folder = context.folder / "model"
        self.other = other
        """Where another store has learnt the same."""

    @property
    def ready(self) -> bool:
        """Whether it has learnt, or can take over what another store has."""
        from augkit_diffusion.learnt import learnt

        return self.other is not None or learnt(self.folder) is not None

    def identity(self) -> dict[str, Any]:
        """Of the weights (`model`) and of how they are sampled; the first call learns them, or takes them over."""
        from augkit_diffusion.fit_folder import FILES
        from augkit_diffusion.learnt import learnt, take

        if self.other is not None and learnt(self.folder) is None:
            take(self.folder, self.other, self.settings(), FILES)
        _ = self.model
        return {
            "model": learnt(self.folder),
            "size": self.shape.size,
            "steps": self.steps,
            "guidance": self.guidance,
            "precision": self.plan.precision,
            "batch": self.batch,
        }

    def make(self, wishes: Sequence[Wish]) -> list[np.ndarray | None]:
        """Images uint8 [size, size, 3]; fewer wishes than a batch are filled up, so that a batch has one size.

        Raises:
            DataError: a class has no image in a group, so that nothing is known of it.
            AugkitError: memory is short.
        """
        import torch

        from augkit_diffusion.fit_model import noise, sample
        from augkit_diffusion.pipelines import enough_memory

        model, shape, device = self.model, self.shape, self.context.device
        images: list[np.ndarray | None] = []
        for begin in range(0, len(wishes), self.batch):
            part = wishes[begin : begin + self.batch]
            more = self.batch - len(part)
            labels = torch.tensor([self.label(wish) for wish in part] + [shape.none] * more, device=device)
            start = noise([wish.seed for wish in part] + [0] * more, shape).to(device)
            with enough_memory("make fewer images at once (--batch 8)"):
                made = sample(
                    model, shape, labels, start, steps=self.steps, guidance=self.guidance, precision=self.plan.precision
                )
            images += list(made[: len(part)])
        return images

    def rehearse(self) -> Lesson:
        """Take a few steps of the training, timed; then `make` makes images with what these gave, as fast as ever."""
        from augkit_diffusion import learning, learnt
        from augkit_diffusion.fit_folder import sampling

        training = self._training()
        seconds = learning.time_of(training)
        self.model = sampling(training.model, self.context.device)
        done = learning.steps_done(self.folder, learnt.mark(self.settings()))
        return Lesson(self.plan.steps, self.plan.steps - done, seconds)

    def complete(self, wish: Wish) -> Wish:
        """The wish as it is, if it can be fulfilled; raises like `label`."""
        self.label(wish)
        return wish

    def label(self, wish: Wish) -> int:
        """class * groups + group; a wish that leaves its group open gets one, as often as the class has it.

        Raises:
            DataError: there is no training image of it.
        """
        groups = len(self.context.data.group_names) or 1
        counts = self.counts[wish.label * groups : (wish.label + 1) * groups]
        group = wish.group or 0
        if wish.group is None and int(counts.sum()):
            group = int(np.searchsorted(counts.cumsum(0).numpy(), wish.seed % int(counts.sum()), side="right"))
        if int(counts[group]) == 0:
            of_group = f' in group "{wish.group_name}"' if wish.group is not None else ""
            raise DataError(
                f'no real training image shows class "{wish.class_name}"{of_group}, so fit cannot learn it: ask for'
                " none of these, or take another source"
            )
        return wish.label * groups + group

    @cached_property
    def real(self) -> Tensor:
        """[N] int64 on the CPU: positions of the real training images."""
        import torch

        return torch.from_numpy(np.flatnonzero(~self.context.data.synthetic))

    @cached_property
    def labels(self) -> Tensor:
        """[N] int64 on the CPU: class * groups + group of each real training image."""
        data = self.context.data
        labels = data.train.labels.cpu()[self.real]
        if data.train.groups is None:
            return labels
        return labels * len(data.group_names) + data.train.groups.cpu()[self.real]

    @cached_property
    def counts(self) -> Tensor:
        """[labels] int64 on the CPU: real training images of each."""
        data = self.context.data
        return self.labels.bincount(minlength=len(data.class_names) * (len(data.group_names) or 1))

    @cached_property
    def shape(self) -> Shape:
        """What the network is made for."""
        from augkit_diffusion.fit_model import Shape

        return Shape(self.context.data.train.size, len(self.counts), self.width, self.patch)

    @cached_property
    def model(self) -> Any:
        """The network with the weights in the folder, or in another store's; they are learnt first if in neither."""
        from augkit_diffusion import fit_folder, learnt

        there = learnt.learnt(self.folder) is not None
        if not there and self.other is not None:
            return fit_folder.load(self.other, self.shape, self.context.device)
        settings = self.settings()
        learnt.begin(self.folder, settings)
        if not there:
            self._learn(settings)
        return fit_folder.load(self.folder, self.shape, self.context.device)

    def settings(self) -> dict[str, Any]:
        """All that the weights depend on, as JSON."""
        data = self.context.data
        of_data = {"sha256": self._data_hash(), "images": self._images}
        told = {
            "network": self.shape.asdict(),
            "training": self.plan.asdict(),
            "augmentation": self.augmentation,
            "data": {**of_data, "classes": data.class_names, "groups": data.group_names},
        }
        return json.loads(json.dumps(told))  # type: ignore[no-any-return]

    @cached_property
    def _images(self) -> str:
        from augkit_diffusion.learnt import images_sha256

        return images_sha256(self.context.data)

    def _data_hash(self) -> str:
        """Of the labels of the real training images, and of their pixels if they are held in memory."""
        split = self.context.data.train
        digest = hashlib.sha256(self.labels.numpy().astype("<i8").tobytes())
        digest.update(split.rows[self.real.numpy()].astype("<i8").tobytes())
        if split.held is not None:
            for where in self.real.split(1024):
                digest.update(split.held[where.to(split.held.device)].cpu().numpy().tobytes())
        return digest.hexdigest()

    def _learn(self, settings: dict[str, Any]) -> None:
        """Train, going on where a kill came."""
        from augkit_diffusion import fit_folder, learnt
        from augkit_diffusion.learning import run

        training = self._training()

        def tell(step: int, loss: float) -> None:
            self.context.progress(f"training (loss {loss:.3f})", step, self.plan.steps)

        run(training, self.folder, learnt.mark(settings), self.checkpoint_seconds, tell)
        fit_folder.finish(self.folder, settings, training)

    def _training(self) -> Training:
        from augkit_diffusion.fit_training import Training

        return Training(self.shape, self.plan, self._material(), self.context.device)

    def _material(self) -> Material:
        from augkit.integrations.keyed import Keyed
        from augkit_diffusion.learning import Material

        document = {"augkit": 1, "name": "fit", "image": {"fill": "reflect"}, "pipeline": self.augmentation}
        augment = Keyed(document) if self.augmentation else None
        return Material(self.context.data.train, self.real, self.labels, self.counts, augment)


def augmentation_of(recipe: Recipe, shift: int | None) -> list[Any]:
    """Steps that training images go through: the flips of the recipe's base, and its random crop, half as far.

    What the model sees it makes. So nothing is erased, recoloured or zoomed, and a crop shows no black border but the
    image's own edge, reflected. `shift` is how many pixels it moves at most instead.
    """
    steps: list[Any] = []
    for step in (*recipe.base.before, *recipe.base.after):
        name, body = (step, None) if isinstance(step, str) else next(iter(step.items()))
        if name in FLIPS:
            steps.append(step)
        elif name == CROP and shift is None:
            padding = body.get("padding", 4) if isinstance(body, dict) else 4
            shift = max(1, padding // 2)
    return [*steps, {CROP: {"padding": shift}}] if shift else steps
