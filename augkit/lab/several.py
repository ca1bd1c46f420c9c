"""Several runs side by side, for a report: a comparison's folder, or runs that were named one by one."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
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
from augkit.report import told
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
        places = [folder / RUNS / Path(one["folder"]).name for one in stored["runs"]] if stored else None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"this comparison cannot be read ({error}); the same augkit compare writes its results anew", file=folder
        ) from error
    # the folders of runs that failed are no part of results: where all failed there is none
    places = sorted((folder / RUNS).glob("*")) if places is None else places
    places = [place for place in places if (place / files.RECIPE).is_file()]
    if stored is None:
        found = several(places, registry, grid["control"], folder)
        there, wanted = sum(len(one.runs) for one in found.series), len(grid["policies"]) * len(grid["losses"])
        wanted *= len(grid["seeds"])
        found.warnings.insert(0, f"This comparison has not ended: {there} of {wanted} runs are told.")
        return found
    runs, warnings = _finished(places, registry)
    bare = Comparison(folder, "", {}, [], [], [], warnings)
    found = _side_by_side(runs, warnings, grid["control"], folder) if runs else bare
    gone = len(stored["runs"]) - len(places)
    if gone:
        found.warnings.append(f"{gone} of {len(stored['runs'])} run folders are gone: the charts are of the others.")
    found.title = f"{stored['recipe']}, compared"
    names = _names([(row["policy"], row["loss"], stored["recipe"]) for row in stored["rows"]])
    by_cell = {kind[:2]: name for kind, name in names.items()}
    for row in stored["rows"]:
        row["name"] = by_cell[row["policy"], row["loss"]]
    cells = [(one.runs[0].policy, one.runs[0].recipe["loss"]["name"]) for one in found.series]
    found.series = [
        replace(one, name=by_cell[cell]) if cell in by_cell and cells.count(cell) == 1 else one
        for one, cell in zip(found.series, cells, strict=True)
    ]
    found.results, found.lines, found.notes = stored, _table(stored), tables.notes(stored)
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
    runs, warnings = _finished(folders, registry)
    if not runs:
        raise DataError("no run here has ended; report one of them by itself", file=folder or folders[0].parent)
    return _side_by_side(runs, warnings, control, folder)


def _side_by_side(runs: Sequence[Run], warnings: list[str], control: str, folder: Path | None) -> Comparison:
    """Finished runs, at least one, by kind."""
    kinds = _by_kind(runs)
    if control not in {run.policy for run in runs}:
        control = runs[0].policy
    names = _names(list(kinds))
    controls, doubled = _controls(list(kinds), control)
    warnings += [
        f"{control} is here with several settings: differences are to {names[kind]}, the first of them."
        for kind in doubled
    ]
    if doubled and len(controls) == 1:
        control = names[doubled[0]]
    rows = [
        {"name": names[kind], **_row(kind, own, controls.get(kind[1:4]), kinds, control)} for kind, own in kinds.items()
    ]
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
    series = [Series(names[kind], sorted(own, key=lambda run: run.recipe["seed"])) for kind, own in kinds.items()]
    title = f"{len(runs)} runs of {', '.join(dict.fromkeys(run.recipe['name'] for run in runs))}"
    return Comparison(folder, title, results, _lines(results), notes, series, warnings)


def _by_kind(runs: Sequence[Run]) -> dict[Kind, list[Run]]:
    """Runs that differ in nothing but their seed together.

    Raises:
        DataError: one is there twice.
    """
    kinds: dict[Kind, list[Run]] = {}
    for run in runs:
        own = kinds.setdefault(_kind(run), [])
        if any(other.recipe["seed"] == run.recipe["seed"] for other in own):
            raise DataError("this run is there twice, once in another folder; name each run once", file=run.folder)
        own.append(run)
    return kinds


def _finished(folders: Sequence[Path], registry: Registry) -> tuple[list[Run], list[str]]:
    """The runs that have ended, and why others are left out."""
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
    return runs, warnings


def _kind(run: Run) -> Kind:
    """What runs with other seeds have in common: policy, loss, recipe, and the hashes without policy and with it."""
    recipe = read_recipe(run.folder / files.RECIPE)
    plain = recipe.model_copy(update={"seed": 0})
    base = plain.model_copy(update={"policy": type(recipe.policy)()})
    return run.policy, run.recipe["loss"]["name"], run.recipe["name"], base.hash, plain.hash


def _names(kinds: Sequence[Kind]) -> dict[Kind, str]:
    """As few words for each as tell it from the others: policy, loss, recipe, and last a part of its hash."""
    losses, recipes = (len({kind[place] for kind in kinds}) > 1 for place in (1, 2))
    names: dict[Kind, str] = {}
    for with_loss, in_recipe in ((False, False), (losses, False), (False, recipes), (losses, recipes)):
        names = {
            kind: kind[0] + f" with {kind[1]}" * with_loss + f" in {kind[2]}" * in_recipe  # each counts 0 or 1
            for kind in kinds
        }
        if len(set(names.values())) == len(kinds):
            return names
    many = Counter(names.values())
    return {kind: name if many[name] == 1 else f"{name} ({kind[4][:6]})" for kind, name in names.items()}


def _controls(kinds: Sequence[Kind], control: str) -> tuple[dict[Kind, Kind], list[Kind]]:
    """The first kind of the control by what must agree with it, and those of them that had a choice."""
    first: dict[Kind, Kind] = {}
    doubled = []
    for kind in kinds:
        if kind[0] == control and first.setdefault(kind[1:4], kind) != kind and first[kind[1:4]] not in doubled:
            doubled.append(first[kind[1:4]])
    return first, doubled


def _row(
    kind: Kind, runs: Sequence[Run], other: Kind | None, kinds: Mapping[Kind, Sequence[Run]], control: str
) -> dict[str, Any]:
    """One kind as a row of results; `other` is the kind that it is compared with, `control` its name."""
    tests = {run.recipe["seed"]: _test(run) for run in runs}
    against = {run.recipe["seed"]: _test(run) for run in kinds[other]} if other and other != kind else {}
    row: dict[str, Any] = {"policy": kind[0], "loss": kind[1], "seeds": sorted(tests)}
    for column in (*COLUMNS, *BY_GROUP):
        values = [value for test in tests.values() if (value := test.get(column)) is not None]
        if values or column in COLUMNS:
            row[column] = asdict(paired.mean(values)) if values else None
    row["difference"] = None
    both = sorted(tests.keys() & against.keys())
    if both:
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


def _table(results: Mapping[str, Any]) -> list[dict[str, str]]:
    lines = tables.rows(results)
    for row, line in zip(results["rows"], lines, strict=True):
        if row["difference"] and told.said(row["difference"], results["confidence"]) == told.ALONE:
            line["which means"] += ", not after Holm's correction"
    return lines


def _lines(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table, without columns that say nothing in any row."""
    lines = _table(results)
    if len({(row["policy"], row["loss"]) for row in results["rows"]}) < len(lines):
        lines = [{"row": row["name"]} | line for row, line in zip(results["rows"], lines, strict=True)]
    kept = [name for name in lines[0] if any(line[name] for line in lines)]
    return [{name: line[name] for name in kept} for line in lines]
