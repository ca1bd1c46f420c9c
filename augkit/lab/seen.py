"""Which real images a store of synthetic ones was made from, so that none of them measures a run that trains on it.

A store notes their fingerprints: hashes of their pixels as they are read, before any resizing. So an image is known
again in another subset, in an archive or a folder, and at another `data.image_size`; encoded anew or cropped it is not.
"""

from __future__ import annotations

import hashlib
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from augkit.errors import DataError
from augkit.lab import folder as files
from augkit.lab.readers import Reader

if TYPE_CHECKING:
    from augkit.lab.data import Data, Split

STORE, NOTE, HELD_OUT = "store.yaml", "real.npy", ".held_out"
_TOGETHER = 64  # images that a thread reads at a time


def fingerprints(reader: Reader, rows: np.ndarray) -> np.ndarray:
    """[n] uint64, one for each of `rows` [n]: 8 bytes of BLAKE2b, of an image's height, width and pixels."""

    def of(part: np.ndarray) -> list[bytes]:
        return [_fingerprint(reader.read(int(row))) for row in part]

    parts = [rows[begin : begin + _TOGETHER] for begin in range(0, len(rows), _TOGETHER)]
    with ThreadPoolExecutor() as readers:
        found = b"".join(one for part in readers.map(of, parts) for one in part)
    return np.frombuffer(found, "<u8").astype(np.uint64)


def _fingerprint(image: np.ndarray) -> bytes:
    digest = hashlib.blake2b(f"{image.shape[0]} {image.shape[1]}\0".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.digest()


def write(store: Path, data: Data | None) -> None:
    """Note that a store was made from the real images that sources learn from in some data; None: from no image."""
    _save(store, _learnt_from(data))


def add(store: Path, other: Path) -> None:
    """Note of a store, too, what another notes whose model it takes over; nothing if that one is gone or has no note.

    Raises:
        DataError: the other was made from other images, or a note cannot be read.
    """
    mine, theirs = _noted(store), _noted(other)
    if mine is not None and theirs is not None:
        _check_among(mine, theirs, other)
        _save(store, np.union1d(mine, theirs))


def check_other(store: Path, data: Data | None, other: Path) -> None:
    """Raise what `add` would once a store is noted as made from some data, as by `write`; nothing is written."""
    theirs = _noted(other)
    if theirs is not None:
        mine = _noted(store)
        _check_among(_learnt_from(data) if mine is None else mine, theirs, other)


def _check_among(mine: np.ndarray, theirs: np.ndarray, other: Path) -> None:
    strange = len(np.setdiff1d(mine, theirs))
    if strange:
        raise DataError(
            f"{strange} of {len(mine)} real images to learn from are not among those of this store, so that its model"
            " is of other images; leave out the option learnt",
            file=other,
        )


def _learnt_from(data: Data | None) -> np.ndarray:
    return np.unique(np.zeros(0, np.uint64) if data is None else _trained_on(data.for_sources))


def _noted(store: Path) -> np.ndarray | None:
    return _load(store / NOTE) if (store / NOTE).is_file() else None


def _save(store: Path, found: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, found.astype("<u8"))
    files.write(store / NOTE, content.getvalue())


def check(folder: Path, data: Data) -> None:
    """Raise if a run on these data would be measured on images that the synthetic ones of a folder were made from.

    Of a folder that is no store nothing is known, and of a store without a note a warning is written. An image that is
    also among the run's own real training images, or those that it sets apart for sources, passes: data sets hold some
    twice.

    Args:
        folder: the `folder` of a recipe's `sources`.
        data: of the run, with or without the images of the folder.

    Raises:
        DataError: validation or test images are among them, or the note cannot be read.
    """
    store = _store_of(folder)
    noted = _read(store) if store is not None else None
    if store is None or noted is None or not len(noted):
        return
    told = []
    for name, split in (("validation", data.val), ("test", data.test)):
        found = _of_split(split, store / HELD_OUT) if split is not None else noted[:0]
        known = found[np.isin(found, noted)]
        count = int((~np.isin(known, _trained_on(data))).sum()) if len(known) else 0
        if count:
            told.append(f"{count} of {len(found)} {name} images")
    if told:
        raise DataError(
            f"{' and '.join(told)} are among the real images that this store was made from, and this run does not train"
            " on them; take the data settings (under told) of the store, or make a store with this recipe",
            file=store / STORE,
        )


def _of_split(split: Split, notes: Path) -> np.ndarray:
    """Fingerprints of a split.

    Decoding many files takes minutes, so those of files are noted in a folder, under what tells these files from others
    and from what they were: names, sizes, times of change. Whoever changes a file changes its time too.
    """
    paths = getattr(split.reader, "paths", None)
    if paths is None:
        return fingerprints(split.reader, split.rows)
    digest = hashlib.blake2b(digest_size=16)
    for row in split.rows:
        path = Path(paths[int(row)])
        status = path.stat()
        told = f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0"
        digest.update(told.encode("utf-8", "surrogateescape"))
    note = notes / f"{digest.hexdigest()}.npy"
    try:
        found = np.load(note, allow_pickle=False)
        if isinstance(found, np.ndarray) and found.dtype == np.uint64 and found.shape == split.rows.shape:
            return found
    except (ValueError, EOFError, OSError):
        pass  # there is none, or a damaged one: they are read anew
    found, content = fingerprints(split.reader, split.rows), io.BytesIO()
    np.save(content, found)
    with suppress(OSError):  # the store may be another's, and only to be read
        notes.mkdir(exist_ok=True)
        files.write(note, content.getvalue())
    return found


def _trained_on(data: Data) -> np.ndarray:
    """Of the real training images, and of those that are set apart for sources."""
    rows = data.train.rows[~data.synthetic]
    return fingerprints(data.train.reader, rows if data.tuning is None else np.union1d(rows, data.tuning.rows))


def _store_of(folder: Path) -> Path | None:
    """The store that a folder is, or is a part of."""
    inner = folder / "train"
    there = (inner if inner.is_dir() else folder).resolve()
    return next((place for place in (there, there.parent) if (place / STORE).is_file()), None)


def _read(store: Path) -> np.ndarray | None:
    """What a store notes; None, and a warning, if it does not."""
    path = store / NOTE
    if not path.is_file():
        print(
            f"warning: {store}: this store does not say which real images it was made from, so it is not known whether"
            " this run is measured on some of them; the command that made it, given again, notes that",
            file=sys.stderr,
        )
        return None
    return _load(path)


def _load(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        if not (isinstance(found, np.ndarray) and found.dtype == np.uint64 and found.ndim == 1):
            raise ValueError
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            "this does not tell which real images the store was made from; remove it and give the command that made the"
            " store again",
            file=path,
        ) from error
    return found
