"""Comparing policies: a grid of runs, and what may be said of it. `augkit compare` is this."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from augkit.errors import StateError
from augkit.lab import folder as files
from augkit.lab import jobs as spread
from augkit.lab import paired
from augkit.lab.grid import DONE, LOGS, RUNS, Cell, Grid, check_folder, settle, settled, tasks, try_out
from augkit.lab.intensity import INTENSITY
from augkit.lab.metrics import GROUPS
from augkit.lab.tables import BY_GROUP, write_tables
from augkit.plugins import registry as default_registry
from augkit.registry import Registry

COLUMNS = ("all", *GROUPS)
RESULTS, PICTURE = "results.json", "differences.png"
MEASURED = "last epoch; the test set is read once, after it, and nothing is chosen by it"


def compare(
    grid: Grid,
    out: Path,
    *,
    jobs: int = 1,
    on: str = "local",
    retry: bool = False,
    say: Callable[[str], None] | None = None,
    registry: Registry | None = None,
) -> dict[str, Any]:
    """Train what is missing of a grid, write tables and a picture into its folder; what `results.json` holds.

    Args:
        grid: of `augkit.lab.grid.plan`.
        out: the folder. One that holds this grid, or a smaller one of the same recipe and data, is gone on with;
            finished runs are not repeated.
        jobs: how many runs at once.
        on: `local` or `ray`, see `augkit.lab.jobs.map`.
        retry: repeat runs that failed.
        say: called with a line about the plan and one about each run; by default they go to stderr.

    Raises:
        AugkitError: the folder holds something else, another process is at work in it, or nothing can be trained.
    """
    registry, say = registry or default_registry(), say or _to_stderr
    todo = list(tasks(grid, out, registry))
    spread.check(todo, on, jobs)
    check_folder(out)
    if not settled(grid, out):
        try_out(grid, out, registry)
    with files.claim(out):
        settle(grid, out)
        progress = _Progress(grid, spread.recorded(todo, out / DONE), retry, say)
        done = spread.map(todo, on, jobs, record=out / DONE, logs=out / LOGS, retry=retry, done=progress.done)
        results = _results(grid, out, dict(zip(grid.cells, done, strict=True)))
        _write(results, out)
    return results


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Progress:
    """Says what is planned, and after each run how long the rest may take."""

    def __init__(self, grid: Grid, there: Sequence[spread.Result], retry: bool, say: Callable[[str], None]) -> None:
        self.say, self.total, self.begin = say, len(grid.cells), time.monotonic()
        failed = sum(result.failed for result in there)
        self.before = self.count = len(there) - (failed if retry else 0)
        counts = (grid.policies, "policy", "policies"), (grid.losses, "loss", "losses"), (grid.seeds, "seed", "seeds")
        shape = " x ".join(f"{len(things)} {one if len(things) == 1 else more}" for things, one, more in counts)
        short = f" (--fast: {grid.shortened})" if grid.fast else f", {grid.epochs} epochs each"
        again = f", {failed} failed" + (", which are repeated" if retry else "; --retry repeats them") if failed else ""
        say(f"{self.total} runs of {grid.base['name']}: {shape}{short}; {len(there) - failed} are finished{again}")

    def done(self, result: spread.Result) -> None:
        """A run is finished."""
        self.count += 1
        what = f"failed: {result.reason}" if result.failed else f"test {100 * result.value['test']['all']:.1f} %"
        left = self.total - self.count
        minutes = (time.monotonic() - self.begin) / (self.count - self.before) * left / 60
        rest = f"; {left} left, about {max(1, round(minutes))} min" if left > 0 else ""
        self.say(f"{self.count}/{self.total}  {result.name}  {what}, {result.seconds / 60:.1f} min{rest}")


def _results(grid: Grid, out: Path, done: Mapping[Cell, spread.Result]) -> dict[str, Any]:
    """Everything that tables and picture show."""
    runs = {cell: _facts(out / RUNS / cell.name) for cell, result in done.items() if not result.failed}
    failed = {cell.name: result.reason for cell, result in done.items() if result.failed}
    rows = [_row(grid, policy, loss, runs) for loss in grid.losses for policy in grid.policies]
    looked_at = [row["difference"] for row in rows if row["difference"] and row["difference"]["p"] is not None]
    for entry, p in zip(looked_at, paired.holm([entry["p"] for entry in looked_at]), strict=True):
        entry["p_holm"] = p
    return {
        "recipe": grid.base["name"],
        "fast": grid.shortened or None,
        "epochs": grid.epochs,
        "control": grid.control,
        "seeds": grid.seeds,
        "measured": MEASURED,
        "unit": "percent and percentage points",
        "confidence": paired.LEVEL,
        "differences_looked_at": len(looked_at),
        "rows": rows,
        "failed": failed,
        "command": grid.command(out),
        "policies": grid.documents,
        **_origin(out, runs),
        "runs": [{**cell._asdict(), **facts["run"]} for cell, facts in runs.items()],
    }


def _facts(folder: Path) -> dict[str, Any]:
    """What a finished run's folder says."""
    summary, environment, intensity = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in (files.SUMMARY, files.ENVIRONMENT, INTENSITY)
    )
    lines = (folder / files.METRICS).read_text(encoding="utf-8").splitlines()
    minutes = sum(json.loads(line)["seconds"] for line in lines) / 60
    test = {name: None if value is None else 100 * value for name, value in summary["test"].items()}
    by_group = summary.get("groups")  # where the test images' groups are known
    if by_group is not None:
        test |= {name: 100 * by_group[name] for name in BY_GROUP}
    run = {
        "folder": f"{RUNS}/{folder.name}",
        "test": test,
        "minutes": minutes,
        "recipe_sha256": summary["recipe_sha256"],
    }
    return {"test": test, "minutes": minutes, "intensity": intensity, "environment": environment, "run": run}


def _row(grid: Grid, policy: str, loss: str, runs: Mapping[Cell, dict[str, Any]]) -> dict[str, Any]:
    """One policy with one loss, over the seeds that are finished."""
    own = {seed: runs[cell] for seed in grid.seeds if (cell := Cell(policy, loss, seed)) in runs}
    control = {seed: runs[cell] for seed in own if (cell := Cell(grid.control, loss, seed)) in runs}
    row: dict[str, Any] = {"policy": policy, "loss": loss, "seeds": list(own)}
    for column in (*COLUMNS, *BY_GROUP):
        values = [facts["test"][column] for facts in own.values() if facts["test"].get(column) is not None]
        if values or column in COLUMNS:
            row[column] = asdict(paired.mean(values)) if values else None
    row["difference"] = None
    if policy != grid.control and control:
        pairs = [(own[seed]["test"]["all"], facts["test"]["all"]) for seed, facts in control.items()]
        found = paired.difference([mine for mine, _ in pairs], [other for _, other in pairs])
        row["difference"] = {**asdict(found), "verdict": found.words(grid.control)}
    row["minutes"] = statistics.fmean(facts["minutes"] for facts in own.values()) if own else None
    row["intensity"] = {
        column: _intensity([facts["intensity"][column] for facts in own.values()]) for column in COLUMNS
    }
    return row


def _intensity(of_seeds: Sequence[Mapping[str, float] | None]) -> dict[str, float | None] | None:
    """The mean over seeds; None for a group that is not there."""
    found = [one for one in of_seeds if one is not None]
    if not found:
        return None
    by_name = {name: [one[name] for one in found if one[name] is not None] for name in found[0]}
    return {name: statistics.fmean(values) if values else None for name, values in by_name.items()}


def _origin(out: Path, runs: Mapping[Cell, dict[str, Any]]) -> dict[str, Any]:
    """What the runs have in common besides their recipe: data and versions.

    Raises:
        StateError: some were trained on other data than others.
    """
    found = {cell: facts["environment"] for cell, facts in runs.items()}
    result: dict[str, Any] = {}
    for name in ("subset_sha256", "labels_sha256", "class_counts", "images", "device", "packages", "python"):
        values = {cell: json.dumps(environment[name]) for cell, environment in found.items()}
        different = sorted(set(values.values()))
        if len(different) > 1 and name in ("subset_sha256", "labels_sha256"):
            first = min(cell.name for cell, value in values.items() if value == different[1])
            raise StateError(
                f"{first} was trained on other data than the rest ({name}); put the data back, remove its folder and"
                f" its record in {DONE}/, and call again",
                file=out,
            )
        if different:
            result[name] = json.loads(different[0]) if len(different) == 1 else [json.loads(one) for one in different]
    return result


def _write(results: Mapping[str, Any], out: Path) -> None:
    """Tables, picture, and last the results."""
    from augkit.report.comparison import draw_differences

    write_tables(results, out)
    if any(row["difference"] for row in results["rows"]):
        draw_differences(results, out / PICTURE)
    files.write_json(out / RESULTS, results)
