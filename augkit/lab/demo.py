"""The demonstration: long-tailed digits, no policy against two, three seeds each, on two cores in minutes."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from augkit.lab import folder as files
from augkit.lab import paired
from augkit.lab.run import train

POLICIES = ("none", "trivialaugment", "uniform_class_choice")
SEEDS = (0, 1, 2)
COLUMNS = ("all", "many", "medium", "few")


class Row(NamedTuple):
    """One policy over all seeds; percentages, None for a group that is not there."""

    policy: str
    scores: dict[str, list[float] | None]
    gain: list[float]
    """Accuracy over all images minus that of `none` with the same seed."""


def main(out: Path, seeds: Sequence[int] = SEEDS, overrides: Sequence[str] = ()) -> Path:
    """Train what is not yet trained, print the table, write `demo.json` and pictures; returns `out`.

    A run that is there and finished is kept if its recipe is the same, one that was stopped goes on.

    Raises:
        StateError: a run in `out` was made by another recipe.
    """
    begin = time.perf_counter()
    summaries = {(policy, seed): _run(out, policy, seed, overrides) for policy in POLICIES for seed in seeds}
    rows = [_row(policy, seeds, summaries) for policy in POLICIES]
    images = json.loads((out / f"none-seed{seeds[0]}" / files.ENVIRONMENT).read_text(encoding="utf-8"))["images"]
    verdict = sentence(rows, images["test"])
    files.write_json(out / "demo.json", {"rows": [row._asdict() for row in rows], "verdict": verdict})
    console = Console()
    if not console.is_terminal:
        console.width = 100  # a pipe has no width of its own
    console.print(table(rows, len(seeds), console.is_terminal))
    console.print(verdict, highlight=False)
    took = time.perf_counter() - begin
    console.print(f"{took:.0f} s. Recipes, tables and pictures of every run: {out}", highlight=False, soft_wrap=True)
    console.print(f"A page about them: augkit report {shlex.quote(str(out))}", highlight=False, soft_wrap=True)
    return out


def _run(out: Path, policy: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    settings = [*overrides, f"policy={policy}", f"seed={seed}"]
    place = out / f"{policy}-seed{seed}"
    folder = train("demo", settings, place, resume=(place / files.RECIPE).exists())
    summary: dict[str, Any] = json.loads((folder / files.SUMMARY).read_text(encoding="utf-8"))
    return summary


def _row(policy: str, seeds: Sequence[int], summaries: dict[tuple[str, int], dict[str, Any]]) -> Row:
    tests = [summaries[policy, seed]["test"] for seed in seeds]
    scores = {
        column: [100 * test[column] for test in tests] if tests[0][column] is not None else None for column in COLUMNS
    }
    gain = [100 * (summaries[policy, seed]["test"]["all"] - summaries["none", seed]["test"]["all"]) for seed in seeds]
    return Row(policy, scores, gain)


def table(rows: Sequence[Row], seeds: int, terminal: bool) -> Table:
    """Mean and standard error over seeds of each group, and the paired difference to no policy."""
    result = Table(title="Long-tailed digits at imbalance 50", title_justify="left", pad_edge=False)
    result.caption = f"test accuracy in %, last epoch, mean ± standard error over {seeds} seeds"
    result.caption_justify = "left"
    if not terminal:
        result.box = None
    result.add_column("policy", overflow="fold")
    for column in (*COLUMNS, "against none"):
        result.add_column(column, justify="right", overflow="fold")
    for row in rows:
        cells = [_cell(values, "") if values else "absent" for values in row.scores.values()]
        result.add_row(row.policy, *cells, _cell(row.gain, "+") if row.policy != "none" else "")
    return result


def _cell(values: Sequence[float], sign: str) -> str:
    found = paired.mean(values)
    return f"{found.mean:{sign}.1f}" + ("" if found.error is None else f" ±{found.error:4.1f}")


def sentence(rows: Sequence[Row], test_images: int) -> str:
    """What the table allows to be said, and no more."""
    others = [row for row in rows if row.policy != "none"]
    told = [f"{row.policy} is {difference(row)} none with every seed" for row in others if difference(row)]
    alike = " and ".join(row.policy for row in others if not difference(row))
    told += [f"{alike} cannot be told from none"] if alike else []
    return (
        f"On these {test_images} test digits {', '.join(told)}; a few hundred small training images and"
        f" {len(rows[0].gain)} seeds show that the loop works, not which policy is better elsewhere."
    )


def difference(row: Row) -> str:
    """'1.5 points above', or nothing: the 95 % confidence interval over the seeds must leave out zero."""
    found = paired.difference(row.gain, [0.0] * len(row.gain))
    return f"{abs(found.mean):.1f} points {'above' if found.sign > 0 else 'below'}" if found.sign else ""
