"""The verb `augkit synth allocate`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkit.cli.output import Json, resumable, show_json, show_rows
from augkit.errors import AugkitError
from augkit_diffusion import request as ask

if TYPE_CHECKING:
    from augkit_diffusion.candidates import Question

BEST, PICTURE = "best.yaml", "accuracy.png"


def allocate(
    recipe: ask.Recipe,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where stores, runs and results go; one that is there is gone on with.")
    ],
    source: ask.Source,
    overrides: ask.Overrides = None,
    splits: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES", help="Of the real images, set apart for the source; 0 shares all. By default 0,0.3,0.5."
        ),
    ] = None,
    ratios: Annotated[str, typer.Option(metavar="NUMBERS", help="Synthetic images for each real one.")] = "0.5,1,2",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            help="How they are shared out over classes; repeatable. By default class_count, 1 and 1 / class_count.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Of the trainings: how many (3), or which (0,1,2).")] = "3",
    model: ask.Model = None,
    steps: ask.Steps = None,
    guidance: ask.Guidance = None,
    batch: ask.Batch = None,
    precision: ask.Precision = None,
    strength: ask.Strength = None,
    prompts: ask.Prompts = None,
    options: ask.Options = None,
    device: ask.Device = None,
    seed: ask.Seed = 0,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes at once.")] = 1,
    on: Annotated[str, typer.Option(help="Where they work: local or ray.")] = "local",
    as_json: Json = False,
) -> None:
    """Choose by validation images how many synthetic images of which class to train on (CoDSA).

    For each split a store is made, by a source that learns from that share of the real images alone (all of them for
    0); then every candidate is trained, and the recipe without synthetic images: as it is, and with as many steps. The
    test set is not read. The same command goes on where a stopped one was, and repeats what failed; splits, ratios,
    weights and seeds may be added. Candidates of earlier calls in DIR are judged as well.

    \b
        augkit synth allocate recipe.yaml --source fit --out runs/allocate
        augkit synth allocate recipe.yaml --source fit --splits 0,0.5 --ratios 1,4 --weights "1 / class_count" --out DIR
        augkit train runs/allocate/best.yaml
    """
    from augkit.lab.jobs import check as check_jobs
    from augkit_diffusion.allocating import Allocation

    check_jobs([], on, jobs)
    flags = {"model": model, "steps": steps, "guidance": guidance, "batch": batch, "precision": precision}
    given = ask.read_options(options, **flags, strength=strength, prompts=prompts)
    asked = _candidates(splits, ratios, weights, seeds)
    question = _question(recipe, overrides or [], source, given, out, seed, device, **asked)
    with resumable():
        allocation = Allocation(question, out, lambda line: print(line, file=sys.stderr, flush=True))
        results = allocation.run(jobs, on).results()
    _write(question, results, out)
    _tell(results, out, as_json)


def _candidates(splits: str | None, ratios: str, weights: list[str] | None, seeds: str) -> dict[str, Any]:
    """What `_question` takes of what is chosen among."""
    return {
        "splits": None if splits is None else _numbers("--splits", splits, 0, 1),
        "ratios": _numbers("--ratios", ratios, 0, 1000, above=True),
        "weights": weights or [],
        "seeds": ask.read_seeds(seeds),
    }


def _write(question: Question, results: Mapping[str, Any], out: Path) -> None:
    from augkit.lab import folder as files
    from augkit_diffusion.allocate_pictures import draw
    from augkit_diffusion.candidates import RESULTS

    files.write_json(out / RESULTS, results)  # first, since a later call judges what it says
    files.write_yaml(out / BEST, _best(question, results))
    draw(results, out / PICTURE)


def _tell(results: Mapping[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        show_json(results)
    else:
        show_rows(_lines(results), as_json=False, spare=("images",))
        print("", *results["verdict"], f"{out / BEST} trains the chosen one.", sep="\n")
    if results["failed"]:
        raise typer.Exit(1)


def _question(
    recipe: str,
    overrides: list[str],
    source: str,
    options: Mapping[str, Any],
    out: Path,
    seed: int,
    device: str | None,
    *,
    splits: list[float] | None,
    ratios: list[float],
    weights: list[str],
    seeds: list[int],
) -> Question:
    """What a command line asks; recipe, source and expressions are checked."""
    from augkit.lab.recipe import load_recipe
    from augkit.plugins import registry
    from augkit_diffusion.allocation import check_request
    from augkit_diffusion.candidates import WEIGHTS, Question
    from augkit_diffusion.making import real_only

    for one in weights:
        check_request(None, 1, one)
    read = load_recipe(recipe, registry(), overrides)
    said = {} if read.sources is None else {name: getattr(read.sources, name) for name in ("share", "replace")}
    plain = real_only(read).model_copy(update={"threads": read.threads or 1})
    order = ask.make_order(
        recipe, overrides, source, options, registry(), folder=out, seed=seed, groups=False, device=device
    )
    return Question(
        plain,
        order,
        splits,
        ratios,
        list(dict.fromkeys(weights)) or list(WEIGHTS),
        seeds,
        {name: value for name, value in said.items() if value is not None},
    )


def _numbers(option: str, text: str, low: float, high: float, *, above: bool = False) -> list[float]:
    """Different numbers with commas between, `low` <= number < `high`; with `above` not `low` itself.

    Raises:
        AugkitError: it is something else.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    wrong = [number for number in found if not (low < number if above else low <= number) or not number < high]
    if not found or wrong or len(set(found)) < len(found):
        begin = "above" if above else "from"
        raise AugkitError(f'{option} takes different numbers {begin} {low:g} and below {high:g}, as 1,2, not "{text}"')
    return found


def _best(question: Question, results: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of the chosen candidate; its folder is meant from where `best.yaml` lies."""
    from augkit_diffusion.candidates import Candidate
    from augkit_diffusion.choosing import words

    row = results["candidates"][results["chosen"]]
    better = f"{'' if results['better'] else 'not '}called better than without"
    found = question.recipe_of(Candidate(row["split"], row["weights"], row["ratio"]), row["take"], row["store"])
    return {**found, "title": f"Chosen by validation images: {words(row)}; {better}"}


def _lines(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table: what is trained without synthetic images, then the candidates with their difference to each."""
    empty = dict.fromkeys(("split", "weights", "ratio", "images"), "")
    names = dict(zip(results["controls"], ("control", "as many steps"), strict=False))
    lines = []
    for name, control in results["controls"].items():
        nothing = {f"to {short}": "" for short in names.values()}
        note = {"note": f"{names[name]}, {control['epochs']} epochs"}
        lines.append({**empty, "validation, %": _shown(control["accuracy"]), **nothing, **note})
    for number, row in enumerate(results["candidates"]):
        marks = [word for word in ("best", "chosen") if results[word] == number] + ["stale"] * row["stale"]
        lines.append(
            {
                "split": f"{row['split']:g}",
                "weights": row["weights"],
                "ratio": f"{row['ratio']:g}",
                "images": str(row["images"]),
                "validation, %": _shown(row["accuracy"]) or "failed",
                **{f"to {short}": _shown(row["differences"][name], "+") for name, short in names.items()},
                "note": ", ".join(marks),
            }
        )
    return lines


def _shown(found: Mapping[str, Any] | None, sign: str = "") -> str:
    if found is None:
        return ""
    return f"{found['mean']:{sign}.1f}" + ("" if found["error"] is None else f" ±{found['error']:.1f}")
