"""The evaluations of a generation: stage by stage, next to the controls, and what can no longer win is left behind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import StateError
from augkit_llm.archive import Archive
from augkit_llm.budget import Budget
from augkit_llm.controls import CONTROLS
from augkit_llm.evaluate import BASELINE, Stage, baselines, tasks
from augkit_llm.files import DOCUMENTS
from augkit_llm.records import FAILED, FINISHED, PASSED_OVER, READY, STOPPED, Candidate, Evaluation
from augkit_llm.reward import Score, ranked, score

if TYPE_CHECKING:
    from augkit.lab.jobs import Result, Task

LOGS, RECIPE = "logs", "recipe.yaml"
Fates = dict[int, tuple[str, str, "str | None"]]


class ControlError(StateError):
    """A control cannot be trained."""


@dataclass(frozen=True)
class Place:
    """Where training runs, and how far it may go."""

    jobs: int = 1
    on: str = "local"
    minutes: float | None = None
    """The longest that one training run may take."""
    memory: float | None = None
    """The most MiB that it may hold."""


@dataclass
class Cascade:
    """Trains strategies in stages. Rewards stand in the archive; nothing that stands there is trained again."""

    archive: Archive
    budget: Budget
    folder: Path
    stages: Sequence[Stage]
    epochs: int
    """Of the recipe."""
    place: Place
    told: Callable[[Evaluation], None]
    """Called after each training run."""

    def run(self, generation: int) -> None:
        """Take a generation through the stages, and note what became of each candidate.

        Raises:
            StopError: the hours are over.
            ControlError: a control cannot be trained.
        """
        going = [one for one in self.archive.candidates() if one.generation == generation and one.trainable]
        for stage in self.stages:
            if not going:
                return
            self._train(stage, going)
            fates, going = self._chosen(stage, going)
            self.archive.set_fates(generation, fates)

    def missing(self) -> list[int]:
        """Training runs of controls and baselines that are still to be made, by stage, whoever the candidates are."""
        there = {(one.stage, one.subject, one.seed) for one in self.archive.evaluations() if one.state != "begun"}
        return [
            sum(
                (stage.name, name, seed) not in there
                for name in (*CONTROLS, *([BASELINE] if stage.warm else []))
                for seed in range(stage.seeds)
            )
            for stage in self.stages
        ]

    def _chosen(self, stage: Stage, going: Sequence[Candidate]) -> tuple[Fates, list[Candidate]]:
        """What becomes of each candidate, by slot, and those that go on, the best first."""
        scores = scores_of(self.archive, stage)
        reasons = {one.subject: one.reason for one in self.archive.evaluations(stage.name) if one.state == "failed"}
        last = stage is self.stages[-1]
        fates: Fates = {}
        alive: list[Candidate] = []
        for one in going:
            name = str(one.hash)
            if name not in scores:
                fates[one.slot] = FAILED, stage.name, f"its training failed: {reasons.get(name)}"
            elif stage is self.stages[0] and not last and (below := hopeless(name, scores)):
                fates[one.slot] = STOPPED, stage.name, f"after {stage.epochs} epochs its reward was {below}"
            else:
                alive.append(one)
        order = ranked(alive, scores, lambda one: str(one.hash))
        kept = order if stage.keep is None or last else order[: stage.keep]
        for one in alive:
            fates[one.slot] = FINISHED if last else READY if one in kept else PASSED_OVER, stage.name, None
        return fates, [] if last else kept

    def _train(self, stage: Stage, going: Sequence[Candidate]) -> None:
        """The controls and these candidates with every seed, as far as that is not done."""
        recipe, seeds = str(self.folder / RECIPE), range(stage.seeds)
        first = baselines(stage, recipe, self.epochs, self.folder, seeds=seeds)
        self._do(stage, {(BASELINE, seed): task for seed, task in zip(seeds, first, strict=False)})
        where = {name: name for name in CONTROLS}
        where |= {str(one.hash): str(self._written(one)) for one in going}
        pairs = [(name, seed) for name in where for seed in seeds]
        found = tasks(stage, recipe, where, self.folder, seeds=seeds)
        self._do(stage, dict(zip(pairs, found, strict=True)))

    def _written(self, one: Candidate) -> Path:
        """The file of a candidate's document."""
        from augkit.lab import folder as files

        path = self.folder / DOCUMENTS / f"{one.hash}.yaml"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            files.write(path, as_yaml(one.document or {}))
        return path

    def _do(self, stage: Stage, wanted: Mapping[tuple[str, int], Task]) -> None:
        """Make training runs, each by its subject and seed, and store their outcomes as they come in."""
        from augkit.lab import jobs
        from augkit.lab.worker import Limits

        done = {(one.subject, one.seed) for one in self.archive.evaluations(stage.name) if one.state != "begun"}
        missing = {run: task for run, task in wanted.items() if run not in done}
        if not missing:
            return
        self.budget.allow_time(self.archive.spent())
        self.archive.begin_evaluations(stage.name, list(missing))
        by_name = {task.name: run for run, task in missing.items()}
        seconds = None if self.place.minutes is None else 60 * self.place.minutes
        jobs.map(
            list(missing.values()),
            self.place.on,
            self.place.jobs,
            logs=self.folder / LOGS,
            limits=Limits(seconds, self.place.memory),
            done=lambda result: self._finished(stage.name, *by_name[result.name], result),
        )

    def _finished(self, stage: str, subject: str, seed: int, result: Result) -> None:
        """Store the outcome of a training run.

        Raises:
            StopError: the hours are over; what is under way is ended.
            ControlError: a control failed, so that there is nothing to measure by.
        """
        if result.failed and subject in (*CONTROLS, BASELINE):
            self.archive.drop_evaluation(stage, subject, seed)
            raise ControlError(
                f'the control "{subject}" cannot be trained: {result.reason}; give other limits with --resume and'
                " --limit-minutes or --limit-memory, or mend the recipe and search anew",
                file=self.folder / LOGS / f"{result.name}.txt",
            )
        value, state = result.value or {}, "failed" if result.failed else "done"
        reward, error = value.get("reward"), value.get("standard_error")
        one = Evaluation(stage, subject, seed, state, reward, error, result.value, result.reason, result.seconds)
        self.archive.finish_evaluation(one)
        self.told(one)
        self.budget.allow_time(self.archive.spent())


def scores_of(archive: Archive, stage: Stage) -> dict[str, Score]:
    """The score in a stage of each control and candidate whose runs are all done, by name or hash."""
    runs: dict[str, list[Evaluation]] = {}
    for one in archive.evaluations(stage.name):
        if one.state == "done" and one.subject != BASELINE:
            runs.setdefault(one.subject, []).append(one)
    return {name: score(name, own) for name, own in runs.items() if len(own) == stage.seeds}


def hopeless(name: str, scores: Mapping[str, Score]) -> str:
    """'0.412, below uniform_class_choice (0.480) by more ...' for what is worse than every control; else nothing."""
    own = scores[name]
    lowest = min((scores[control] for control in CONTROLS), key=lambda one: one.reward)
    error = math.hypot(own.standard_error, lowest.standard_error)
    if own.reward >= lowest.reward - error:
        return ""
    return (
        f"{own.reward:.3f}, below every control (the lowest, {lowest.name}: {lowest.reward:.3f}) by more than the"
        f" standard error of the difference, {error:.3f}"
    )


def as_yaml(document: Mapping[str, Any], header: Sequence[str] = ()) -> str:
    """A strategy as YAML, under comment lines, that reads back as it was."""
    from augkit.strategy.reading import read_text
    from augkit_llm.files import yaml_text

    text = yaml_text(document, header)
    return text if read_text(text).data == document else yaml_text({}, header) + json.dumps(document, indent=1) + "\n"
