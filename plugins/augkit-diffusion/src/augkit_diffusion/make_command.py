"""The verb `augkit synth make`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augkit.cli.output import Json, note, resumable, show_json
from augkit.errors import AugkitError
from augkit_diffusion import request as ask
from augkit_diffusion.chunks import Cell, Chunk, parse_shard
from augkit_diffusion.making import Work, foresee, make_chunks, open_work
from augkit_diffusion.progress import Meter
from augkit_diffusion.settings import check
from augkit_diffusion.sources import Learning, Progress
from augkit_diffusion.store import Store

if TYPE_CHECKING:
    from augkit.lab.jobs import Result

Refill = Annotated[
    bool, typer.Option("--refill", help="In place of images that filters put aside, make others behind the last one.")
]
TASKS = 8
"""Parts of the work for each process, so that none waits long for another at the end."""


def make(
    recipe: ask.Recipe,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The store: a new folder, or one to go on in.")],
    source: ask.Source,
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
    refill: Refill = False,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that make images at once.")] = 1,
    on: Annotated[str, typer.Option(help="Where they work: local or ray.")] = "local",
    as_json: Json = False,
) -> None:
    """Make the images that are missing.

    The same command again goes on after a kill, and makes nothing twice; a higher --target adds images and keeps those
    that are there, and --refill replaces those that filters put aside. Shards, processes and restarts change no image.

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
    flags = {"model": model, "steps": steps, "guidance": guidance, "batch": batch, "precision": precision}
    given = ask.read_options(options, **flags, strength=strength, prompts=prompts)
    order = ask.make_order(
        recipe, overrides, source, given, registry(), folder=out, seed=seed, groups=groups, device=device
    )
    with resumable(), Meter() as meter:
        work = open_work(order, progress=meter)
        wanted = how_many.wanted(work.data)
        foresee(work, wanted)
        check(out, work.settings)
        store = Store.create(Path(order.folder), work.settings)
        if refill:
            store.rebuild()
            wanted = store.refilled(wanted)
        making = Making(work, store, wanted, part, meter)
        interrupted = making.run(jobs, on)
        _tell(making, out, as_json)
        if interrupted:
            raise KeyboardInterrupt


@dataclass
class Making:
    """The making of one shard's images; counts them as they are finished."""

    work: Work
    store: Store
    wanted: Mapping[Cell, int]
    shard: tuple[int, int]
    meter: Progress
    written: int = 0
    refused: int = 0
    seconds: float = 0.0
    """Since the source was ready."""
    strangers: Sequence[Path] = ()
    """Files in the store that are none of its images."""

    def run(self, jobs: int, on: str) -> bool:
        """Make what is missing, and leave the store in order whatever happens; whether the user interrupted it."""
        interrupted = False
        try:
            with self.store.writing(self.place):
                if jobs == 1 and on == "local":
                    self._here()
                else:
                    self._spread(jobs, on)
        except KeyboardInterrupt:
            interrupted = True
        except BaseException:
            with suppress(AugkitError, OSError):  # what went wrong first is told
                self.store.rebuild()
            raise
        self.strangers = self.store.rebuild()
        return interrupted

    @property
    def place(self) -> str:
        """What this part of the store's work is called."""
        return f"shard-{self.shard[0]}-of-{self.shard[1]}"

    def _here(self) -> None:
        """Make images in this process."""
        from augkit.lab.run import threads

        with threads(self.work.order.recipe["threads"]):
            self.store.settle(self.work.identity)
            chunks = self._missing()
            make_chunks(self.store, self.work, chunks, self._counter(chunks))

    def _spread(self, jobs: int, on: str) -> None:
        """Make images in other processes. If the source must learn, one of them lets it before the others begin."""
        from augkit.lab import jobs as processes

        told = {"order": asdict(self.work.order), "place": self.place}
        if isinstance(self.work.source, Learning) and not self.work.source.ready:
            learns = processes.Task("prepare", "augkit_diffusion.making:prepare", told)
            processes.map([learns], on, 1, done=_good)
        else:
            self.store.settle(self.work.identity)
        chunks = self._missing()
        count = self._counter(chunks)

        def done(result: processes.Result) -> None:
            _good(result)
            count(*result.value)

        size = max(1, -(-len(chunks) // (jobs * TASKS)))
        parts = [[_plain(chunk) for chunk in chunks[i : i + size]] for i in range(0, len(chunks), size)]
        make_part = "augkit_diffusion.making:make_part"
        tasks = [processes.Task(f"part-{i:05d}", make_part, told | {"parts": part}) for i, part in enumerate(parts)]
        processes.map(tasks, on, jobs, done=done)

    def _missing(self) -> list[Chunk]:
        return self.store.missing(self.wanted, self.work.source.batch, self.shard)

    def _counter(self, chunks: Sequence[Chunk]) -> Callable[[int, int], None]:
        total, begin = sum(len(chunk.missing) for chunk in chunks), time.monotonic()

        def count(written: int, refused: int) -> None:
            self.written += written
            self.refused += refused
            self.seconds = time.monotonic() - begin
            self.meter("images", self.written + self.refused, total)

        return count


def _good(result: Result) -> None:
    """Raise if a task failed; that ends the others."""
    if result.failed:
        raise AugkitError(result.reason or "")


def _plain(chunk: Chunk) -> list[object]:
    return [chunk.label, chunk.group, chunk.index, list(chunk.missing)]


def _tell(making: Making, out: Path, as_json: bool) -> None:
    """Say what was done."""
    if making.strangers:
        first = making.strangers[0].relative_to(making.store.folder)
        count = len(making.strangers)
        note(f"{count} files in {out} are no images of this store, such as {first}; move them away")
    made = making.written + making.refused
    kept = len(making.store.images())
    if as_json:
        facts = {"made": making.written, "refused": making.refused, "seconds": making.seconds, "kept": kept}
        show_json({**facts, "store": str(out)})
        return
    refused = f", {making.refused} refused by the model's safety checker" if making.refused else ""
    speed = f" in {making.seconds:.1f} s, {made / making.seconds:.3g} images/s" if made else ""
    print(f"{making.written} images made{refused}{speed}; {kept} kept in the store\n{out}")
