"""Several runs side by side, for a report: a comparison's folder, or runs that were named one by one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from augkit.errors import AugkitError, DataError
from augkit.lab import folder as files
from augkit.lab import paired, tables
from augkit.lab.compare import COLUMNS, MEASURED, RESULTS
from augkit.lab.grid import GRID, RUNS
from augkit.lab.recipe import read_recipe
from augkit.lab.run_facts import read_run
from augkit.lab.tables import BY_GROUP
from augkit.registry import Registry
from augkit.report.facts import Comparison, Run, Series

Kind = tuple[str, ...]


def read_comparison(folder: Path, registry: Registry) -> Comparison:
    """What the folder of `augkit compare` holds, finished or not.

    Raises:
        DataError: no run has ended, or a file is damaged.
    """
    try:
        grid = json.loads((folder / GRID).read_text(encoding="utf-8"))
        path = folder / RESULTS
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        places = [folder / RUNS / Path(one["folder"]).name for one in stored["runs"]] if stored else []
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"this comparison cannot be read ({error}); the same augkit compare writes its results anew", file=folder
        ) from error
    places = [place for place in places or sorted((folder / RUNS).glob("*")) if (place / files.RECIPE).is_file()]
    if stored is None:
        found = several(places, registry, grid["control"], folder)
        there, wanted = sum(len(one.runs) for one in found.series), len(grid["policies"]) * len(grid["losses"])
        wanted *= len(grid["seeds"])
        found.warnings.insert(0, f"This comparison has not ended: {there} of {wanted} runs are told.")
        return found
    found = several(places, registry, grid["control"], folder) if places else Comparison(folder, "", {}, [], [], [])
    gone = len(stored["runs"]) - len(places)
    if gone:
        found.warnings.append(f"{gone} of {len(stored['runs'])} run folders are gone: the charts are of the others.")
    found.title = f"{stored['recipe']}, compared"
    found.results, found.lines, found.notes = stored, tables.rows(stored), tables.notes(stored)
    found.command = stored["command"]
    return found


def several(
    folders: Sequence[Path], registry: Registry, control: str = "none", folder: Path | None = None
) -> Comparison:
    """Runs by kind, seeds together, with paired differences to a control where the same seeds were trained with it.

    Args:
        folders: of runs. Those that have not ended are named in `warnings`.
        registry: of policies.
        control: the policy that others are compared with; without a run of it that of the first folder.
        folder: of the comparison that they belong to.

    Raises:
        DataError: none of them has ended, one is there twice, or a file is damaged.
    """
    runs, warnings = _finished(folders, registry, folder)
    kinds: dict[Kind, list[Run]] = {}
    for run in runs:
        own = kinds.setdefault(_kind(run), [])
        if any(other.recipe["seed"] == run.recipe["seed"] for other in own):
            raise DataError("this run is there twice, once in another folder; name each run once", file=run.folder)
        own.append(run)
    if control not in {run.policy for run in runs}:
        control = runs[0].policy
    rows = [_row(kind, own, kinds, control) for kind, own in kinds.items()]
    known = [row["difference"] for row in rows if row["difference"] and row["difference"]["p"] is not None]
    for entry, p in zip(known, paired.holm([entry["p"] for entry in known]), strict=True):
        entry["p_holm"] = p
    results: dict[str, Any] = {
        "recipe": runs[0].recipe["name"],
        "fast": None,
        "control": control,
        "seeds": sorted({run.recipe["seed"] for run in runs}),
        "measured": MEASURED,
        "confidence": paired.LEVEL,
        "differences_looked_at": len(known),
        "rows": rows,
        "failed": {},
        "runs": [_listed(run) for run in runs],
    }
    notes = tables.notes(results)
    if not any(any(row["intensity"].values()) for row in rows):
        notes = [note for note in notes if not note.startswith("Operators an image")]
    if not any(row["difference"] for row in rows):
        notes[0] = notes[0].partition(" Differences are paired")[0]
    names = _names(list(kinds))
    series = [Series(names[kind], sorted(own, key=lambda run: run.recipe["seed"])) for kind, own in kinds.items()]
    title = f"{len(runs)} runs of {', '.join(dict.fromkeys(run.recipe['name'] for run in runs))}"
    return Comparison(folder, title, results, _lines(results), notes, series, warnings)


def _finished(folders: Sequence[Path], registry: Registry, of: Path | None) -> tuple[list[Run], list[str]]:
    runs, warnings = [], []
    for folder in folders:
        try:
            run = read_run(folder, registry)
        except AugkitError as error:
            if len(folders) == 1 or (folder / files.SUMMARY).exists():
                raise
            warnings.append(f"{folder}: {getattr(error, 'message', error)}")
            continue
        if run.finished and run.recipe["test"]:
            runs.append(run)
        else:
            why = "it leaves its test set alone" if run.finished else f"{len(run.records)} of {run.epochs} epochs"
            warnings.append(f"{folder} is left out: {why}.")
    if not runs:
        raise DataError("no run here has ended; report one of them by itself", file=of or folders[0].parent)
    return runs, warnings


def _kind(run: Run) -> Kind:
    """What runs with other seeds have in common: policy, loss, recipe, and the hashes without policy and with it."""
    recipe = read_recipe(run.folder / files.RECIPE)
    plain = recipe.model_copy(update={"seed": 0})
    base = plain.model_copy(update={"policy": type(recipe.policy)()})
    return run.policy, run.recipe["loss"]["name"], run.recipe["name"], base.hash, plain.hash


def _names(kinds: Sequence[Kind]) -> dict[Kind, str]:
    """As few words for each as tell it from the others."""
    for words in (1, 2, 3):
        names = {kind: ", ".join(kind[:words]) for kind in kinds}
        if len(set(names.values())) == len(kinds):
            return names
    return {kind: f"{', '.join(kind[:3])} {kind[4][:6]}" for kind in kinds}


def _row(kind: Kind, runs: Sequence[Run], kinds: Mapping[Kind, Sequence[Run]], control: str) -> dict[str, Any]:
    """One kind as a row of results."""
    tests = {run.recipe["seed"]: _test(run) for run in runs}
    others = [own for other, own in kinds.items() if other[0] == control and other[1:4] == kind[1:4] and other != kind]
    against = {run.recipe["seed"]: _test(run) for run in others[0]} if others else {}
    row: dict[str, Any] = {"policy": kind[0], "loss": kind[1], "seeds": sorted(tests)}
    for column in (*COLUMNS, *BY_GROUP):
        values = [value for test in tests.values() if (value := test.get(column)) is not None]
        if values or column in COLUMNS:
            row[column] = asdict(paired.mean(values)) if values else None
    row["difference"] = None
    both = sorted(tests.keys() & against.keys())
    if kind[0] != control and both:
        found = paired.difference(*([of[seed]["all"] or 0.0 for seed in both] for of in (tests, against)))
        row["difference"] = {**asdict(found), "verdict": found.words(control)}
    row["minutes"] = statistics.fmean(_minutes(run) for run in runs)
    row["intensity"] = {column: _intensity(runs, column) for column in COLUMNS}
    return row


def _test(run: Run) -> dict[str, float | None]:
    assert run.summary is not None
    test = {name: None if value is None else 100 * value for name, value in run.summary["test"].items()}
    groups = run.summary.get("groups")
    return test | ({name: 100 * groups[name] for name in BY_GROUP} if groups else {})


def _minutes(run: Run) -> float:
    return float(sum(record["seconds"] for record in run.records) / 60)


def _intensity(runs: Sequence[Run], column: str) -> dict[str, float | None] | None:
    """The mean over seeds of what `intensity.json` says; None unless every run has it and the band."""
    found = [(run.intensity or {}).get(column) for run in runs]
    if any(one is None for one in found):
        return None
    by_name = {name: [one[name] for one in found if one and one[name] is not None] for name in tables.INTENSITY}
    return {name: statistics.fmean(values) if values else None for name, values in by_name.items()}


def _listed(run: Run) -> dict[str, Any]:
    own = {"policy": run.policy, "loss": run.recipe["loss"]["name"], "seed": run.recipe["seed"]}
    return own | {"folder": str(run.folder), "test": _test(run), "minutes": _minutes(run)}


def _lines(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table, without columns that say nothing in any row."""
    lines = tables.rows(results)
    kept = [name for name in lines[0] if any(line[name] for line in lines)]
    return [{name: line[name] for name in kept} for line in lines]
