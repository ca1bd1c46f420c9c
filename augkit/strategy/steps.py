"""The steps of a pipeline: names to operators, macros expanded, `use` resolved."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from augkit.errors import DocumentError
from augkit.operators.base import Choice
from augkit.strategy.budget import MAX_STEPS, weight_of
from augkit.strategy.choices import Choices
from augkit.strategy.draft import Context, Draft, described, expr, fill, not_a_body, placed, weighted
from augkit.strategy.expression import number_text
from augkit.strategy.mix_steps import MIXES, Mixes
from augkit.strategy.model import (
    Alternative,
    BranchesStep,
    Expr,
    OneOfStep,
    OperatorStep,
    PickStep,
    Step,
    UseStep,
    View,
    step_lists,
)
from augkit.strategy.order import check_alternative, check_order, check_use
from augkit.strategy.problems import Place, not_filled, shown

STEP_WORDS = ("pick", "one_of", "branches", "use", "batch", "color_jitter")
JITTER = ("brightness", "contrast", "color")
JITTER_KEYS = {"brightness": "brightness", "contrast": "contrast", "saturation": "color"}
MAX_VIEWS = 16
TOO_MANY_STEPS = f"a strategy has at most {MAX_STEPS} steps, those it uses included"
VIEW_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")


class Steps:
    """Reads the steps of one document into its draft."""

    def __init__(self, context: Context, draft: Draft) -> None:
        self.context, self.draft, self.problems = context, draft, context.problems
        self.choices = Choices(context, draft)
        self.mixes = Mixes(self.choices)
        self.used = 0
        """Steps of all strategies in use so far."""

    def read(self, pipeline: Any, views: Any) -> None:
        """All steps, macros expanded: the pipeline's, and those of each view."""
        if pipeline is not None and not isinstance(pipeline, list):
            self.problems.add(("pipeline",), f"expected a list of steps, found {shown(pipeline)}")
            pipeline = []
        self.draft.pipeline = self.steps(placed(pipeline or [], ("pipeline",)), "pipeline")
        self.views(views)
        check_order(self.draft, self.problems)
        lists = step_lists(self.draft.pipeline, self.draft.views, {}).values()
        if not self.problems.found and sum(map(weight_of, lists)) > MAX_STEPS:
            self.problems.add(("pipeline",), TOO_MANY_STEPS)

    def views(self, value: Any) -> None:
        if value is not None and not isinstance(value, dict):
            example = "a mapping of names to lists of steps, such as {clean: [], strong: [hflip, rotate]}"
            self.problems.add(("views",), f"expected {example}, found {shown(value)}")
            return
        for name, body in (value or {}).items():
            place: Place = ("views", name)
            if not VIEW_NAME.fullmatch(name):
                rule = "a view's name has 1 to 60 ASCII letters, digits and _, and begins with a letter"
                self.problems.add(place, f"{rule}, unlike {shown(name)}")
                continue
            self.draft.views[name] = self.view(body, place, f"views.{name}")
        count = sum(view.times for view in self.draft.views.values())
        if count > MAX_VIEWS:
            self.problems.add(("views",), f"an image has at most {MAX_VIEWS} views, this makes {count}")

    def view(self, body: Any, place: Place, path: str) -> View:
        times, within = 1, place
        if isinstance(body, dict):
            for key in [key for key in body if key not in ("times", "steps")]:
                self.problems.unknown((*place, key), key, ("times", "steps"))
            number = self.choices.constant(body.get("times", 1), (*place, "times"))
            if number < 1 or number != int(number):
                found = shown(body["times"])
                self.problems.add((*place, "times"), f"expected a whole number of 1 or more, found {found}")
            else:
                times = int(min(number, MAX_VIEWS + 1))
            within, body = (*place, "steps"), body.get("steps")
        if not isinstance(body, list):
            expected = "expected a list of steps, or {times: 2, steps: [...]}"
            self.problems.add(place, f"{expected}, found {shown(body)}")
            return View()
        return View(times=times, steps=self.steps(placed(body, within), path))

    def steps(self, items: list[tuple[Any, Place]], path: str) -> tuple[Step, ...]:
        """Steps of the document with their places, which are at `path` in the model."""
        made: list[Step] = []
        for item, place in items:
            made.extend(self.step(item, place, path, len(made)))
        return tuple(made)

    def step(self, item: Any, place: Place, path: str, position: int) -> list[Step]:
        name, body, inner = self.choices.named(item, place, "a step")
        if name is None:
            return []
        where = f"{path}[{position}]"
        self.draft.places[where] = place
        readers: dict[str, Callable[[Any, Place, str], Step | None]] = {
            "pick": self.pick,
            "one_of": self.one_of,
            "branches": self.branches,
            "use": self.use,
            "batch": self.mixes.batch,
        }
        if name == "color_jitter":
            return self.color_jitter(body, inner, path, position)
        if name in ("views", "probes"):
            self.problems.add(inner, f"{name} are no step: write {name}: beside pipeline:, at the top of the document")
            return []
        read = readers.get(name)
        step = read(body, inner, where) if read else self.operator_step(name, body, inner, where)
        return [] if step is None else [step]

    def operator_step(self, name: str, body: Any, place: Place, where: str) -> OperatorStep | None:
        if name in MIXES and name not in self.context.registry.operators:
            self.problems.add(place, f"{name} mixes images: write it under batch:, as in - batch: [{name}]")
            return None
        operator = self.choices.operator(name, place, STEP_WORDS)
        if operator is None:
            return None
        if not isinstance(body, dict):
            self.problems.add(place, not_a_body(operator, body, step=True))
            return None
        amounts = ("strength", operator.value_name) if operator.has_value else ()
        choice = self.choices.choice(operator, body, place, ("p", *amounts))
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
        self.need_palette("a pick needs", place)
        return fill(PickStep, body, place, self.problems)

    def branches(self, body: Any, place: Place, where: str) -> BranchesStep | None:
        self.draft.places[f"{where}.branches"] = place
        self.need_palette("branches need", place)
        return fill(BranchesStep, body, place, self.problems)

    def need_palette(self, who: str, place: Place) -> None:
        if not self.draft.has_palette:
            self.problems.add(place, f"{who} a palette: add palette: with a name or a list of operators")

    def one_of(self, body: Any, place: Place, where: str) -> OneOfStep | None:
        if not isinstance(body, list) or not body:
            self.problems.add(place, not_filled(body, "expected a list of alternatives"))
            return None
        made = []
        for number, item in enumerate(body):
            here, at = (*place, number), f"{where}.one_of[{number}]"
            self.draft.places[at] = here
            weight, items = weighted(item, here, self.problems)
            made.append(Alternative(weight=weight, steps=self.steps(items, f"{at}.steps")))
            check_alternative(made[-1].steps, here, self.problems)
        return OneOfStep(alternatives=tuple(made))

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
        if self.used > MAX_STEPS:
            return None  # that is told already, and loading more would only take time
        try:
            strategy = self.context.use(name, values)
        except DocumentError as error:
            self.problems.add(named, described(error))
            return None
        step = UseStep(strategy=strategy, p=p or Expr.of(1))
        self.used += weight_of((step,))
        if self.used > MAX_STEPS:
            self.problems.add(place, TOO_MANY_STEPS)
        if p is None:
            return None
        check_use(step, name, place, self.problems)
        return step

    def given(self, value: Any, place: Place) -> Any:
        return value if isinstance(value, bool) else self.choices.constant(value, place)

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
            operator = self.choices.operator(name, place) if amount is not None else None
            if amount is None or operator is None or not operator.has_value:
                continue
            factor = Expr.of(f"uniform({number_text(max(0.0, 1 - amount))}, {number_text(1 + amount)})")
            self.draft.places[f"{path}[{position + len(made)}]"] = place
            choice = Choice(operator, operator.low or 0.0, operator.high or 0.0)
            made.append(OperatorStep(choice=choice, value=factor))
        return made

    def amount(self, value: Any, place: Place) -> float | None:
        """How far a factor may be from 1."""
        number = self.choices.constant(value, place)
        if 0 <= number <= 10:
            return number
        self.problems.add(place, f"expected a number from 0 to 10, found {shown(value)}")
        return None
