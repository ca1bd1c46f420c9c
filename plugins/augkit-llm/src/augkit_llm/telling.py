"""What a search says while it runs: a live line on a terminal, and a line for each event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status

from augkit_llm.controls import CONTROLS
from augkit_llm.records import DUPLICATE, INVALID, READY, REFUSED, UNANSWERED

if TYPE_CHECKING:
    from augkit_llm.archive import Archive
    from augkit_llm.budget import Budget
    from augkit_llm.estimate import Estimate
    from augkit_llm.evaluate import Stage
    from augkit_llm.records import Candidate, Evaluation
    from augkit_llm.search import Settings
    from augkit_llm.standing import Best

_SHORT = {UNANSWERED: "no answer", INVALID: "no valid document", DUPLICATE: "nothing new", REFUSED: "screened out"}


class Teller:
    """Use as a context manager around a search."""

    def __init__(self, archive: Archive, budget: Budget, jobs: int = 1, console: Console | None = None) -> None:
        self.archive, self.budget, self.jobs = archive, budget, jobs
        self.console = console or Console(stderr=True)
        self.live: Status | None = None
        self.best: Best | None = None
        self.settings: Settings | None = None
        self.rest: Estimate | None = None
        self.first: Evaluation | None = None
        self.news = False

    def __enter__(self) -> Teller:
        if self.console.is_terminal:
            self.live = self.console.status("begins")
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line, above the live one if there is one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def remark(self, text: str) -> None:
        """What a model has to say of itself, if anything."""
        if text:
            self.say(f"note: {text}")

    def plan(self, settings: Settings, rest: Estimate | None, questions: tuple[int, int, float]) -> None:
        """What is going to be done, and what that takes at most; its time comes with the first training run."""
        self.settings, self.rest = settings, rest
        models = ", ".join(
            name if len(settings.models) == 1 else f"{name} {share:.0%}" for name, share in settings.models
        )
        stages = ", ".join(
            f"{stage.name} ({stage.epochs} epochs{'' if stage.keep is None else f', the best {stage.keep} go on'})"
            for stage in settings.stages
        )
        self.say(f"search of {settings.recipe['name']} by {models}: {settings.population} strategies a generation")
        self.say(f"stages: {stages}; {settings.stages[0].seeds} seeds; beside {', '.join(CONTROLS)}")
        if len(settings.recipe.get("stages", ())) > 1:
            self.say("these are the epochs of the recipe's first stage; its others are shorter in the same proportion")
        self.say(f"so far: {self.used()}")
        calls, tokens, usd = questions
        first = f"{tokens} tokens and {usd:.4f} USD for the first; repairs are longer"
        each = f"{calls} questions a strategy, {first}" if calls else "no question"
        if rest is None:
            self.say(f"estimate: evaluations are not bounded; at most {each}")
            return
        most = calls * rest.strategies
        self.say(
            f"estimate: {sum(rest.runs)} evaluations for {rest.strategies} more strategies in {rest.generations}"
            f" generations; at most {most} questions, about {most * tokens} tokens, {most * usd:.2f} USD ({each})"
        )

    def candidate(self, one: Candidate) -> None:
        """A slot is filled."""
        self.news = True
        who = one.model if one.origin == "model" else f"chance ({one.origin})"
        how = f"kept{': ' if one.idea else ''}{one.idea}" if one.fate == READY else _SHORT[one.fate]
        self.say(f"{one.key}  {one.operator} by {who}  {how}" + (f" ({one.problem})" if one.problem else ""))
        self._update(f"generation {one.generation}, slot {one.slot} filled")

    def evaluation(self, one: Evaluation) -> None:
        """A training run is finished."""
        self.news = True
        name = one.subject[:12]
        how = f"failed: {one.reason}" if one.state == "failed" else f"reward {one.reward:.3f}"
        self.say(f"{one.stage}  {name}  seed {one.seed}  {how}, {one.seconds or 0:.1f} s")
        if self.rest is not None and self.settings is not None and one.state == "done":
            self._time(one, self.rest, self.settings.stages)
        self._update(f"{one.stage}: {name} seed {one.seed} done")

    def _time(self, one: Evaluation, rest: Estimate, stages: Sequence[Stage]) -> None:
        """How long the rest will take, by the quicker of two runs: the first one of a process also imports."""
        if self.first is None:
            self.first = one
            return
        minutes = min(rest.seconds(run, stages, self.jobs) for run in (self.first, one)) / 60
        self.say(f"estimate: about {max(1, round(minutes))} min for all evaluations that were planned, by these runs")
        self.rest = None

    def generation(self, number: int, best: Best | None) -> None:
        """A generation is finished, now or by an earlier session."""
        self.best = best
        if self.news:
            self.say(f"generation {number} is finished; {self.used()}; " + (f"best {best}" if best else "no best yet"))
        self.news = False

    def used(self) -> str:
        """'24 of 60 evaluations, 3100 tokens, 0.02 of 5 USD, 0.4 hours'."""
        spent, budget = self.archive.spent(), self.budget
        parts = (
            (f"{spent.evaluations}", budget.evaluations, "evaluations"),
            (f"{spent.tokens}", budget.tokens, "tokens"),
            (f"{spent.usd:.2f}", budget.usd, "USD"),
            (f"{spent.seconds / 3600:.2f}", budget.hours, "hours"),
        )
        return ", ".join(f"{used}{'' if most is None else f' of {most:g}'} {what}" for used, most, what in parts)

    def _update(self, what: str) -> None:
        if self.live is not None:
            self.live.update(f"{what} | {self.used()}" + (f" | best {self.best}" if self.best else ""))
