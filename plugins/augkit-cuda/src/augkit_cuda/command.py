"""The verb `augkit levels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.output import Json, show_json


def levels(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="The picture to write; by default levels.png in the folder.")] = None,
    state: Annotated[
        str, typer.Option(help="Another state of the policy that has one number for each class.")
    ] = "depth",
    as_json: Json = False,
) -> None:
    """Draw the levels of a curriculum by class and epoch.

    \b
        augkit train cifar100-lt --set policy=cuda --out runs/cuda
        augkit levels runs/cuda
    """
    from augkit_cuda.levels import read_levels, save_levels

    found = read_levels(run, state)
    picture = save_levels(found, out or run / "levels.png")
    if as_json:
        show_json({"state": found.name, "epochs": found.values.tolist(), "picture": str(picture)})
        return
    print(picture)
    last = found.values[-1]
    print(
        f"{found.name} in epoch {len(found.values) - 1}: mean {last.mean():.2f}, from {last.min():g} to {last.max():g}"
    )
