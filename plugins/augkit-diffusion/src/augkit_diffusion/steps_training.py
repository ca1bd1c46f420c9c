"""What images made in few and in many steps are worth to a training: the recipe with each store, over seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit_diffusion.steps import images_sha256, name_of
from augkit_diffusion.store import Store

if TYPE_CHECKING:
    from augkit.lab.jobs import Result, Task
    from augkit.lab.recipe import Recipe

RUNS, DONE, LOGS = "runs", "done", "logs"
CONTROL = "real"


def compare(
    recipe: Recipe,
    stores: Mapping[int, Store],
    seeds: Sequence[int],
    out: Path,
    jobs: int,
    on: str,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train the recipe with real images alone and with each store, and measure on validation images; no test is read.

    A training is known by its recipe and by the images that the store keeps, so what is there is not trained again, and
    what changed is.

    Returns:
        As JSON: for `real` and the name of each store, mean and standard error in percent of the accuracy that counts
        classes alike, the values by seed, and with a store the difference to `real`, paired by seed.
    """
    from augkit.lab import jobs as spread

    named: dict[str, Store | None] = {CONTROL: None} | {name_of(steps): store for steps, store in stores.items()}
    tasks = {(name, seed): _task(recipe, name, store, seed, out) for seed in seeds for name, store in named.items()}
    results = spread.map(
        [*tasks.values()],
        on,
        jobs,
        record=out / DONE,
        logs=out / LOGS,
        retry=True,
        done=lambda result: say(_line(result)),
    )
    done = {result.name: result for result in results}
    scores = {
        name: {seed: result.value["balanced"] for seed in seeds if not (result := done[tasks[name, seed].name]).failed}
        for name in named
    }
    return {
        "measured": "balanced accuracy on validation images after the last epoch; the test set is not read",
        "seeds": list(seeds),
        "rows": {name: _row(own, scores[CONTROL] if name != CONTROL else None) for name, own in scores.items()},
        "failed": {name: result.reason for name, result in done.items() if result.failed},
    }


def _row(own: Mapping[int, float], control: Mapping[int, float] | None) -> dict[str, Any]:
    from augkit.lab import paired

    both = [seed for seed in own if control is not None and seed in control]
    against = None
    if both and control is not None:
        found = paired.difference([own[seed] for seed in both], [control[seed] for seed in both])
        against = {**asdict(found), "verdict": found.words(CONTROL)}
    return {
        "accuracy": asdict(paired.mean([*own.values()])) if own else None,
        "values": {str(seed): value for seed, value in own.items()},
        "difference": against,
    }


def _task(recipe: Recipe, name: str, store: Store | None, seed: int, out: Path) -> Task:
    from augkit.lab.jobs import Task

    told = recipe.model_dump(mode="json") | {"seed": seed, "test": False}
    told["sources"] = None if store is None else dict(told.get("sources") or {}) | {"folder": None}
    known = [told, None if store is None else images_sha256(store)]
    mark = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:10]
    run = f"{name}-seed{seed}-{mark}"
    where = {"folder": str((out / RUNS / run).absolute())}
    if store is not None:
        where["store"] = str(store.folder.absolute())
    return Task(run, "augkit_diffusion.trainings:train_one", {"recipe": told}, where)


def _line(result: Result) -> str:
    what = f"failed: {result.reason}" if result.failed else "trained"
    return f"{result.name}  {what}, {result.seconds / 60:.1f} min"
