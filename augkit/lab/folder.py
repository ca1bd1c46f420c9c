"""A run folder: what is written, how it is written so that a kill at any moment loses nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from augkit.errors import DataError, StateError

RECIPE, CHECKPOINT, METRICS = "recipe.yaml", "checkpoint.pt", "metrics.jsonl"
ENVIRONMENT, SUMMARY, PER_CLASS, OPERATORS = "environment.json", "summary.json", "per_class.csv", "operators.json"
PER_GROUP = "per_group.csv"
_HALF, _LOCK = ".part", ".lock"
_PATIENCE = 10.0  # seconds: what was started by a process that was just killed needs a moment to end


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    half = path.with_name(path.name + _HALF)
    try:
        with half.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except BaseException:
        with suppress(OSError):
            half.unlink()
        raise


def write_out(path: Path, content: str | bytes) -> None:
    """Write what `--out` names, and the folders above it.

    Raises:
        DataError: it cannot be written; what was there before stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"it cannot be written ({reason}); choose another place with --out", file=path) from error


def write_json(path: Path, content: Any) -> None:
    """JSON with a line an entry."""
    write(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """YAML in the given order."""
    write(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    write(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


def write_table(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> None:
    """A CSV file; None is an empty cell."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows([("" if cell is None else cell) for cell in row] for row in rows)
    write(path, text.getvalue())


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write(folder / CHECKPOINT, buffer.getvalue())


def load_checkpoint(folder: Path, *needed: str) -> dict[str, Any] | None:
    """The last checkpoint, on the CPU; None if there is none yet. `needed` are the parts that the caller reads.

    Raises:
        StateError: the file is not a checkpoint, or lacks one of these parts.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:  # nothing is wrong with the file
        raise
    except Exception as error:  # torch raises whatever the damaged bytes make it stumble over
        raise StateError(
            f"not a readable checkpoint ({type(error).__name__}); remove it to train anew", file=path
        ) from error
    if not isinstance(state, dict) or not state.keys() >= set(needed):
        raise StateError("this is not a checkpoint of augkit train; remove it, or name another folder", file=path)
    return state


def check(folder: Path, *, resume: bool) -> None:
    """Make sure that a run may write here; nothing is written yet.

    Raises:
        DataError: there is something here already, and it is not to be resumed or is no run.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError("the run folder's place is taken by a file; choose another with --out", file=folder)
    there = contents(folder)
    if there and not resume:
        raise DataError("the run folder is not empty; go on with --resume or choose another with --out", file=folder)
    if there and not (folder / RECIPE).exists():
        raise DataError("this is no run folder (no recipe.yaml in it); choose another with --out", file=folder)
    there_already = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there_already.is_dir() or not os.access(there_already, os.W_OK):
        raise DataError("the run folder cannot be made or written here; choose another with --out", file=folder)


def contents(folder: Path) -> list[Path]:
    """What is in a folder, besides a lock and what a kill left half written; nothing if there is no folder."""
    return [p for p in folder.iterdir() if not p.name.endswith((_HALF, _LOCK))] if folder.exists() else []


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Make the folder, keep other processes out of it, and remove what a kill has left half written in it.

    The lock ends with the process, however it ends.

    Raises:
        DataError: it cannot be made.
        StateError: another process is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the run folder cannot be made ({error.strerror}); choose another", file=folder) from error
    with (folder / _LOCK).open("a") as lock:
        _wait_for(lock.fileno(), folder)
        for half in folder.glob(f"*{_HALF}"):
            half.unlink()
        yield


def _wait_for(lock: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such locks: there the user must keep processes apart
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise StateError(
                    "another process is at work in this folder; wait for it to end, or end it",
                    file=folder,
                ) from None
        time.sleep(0.05)
