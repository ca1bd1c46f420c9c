"""Training runs that measure a strategy: the stages of the cascade, and one run as a task for `augkit.lab.jobs`.

The reward of a run is its balanced accuracy on the recipe's validation images after the last epoch, 0..1; higher is
better. The test set stays unread; `read_test` is for a search that has stopped.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import DocumentError, StateError

if TYPE_CHECKING:
    from augkit.lab.jobs import Task
    from augkit.lab.recipe import Recipe

RUNS, BASELINE = "runs", "baseline"
ENOUGH = 20
"""Reward images of a class below which nothing can be ranked."""


@dataclass(frozen=True)
class Stage:
    """One stage of the cascade."""

    name: str
    epochs: int
    """Of the recipe's first stage; whatever else the recipe counts in epochs is scaled alike."""
    seeds: int = 2
    warm: bool = False
    """Begins with the weights of a baseline: the recipe without a policy, a quarter as long, of the same seed."""
    keep: int | None = None
    """How many go on to the next stage; None for the last."""


def stages(epochs: int, seeds: int = 2) -> tuple[Stage, ...]:
    """The cascade for a recipe that is so long: some epochs, a tenth of them from a baseline's weights, all of them.

    LLM-AutoDA trains 20 of 200 epochs from a checkpoint of epoch 50 (Jia et al., NeurIPS 2024); that is the middle one.
    """
    quick, warm = max(1, epochs // 20), max(1, epochs // 10)
    return (
        Stage("quick", quick, seeds, keep=4),
        Stage("warm", warm, seeds, warm=True, keep=2),
        Stage("full", epochs, seeds),
    )


def check_recipe(recipe: Recipe) -> None:
    """Raise unless a recipe names images to reward by.

    Raises:
        DocumentError: nothing, or too little of each class, is held out.
    """
    advice = f"say data.validation_per_class: {ENOUGH} or more, or give the source a validation split of its own"
    held_out = recipe.data.validation_per_class
    if 0 < held_out < ENOUGH:
        raise DocumentError(
            f"{held_out} reward images of each class cannot rank strategies: {advice}", path="data.validation_per_class"
        )
    if recipe.data.validation:
        raise DocumentError(
            f"a share of each class leaves the rare ones too few images to rank strategies by: {advice}",
            path="data.validation",
        )


def baselines(stage: Stage, recipe: str, epochs: int, folder: Path, *, seeds: Sequence[int]) -> list[Task]:
    """The runs whose weights a warm stage begins with; none for another. To be done before its `tasks`.

    Args:
        stage: of the cascade.
        recipe: a path.
        epochs: of the recipe.
        folder: of the search.
        seeds: of the runs.
    """
    from augkit.lab.jobs import Task

    if not stage.warm:
        return []
    return [
        Task(
            f"{BASELINE}-seed{seed}",
            "augkit_llm.evaluate:measure",
            {"recipe": recipe, "policy": "none", "seed": seed, "epochs": max(1, epochs // 4), "weights": None},
            {"out": str(_baseline(folder, seed))},
        )
        for seed in seeds
    ]


def tasks(stage: Stage, recipe: str, documents: Mapping[str, str], folder: Path, *, seeds: Sequence[int]) -> list[Task]:
    """A run for each strategy and seed, named `STAGE-NAME-seedN`; what it returns is said at `measure`.

    Args:
        stage: of the cascade.
        recipe: a path.
        documents: by the name that a strategy has in the search: a path, or the name of a registered one.
        folder: of the search; runs lie in its `runs/`.
        seeds: of the runs.
    """
    from augkit.lab.jobs import Task

    return [
        Task(
            f"{stage.name}-{name}-seed{seed}",
            "augkit_llm.evaluate:measure",
            {
                "recipe": recipe,
                "policy": document,
                "seed": seed,
                "epochs": stage.epochs,
                "weights": str(_baseline(folder, seed)) if stage.warm else None,
            },
            {"out": str(folder / RUNS / f"{stage.name}-{name}-seed{seed}")},
        )
        for name, document in documents.items()
        for seed in seeds
    ]


def _baseline(folder: Path, seed: int) -> Path:
    return folder / RUNS / f"{BASELINE}-seed{seed}"


def measure(recipe: str, policy: str, seed: int, epochs: int, weights: str | None, out: str) -> dict[str, Any]:
    """Train once and measure; a run that was interrupted goes on, also where its search was moved meanwhile.

    Returns:
        `reward` 0..1, its `standard_error` over the reward images, `groups` (balanced accuracy of many, medium and few
        classes; None for one that is absent), `intensity` by group (of `augkit.lab.intensity`), and `seconds` an epoch.
    """
    from augkit.lab.grid import shorten
    from augkit.lab.intensity import measure as intensity
    from augkit.lab.recipe import load_recipe
    from augkit.lab.run import train
    from augkit.plugins import registry

    said = {"policy": policy, "seed": seed, "epochs": epochs, "test": False}
    said |= {"model.weights": weights} if weights is not None else {}
    short = shorten(load_recipe(recipe, registry()), epochs).model_dump(mode="json")
    said |= {part: short[part] for part in ("schedule", "stages")}  # which count in epochs themselves
    overrides = [f"{name}={json.dumps(value)}" for name, value in said.items()]
    _bring_along(Path(out), load_recipe(recipe, registry(), overrides))
    folder = train(recipe, overrides, out, Path(out).exists())
    with (folder / "per_class.csv").open(encoding="utf-8") as file:
        classes = [(int(row["correct"]), int(row["val_images"])) for row in csv.DictReader(file)]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    accuracy, error = balanced(classes)
    return {
        "reward": accuracy,
        "standard_error": error,
        "groups": {name: value for name, value in summary["val"].items() if name != "all"},
        "intensity": intensity(folder, registry()),
        "seconds": summary["seconds_per_epoch"],
    }


def _bring_along(run: Path, recipe: Recipe) -> None:
    """Let a run whose search was moved go on as the same run: its document and its baseline are elsewhere now."""
    from augkit.lab import folder as files
    from augkit.lab.recipe import read_recipe

    if not (run / files.RECIPE).exists():
        return
    there = read_recipe(run / files.RECIPE)
    if there == recipe or moved(there, run) != moved(recipe, run):
        return
    checkpoint = files.load_checkpoint(run)
    if checkpoint is not None:
        files.save_checkpoint(run, {**checkpoint, "recipe": recipe.hash})
    files.write_yaml(run / files.RECIPE, recipe.model_dump(mode="json"))  # last, so that a kill before is mended


def moved(recipe: Recipe, run: Path) -> Recipe:
    """The recipe of a run with its document and its baseline where the run's search is now."""
    from augkit.strategy.document import is_path
    from augkit_llm.files import DOCUMENTS

    search, policy, model = run.absolute().parent.parent, recipe.policy, recipe.model
    if is_path(policy.load):
        policy = policy.model_copy(update={"load": str(search / DOCUMENTS / Path(policy.load).name)})
    if model.weights is not None and Path(model.weights).name.startswith(f"{BASELINE}-seed"):
        model = model.model_copy(update={"weights": str(search / RUNS / Path(model.weights).name)})
    return recipe.model_copy(update={"policy": policy, "model": model})


def read_test(run: str) -> dict[str, Any]:
    """How well a finished run's model does on the test set; the run folder is left as it is.

    Args:
        run: its folder, whose checkpoint is that of the last epoch.

    Returns:
        All 0..1: `balanced`, the mean over classes, and its `standard_error` over the images; `all`, over images;
        `many`, `medium` and `few`, the mean over the classes of a group (None for one that is absent).

    Raises:
        AugkitError: there is no finished run, or its data are no longer the same.
    """
    from augkit.lab import data as lab_data
    from augkit.lab import folder as files
    from augkit.lab.loop import prepare
    from augkit.lab.recipe import read_recipe
    from augkit.lab.run import pick_device, same_data, threads
    from augkit.plugins import registry

    folder = Path(run)
    checkpoint = files.load_checkpoint(folder)
    if checkpoint is None or not (folder / files.SUMMARY).exists():
        raise StateError("there is no finished run here whose model could be tested", file=folder)
    recipe = moved(read_recipe(folder / files.RECIPE), folder)
    device = pick_device(recipe.device)
    with threads(recipe.threads):
        data = lab_data.load(recipe.data, device)
        same_data(folder, data)
        training = prepare(recipe, data, registry(), device)
        training.load_state_dict(checkpoint)
        scores, _ = training.evaluate(data.test)
    accuracy, error = balanced(list(zip(scores.correct.tolist(), scores.seen.tolist(), strict=True)))
    return {"balanced": accuracy, "standard_error": error, **scores.summary(data.class_counts)}


def balanced(classes: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Mean accuracy over classes of (right answers, images), and its standard error over the images, both 0..1.

    Each class's answers are taken for draws of their own. Half an answer is added to either side before the variance is
    taken, as Agresti and Coull do it for intervals, so that a model which is never or always right is not sure of it.
    """
    known = [(right, images) for right, images in classes if images]
    accuracy = sum(right / images for right, images in known) / len(known)
    rates = [((right + 0.5) / (images + 1), images) for right, images in known]
    variance = sum(rate * (1 - rate) / images for rate, images in rates)
    return accuracy, math.sqrt(variance) / len(known)
