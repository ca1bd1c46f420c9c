"""Sources of synthetic images: what one is, what it is told, and how one is opened by name.

A source comes through the hook `augkit_sources`, which maps its name to a function

    def fog(context: Context, *, steps: int = 20, density: Annotated[float, Field(gt=0)] = 1.0) -> Source:
        "Fog of any density."          # the first line is what `augkit synth sources` tells

that opens it. Its keyword-only parameters are the options of `augkit synth make --source fog`, each with a type, which
is checked, and a default; an option without one must be given. The module of that function is imported with the plugin,
so what is heavy is imported inside. Opening reads and checks, so that a wrong option or path is told before anything
is written; it learns nothing yet.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args, get_type_hints, runtime_checkable

import numpy as np

from augkit.errors import AugkitError, nearest
from augkit.lab import named
from augkit.registry import Registry

if TYPE_CHECKING:
    import torch

    from augkit.lab.data import Data
    from augkit.lab.recipe import Recipe

Progress = Callable[[str, int, int], None]
"""Called with what is going on in a word or two, such as "training (loss 0.31)", how much is done, and of how much."""


@dataclass(frozen=True)
class Wish:
    """One image that shall be made. It is a function of the wish and the source's identity alone."""

    label: int
    class_name: str
    number: int
    """Position within the class, or within the group of the class, from 0."""
    seed: int
    """Of this image alone: 0 <= seed < 2**63, the same in every process and on every machine."""
    group: int | None = None
    group_name: str | None = None
    prompt: str = ""
    negative: str = ""
    row: int | None = None
    """The real training image that it begins with or follows: a position in `Data.train`."""
    source_image: str | None = None
    """What that image is called in the manifest; None takes its file, or its row."""


class Source(Protocol):
    """What makes images."""

    batch: int
    """Images that are made together, at least 1. A batch's size can change the last bit of an image, so images are
    always made in whole batches, and it belongs to the identity. A source that neither learns from the data's images
    nor begins with one says so with `from_real = False`; of any other the store notes them, see `augkit.lab.seen`."""

    def identity(self) -> dict[str, Any]:
        """What pixels depend on besides the wish, as JSON: hash of weights, size, steps, guidance, precision, batch.

        Asked for once before the first image, while no other process prepares a source for the same store. A source
        that learns does so here if it has not yet, into `Context.folder / "model"`, goes on there after a kill, and
        raises if what lies there was learnt under other options. Its parts of simple types become columns of the
        manifest; a part called `model` is the hash of the weights.
        """
        ...

    def make(self, wishes: Sequence[Wish]) -> list[np.ndarray | None]:
        """An image for each of `batch` wishes: uint8 [H, W, 3]; None where the model's safety checker blanked it."""
        ...


@runtime_checkable
class Completing(Protocol):
    """A source that says more about a wish than its class: its prompt, or the real image that it begins with."""

    def complete(self, wish: Wish) -> Wish:
        """The wish and its `prompt`, `negative`, `row` or `source_image`, by its class, number and seed alone.

        It may be asked before the source has learnt, and raises if it has nothing for such an image: no prompt for the
        class, no real image of it.
        """
        ...


@runtime_checkable
class Learning(Protocol):
    """A source that learns before it makes its first image."""

    @property
    def ready(self) -> bool:
        """Whether it has learnt."""
        ...


@dataclass(frozen=True)
class Lesson:
    """What there is to learn."""

    steps: int
    """In all."""
    left: int
    """Steps that are not done yet."""
    seconds: float
    """Of a step."""


@runtime_checkable
class Rehearsing(Protocol):
    """A source that can tell how long it will learn."""

    def rehearse(self) -> Lesson:
        """Take a few steps and time them; nothing is written. Asked for only while it is not `ready`.

        Afterwards `make` makes images, of no worth, but in the time that real ones will take.
        """
        ...


def _silent(what: str, done: int, of: int) -> None:
    pass


@dataclass(frozen=True)
class Context:
    """What a source is told besides its options."""

    data: Data
    """The recipe's data, without synthetic images; where its `sources.tuning` sets some apart, those train."""
    recipe: Recipe
    folder: Path
    """Of the store. What the source learns belongs into `folder / "model"`; it need not exist yet."""
    device: torch.device
    progress: Progress = field(default=_silent)
    seed: int = 0
    """Of the store, for what a source learns; images have seeds of their own."""


def check_source(name: str, options: Mapping[str, Any], registry: Registry) -> None:
    """Raise unless there is such a source and it takes these options.

    Raises:
        AugkitError: naming the source or the option, with the nearest one that there is.
    """
    if name not in registry.sources:
        raise AugkitError(f'there is no source "{name}".{nearest(name, registry.sources)}')
    for option, message in named.faults(registry.sources[name], options):
        told = f" (option {option})" if f'"{option}"' not in message else ""
        raise AugkitError(f'source "{name}": {message}{told}')


def open_source(name: str, options: Mapping[str, Any], context: Context, registry: Registry) -> Source:
    """Open a source by name; raises like `check_source`, and what the source itself finds wrong."""
    check_source(name, options, registry)
    source: Source = named.bind(registry.sources[name], options)(context)
    return source


def options_of(name: str, registry: Registry) -> dict[str, Any]:
    """The options of a source with their defaults; `...` for one that must be given."""
    empty = inspect.Parameter.empty
    found = named.options_of(registry.sources[name])
    return {option: ... if p.default is empty else p.default for option, p in found.items()}


def path_options(name: str, registry: Registry) -> set[str]:
    """The options of a source that are paths, or may be: those annotated with `Path`, and `model`."""
    factory = registry.sources[name]
    try:
        types = get_type_hints(factory)
    except Exception:  # names that exist for type checkers only
        types = {}
    return {option for option in named.options_of(factory) if option == "model" or Path in _kinds(types.get(option))}


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)
