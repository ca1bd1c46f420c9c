"""The steps of a pipeline and the entries of a palette: names to operators, macros expanded, `use` resolved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from augkit.errors import DocumentError, ExpressionError
from augkit.operators.base import Choice, Operator
from augkit.strategy.draft import Context, Draft, described, expr, fill, not_a_body
from augkit.strategy.expression import Number, number_text, substitute
from augkit.strategy.folding import fold
from augkit.strategy.model import (
    Alternative,
    BatchStep,
    Expr,
    MixAlternative,
    MixStep,
    OneOfMix,
    OneOfStep,
    OperatorStep,
    PickStep,
    Step,
    UseStep,
)
from augkit.strategy.options import beyond, option_type
from augkit.strategy.problems import Place, not_filled, shown

STEP_WORDS = ("pick", "one_of", "use", "batch", "color_jitter")
MIXES = ("mixup", "cutmix")
JITTER = ("brightness", "contrast", "color")
JITTER_KEYS = {"brightness": "brightness", "contrast": "contrast", "saturation": "color"}
CHOICE_KEYS = ("low", "high", "signed")
MAX_OPERATORS = 64
MAX_STEPS = 512


class Steps:
    """Reads the palette and the steps of one document into its draft."""

    def __init__(self, context: Context, draft: Draft) -> None:
        self.context, self.draft, self.problems = context, draft, context.problems
        self.operators = context.registry.operators
        self.limited = True

    # -- operators ----------------------------------------------------------------------------------------------

    def palette(self, value: Any) -> None:
        """The palette: the name of a registered one, or a list of operators."""
        if value is None:
            return
        place: Place = ("palette",)
        self.draft.has_palette = True
        items = value
        if isinstance(value, str):
            known = self.context.registry.palettes
            if value not in known:
                self.unknown_palette(value, known)
                return
            items = list(known[value])
        if not isinstance(items, list) or not items:
            self.problems.add(place, not_filled(value, "expected the name of a palette or a list of operators"))
            return
        if len(items) > MAX_OPERATORS:
            self.problems.add(place, f"a palette has at most {MAX_OPERATORS} operators, this has {len(items)}")
            return
        named = isinstance(value, str)
        # ranges of registered palettes are as published, where posterize falls to 0 bits
        self.limited = not named
        made = [self.entry(item, place if named else (*place, number)) for number, item in enumerate(items)]
        self.limited = True
        self.draft.palette = value if named else tuple(value)
        self.draft.choices = tuple(choice for choice in made if choice is not None)

    def unknown_palette(self, name: str, known: Iterable[str]) -> None:
        if name in self.operators:
            message = f"{shown(name)} is an operator; write [{name}] for a palette of it alone"
            self.problems.add(("palette",), message)
        else:
            self.problems.unknown(("palette",), name, known, "palette")

    def entry(self, item: Any, place: Place) -> Choice | None:
        name, body, place = self.named(item, place, "an operator")
        if name is None:
            return None
        operator = self.operator(name, place)
        if operator is None:
            return None
        if not isinstance(body, dict):
            self.problems.add(place, not_a_body(operator, body, step=False))
            return None
        return self.choice(operator, body, place, ())

    def named(self, item: Any, place: Place, what: str) -> tuple[str | None, Any, Place]:
        """`name`, or `{name: body}`: the name, the body ({} for none), and the place of the body."""
        if isinstance(item, str):
            return item, {}, place
        if not isinstance(item, dict) or len(item) != 1:
            keys = f"a mapping with {len(item)} keys" if isinstance(item, dict) else shown(item)
            self.problems.add(place, f"expected {what}: a name, or a mapping with one key, found {keys}")
            return None, None, place
        ((name, body),) = item.items()
        return name, {} if body is None else body, (*place, name)

    def operator(self, name: str, place: Place) -> Operator | None:
        if name not in self.operators:
            self.problems.unknown(place, name, self.operators, "operator")
        return self.operators.get(name)

    def choice(self, operator: Operator, body: Mapping[str, Any], place: Place, more: tuple[str, ...]) -> Choice | None:
        """An operator with its range, sign and options; `more` are the keys that the caller reads."""
        before = len(self.problems.found)
        own = CHOICE_KEYS if operator.has_value else ()
        options = {}
        low, high, signed = operator.low or 0.0, operator.high or 0.0, operator.signed
        for key, value in body.items():
            where = (*place, key)
            if key in more:
                continue
            if key == "signed" and key in own:
                signed = self.flag(value, where)
            elif key in own:
                number = self.constant(value, where)
                if self.limited and beyond(operator, number, number):
                    self.problems.add(where, f"{number:g} is {beyond(operator, number, number)}")
                low, high = (number, high) if key == "low" else (low, number)
            elif key in operator.options:
                options[key] = self.option(operator, key, value, where)
            else:
                self.problems.unknown(where, key, (*more, *own, *operator.options))
        return (
            Choice(operator, float(low), float(high), signed, options) if len(self.problems.found) == before else None
        )

    def flag(self, value: Any, place: Place) -> bool:
        if not isinstance(value, bool):
            self.problems.add(place, f"expected true or false, found {shown(value)}")
        return value is True

    def constant(self, value: Any, place: Place) -> float:
        """A number, or an expression of params alone."""
        made = expr(value, place, self.problems)
        if made is None:
            return 0.0
        try:
            node = fold(substitute(made.node, {name: float(number) for name, number in self.draft.params.items()}))
        except ExpressionError as error:
            self.problems.add(place, error.message)
            return 0.0
        if isinstance(node, Number):
            return node.value
        self.problems.add(place, f"expected a number, or an expression of params alone, found {shown(value)}")
        return 0.0

    def option(self, operator: Operator, key: str, value: Any, place: Place) -> Any:
        adapter = option_type(operator.function, key)
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            self.problems.add(place, f"{shown(value)} is no value for {key}: {reason[:1].lower()}{reason[1:]}")
            return None

    # -- steps --------------------------------------------------------------------------------------------------

    def pipeline(self, value: Any) -> tuple[Step, ...]:
        """All steps, macros expanded."""
        if value is not None and not isinstance(value, list):
            self.problems.add(("pipeline",), f"expected a list of steps, found {shown(value)}")
            return ()
        steps = self.steps(_placed(value or [], ("pipeline",)), "pipeline")
        self.mixes_last(steps)
        if not self.problems.found and weight_of(steps) > MAX_STEPS:
            self.problems.add(("pipeline",), f"a strategy has at most {MAX_STEPS} steps, those it uses included")
        return steps

    def mixes_last(self, steps: tuple[Step, ...]) -> None:
        mixing = False
        for number, step in enumerate(steps):
            mixes = isinstance(step, BatchStep) or (isinstance(step, UseStep) and step.strategy.mixes)
            if mixing and not mixes:
                place = self.draft.places.get(f"pipeline[{number}]", ("pipeline",))
                self.problems.add(place, "mixing comes last: move this step before the one that mixes images")
            mixing = mixing or mixes

    def steps(self, items: list[tuple[Any, Place]], path: str) -> tuple[Step, ...]:
        """Steps of the document with their places, which are at `path` in the model."""
        made: list[Step] = []
        for item, place in items:
            made.extend(self.step(item, place, path, len(made)))
        return tuple(made)

    def step(self, item: Any, place: Place, path: str, position: int) -> list[Step]:
        name, body, inner = self.named(item, place, "a step")
        if name is None:
            return []
        where = f"{path}[{position}]"
        self.draft.places[where] = place
        readers: dict[str, Callable[[Any, Place, str], Step | None]] = {
            "pick": self.pick,
            "one_of": self.one_of,
            "use": self.use,
            "batch": self.batch,
        }
        if name == "color_jitter":
            return self.color_jitter(body, inner, path, position)
        if name in ("branches", "views", "probes"):
            self.problems.add(inner, f"{name} are not supported by this version of augkit yet; leave them out")
            return []
        read = readers.get(name)
        step = read(body, inner, where) if read else self.operator_step(name, body, inner, where)
        return [] if step is None else [step]

    def operator_step(self, name: str, body: Any, place: Place, where: str) -> OperatorStep | None:
        if name not in self.operators:
            self.problems.unknown(place, name, [*self.operators, *STEP_WORDS], "operator or step")
            return None
        operator = self.operators[name]
        if not isinstance(body, dict):
            self.problems.add(place, not_a_body(operator, body, step=True))
            return None
        amounts = ("strength", operator.value_name) if operator.has_value else ()
        choice = self.choice(operator, body, place, ("p", *amounts))
        said = {key: expr(body[key], (*place, key), self.problems) for key in ("p", *amounts) if key in body}
        if len([key for key in amounts if key in said]) == 2:
            self.problems.add(place, f"give strength or {operator.value_name}, not both")
            return None
        if choice is None or None in said.values():
            return None
        value, strength = said.get(operator.value_name) if amounts else None, said.get("strength")
        if value is not None and "signed" not in body:
            # a value in the operator's own unit is meant as it is written
            choice = Choice(choice.operator, choice.low, choice.high, False, choice.options)
        if operator.has_value and value is None and strength is None:
            strength = Expr.of("uniform()")
        self.draft.places[f"{where}.{name}"] = place
        if value is not None:
            self.draft.places[f"{where}.{name}.value"] = (*place, operator.value_name)
        return OperatorStep(choice=choice, p=said.get("p") or Expr.of(1), strength=strength, value=value)

    def pick(self, body: Any, place: Place, where: str) -> PickStep | None:
        self.draft.places[f"{where}.pick"] = place
        if not self.draft.has_palette:
            self.problems.add(place, "a pick needs a palette: add palette: with a name or a list of operators")
        return fill(PickStep, body, place, self.problems)

    def one_of(self, body: Any, place: Place, where: str) -> OneOfStep | None:
        if not isinstance(body, list) or not body:
            self.problems.add(place, not_filled(body, "expected a list of alternatives"))
            return None
        made = []
        for number, item in enumerate(body):
            here, at = (*place, number), f"{where}.one_of[{number}]"
            self.draft.places[at] = here
            weight, items = self.weighted(item, here)
            made.append(Alternative(weight=weight, steps=self.steps(items, f"{at}.steps")))
            if any(isinstance(s, BatchStep) or (isinstance(s, UseStep) and s.strategy.mixes) for s in made[-1].steps):
                self.problems.add(here, "mixing cannot be one of several steps; write the choice inside batch")
        return OneOfStep(alternatives=tuple(made))

    def weighted(self, item: Any, place: Place) -> tuple[Expr, list[tuple[Any, Place]]]:
        """A step, a list of steps, or {weight, steps}: the weight, and the steps with their places."""
        if isinstance(item, list):
            return Expr.of(1), _placed(item, place)
        if not (isinstance(item, dict) and ("weight" in item or "steps" in item)):
            return Expr.of(1), [(item, place)]
        for key in item:
            if key not in ("weight", "steps"):
                self.problems.unknown((*place, key), key, ("weight", "steps"))
        weight = expr(item.get("weight", 1), (*place, "weight"), self.problems) or Expr.of(1)
        steps = item.get("steps")
        if not isinstance(steps, list):
            self.problems.add(place, f"expected steps: with a list, found {shown(steps)}")
            return weight, []
        return weight, _placed(steps, (*place, "steps"))

    def use(self, body: Any, place: Place, where: str) -> UseStep | None:
        named = (*place, "name") if isinstance(body, dict) else place
        body = {"name": body} if isinstance(body, str) else body
        if not isinstance(body, dict):
            self.problems.add(place, f"expected the name of a strategy, found {shown(body)}")
            return None
        for key in body:
            if key not in ("name", "p", "params"):
                self.problems.unknown((*place, key), key, ("name", "p", "params"))
        name, params = body.get("name"), body.get("params") or {}
        if not isinstance(name, str) or not isinstance(params, dict):
            what = ("name:", name) if not isinstance(name, str) else ("params: with a mapping", params)
            self.problems.add(place, f"expected {what[0]}, found {shown(what[1])}")
            return None
        p = expr(body.get("p", 1), (*place, "p"), self.problems)
        self.draft.places[f"{where}.use"] = place
        values = {key: self.given(value, (*place, "params", key)) for key, value in params.items()}
        try:
            strategy = self.context.use(name, values)
        except DocumentError as error:
            self.problems.add(named, described(error))
            return None
        if p is not None and strategy.mixes and p != Expr.of(1):
            self.problems.add((*place, "p"), f'"{name}" mixes images; say how often with p in its own mixing steps')
        return UseStep(strategy=strategy, p=p) if p is not None else None

    def given(self, value: Any, place: Place) -> Any:
        return value if isinstance(value, bool) else self.constant(value, place)

    def color_jitter(self, body: Any, place: Place, path: str, position: int) -> list[Step]:
        """Brightness, contrast and colour, each by a factor around 1."""
        if isinstance(body, dict):
            amounts = {key: self.amount(value, (*place, key)) for key, value in body.items() if key in JITTER_KEYS}
            for key in [key for key in body if key not in JITTER_KEYS]:
                self.problems.unknown((*place, key), key, JITTER_KEYS)
        else:
            amounts = dict.fromkeys(JITTER_KEYS, self.amount(body, place))
        made: list[Step] = []
        for key, name in JITTER_KEYS.items():
            amount = amounts.get(key)
            operator = self.operator(name, place) if amount is not None else None
            if amount is None or operator is None or not operator.has_value:
                continue
            factor = Expr.of(f"uniform({number_text(max(0.0, 1 - amount))}, {number_text(1 + amount)})")
            self.draft.places[f"{path}[{position + len(made)}]"] = place
            choice = Choice(operator, operator.low or 0.0, operator.high or 0.0)
            made.append(OperatorStep(choice=choice, value=factor))
        return made

    def amount(self, value: Any, place: Place) -> float | None:
        """How far a factor may be from 1."""
        number = self.constant(value, place)
        if 0 <= number <= 10:
            return number
        self.problems.add(place, f"expected a number from 0 to 10, found {shown(value)}")
        return None

    # -- mixing -------------------------------------------------------------------------------------------------

    def batch(self, body: Any, place: Place, where: str) -> BatchStep | None:
        if not isinstance(body, list) or not body:
            self.problems.add(place, not_filled(body, "expected a list of mixing steps"))
            return None
        made: list[MixStep | OneOfMix] = []
        for number, item in enumerate(body):
            mix = self.mix_or_choice(item, (*place, number), f"{where}.batch[{len(made)}]")
            made += [] if mix is None else [mix]
        return BatchStep(mixes=tuple(made))

    def mix_or_choice(self, item: Any, place: Place, where: str) -> MixStep | OneOfMix | None:
        if not (isinstance(item, dict) and "one_of" in item and len(item) == 1):
            return self.mix(item, place, where)
        place, items = (*place, "one_of"), item["one_of"]
        if not isinstance(items, list) or not items:
            self.problems.add(place, not_filled(items, "expected a list of mixing steps"))
            return None
        made: list[MixAlternative] = []
        for number, inner in enumerate(items):
            here, at = (*place, number), f"{where}.one_of[{len(made)}]"
            self.draft.places[at] = here
            weight, steps = self.weighted(inner, here)
            if len(steps) != 1:
                self.problems.add(here, f"expected one mixing step, found {len(steps)}")
                continue
            mix = self.mix(*steps[0], at)
            if mix is not None:
                made.append(MixAlternative(weight=weight, mix=mix))
        if len({way.mix.partner for way in made}) > 1:
            self.problems.add(place, "give all mixing steps of a one_of the same partner, batch or pool")
        return OneOfMix(alternatives=tuple(made))

    def mix(self, item: Any, place: Place, where: str) -> MixStep | None:
        name, body, inner = self.named(item, place, "mixup or cutmix")
        if name is None:
            return None
        if name not in MIXES:
            self.problems.unknown(inner, name, (*MIXES, "one_of"), "mixing step")
            return None
        self.draft.places[f"{where}.{name}"] = inner
        return fill(MixStep, body, inner, self.problems, given={"kind": name})


def _placed(items: list[Any], place: Place) -> list[tuple[Any, Place]]:
    return [(item, (*place, number)) for number, item in enumerate(items)]


def weight_of(steps: tuple[Step, ...]) -> int:
    """How many steps there are, with those of alternatives and of strategies in use."""
    total = 0
    for step in steps:
        if isinstance(step, OneOfStep):
            total += sum(weight_of(alternative.steps) for alternative in step.alternatives)
        elif isinstance(step, UseStep):
            total += weight_of(step.strategy.pipeline)
        else:
            total += 1
    return total
