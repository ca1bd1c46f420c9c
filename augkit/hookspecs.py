"""The hooks of a plugin: one for each kind of thing it may bring. augkit's own parts come through the same ones.

A plugin is a module or a class whose hook functions carry `@augkit.hookimpl`, named in its distribution's metadata:

    [project.entry-points.augkit]
    haze = "augkit_haze"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from augkit.operators.base import Operator

if TYPE_CHECKING:
    import typer

GROUP = "augkit"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Marks a function of a plugin as the answer to the hook of its name."""


@hookspec
def augkit_operators() -> Sequence[Operator]:  # type: ignore[empty-body]
    """Operators, declared with `@augkit.operator`."""


@hookspec
def augkit_palettes() -> Mapping[str, Sequence[Any]]:  # type: ignore[empty-body]
    """Named palettes, each entry as a document would write it: `"vflip"` or `{"rotate": {"low": 0, "high": 30}}`."""


@hookspec
def augkit_strategies() -> Sequence[Path]:  # type: ignore[empty-body]
    """Strategy documents; the name of the file without its ending is the name of the strategy."""


@hookspec
def augkit_recipes() -> Sequence[Path]:  # type: ignore[empty-body]
    """Recipe documents, named like strategies."""


@hookspec
def augkit_losses() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Training losses by name, see `augkit.lab.losses` for what they are called with."""


@hookspec
def augkit_samplers() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Samplers of an epoch's images by name, see `augkit.lab.samplers`."""


@hookspec
def augkit_subsets() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Choosers of a part of the training images by name, see `augkit.lab.coresets`."""


@hookspec
def augkit_stages() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Stages of a training by name, see `augkit.lab.stages`."""


@hookspec
def augkit_answers() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """What counts as a right answer, by name, see `augkit.answers`."""


@hookspec
def augkit_signals() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Signals by name: `function(logits [B, C], targets [B]) -> [B]`, a number for each image, summed by class."""


@hookspec
def augkit_sources() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Sources of synthetic images by name: functions that open one, see `augkit_diffusion.sources`."""


@hookspec
def augkit_commands(app: typer.Typer) -> None:
    """Add verbs to the command line: `@app.command()` on a function."""


@hookspec
def augkit_report(folders: Sequence[Path]) -> str | None:
    """The page of `augkit report` about folders that a plugin's own verb wrote, as HTML; None if the first is not one.

    See `augkit.report.page.render`. Runs and comparisons of augkit's own are never asked about.
    """
