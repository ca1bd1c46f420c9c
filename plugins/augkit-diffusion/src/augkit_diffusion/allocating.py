"""Allocation by validation: how many images sources learn from, which classes are filled up, and how far.

CoDSA (Tian and Shen, Conditional Data Synthesis Augmentation, arXiv 2504.07426, 2025) splits the real images into those
that a generator is tuned with and those that are trained on, shares m synthetic images out over regions of the data by
a point of the simplex, and chooses split, point and m / n by validation. Here regions are classes (classes in groups
where groups are known), n counts all real training images, those set apart included, so that a ratio means as many
synthetic images in every split, and candidates are the grid of what is asked for. Nothing reads the test set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import AugkitError, StateError
from augkit.lab import folder as files
from augkit_diffusion.allocation import by_budget, cells_of
from augkit_diffusion.candidates import (
    SETTINGS,
    Candidate,
    Earlier,
    Question,
    check_folder,
    check_ratios,
    check_validation,
    read_json,
    splits_for,
)
from augkit_diffusion.choosing import Choice
from augkit_diffusion.chunks import Cell
from augkit_diffusion.making import Work, data_facts, foresee, open_work
from augkit_diffusion.taking import Taken, There, numbers_in, taken_of

if TYPE_CHECKING:
    from augkit.lab.data import Data
    from augkit.lab.jobs import Result, Task

STORES, RUNS, DONE, LOGS = "stores", "runs", "done", "logs"
CONTROL = "control"


class Allocation:
    """A question with its data: what is to be made and trained, and the making and training."""

    def __init__(self, question: Question, out: Path, say: Callable[[str], None]) -> None:
        from augkit.lab import data as lab_data

        self.question, self.out, self.say = question, out.absolute(), say
        self.data: Data = lab_data.load(question.recipe.data)
        check_validation(self.data)
        self.grouped = self.data.train.groups is not None
        """Whether cells are classes in groups."""
        self.counts = cells_of(self.data, self.grouped)
        self.real = sum(self.counts.values())
        check_ratios(question.ratios, self.real)
        self.splits = splits_for(self._work(0.0).source, question.order.source, question.splits)
        asked = [
            Candidate(split, weights, ratio)
            for split in self.splits
            for ratio in question.ratios
            for weights in question.weights
        ]
        self.wanted = {candidate: self._shared_out(candidate) for candidate in asked}
        self.kept = {0.0: self.real}
        """Real images that are trained on, by split."""
        self.earlier = Earlier.read(self.out)
        self.others = [row for candidate, row in self.earlier.rows.items() if candidate not in self.wanted]
        """Candidates of earlier calls alone: judged as well, but not trained again."""
        self.seeds = [seed for seed in question.seeds if all(str(seed) in row["values"] for row in self.others)]
        """By which all candidates are judged."""

    def try_out(self) -> None:
        """Raise what is wrong with the recipe, the source or a store, before anything is made."""
        import torch

        from augkit.lab import models, optimise
        from augkit.lab.loop import prepare
        from augkit.lab.run import pick_device
        from augkit.plugins import registry
        from augkit_diffusion.settings import check

        if not self.seeds:
            shared = set.intersection(*(set(row["values"]) for row in self.others))
            raise AugkitError(
                "candidates of earlier calls do not all have one of these --seeds, so that nothing compares them: say"
                f" some of theirs ({', '.join(sorted(shared, key=int))}), or choose another folder with --out",
                file=self.out,
            )
        recipe = self.question.recipe
        pick_device(recipe.device)
        models.check(recipe.model.name)
        optimise.check(recipe.optimizer.name, recipe.schedule.name)
        prepare(recipe.model_copy(update={"test": False}), self.data, registry(), torch.device("cpu"))
        for split in self.splits:
            work = self._work(split)
            self.kept[split] = len(work.data.train)
            foresee(work, self.greediest(split))
            check(self.store(split), work.settings)

    # the stores

    def store(self, split: float) -> Path:
        """The folder of a split's images."""
        return self.out / STORES / f"split-{split:g}"

    def greediest(self, split: float) -> dict[Cell, int]:
        """As many images of each cell as the candidate of this split that wants most of it."""
        wanted = [of for candidate, of in self.wanted.items() if candidate.split == split]
        return {cell: max(of[cell] for of in wanted) for cell in self.counts}

    def _work(self, split: float, progress: Callable[[str, int, int], None] | None = None) -> Work:
        recipe = self.question.recipe.model_dump(mode="json")
        recipe["sources"] = {"tuning": split} if split else None
        order = replace(self.question.order, recipe=recipe, folder=str(self.store(split)), groups=self.grouped)
        return open_work(order, None if split else self.data, progress)

    def make(self, jobs: int, on: str) -> None:
        """Make the images that are missing of each store; raises KeyboardInterrupt when it is interrupted."""
        from augkit_diffusion.make_command import Making
        from augkit_diffusion.progress import Meter
        from augkit_diffusion.store import Store

        for split in self.splits:
            with Meter() as meter:
                work = self._work(split, meter)
                store = Store.create(self.store(split), work.settings)
                making = Making(work, store, self.greediest(split), (1, 1), meter)
                if making.run(jobs, on):
                    raise KeyboardInterrupt
            if making.written:
                self.say(f"{self.store(split)}: {making.written} images made in {making.seconds:.0f} s")

    def taken(self) -> dict[Candidate, Taken]:
        """What each candidate takes of its store."""
        there = {split: numbers_in(self.store(split)) for split in self.splits}
        return {candidate: self._taken(candidate, there[candidate.split]) for candidate in self.wanted}

    def stale(self) -> set[Candidate]:
        """Candidates of earlier calls alone whose images are no longer those that they were measured with."""
        there = {split: numbers_in(self.store(split)) for split in {_candidate(row).split for row in self.others}}
        return {
            candidate
            for row in self.others
            if self._taken(candidate := _candidate(row), there[candidate.split]) != Taken(row["take"], row["gaps"])
        }

    def _taken(self, candidate: Candidate, there: There) -> Taken:
        wanted = self.wanted.get(candidate) or self._shared_out(candidate)
        return taken_of(there, wanted, self.data.class_names, self.data.group_names)

    def _shared_out(self, candidate: Candidate) -> dict[Cell, int]:
        return by_budget(self.counts, round(candidate.ratio * self.real), candidate.weights)

    # the runs

    def controls(self) -> dict[str, dict[str, Any]]:
        """The recipes without synthetic images: as it is, and with as many training steps as the longest candidate has,
        of earlier calls too, if any has more. The latter's name says its epochs, since further ones may be longer."""
        from augkit.lab.grid import shorten

        recipe, found = self.question.recipe, {CONTROL: self.question.recipe_of(None)}
        if self.question.sources.get("replace") is None:  # with it epochs are as long as without synthetic images
            most = max(self.kept[candidate.split] + sum(wanted.values()) for candidate, wanted in self.wanted.items())
            epochs = max(round(recipe.epochs * most / self.real), self.earlier.epochs)
            if epochs > recipe.epochs:
                found[f"{CONTROL}-{epochs}-epochs"] = shorten(recipe, epochs).model_dump(mode="json")
        return found

    def tasks(self, taken: Mapping[Candidate, Taken]) -> list[Task]:
        """A run for each candidate and control and each seed, seeds outermost."""
        from augkit.lab.jobs import Task

        recipes: list[tuple[str, dict[str, Any], dict[str, str]]] = [
            (name, recipe, {}) for name, recipe in self.controls().items()
        ]
        for candidate, images in taken.items():
            place = {"store": str(self.store(candidate.split))}
            recipes.append((_name(candidate, images), self.question.recipe_of(candidate, images.take), place))
        return [
            Task(
                f"{name}-seed{seed}",
                "augkit_diffusion.trainings:train_one",
                {"recipe": recipe | {"seed": seed, "test": False}},
                {"folder": str(self.out / RUNS / f"{name}-seed{seed}"), **place},
            )
            for seed in self.question.seeds
            for name, recipe, place in recipes
        ]

    def run(self, jobs: int, on: str) -> Choice:
        """Make and train what is missing, and what failed once more, and choose.

        Raises:
            AugkitError: the folder holds something else, or every run of the control or of the candidates failed.
        """
        from augkit.lab import jobs as spread

        check_folder(self.out)
        settings = self._settings()
        self._same(settings)
        self.try_out()
        self.say(self.words())
        with files.claim(self.out):
            files.write_json(self.out / SETTINGS, settings)
            self.make(jobs, on)
            taken = self.taken()
            tasks = self.tasks(taken)
            there = spread.recorded(tasks, self.out / DONE)
            teller = _Teller(len(tasks), sum(not one.failed for one in there), self.say)
            done = spread.map(
                tasks, on, jobs, record=self.out / DONE, logs=self.out / LOGS, retry=True, done=teller.done
            )
            return self._choice(taken, {result.name: result for result in done}, self.stale())

    def words(self) -> str:
        """What there is to do."""
        question, controls = self.question, len(self.controls())
        runs = (len(self.wanted) + controls) * len(question.seeds)
        images = [sum(self.greediest(split).values()) for split in self.splits]
        shape = "; ".join(
            f"{what} {', '.join(one if isinstance(one, str) else f'{one:g}' for one in values)}"
            for what, values in (("splits", self.splits), ("ratios", question.ratios), ("weights", question.weights))
        )
        judged = ""
        if self.others:
            by = ", ".join(map(str, self.seeds))
            judged = f"; judged with {_many(len(self.others))} of earlier calls, by the seeds that all have: {by}"
        return (
            f"{_many(len(self.wanted))} ({shape}) and {controls} without synthetic images, with"
            f" {len(question.seeds)} seed{'s' * (len(question.seeds) > 1)}: {runs} runs; {sum(images)} images to be"
            f" made, {' and '.join(map(str, images))} for each split; what is there already is not made again{judged}"
        )

    def _settings(self) -> dict[str, Any]:
        """What makes it this choice; splits, ratios, weights and seeds may be others in another call."""
        question, order = self.question, self.question.order
        told = {
            "recipe": question.recipe.model_dump(mode="json"),
            "sources": dict(question.sources),
            "source": {"name": order.source, "options": order.options, "seed": order.seed},
            "data": data_facts(self.data),
        }
        return json.loads(json.dumps(told))  # type: ignore[no-any-return]

    def _same(self, here: Mapping[str, Any]) -> None:
        if not (self.out / SETTINGS).exists():
            return
        there = read_json(self.out / SETTINGS)
        differing = [name for name in here if there.get(name) != here[name]]
        if differing:
            raise StateError(
                f"this choice was begun with another {' and '.join(differing)}; give the command that began it (splits,"
                " ratios, weights and seeds may differ) or choose another folder with --out",
                file=self.out,
            )

    def _choice(
        self, taken: Mapping[Candidate, Taken], done: Mapping[str, Result], stale: Container[Candidate] = ()
    ) -> Choice:
        """What the finished runs say."""

        def values(name: str) -> dict[str, float | None]:
            found = {seed: done[f"{name}-seed{seed}"] for seed in self.question.seeds}
            return {str(seed): None if one.failed else one.value["balanced"] for seed, one in found.items()}

        def scores(by_seed: Mapping[str, float | None]) -> dict[int, float]:
            return {seed: value for seed in self.seeds if (value := by_seed[str(seed)]) is not None}

        rows: list[Mapping[str, Any]] = []
        for candidate, images in taken.items():
            before = self.earlier.rows.get(candidate)
            same = before is not None and Taken(before["take"], before["gaps"]) == images
            known = before["values"] if before is not None and same else {}
            found = {**candidate._asdict(), "images": images.images, **images._asdict(), "stale": False}
            found["store"] = f"{STORES}/split-{candidate.split:g}"
            rows.append({**found, "values": {**known, **values(_name(candidate, images))}})
        rows += [{**row, "stale": _candidate(row) in stale} for row in self.others]
        val = self.data.val
        assert val is not None
        told = {
            "recipe": self.question.recipe.name,
            "real_images": self.real,
            "validation_images": len(val),
            "seeds": self.seeds,
            "failed": {name: result.reason for name, result in done.items() if result.failed},
        }
        controls = {name: (recipe["epochs"], scores(values(name))) for name, recipe in self.controls().items()}
        return Choice(told, rows, [scores(row["values"]) for row in rows], controls)


class _Teller:
    """Says after each run how long the rest may take."""

    def __init__(self, total: int, there: int, say: Callable[[str], None]) -> None:
        self.total, self.before, self.count, self.say, self.begin = total, there, there, say, time.monotonic()

    def done(self, result: Result) -> None:
        """A run is finished."""
        self.count += 1
        what = f"failed: {result.reason}" if result.failed else f"val {result.value['balanced']:.1f} %"
        left = self.total - self.count
        minutes = (time.monotonic() - self.begin) / (self.count - self.before) * left / 60
        rest = f"; {left} left, about {max(1, round(minutes))} min" if left > 0 else ""
        self.say(f"{self.count}/{self.total}  {result.name}  {what}, {result.seconds / 60:.1f} min{rest}")


def _many(candidates: int) -> str:
    return f"{candidates} candidate{'s' * (candidates != 1)}"


def _name(candidate: Candidate, images: Taken) -> str:
    """Of a candidate's runs: others where its images are, as after a filter."""
    return f"{candidate.name}-{images.gaps}" if images.gaps else candidate.name


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate(row["split"], row["weights"], row["ratio"])
