"""What a run folder says, gathered for a report: finished or not, and nothing that does not stand in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from augkit.engine.program import Program, Sizes, bind
from augkit.errors import AugkitError, DataError
from augkit.lab import folder as files
from augkit.lab.augmentation import own_columns, strategy_of
from augkit.lab.intensity import INTENSITY
from augkit.lab.metrics import group_of
from augkit.lab.recipe import Recipe, read_recipe
from augkit.lab.robustness import RECORD as ROBUSTNESS
from augkit.registry import Registry
from augkit.report.facts import Run, State, Table, Use
from augkit.strategy.describe import words
from augkit.strategy.document import is_path, load_strategy
from augkit.strategy.model import Strategy

T = TypeVar("T")
COUNTED = ("correct", "seen", "loss", "val_correct", "val_seen", "used", "strength_used")
"""What the policy's history has of each epoch beside its states."""


def read_run(folder: Path, registry: Registry) -> Run:
    """Gather what a run folder holds.

    Raises:
        DataError: it is no run folder, no epoch has ended, or a file cannot be read.
    """
    if not (folder / files.RECIPE).is_file():
        raise DataError("this is no run folder (no recipe.yaml in it); give the folder of a run", file=folder)
    recipe = read_recipe(folder / files.RECIPE)
    records = _read(folder / files.METRICS, _lines) if (folder / files.METRICS).exists() else []
    if not records:
        raise DataError("no epoch of this run has ended yet; look again after the first", file=folder)
    environment = _json(folder, files.ENVIRONMENT) or {}
    run = Run(
        folder,
        recipe.model_dump(mode="json"),
        recipe.policy_name,
        recipe.all_epochs,
        environment,
        records,
        _json(folder, files.SUMMARY),
        _classes(folder, environment),
    )
    if (folder / files.PER_GROUP).exists():
        run.by_group = _read(folder / files.PER_GROUP, _table)
    run.intensity, run.robustness = _json(folder, INTENSITY), _json(folder, ROBUSTNESS)
    strategy = _tell(run, recipe, registry)
    _add_policy(run, strategy)
    if not run.finished:
        run.missing.append(
            f"This run has not ended: {len(records)} of {run.epochs} epochs are told, and nothing was measured"
            " on the images that measure it."
        )
    return run


def _json(folder: Path, name: str) -> Any:
    path = folder / name
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _read(path: Path, parse: Callable[..., T]) -> T:
    """What a file holds, or an error that names it."""
    try:
        return parse(path) if parse in (_lines, _table) else parse()
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"this file cannot be read ({reason}); it is damaged, or of another make", file=path) from error


def _lines(path: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record in records:
        _ = record["epoch"], record["loss"], record["train_accuracy"]
    return records


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _classes(folder: Path, environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From `per_class.csv`, or of a run that has not ended from the counts that it noted; names come with the end."""
    path = folder / files.PER_CLASS
    if not path.exists():
        counts = [int(count) for count in environment.get("class_counts", [])]
        groups = group_of(torch.tensor(counts, dtype=torch.int64))
        return [{"name": f"class {k}", "count": n, "group": groups[k]} for k, n in enumerate(counts)]

    def parse() -> list[dict[str, Any]]:
        return [
            {
                "name": row["name"],
                "count": int(row["train_images"]),
                "group": row["group"],
                "images": int(row["test_images"] if "test_images" in row else row["val_images"]),
                "accuracy": float(row["accuracy"]) if row["accuracy"] else None,
                "made": int(row.get("synthetic_images") or 0),
            }
            for row in _table(path)
        ]

    return _read(path, parse)


def _tell(run: Run, recipe: Recipe, registry: Registry) -> Strategy | None:
    """The run's strategy in words, and its document; None if it is not what the run was trained with any more."""
    load = recipe.policy.load
    try:
        strategy = strategy_of(recipe, registry)
        if strategy.hash != run.environment.get("strategy_sha256", strategy.hash):
            run.missing.append(
                f'The document "{load}" has changed since this run was trained, so the strategy is not told.'
            )
            return None
        run.words = words(load_strategy(load, registry, params=recipe.policy.params))
        run.document = _document(load, registry)
    except (AugkitError, OSError) as error:
        reason = str(error).partition("\n")[0]
        run.missing.append(f'The strategy "{load}" cannot be read any more, so it is not told ({reason}).')
        return None
    return strategy


def _document(load: str, registry: Registry) -> str:
    from augkit.strategy.timm_strings import is_timm

    path = registry.strategies.get(load) or (Path(load) if is_path(load) else None)
    if path is None:
        assert is_timm(load)
        return load
    return path.read_text(encoding="utf-8")


def _add_policy(run: Run, strategy: Strategy | None) -> None:
    """What the policy did and learned: from the checkpoint by epoch, or else from `operators.json`."""
    stored = _json(run.folder, files.OPERATORS)
    checkpoint = files.load_checkpoint(run.folder, "policy")
    history = checkpoint["policy"]["history"] if checkpoint is not None else []
    if history:
        run.answers = _ratio(_stacked(history, "correct"), _stacked(history, "seen"))
        run.states = list(_states(checkpoint["policy"]["memory"]["values"], history)) if checkpoint else []
    elif checkpoint is None:
        run.missing.append("There is no checkpoint in this folder, so what the policy learned is not told by epoch.")
    program = bind(strategy, Sizes()) if strategy is not None else None
    if history and program is not None and _stacked(history, "used").shape[2] != len(program.choices):
        run.missing.append("The checkpoint is of another version of augkit, so strengths are not told by epoch.")
        history = []
    if history and program is not None:
        columns = own_columns(program)
        names = [program.choices[column].operator.name for column in columns]
        used, strength = (_stacked(history, name)[:, :, columns] for name in ("used", "strength_used"))
        operators, used, strength = _merged(names, used, strength)
        run.use = Use(operators, used, _stacked(history, "seen"), strength, strength.sum(0))
        run.tables = list(_tables(program, checkpoint["policy"]["memory"]["values"])) if checkpoint else []
    elif stored is not None and stored["used"]:
        used, strength = np.asarray(stored["used"], np.float64), np.asarray(stored["strength_used"], np.float64)
        operators, used, strength = _merged(stored["operators"], used, strength.reshape(used.shape[1:]))
        run.use = Use(operators, used, np.asarray(stored["seen"], np.float64), None, strength)
    if run.use is not None and not run.use.operators:
        run.use = None


def _stacked(history: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.stack([torch.as_tensor(epoch[name]).double().numpy() for epoch in history])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def _merged(names: list[str], *values: np.ndarray) -> tuple[list[str], Any, Any]:
    """Names without repeats, and the sums of their columns: [..., columns] to [..., names]."""
    operators = list(dict.fromkeys(names))
    where = np.zeros((len(names), len(operators)))
    where[np.arange(len(names)), [operators.index(name) for name in names]] = 1
    one, other = (value @ where for value in values)
    return operators, one, other


def _states(values: Mapping[str, Mapping[str, Any]], history: list[dict[str, Any]]) -> Any:
    """The states that every epoch's record keeps; what it counted is no state."""
    paths = [(path, name) for path, inside in values.items() for name in inside]
    kept = [(p, n) for p, n in paths if p + n in history[-1] and n not in COUNTED and "." not in n]
    names = [name for _, name in kept]
    for path, name in kept:
        rows = _stacked(history, path + name)
        yield State(name if names.count(name) == 1 else path + name, rows.reshape(len(history), -1))


def _tables(program: Program, values: Mapping[str, Mapping[str, Any]]) -> Any:
    """States by operator, which epochs do not keep: as the checkpoint has them."""
    for bound in program.bounds:
        names = [choice.operator.name for choice in bound.strategy.choices]
        for name, state in bound.strategy.state.items():
            if "ops" in state.axes and set(state.axes) <= {"classes", "ops"} and name in values.get(bound.path, {}):
                found = torch.as_tensor(values[bound.path][name]).double().numpy()
                yield Table(name, names, found.reshape(-1, len(names)))
