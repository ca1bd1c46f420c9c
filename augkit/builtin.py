"""What augkit itself brings, through the hooks that every plugin uses."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from augkit.hookspecs import hookimpl
from augkit.operators import ALL
from augkit.operators.base import Operator
from augkit.operators.tables import PALETTES

_HERE = Path(__file__).parent


@hookimpl
def augkit_operators() -> Sequence[Operator]:
    return ALL


@hookimpl
def augkit_palettes() -> Mapping[str, Sequence[Any]]:
    return PALETTES


@hookimpl
def augkit_strategies() -> Sequence[Path]:
    return sorted((_HERE / "strategy" / "library").glob("*.yaml"))


@hookimpl
def augkit_recipes() -> Sequence[Path]:
    return sorted((_HERE / "lab" / "recipes").glob("*.yaml"))


# By name and not by an import statement: the lab stands right of the host, as any other plugin's code does.


@hookimpl
def augkit_losses() -> Mapping[str, Callable[..., Any]]:
    losses: Mapping[str, Callable[..., Any]] = importlib.import_module("augkit.lab.losses").LOSSES
    losses = {**losses, "bcl": importlib.import_module("augkit.lab.bcl").BCL}
    return {**losses, "ride": importlib.import_module("augkit.lab.ride").Ride}


@hookimpl
def augkit_samplers() -> Mapping[str, Callable[..., Any]]:
    samplers: Mapping[str, Callable[..., Any]] = importlib.import_module("augkit.lab.samplers").SAMPLERS
    return samplers


@hookimpl
def augkit_subsets() -> Mapping[str, Callable[..., Any]]:
    subsets: Mapping[str, Callable[..., Any]] = importlib.import_module("augkit.lab.coresets").SUBSETS
    return subsets


@hookimpl
def augkit_stages() -> Mapping[str, Callable[..., Any]]:
    stages: Mapping[str, Callable[..., Any]] = importlib.import_module("augkit.lab.stages").STAGES
    return stages


@hookimpl
def augkit_answers() -> Mapping[str, Callable[..., Any]]:
    answers: Mapping[str, Callable[..., Any]] = importlib.import_module("augkit.answers").ANSWERS
    return answers
