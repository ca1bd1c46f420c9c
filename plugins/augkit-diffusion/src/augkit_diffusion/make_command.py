"""The verb `augkit synth make`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.output import fail, note
from augkit.errors import AugkitError
from augkit_diffusion import request as ask
from augkit_diffusion.chunks import Cell, Chunk, parse_shard
from augkit_diffusion.making import Order, Work, make_chunks, open_work
from augkit_diffusion.progress import Meter
from augkit_diffusion.store import Store, check

TASKS = 8
"""Parts of the work for each process, so that none waits long for another at the end."""


def make(
    recipe: ask.Recipe,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The store: a new folder, or one to go on in.")],
    source: Annotated[str, typer.Option(metavar="NAME", help="What makes the images, see `augkit synth sources`.")],
    overrides: ask.Overrides = None,
    target: ask.Target = None,
    groups: ask.Groups = False,
    budget: ask.Budget = None,
    weights: ask.Weights = None,
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
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Make the I-th of N parts, from 1; others make theirs.")
    ] = "1/1",
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that make images at once.")] = 1,
    on: Annotated[str, typer.Option(help="Where they work: local or ray.")] = "local",
) -> None:
    """Make the images that are missing.

    The same command again goes on after a kill, and makes nothing twice; a higher --target adds images and keeps those
    that are there. Shards, processes and restarts change no image.

    \b
        augkit synth make recipe.yaml --target 500 --source fit --out synth
        augkit synth make recipe.yaml --target 500 --source sd --model PATH_OR_ID --steps 10 --out synth
        augkit synth make recipe.yaml --target 500 --source folder --option path=crawled --out synth
        augkit synth make recipe.yaml --target 500 --source fit --out synth --shard 2/8
    """
    from augkit.lab.jobs import check as check_jobs
    from augkit.plugins import registry

    how_many = ask.HowMany(target, budget, weights, groups)
    how_many.check()
    part = parse_shard(shard)
    check_jobs([], on, jobs)
    given = ask.read_options(
        options,
        model=model,
        steps=steps,
        guidance=guidance,
        batch=batch,
        precision=precision,
        strength=strength,
        prompts=prompts,
    )
    order = ask.make_order(
        recipe, overrides, source, given, registry(), folder=out, seed=seed, groups=groups, device=device
    )
    with Meter() as meter:
        work = open_work(order, progress=meter)
        wanted = how_many.wanted(work.data)
        check(out, work.settings)
        _make(work, wanted, part, meter, jobs, on, out)


def _make(
    work: Work, wanted: Mapping[Cell, int], shard: tuple[int, int], meter: Meter, jobs: int, on: str, out: Path
) -> None:
    """Make what is missing of the wanted images, and leave the store in order whatever happens."""
    begin, made = time.monotonic(), [0, 0]
    store = Store.create(Path(work.order.folder), work.settings)
    place = f"shard-{shard[0]}-of-{shard[1]}"
    try:
        with store.writing(place):
            if jobs == 1 and on == "local":
                _here(store, work, wanted, shard, meter, made)
            else:
                _spread(store, work.order, work.source.batch, wanted, shard, meter, made, (place, jobs, on))
    except KeyboardInterrupt:
        _close(store, out, made, time.monotonic() - begin)
        fail("interrupted; the same command goes on")
        raise typer.Exit(130) from None
    except BaseException:
        with suppress(AugkitError, OSError):  # what went wrong first is told
            store.rebuild()
        raise
    _close(store, out, made, time.monotonic() - begin)


def _here(
    store: Store, work: Work, wanted: Mapping[Cell, int], shard: tuple[int, int], meter: Meter, made: list[int]
) -> None:
    """Make images in this process."""
    from augkit.lab.run import threads

    with threads(work.order.recipe["threads"]):
        store.settle(work.identity)
        chunks = store.missing(wanted, work.source.batch, shard)
        count = _Counter(meter, chunks, made)
        make_chunks(store, work, chunks, count)


def _spread(
    store: Store,
    order: Order,
    batch: int,
    wanted: Mapping[Cell, int],
    shard: tuple[int, int],
    meter: Meter,
    made: list[int],
    where: tuple[str, int, str],
) -> None:
    """Make images in other processes; one of them lets the source learn before the others begin."""
    from augkit.lab import jobs as processes

    place, jobs, on = where
    told = {"order": asdict(order), "place": place}

    def good(result: processes.Result) -> None:
        if result.failed:
            raise AugkitError(result.reason or "")

    processes.map([processes.Task("prepare", "augkit_diffusion.making:prepare", told)], on, 1, done=good)
    chunks = store.missing(wanted, batch, shard)
    count = _Counter(meter, chunks, made)

    def done(result: processes.Result) -> None:
        good(result)
        count(*result.value)

    size = max(1, -(-len(chunks) // (jobs * TASKS)))
    parts = [chunks[i : i + size] for i in range(0, len(chunks), size)]
    tasks = [
        processes.Task(
            f"part-{i:05d}", "augkit_diffusion.making:make_part", told | {"parts": [_plain(chunk) for chunk in part]}
        )
        for i, part in enumerate(parts)
    ]
    processes.map(tasks, on, jobs, done=done)


def _plain(chunk: Chunk) -> list[object]:
    return [chunk.label, chunk.group, chunk.index, list(chunk.missing)]


class _Counter:
    """Counts the images of chunks as they are finished, and shows them."""

    def __init__(self, meter: Meter, chunks: Sequence[Chunk], made: list[int]) -> None:
        self.meter, self.made = meter, made
        self.total = sum(len(chunk.missing) for chunk in chunks)

    def __call__(self, written: int, refused: int) -> None:
        self.made[0] += written
        self.made[1] += refused
        self.meter("images", sum(self.made), self.total)


def _close(store: Store, out: Path, made: Sequence[int], seconds: float) -> None:
    """Make the manifest anew, and tell what was done."""
    strangers = store.rebuild()
    if strangers:
        first = strangers[0].relative_to(store.folder)
        note(f"{len(strangers)} files in {out} are no images of this store, such as {first}; move them away")
    kept = len(store.images())
    refused = f", {made[1]} refused by the model's safety checker" if made[1] else ""
    speed = f" in {seconds:.1f} s, {sum(made) / seconds:.3g} images/s" if sum(made) else ""
    print(f"{made[0]} images made{refused}{speed}; {kept} kept in the store", file=sys.stdout)
    print(out)
