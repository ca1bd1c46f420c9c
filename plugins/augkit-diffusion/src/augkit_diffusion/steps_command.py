"""The verb `augkit synth steps`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkit.cli.output import Json, note, resumable, show_json, show_rows
from augkit_diffusion import request as ask
from augkit_diffusion.progress import Meter

if TYPE_CHECKING:
    from augkit.lab.recipe import Recipe
    from augkit.registry import Registry
    from augkit_diffusion.making import Order
    from augkit_diffusion.steps import Comparison
    from augkit_diffusion.store import Store

SEEDS = "0,1,2"


def steps(
    recipe: ask.Recipe,
    source: ask.Source,
    values: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of denoising steps, such as 3,10,50.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="A new folder, or one to go on in; a store for each number.")
    ],
    overrides: ask.Overrides = None,
    per_class: Annotated[int, typer.Option(min=1, metavar="N", help="Images of each class in each store.")] = 100,
    model: ask.Model = None,
    guidance: ask.Guidance = None,
    batch: ask.Batch = None,
    precision: ask.Precision = None,
    strength: ask.Strength = None,
    prompts: ask.Prompts = None,
    options: ask.Options = None,
    device: ask.Device = None,
    seed: ask.Seed = 0,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A finished run of augkit train whose network looks at the images."),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Also train the recipe with each store; measured on validation images.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="Of these trainings: how many (3), or which (0,1,2).")] = SEEDS,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes at once, for images and trainings.")] = 1,
    on: Annotated[str, typer.Option(help="Where they work: local or ray.")] = "local",
    as_json: Json = False,
) -> None:
    """Compare images made in few and in many denoising steps: what they are worth, and how fast they are made.

    A store for each number of steps, made as `augkit synth make` does, from the same noise; what a source learns it
    learns once. Figures in DIR/steps.json, a picture in DIR/steps.png. The same command goes on where it stopped.

    \b
        augkit synth steps recipe.yaml --source fit --values 3,10,50 --out steps
        augkit synth steps recipe.yaml --source sd --model PATH_OR_ID --values 3,10,50 --run runs/baseline --out steps
        augkit synth steps recipe.yaml --source fit --values 3,10,50 --out steps \\
            --set data.validation_per_class=10 --train --seeds 0,1,2
    """
    from augkit.lab import folder as files
    from augkit.lab.jobs import check as check_jobs
    from augkit.plugins import registry
    from augkit_diffusion import steps as comparing
    from augkit_diffusion.candidates import check_validation
    from augkit_diffusion.features import check_viewer, recipe_of_run

    check_viewer(run, None, None)
    check_jobs([], on, jobs)
    numbers, chosen, found = comparing.parse_values(values), ask.read_seeds(seeds), registry()
    given = ask.read_options(
        options, model=model, guidance=guidance, batch=batch, precision=precision, strength=strength, prompts=prompts
    )
    comparing.check_source(source, given, found)
    order = ask.make_order(recipe, overrides, source, given, found, folder=out, seed=seed, groups=False, device=device)
    comparing.check_folder(out)
    if run is not None:
        recipe_of_run(run)
    whole = _recipe(recipe, overrides, found) if train else None
    with Meter() as meter:
        comparison = _comparison(order, numbers, per_class, out, meter, found)
        if whole is not None:
            check_validation(comparison.data)
        trained = None if whole is None else _trainer(whole, chosen, out, jobs, on, meter.say)
        with resumable(), files.claim(out):
            if not (out / comparing.MADE).exists():
                files.write_json(out / comparing.MADE, {})
            comparison.make(jobs, on)
            results = comparing.write(comparison, run, trained)
    _tell(results, out, as_json)


def _trainer(
    recipe: Recipe, seeds: Sequence[int], out: Path, jobs: int, on: str, say: Callable[[str], None]
) -> Callable[[Mapping[int, Store]], dict[str, Any]]:
    """What trains the recipe with each store, and compares."""
    from augkit_diffusion.steps_training import compare

    return lambda stores: compare(recipe, stores, seeds, out, jobs, on, say)


def _recipe(recipe: str, overrides: list[str] | None, found: Registry) -> Recipe:
    """What is trained, on one thread unless it says how many, so that figures do not depend on the machine's cores."""
    from augkit.lab.recipe import load_recipe

    read = load_recipe(recipe, found, overrides or [])
    return read.model_copy(update={"threads": read.threads or 1})


def _comparison(
    order: Order, values: Sequence[int], per_class: int, out: Path, meter: Meter, found: Registry
) -> Comparison:
    """With the data, read once for all stores."""
    from augkit.lab import data as lab_data
    from augkit.lab.recipe import Recipe
    from augkit_diffusion.sources import options_of
    from augkit_diffusion.steps import Comparison

    recipe = Recipe.model_validate_json(json.dumps(order.recipe))
    data = lab_data.load(recipe.data, sources=recipe.sources)
    learns = "learnt" in options_of(order.source, found)
    return Comparison(order, values, per_class, out, data, meter, learns)


def _tell(results: Mapping[str, Any], out: Path, as_json: bool) -> None:
    training = results["training"]
    if as_json:
        show_json(results)
    else:
        show_rows([_line(row, training) for row in results["rows"]], as_json=False)
        print(f"\n{_words(results)}\n{out}")
        if "run" not in results["real"]["viewer"]:
            note(f"the judge is {results['real']['judge']}; a trained network judges better: --run RUN")
    if training is not None and training["failed"]:
        raise typer.Exit(1)


def _line(row: Mapping[str, Any], training: Mapping[str, Any] | None) -> dict[str, str]:
    domain, far = row["told_apart"], row["frechet"]
    speed = row["images_per_second"]
    line = {
        "steps": str(row["steps"]),
        "images": str(row["images"]),
        "images/s": "-" if speed is None else f"{speed:.3g}",
        "taken for their class": f"{row['agree']:.1%}",
        "told from real": "-" if domain is None else f"{domain['accuracy']:.1%} ±{100 * domain['error']:.1f}",
        "Frechet distance": "-" if far is None else f"{far['distance']:.3g} (by chance {far['by_chance']:.3g})",
        "near-copies": f"{row['near_copies']:.1%}",
    }
    if training is not None:
        found = training["rows"][row["store"]]
        line["trained with"] = _accuracy(found["accuracy"])
        line["to real alone"] = "-" if found["difference"] is None else found["difference"]["verdict"]
    return line


def _accuracy(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['mean']:.1f}" + ("" if found["error"] is None else f" ±{found['error']:.1f}")


def _words(results: Mapping[str, Any]) -> str:
    """What the columns are, and what real images alone give."""
    real, training = results["real"], results["training"]
    control, copies = real["told_apart"], real["near_copies"]
    lines = [f"Their class: by {real['judge']}. Told from real training images of the same classes: 50 % is guessing"]
    lines[0] += (
        "." if control is None else f"; held-out real images {control['accuracy']:.1%} ±{100 * control['error']:.1f}."
    )
    lines.append(
        "Frechet distance: of as many images of each class on both sides; by chance is what so few alone give."
    )
    lines.append(
        "Near-copies: of a training image" + ("." if copies is None else f"; {copies:.1%} of these have such a twin.")
    )
    if training is not None:
        alone = _accuracy(training["rows"]["real"]["accuracy"])
        lines.append(
            f"Trained with: {training['measured']}, in %, mean ± standard error over {len(training['seeds'])} seeds;"
            f" real images alone {alone}."
        )
    return "\n".join(lines)
