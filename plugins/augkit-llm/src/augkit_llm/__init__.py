"""Language models write strategies: `augkit write`, `augkit search`. Importing loads neither litellm nor jinja2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import augkit

if TYPE_CHECKING:
    import typer

__all__ = ["augkit_commands"]


@augkit.hookimpl
def augkit_commands(app: typer.Typer) -> None:
    from augkit_llm.search_command import search
    from augkit_llm.write_command import write

    app.command()(write)
    app.command()(search)
