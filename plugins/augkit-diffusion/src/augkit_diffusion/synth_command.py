"""The verbs `augkit synth ...`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import typer

from augkit_diffusion.listing_command import sources
from augkit_diffusion.make_command import make
from augkit_diffusion.modifiers_command import modifiers
from augkit_diffusion.plan_command import plan

app = typer.Typer(
    name="synth",
    help="Synthetic images for classes and groups that have too few.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(plan)
app.command()(make)
for verb in ("filter", "look"):
    if find_spec(f"augkit_diffusion.{verb}_command") is not None:
        function = getattr(import_module(f"augkit_diffusion.{verb}_command"), verb, None)
        if function is not None:
            app.command(name=verb)(function)
app.command()(modifiers)
app.command()(sources)
