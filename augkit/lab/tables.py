"""The results of a comparison as a table for people: in a terminal, in Markdown, and for a spreadsheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkit.lab import folder as files
from augkit.lab.metrics import GROUPS
from augkit.report.told import holds, sign

Results = Mapping[str, Any]
COLUMNS = ("all", *GROUPS)
BY_GROUP = {"worst_cell": "worst class in a group", "worst_group": "worst group"}
"""Columns of data whose groups are known, see `augkit.lab.fairness`."""
TABLE, SHEET = "table.md", "table.csv"
INTENSITY = {"operators": "operators an image", "strength": "mean strength", "changed": "changed pixels"}


def rows(results: Results) -> list[dict[str, str]]:
    """A line for each policy and loss; every cell is text."""
    grouped = by_group(results)
    return [_line(row, results["control"], grouped) for row in results["rows"]]


def by_group(results: Results) -> list[str]:
    """The columns of `BY_GROUP` that any row has."""
    return [column for column in BY_GROUP if any(row.get(column) for row in results["rows"])]


def _line(row: Mapping[str, Any], control: str, grouped: Sequence[str]) -> dict[str, str]:
    line = {"policy": row["policy"], "loss": row["loss"]}
    for column in COLUMNS:
        found = row[column]
        line[column] = ("absent" if row["seeds"] else "failed") if found is None else _mean(found)
    for column in grouped:
        line[BY_GROUP[column]] = _mean(row[column]) if row.get(column) else "failed"
    found = row["difference"]
    line[f"against {control}"] = "" if found is None else f"{found['mean']:+.1f}{_interval(found)}"
    line["which means"] = "" if found is None else found["verdict"]
    line["minutes"] = "" if row["minutes"] is None else f"{row['minutes']:.1f}"
    groups = [row["intensity"][group] for group in GROUPS]
    for name, title in INTENSITY.items():
        line[title] = "" if not any(groups) else "/".join(_amount(name, group) for group in groups)
    return line


def _mean(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:.1f}" + ("" if found["error"] is None else f" ±{found['error']:.1f}")


def _interval(found: Mapping[str, Any]) -> str:
    return "" if found["low"] is None else f" [{found['low']:+.1f}, {found['high']:+.1f}]"


def _amount(name: str, group: Mapping[str, float | None] | None) -> str:
    amount = None if group is None else group[name]
    if amount is None:
        return "-"
    return f"{100 * amount:.0f} %" if name == "changed" else f"{amount:.2f}"


def notes(results: Results) -> list[str]:
    """What must be known to read the table, a sentence or two each."""
    seeds = f"seed{'s' * (len(results['seeds']) > 1)} {', '.join(map(str, results['seeds']))}"
    said = [
        f"Test accuracy in %, {results['measured']}. Mean ± standard error over {seeds}."
        f" Differences are paired: the same loss and the same seed with {results['control']}.",
    ]
    if results["fast"]:
        said.append(f"Shortened by --fast to {results['fast']}: not the numbers of the whole recipe.")
    count = results["differences_looked_at"]
    if count:
        found = [row["difference"] for row in results["rows"] if row["difference"]]
        told = sum(sign(entry["low"], entry["high"]) != 0 for entry in found)
        left = sum(holds(entry, results["confidence"]) for entry in found)
        said.append(
            f"Differences looked at: {count}, with 95 % confidence intervals (Student's t). Intervals that leave out"
            f" zero: {told}; after Holm's correction for looking at {count}: {left}."
        )
    elif len(results["seeds"]) < 3:
        said.append("Fewer than 3 seeds: no confidence intervals, and no difference can be told from chance.")
    said.append(
        "Operators an image, their mean strength (0 to 1) and the share of changed pixels are those of many/medium/few"
        " classes, the base not counted; - stands for a group that is absent or operators without strengths."
    )
    return said + [f"Failed: {name}: {reason}" for name, reason in results["failed"].items()]


def markdown(results: Results) -> str:
    """The table and its notes as a page."""
    lines = rows(results)
    cells = [list(lines[0]), ["---"] * 2 + ["---:"] * (len(lines[0]) - 2), *(list(line.values()) for line in lines)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in cells)
    said = [*notes(results), f"`{results['command']}`", *_origin(results)]
    return "\n\n".join([f"# {results['recipe']}, compared", table, *said]) + "\n"


def _origin(results: Results) -> list[str]:
    """Versions and data, if any run was finished."""
    packages = results.get("packages", {})
    if isinstance(packages, list):
        return ["The runs were made with different versions of packages; results.json has them all."]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    data = f"Training images: SHA-256 of their indices {results.get('subset_sha256')}."
    return [f"{versions}. {data}"] if versions else []


def write_tables(results: Results, out: Path) -> None:
    """Write `table.md` and `table.csv`; in the latter every number has a column of its own."""
    files.write(out / TABLE, markdown(results))
    grouped = by_group(results)
    lines = [_numbers(row, grouped) for row in results["rows"]]
    files.write_table(out / SHEET, tuple(lines[0]), (line.values() for line in lines))


def _numbers(row: Mapping[str, Any], grouped: Sequence[str]) -> dict[str, Any]:
    line = {"policy": row["policy"], "loss": row["loss"], "seeds": len(row["seeds"])}
    for column in (*COLUMNS, *grouped):
        line |= {f"{column}_{part}": (row.get(column) or {}).get(part) for part in ("mean", "error")}
    difference = row["difference"] or {}
    line |= {f"difference_{part}": difference.get(part) for part in ("mean", "error", "low", "high", "p", "p_holm")}
    line |= {"verdict": difference.get("verdict"), "minutes": row["minutes"]}
    for column in COLUMNS:
        found = row["intensity"][column] or {}
        line |= {f"{name}_{column}": found.get(name) for name in INTENSITY}
    return line
