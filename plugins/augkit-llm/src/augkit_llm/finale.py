"""What follows once a search has stopped: the best strategy's class-agnostic twin is trained, and the test set is read.

Nothing here chooses. What it gives stands in a table of its own, which no part of a search that goes on looks at; a
search that finds a better strategy with a raised budget has its test set read for that one too, and both are told.
Neither the twin's training runs nor the readings count against a budget of evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import AugkitError
from augkit_llm.archive import Archive
from augkit_llm.cascade import LOGS, RECIPE, Place, as_yaml
from augkit_llm.controls import CONTROLS
from augkit_llm.evaluate import RUNS, Stage, tasks
from augkit_llm.files import DOCUMENTS
from augkit_llm.records import Candidate, Closing
from augkit_llm.twin import TwinError, acts_alike, agnostic_twin

if TYPE_CHECKING:
    from augkit.lab.jobs import Result, Task
    from augkit.registry import Registry
    from augkit_llm import trace
    from augkit_llm.search import Search
    from augkit_llm.standing import Best

TWIN, TEST = "twin", "test"
FINALES = "finales"
"""Of the meta table: for each best strategy that had its finale, its `hash`, `stage`, `twin` (a subject or None) and
`why` there is none."""
ALIKE = "it treats all classes alike, so it is its own twin"
PLAYED = "it treats all classes alike: what it reads of them makes no difference in a training that was played to both"


@dataclass
class Finale:
    """The end of a search; all that is done already is left out."""

    archive: Archive
    folder: Path
    registry: Registry
    place: Place
    played: trace.Stage
    """Where it is found out whether a twin does anything else than its strategy."""
    told: Callable[[str], None]
    """Called with a line for each part."""

    def run(self, best: Best | None) -> None:
        """Train the twin and read the test set once for the best strategy, its twin and the controls.

        What fails is stored with its reason, and tried again when the search is gone on with.
        """
        if best is None:
            return
        name, stage = str(best.candidate.hash), best.stage
        noted = [one for one in finales(self.archive) if (one["hash"], one["stage"]) == (name, stage.name)]
        twin, why = (noted[0]["twin"], noted[0]["why"]) if noted else self._twin(best.candidate)
        self._note({"hash": name, "stage": stage.name, "twin": twin, "why": why})
        subjects = [name, *CONTROLS]
        if twin is not None:
            self._train(stage, twin)
            done = {one.seed for one in self.archive.closings(TWIN, stage.name) if self._done(one, twin)}
            subjects += [twin] if len(done) == stage.seeds else []
        self._read(stage, subjects)

    def _twin(self, best: Candidate) -> tuple[str | None, str | None]:
        """The name of a strategy's twin, whose file is written, or why it has none."""
        from augkit.lab import folder as files
        from augkit.strategy.document import load_strategy

        try:
            document = agnostic_twin(best.document or {}, tuple(self.registry.signals))
            if document is None:
                return None, ALIKE
            load_strategy(document, self.registry)
            if acts_alike(best.document or {}, document, self.registry, self.played):
                return None, PLAYED
        except TwinError as error:
            return None, str(error)
        except AugkitError as error:
            return None, f"what is left without classes is no valid strategy: {' '.join(str(error).split())}"
        name = f"{best.hash}-{TWIN}"
        path = self._file(name)
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            files.write(path, as_yaml(document))
        return name, None

    def _file(self, name: str) -> Path:
        return self.folder / DOCUMENTS / f"{name}.yaml"

    def _note(self, one: Mapping[str, Any]) -> None:
        """Remember for whom the test set is read, in the order of it."""
        noted = finales(self.archive)
        if dict(one) not in noted:
            self.archive.set_meta(FINALES, [*noted, one])

    def _train(self, stage: Stage, twin: str) -> None:
        """The twin's training runs, like those of the best in its stage."""
        seeds = range(stage.seeds)
        found = tasks(stage, str(self.folder / RECIPE), {twin: str(self._file(twin))}, self.folder, seeds=seeds)
        self._do(TWIN, stage, {(twin, seed): task for seed, task in zip(seeds, found, strict=True)})

    def _read(self, stage: Stage, subjects: list[str]) -> None:
        """The test set, for each subject and seed that it was not read for."""
        from augkit.lab.jobs import Task

        runs = {(name, seed): f"{stage.name}-{name}-seed{seed}" for name in subjects for seed in range(stage.seeds)}
        self._do(
            TEST,
            stage,
            {
                key: Task(f"{TEST}-{run}", "augkit_llm.evaluate:read_test", {}, {"run": str(self.folder / RUNS / run)})
                for key, run in runs.items()
            },
        )

    def _do(self, kind: str, stage: Stage, wanted: Mapping[tuple[str, int], Task]) -> None:
        """Do what is missing, and store each outcome as it comes in."""
        from augkit.lab import jobs
        from augkit.lab.worker import Limits

        there = {(one.subject, one.seed) for one in self.archive.closings(kind, stage.name) if one.state == "done"}
        missing = {key: task for key, task in wanted.items() if key not in there}
        by_name = {task.name: key for key, task in missing.items()}
        if not missing:
            return

        def finished(result: Result) -> None:
            state = "failed" if result.failed else "done"
            key = by_name[result.name]
            one = Closing(kind, stage.name, *key, state, result.value, result.reason, result.seconds)
            self.archive.finish_closing(one)
            if kind == TWIN or result.failed:
                how = f"failed: {result.reason}" if result.failed else f"reward {(result.value or {})['reward']:.3f}"
                self.told(f"{kind} of the best  {stage.name}  {key[0][:12]}  seed {key[1]}  {how}")

        seconds = None if self.place.minutes is None else 60 * self.place.minutes
        limits = Limits(seconds, self.place.memory)
        todo = list(missing.values())
        jobs.map(todo, self.place.on, self.place.jobs, logs=self.folder / LOGS, limits=limits, done=finished)

    @staticmethod
    def _done(one: Closing, subject: str) -> bool:
        return one.subject == subject and one.state == "done"


def close(search: Search) -> None:
    """The finale of a search that has stopped."""
    from augkit_llm import trace

    best = search.standing.best()
    if best is not None:
        search.teller.say("the search has stopped; its test set is read, which chooses nothing")
    place = search.cascade.place
    registry, data = search.proposer.registry, search.proposer.data
    played = trace.Stage(data.counts, data.image_size, search.proposer.recipe.epochs)
    Finale(search.archive, search.cascade.folder, registry, place, played, search.teller.say).run(best)


def finales(archive: Archive) -> list[dict[str, Any]]:
    """Whose tests were read, the latest last; see `FINALES`."""
    try:
        return list(archive.meta(FINALES))
    except KeyError:
        return []
