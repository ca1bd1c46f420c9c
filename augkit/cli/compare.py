"""Comparing policies from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.completion import names
from augkit.cli.output import Json, command, resumable, show_json, show_rows
from augkit.cli.parameters import Overrides, Recipe
from augkit.errors import DocumentError


def add_to(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command()(compare)


def compare(
    recipe: Recipe,
    policy: Annotated[
        str,
        typer.Option(help="Policies by name or path, with commas between.", autocompletion=names("strategies")),
    ],
    loss: Annotated[
        str,
        typer.Option(
            help="Losses by name, with commas between; by default the recipe's.", autocompletion=names("losses")
        ),
    ] = "",
    seeds: Annotated[str, typer.Option(help="How many (3 means 0, 1 and 2), or which: 0,5,7.")] = "3",
    out: Annotated[Path | None, typer.Option(help="The folder; by default one under runs/.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many runs at once.")] = 1,
    on: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    fast: Annotated[bool, typer.Option("--fast", help="A fifth of the epochs.")] = False,
    control: Annotated[
        str, typer.Option(help="The policy that the others are compared with.", autocompletion=names("strategies"))
    ] = "none",
    retry: Annotated[bool, typer.Option("--retry", help="Repeat the runs that failed.")] = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train with several policies, losses and seeds, and say which differences can be told from none.

    The same command goes on where a stopped one was, and repeats nothing. The status is 1 if a run failed.

    \b
        augkit compare demo --policy none,trivialaugment --seeds 3 --fast --out runs/cmp
        augkit compare recipe.yaml --policy none,mine.yaml --loss ce,balanced_softmax --jobs 4
    """
    from augkit.lab import tables
    from augkit.lab.compare import compare as run
    from augkit.lab.grid import plan

    if not _words(policy):
        raise DocumentError("--policy names no policy; give some with commas between, such as none,trivialaugment")
    chosen = plan(
        recipe, _words(policy), _words(loss), parse_seeds(seeds), overrides=overrides or [], fast=fast, control=control
    )
    folder = out or Path("runs") / f"{chosen.base['name']}-compared"
    with resumable():
        results = run(chosen, folder, jobs=jobs, on=on, retry=retry)
    if as_json:
        show_json(results)
    else:
        spare = ("minutes", *reversed(tables.INTENSITY.values()), "few", "medium", "many")
        show_rows(tables.rows(results), as_json=False, spare=spare)
        print("", *tables.notes(results), folder, sep="\n")
        print(f"a page about it: {command(['report', str(folder)])}", file=sys.stderr)
    if results["failed"]:
        raise typer.Exit(1)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_seeds(text: str) -> list[int]:
    """'3' is 0, 1, 2; '0,5' is 0 and 5; '4,' is 4 alone."""
    words = _words(text)
    if not words or not all(word.isdecimal() for word in words):
        raise DocumentError(f'--seeds takes how many, such as 3, or which, such as 0,5,7, not "{text}"')
    numbers = [int(word) for word in words]
    if "," in text:
        return numbers
    if not 1 <= numbers[0] <= 1000:
        raise DocumentError(f"--seeds {text}: say how many, 1 to 1000, or which, such as 0,5,7")
    return list(range(numbers[0]))
