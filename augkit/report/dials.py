"""What of a policy changes while a model learns, and the positions at which a preview shows it.

A strategy changes with the epoch that its steps read, with state that its rules set, or with the answers that its steps
read. Each is a dial: setting it touches nothing else, so that what differs between two positions is its doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from augkit.engine.program import Bound
from augkit.policy import Policy
from augkit.strategy.evaluate import evaluate
from augkit.strategy.expression import number_text

MOST_DIALS, STEPS, MOST_NAMED = 3, 8, 12
"""Dials of a preview; positions of one that runs evenly; positions of one with whole numbers or operators."""
BATCH = 128
"""Images a batch, for what follows steps instead of epochs."""
ANSWERS = {"correct": "seen", "val_correct": "val_seen"}
OPEN = 100.0
"""How many times as much an operator weighs as the others where its weight has no highest value."""


@dataclass(frozen=True)
class Position:
    """One place of a dial. `put` brings a fresh policy there."""

    label: str
    put: Callable[[Policy], None]


@dataclass(frozen=True)
class Dial:
    """What can be turned: its name, how far it goes and more about it in words, where it stands at first."""

    name: str
    span: str
    what: str
    positions: tuple[Position, ...]
    start: int = 0


def at_epoch(policy: Policy, epoch: int) -> None:
    """Begin an epoch with the random numbers of epoch 0, so that previews of two epochs differ by what changed alone.

    The rules of an epoch's start run, unless the model must be asked for them: there is none, so state stays as it
    begins.
    """
    policy.memory.set_signals({"epoch": torch.full((), float(epoch))})
    policy.step = epoch * -(-(policy.facts.num_samples or 0) // BATCH)
    if "model" not in policy.needs:
        policy.memory.run("epoch_start", 0)
    policy.began = True


def dials_of(policy: Policy, epoch: int = 0) -> tuple[Dial, ...]:
    """Everything that changes what a policy draws, state first; none for one that always does the same.

    Args:
        policy: a fresh one, which is used up.
        epoch: at which all dials but that of the epoch stand.
    """
    at_epoch(policy, epoch)
    learned = [_state(policy, bound, name, epoch) for bound in policy.program.bounds for name in _learned(bound)]
    read = frozenset[str]().union(*map(_reads, policy.program.bounds))
    answers = [_accuracy(epoch)] if read & ANSWERS.keys() else []
    followed = [_epochs(policy, epoch)] if _follows(policy, read) else []
    return tuple(dial for dial in (*learned, *answers, *followed) if len(dial.positions) > 1)


def unturned(policy: Policy) -> list[str]:
    """Counts that are read while images are drawn and that no dial sets: they are as before the first epoch."""
    read = frozenset[str]().union(*map(_reads, policy.program.bounds))
    return sorted(read & policy.statistics.sums.keys() - {*ANSWERS, *ANSWERS.values()})


def _reads(bound: Bound) -> frozenset[str]:
    """The names that are read while images are drawn."""
    levels = {f"probes.{name}.level" for name, probe in bound.strategy.probes.items() if probe.level is not None}
    typed = bound.strategy.typed.items()
    drawn = (one.reads for path, one in typed if path.startswith(("pipeline", "views.")) or path in levels)
    return frozenset[str]().union(*drawn)


def _learned(bound: Bound) -> Iterator[str]:
    """State that is read while images are drawn, and that a rule sets."""
    set_by_rules = {name for rule in bound.strategy.update for name in rule.set}
    return (name for name in bound.strategy.state if name in set_by_rules & _reads(bound))


def _follows(policy: Policy, read: frozenset[str]) -> bool:
    """Whether draws read the epoch, or state that a rule of an epoch's start sets by it."""
    if read & {"epoch", "step"}:
        return True
    for bound in policy.program.bounds if "model" not in policy.needs else ():
        for number, rule in enumerate(bound.strategy.update):
            mine = [one for path, one in bound.strategy.typed.items() if path.startswith(f"update[{number}].")]
            names = frozenset[str]().union(*(one.reads for one in mine))
            if rule.at == "epoch_start" and "epoch" in names and rule.set.keys() & _reads(bound):
                return True
    return False


def _epochs(policy: Policy, epoch: int) -> Dial:
    epochs = policy.facts.epochs or 100
    places = sorted({round(i * (epochs - 1) / (STEPS - 1)) for i in range(STEPS)} | {epoch})

    def put(number: int) -> Callable[[Policy], None]:
        return lambda policy: at_epoch(policy, number)

    what = f"the epoch of {epochs} that the policy follows"
    return Dial(
        "epoch",
        f"0 to {epochs - 1}",
        what,
        tuple(Position(str(place), put(place)) for place in places),
        places.index(epoch),
    )


def _accuracy(epoch: int) -> Dial:
    def put(share: float) -> Callable[[Policy], None]:
        def act(policy: Policy) -> None:
            at_epoch(policy, epoch)
            counts = policy.memory.values[""]["class_count"]
            for right, seen in ANSWERS.items():
                policy.memory.set_signals({right: (share * counts).round(), seen: counts})

        return act

    places = _round_steps(0, 1)
    what = "the share of right answers in the epoch before, of all classes alike, which the policy reads"
    return Dial("accuracy", "0% to 100%", what, tuple(Position(f"{place:.0%}", put(place)) for place in places))


def _state(policy: Policy, bound: Bound, name: str, epoch: int) -> Dial:
    spec = bound.strategy.state[name]
    named = f"{name} of {bound.strategy.name}" if bound.path else name
    if "ops" in spec.axes:
        return _weights(policy, bound, name, named, epoch)
    value = policy.memory.values[bound.path][name]
    low, high = _clamp(policy, bound, name)
    low = min(0.0, value.min().item()) if low is None else low
    high = max(1.0, 2 * value.max().item()) if high is None else high
    if spec.dtype == "int":
        most = min(int(high - low) + 1, MOST_NAMED)
        places = [float(round(low + i * (high - low) / max(1, most - 1))) for i in range(most)]
    else:
        places = _round_steps(low, high) if high > low else [low]
    begins = value.mean().item()
    start = min(range(len(places)), key=lambda i: abs(places[i] - begins))

    def put(place: float) -> Callable[[Policy], None]:
        def act(policy: Policy) -> None:
            at_epoch(policy, epoch)
            values = policy.memory.values[bound.path]
            values[name] = torch.full_like(values[name], place)

        return act

    owner = "" if not spec.axes else f" for each {_ONE[spec.axes[-1]]}"
    alike = f"; here all {_MANY[spec.axes[-1]]} have the same" if spec.axes else ""
    what = f"the state {named}, which the policy keeps{owner}{alike}"
    positions = tuple(Position(number_text(place), put(place)) for place in places)
    return Dial(named, f"{positions[0].label} to {positions[-1].label}", what, positions, start)


def _round_steps(low: float, high: float) -> list[float]:
    """Six to ten places from low to high, evenly: as many as make the shortest numbers."""

    def places(intervals: int) -> list[float]:
        return [round(low + i * (high - low) / intervals, 3) for i in range(intervals + 1)]

    return min(map(places, (7, 6, 5, 8, 9)), key=lambda found: max(len(number_text(place)) for place in found))


_ONE = {"classes": "class", "groups": "group", "samples": "image"}
_MANY = {"classes": "classes", "groups": "groups", "samples": "images"}


def _weights(policy: Policy, bound: Bound, name: str, named: str, epoch: int) -> Dial:
    """State with a value for each operator: as it begins, then everything on one operator after the other."""
    bottom, top = _clamp(policy, bound, name)
    low = 0.0 if bottom is None else bottom
    high = OPEN * max(1.0, low) if top is None else top
    count = bound.ops
    shown = min(count, MOST_NAMED - 1)
    chosen = sorted({round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)})

    def put(operator: int) -> Callable[[Policy], None]:
        def act(policy: Policy) -> None:
            at_epoch(policy, epoch)
            values = policy.memory.values[bound.path]
            values[name] = torch.full_like(values[name], low)
            values[name][..., operator] = high  # `ops` is the last axis

        return act

    begin = Position("as it begins", lambda policy: at_epoch(policy, epoch))
    operators = [Position(bound.strategy.choices[i].operator.name, put(i)) for i in chosen]
    few = f" ({shown} of its {count} are shown)" if shown < count else ""
    what = f"the state {named}, which the policy keeps for each operator: as it begins, then all on one operator{few}"
    return Dial(named, "one operator after the other", what, (begin, *operators))


def _clamp(policy: Policy, bound: Bound, name: str) -> tuple[float | None, float | None]:
    """The ends that no value of this state leaves; None for an open one."""
    environment = policy.memory.environment(bound, "clamp", 0)
    found = (bound.strategy.typed.get(f"state.{name}.clamp.{side}") for side in ("low", "high"))
    low, high = (None if typed is None else evaluate(typed, environment).item() for typed in found)
    return low, high
