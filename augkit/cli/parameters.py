"""Arguments and options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

from augkit.cli.completion import names, settings

Strategy = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE", help="A strategy by name or by path.", autocompletion=names("strategies", files=True)
    ),
]
Recipe = Annotated[
    str,
    typer.Argument(
        help="A recipe by name (see `augkit recipes`) or by path.", autocompletion=names("recipes", files=True)
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a part of the recipe; may be repeated.",
        autocompletion=settings,
    ),
]
