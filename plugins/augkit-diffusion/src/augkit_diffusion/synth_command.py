"""The verbs `augkit synth ...`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import typer

app = typer.Typer(
    name="synth",
    help="Synthetic images for classes and groups that have too few.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
for verb in ("plan", "make", "filter", "look"):
    if find_spec(f"augkit_diffusion.{verb}_command") is not None:
        app.command(name=verb)(getattr(import_module(f"augkit_diffusion.{verb}_command"), verb))
