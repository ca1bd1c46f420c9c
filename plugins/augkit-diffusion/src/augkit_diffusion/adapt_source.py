"""The source `adapt`: a pretrained pipeline that learns what the data's classes look like, then samples as `sd`."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from augkit.errors import AugkitError, DataError
from augkit.lab.class_folders import folder_names
from augkit_diffusion.sd_source import Guidance, How, Sd, Size, Steps, Whole
from augkit_diffusion.sources import Context, Lesson, Source, Wish

if TYPE_CHECKING:
    from augkit_diffusion.adapt_training import Captions, Plan, Training
    from augkit_diffusion.learning import Material
    from augkit_diffusion.pipelines import Pipeline
    from augkit_diffusion.prompts import Prompts

NEEDED, UNKNOWN = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}, {"text_encoder_2", "transformer"}
Positive = Annotated[float, Field(gt=0)]


def adapt(
    context: Context,
    *,
    model: str,
    each: Literal["all", "class"] = "all",
    learnt_as: str = "a photo of {class}",
    token: str = "",
    train_steps: Whole = 1000,
    train_batch: Whole = 4,
    lr: Positive = 1e-4,
    rank: Whole = 8,
    text_encoder: bool = False,
    prior: Annotated[float, Field(ge=0)] = 0.0,
    exponent: Annotated[float, Field(ge=0, le=1)] = 0.5,
    learnt: Path | None = None,
    checkpoint_seconds: Positive = 60.0,
    steps: Steps = 20,
    guidance: Guidance | None = None,
    batch: Whole = 4,
    precision: Literal["auto", "float16", "bf16", "float32"] = "auto",
    prompts: Path | None = None,
    template: str | None = None,
    negative: str | None = None,
    size: Size = "data",
    made_at: Whole | None = None,
    memory: Literal["auto", "low"] = "auto",
    safety_checker: bool = True,
) -> Source:
    """A text-to-image pipeline that first learns (LoRA) what the real images of the classes look like."""
    from augkit_diffusion.adapt_training import Plan
    from augkit_diffusion.prompts import open_prompts

    if prior and not token.strip():
        raise AugkitError("prior keeps what the class was before, apart from what is learnt: say --option token=WORD")
    how = How(model, steps, guidance, batch, precision, size, made_at, memory, safety_checker)
    trained = "float32" if context.device.type == "cpu" and precision != "bf16" else "bf16"
    plan = Plan(train_steps, train_batch, lr, exponent, context.seed, trained, rank, text_encoder, prior)
    prompts_read = open_prompts(prompts, template, negative)
    by_class, token = each == "class", token.strip()
    return Adapt(context, how, prompts_read, plan, by_class, learnt_as, token, checkpoint_seconds, learnt)


class Adapt(Sd):
    """Images of a pipeline of Stable Diffusion 1 or 2, adapted to all classes at once, or anew to each class.

    Every class has its own caption in training, `learnt_as`; with a token, the class is called by token and name there
    and in prompts. What is learnt lies in the store's `model/`, or in a folder of it for each class.
    """

    from_real = True

    def __init__(
        self,
        context: Context,
        how: How,
        prompts: Prompts,
        plan: Plan,
        by_class: bool,
        learnt_as: str,
        token: str,
        checkpoint_seconds: float,
        other: Path | None,
    ) -> None:
        from augkit_diffusion.learnt import check, check_other, read_note
        from augkit_diffusion.prompts import Prompts

        names = context.data.class_names
        called = (
            {name: f"{token} {prompts.called(name)}" for name in names[: context.data.num_classes]} if token else {}
        )
        self.before = Prompts((learnt_as,), names=prompts.names)
        self.before.check()
        self.captions_of = replace(self.before, names={**prompts.names, **called})
        super().__init__(context, how, replace(prompts, names={**prompts.names, **called}))
        kind, parts = self.pipeline.folder.kind, set(self.pipeline.folder.parts)
        if not parts >= NEEDED or parts & UNKNOWN:
            raise AugkitError(f"adapt knows pipelines built as Stable Diffusion 1 and 2 are, and no {kind}; take sd")
        self.plan, self.by_class, self.checkpoint_seconds = plan, by_class, checkpoint_seconds
        self.folder, self.other = context.folder / "model", other
        self._loaded: Path | None = None
        self._rehearsed = False
        for folder, label in self.folders:
            if read_note(folder):
                check(folder, self.settings(label))
            elif other is not None:
                check_other(self._elsewhere(folder), self.settings(label))

    @cached_property
    def folders(self) -> list[tuple[Path, int | None]]:
        """Where something is learnt, and the class that it is of; None for all."""
        if not self.by_class:
            return [(self.folder, None)]
        names = folder_names(self.context.data.class_names)
        return [(self.folder / name, label) for label, name in enumerate(names) if bool(self.of_class(label).any())]

    @property
    def ready(self) -> bool:
        """Whether it has learnt, or can take over what another store has."""
        from augkit_diffusion.learnt import learnt

        return self.other is not None or all(learnt(folder) is not None for folder, _ in self.folders)

    def _elsewhere(self, folder: Path) -> Path:
        """Where the other store keeps the same."""
        from augkit_diffusion.learnt import elsewhere

        assert self.other is not None
        return elsewhere(self.other, folder.relative_to(self.folder))

    def identity(self) -> dict[str, Any]:
        """As of `sd`, `model` being the hash of the pipeline and of what was learnt; the first call learns it."""
        from augkit_diffusion.learnt import learnt

        self._learn()
        told = super().identity()
        found = [told["model"], *(learnt(folder) for folder, _ in self.folders)]
        return {**told, "model": hashlib.sha256(json.dumps(found).encode()).hexdigest(), "adapted_from": found[0]}

    def draw(self, wishes: Sequence[Wish]) -> list[np.ndarray | None]:
        """A whole batch at the model's size; class by class if each class has weights of its own."""
        if not self.by_class:
            return self._draw(wishes, self.folder)
        images: list[np.ndarray | None] = [None] * len(wishes)
        for label in dict.fromkeys(wish.label for wish in wishes):
            chosen = [i for i, wish in enumerate(wishes) if wish.label == label]
            wished = [wishes[i] for i in chosen]
            made = self._draw(wished + wished[-1:] * (self.batch - len(wished)), self._folder_of(wished[0]))
            for i, image in zip(chosen, made, strict=False):
                images[i] = image
        return images

    def _folder_of(self, wish: Wish) -> Path:
        for folder, label in self.folders:
            if label == wish.label:
                return folder
        raise DataError(f'no real training image shows class "{wish.class_name}", so adapt cannot learn it; take sd')

    def complete(self, wish: Wish) -> Wish:
        """With its prompts; raises if nothing can be learnt of its class."""
        if self.by_class:
            self._folder_of(wish)
        return super().complete(wish)

    def _draw(self, wishes: Sequence[Wish], folder: Path) -> list[np.ndarray | None]:
        from augkit_diffusion.adapt_training import WEIGHTS, loaded
        from augkit_diffusion.learnt import learnt

        if self._loaded != folder and not self._rehearsed:
            there = self._elsewhere(folder) if self.other is not None and learnt(folder) is None else folder
            loaded(self.pipeline.pipe, there / WEIGHTS, learnt(there))
            self._loaded = folder
        return super().draw(wishes)

    def settings(self, label: int | None) -> dict[str, Any]:
        """All that the weights depend on, as JSON."""
        told, labels = self._captions(), self.labels[~self.context.data.synthetic]
        return {
            "pipeline": self.pipeline.folder.sha256(self._hashes, self.context.progress),
            "training": self.plan.asdict(),
            "captions": [list(told.learnt), list(told.before) if self.plan.prior else []],
            "made_at": self.how.made_at,
            "class": label,
            "augmentation": json.loads(json.dumps(self._flips)),
            "data": {"sha256": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(), "images": self._images},
        }

    @cached_property
    def _images(self) -> str:
        from augkit_diffusion.learnt import images_sha256

        return images_sha256(self.context.data)

    @property
    def _hashes(self) -> Path:
        """Where hashes of the pipeline's files are noted: nothing is written here before anything is learnt."""
        from augkit_diffusion.learnt import elsewhere

        return elsewhere(self.other) if self.other is not None and not self.folder.exists() else self.folder

    def _learn(self) -> None:
        """Train what is missing, going on where a kill came, or take it over."""
        from augkit_diffusion import learnt
        from augkit_diffusion.adapt_training import WEIGHTS
        from augkit_diffusion.learning import run

        for number, (folder, label) in enumerate(self.folders):
            settings = self.settings(label)
            if self.other is not None and learnt.learnt(folder) is None:
                learnt.take(folder, self._elsewhere(folder), settings, [WEIGHTS])
            learnt.begin(folder, settings)
            if learnt.learnt(folder) is not None:
                continue
            training = self._training(label)

            def tell(step: int, loss: float, before: int = number * self.plan.steps) -> None:
                self.context.progress(f"training (loss {loss:.3f})", before + step, self.plan.steps * len(self.folders))

            run(training, folder, learnt.mark(settings), self.checkpoint_seconds, tell)
            learnt.finish(folder, settings, training.finish(folder))

    def rehearse(self) -> Lesson:
        """Take a few steps of the training, timed; then `make` makes images with what these gave, as fast as ever."""
        from augkit_diffusion import learning, learnt
        from augkit_diffusion.adapt_training import WEIGHTS, loaded

        training = self._training(self.folders[0][1])
        seconds = learning.time_of(training)
        with tempfile.TemporaryDirectory() as folder:
            loaded(self.pipeline.pipe, Path(folder) / WEIGHTS, training.finish(Path(folder)))
        self._rehearsed = True
        left = 0
        for place, label in self.folders:
            if learnt.learnt(place) is None:
                begun = (place / learning.CHECKPOINT).exists()
                done = learning.steps_done(place, learnt.mark(self.settings(label))) if begun else 0
                left += self.plan.steps - done
        return Lesson(self.plan.steps * len(self.folders), left, seconds)

    def _training(self, label: int | None) -> Training:
        from augkit_diffusion.adapt_training import Training

        return Training(self._pipeline(), self.plan, self._material(label), self._captions())

    def _pipeline(self) -> Pipeline:
        """Another copy, to be adapted."""
        from augkit_diffusion.pipelines import Pipeline

        precision: Any = self.plan.precision
        return Pipeline(self.pipeline.folder, self.context.device, precision=precision, memory=self.how.memory)

    def _material(self, label: int | None) -> Material:
        """The real images, of a class or of all, as large as the pipeline makes them."""
        import torch

        from augkit.integrations.keyed import Keyed
        from augkit_diffusion.learning import Material

        data = self.context.data
        chosen = ~data.synthetic if label is None else self.of_class(label)
        labels = torch.from_numpy(self.labels[chosen])
        split = data.train if data.train.size == self.made_at else replace(data.train, held=None, size=self.made_at)
        document = {"augkit": 1, "name": "adapt", "pipeline": self._flips}
        counts = labels.bincount(minlength=data.num_classes * self.groups)
        positions = torch.from_numpy(np.flatnonzero(chosen))
        return Material(split, positions, labels, counts, Keyed(document) if self._flips else None)

    @cached_property
    def _flips(self) -> list[Any]:
        """What training images go through."""
        from augkit_diffusion.fit_source import augmentation_of

        return augmentation_of(self.context.recipe, 0)

    def of_class(self, label: int) -> np.ndarray:
        """[N] bool: which training images are real and of a class."""
        data = self.context.data
        return np.asarray((data.train.labels.cpu().numpy() == label) & ~data.synthetic)

    @property
    def groups(self) -> int:
        """Groups that captions tell apart; 1 if the data have none."""
        return len(self.context.data.group_names) or 1

    @cached_property
    def labels(self) -> np.ndarray:
        """[N] int64: class * groups + group of each training image."""
        train = self.context.data.train
        groups = 0 if train.groups is None else train.groups.cpu().numpy()
        return np.asarray(train.labels.cpu().numpy() * self.groups + groups)

    def _captions(self) -> Captions:
        from augkit_diffusion.adapt_training import Captions

        wishes = list(self._cells())
        return Captions(*([one.fill(wish)[0] for wish in wishes] for one in (self.captions_of, self.before)))

    def _cells(self) -> Iterator[Wish]:
        """A wish for each label of training."""
        for label, name in enumerate(self.context.data.class_names):
            for group in range(self.groups):
                names = self.context.data.group_names
                yield Wish(label, name, 0, 0, group if names else None, names[group] if names else None)
