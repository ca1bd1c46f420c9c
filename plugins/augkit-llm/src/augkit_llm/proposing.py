"""How the slots of a generation are filled: a model writes, or chance does; then everything goes through the screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit_llm import records as fates
from augkit_llm.archive import Archive
from augkit_llm.at_once import at_once
from augkit_llm.budget import Budget, StopError
from augkit_llm.models import MAX_REPLY, Model, ModelError, Question, Reply
from augkit_llm.records import Candidate
from augkit_llm.request import DataFacts, Parent, Request
from augkit_llm.selection import INITIAL, NONE, Draw, draw, stream

if TYPE_CHECKING:
    import numpy as np

    from augkit.lab.recipe import Recipe
    from augkit.registry import Registry


class _Heard(Exception):
    """How a question is listened to that nobody shall answer."""

    def __init__(self, question: Question) -> None:
        self.question = question


_Drawn = tuple[Candidate, "np.random.Generator"]


@dataclass(frozen=True)
class Barrier:
    """What a generation may know: everything of the generations before it."""

    ranked: tuple[Candidate, ...]
    """Those that may be parents, the best first."""
    parents: Mapping[str, Parent]
    """By hash."""
    failures: tuple[str, ...]
    """What failed lately, and why."""


@dataclass
class Proposer:
    """Fills slots. All it does is a function of the search's seed and the stored replies."""

    archive: Archive
    budget: Budget
    registry: Registry
    models: Sequence[tuple[str, float]]
    """Names with their shares."""
    opened: Mapping[str, Model]
    """All of them but `none`."""
    data: DataFacts
    recipe: Recipe
    seed: int
    repairs: int = 2
    prompts: Path | None = None
    """A folder of templates that replace ours."""
    at_once: int = 4
    """How many slots are asked for at once, where the budget allows for all of them."""

    @cached_property
    def offered(self) -> Registry:
        """What models may choose from."""
        from augkit_llm.prompts import admitted

        return admitted(self.registry)

    def fill(self, generation: int, slots: int, barrier: Barrier) -> Iterator[Candidate]:
        """Propose, screen and store what a generation lacks; each candidate as it is stored.

        Raises:
            StopError: a budget leaves too little for the next call, or the hours are over (calls that are under way are
                left to themselves); the slots before are stored.
        """
        there = {one.slot for one in self.archive.candidates() if one.generation == generation}
        missing = [slot for slot in range(slots) if slot not in there]
        draws = [self.draw(generation, slot, barrier) for slot in missing]
        # one after another where money may end, so that which call no longer fits does not depend on which is quicker
        number = self.at_once if self._affords(draws, barrier) else 1
        yield from map(self._screened, at_once(number, lambda one: self._proposed(one, barrier), draws, self._left))

    def _left(self) -> float | None:
        """Seconds that the budget has left.

        Raises:
            StopError: none.
        """
        spent = self.archive.spent()
        self.budget.allow_time(spent)
        return None if self.budget.hours is None else self.budget.hours * 3600 - spent.seconds

    def draw(self, generation: int, slot: int, barrier: Barrier) -> _Drawn:
        """An empty candidate that says what is to be made, and the rest of the slot's random numbers."""
        random = stream(self.seed, generation, slot)
        found: Draw = draw(random, generation, slot, self.models, barrier.ranked)
        parents = tuple(one.hash for one in found.parents if one.hash is not None)
        return Candidate(generation, slot, found.operator, found.model, found.origin, parents), random

    def price(self, one: Candidate, barrier: Barrier) -> tuple[int, float]:
        """The most tokens and USD that the first call for a slot can cost; nothing without a model."""
        from augkit_llm.writing import write

        if one.model == NONE:
            return 0, 0.0
        model = self.opened[one.model]

        def listen(question: Question) -> Reply:
            raise _Heard(question)

        try:
            write(model, self._request(one, barrier), registry=self.offered, ask=listen, folder=self.prompts)
        except _Heard as heard:
            return model.estimate(heard.question)
        raise AssertionError("a strategy was written without a question")

    def first_prices(self) -> list[tuple[int, float]]:
        """The most tokens and USD of the first question to each model."""
        nothing = Barrier((), {}, ())
        return [self.price(Candidate(0, 0, INITIAL, name, "model"), nothing) for name in self.opened]

    def _affords(self, draws: Sequence[_Drawn], barrier: Barrier) -> bool:
        """Whether the budget allows for all calls that these slots may need; repairs have longer questions."""
        if self.budget.tokens is None and self.budget.usd is None:
            return True
        prices = [self.price(one, barrier) for one, _ in draws]
        calls = 1 + 2 * self.repairs
        most = calls * sum(tokens for tokens, _ in prices), calls * sum(usd for _, usd in prices)
        try:
            self.budget.allow_call(self.archive.spent(), *most)
        except StopError:
            return False
        return True

    def _proposed(self, drawn: _Drawn, barrier: Barrier) -> Candidate:
        """With a document, or with what became of it instead."""
        from augkit_llm import propose

        one, random = drawn
        if one.model != NONE:
            return self._written(one, barrier)
        parents = [barrier.parents[name].document for name in one.parents]
        if one.operator == INITIAL:
            document = propose.random_document(random, self.registry)
        elif len(parents) > 1:
            document = propose.crossed(parents, random, self.registry, one.operator)
        else:
            document = propose.mutated(parents[0], random, self.registry, one.operator)
        if self._black and document.get("image", {}).get("fill", "black") != "black":
            document = {**document, "image": {**document["image"], "fill": "black"}}
        return replace(one, document=document)

    @cached_property
    def _black(self) -> bool:
        """Whether the recipe's base shows a fill, so that it takes none but black."""
        from augkit_llm.limits import misfit

        filled = {"augkit": 1, "name": "filled", "image": {"fill": "mean"}, "pipeline": ["identity"]}
        return misfit(filled, self.recipe, self.registry) is not None

    def _written(self, one: Candidate, barrier: Barrier) -> Candidate:
        """Ask the slot's model."""
        from augkit_llm.limits import admit
        from augkit_llm.writing import write

        model, asked = self.opened[one.model], 0

        def ask(question: Question) -> Reply:
            nonlocal asked
            asked += 1
            return self._reply(model, question)

        how: dict[str, Any] = {"registry": self.offered, "folder": self.prompts, "admit": admit}
        try:
            found = write(model, self._request(one, barrier), repairs=self.repairs, ask=ask, **how)
        except ModelError as error:
            return replace(one, fate=fates.UNANSWERED, problem=_line(str(error)), attempts=asked)
        one = replace(one, idea=_line(found.idea), attempts=asked, document=found.document)
        if found.document is not None:
            return one
        last = next((attempt.error for attempt in reversed(found.attempts) if attempt.error), "it wrote no document")
        return replace(one, fate=fates.INVALID, problem=_line(last))

    def _reply(self, model: Model, question: Question) -> Reply:
        """The stored reply, or a new one, stored before it is used."""
        stored = self.archive.reply(question.key)
        if stored is not None:
            return stored
        price = model.estimate(question)
        call = self.archive.begin_call(question, model.name, price, lambda spent: self.budget.allow_call(spent, *price))
        try:
            reply = model.ask(question)
        except ModelError as error:
            self.archive.fail_call(call, str(error))
            raise
        reply = replace(reply, text=_clean(reply.text[:MAX_REPLY]))
        self.archive.answer_call(call, reply)
        return reply

    def _request(self, one: Candidate, barrier: Barrier) -> Request:
        from augkit_llm.prompts import signals

        allowed = tuple(name for name in signals(self.registry, ()) if not name.startswith("val_"))
        parents = tuple(barrier.parents[name] for name in one.parents)
        seed = int(stream(self.seed, one.generation, one.slot).integers(2**31))
        return Request("", one.operator, self.data, parents, barrier.failures, allowed, one.key, seed)

    def _screened(self, one: Candidate) -> Candidate:
        """Stored, after a look at what it does."""
        from augkit_llm.limits import misfit
        from augkit_llm.screen import screen

        if one.document is not None:
            earlier = self.archive.candidates()
            hashes = {other.hash for other in earlier if other.hash}
            acts = {other.signature for other in earlier if other.signature and other.trainable}
            size, epochs = self.data.image_size, self.recipe.epochs
            found = screen(one.document, self.registry, self.data.counts, size, known=hashes | acts, epochs=epochs)
            if found.problem is None:
                found = replace(found, problem=misfit(one.document, self.recipe, self.registry))
            again = found.hash in hashes or found.signature in acts
            fate = fates.DUPLICATE if again else fates.REFUSED if found.problem else fates.READY
            one = replace(one, fate=fate, problem=found.problem, facts=found.facts)
            one = replace(one, hash=found.hash or None, signature=found.signature or None)
        self.archive.add_candidate(one)
        return one


def _clean(text: str) -> str:
    """Text that can be stored: half characters become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _line(text: str, longest: int = 500) -> str:
    """Text of a model or of a message about it, as one line of a bounded length that a terminal can show."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in _clean(text)).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
