"""Quality against the number of denoising steps: a store for each number, made alike, and what its images are worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import AugkitError, DataError, StateError
from augkit.lab import folder as files
from augkit_diffusion.settings import MODEL, SETTINGS, read_settings
from augkit_diffusion.sources import Progress, options_of
from augkit_diffusion.store import Store

if TYPE_CHECKING:
    from augkit.lab.data import Data
    from augkit.registry import Registry
    from augkit_diffusion.chunks import Cell
    from augkit_diffusion.look import Seen
    from augkit_diffusion.making import Order

MADE, RESULTS = "made.json", "steps.json"
MOST = 1000
"""Denoising steps."""


def name_of(steps: int) -> str:
    """Of the store: `steps-010`."""
    return f"steps-{steps:03d}"


def parse_values(text: str) -> list[int]:
    """`50,3,10` as [3, 10, 50].

    Raises:
        AugkitError: it says something else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= MOST for word in words):
        raise AugkitError(f'--values takes numbers of steps from 1 to {MOST}, such as 3,10,50, not "{text}"')
    return sorted({int(word) for word in words})


def check_source(source: str, options: Mapping[str, Any], registry: Registry) -> None:
    """Raise unless a source takes its steps from here."""
    if source in registry.sources and "steps" not in options_of(source, registry):
        raise AugkitError(f'the source "{source}" has no denoising steps to compare')
    if "steps" in options:
        raise AugkitError("the numbers of steps are those of --values; leave --option steps out")


def check_folder(out: Path) -> None:
    """Raise if something else lies there."""
    if out.is_file() or (files.contents(out) and not (out / MADE).exists()):
        raise DataError("this folder holds something else; choose another with --out", file=out)


@dataclass
class Comparison:
    """The stores of one comparison, each of which is an order of its own."""

    order: Order
    """Of them all, but for steps and folder."""
    values: Sequence[int]
    per_class: int
    out: Path
    data: Data
    progress: Progress
    learns: bool
    """Whether the source learns, and can take over what another store has learnt."""

    def make(self, jobs: int, on: str) -> None:
        """Make what is missing in every store. What a source learns it learns in the first one, once for all.

        Raises:
            KeyboardInterrupt: the user interrupted it; what is there stays good.
            StateError: a store was begun otherwise.
        """
        from augkit_diffusion.make_command import Making
        from augkit_diffusion.making import foresee, open_work
        from augkit_diffusion.settings import check

        teacher = self._teacher()
        for steps in sorted(self.values, key=lambda steps: (steps != teacher, steps)):

            def progress(what: str, done: int, of: int, steps: int = steps) -> None:
                self.progress(f"{what}, {steps} steps" if what == "images" else what, done, of)

            order = self._order(steps, teacher)
            work = open_work(order, self.data, progress)
            foresee(work, self.wanted)
            check(self.folder(steps), work.settings)
            store = Store.create(self.folder(steps), work.settings)
            making = Making(work, store, self.wanted, (1, 1), progress)
            try:
                interrupted = making.run(jobs, on)
            finally:
                self._note(steps, making.written + making.refused, making.seconds)
            if interrupted:
                raise KeyboardInterrupt
            del work, making  # its network, before the next one comes

    def folder(self, steps: int) -> Path:
        """Of a store."""
        return self.out / name_of(steps)

    @property
    def wanted(self) -> dict[Cell, int]:
        """As many of each class that real images show."""
        counts = self.data.for_sources.real_counts.tolist()
        return {(label, None): self.per_class for label, count in enumerate(counts) if count}

    def _order(self, steps: int, teacher: int) -> Order:
        options = {**self.order.options, "steps": steps}
        if self.learns and steps != teacher and "learnt" not in options:
            options["learnt"] = str(self.folder(teacher).absolute())
        return replace(self.order, options=options, folder=str(self.folder(steps).absolute()))

    def _teacher(self) -> int:
        """Whose store learns: one that has, or has begun to, before another."""

        def rank(steps: int) -> tuple[int, int]:
            folder = self.folder(steps)
            if (folder / SETTINGS).exists() and "identity" in read_settings(folder):
                return 0, steps
            return (1 if (folder / MODEL).exists() else 2), steps

        return min(self.values, key=rank)

    def _note(self, steps: int, images: int, seconds: float) -> None:
        """Add to what was made of a store, and in which time."""
        if images:
            noted = self._noted()
            before = noted.get(str(steps), [0, 0.0])
            files.write_json(self.out / MADE, noted | {str(steps): [before[0] + images, before[1] + seconds]})

    def _noted(self) -> dict[str, Any]:
        path = self.out / MADE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {name: [int(images), float(seconds)] for name, (images, seconds) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StateError("this does not tell how fast images were made; remove it", file=path) from error

    def speed(self, steps: int) -> float | None:
        """Images a second, of those whose making was not killed; without what was learnt before."""
        images, seconds = self._noted().get(str(steps), (0, 0.0))
        return images / seconds if seconds else None


@dataclass
class Measured:
    """A store that was looked at."""

    seen: Seen
    row: dict[str, Any]


def measure(comparison: Comparison, run: Path | None) -> tuple[list[Measured], dict[str, Any]]:
    """Look at every store; a row for each, and what is true of the real images alone.

    Raises:
        DataError: a store has no image that is kept, or the run is not finished.
    """
    from augkit_diffusion import look
    from augkit_diffusion.evidence import Evidence

    found: list[Measured] = []
    for steps in comparison.values:
        store = Store.open(comparison.folder(steps))
        evidence = Evidence(store, store.images(rejected=True), run, progress=comparison.progress)
        for name in ("recipe", "data", "viewer", "real") if found else ():  # the same for all: looked at once
            evidence.__dict__[name] = getattr(found[0].seen.evidence, name)
        seen = look.Seen(store, evidence)
        row = {"steps": steps, "store": name_of(steps), "images_per_second": comparison.speed(steps), **_row(seen)}
        found.append(Measured(seen, row))
    first = found[0].seen
    real = {
        "judge": first.evidence.classifier,
        "viewer": {"words": first.evidence.viewer.words, **first.evidence.viewer.told},
        "told_apart": look.control(first),
        "near_copies": float((first.among >= look.COPY).mean()) if len(first.among) else None,
    }
    return found, real


def _row(seen: Seen) -> dict[str, Any]:
    """What is measured of the kept images of a store."""
    from augkit_diffusion import look
    from augkit_diffusion.distances import apart

    evidence, kept = seen.evidence, seen.kept
    domain = look.domain(seen)
    far = apart(evidence.real.features, evidence.real_labels, evidence.made.features[kept], evidence.labels[kept])
    right = evidence.chances.argmax(1)[kept] == evidence.labels[kept]
    return {
        "images": int(kept.sum()),
        "agree": float(right.mean()),
        "told_apart": None if domain is None else {key: domain[key] for key in domain if key != "by_class"},
        "frechet": None if far is None else far.facts(),
        "near_copies": float((seen.similar[kept] >= look.COPY).mean()),
    }


def images_sha256(store: Store) -> str:
    """Of which images a store keeps: its identity, their names and their seed."""
    kept = sorted(str(row["file"]) for row in store.images())
    told = [store.settings["identity"], store.settings["seed"], store.settings["data"], kept]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def write(
    comparison: Comparison,
    run: Path | None,
    train: Callable[[Mapping[int, Store]], dict[str, Any]] | None,
) -> dict[str, Any]:
    """Measure, and train if there is something to; writes the picture and then `steps.json`, whose content it gives."""
    from augkit_diffusion import steps_picture

    found, real = measure(comparison, run)
    training = train({one.row["steps"]: one.seen.store for one in found}) if train is not None else None
    results = {
        "augkit_steps": 1,
        "recipe": comparison.order.recipe["name"],
        "source": comparison.order.source,
        "options": comparison.order.options,
        "per_class": comparison.per_class,
        "rows": [one.row for one in found],
        "real": real,
        "training": training,
    }
    steps_picture.draw([one.seen for one in found], results, comparison.out)
    files.write_json(comparison.out / RESULTS, results)
    return results
