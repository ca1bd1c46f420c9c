"""The verb `augkit synth replace`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkit.cli.output import Json, resumable, show_json, show_rows
from augkit.errors import AugkitError
from augkit_diffusion import request as ask
from augkit_diffusion.filter_command import StoreFolder

if TYPE_CHECKING:
    from augkit.lab.recipe import Recipe as RealRecipe


def replace(
    recipe: ask.Recipe,
    store: StoreFolder,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where runs and results go; one that is there is gone on with.")
    ],
    overrides: ask.Overrides = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHICH", help="many, medium, few, all, or names with commas between; repeatable: each is a variant."
        ),
    ] = None,
    share: Annotated[
        list[float] | None, typer.Option(metavar="SHARE", help="Of each class's real images; repeatable; else 1.")
    ] = None,
    left_out: Annotated[
        bool, typer.Option("--left-out", help="Also with these images left out, and none in their place.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Of the trainings: how many (3), or which (0,1,2).")] = "3",
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings at once.")] = 1,
    on: Annotated[str, typer.Option(help="Where: local or ray.")] = "local",
    as_json: Json = False,
) -> None:
    """Train with synthetic images in the place of real ones, and compare on the real test set.

    As many images of each class are trained on as before, so whatever accuracy is lost is what the synthetic images
    lack. The same command goes on where a stopped one was.

    \b
        augkit synth replace recipe.yaml synth --out runs/replace                        # class-wise: many, medium, few
        augkit synth replace recipe.yaml synth --classes all --share 0.5 --left-out --out runs/half     # instance-wise
    """
    from augkit_diffusion.replacing import Test, opened, variants
    from augkit_diffusion.store import Store

    shares = list(dict.fromkeys(share or [1.0]))
    numbers = ask.read_seeds(seeds)
    read = _checked(recipe, overrides, shares, jobs, on)
    images = opened(Store.open(store), read)
    chosen = variants(classes or [], shares, left_out, images.data)
    with resumable():
        results = Test(read, chosen, numbers).run(
            images, out, jobs, on, lambda line: print(line, file=sys.stderr, flush=True)
        )
    _tell(results, out, as_json)


def _checked(recipe: str, overrides: list[str] | None, shares: Sequence[float], jobs: int, on: str) -> RealRecipe:
    """The recipe, on one thread unless it says how many; raises for what is wrong with it or these options."""
    from augkit.lab.jobs import check as check_jobs
    from augkit_diffusion.making import load_recipe_of

    if not all(0 < one <= 1 for one in shares):
        raise AugkitError("--share is above 0 and at most 1")
    check_jobs([], on, jobs)
    read = load_recipe_of(recipe, overrides or [])
    if not read.test:
        raise AugkitError("a replacement test compares test accuracies: leave test at true in the recipe")
    return read.model_copy(update={"threads": read.threads or 1})


def _tell(results: Mapping[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        show_json(results)
    else:
        show_rows([_line(row) for row in results["rows"]], as_json=False)
        count = len(results["seeds"])
        print(
            f"\nTest accuracy in %, mean ± standard error over {count} seed{'s' * (count > 1)}, {results['measured']}."
            " Differences to the real images are paired by seed, with 95 % intervals; in (other) classes: their mean"
            f" accuracy.\n{out}"
        )
    if results["failed"]:
        raise typer.Exit(1)


def _line(row: Mapping[str, Any]) -> dict[str, str]:
    from augkit_diffusion.replacing import COLUMNS

    line = {"variant": row["variant"], "replaced": str(row["replaced_images"] or "")}
    for column in COLUMNS:
        found = row[column]
        error = "" if found is None or found["error"] is None else f" ±{found['error']:.1f}"
        line[column] = "-" if found is None else f"{found['mean']:.1f}{error}"
    for measure, words in (("difference", "to real"), ("in_replaced", "in its classes"), ("in_others", "in others")):
        found = row[measure]
        between = "" if found is None or found["low"] is None else f" [{found['low']:+.1f}, {found['high']:+.1f}]"
        line[words] = "" if found is None else f"{found['mean']:+.1f}{between}"
    line["which means"] = row["difference"]["verdict"] if row["difference"] else ""
    return line
