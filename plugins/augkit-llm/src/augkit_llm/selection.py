"""Who becomes a parent: the draws of a search, each slot with a stream of random numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from augkit_llm.records import Candidate

NONE = "none"
"""The model that is none: random and mutated strategies."""
INITIAL = "initial"
PARENTS = {INITIAL: 0, "e1": 2, "e2": 2, "m1": 1, "m2": 1, "m3": 1}
"""How many parents each operator takes."""
ALONE = ("m1", "m2", "m3")
"""Operators for an archive with a single strategy that was trained."""


@dataclass(frozen=True)
class Draw:
    """What a slot is to be filled with."""

    model: str
    origin: str
    operator: str
    parents: tuple[Candidate, ...]


def stream(seed: int, generation: int, slot: int) -> np.random.Generator:
    """The random numbers of a slot: they depend on nothing else."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=[seed, generation << 32 | slot]))


def draw(
    random: np.random.Generator,
    generation: int,
    slot: int,
    models: Sequence[tuple[str, float]],
    ranked: Sequence[Candidate],
) -> Draw:
    """Choose model, operator and parents of a slot.

    Of the model `none` every other slot is a fresh random strategy, so that one search shows random search and
    evolution at equal cost.

    Args:
        random: the slot's stream.
        models: names with their shares.
        ranked: strategies that may be parents, the best first.
    """
    shares = [share for _, share in models]
    model = models[int(random.choice(len(models), p=[share / sum(shares) for share in shares]))][0]
    fresh = not ranked or generation == 0 or (model == NONE and (generation + slot) % 2 == 0)
    origin = "model" if model != NONE else "random" if fresh else "mutated"
    if fresh:
        return Draw(model, origin, INITIAL, ())
    operators = [name for name in PARENTS if name != INITIAL] if len(ranked) > 1 else ALONE
    operator = operators[int(random.integers(len(operators)))]
    chosen = random.choice(len(ranked), PARENTS[operator], replace=False, p=chances(len(ranked)))
    return Draw(model, origin, operator, tuple(ranked[int(number)] for number in sorted(chosen)))


def chances(number: int) -> list[float]:
    """How likely each of `number` ranked strategies becomes a parent: as 1 / (rank + number), as in EoH (Liu et al.,
    ICML 2024); ranks count from 1, and they sum to 1."""
    weights = [1 / (rank + number) for rank in range(1, number + 1)]
    return [weight / sum(weights) for weight in weights]
