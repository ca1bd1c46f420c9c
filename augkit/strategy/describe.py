"""A strategy in plain English: what happens to an image, what is learned, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from augkit.operators.base import Choice
from augkit.strategy.expression import number_text
from augkit.strategy.model import (
    BatchStep,
    BranchesStep,
    Expr,
    MixStep,
    OneOfMix,
    OneOfStep,
    OperatorStep,
    PickStep,
    Rule,
    State,
    Step,
    Strategy,
    UseStep,
)
from augkit.strategy.probes import most_images
from augkit.strategy.typing import Typed

_NEEDS = {
    "class_counts": "the number of images of each class",
    "epochs": "the planned number of epochs",
    "index": "each image's index in the data set",
    "group": "each image's group",
    "is_synthetic": "which images are synthetic",
    "pool": "a pool of training images",
    "model": "the model itself (attach_model)",
    "observe": "the model's answers (observe)",
    "val": "the model's answers on validation images",
}
_ONE = {"classes": "class", "ops": "operator", "groups": "group", "samples": "sample"}
MOST_ALTERNATIVES = 30


def words(strategy: Strategy) -> str:
    """Several lines: title, source, steps, palette, state, rules, needs and cost."""
    lines = [f"{strategy.name}: {strategy.title}" if strategy.title else strategy.name]
    if strategy.source:
        lines.append(f"source: {strategy.source}")
    if strategy.params:
        lines.append("params: " + ", ".join(f"{name} = {_plain(value)}" for name, value in strategy.params.items()))
    lines += [
        "each image:",
        *(f"  {line}" for line in _steps(strategy, strategy.pipeline, "pipeline") or ["stays as it is"]),
    ]
    for name, view in strategy.views.items():
        told = _steps(strategy, view.steps, f"views.{name}") or ["stays as the pipeline leaves it"]
        lines += [f"view {name}{f', {view.times} times' if view.times > 1 else ''}:", *(f"  {line}" for line in told)]
    lines += _section("probes:", (line for name in strategy.probes for line in _probe(strategy, name)))
    if strategy.choices:
        lines += [f"palette of {len(strategy.choices)}:", *(f"  {_choice(choice)}" for choice in strategy.choices)]
    lines += _section("state:", (_state(name, state) for name, state in strategy.state.items()))
    lines += _section("rules:", (_rule(rule) for rule in strategy.update))
    if strategy.needs:
        lines.append("needs: " + ", ".join(_NEEDS[need] for need in sorted(strategy.needs)))
    lines.append(f"cost: at most {_cost(strategy)}" + (", and mixing" if strategy.mixes else ""))
    return "\n".join(lines)


def _cost(strategy: Strategy) -> str:
    views = len(strategy.view_names)
    told = f"{_number(_most(strategy), 'operator')} an image"
    asked = most_images(strategy.probes, strategy.typed, {})
    told += f", which gives {_number(views, 'view')}" if views else ""
    return told + (
        f", and {_number(int(asked), 'image')} a class for probes in an epoch" if 0 < asked < math.inf else ""
    )


def _most(strategy: Strategy) -> int:
    """The same for the pipeline and all views together."""
    views = strategy.views.items()
    own = sum(view.times * most_operators(strategy, view.steps, f"views.{name}") for name, view in views)
    return own + most_operators(strategy)


def most_operators(strategy: Strategy, steps: Iterable[Step] | None = None, path: str = "pipeline") -> int:
    """How many operators one image can meet at most, those of strategies in use included."""
    total = 0
    for number, step in enumerate(strategy.pipeline if steps is None else steps):
        where = f"{path}[{number}]"
        if isinstance(step, PickStep):
            count = max(0, math.ceil(strategy.typed[f"{where}.pick.count"].high))
            total += count if step.replace else min(count, len(strategy.choices))
        elif isinstance(step, BranchesStep):
            width, depth = (strategy.typed[f"{where}.branches.{name}"].high for name in ("width", "depth"))
            most = max(0, math.ceil(depth))
            total += int(width) * (most if step.replace else min(most, len(strategy.choices)))
        elif isinstance(step, OneOfStep):
            total += max(
                most_operators(strategy, way.steps, f"{where}.one_of[{k}].steps")
                for k, way in enumerate(step.alternatives)
            )
        elif isinstance(step, UseStep):
            total += _most(step.strategy)
        elif isinstance(step, OperatorStep):
            total += 1
    return total


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return [title, *found] if found else []


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def _plain(value: bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else number_text(float(value))


def _said(source: Expr, typed: Typed) -> str:
    """An expression, or its value if it can only have one."""
    return str(source) if typed.constant is None else number_text(round(typed.constant, 4))


def _chance(source: Expr, typed: Typed) -> str:
    return "" if typed.constant == 1 else f" with probability {_said(source, typed)}"


def _choice(choice: Choice) -> str:
    operator = choice.operator
    options = ", ".join(f"{name} {value}" for name, value in choice.options.items())
    told = operator.name
    if operator.has_value:
        told += f" {_end(choice.low)} to {_end(choice.high)} {operator.unit}".rstrip()
        told += (
            f", either {'side of ' + number_text(operator.identity) if operator.identity else 'sign'}"
            if choice.signed
            else ""
        )
    return f"{told} ({options})" if options else told


def _end(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10000 else f"{value:.4g}"


def _steps(strategy: Strategy, steps: Iterable[Step], path: str) -> list[str]:
    return [line for number, step in enumerate(steps) for line in _step(strategy, step, f"{path}[{number}]")]


def _step(strategy: Strategy, step: Step, path: str) -> Iterator[str]:
    typed = strategy.typed
    if isinstance(step, OperatorStep):
        at = f"{path}.{step.choice.operator.name}"
        always = typed[f"{at}.p"].constant == 1 and "one_of" not in path
        yield _operator(strategy, step, at) + (", always" if always else "")
    elif isinstance(step, PickStep):
        yield from _pick(strategy, step, f"{path}.pick")
    elif isinstance(step, BranchesStep):
        yield from _branches(strategy, step, f"{path}.branches")
    elif isinstance(step, UseStep):
        yield f"meets the strategy {step.strategy.name}{_chance(step.p, typed[f'{path}.use.p'])}"
    elif isinstance(step, BatchStep):
        for number, mix in enumerate(step.mixes):
            yield _mix(strategy, mix, f"{path}.batch[{number}]")
    else:
        yield f"goes one of {len(step.alternatives)} ways:"
        for number, way in enumerate(step.alternatives[:MOST_ALTERNATIVES]):
            at = f"{path}.one_of[{number}]"
            weight = typed[f"{at}.weight"]
            share = "" if weight.constant == 1 else f" (weight {_said(way.weight, weight)})"
            yield "  - " + (", then ".join(_steps(strategy, way.steps, f"{at}.steps")) or "stays as it is") + share
        if len(step.alternatives) > MOST_ALTERNATIVES:
            yield f"  ... and {len(step.alternatives) - MOST_ALTERNATIVES} more"


def _operator(strategy: Strategy, step: OperatorStep, path: str) -> str:
    amount = ""
    if step.value is not None:
        amount = f" of {_said(step.value, strategy.typed[f'{path}.value'])} {step.choice.operator.unit}".rstrip()
    elif step.strength is not None:
        amount = f" at strength {_said(step.strength, strategy.typed[f'{path}.strength'])}"
    options = ", ".join(f"{name} {value}" for name, value in step.choice.options.items())
    told = f"{step.choice.operator.name}{amount}" + (f" ({options})" if options else "")
    return told + _chance(step.p, strategy.typed[f"{path}.p"])


def _pick(strategy: Strategy, step: PickStep, path: str) -> Iterator[str]:
    typed = strategy.typed
    count = typed[f"{path}.count"]
    how = "one operator" if count.constant == 1 else f"{_said(step.count, count)} operators"
    again = ", the same one more than once if so drawn" if step.replace and count.constant != 1 else ""
    yield f"draws {how} from the palette{_chance(step.p, typed[f'{path}.p'])}{again}"
    yield f"  at strength {_said(step.strength, typed[f'{path}.strength'])}"
    if step.weights is not None:
        yield f"  weighted by {step.weights}"
    if typed[f"{path}.each_p"].constant != 1:
        yield f"  each applied{_chance(step.each_p, typed[f'{path}.each_p'])}"
    if step.order == "palette":
        yield "  in the order of the palette"


def _branches(strategy: Strategy, step: BranchesStep, path: str) -> Iterator[str]:
    typed = strategy.typed
    width, depth = typed[f"{path}.width"], typed[f"{path}.depth"]
    yield f"is blended with {_said(step.width, width)} chains of operators{_chance(step.p, typed[f'{path}.p'])}"
    again = "" if step.replace else ", each operator at most once"
    yield f"  each of {_said(step.depth, depth)} from the palette{again}"
    yield f"  at strength {_said(step.strength, typed[f'{path}.strength'])}"
    share = _said(step.blend, typed[f"{path}.blend"])
    yield f"  chains weighted by {_said(step.weights, typed[f'{path}.weights'])}, {share} of the result is their blend"


def _mix(strategy: Strategy, mix: MixStep | OneOfMix, path: str) -> str:
    typed = strategy.typed
    if isinstance(mix, OneOfMix):
        ways = []
        for number, way in enumerate(mix.alternatives):
            at = f"{path}.one_of[{number}]"
            ways.append(f"{_mix(strategy, way.mix, at)} (weight {_said(way.weight, typed[f'{at}.weight'])})")
        return ", or ".join(ways)
    path = f"{path}.{mix.kind}"
    partner = "an image of the pool" if mix.partner == "pool" else "another of its batch"
    partner = "three others of its batch" if mix.kind == "mosaic" else partner
    sides = {"synthetic": ", synthetic ones with real ones", "group": " from other groups"}
    partner += sides[mix.across] if mix.across is not None else ""
    weights = f", partners weighted by {mix.weights}" if mix.weights is not None else ""
    alpha = _said(mix.alpha, typed[f"{path}.alpha"])
    share = f", shares from beta({alpha}, {alpha})"
    if mix.share is not None:
        share = f", keeping {_said(mix.share, typed[f'{path}.share'])} of the image"
    label = f", labels weighted by {_said(mix.label, typed[f'{path}.label'])}" if mix.label is not None else ""
    return f"{mix.kind} with {partner}{_chance(mix.p, typed[f'{path}.p'])}{share}{weights}{label}"


def _probe(strategy: Strategy, name: str) -> Iterator[str]:
    probe = strategy.probes[name]
    if probe.level is not None:
        yield f"{name} counts answers to training images by level, {probe.level}, up to {probe.upto}"
        return
    told = f"{name} shows the model {probe.samples} images of each class and level at each epoch's start"
    yield f"{told}, up to level {probe.upto}:"
    yield from (f"  {line}" for line in _steps(strategy, probe.steps, f"probes.{name}") or ["as they are"])


def _state(name: str, state: State) -> str:
    axes = " and ".join(_ONE[axis] for axis in state.axes)
    low, high = state.clamp or (None, None)
    bounds = [f"at least {low}" if low is not None else "", f"at most {high}" if high is not None else ""]
    kept = ", ".join(bound for bound in bounds if bound)
    return f"{name}{f' for each {axes}' if axes else ''} begins as {state.init}{f', {kept}' if kept else ''}"


def _rule(rule: Rule) -> str:
    moment = "at each epoch's start" if rule.at == "epoch_start" else "at each epoch's end"
    condition = f", when {rule.when}" if rule.when is not None else ""
    local = [f"{name} is {value}" for name, value in rule.let.items()]
    changes = [f"{name} becomes {value}" for name, value in rule.set.items()]
    return f"{moment}{condition}: " + "; ".join([*local, *changes])
