"""What a strategy is like, found out before its training is paid for.

A document is loaded, held against the limits of a search, and played through a short training that is only a script
(`trace.py`). That shows whether it does anything, stays finite, means its strengths, and what it costs; and it gives
a signature of what it does, by which documents that act alike are found. No clock has a say in it, so that a search
which was killed and goes on comes to the same.
"""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augkit.errors import AugkitError, DocumentError
from augkit.registry import Registry
from augkit.strategy.model import Strategy
from augkit_llm.limits import admit
from augkit_llm.trace import EPOCHS, Stage, Trace, play, summary

MOST_OPERATORS = 15.0
"""Operators an image, in the mean. AugMix, the costliest with a name, has 6. TrivialAugment is one of them, most take
less CPU time than it and the dearest four times as much. What is far beyond is time that the training lacks."""
STOPS_AT = 40.0
"""The same, where playing on would itself cost too much."""
MOST_MEMORY = 1024
"""MiB by which the process may grow while it plays batches of some hundred small images."""
LEAST_CHANGED = 0.01
"""Share of images that a strategy changes at least: below it a training cannot tell it from none."""
MOST_CUT = 0.95
"""Share of strengths at the ends of 0..1, of an expression that goes beyond them: it was not meant so."""
HALVES = 2
"""Parts of the training that a signature tells apart."""


@dataclass(frozen=True)
class Screened:
    """What was found."""

    hash: str
    """Of the canonical form; "" for a document that is not valid or not allowed."""
    signature: str
    """Of what it does; "" where it was not played to the end."""
    facts: dict[str, Any]
    """Numbers for a report, see `trace.summary`; `memory_mb` varies from run to run, the others do not."""
    problem: str | None
    """Why it is not worth training, in one sentence; None if it is."""


def screen(
    document: Mapping[str, Any],
    registry: Registry,
    class_counts: Sequence[int],
    image_size: int,
    *,
    known: Container[str] = (),
    epochs: int = EPOCHS,
) -> Screened:
    """Look at a document before it is trained.

    Args:
        document: the strategy.
        registry: the operators, palettes and strategies that it may name.
        class_counts: training images of each class.
        image_size: side of the images in pixels.
        known: hashes and signatures of strategies that were trained before.
        epochs: of the training that is played; the recipe's own number shows what depends on it.
    """
    try:
        strategy = admit(document, registry)
    except DocumentError as error:
        first = error.problems[0]
        more = f" ({len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        told = f"{first.path}: {first.message}" if first.path else first.message
        return Screened("", "", {}, f"{told}{more}")
    if strategy.hash in known:
        return Screened(strategy.hash, "", {}, "it is a strategy that was tried before, in other words")
    before = _memory()
    try:
        trace = play(strategy, registry, Stage(class_counts, image_size, epochs), enough=STOPS_AT)
    except (AugkitError, RuntimeError) as error:  # torch tells of memory it has not got by the latter
        return Screened(strategy.hash, "", {}, f"it cannot be run: {' '.join(str(error).split())}")
    facts = {**summary(trace), "divisions_by_zero": trace.divisions, "needs": sorted(strategy.needs)}
    facts |= {"operators_an_image": round(trace.operators, 4), "memory_mb": round(_memory() - before)}
    problem = _problem(strategy, trace, facts)
    if trace.operators > STOPS_AT:
        return Screened(strategy.hash, "", facts, problem)
    signature = signature_of(trace)
    if problem is None and signature in known:
        problem = "it acts like a strategy that was tried before"
    return Screened(strategy.hash, signature, facts, problem)


def _problem(strategy: Strategy, trace: Trace, facts: Mapping[str, Any]) -> str | None:
    changed = sum(facts["images_changed"].values()) / max(1, len(facts["images_changed"]))
    if changed < LEAST_CHANGED:
        return f"it changes {100 * changed:.1f} % of the images, which no training can tell from doing nothing"
    cut = sum(look.edge for look in trace.looks) / max(1, len(trace.looks))
    if cut > MOST_CUT and _beyond(strategy):
        return f"its strengths are cut to 0 or 1 for {100 * cut:.0f} % of the operators: write them within 0..1"
    if trace.operators > MOST_OPERATORS:
        return f"it gives an image {trace.operators:.0f} operators in the mean, and {MOST_OPERATORS:.0f} is the most"
    if facts["memory_mb"] > MOST_MEMORY:
        return f"it takes {facts['memory_mb']} MiB for a small batch, and {MOST_MEMORY} is the most"
    return None


def _beyond(strategy: Strategy) -> bool:
    """Whether an expression for a strength can be outside of 0..1, by the ranges of what it reads."""
    strengths = (typed for path, typed in strategy.typed.items() if path.endswith(".strength"))
    return any(typed.low < 0 or typed.high > 1 for typed in strengths)


def signature_of(trace: Trace) -> str:
    """A hash of what happened, rounded: by half of the training and group the operators that an image met (to 0.02),
    their strength (0.02), changed pixels and own label (0.02) and how far pixels moved (0.005).

    Strategies that differ in words alone draw the same numbers and have one signature. Those that are alike in
    distribution but draw by other calls may have two.
    """
    length = -(-len(trace.looks) // HALVES) or 1
    said = []
    for start in range(0, len(trace.looks), length):
        found = summary(Trace(trace.groups, trace.looks[start : start + length]))
        distance = {group: round(value * 200) for group, value in found.pop("distance").items()}
        found.pop("images_changed")
        operators = {name: _rounded(groups) for name, groups in found.pop("operators").items()}
        said.append({**{name: _rounded(groups) for name, groups in found.items()}, "distance": distance})
        said[-1]["operators"] = {name: groups for name, groups in operators.items() if any(groups.values())}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _rounded(groups: Mapping[str, float]) -> dict[str, int]:
    return {name: round(value * 50) for name, value in groups.items()}


def _memory() -> float:
    """The most that this process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
