"""Reports from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.output import Json, show_json


def add_to(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command()(report)


def report(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, of a comparison, or of a search.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write (.html); by default report.html in the folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one page about a run, about several, about a comparison or a search.

    The page opens from disk and needs no network. A run that is under way is told as far as it is.

    \b
        augkit report runs/mine
        augkit report runs/cmp
        augkit report runs/a runs/b --out both.html
    """
    from augkit.lab.reports import write

    path = write(run, out)
    if as_json:
        show_json({"page": str(path), "bytes": path.stat().st_size})
    else:
        print(path)
