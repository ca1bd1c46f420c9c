"""The verb `augkit write`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkit.cli.completion import names
from augkit.cli.output import Json, fail, note, show_json
from augkit.errors import AugkitError
from augkit_llm.options import ApiBase, BudgetUsd, Names, Prompts, Rendering, Repairs, Sheet, Timeout, UsdPerMtok, asked

if TYPE_CHECKING:
    from augkit.registry import Registry
    from augkit_llm.models import Model, Question, Reply
    from augkit_llm.writing import Written


def write(
    wish: Annotated[str, typer.Argument(metavar="WISH", help="What the strategy should do, in a sentence.")],
    llm: Annotated[
        str, typer.Option(metavar="NAME", help="A model of litellm, local, transcript:FILE.jsonl, or none for chance.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The strategy to write (.yaml).")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="Tell the model the counts and sizes of a recipe's data.",
            autocompletion=names("recipes", files=True),
        ),
    ] = None,
    names: Names = False,
    sheet: Sheet = False,
    prompts: Prompts = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of the model.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another strategy, where a model takes one.")] = 0,
    repairs: Repairs = 2,
    rendering: Rendering = None,
    budget_usd: BudgetUsd = None,
    usd_per_mtok: UsdPerMtok = None,
    api_base: ApiBase = None,
    timeout: Timeout = 300.0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Let a language model write a strategy.

    What it writes is read like any other document, and goes back to it with its faults at most twice. Say in a
    sentence what you want; what the strategy does is printed in words.

    \b
        augkit write "gentle on rare classes, never flip vertically" --llm openai/gpt-5-mini --out mine.yaml
        augkit write "strong on frequent classes" --llm local --out mine.yaml --data cifar100-lt
        augkit write "" --llm none --seed 3 --out chance.yaml
    """
    from augkit.lab.recipe import load_recipe
    from augkit.plugins import registry
    from augkit_llm.models import open_model

    _check_out(out, force)
    found = registry()
    if llm == "none":
        if data is not None:
            load_recipe(data, found)  # nothing is told of it, but a wrong name is wrong
        _save(out, *_by_chance(seed, found), found, as_json)
        return
    options = asked(rendering, api_base, usd_per_mtok, timeout, priced=budget_usd is not None)
    model = open_model(llm, options)
    if getattr(model, "remark", ""):
        note(model.remark)  # type: ignore[attr-defined]
    request = _request(wish, data, names, sheet, seed, model, found)
    ask = _within(model, budget_usd)
    how: dict[str, Any] = {"repairs": repairs, "ask": ask, "folder": prompts, "temperature": temperature}
    document, told = _by_model(model, request, found, how)
    _save(out, document, [f"wish: {wish}", f"written by {llm}", told], found, as_json)


def _check_out(out: Path, force: bool) -> None:
    if out.suffix not in (".yaml", ".yml"):
        raise AugkitError(f"a strategy is a file that ends in .yaml, not {out.name}")
    if out.exists() and not force:
        raise AugkitError("this file is there already; choose another name, or replace it with --force", file=out)
    folder = next(one for one in out.absolute().parents if one.exists())
    if out.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise AugkitError("no file can be written here; choose another name", file=out)


def _save(out: Path, document: dict[str, Any], header: list[str], found: Registry, as_json: bool) -> None:
    from augkit.strategy.describe import words
    from augkit_llm.files import write_document, yaml_text

    header = [time.strftime("%Y-%m-%d"), *header]
    try:
        strategy = write_document(out, document, found, header)
    except AugkitError:
        print(yaml_text(document, header))  # it may have been paid for
        raise
    if as_json:
        show_json({"file": str(out), "name": strategy.name, "hash": strategy.hash, "notes": header})
        return
    print(f"{words(strategy)}\n\n{header[-1]}\n{out}")


def _by_chance(seed: int, found: Registry) -> tuple[dict[str, Any], list[str]]:
    import numpy as np

    from augkit_llm.propose import random_document

    note("none reads no wish: the strategy is drawn at random")
    return random_document(np.random.default_rng(seed), found), [f"drawn at random, seed {seed}"]


def _request(wish: str, data: str | None, names: bool, sheet: bool, seed: int, model: Model, found: Registry) -> Any:
    from augkit_llm.writing import Request

    if (names or sheet) and data is None:
        raise AugkitError("--names and --sheet are about data: name a recipe with --data")
    if not wish.strip() and data is None:
        raise AugkitError("say in a sentence what the strategy should do, or name a recipe with --data")
    if sheet and getattr(model, "sees", False) is False:
        raise AugkitError(f"{model.name} sees no images; leave out --sheet")
    facts = None
    if data is not None:
        from augkit_llm.data_facts import data_facts

        facts = data_facts(data, found, names=names, sheet=sheet)
    return Request(wish.strip(), "initial", facts, key="write", seed=seed)


def _by_model(model: Model, request: Any, found: Registry, how: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The document and what it cost; where there is none, the faults are told and the command ends."""
    from augkit_llm.writing import write as ask_for

    written = ask_for(model, request, registry=found, **how)
    told = _cost(written, model.name)
    if written.document is not None:
        return written.document, told
    for number, attempt in enumerate(written.attempts, 1):
        for line in (attempt.error or "").splitlines():
            note(f"reply {number}: {line}")
    note(told)
    tries = "the reply was no" if len(written.attempts) == 1 else f"none of {len(written.attempts)} replies was a"
    fail(f"{tries} valid strategy; try another model")
    raise typer.Exit(2)


def _within(model: Model, budget: float | None) -> Callable[[Question], Reply]:
    """Asks while the most that a question can cost is left of the budget."""
    from augkit_llm.models import ModelError

    spent = 0.0

    def ask(question: Question) -> Reply:
        nonlocal spent
        most = model.estimate(question)[1]
        if budget is not None and spent + most > budget:
            raise ModelError(
                f"the next question can cost {most:.4f} USD and {budget - spent:.4f} of the budget is left: "
                "raise --budget-usd"
            )
        reply = model.ask(question)
        spent += reply.usd
        return reply

    return ask


def _cost(written: Written, name: str) -> str:
    replies = [attempt.reply for attempt in written.attempts if attempt.reply is not None]
    read, answered = (sum(getattr(reply, part) for reply in replies) for part in ("prompt_tokens", "completion_tokens"))
    number = f"{len(replies)} {'reply' if len(replies) == 1 else 'replies'}"
    seconds = sum(reply.seconds for reply in replies)
    return f"cost: {written.usd:.4f} USD, {read:,} tokens in, {answered:,} out, {number} of {name} in {seconds:.1f} s"
