"""What a strategy needs to run, and what it reads, those that it uses included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from augkit.registry import Registry
from augkit.strategy.draft import Draft
from augkit.strategy.expression import IS_SYNTHETIC
from augkit.strategy.model import BatchStep, MixStep, OneOfMix, OneOfStep, Step, Strategy, UseStep, step_lists
from augkit.strategy.typing import Typed


def nested(steps: Iterable[Step]) -> Iterator[Strategy]:
    """The strategies that steps use, alternatives included."""
    for step in steps:
        if isinstance(step, UseStep):
            yield step.strategy
        elif isinstance(step, OneOfStep):
            for alternative in step.alternatives:
                yield from nested(alternative.steps)


def mixes_of(steps: Iterable[Step]) -> Iterator[MixStep]:
    """Every mixing step, alternatives included."""
    for step in steps:
        for item in step.mixes if isinstance(step, BatchStep) else ():
            if isinstance(item, OneOfMix):
                yield from (alternative.mix for alternative in item.alternatives)
            else:
                yield item


def reads_of(draft: Draft, typed: Mapping[str, Typed]) -> frozenset[str]:
    """Every name that is read, by nested strategies too."""
    own = frozenset[str]().union(*(one.reads for one in typed.values()))
    return own.union(*(strategy.reads for strategy in _used(draft)))


def _used(draft: Draft) -> list[Strategy]:
    lists = step_lists(draft.pipeline, draft.views, draft.probes).values()
    return [used for steps in lists for used in nested(steps)]


def needs_of(draft: Draft, typed: Mapping[str, Typed], registry: Registry) -> frozenset[str]:
    """What must be given to run the strategy, see `Strategy.needs`."""
    own = frozenset[str]().union(*(one.reads for one in typed.values()))
    axes: set[str] = {axis for spec in draft.state.values() for axis in spec.axes}
    axes |= {axis for one in typed.values() for part in one.parts for axis in (*part.axes, part.axis)}
    asking = [name for name, probe in draft.probes.items() if probe.level is None]
    asks, sides = bool(asking), {mix.across for mix in mixes_of(draft.pipeline)}
    found = {
        "class_counts": own & {"class_count", "class_rank"},
        "epochs": "epochs" in own,
        "index": "samples" in axes or "index" in own,
        "group": "groups" in axes or "group" in own or "group" in sides,
        IS_SYNTHETIC: IS_SYNTHETIC in own or "synthetic" in sides,
        "pool": asks or any(mix.partner == "pool" for mix in mixes_of(draft.pipeline)),
        "model": asks,
        "observe": own & {"correct", "seen", "loss", *registry.signals} or len(asking) < len(draft.probes),
        "val": own & {"val_correct", "val_seen"},
    }
    return frozenset(name for name, needed in found.items() if needed).union(*(s.needs for s in _used(draft)))
