"""Strategy documents from the command line: validate, schema, show, preview."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from augkit.cli.completion import names
from augkit.cli.output import Json, fail, show_json
from augkit.cli.parameters import Strategy
from augkit.errors import AugkitError, DocumentError
from augkit.plugins import registry


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    for verb in (validate, schema, show, preview):
        app.command()(verb)


def validate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|NAME",
            help="Documents: .yaml, .yml or .json; or registered names.",
            autocompletion=names("strategies", "recipes", files=True),
        ),
    ],
    recipe: Annotated[bool, typer.Option("--recipe", help="They are recipes, not strategies.")] = False,
    as_json: Json = False,
) -> None:
    """Check strategy documents, or recipes.

    Every fault comes with its file, line and place, and the nearest valid name.

    \b
        augkit validate my.yaml
        augkit validate --recipe runs/*.yaml
    """
    from augkit.lab.recipe import load_recipe
    from augkit.strategy.document import load_strategy

    found, rows = registry(), []
    kind = "recipe" if recipe else "strategy"
    for source in sources:
        file = Path(source) if Path(source).is_file() else source  # a file needs no ending here
        try:
            if recipe and source in found.strategies.keys() - found.recipes:
                raise DocumentError(f"{source} is a strategy, not a recipe; leave out --recipe")
            if not recipe and source in found.recipes.keys() - found.strategies:
                raise DocumentError(f"{source} is a recipe, not a strategy; add --recipe")
            document = load_recipe(file, found) if recipe else load_strategy(file, found)
        except (AugkitError, OSError) as error:
            fail(error)
            rows.append({"source": source, "valid": False, "kind": kind, "problems": _problems(error)})
        else:
            rows.append({"source": source, "valid": True, "kind": kind, "name": document.name, "hash": document.hash})
            if not as_json:
                print(f"{source}: valid, {kind} {document.name}, hash {document.hash[:12]}")
    if as_json:
        show_json(rows)
    if not all(row["valid"] for row in rows):
        raise typer.Exit(2)


def _problems(error: AugkitError | OSError) -> list[dict[str, Any]]:
    """Each fault with its place, as far as it is known."""
    found = error.problems if isinstance(error, DocumentError) else (error,)
    rows = []
    for one in found:
        message = one.message if isinstance(one, AugkitError) else one.strerror or str(one)
        place = {key: getattr(one, key, None) or None for key in ("file", "line", "path")}
        rows.append({**place, "message": message})
    return rows


def schema() -> None:
    """Print the JSON Schema of strategy documents.

    It knows the operators and names that are installed here.

    Editors with the YAML language server complete and check a document that begins with
    "# yaml-language-server: $schema=strategy.schema.json".

    \b
        augkit schema > strategy.schema.json
    """
    from augkit.strategy.schema import json_schema

    show_json(json_schema(registry()))


def show(source: Strategy, as_json: Json = False) -> None:
    """Say in words what a strategy does, with its operators and its cost; one of timm's strings also as a document.

    \b
        augkit show trivialaugment
        augkit show my.yaml
        augkit show rand-m9-mstd0.5-inc1
    """
    from augkit.strategy.describe import words
    from augkit.strategy.document import load_strategy
    from augkit.strategy.timm_strings import is_timm, timm_document

    found = registry()
    strategy = load_strategy(source, found)
    if as_json:
        facts = {key: getattr(strategy, key) for key in ("name", "title", "source", "params", "hash", "file")}
        show_json({**facts, "needs": sorted(strategy.needs), "words": words(strategy)})
        return
    print(words(strategy))
    if is_timm(source) and source not in found.strategies:
        import yaml

        print("\nas a document:\n")
        print(yaml.safe_dump(timm_document(source), sort_keys=False, default_flow_style=None, width=110), end="")


def preview(
    source: Strategy,
    data: Annotated[
        str, typer.Option(help="A folder of images, or of class folders with images; or an .npz, or `digits`.")
    ],
    out: Annotated[Path, typer.Option(help="What to write: a page for a browser (.html) or a picture (.png).")] = Path(
        "preview.html"
    ),
    images: Annotated[
        int | None, typer.Option(min=1, max=64, help="How many images.  [default: 24 on a page, 8 in a picture]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Another seed, another draw, and other images.")] = 0,
    epoch: Annotated[int, typer.Option(min=0, max=99, help="The epoch of 100 for strategies that follow it.")] = 0,
    size: Annotated[
        int | None,
        typer.Option(
            min=8, max=1024, help="Side of the squares in pixels; by default the median of the images, 32 to 224."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a strategy on your own images: before, after, and in words what was drawn.

    A page has a row for each class, and a slider for what changes while a model learns. A picture goes into a README
    or a terminal.

    \b
        augkit preview trivialaugment --data photos/
        augkit preview my.yaml --data photos/train --images 48 --seed 3 --size 128
        augkit preview cmo --data photos/train --epoch 50 --out cmo.png
    """
    from augkit.cli.previews import write_preview

    told = write_preview(source, data, out, images=images, seed=seed, epoch=epoch, size=size)
    if as_json:
        show_json(told)
    else:
        print(out)
