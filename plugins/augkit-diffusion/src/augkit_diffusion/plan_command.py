"""The verb `augkit synth plan`: what there would be to make."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkit.cli.completion import names
from augkit.cli.output import Json, show_json, show_rows
from augkit.errors import AugkitError
from augkit_diffusion import request as ask
from augkit_diffusion.chunks import Cell
from augkit_diffusion.make_command import Refill
from augkit_diffusion.making import ask as ask_for
from augkit_diffusion.making import check_data, foresee, load_for_sources, open_work, wishes
from augkit_diffusion.settings import read_settings
from augkit_diffusion.sources import Learning, Lesson, Rehearsing
from augkit_diffusion.store import Store

if TYPE_CHECKING:
    from augkit.lab.data import Data
    from augkit_diffusion.making import Order, Work

SAMPLE = 64
"""Images whose size as files is measured."""
QUICK = 5.0
"""Seconds of a first chunk below which a second one is timed, since the first may warm up."""


@dataclass(frozen=True)
class Lack:
    """What a store lacks."""

    how_many: ask.HowMany
    out: Path | None
    """Without a store all is lacking."""
    refill: bool

    def wanted(self, data: Data) -> dict[Cell, int]:
        """How many images of each cell there shall be."""
        wanted, store = self.how_many.wanted(data), self._store(data)
        return store.refilled(wanted) if self.refill and store is not None else wanted

    def missing(self, data: Data) -> dict[Cell, int]:
        """How many of them are not there."""
        wanted, store = self.wanted(data), self._store(data)
        if store is None:
            return wanted
        return {cell: number - sum(n < number for n in store.numbers(*cell)) for cell, number in wanted.items()}

    def _store(self, data: Data) -> Store | None:
        if self.out is None:
            return None
        settings = read_settings(self.out)
        if settings["groups"] != self.how_many.groups:
            raise AugkitError("this store was begun with other --groups; leave out --out", file=self.out)
        return Store(self.out, settings)


@dataclass(frozen=True)
class Cost:
    """What images take."""

    bytes: float
    """Of an image's file."""
    sized: str
    """By what that was measured."""
    made: str = ""
    """What was made."""
    seconds: float | None = None
    """Of a chunk; None where it is not known."""
    batch: int = 1
    unknown: str = "say --source to have some images made and timed"
    """What would have to be done to know the seconds."""
    lesson: Lesson | None = None
    """What the source learns before."""

    @property
    def learning(self) -> float:
        """Seconds."""
        return 0.0 if self.lesson is None else self.lesson.left * self.lesson.seconds


def plan(
    recipe: ask.Recipe,
    overrides: ask.Overrides = None,
    target: ask.Target = None,
    groups: ask.Groups = False,
    budget: ask.Budget = None,
    weights: ask.Weights = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Have a few images made by it and timed.", autocompletion=names("sources")),
    ] = None,
    model: ask.Model = None,
    steps: ask.Steps = None,
    guidance: ask.Guidance = None,
    batch: ask.Batch = None,
    precision: ask.Precision = None,
    strength: ask.Strength = None,
    prompts: ask.Prompts = None,
    options: ask.Options = None,
    device: ask.Device = None,
    seed: ask.Seed = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A store that there is: its images need not be made again.")
    ] = None,
    refill: Refill = False,
    as_json: Json = False,
) -> None:
    """Say how many images of which class there are to make, and what they take; nothing is written.

    \b
        augkit synth plan recipe.yaml --target 500
        augkit synth plan recipe.yaml --target "max(class_count, over=classes)" --groups
        augkit synth plan recipe.yaml --budget 10000 --weights "1 / class_count"
        augkit synth plan recipe.yaml --target 500 --source sd --model PATH_OR_ID --steps 10
    """
    from augkit.plugins import registry

    how_many = ask.HowMany(target, budget, weights, groups)
    how_many.check()
    flags = {"model": model, "steps": steps, "guidance": guidance, "batch": batch, "precision": precision}
    given = ask.read_options(options, **flags, strength=strength, prompts=prompts)
    if out is not None:
        read_settings(out)
    elif refill:
        raise AugkitError("--refill is about the images of a store; name it with --out")
    lack = Lack(how_many, out, refill)
    if source is not None:
        chosen: dict[str, Any] = {"folder": out or Path(), "seed": seed, "groups": groups, "device": device}
        order = ask.make_order(recipe, overrides, source, given, registry(), **chosen)
        data, cost = _made(order, lack)
    elif given:
        raise AugkitError(f'the option "{next(iter(given))}" is one of a source; name it with --source')
    else:
        data, cost = _without_source(recipe, overrides, out)
    _tell(data, lack, cost, as_json)


def _without_source(recipe: str, overrides: list[str] | None, out: Path | None) -> tuple[Data, Cost]:
    """What training images take; nothing is known of the time."""
    from augkit.lab import data as lab_data

    read = load_for_sources(recipe, overrides or [])
    data = lab_data.load(read.data, sources=read.sources)
    if out is not None:
        check_data(out, data, read.sources.tuning if read.sources else 0.0)
    return data, _like(data)


def _made(order: Order, lack: Lack) -> tuple[Data, Cost]:
    """Make a chunk or two of what is missed most, outside any store; a source that must learn rehearses that first."""
    from augkit.lab.run import threads

    with tempfile.TemporaryDirectory() as folder:
        order = order if lack.out is not None else replace(order, folder=folder)
        work = open_work(order)
        work.check_taught()
        missing = lack.missing(work.data)
        foresee(work, missing)
        like = _like(work.data)
        if not any(missing.values()):
            return work.data, like
        lesson = None
        if isinstance(work.source, Learning) and not work.source.ready:
            if not isinstance(work.source, Rehearsing):
                return work.data, replace(like, unknown=f"the source {order.source} learns first")
            with threads(order.recipe["threads"]):
                lesson = work.source.rehearse()
        cell = max(missing, key=missing.__getitem__)
        seconds, size = _chunk(work, cell)
        if seconds < QUICK:
            seconds, size = _chunk(work, cell)
    made = f"{work.source.batch} images made by {order.source}"
    cost = Cost(size, made, made, seconds, work.source.batch, lesson=lesson)
    # what was not learnt yet makes noise, which takes more room than images do
    return work.data, cost if lesson is None else replace(cost, bytes=like.bytes, sized=like.sized)


def _chunk(work: Work, cell: Cell) -> tuple[float, float]:
    """Seconds for a chunk, and bytes of an image."""
    from augkit.lab.run import threads
    from augkit_diffusion import png

    store = Store(Path(work.order.folder), work.settings)
    begin = time.perf_counter()
    with threads(work.order.recipe["threads"]):
        wanted = wishes(store, work, *cell, 0)
        images = ask_for(work, wanted)
    files = [len(png.encode(image, {})) for image in images if image is not None]
    return time.perf_counter() - begin, statistics.mean(files) if files else 0.0


def _like(data: Data) -> Cost:
    """What training images take as PNG files."""
    import torch

    from augkit_diffusion import png

    where = torch.linspace(0, len(data.train) - 1, min(SAMPLE, len(data.train)), device=data.train.labels.device).long()
    (images,) = data.train.batches([where])
    sizes = [len(png.encode(image, {})) for image in images.permute(0, 2, 3, 1).cpu().numpy()]
    return Cost(statistics.mean(sizes), f"{len(sizes)} training images as PNG")


def _tell(data: Data, lack: Lack, cost: Cost, as_json: bool) -> None:
    counts, wanted, missing = lack.how_many.counts(data), lack.wanted(data), lack.missing(data)
    rows = [
        _row(data, cell, real, wanted[cell], None if lack.out is None else wanted[cell] - missing[cell])
        for cell, real in counts.items()
    ]
    images = sum(missing.values())
    chunks = sum(-(-number // cost.batch) for number in missing.values())
    making = 0.0 if not images else None if cost.seconds is None else chunks * cost.seconds
    seconds = None if making is None else making + cost.learning
    taken = round(images * cost.bytes)
    if as_json:
        learning = None if cost.lesson is None else {**asdict(cost.lesson), "seconds": cost.learning}
        show_json({"cells": rows, "images": images, "bytes": taken, "seconds": seconds, "learning": learning})
        return
    show_rows(rows, as_json=False)
    what = f"classes in {len(data.group_names)} groups" if lack.how_many.groups else "classes"
    print(f"\n{images:,} images to make for {sum(n > 0 for n in missing.values())} of {len(counts)} {what}")
    free = shutil.disk_usage(lack.out or Path.cwd()).free
    print(f"disk: {size_text(taken)} of {size_text(free)} free here ({size_text(cost.bytes)} an image, {cost.sized})")
    print(_time(images, making, cost))


def _time(images: int, making: float | None, cost: Cost) -> str:
    """What it takes, in a line or two."""
    if not images:
        return "time: none"
    if making is None or cost.seconds is None:
        return f"time: not known; {cost.unknown}"
    how = f"{cost.made} in {cost.seconds:.3g} s"
    if cost.lesson is None:
        return f"time: {time_text(making)} for one process ({how})"
    left, steps = f"{cost.lesson.left:,}", f"{cost.lesson.steps:,}"
    return (
        f"time: {time_text(cost.learning + making)} for one process: {time_text(cost.learning)} to learn ({left} of"
        f" {steps} steps are left, {cost.lesson.seconds:.2g} s each), {time_text(making)} for images ({how})"
    )


def _row(data: Data, cell: Cell, real: int, number: int, there: int | None) -> dict[str, Any]:
    label, group = cell
    named = {"class": data.class_names[label]} | ({} if group is None else {"group": data.group_names[group]})
    return {**named, "real": real, "synthetic": number, **({} if there is None else {"there": there})}


def size_text(size: float) -> str:
    """Bytes in words: 1.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def time_text(seconds: float) -> str:
    """Seconds in words: 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
