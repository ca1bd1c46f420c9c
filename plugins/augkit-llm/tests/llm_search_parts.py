"""Searches that are small enough to be tested: a tiny recipe, transcripts, and a landscape instead of training."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from augkit_llm import cascade
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.evaluate import BASELINE, Stage
from augkit_llm.opening import begun, resumed, settle
from augkit_llm.screen import Screened
from augkit_llm.search import Search, Settings
from rich.console import Console

from augkit.lab import jobs
from augkit.lab.worker import Limits, perform
from augkit.strategy.document import load_strategy
from augkit.strategy.reading import read_file

RECIPE = {
    "augkit": 1,
    "name": "tiny",
    "data": {"source": "digits", "imbalance": 10, "image_size": 8, "validation_per_class": 20},
    "model": "resnet8_cifar",
    "epochs": 1,
    "batch_size": 64,
}
STAGES = (Stage("short", 1, 2, keep=2), Stage("warm", 1, 2, warm=True, keep=1), Stage("full", 2, 2))
CONTROLS = 3 * 2 * 3 + 2
"""Runs of controls in these stages with two seeds, and two baselines."""
OPERATORS = ("rotate", "shear_x", "solarize", "posterize", "invert", "equalize", "brightness", "contrast")
HEIGHTS = {"none": 0.30, "uniform_class_choice": 0.32, "trivialaugment": 0.35, BASELINE: 0.3}


def recipe(folder: Path) -> Path:
    """The recipe as a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def document(p: float, operator: str = "rotate") -> dict[str, Any]:
    """A strategy whose height in the landscape rises with p."""
    return {"augkit": 1, "name": "told", "title": f"{operator} at {p}", "pipeline": [{operator: {"p": p}}]}


def reply(key: str, text: Any, tokens: int = 10, usd: float = 0.01) -> dict[str, Any]:
    """A line of a transcript."""
    return {"key": key, "text": text, "prompt_tokens": tokens, "completion_tokens": tokens, "usd": usd}


def transcript(path: Path, lines: Sequence[Mapping[str, Any]]) -> str:
    """The name of a model whose replies these are."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"transcript:{path}"


def many_replies(generations: int, population: int, usd: float = 0.01) -> list[dict[str, Any]]:
    """A reply to every first question: other operators and chances, a few of them wrong at first, a few for good."""
    lines = []
    for generation in range(generations):
        for slot in range(population):
            key, number = f"g{generation}.s{slot}", generation * population + slot
            good = document(round(0.05 + 0.9 * (number * 0.37 % 1), 3), OPERATORS[number % len(OPERATORS)])
            if number % 7 == 3:
                lines.append(reply(f"{key}.a0", "I would rather not.", usd=usd))
                lines.append(reply(f"{key}.a1", good, usd=usd))
            elif number % 11 == 5:
                lines += [reply(f"{key}.a{attempt}", {"augkit": 1, "name": "x"}, usd=usd) for attempt in range(3)]
            else:
                lines.append(reply(f"{key}.a0", good, usd=usd))
    return lines


def landscape(recipe: str, policy: str, seed: int, epochs: int, weights: str | None, out: str) -> dict[str, Any]:
    """Stands in for a training run: what it returns depends on the strategy and the seed alone.

    Strategies that say `invert` crash.
    """
    if policy in HEIGHTS:
        height = HEIGHTS[policy]
    else:
        ((operator, body),) = read_file(Path(policy)).data["pipeline"][0].items()
        if operator == "invert":
            raise RuntimeError("inverted")
        height = 0.2 + 0.4 * (body.get("p") or 1.0 if isinstance(body, dict) else 1.0)
    reward = height + 0.001 * seed + 0.01 * epochs
    groups = {"many": reward, "medium": None, "few": reward / 2}
    return {"reward": reward, "standard_error": 0.01, "groups": groups, "intensity": {}, "seconds": 0.0}


def _found(stage: Stage, where: Mapping[str, str], folder: Path, seeds: Sequence[int]) -> list[jobs.Task]:
    return [
        jobs.Task(
            f"{stage.name}-{name}-seed{seed}",
            "llm_search_parts:landscape",
            {"recipe": "", "policy": path, "seed": seed, "epochs": stage.epochs, "weights": None},
            {"out": str(folder)},
        )
        for name, path in where.items()
        for seed in seeds
    ]


def flat(monkeypatch: pytest.MonkeyPatch, *, here: bool = True) -> None:
    """Let searches measure on the landscape; `here` in this process, which needs no other to start."""

    def tasks(stage: Stage, _: str, documents: Mapping[str, str], folder: Path, *, seeds: Sequence[int]) -> Any:
        return _found(stage, documents, folder, seeds)

    def baselines(stage: Stage, _: str, epochs: int, folder: Path, *, seeds: Sequence[int]) -> Any:
        return _found(stage, {BASELINE: "none"}, folder, seeds) if stage.warm else []

    def in_turn(
        todo: Sequence[jobs.Task],
        on: str,
        number: int,
        *,
        logs: Path,
        limits: Limits,
        done: Callable[[jobs.Result], None],
    ) -> None:
        for task in reversed(todo) if number > 1 else todo:  # in another order, as several at once would
            answer = perform(asdict(task), None)
            done(jobs.Result(task.name, answer["value"], answer["reason"], 0.01))

    def hashed(one: Mapping[str, Any], registry: Any, counts: Any, size: int, **_: Any) -> Screened:
        name = load_strategy(one, registry).hash
        return Screened(name, f"of {name}", {}, None)

    monkeypatch.setattr("augkit_llm.screen.screen", hashed)  # which plays a strategy, and has tests of its own
    monkeypatch.setattr(cascade, "tasks", tasks)
    monkeypatch.setattr(cascade, "baselines", baselines)
    if here:
        monkeypatch.setattr(jobs, "map", in_turn)


def settings(folder: Path, models: Sequence[str], population: int = 4, stages: Any = STAGES, **more: Any) -> Settings:
    """Of a search on the tiny recipe."""
    return settle(recipe(folder), [], models, population=population, cascade=stages, **more)


@contextmanager
def new(folder: Path, chosen: Settings, budget: Budget, **more: Any) -> Any:
    """A new search that says nothing."""
    with begun(folder, chosen, budget, console=quiet(), **more) as search:
        yield search


def searched(folder: Path, model: str, budget: Budget, population: int = 4, **more: object) -> Search:
    """A new search in `found`, at its end."""
    chosen = settings(folder, [model], population, **more)  # type: ignore[arg-type]
    with new(folder / "found", chosen, budget) as search:
        search.run()
        return search  # type: ignore[no-any-return]


def go_on(folder: Path, budget: Budget | None = None, **more: Any) -> Search:
    """Resume a search and run it to its end."""
    with resumed(folder, budget or Budget(), console=quiet(), **more) as search:
        search.run()
        return search


def dump(folder: Path) -> dict[str, Any]:
    """The archive without times and costs."""
    archive = Archive.read(folder / FILE)
    try:
        return archive.dump()
    finally:
        archive.close()


def quiet() -> Console:
    """A console that nobody reads."""
    return Console(width=200, force_terminal=False, file=io.StringIO())
