"""Making images: an order as plain data, so that any process can open it and make a part of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkit.errors import AugkitError
from augkit_diffusion.chunks import Cell, Chunk
from augkit_diffusion.settings import SETTINGS, read_settings, same
from augkit_diffusion.sources import Completing, Context, Progress, Source, Wish, open_source
from augkit_diffusion.store import Store

if TYPE_CHECKING:
    from augkit.lab.data import Data
    from augkit.lab.recipe import Recipe


@dataclass(frozen=True)
class Order:
    """What images are to be made, but for how many; all of it JSON."""

    recipe: dict[str, Any]
    """Resolved."""
    source: str
    options: dict[str, Any]
    folder: str
    """Of the store, absolute."""
    seed: int = 0
    groups: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class Work:
    """An order that was opened: its data and its source are there."""

    order: Order
    data: Data
    """What is trained on; the source knows `data.for_sources` alone."""
    source: Source

    @property
    def settings(self) -> dict[str, Any]:
        """What the store notes of it, see `Store.create`."""
        order = self.order
        told = {"recipe": order.recipe["name"], "data": order.recipe["data"], "options": order.options}
        if self.data.tuning is not None:
            told["tuning"] = tuning_of(order.recipe)
        return {
            "source": order.source,
            "seed": order.seed,
            "groups": order.groups,
            "data": data_facts(self.data),
            "told": told,
        }

    def identity(self) -> dict[str, Any]:
        """Of the source, with its batch; it may learn first, so the store notes before from which real images."""
        from augkit.lab import seen

        store, taught = Path(self.order.folder), self._taught
        if not (store / seen.NOTE).exists():
            seen.write(store, self._real)
        if taught is not None:  # before what was learnt there is taken over
            seen.add(store, taught)
        return {**self.source.identity(), "batch": self.source.batch}

    def check_taught(self) -> None:
        """Raise what `identity` finds wrong with a store whose model is to be taken over; nothing is written."""
        from augkit.lab import seen

        if self._taught is not None:
            seen.check_other(Path(self.order.folder), self._real, self._taught)

    @property
    def _taught(self) -> Path | None:
        told = self.order.options.get("learnt")
        return None if told is None else Path(told)

    @property
    def _real(self) -> Data | None:
        """The data, if the source learns from their images or begins with some."""
        return self.data if getattr(self.source, "from_real", True) else None


def load_recipe_of(recipe: str, overrides: Sequence[str]) -> Recipe:
    """A recipe whose data are the real images alone."""
    from augkit.lab.recipe import load_recipe
    from augkit.plugins import registry

    found = load_recipe(recipe, registry(), overrides)
    return real_only(found)


def real_only(recipe: Recipe) -> Recipe:
    """The recipe without the synthetic images that it trains on, and with all real ones."""
    if getattr(recipe, "sources", None) is None:
        return recipe
    return recipe.model_copy(update={"sources": None})


def for_sources(recipe: Recipe) -> Recipe:
    """The same, but with the images set apart that sources learn from."""
    from augkit.lab.recipe_parts import SourcesRecipe

    tuning = 0.0 if recipe.sources is None else recipe.sources.tuning
    return recipe.model_copy(update={"sources": SourcesRecipe(tuning=tuning) if tuning else None})


def load_for_sources(recipe: str, overrides: Sequence[str]) -> Recipe:
    """The recipe of a command that makes images: its real images, some of them apart if it says `sources.tuning`."""
    from augkit.lab.recipe import load_recipe
    from augkit.plugins import registry

    return for_sources(load_recipe(recipe, registry(), overrides))


def open_work(order: Order, data: Data | None = None, progress: Progress | None = None) -> Work:
    """Read the data, unless they are given, and open the source; nothing is written.

    Raises:
        AugkitError: the data, the source or its options are wrong, or a store is there that was begun with other data.
    """
    from augkit.lab import data as lab_data
    from augkit.lab.recipe import Recipe
    from augkit.lab.run import pick_device
    from augkit.plugins import registry

    recipe = Recipe.model_validate_json(json.dumps(order.recipe))
    device = pick_device(order.device)
    data = data or lab_data.load(recipe.data, sources=recipe.sources)
    check_data(Path(order.folder), data, tuning_of(order.recipe))
    told: dict[str, Any] = {} if progress is None else {"progress": progress}
    context = Context(data.for_sources, recipe, Path(order.folder), device, seed=order.seed, **told)
    source = open_source(order.source, order.options, context, registry())
    if not isinstance(source.batch, int) or source.batch < 1:
        raise AugkitError(f'source "{order.source}" makes {source.batch!r} images at once; it must be 1 or more')
    return Work(order, data, source)


def tuning_of(recipe: Mapping[str, Any]) -> float:
    """Share of the real images that a recipe, as JSON, sets apart for sources."""
    return float((recipe.get("sources") or {}).get("tuning", 0.0))


def check_data(folder: Path, data: Data, tuning: float) -> None:
    """Raise if a store was begun there with other data.

    Raises:
        StateError: it was.
    """
    if (folder / SETTINGS).is_file():
        same(folder, read_settings(folder), {"data": data_facts(data), "told": {"tuning": tuning}})


def data_facts(data: Data) -> dict[str, Any]:
    """What tells these data from others: their classes, and which images were chosen for sources; where they lie does
    not."""
    from augkit.lab.run import identity

    data = data.for_sources
    told = identity(data)
    return {
        "class_names": list(data.class_names),
        "group_names": list(getattr(data, "group_names", ())),
        "image_size": data.train.size,
        "subset_sha256": told["subset_sha256"],
        "labels_sha256": told["labels_sha256"],
        "images_sha256": images_sha256(data.train.reader, data.train.rows),
    }


def images_sha256(reader: Any, rows: np.ndarray) -> str | None:
    """Of images: their pixels where the source holds them, else the names and sizes of their files."""
    digest = hashlib.sha256()
    if hasattr(reader, "images"):
        for begin in range(0, len(rows), 1024):
            digest.update(np.ascontiguousarray(reader.images[rows[begin : begin + 1024]]).tobytes())
    elif hasattr(reader, "paths"):
        for row in rows:
            path = reader.paths[row]
            digest.update(f"{path.parent.name}/{path.name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
    else:
        return None
    return digest.hexdigest()


def source_image(data: Data, row: int) -> str:
    """What a training image is called: `CLASS/FILE`, or `row N` of the source's training split."""
    place = int(data.train.rows[row])
    paths = getattr(data.train.reader, "paths", None)
    return f"row {place}" if paths is None else "/".join(paths[place].parts[-2:])


def wishes(store: Store, work: Work, label: int, group: int | None, index: int) -> list[Wish]:
    """All wishes of a chunk, completed by the source."""
    source, batch = work.source, work.source.batch
    bare = [store.wish(label, group, index * batch + k) for k in range(batch)]
    return [source.complete(wish) for wish in bare] if isinstance(source, Completing) else bare


def foresee(work: Work, wanted: Mapping[Cell, int]) -> None:
    """Let the source complete a wish of each cell that gets images, so that what it lacks for one is told first."""
    store = Store(Path(work.order.folder), work.settings)
    for label, group in (cell for cell, number in wanted.items() if number):
        if isinstance(work.source, Completing):
            work.source.complete(store.wish(label, group, 0))


def ask(work: Work, wanted: Sequence[Wish]) -> list[np.ndarray | None]:
    """The images of a chunk.

    Raises:
        AugkitError: the source gives something else.
    """
    images = list(work.source.make(wanted))
    if len(images) != len(wanted):
        raise AugkitError(f'source "{work.order.source}" gave {len(images)} images for {len(wanted)} wishes')
    for image in images:
        if image is not None and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
            raise AugkitError(
                f'source "{work.order.source}" gave {image.dtype} {list(image.shape)}; images are uint8 [H, W, 3]'
            )
    return images


def make_chunks(
    store: Store, work: Work, parts: Sequence[Chunk], done: Callable[[int, int], None] = lambda made, refused: None
) -> tuple[int, int]:
    """Make chunks, and write what is missing of each; (images written, images refused).

    Args:
        store: it is settled.
        work: open.
        parts: chunks.
        done: called after each chunk with both numbers of this chunk.
    """
    facts = _facts(store, work)
    total = [0, 0]
    for chunk in parts:
        wanted = wishes(store, work, chunk.label, chunk.group, chunk.index)
        counts, missing = [0, 0], set(chunk.missing)
        for wish, image in zip(wanted, ask(work, wanted), strict=True):
            if wish.number not in missing:
                continue
            begins = wish.source_image
            if begins is None and wish.row is not None:
                begins = source_image(work.data.for_sources, wish.row)
            if image is None:
                store.refuse(wish, facts | {"source_image": begins})
            else:
                store.write(wish, image, facts | {"source_image": begins})
            counts[image is None] += 1
        total = [total[0] + counts[0], total[1] + counts[1]]
        done(*counts)
    return total[0], total[1]


def _facts(store: Store, work: Work) -> dict[str, Any]:
    """What every image of a store tells of where it is from."""
    identity = store.settings["identity"]
    plain = {name: value for name, value in identity.items() if isinstance(value, (str, int, float, bool))}
    return {**plain, "source": work.order.source}


# tasks for processes of their own, see `augkit.lab.jobs`


def prepare(order: Mapping[str, Any], place: str) -> None:
    """Settle the store of an order that was begun: its source learns, if it must."""
    with _opened(order, place):
        pass


def make_part(order: Mapping[str, Any], place: str, parts: Sequence[Sequence[Any]]) -> list[int]:
    """Make chunks, each as `[label, group, index, missing]`; [images written, images refused].

    `place` is the part of the store's work that the process which gave this task has claimed.
    """
    with _opened(order, place) as (store, work):
        return list(make_chunks(store, work, [Chunk(c[0], c[1], c[2], tuple(c[3])) for c in parts]))


@contextmanager
def _opened(order: Mapping[str, Any], place: str) -> Iterator[tuple[Store, Work]]:
    from augkit.lab.run import threads

    with threads(order["recipe"]["threads"]):
        yield _open(json.dumps(dict(order)), place)


@lru_cache(maxsize=1)
def _open(order: str, place: str) -> tuple[Store, Work]:
    """Data and source are read once in a process."""
    work = open_work(Order(**json.loads(order)))
    store = Store.create(Path(work.order.folder), work.settings)
    store.settle(work.identity)
    store.share(place)
    return store, work
