"""Options that several verbs have: how models are asked, and what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from augkit_llm.models import Options

Names = Annotated[bool, typer.Option("--names", help="Tell models the names of the classes, too.")]
Sheet = Annotated[bool, typer.Option("--sheet", help="Show models that see a few training images of each class.")]
Prompts = Annotated[Path | None, typer.Option(metavar="DIR", help="A folder of templates that replace ours.")]
Repairs = Annotated[int, typer.Option(min=0, max=2, help="How often faults go back to the model.")]
Rendering = Annotated[
    str | None, typer.Option(help="strict, small or text: the form of replies, instead of what a model can do.")
]
BudgetUsd = Annotated[float | None, typer.Option(min=0, help="What all questions together may cost.")]
UsdPerMtok = Annotated[
    str | None, typer.Option(metavar="IN,OUT", help="USD for a million tokens, where litellm knows no price.")
]
ApiBase = Annotated[str | None, typer.Option(help="A server that speaks OpenAI's protocol, for openai/NAME.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds for one reply.")]


def asked(
    rendering: str | None, api_base: str | None, usd_per_mtok: str | None, timeout: float, *, priced: bool = False
) -> Options:
    """How models are asked, from what these options say.

    Raises:
        ModelError: one of them says what cannot be.
    """
    from augkit_llm.models import RENDERINGS, ModelError, Options, parse_price

    known = next((one for one in RENDERINGS if one == rendering), None)
    if rendering is not None and known is None:
        raise ModelError(f'--rendering is one of {", ".join(RENDERINGS)}, not "{rendering}"')
    if api_base is not None and "@" in api_base.partition("://")[2].partition("/")[0]:
        raise ModelError("--api-base would be stored with its password; give it by the environment: OPENAI_API_KEY")
    return Options(known, api_base, parse_price(usd_per_mtok), priced, timeout)
