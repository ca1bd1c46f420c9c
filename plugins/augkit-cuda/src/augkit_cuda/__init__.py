"""The curriculum (CUDA), its variants and its control; pictures of levels; answers that a document cannot judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import augkit
from augkit_cuda.answers import every_expert, prior_corrected

if TYPE_CHECKING:
    import typer

__all__ = ["augkit_answers", "augkit_commands", "augkit_strategies", "every_expert", "prior_corrected"]


@augkit.hookimpl
def augkit_strategies() -> list[Path]:
    return sorted((Path(__file__).parent / "strategies").glob("*.yaml"))


@augkit.hookimpl
def augkit_answers() -> Mapping[str, Callable[..., Any]]:
    return {"prior_corrected": prior_corrected, "every_expert": every_expert}


@augkit.hookimpl
def augkit_commands(app: typer.Typer) -> None:
    from augkit_cuda.command import levels

    app.command()(levels)
