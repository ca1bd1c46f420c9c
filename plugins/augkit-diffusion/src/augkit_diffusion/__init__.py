"""Synthetic images where a class or group has too few: `augkit synth`. Importing loads no diffusers and no pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import augkit

if TYPE_CHECKING:
    import typer

__all__ = ["augkit_commands", "augkit_sources", "augkit_strategies"]


@augkit.hookimpl
def augkit_strategies() -> list[Path]:
    return sorted((Path(__file__).parent / "strategies").glob("*.yaml"))


@augkit.hookimpl
def augkit_sources() -> Mapping[str, Callable[..., Any]]:
    from augkit_diffusion.adapt_source import adapt
    from augkit_diffusion.fit_source import fit
    from augkit_diffusion.folder_source import folder
    from augkit_diffusion.sd_source import sd
    from augkit_diffusion.translate_source import translate

    return {"folder": folder, "fit": fit, "sd": sd, "translate": translate, "adapt": adapt}


@augkit.hookimpl
def augkit_commands(app: typer.Typer) -> None:
    from augkit_diffusion.synth_command import app as synth

    app.add_typer(synth, name="synth")
