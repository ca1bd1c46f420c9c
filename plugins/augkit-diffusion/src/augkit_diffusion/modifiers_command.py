"""The verb `augkit synth modifiers`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.output import Json, resumable, show_json
from augkit.errors import AugkitError
from augkit_diffusion import request as ask_for
from augkit_diffusion.modifiers import MOST


def modifiers(
    recipe: ask_for.Recipe,
    llm: Annotated[
        str, typer.Option(metavar="NAME", help="A model as of augkit write: litellm's, local, transcript:FILE.jsonl.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The prompts file (.yaml) to write or go on with.")],
    overrides: ask_for.Overrides = None,
    count: Annotated[int, typer.Option(min=1, max=MOST, help="Modifiers of each class.")] = MOST,
    budget_usd: Annotated[float | None, typer.Option(min=0, help="What all questions together may cost.")] = None,
    usd_per_mtok: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="USD for a million tokens, where litellm knows no price.")
    ] = None,
    api_base: Annotated[
        str | None, typer.Option(help="A server that speaks OpenAI's protocol, for openai/NAME.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one reply.")] = 300.0,
    as_json: Json = False,
) -> None:
    """Let a language model write modifiers of prompts for each class.

    The names of the classes are told to it. Classes that the file has are left as they are, so the same command goes
    on where it stopped. Read the file before it is used: `augkit synth make ... --prompts FILE`.

    \b
        augkit synth modifiers recipe.yaml --llm openai/gpt-5-mini --out modifiers.yaml
        augkit synth make recipe.yaml --source sd --model PATH_OR_ID --prompts modifiers.yaml --target 500 --out synth
    """
    from augkit.lab import data as lab_data
    from augkit_diffusion import modifiers as how
    from augkit_diffusion.making import load_recipe_of
    from augkit_diffusion.prompts import MODIFIER

    _check(out)
    from augkit_llm.models import Options, open_model, parse_price

    found = how.stored(out)
    names = lab_data.load(load_recipe_of(recipe, overrides or []).data).class_names
    known = found["values"][MODIFIER]
    missing = [name for name in names if name not in known]
    options = Options(None, api_base, parse_price(usd_per_mtok), budget_usd is not None, timeout)
    model = open_model(llm, options) if missing else None
    spent = 0.0
    with resumable():
        for name in missing:
            assert model is not None
            left = None if budget_usd is None else budget_usd - spent
            phrases, usd = how.ask(model, found.get("names", {}).get(name, name), count, left)
            spent += usd
            known[name] = phrases
            how.store(out, found, llm)
            if not as_json:
                print(f"{name}: {', '.join(phrases)}")
    if as_json:
        show_json({"asked": missing, "usd": spent, "file": str(out)})
        return
    print(f"{len(missing)} classes asked for, {len(names) - len(missing)} were there; {spent:.4f} USD\n{out}")


def _check(out: Path) -> None:
    """Raise unless a language model can be asked, and the file be written."""
    if find_spec("augkit_llm") is None:
        raise AugkitError(
            "asking a language model needs augkit-llm: pip install augkit-llm, or write the file by hand"
            " (values: {modifier: {CLASS: [...]}})"
        )
    if out.suffix not in (".yaml", ".yml"):
        raise AugkitError(f"a prompts file that is written ends in .yaml, not {out.name}")
