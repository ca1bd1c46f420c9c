"""What a run folder says, gathered for a report: finished or not, and nothing that does not stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from augkit.engine.program import Program, Sizes, bind, steps_of
from augkit.errors import AugkitError, DataError
from augkit.lab import folder as files
from augkit.lab import run_files
from augkit.lab.augmentation import own_columns, strategy_of
from augkit.lab.intensity import INTENSITY
from augkit.lab.recipe import Recipe, read_recipe
from augkit.lab.robustness import RECORD as ROBUSTNESS
from augkit.registry import Registry
from augkit.report.facts import Run, State, Table, Use, ratio
from augkit.strategy.describe import words
from augkit.strategy.document import is_path, load_strategy
from augkit.strategy.model import OperatorStep, Strategy

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
    records = run_files.optional(folder / files.METRICS, run_files.records)
    if not records:
        raise DataError("no epoch of this run has ended yet; look again after the first", file=folder)
    environment = run_files.optional(folder / files.ENVIRONMENT, run_files.mapping) or {}
    measured = "test" if recipe.test else "val"
    ended = run_files.optional(folder / files.SUMMARY, lambda path: run_files.summary(path, measured))
    classes = run_files.optional(folder / files.PER_CLASS, run_files.classes)
    if classes is None:
        classes = run_files.read(folder / files.ENVIRONMENT, lambda path: run_files.counted_classes(environment))
    run = Run(
        folder,
        recipe.model_dump(mode="json"),
        recipe.policy_name,
        recipe.all_epochs,
        environment,
        records,
        ended,
        classes,
    )
    run.by_group = run_files.optional(folder / files.PER_GROUP, run_files.cells) or []
    run.intensity = run_files.optional(folder / INTENSITY, run_files.intensity)
    run.robustness = run_files.optional(folder / ROBUSTNESS, run_files.mapping)
    strategy = _tell(run, recipe, registry)
    if classes:
        _add_policy(run, strategy)
    else:
        run.missing.append("How many images each class has is not known, so nothing is told by class.")
    if not run.finished:
        run.missing.append(
            f"This run has not ended: {len(records)} of {run.epochs} epochs are told, and nothing was measured"
            " on the images that measure it."
        )
    elif not (folder / files.PER_CLASS).exists():
        run.missing.append(f"There is no {files.PER_CLASS} in this folder, so accuracy is not told by class.")
    return run


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
    history, values, why_not = run_files.learned(run.folder)
    if why_not:
        run.missing.append(why_not)
    if history:
        run.answers = ratio(_stacked(history, "correct"), _stacked(history, "seen"))
        run.states = list(_states(values, history))
    program = bind(strategy, Sizes()) if strategy is not None else None
    same = program is not None and bool(history) and len(program.choices) == history[0]["used"].shape[1]
    if history and program is not None and not same:
        run.missing.append("The checkpoint is of another version of augkit, so strengths are not told by epoch.")
    if program is not None and same:
        columns = own_columns(program)
        names = [program.choices[column].operator.name for column in columns]
        used, strength = (_stacked(history, name)[:, :, columns] for name in ("used", "strength_used"))
        run.use = _by_name(names, used, _stacked(history, "seen"), strength, _graded(program, strength.sum(0)))
        run.tables = list(_tables(program, values))
    else:
        path = run.folder / files.OPERATORS
        run.use = run_files.optional(path, lambda path: _stored(path, program, run))
    if run.use is not None and not run.use.operators:
        run.use = None


def _stored(path: Path, program: Program | None, run: Run) -> Use | None:
    """What `operators.json` says; of an older version, which counted no strengths, nothing."""
    stored = run_files.mapping(path)
    lacking = [name for name in ("operators", "used", "seen", "strength_used") if name not in stored]
    if lacking:
        run.missing.append(
            f"{path.name} says nothing of {' and '.join(lacking)}, so what the policy did is not told: it was written"
            " by another version of augkit."
        )
        return None
    if not stored["used"]:
        return None
    used, strength = np.asarray(stored["used"], np.float64), np.asarray(stored["strength_used"], np.float64)
    seen = np.asarray(stored["seen"], np.float64)
    strength = strength.reshape(used.shape[1:])
    if used.shape[1] != len(run.classes) or seen.shape != used.shape[:2]:
        raise ValueError(f"its numbers are not those of {len(run.classes)} classes")
    return _by_name(stored["operators"], used, seen, strength, _graded(program, strength))


def _graded(program: Program | None, strength: np.ndarray) -> np.ndarray:
    """Which of the policy's columns have a strength, also where it was always 0; what its document gives a value in its
    own unit has none. `strength` [classes, columns] decides where the document is not known."""
    if program is None or len(own_columns(program)) != strength.shape[1]:
        return np.asarray(strength.sum(0) > 0)
    drawn = set()
    for bound in program.bounds[1:]:
        drawn |= {bound.offset + i for i in range(bound.ops)}
        found = [step for at, inside in bound.strategy.lists.items() for step in steps_of(inside, at)]
        drawn |= {bound.single[at] for at, step in found if isinstance(step, OperatorStep) and step.value is None}
    columns = own_columns(program)
    return np.asarray([column in drawn and program.choices[column].operator.has_value for column in columns], bool)


def _by_name(names: list[str], used: np.ndarray, seen: np.ndarray, strength: np.ndarray, graded: np.ndarray) -> Use:
    """Columns of the same operator as one; those that are given a value apart from those that have a strength.

    `used` [epochs, classes, columns], `strength` the same or [classes, columns], `graded` [columns].
    """
    mixed = {name for name, has in zip(names, graded, strict=True) if has}
    names = [
        name if has or name not in mixed else f"{name} (by value)" for name, has in zip(names, graded, strict=True)
    ]
    operators = list(dict.fromkeys(names))
    where = np.zeros((len(names), len(operators)))
    where[np.arange(len(names)), [operators.index(name) for name in names]] = 1
    one, other = used @ where, strength @ where
    total = other.sum(0) if strength.ndim == 3 else other
    return Use(operators, one, seen, other if strength.ndim == 3 else None, total, graded @ where > 0)


def _stacked(history: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.stack([torch.as_tensor(epoch[name]).double().numpy() for epoch in history])


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
