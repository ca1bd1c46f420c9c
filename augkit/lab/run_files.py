"""The files of a run folder as a report reads them: every part that a page needs is there, or one sentence says not."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from augkit.errors import DataError, StateError
from augkit.lab import folder as files
from augkit.lab.metrics import GROUPS, group_of

T = TypeVar("T")
SCORES = ("all", *GROUPS)
FAIR = ("worst_cell", "worst_cell_is", "mean_cell", "worst_group", "worst_group_is", "mean_group")
DIFFERENCES = tuple(f"{name}_{of}" for name in ("dp", "eo", "ed") for of in ("max", "mean"))
CELLS = ("name", "group_name", "train_images", "images", "accuracy", "selection_rate", "false_positive_rate")
NO_CHECKPOINT = "There is no checkpoint in this folder, so what the policy learned is not told by epoch."


def read(path: Path, parse: Callable[[Path], T]) -> T:
    """What `parse` makes of a file.

    Raises:
        DataError: a ValueError, KeyError or TypeError of `parse`, told with the file.
    """
    try:
        return parse(path)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        reason = f"it says nothing of {reason}" if isinstance(error, KeyError) else reason
        raise DataError(
            f"this file cannot be read ({reason}); it is damaged, or of another version of augkit", file=path
        ) from error


def optional(path: Path, parse: Callable[[Path], T]) -> T | None:
    """`read` of a file that may not be there."""
    return read(path, parse) if path.exists() else None


def mapping(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise TypeError("it holds no object")
    return found


def records(path: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl`: a record for each epoch."""
    found: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for record in found:
        _all_in(record, ("epoch", "loss", "train_accuracy"))
        _ = int(record["epoch"]), float(record["loss"]), float(record["train_accuracy"])
        if "val" in record:
            _all_in(record["val"], ("all",), "val.")
    return found


def summary(path: Path, measured: str) -> dict[str, Any]:
    """`summary.json`, with the figures of the images that measure the run, "test" or "val"."""
    found = mapping(path)
    _all_in(found, (measured, "reported"))
    _all_in(found[measured], SCORES, f"{measured}.")
    if found.get("groups"):
        _all_in(found["groups"], (*FAIR, *DIFFERENCES), "groups.")
    for stage in found.get("stages", ()):
        _all_in(stage, ("stage", "epochs", "images", "test"), "stages.")
        if stage["test"] is not None:
            _all_in(stage["test"], SCORES, "stages.test.")
    return found


def intensity(path: Path) -> dict[str, Any]:
    """`intensity.json`."""
    found = mapping(path)
    for band in filter(None, found.values()):
        _all_in(band, ("operators", "strength", "changed"))
    return found


def cells(path: Path) -> list[dict[str, str]]:
    """`per_group.csv`."""
    rows = _table(path)
    for row in rows:
        _all_in(row, CELLS)
    return rows


def classes(path: Path) -> list[dict[str, Any]]:
    """`per_class.csv`."""
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


def counted_classes(environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Classes of a run without `per_class.csv`, from the counts that it noted as it began; names come with the end."""
    counts = [int(count) for count in environment.get("class_counts", [])]
    groups = group_of(torch.tensor(counts, dtype=torch.int64))
    unknown = {"images": None, "accuracy": None, "made": 0}
    return [{"name": f"class {k}", "count": n, "group": groups[k], **unknown} for k, n in enumerate(counts)]


def learned(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """What the checkpoint holds of the policy: a record for each epoch, its numbers by path and name, and why there is
    neither, as a sentence ("" if there is)."""
    try:
        checkpoint = files.load_checkpoint(folder, "policy")
        if checkpoint is None:
            return [], {}, NO_CHECKPOINT
        history, values = checkpoint["policy"]["history"], checkpoint["policy"]["memory"]["values"]
        for epoch in history:
            _all_in(epoch, ("correct", "seen", "used", "strength_used"))
    except (StateError, OSError):
        why = "cannot be read"
    except (KeyError, TypeError):
        why = "is of another version of augkit"
    else:
        return history, values, ""
    return [], {}, NO_CHECKPOINT.replace("There is no checkpoint in this folder", f"The checkpoint of this run {why}")


def _all_in(found: Any, names: Iterable[str], within: str = "") -> None:
    if not isinstance(found, Mapping):
        raise TypeError(f"{within.rstrip('.') or 'it'} holds no object")
    for name in names:
        if name not in found:
            raise KeyError(within + name)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
