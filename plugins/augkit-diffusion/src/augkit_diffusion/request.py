"""What `augkit synth plan` and `augkit synth make` are asked: options that both have, and how they become an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkit.cli.completion import names
from augkit.cli.parameters import Overrides as Overrides
from augkit.errors import AugkitError, DocumentError
from augkit_diffusion.allocation import allocate, cells_of, check_request
from augkit_diffusion.making import Order, load_for_sources
from augkit_diffusion.sources import check_source, path_options

if TYPE_CHECKING:
    from augkit.lab.data import Data
    from augkit.registry import Registry
    from augkit_diffusion.chunks import Cell

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Whose data: a recipe by name or by path.",
        autocompletion=names("recipes", files=True),
    ),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="What makes the images, see `augkit synth sources`.", autocompletion=names("sources")
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="EXPR",
        help="Images that each class shall have in the end: 500, 'max(class_count, 200)', 'class_count * 3',"
        " 'max(class_count, over=classes)'.",
    ),
]
Groups = Annotated[bool, typer.Option("--groups", help="The same for each class in each group of the data.")]
Budget = Annotated[int | None, typer.Option(min=1, metavar="N", help="Images in all, instead of --target.")]
Weights = Annotated[
    str | None, typer.Option(metavar="EXPR", help="How the budget is shared out, such as '1 / class_count'.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Another seed, other images.")]
Model = Annotated[str | None, typer.Option(metavar="PATH_OR_ID", help="A diffusers pipeline.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(min=0, help="How strongly images follow their class or prompt.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Images that are made at once.")]
Precision = Annotated[str | None, typer.Option(help="Of the model's numbers, such as float16.")]
Strength = Annotated[
    float | None, typer.Option(min=0, max=1, help="How far an image may leave the one it begins with.")
]
Prompts = Annotated[Path | None, typer.Option(metavar="FILE", help="Templates and modifiers of prompts.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An option of this source alone; repeatable."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; by default the recipe's.")]


@dataclass(frozen=True)
class HowMany:
    """How many images are asked for."""

    target: str | None
    budget: int | None
    weights: str | None
    groups: bool

    def check(self) -> None:
        """Raise what `check_request` finds wrong."""
        check_request(self.target, self.budget, self.weights)

    def counts(self, data: Data) -> dict[Cell, int]:
        """The real images of each cell that are trained on."""
        return cells_of(data, self.groups)

    def wanted(self, data: Data) -> dict[Cell, int]:
        """The images to make of each cell."""
        return allocate(self.counts(data), self.target, self.budget, self.weights)


def read_seeds(text: str) -> list[int]:
    """The seeds of trainings, each once, as `augkit compare --seeds` takes them.

    Raises:
        DocumentError: they are something else.
    """
    from augkit.cli.compare import parse_seeds

    return list(dict.fromkeys(parse_seeds(text)))


def read_options(further: list[str] | None, **flags: Any) -> dict[str, Any]:
    """The options of a source: the flags that were given, and those of `--option`.

    Raises:
        AugkitError: one is said twice, or without a value.
    """
    from augkit.strategy.reading import read_text

    given = {
        name: str(value) if isinstance(value, Path) else value for name, value in flags.items() if value is not None
    }
    for text in further or ():
        name, equals, written = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise AugkitError(f'--option takes key=value, such as path=DIR, not "{text}"')
        if name in given:
            raise AugkitError(f'the option "{name}" is given twice; say it once')
        try:
            given[name] = read_text(written).data if written.strip() else ""
        except DocumentError as error:
            raise AugkitError(f'--option "{text}": {error}') from error
    return given


def make_order(
    recipe: str,
    overrides: list[str] | None,
    source: str,
    options: Mapping[str, Any],
    found: Registry,
    *,
    folder: Path,
    seed: int,
    groups: bool,
    device: str | None,
) -> Order:
    """The order of a command line; recipe and options are checked, data and source are not opened yet.

    Raises:
        AugkitError: the recipe, the source or an option is wrong.
    """
    paths = path_options(source, found) if source in found.sources else set()
    anchored = {name: _anchored(value) if name in paths else value for name, value in options.items()}
    check_source(source, anchored, found)
    read = load_for_sources(recipe, overrides or [])
    return Order(
        read.model_dump(mode="json"), source, anchored, str(folder.absolute()), seed, groups, device or read.device
    )


def _anchored(value: Any) -> Any:
    """A path as it is meant from here, since a worker may stand elsewhere; what is no path of here stays as it is."""
    if not isinstance(value, (str, Path)):
        return value
    path = Path(value).expanduser()
    return str(path.absolute()) if path.exists() else str(value)
