"""Language models write strategies: `augkit write`, `augkit search`. Importing loads neither litellm nor jinja2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import augkit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import typer

__all__ = ["augkit_commands", "augkit_report"]


@augkit.hookimpl
def augkit_commands(app: typer.Typer) -> None:
    from augkit_llm.search_command import search
    from augkit_llm.write_command import write

    app.command()(write)
    app.command()(search)


@augkit.hookimpl
def augkit_report(folders: Sequence[Path]) -> str | None:
    """The page of a search; further folders are searches that it is told against."""
    from augkit.plugins import registry
    from augkit_llm.archive import FILE
    from augkit_llm.report import collect, page

    if not (folders[0] / FILE).is_file():
        return None
    return page(collect(folders[0], folders[1:], registry()))
