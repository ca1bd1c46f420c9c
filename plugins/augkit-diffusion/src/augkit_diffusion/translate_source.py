"""The source `translate`: image-to-image, so that new images of a class begin with real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from augkit.errors import AugkitError, DataError
from augkit_diffusion.sd_source import Guidance, How, Sd, Size, Steps, Whole
from augkit_diffusion.sources import Context, Source, Wish

if TYPE_CHECKING:
    from PIL import Image

    from augkit_diffusion.pipelines import Task
    from augkit_diffusion.prompts import Prompts

Begin = Literal["intra", "inter"]


def translate(
    context: Context,
    *,
    model: str,
    begin: Begin = "intra",
    strength: Annotated[float, Field(gt=0, le=1)] = 0.7,
    steps: Steps = 30,
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
    """Real images that an image-to-image pipeline changes: of the class itself, or with begin=inter of a larger one."""
    from augkit_diffusion.prompts import open_prompts

    if int(steps * strength) < 1:
        raise AugkitError(f"strength {strength} of {steps} steps leaves none to take; say a higher --strength")
    how = How(model, steps, guidance, batch, precision, size, made_at, memory, safety_checker)
    return Translate(context, how, open_prompts(prompts, template, negative), begin, strength)


class Translate(Sd):
    """Images of an image-to-image pipeline, with prompts of the class that is wished.

    `intra`: image k begins with real image k of its class, and after the last with the first again. `inter`: with one
    of a class that has more images, every such image being as likely; for a class that is largest itself, with one of
    any other class. Where a group is wished, images of the same group are taken if there are any.
    """

    task: Task = "image"
    from_real = True

    def __init__(self, context: Context, how: How, prompts: Prompts, begin: Begin, strength: float) -> None:
        super().__init__(context, how, prompts)
        self.begin, self.strength = begin, strength

    def identity(self) -> dict[str, Any]:
        """As of `sd`, with what images begin with and how far they leave it."""
        return {**super().identity(), "begin": self.begin, "strength": self.strength}

    def complete(self, wish: Wish) -> Wish:
        """With its prompts, and the position in `Data.train` of the image that it begins with."""
        rows = self._rows(wish)
        if self.begin == "intra":
            place = wish.number % len(rows)
        else:
            place = int(np.random.Philox(key=wish.seed).random_raw()) * len(rows) >> 64
        return replace(super().complete(wish), row=int(rows[place]))

    def draw(self, wishes: Sequence[Wish]) -> list[np.ndarray | None]:
        """A whole batch at the model's size."""
        from augkit_diffusion.pipelines import Request

        prompts, negatives = [w.prompt for w in wishes], [w.negative for w in wishes]
        images = [self.image(w) for w in wishes]
        return self.pipeline.draw(Request(prompts, negatives, [w.seed for w in wishes], images), **self.asked)

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the pipeline is asked besides the wishes."""
        return {**super().asked, "strength": self.strength}

    def image(self, wish: Wish) -> Image.Image:
        """The real image that a wish begins with, as large as the pipeline makes them."""
        from PIL import Image

        from augkit.lab.data import fit

        split, row = self.context.data.train, self.complete(wish).row if wish.row is None else wish.row
        found = fit(split.reader.read(int(split.rows[row])), self.made_at)
        return Image.fromarray(np.ascontiguousarray(found.numpy().transpose(1, 2, 0)))

    def _rows(self, wish: Wish) -> np.ndarray:
        """Positions in `Data.train` of the real images that it may begin with.

        Raises:
            DataError: there are none.
        """
        rows = self._of_classes[wish.label]
        if self._groups is not None and wish.group is not None:
            same = rows[self._groups[rows] == wish.group]
            rows = same if len(same) else rows
        if not len(rows):
            raise DataError(f'there is no real image that one of class "{wish.class_name}" could begin with')
        return rows

    @cached_property
    def _of_classes(self) -> list[np.ndarray]:
        """For each class the positions that its images may begin with, ascending."""
        data = self.context.data
        labels, real = data.train.labels.cpu().numpy(), ~data.synthetic
        counts = np.bincount(labels[real], minlength=data.num_classes)
        found = []
        for label, count in enumerate(counts):
            allowed = np.arange(len(counts)) == label
            if self.begin == "inter":
                allowed = counts > count if (counts > count).any() else ~allowed
            found.append(np.flatnonzero(allowed[labels] & real))
        return found

    @cached_property
    def _groups(self) -> np.ndarray | None:
        groups = self.context.data.train.groups
        return None if groups is None else groups.cpu().numpy()
