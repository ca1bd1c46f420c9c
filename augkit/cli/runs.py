"""Training runs from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.output import Json, command, resumable, show_json
from augkit.cli.parameters import Overrides, Recipe


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command()(train)
    app.command()(demo)


def train(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default one under runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")] = False,
    as_json: Json = False,
) -> None:
    """Train as a recipe says, and write a run folder.

    The folder holds metrics, tables, pictures and checkpoints.

    \b
        augkit train demo --set policy=trivialaugment --set seed=1
        augkit train recipe.yaml --out runs/mine
        augkit train recipe.yaml --out runs/mine --resume
    """
    from augkit.lab.fairness import lines
    from augkit.lab.folder import SUMMARY
    from augkit.lab.progress import by_stage, tested
    from augkit.lab.run import train as run

    again = command([argument for argument in sys.argv[1:] if argument != "--resume"] + ["--resume"])
    with resumable(f"go on from the last checkpoint with: {again}"):
        folder = run(recipe, overrides or [], out, resume)
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if as_json:
        show_json({"folder": str(folder), **summary})
        return
    for line in by_stage(summary.get("stages", ())):
        print(line)
    print(tested(summary))
    for line in lines(summary["groups"]) if "groups" in summary else ():
        print(line)
    print(folder)
    print(f"a page about it: {command(['report', str(folder)])}", file=sys.stderr)


def demo(
    out: Annotated[Path, typer.Option(help="Where to write the comparison.")] = Path("runs/demo"),
) -> None:
    """Compare policies on long-tailed digits, in three minutes.

    The same command goes on where a stopped one was.

    \b
        augkit demo --out runs/demo
    """
    from augkit.lab.demo import main

    with resumable():
        main(out)
