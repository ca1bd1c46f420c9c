"""A store's settings, its locks, and what becomes of a disk that is full."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from augkit.errors import DataError, StateError
from augkit.lab import folder as files

SETTINGS, PARTS, MODEL = "store.yaml", ".parts", "model"
NO_PLACE = "the store cannot be made or written here; choose another folder with --out"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def read_settings(folder: Path) -> dict[str, Any]:
    """What a store's images depend on.

    Raises:
        DataError: the folder is no store, or its settings cannot be read.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise DataError(
            f"this is no store of synthetic images (no {SETTINGS} in it); augkit synth make begins one", file=folder
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        texts = [*settings["data"]["class_names"], *settings["data"]["group_names"], settings["source"]]
        if not (type(settings["seed"]) is int and isinstance(settings["groups"], bool)):
            raise TypeError
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError("not the settings of a store; put the file back or choose another folder", file=path) from error
    return dict(settings)


def check(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise if a store with these settings cannot be in this folder; nothing is written.

    Raises:
        DataError: something else lies there, or it cannot be written.
        StateError: the store there was begun with other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError("the store's place is taken by a file; choose another with --out", file=folder)
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise DataError(NO_PLACE, file=folder)
    if (folder / SETTINGS).exists():
        same(folder, read_settings(folder), settings)
    elif folder.exists() and any(path.name not in (PARTS, MODEL) for path in files.contents(folder)):
        raise DataError("the folder is not empty and no store; choose another with --out", file=folder)


def same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise if the store has other settings than those of `here`, `told` apart."""
    from augkit.lab.run import flat

    mine, theirs = (flat({key: one.get(key) for key in here if key != "told"}) for one in (here, there))
    differing = [name for name in dict.fromkeys((*mine, *theirs)) if mine.get(name) != theirs.get(name)]
    if not differing:
        return
    first, names = differing[0], ", ".join(differing).replace("identity.", "")
    what = f"{first.removeprefix('identity.')}: {_short(theirs.get(first))}, not {_short(mine.get(first))}"
    if first.startswith("data."):
        what = f"other data ({_what_data(there, here, first)})"
    raise StateError(
        f"this store was begun with {what}; go on with its own settings or choose another folder with --out"
        f" (differing: {names})",
        file=folder / SETTINGS,
    )


def _what_data(there: Mapping[str, Any], here: Mapping[str, Any], first: str) -> str:
    """What is other about the data, in words."""
    theirs, mine = ((one.get("told") or {}).get("tuning") or 0 for one in (there, here))
    if theirs != mine:
        return f"sources.tuning {theirs:g}, not {mine:g}"
    return "other images" if first.endswith("sha256") else first.removeprefix("data.")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Turn what a full disk raises into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DataError(
            f"no room to write ({error.strerror}); what is there stays good: make room and give the same command again",
            file=folder,
        ) from error


@contextmanager
def locked(path: Path, why: str = "writes the manifest") -> Iterator[None]:
    """Wait for a lock, and hold it. It ends with the process, however it ends.

    `why` says what a process does that holds it, for a user who waits.
    """
    with path.open("a") as lock:
        try:
            import fcntl
        except ImportError:  # Windows: there the user must keep processes apart
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process {why} of {path.parent.parent}; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
