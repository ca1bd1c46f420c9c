"""The source `sd`: images of a text-to-image pipeline, from prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from augkit_diffusion.sources import Context, Source, Wish

if TYPE_CHECKING:
    from augkit_diffusion.pipelines import Memory, Pipeline, Precision, Task
    from augkit_diffusion.prompts import Prompts

Steps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=100)]
Whole = Annotated[int, Field(ge=1)]
Size = Literal["data", "model"] | Annotated[int, Field(ge=1)]


def sd(
    context: Context,
    *,
    model: str,
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
    """A text-to-image pipeline of diffusers, from a folder or the hub, told what to show by prompts."""
    from augkit_diffusion.prompts import open_prompts

    how = How(model, steps, guidance, batch, precision, size, made_at, memory, safety_checker)
    return Sd(context, how, open_prompts(prompts, template, negative))


@dataclass(frozen=True)
class How:
    """How a pipeline is loaded and asked; what the options of these sources have in common."""

    model: str
    steps: int
    guidance: float | None
    batch: int
    precision: Precision
    size: Literal["data", "model"] | int
    made_at: int | None
    memory: Memory
    safety_checker: bool


class Sd:
    """Images of a text-to-image pipeline. Each is made at the model's size, and resized as the data's images are."""

    task: Task = "text"
    from_real = False

    def __init__(self, context: Context, how: How, prompts: Prompts) -> None:
        from augkit_diffusion.pipeline_folder import open_folder
        from augkit_diffusion.pipelines import Pipeline

        self.context, self.how, self.prompts, self.batch = context, how, prompts, how.batch
        folder = open_folder(how.model, safety_checker=how.safety_checker)
        self.pipeline: Pipeline = Pipeline(
            folder, context.device, task=self.task, precision=how.precision, memory=how.memory
        )

    def identity(self) -> dict[str, Any]:
        """Of the pipeline's files (`model`), of the prompts, and of how the pipeline is asked."""
        pipeline = self.pipeline
        return {
            "model": pipeline.folder.sha256(self.context.folder / "model", self.context.progress),
            "pipeline": pipeline.folder.kind,
            "prompts": self.prompts.sha256(),
            "steps": self.how.steps,
            "guidance": self.guidance,
            "precision": pipeline.precision,
            "made_at": self.made_at,
            "size": self.size,
            "memory": pipeline.memory,
            "safety_checker": pipeline.folder.safety_checker,
            "batch": self.batch,
        }

    def complete(self, wish: Wish) -> Wish:
        """With its prompt and negative prompt."""
        prompt, negative = self.prompts.fill(wish)
        return replace(wish, prompt=prompt, negative=negative)

    def make(self, wishes: Sequence[Wish]) -> list[np.ndarray | None]:
        """Images uint8 [size, size, 3]; None where the safety checker flags one.

        Fewer wishes than a batch are filled up, so that a batch has one size.
        """
        images: list[np.ndarray | None] = []
        for begin in range(0, len(wishes), self.batch):
            part = list(wishes[begin : begin + self.batch])
            made = self.draw(part + part[-1:] * (self.batch - len(part)))
            images += made[: len(part)]
        return [None if image is None else resized(image, self.size) for image in images]

    def draw(self, wishes: Sequence[Wish]) -> list[np.ndarray | None]:
        """A whole batch at the model's size."""
        from augkit_diffusion.pipelines import Request

        request = Request([w.prompt for w in wishes], [w.negative for w in wishes], [w.seed for w in wishes])
        return self.pipeline.draw(request, **self.asked)

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the pipeline is asked besides the wishes."""
        return {"steps": self.how.steps, "guidance": self.guidance, "size": self.made_at}

    @cached_property
    def guidance(self) -> float | None:
        """As said, or the pipeline's own."""
        return self.pipeline.guidance(self.how.guidance)

    @cached_property
    def made_at(self) -> int:
        """Pixels of a side of the images that the pipeline makes."""
        return self.how.made_at or self.pipeline.size

    @cached_property
    def size(self) -> int:
        """Pixels of a side of the images that are kept."""
        if self.how.size == "data":
            return self.context.data.train.size
        return self.made_at if self.how.size == "model" else self.how.size


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """[size, size, 3] uint8: resized with antialiasing and cropped to the middle, as images of the data are."""
    from augkit.lab.data import fit

    if image.shape[:2] == (size, size):
        return image
    return np.ascontiguousarray(fit(image, size).numpy().transpose(1, 2, 0))
