"""A search: generations of strategies, proposed, screened and trained, until a budget ends it.

Everything follows from the settings, the seed and the stored replies, so a search is gone on with by doing it again
from its start: what stands in the archive is taken from there, and the rest is done as it would have been.
`augkit_llm.opening` makes searches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from augkit_llm.archive import Archive
from augkit_llm.budget import HOURS, Budget, StopError
from augkit_llm.cascade import Cascade, ControlError
from augkit_llm.estimate import Estimate, estimate, under_way
from augkit_llm.evaluate import Stage
from augkit_llm.proposing import Barrier, Proposer
from augkit_llm.records import UNANSWERED, Candidate
from augkit_llm.standing import Standing
from augkit_llm.telling import Teller

FAILURES = 5
"""How many of the latest failures a model is told."""
BARREN = 3
"""Generations in a row without a strategy to train that end a search."""
NOTHING_NEW, NO_ANSWER, NO_CONTROL = "nothing new", "no answer", "control failed"
"""Reasons to stop besides the budgets."""


@dataclass(frozen=True)
class Settings:
    """What decides a search, besides the replies of its models."""

    recipe: dict[str, Any]
    """Resolved."""
    models: tuple[tuple[str, float], ...]
    """Names with their shares."""
    stages: tuple[Stage, ...]
    population: int = 8
    """Candidates of a generation."""
    seed: int = 0
    """Of the search; training runs have the seeds 0, 1, ..."""
    repairs: int = 2
    """How often a model may mend a document."""
    prompts: str | None = None
    """A folder of templates that replace ours."""
    names: bool = False
    """Whether models are told the names of the classes."""
    sheet: bool = False
    """Whether models that see are shown a few training images."""

    def as_json(self) -> dict[str, Any]:
        """For the archive."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Settings:
        """As the archive has them."""
        models = tuple((name, share) for name, share in found["models"])
        return cls(**{**found, "models": models, "stages": tuple(Stage(**one) for one in found["stages"])})


@dataclass
class Search:
    """One search at work."""

    archive: Archive
    settings: Settings
    budget: Budget
    proposer: Proposer
    cascade: Cascade
    standing: Standing
    teller: Teller

    def run(self) -> StopError:
        """Go on until something ends it; returns what did.

        Raises:
            ControlError: a control cannot be trained.
        """
        try:
            for model in self.proposer.opened.values():
                self.teller.remark(getattr(model, "remark", ""))
                blind = self.settings.sheet and getattr(model, "sees", False) is False
                self.teller.remark(f"{model.name} sees no images, so that --sheet shows it none" if blind else "")
            self.teller.plan(self.settings, self.estimate(), self.questions())
            for generation in itertools.count():
                self._generation(generation)
        except StopError as stop:
            self.archive.stop(stop.reason, stop.message)
            return stop
        except ControlError as error:
            self.archive.stop(NO_CONTROL, str(error))
            raise
        raise AssertionError("generations do not end by themselves")

    @property
    def late(self) -> bool:
        """Whether its hours are over."""
        try:
            self.budget.allow_time(self.archive.spent())
        except StopError:
            return True
        return False

    def estimate(self) -> Estimate | None:
        """What is still to come; None where evaluations are not bounded."""
        settings, archive = self.settings, self.archive
        begun, missing = under_way(archive, settings.stages), self.cascade.missing()
        return estimate(archive.spent(), self.budget, settings.population, settings.stages, missing, begun)

    def questions(self) -> tuple[int, int, float]:
        """How many questions a strategy can take, and the most tokens and USD of the first, by the dearest model."""
        prices = self.proposer.first_prices()
        tokens, usd = (max((price[part] for price in prices), default=0) for part in (0, 1))
        return (1 + self.settings.repairs) if prices else 0, int(tokens), usd

    def _generation(self, generation: int) -> None:
        """Fill and train one generation, or what is missing of it.

        Raises:
            StopError: the search ends with it, or before.
        """
        slots = self.archive.slots(generation)
        if slots is None:
            self._refuse_barren(generation)
            spent, missing = self.archive.spent(), sum(self.cascade.missing())
            self.budget.allow_time(spent)
            slots = self.budget.slots(spent, self.settings.population, self.settings.stages, missing)
            self.archive.set_slots(generation, slots)
        self._fill(generation, slots)
        self.cascade.run(generation)
        self.teller.generation(generation, self.standing.write_best())
        cut = self.archive.cut(generation)
        if cut is not None:
            self.budget.allow_call(self.archive.spent(), *cut)

    def _fill(self, generation: int, slots: int) -> None:
        """Propose what is missing; a generation for which money runs out is as small as it then is.

        Raises:
            StopError: not one slot could be filled, or no question was answered.
        """
        try:
            for one in self.proposer.fill(generation, slots, self._barrier(generation)):
                self.teller.candidate(one)
        except StopError as stop:
            there = len(self._own(generation))
            if stop.reason == HOURS:
                raise
            if not there:
                self.archive.drop_generation(generation)
                raise
            self.archive.set_slots(generation, there, stop.price)
        own = self._own(generation)
        if all(one.fate == UNANSWERED for one in own):
            self.archive.drop_generation(generation)  # to be asked for again by a search that goes on
            raise StopError(NO_ANSWER, f"no question of generation {generation} was answered: {own[-1].problem}")

    def _own(self, generation: int) -> list[Candidate]:
        return [one for one in self.archive.candidates() if one.generation == generation]

    def _barrier(self, generation: int) -> Barrier:
        """What generation may know: everything of those before it, and nothing of itself."""
        before = self.archive.candidates(before=generation)
        failures = [f"{one.idea or one.operator}: {one.problem}" for one in before if one.problem]
        ranked = self.standing.ranked(before)[: self.settings.population]
        parents = {one.hash: self.standing.parent(one) for one in ranked if one.hash}
        return Barrier(tuple(ranked), parents, tuple(failures[-FAILURES:]))

    def _refuse_barren(self, generation: int) -> None:
        """Raise if the last generations brought nothing that could be trained."""
        last = [one for one in self.archive.candidates() if generation - BARREN <= one.generation < generation]
        if generation >= BARREN and not any(one.trainable for one in last):
            raise StopError(NOTHING_NEW, f"the last {BARREN} generations brought no new strategy that can be trained")
