"""The verb `augkit search`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkit.cli.completion import names
from augkit.cli.output import Json, command, resumable, show_json, show_rows
from augkit.cli.parameters import Overrides
from augkit.errors import DataError
from augkit_llm.options import ApiBase, BudgetUsd, Names, Prompts, Rendering, Repairs, Sheet, Timeout, UsdPerMtok, asked

if TYPE_CHECKING:
    from augkit_llm.search import Search

BUDGETS = ("evaluations", "budget_usd", "budget_tokens", "budget_hours")
PLACE = {"jobs": "jobs", "on": "on", "limit_minutes": "minutes", "limit_memory": "memory"}
"""Options that a search which goes on may have others of, and the parts of its place."""
WITH_RESUME = ("resume", *BUDGETS, *PLACE, "as_json")
WITH_STATUS = ("status", "as_json")
WITH_REPORT = ("report", "against", "as_json")


def search(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe by name (see `augkit recipes`) or by path, with reward images.",
            autocompletion=names("recipes", files=True),
        ),
    ] = None,
    llm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=SHARE]",
            help="A model of litellm, local, transcript:FILE.jsonl, or none for chance; may be repeated.",
        ),
    ] = None,
    evaluations: Annotated[int | None, typer.Option(min=1, help="Training runs, those of controls included.")] = None,
    budget_usd: BudgetUsd = None,
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="Of all questions and replies together.")] = None,
    budget_hours: Annotated[float | None, typer.Option(min=0, help="Of all sessions together.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of a new search.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the search in a folder.")] = None,
    status: Annotated[Path | None, typer.Option(metavar="DIR", help="Tell how far the search in a folder is.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report/index.html about the search in a folder.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="With --report: another search on the same recipe; may be repeated."),
    ] = None,
    population: Annotated[int, typer.Option(min=1, max=1000, help="Strategies of a generation.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    seeds: Annotated[int, typer.Option(min=2, max=1000, help="Training runs of a strategy in each stage.")] = 2,
    jobs: Annotated[int, typer.Option(min=1, help="How many training runs at once.")] = 1,
    on: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    limit_minutes: Annotated[
        float | None, typer.Option(min=0, help="Of one training run; what takes longer is killed.")
    ] = None,
    limit_memory: Annotated[
        float | None, typer.Option(min=0, help="MiB of one training run; what takes more is killed.")
    ] = None,
    names: Names = False,
    sheet: Sheet = False,
    prompts: Prompts = None,
    repairs: Repairs = 2,
    rendering: Rendering = None,
    usd_per_mtok: UsdPerMtok = None,
    api_base: ApiBase = None,
    timeout: Timeout = 300.0,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Let language models write strategies, train each next to its controls, and go on from the best.

    No budget is exceeded: the most that a call or a generation can cost is set aside before it begins. A search that
    was stopped or killed goes on with --resume, and pays for nothing and trains nothing twice.

    \b
        augkit search recipe.yaml --llm openai/gpt-5-mini --evaluations 60 --budget-usd 5 --out found
        augkit search recipe.yaml --llm none --evaluations 60 --out control
        augkit search --resume found --evaluations 90
        augkit search --status found
        augkit search --report found --against control
        augkit train recipe.yaml --set policy=found/best.yaml
    """
    from augkit_llm.budget import Budget

    given = {name for name in context.params if _said(context, name)}
    budget = Budget(evaluations, budget_tokens, budget_usd, budget_hours)
    if status is not None:
        _only(given, WITH_STATUS, "--status tells of a search and changes nothing")
        _status(status, as_json)
    elif report is not None:
        _only(given, WITH_REPORT, "--report tells of a search and changes nothing")
        from augkit_llm.report import write

        page = write(report, against or [])
        show_json({"page": str(page)}) if as_json else print(page)
    elif against:
        raise DataError("--against belongs to --report: say whose report it is")
    elif resume is not None:
        _only(
            given, WITH_RESUME, "--resume goes on with what the search was begun with, but for its budgets and limits"
        )
        from augkit_llm.opening import resumed

        places: dict[str, Any] = {part: context.params[name] for name, part in PLACE.items() if name in given}
        _run(resumed(resume, budget, **places), resume, as_json)
    elif recipe is None or out is None:
        raise DataError("a new search needs a recipe and --out; --resume goes on with one, --status tells of one")
    else:
        from augkit_llm.cascade import Place
        from augkit_llm.opening import begun, settle

        chosen: dict[str, Any] = {"population": population, "seed": seed, "seeds": seeds, "repairs": repairs}
        chosen |= {"prompts": prompts, "names": names, "sheet": sheet}
        settings = settle(recipe, overrides or [], llm or [], **chosen)
        place, options = Place(jobs, on, limit_minutes, limit_memory), asked(rendering, api_base, usd_per_mtok, timeout)
        _run(begun(out, settings, budget, place, options), out, as_json)


def _said(context: typer.Context, name: str) -> bool:
    """Whether an option was given, and not taken by default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _only(given: set[str], allowed: tuple[str, ...], why: str) -> None:
    names = {"overrides": "--set", "as_json": "--json", "recipe": "the recipe"}
    too_many = sorted(names.get(name, f"--{name.replace('_', '-')}") for name in given - set(allowed))
    if too_many:
        raise DataError(f"{why}: leave out {', '.join(too_many)}")


def _run(opened: AbstractContextManager[Search], folder: Path, as_json: bool) -> None:
    """Search, and say how it ended; interrupted, say how it goes on."""
    from augkit_llm.budget import HOURS
    from augkit_llm.finale import close
    from augkit_llm.report import write
    from augkit_llm.search import NO_ANSWER

    with resumable(f"go on with: {command(['search', '--resume', str(folder)])}"), opened as search:
        late = search.late
        stop = search.run()
        if stop.reason == HOURS and not late:  # what follows may take hours itself
            again = f"augkit search --resume {shlex.quote(str(folder))}"
            search.teller.say(f"the hours are over: the twin is trained and the test set is read by {again}")
        else:
            close(search)
        page = write(folder, registry=search.proposer.registry)
        facts = search.standing.facts(search.budget)
    if as_json:
        show_json(facts)
    else:
        _tell(facts)
        print(f"report: {page}")
    if stop.reason == NO_ANSWER:
        raise typer.Exit(1)


def _status(folder: Path, as_json: bool) -> None:
    from contextlib import closing

    from augkit_llm.archive import FILE, Archive
    from augkit_llm.budget import Budget
    from augkit_llm.search import Settings
    from augkit_llm.standing import Standing

    with closing(Archive.read(folder / FILE)) as archive:
        settings = archive.settled("settings", Settings.from_json)
        budget = archive.settled("budget", lambda found: Budget(**found))
        facts = Standing(archive, folder, settings.stages).facts(budget)
    if as_json:
        show_json(facts)
    else:
        _tell(facts)


def _tell(facts: Mapping[str, Any]) -> None:
    """What a search found, what that took, and why it stopped."""
    rows = [
        {"what": "generations", "how many": facts["generations"], "of which": ""},
        _row("candidates", facts["candidates"]),
        _row("asked of", facts["by_origin"]),
        _row("questions", facts["calls"]),
        *(_row(f"evaluations, {stage}", states) for stage, states in facts["evaluations"].items()),
    ]
    show_rows(rows, as_json=False)
    spent, budget = facts["spent"], facts["budget"]
    hours = spent["seconds"] / 3600
    amounts = [spent["evaluations"], spent["tokens"], round(spent["usd"], 4), round(hours, 2)]
    bounds = [budget["evaluations"], budget["tokens"], budget["usd"], budget["hours"]]
    print()
    show_rows(
        [
            {"spent": name, "so far": amount, "of": bound}
            for name, amount, bound in zip(("evaluations", "tokens", "USD", "hours"), amounts, bounds, strict=True)
        ],
        as_json=False,
    )
    print("", *_best(facts["best"]), sep="\n")
    stopped = facts["stopped"]
    print(f"stopped ({stopped['reason']}): {stopped['words']}" if stopped else "not stopped: it runs, or was killed")


def _row(what: str, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "what": what,
        "how many": sum(counts.values()),
        "of which": ", ".join(f"{number} {name}" for name, number in counts.items()),
    }


def _best(best: Mapping[str, Any] | None) -> list[str]:
    if best is None:
        return ["no strategy came through a stage yet"]
    lines = [
        f"best: reward {best['reward']:.3f} ± {best['standard_error']:.3f} in the stage {best['stage']},"
        f" {best['found']} ({best['operator']} by {best['model']}, {best['origin']})"
    ]
    for name, one in best["controls"].items():
        known = "" if one["told"] else ", which cannot be told from none"
        interval = f"(95 % interval {one['low']:+.3f} to {one['high']:+.3f}{known})"
        lines.append(f"  {name}: {one['reward']:.3f}; the best is {one['above_it']:+.3f} above it {interval}")
    return [*lines, best["file"]]
