"""The verb `augkit write`."""

from __future__ import annotations

from typing import Annotated

import typer


def write(
    wish: Annotated[str, typer.Argument(metavar="WISH", help="What the strategy should do, in a sentence.")],
) -> None:
    """Let a language model write a strategy."""
    from augkit_llm.models import ModelError

    raise ModelError(f"no model can be asked for {wish!r} yet")
