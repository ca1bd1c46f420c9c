"""A store of synthetic images: a folder that any tool reads as class folders, and that says where each image is from.

    store.yaml                 what images depend on
    train/CLASS/000012.png     kept images, with groups train/CLASS/GROUP-000012.png
    rejected/CLASS/000012.png  what filters rejected
    refused/CLASS/000012.json  in place of an image that the model's safety checker blanked
    manifest.parquet           an index, see `manifest.py`
    model/                     what the source learnt
    real.npy                   which real images it was made from, see `augkit.lab.seen`
    .parts/                    files half written, and locks

Each image holds its own facts, and appears whole under its name or not at all, so a kill loses nothing. The manifest
is made from the images; what it alone knows are the scores of filters and what they rejected.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import AugkitError, DataError
from augkit.lab import folder as files
from augkit.lab.class_folders import folder_names
from augkit_diffusion import manifest, png
from augkit_diffusion.chunks import Cell, Chunk, chunks, image_seed
from augkit_diffusion.manifest import SCORE, Row
from augkit_diffusion.settings import FULL, NO_PLACE, PARTS, SETTINGS, check, full_disk, locked, read_settings, same
from augkit_diffusion.sources import Wish

TRAIN, REJECTED, REFUSED = "train", "rejected", "refused"
UNKNOWN = "unknown"
"""What rejected an image if the manifest that knew is lost."""
_FILTER = re.compile(r"[a-z][a-z0-9_]{0,40}")
_NUMBER = re.compile(r"(?:(?P<group>.*)-)?(?P<number>[0-9]{6,})\.(?:png|json)")


class Store:
    """An open store. Open one with `Store.open` or `Store.create`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, dict(settings)
        self.seed: int = settings["seed"]
        self.class_names = tuple(settings["data"]["class_names"])
        self.group_names: tuple[str, ...] = tuple(settings["data"]["group_names"]) if settings["groups"] else ()
        self._classes, self._groups = folder_names(self.class_names), folder_names(self.group_names)
        self._label = {name: label for label, name in enumerate(self.class_names)}
        self._group = {name: group for group, name in enumerate(self.group_names)}
        self.parts = folder / PARTS / "own"

    @classmethod
    def open(cls, folder: Path) -> Store:
        """The store in a folder, with its manifest made anew and every file where it belongs.

        Raises:
            DataError: there is none.
            StateError: its files cannot be read.
        """
        store = cls(folder, read_settings(folder))
        store.rebuild()
        return store

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, Any]) -> Store:
        """The store in a folder, begun if there is none.

        Args:
            folder: where; it and those above it are made.
            settings: `source` (its name), `seed`, `groups` (whether cells are classes by groups), `data` (with
                `class_names` and `group_names`), and `told`, which may differ. The source's identity comes with
                `settle`, since a source may learn first.

        Raises:
            DataError: something else lies in the folder, or it cannot be written.
            StateError: the store there was begun with other settings.
        """
        folder_names(settings["data"]["class_names"])
        check(folder, settings)
        with full_disk(folder):
            try:
                (folder / PARTS).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise DataError(NO_PLACE, file=folder) from error
            with locked(folder / PARTS / "settings.lock", "prepares the source"):
                check(folder, settings)
                if not (folder / SETTINGS).exists():
                    files.write_yaml(folder / SETTINGS, settings)
        return cls(folder, read_settings(folder))

    def settle(self, identity: Callable[[], Mapping[str, Any]]) -> None:
        """Note what else images depend on, or make sure that it is what was noted.

        Args:
            identity: of the source. It is called while no other process calls one for this store, since it may learn.

        Raises:
            StateError: the store was begun with another.
        """
        with full_disk(self.folder), locked(self.folder / PARTS / "settings.lock", "prepares the source"):
            here = {"identity": json.loads(json.dumps(dict(identity()), allow_nan=False))}
            there = read_settings(self.folder)
            if "identity" in there:
                same(self.folder, there, here)
            else:
                files.write_yaml(self.folder / SETTINGS, there | here)
            self.settings = there | here

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Keep other processes out of the part of the work with this name, and clear away what a kill left of it.

        Raises:
            StateError: another process is at work on it.
        """
        before, self.parts = self.parts, self.folder / PARTS / name
        try:
            with files.claim(self.parts):
                yield
        finally:
            self.parts = before

    def share(self, name: str) -> None:
        """Write from now on in the name of the process that is `writing`."""
        self.parts = self.folder / PARTS / name

    # which images there are, and which are missing

    def name(self, label: int, group: int | None, number: int) -> str:
        """`CLASS/000012.png`: what an image is called in the manifest; below `train/`, or `rejected/`."""
        prefix = "" if group is None else f"{self._groups[group]}-"
        return f"{self._classes[label]}/{prefix}{number:06d}.png"

    def wish(self, label: int, group: int | None, number: int) -> Wish:
        """What image `number` of a cell shall be, before the source completes it."""
        class_name, group_name = self.class_names[label], None if group is None else self.group_names[group]
        seed = image_seed(self.seed, class_name, group_name, number)
        return Wish(label, class_name, number, seed, group, group_name)

    def numbers(self, label: int, group: int | None) -> frozenset[int]:
        """Numbers of the images of a cell that are there, rejected and refused ones included."""
        return self._there(label).get("" if group is None else self._groups[group], frozenset())

    def _there(self, label: int) -> dict[str, frozenset[int]]:
        """By the group's folder name, "" without groups."""
        found: dict[str, set[int]] = defaultdict(set)
        for where in (TRAIN, REJECTED, REFUSED):
            for path in _listed(self.folder / where / self._classes[label]):
                match = _NUMBER.fullmatch(path.name) if path.is_file() else None
                if match is not None and (png.whole(path) if path.suffix == ".png" else _refusal(path) is not None):
                    found[match["group"] or ""].add(int(match["number"]))
        return {group: frozenset(numbers) for group, numbers in found.items()}

    def missing(self, wanted: Mapping[Cell, int], batch: int, shard: tuple[int, int] = (1, 1)) -> list[Chunk]:
        """Chunks of a shard that have images missing, see `chunks`."""
        known: dict[int, dict[str, frozenset[int]]] = {}

        def there(label: int, group: int | None) -> frozenset[int]:
            if label not in known:
                known[label] = self._there(label)
            return known[label].get("" if group is None else self._groups[group], frozenset())

        return list(chunks(wanted, batch, there, shard))

    def refilled(self, wanted: Mapping[Cell, int]) -> dict[Cell, int]:
        """How many images of each cell there must be for so many of them to be kept, after what filters put aside.

        They are numbered from 0 as ever, so what is put aside keeps its number, and others come behind the last one.
        """
        gone: dict[Cell, list[int]] = defaultdict(list)
        for row in self.images(rejected=True):
            if row["rejected_by"] is not None:
                group = row.get("group")
                gone[self._label[row["class"]], None if group is None else self._group[group]].append(row["number"])
        found = dict(wanted)
        for cell, numbers in gone.items():
            for number in sorted(numbers):
                if number < found.get(cell, 0):
                    found[cell] += 1
        return found

    # writing images

    def write(self, wish: Wish, image: np.ndarray, facts: Mapping[str, Any]) -> None:
        """Put an image in its place, whole or not at all.

        Args:
            wish: what it was made for.
            image: [H, W, 3] uint8.
            facts: more than the wish says about it, as JSON: `source`, `model`, `source_image`, `steps`, ...

        Raises:
            DataError: the disk is full; whatever is there stays good.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise AugkitError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        self._put(TRAIN, self.name(wish.label, wish.group, wish.number), png.encode(image, _facts(wish, facts)))

    def refuse(self, wish: Wish, facts: Mapping[str, Any]) -> None:
        """Note that the model gives no image for this wish, so that it is not asked again."""
        name = self.name(wish.label, wish.group, wish.number).removesuffix(".png") + ".json"
        self._put(REFUSED, name, (json.dumps(_facts(wish, facts), allow_nan=False) + "\n").encode())

    def _put(self, where: str, name: str, content: bytes) -> None:
        # no process number: the folder may be shared between machines
        path, half = self.folder / where / name, self.parts / f"{uuid.uuid4().hex}.part"
        with full_disk(self.folder):
            for parent in (path.parent, self.parts):
                parent.mkdir(parents=True, exist_ok=True)
            try:
                half.write_bytes(content)
                half.replace(path)
            except OSError:
                half.unlink(missing_ok=True)
                raise

    # the manifest

    def path(self, row: Mapping[str, Any]) -> Path:
        """Where the image of a row lies."""
        return self.folder / (TRAIN if row["rejected_by"] is None else REJECTED) / str(row["file"])

    def images(self, *, rejected: bool = False) -> list[Row]:
        """Rows of the manifest, of kept images, or with `rejected` of all that were not refused."""
        rows = manifest.load(self.folder / manifest.FILE)
        return [row for row in rows if row["rejected_by"] is None or (rejected and row["rejected_by"] != REFUSED)]

    def manifest(self) -> Any:
        """The manifest as a `pyarrow.Table`: a row for each image that was made or refused."""
        return manifest.table(manifest.load(self.folder / manifest.FILE))

    def rebuild(self) -> list[Path]:
        """Make the manifest anew from the images and put every file where it belongs; files that are none of ours."""
        return self.change(lambda said: None)

    def set_scores(self, name: str, scores: Mapping[str, float]) -> None:
        """Note what a filter thinks of images, by their `file`, in place of what it thought before.

        Raises:
            AugkitError: this is no name for a filter.
        """
        column = SCORE + _filter(name)

        def change(said: dict[str, Row]) -> None:
            for file, row in said.items():
                row.pop(column, None)
                if file in scores:
                    row[column] = float(scores[file])

        self.change(change)

    def reject(self, name: str, names: Iterable[str]) -> None:
        """Put kept images, by their `file`, aside as rejected by a filter; raises like `set_scores`."""
        chosen, rejector = set(names), _filter(name)

        def change(said: dict[str, Row]) -> None:
            for file, row in said.items():
                if file in chosen and row["rejected_by"] is None:
                    row["rejected_by"] = rejector

        self.change(change)

    def restore(self, name: str) -> None:
        """Put back what a filter rejected; its scores stay."""

        def change(said: dict[str, Row]) -> None:
            for row in said.values():
                if row["rejected_by"] == name:
                    row["rejected_by"] = None

        self.change(change)

    def change(self, change: Callable[[dict[str, Row]], None]) -> list[Path]:
        """Change what the manifest says of images (by `file`: `rejected_by` and scores), all at once, and put every
        file where it then belongs; files that are none of ours."""
        (self.folder / PARTS).mkdir(exist_ok=True)
        with full_disk(self.folder), locked(self.folder / PARTS / "manifest.lock"):
            before = manifest.load(self.folder / manifest.FILE)
            noted = {row["file"]: manifest.scores_of(row) for row in before if row["rejected_by"] != REFUSED}
            found, strangers = self._read()
            said = {file: noted.get(file) or _unnoted(facts) for file, facts in found.items()}
            change(said)
            order = sorted(found, key=lambda file: self._order(found[file]))
            rows = [_columns(found[file]) | {"file": file} | said[file] for file in order]
            manifest.save(self.folder / manifest.FILE, rows)
            self._move(rows)
        return strangers

    def _order(self, facts: Row) -> tuple[int, int, int]:
        group = facts.get("group")
        return self._label[facts["class"]], -1 if group is None else self._group[group], facts["number"]

    def _read(self) -> tuple[dict[str, Row], list[Path]]:
        """The facts of every image by `file`, with `_where` it lies; and the files that are none of ours."""
        found: dict[str, Row] = {}
        strangers: list[Path] = []
        for where in (REFUSED, REJECTED, TRAIN):
            for folder in _listed(self.folder / where):
                for path in _listed(folder):
                    facts = None
                    if path.is_file():
                        facts = _refusal(path) if where == REFUSED else png.facts_of(path)
                    name = f"{folder.name}/{path.stem}.png"
                    if facts is None or self._owner(facts) != name or (where != REFUSED and path.suffix != ".png"):
                        strangers.append(path)
                    elif where == REFUSED or png.whole(path):
                        found[name] = facts | {"_where": where}
        return found, strangers

    def _owner(self, facts: Row) -> str | None:
        """The name that an image with these facts has here; None if it is of another store."""
        try:
            label = self._label[facts["class"]]
            group = self._group[facts["group"]] if "group" in facts else None
            wish = self.wish(label, group, facts["number"])
            return self.name(label, group, wish.number) if wish.seed == facts["seed"] else None
        except (KeyError, ValueError, TypeError, IndexError):
            return None

    def _move(self, rows: Sequence[Row]) -> None:
        """Files where the manifest has them."""
        for row in rows:
            if row["rejected_by"] == REFUSED:
                continue
            there = self.path(row)
            other = self.folder / (REJECTED if row["rejected_by"] is None else TRAIN) / row["file"]
            if other.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                other.replace(there)


def _facts(wish: Wish, more: Mapping[str, Any]) -> Row:
    """What an image holds: what was wished, and what else is known; nothing that is None."""
    own = {"class": wish.class_name, "group": wish.group_name, "number": wish.number, "seed": wish.seed}
    told = {"prompt": wish.prompt or None, "negative": wish.negative or None}
    return {name: value for name, value in {**more, **told, **own}.items() if value is not None}


def _columns(facts: Row) -> Row:
    return {name: value for name, value in facts.items() if not name.startswith("_")}


def _unnoted(facts: Row) -> Row:
    """What is known of an image that the manifest does not mention."""
    return {"rejected_by": {TRAIN: None, REJECTED: UNKNOWN, REFUSED: REFUSED}[facts["_where"]]}


def _filter(name: str) -> str:
    if not _FILTER.fullmatch(name) or name in (REFUSED, UNKNOWN):
        raise AugkitError(
            f'"{name}" is no name for a filter: small letters, digits and _, and not {REFUSED} or {UNKNOWN}'
        )
    return name


def _refusal(path: Path) -> Row | None:
    """What a note of a refusal says; None if it cannot be read, so that its image is made again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
