"""What a search may use, and why it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from augkit.errors import AugkitError, DataError
from augkit_llm.records import Spent

if TYPE_CHECKING:
    from augkit_llm.evaluate import Stage

EVALUATIONS, TOKENS, USD, HOURS = "evaluations", "tokens", "usd", "hours"
OPTIONS = {EVALUATIONS: "--evaluations", TOKENS: "--budget-tokens", USD: "--budget-usd", HOURS: "--budget-hours"}


class StopError(AugkitError):
    """The search ends here; `reason` is a budget's name, `nothing new` or `no answer`."""

    def __init__(self, reason: str, message: str, price: tuple[int, float] = (0, 0.0)) -> None:
        self.reason = reason
        self.price = price
        """Most tokens and USD of the call that no longer fits."""
        super().__init__(message)


@dataclass(frozen=True)
class Budget:
    """The most that a search may use; None is no bound. What begins was reserved before, at the most it can cost."""

    evaluations: int | None = None
    """Training runs: one strategy or control, one seed, one stage."""
    tokens: int | None = None
    usd: float | None = None
    hours: float | None = None
    """Of all sessions together. What is under way when they are over is ended and not counted."""

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None and not value >= 0:
                raise DataError(f"{OPTIONS[part.name]} is {value:g}; a budget is a number from 0")

    def raised(self, other: Budget) -> Budget:
        """With what `other` says in its place.

        Raises:
            DataError: it would be lower than before.
        """
        for name, value in asdict(other).items():
            before = getattr(self, name)
            if value is not None and before is not None and value < before:
                raise DataError(f"{OPTIONS[name]} {value:g} is less than the {before:g} of this search; raise it")
        return replace(self, **{name: value for name, value in asdict(other).items() if value is not None})

    def allow_call(self, spent: Spent, tokens: int, usd: float) -> None:
        """Raise `StopError` unless a call that can cost this much fits."""
        self.allow_time(spent)
        if self.tokens is not None and spent.tokens + tokens > self.tokens:
            words = f"{spent.tokens} of {self.tokens} tokens are used and the next call may take {tokens}"
            raise StopError(TOKENS, words, (tokens, usd))
        if self.usd is not None and spent.usd + usd > self.usd * (1 + 1e-12):
            words = f"{spent.usd:.4f} of {self.usd:g} USD are spent and the next call may cost {usd:.4f}"
            raise StopError(USD, words, (tokens, usd))

    def allow_time(self, spent: Spent) -> None:
        """Raise `StopError` when the hours are over."""
        if self.hours is not None and spent.seconds >= self.hours * 3600:
            raise StopError(HOURS, f"{spent.seconds / 3600:.2f} of {self.hours:g} hours are over")

    def slots(self, spent: Spent, population: int, stages: Sequence[Stage], controls: int) -> int:
        """How many candidates a generation may have so that their way through all stages is paid for.

        Args:
            spent: before the generation.
            population: the most it may have.
            stages: of the cascade.
            controls: training runs of controls that are still to be made.

        Raises:
            StopError: not even one.
        """
        if self.evaluations is None:
            return population
        left = self.evaluations - spent.evaluations - controls
        fitting = [size for size in range(1, population + 1) if cost(size, stages) <= left]
        if not fitting:
            raise StopError(
                EVALUATIONS,
                f"{spent.evaluations} of {self.evaluations} evaluations are made and one more strategy may take"
                f" {cost(1, stages) + controls}",
            )
        return fitting[-1]


def cost(size: int, stages: Sequence[Stage]) -> int:
    """The most training runs that `size` candidates take through all stages."""
    total, going = 0, size
    for stage in stages:
        total += going * stage.seeds
        going = going if stage.keep is None else min(going, stage.keep)
    return total
