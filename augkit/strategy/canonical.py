"""The identity of a strategy: what it does, free of spelling, and the hash of that.

Names, titles, comments, key order and the spelling of numbers are left out; params stand as their values; palettes,
ranges, options and strategies in use are written out; the distributions that brought the operators are named with their
versions, since a new version may do something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from augkit.operators.base import Choice
from augkit.operators.external import External
from augkit.registry import Registry
from augkit.strategy.draft import Draft
from augkit.strategy.model import (
    BatchStep,
    BranchesStep,
    Expr,
    MixStep,
    Model,
    OneOfMix,
    OneOfStep,
    OperatorStep,
    Probe,
    Step,
    UseStep,
)


def canonical(draft: Draft, registry: Registry, reads: Iterable[str] = ()) -> dict[str, Any]:
    """What a strategy does, as plain data; `reads` are the names that its expressions read."""
    signals = {name: registry.origins.get(("signals", name), "") for name in sorted(reads) if name in registry.signals}
    return {"signals": signals} | _Writer(
        registry, {name: float(value) for name, value in draft.params.items()}
    ).document(draft)


def digest(form: Mapping[str, Any]) -> str:
    """SHA-256 of a canonical form, in hexadecimal."""
    written = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(written.encode("ascii")).hexdigest()


class _Writer:
    def __init__(self, registry: Registry, constants: Mapping[str, float]) -> None:
        self.registry, self.constants = registry, constants
        self.origins: dict[str, str] = {}

    def document(self, draft: Draft) -> dict[str, Any]:
        form: dict[str, Any] = {
            "augkit": 1,
            "palette": [self.choice(choice) for choice in draft.choices],
            "image": draft.image.model_dump(),
            "state": {name: self.fields(spec) for name, spec in draft.state.items()},
            "pipeline": [self.step(step) for step in draft.pipeline],
            "update": [self.fields(rule) for rule in draft.update if rule is not None],
        }
        if draft.views:  # their order is that of the results
            form["views"] = [
                {"name": name, "times": view.times, "steps": [self.step(step) for step in view.steps]}
                for name, view in draft.views.items()
            ]
        if draft.probes:  # what they may cost at most changes nothing
            form["probes"] = {name: self.probe(probe) for name, probe in draft.probes.items()}
        return {**form, "origins": dict(sorted(self.origins.items()))}

    def probe(self, probe: Probe) -> dict[str, Any]:
        own = {name: self.value(getattr(probe, name)) for name in ("upto", "samples", "level")}
        return {**own, "steps": [self.step(step) for step in probe.steps]}

    def choice(self, choice: Choice) -> dict[str, Any]:
        operator = choice.operator
        brought = operator.source if isinstance(operator.function, External) else None  # library and version
        origin = self.registry.origins.get(("operators", operator.name), brought)
        if origin is not None:
            self.origins[operator.name] = origin
        options = {**{name: option.default for name, option in operator.options.items()}, **choice.options}
        if isinstance(operator.function, External):
            options = operator.function.settled(choice.options)
        return {
            "operator": operator.name,
            "range": [float(choice.low), float(choice.high)] if operator.has_value else None,
            "signed": choice.signed,
            "options": json.loads(json.dumps(options)),
        }

    def fields(self, model: Model) -> dict[str, Any]:
        return {name: self.value(getattr(model, name)) for name in type(model).model_fields}

    def value(self, value: Any) -> Any:
        if isinstance(value, Expr):
            return value.canonical(self.constants)
        if isinstance(value, Model):
            return self.fields(value)
        if isinstance(value, Mapping):
            return {name: self.value(inner) for name, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, tuple) else value

    def mix(self, mix: MixStep | OneOfMix) -> dict[str, Any]:
        if isinstance(mix, OneOfMix):
            ways = [{"weight": self.value(way.weight), "mix": self.mix(way.mix)} for way in mix.alternatives]
            return {"alternatives": ways}
        unsaid = {name for name in ("label", "across") if getattr(mix, name) is None}  # younger than hashes out there
        return {name: value for name, value in self.fields(mix).items() if name not in unsaid}

    def step(self, step: Step) -> dict[str, Any]:
        if isinstance(step, OperatorStep):
            amounts = {name: self.value(getattr(step, name)) for name in ("p", "strength", "value")}
            return {**self.choice(step.choice), **amounts}
        if isinstance(step, UseStep):
            return {"use": step.strategy.hash, "p": self.value(step.p)}
        if isinstance(step, OneOfStep):
            ways = [
                {"weight": self.value(way.weight), "steps": [self.step(inner) for inner in way.steps]}
                for way in step.alternatives
            ]
            return {"one_of": ways}
        if isinstance(step, BatchStep):
            return {"batch": [self.mix(mix) for mix in step.mixes]}
        return {"branches" if isinstance(step, BranchesStep) else "pick": self.fields(step)}
