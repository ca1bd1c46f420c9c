"""Operators as a document names them: entries of a palette, with their ranges, signs and options."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from augkit.errors import ExpressionError, OperatorError
from augkit.operators.base import Choice, Operator
from augkit.operators.external import External, OptionError, external, is_external
from augkit.operators.libraries import LIBRARIES
from augkit.strategy.draft import Context, Draft, expr, not_a_body
from augkit.strategy.expression import Number, parse, substitute
from augkit.strategy.folding import fold
from augkit.strategy.options import beyond, option_type
from augkit.strategy.problems import Place, not_filled, shown

CHOICE_KEYS = ("low", "high", "signed")
MAX_OPERATORS = 64
EXAMPLES = {"albumentations": "CoarseDropout", "kornia": "RandomPlasmaShadow", "torchvision": "ColorJitter"}


class Choices:
    """Reads operators, alone and as the palette, into the draft of one document."""

    def __init__(self, context: Context, draft: Draft) -> None:
        self.context, self.draft, self.problems = context, draft, context.problems
        self.operators = context.registry.operators

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
        made = [self.entry(item, place if named else (*place, number)) for number, item in enumerate(items)]
        self.draft.palette = value if named else tuple(value)
        self.draft.choices = tuple(choice for choice in made if choice is not None)

    def unknown_palette(self, name: str, known: Iterable[str]) -> None:
        if name in self.operators or is_external(name):
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

    def operator(self, name: str, place: Place, also: tuple[str, ...] = ()) -> Operator | None:
        """The operator of a name, registered or of another library; `also` are other words that fit here."""
        if name in self.operators:
            return self.operators[name]
        if is_external(name) and name.partition(":")[0] not in self.operators:  # `rotate:30` only lacks a space
            try:
                return external(name)
            except OperatorError as error:
                self.problems.add(place, error.message)
                return None
        library = name.removesuffix(":")
        if library in LIBRARIES:
            example = f"{library}:{EXAMPLES[library]}"
            self.problems.add(place, f'name a class after "{library}:", without a space between, as in {example}')
            return None
        self.problems.unknown(place, name, [*self.operators, *also], "operator or step" if also else "operator")
        return None

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
                if beyond(operator, number, number):
                    self.problems.add(where, f"{number:g} is {beyond(operator, number, number)}")
                low, high = (number, high) if key == "low" else (low, number)
            elif key in operator.options:
                options[key] = self.option(operator, key, value, where)
            elif key == "p":
                self.problems.add(where, "in a palette no operator has a p of its own; write each_p in the pick")
            else:
                self.problems.unknown(where, key, (*more, *own, *operator.options))
        if len(self.problems.found) == before:
            self.all_options(operator, options, place)
        return (
            Choice(operator, float(low), float(high), signed, options) if len(self.problems.found) == before else None
        )

    def all_options(self, operator: Operator, options: Mapping[str, Any], place: Place) -> None:
        """Options that only their library can judge."""
        if isinstance(operator.function, External):
            try:
                operator.function.check(options)
            except OptionError as error:
                self.problems.add((*place, error.key) if error.key else place, error.message)

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
        if isinstance(operator.function, External):
            return self.settled(value)
        adapter = option_type(operator.function, key)
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            self.problems.add(place, f"{shown(value)} is no value for {key}: {reason[:1].lower()}{reason[1:]}")
            return None

    def settled(self, value: Any) -> Any:
        """Text that is an expression of params alone as its number, however deep; other text is a library's word."""
        if isinstance(value, list):
            return [self.settled(item) for item in value]
        if isinstance(value, dict):
            return {key: self.settled(item) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        try:
            node = fold(substitute(parse(value), {name: float(number) for name, number in self.draft.params.items()}))
        except ExpressionError:
            return value
        return node.value if isinstance(node, Number) else value
