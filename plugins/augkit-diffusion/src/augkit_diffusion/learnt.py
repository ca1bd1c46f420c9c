"""What a source has learnt, and from what: `learnt.json` in the store's `model/`, or in a folder of it.

It is written with the settings before a training begins, and gets the hash of the weights last, so that a folder holds
what was learnt to its end, or nothing. Nothing that lies there is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import DataError, StateError
from augkit.lab import folder as files
from augkit_diffusion.learning import CHECKPOINT
from augkit_diffusion.settings import MODEL

if TYPE_CHECKING:
    from augkit.lab.data import Data

NOTE = "learnt.json"
EARLIER = "fit.json"
"""What the note was called before; it is still read."""
IMAGES = "data.images"
"""The setting that says from which images something is learnt."""
LATER = (IMAGES, "data.sha256", "augmentation")
"""Settings that earlier versions note for no source, or not for all."""
FORMER = ("data.subset", "data.labels")
"""Settings that are no longer asked for: they told of held-out images too, which nothing learns from."""
OF_IMAGES = (IMAGES, "data.sha256")
"""Hashes, which say nothing to a reader."""


def learnt(folder: Path) -> str | None:
    """The hash of the weights that were learnt there; None if none were, or not yet to the end.

    Raises:
        StateError: the note cannot be read.
    """
    return read_note(folder).get("model")


def read_note(folder: Path) -> dict[str, Any]:
    """What the note says, `settings` and `model`; nothing if there is none.

    Raises:
        StateError: it cannot be read.
    """
    path = next((folder / name for name in (NOTE, EARLIER) if (folder / name).exists()), None)
    if path is None:
        return {}
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(note["settings"], dict) and isinstance(note["model"], str | None):
            return dict(note)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # told below
    raise StateError(f"this does not tell what was learnt here; remove {folder} to learn anew", file=path)


def check(folder: Path, settings: Mapping[str, Any], advice: str = "choose another folder with --out") -> bool:
    """Whether something was begun there.

    Raises:
        StateError: it was, with other settings.
    """
    from augkit.lab.run import flat

    note = read_note(folder)
    if not note:
        return False
    there, here = flat(note["settings"]), flat(settings)
    for name in here | there:
        earlier = (name in LATER and name not in there) or (name in FORMER and name not in here)
        if here.get(name) == there.get(name) or earlier:
            continue
        what = f"with {name} {there.get(name)}, not {here.get(name)}"
        if name in OF_IMAGES:
            what = "from other real images, since the recipe's data or sources.tuning are others"
        raise StateError(f"this model was learnt {what}; go on with its own settings or {advice}", file=folder)
    return True


def images_sha256(data: Data) -> str:
    """Of the real training images: which of the data source's they are, and their pixels or files."""
    from augkit.lab import seen
    from augkit_diffusion import making

    reader, rows = data.train.reader, data.train.rows[~data.synthetic]
    told = making.images_sha256(reader, rows) or hashlib.sha256(seen.fingerprints(reader, rows).tobytes()).hexdigest()
    return hashlib.sha256(rows.astype("<i8").tobytes() + told.encode()).hexdigest()


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note what is going to be learnt, and remove what a kill or a full disk left half written.

    One process at a time; raises like `check`.
    """
    for half in folder.glob("*.part"):
        half.unlink(missing_ok=True)
    if not check(folder, settings):
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / NOTE, {"settings": dict(settings), "model": None})


def finish(folder: Path, settings: Mapping[str, Any], sha256: str) -> None:
    """Note that it was learnt to its end; the checkpoint goes after the note, so that a stop loses no training."""
    files.write_json(folder / NOTE, {"settings": dict(settings), "model": sha256})
    (folder / EARLIER).unlink(missing_ok=True)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def mark(settings: Mapping[str, Any]) -> str:
    """Of a training with these settings: what its checkpoints are known by."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def elsewhere(store: Path, part: Path | str = "") -> Path:
    """Where another store keeps what it learnt, or a part of that."""
    return store / MODEL / part


def check_other(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise unless another store has learnt there, with these settings.

    Raises:
        DataError: nothing was learnt there, or an earlier version noted no hash of the images.
        StateError: it was, with other settings.
    """
    if not check(folder, settings, "leave out the option learnt") or learnt(folder) is None:
        raise DataError(
            "nothing was learnt here to its end; give a store whose source has learnt, or leave out the option learnt",
            file=folder,
        )
    if "images" not in read_note(folder)["settings"].get("data", {}):
        raise DataError(
            "an earlier version learnt this, and did not note from which images; leave out the option learnt",
            file=folder,
        )


def take(folder: Path, other: Path, settings: Mapping[str, Any], names: Sequence[str]) -> None:
    """Copy what another store has learnt under these settings, `names` being its files; the note comes last.

    Raises:
        DataError: a file cannot be copied.
    """
    check_other(other, settings)
    begin(folder, settings)
    try:
        for name in names:
            half = folder / f"{name}.part"
            shutil.copyfile(other / name, half)
            half.replace(folder / name)
    except OSError as error:
        raise DataError(f"what was learnt cannot be copied ({error.strerror})", file=other) from error
    sha256 = learnt(other)
    assert sha256 is not None
    finish(folder, settings, sha256)
