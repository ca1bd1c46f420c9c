"""The verbs `augkit synth ...`."""

from __future__ import annotations

import typer

from augkit_diffusion.allocate_command import allocate
from augkit_diffusion.filter_command import filter as filter_images
from augkit_diffusion.listing_command import sources
from augkit_diffusion.look_command import look
from augkit_diffusion.make_command import make
from augkit_diffusion.modifiers_command import modifiers
from augkit_diffusion.plan_command import plan
from augkit_diffusion.replace_command import replace
from augkit_diffusion.steps_command import steps

app = typer.Typer(
    name="synth",
    help="Synthetic images for classes and groups that have too few.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(plan)
app.command()(make)
app.command(name="filter")(filter_images)
app.command()(look)
app.command()(replace)
app.command()(allocate)
app.command()(steps)
app.command()(modifiers)
app.command()(sources)
