"""The static check of a whole strategy: each expression against its place, and what the strategy needs to run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from augkit.errors import ExpressionError
from augkit.registry import Registry
from augkit.strategy.budget import check_budget
from augkit.strategy.build import SIGNALS
from augkit.strategy.draft import Draft
from augkit.strategy.expression import names
from augkit.strategy.intervals import ANY, Interval, union
from augkit.strategy.labels import KEPT, KEPT_IS, PARTNER, PARTNER_IS
from augkit.strategy.mix_checks import check_mixing
from augkit.strategy.model import (
    BranchesStep,
    Expr,
    OneOfStep,
    OperatorStep,
    PickStep,
    Rule,
    Step,
    UseStep,
    located,
    step_lists,
)
from augkit.strategy.options import beyond, check_palette, check_width
from augkit.strategy.probes import check_probes, check_steps, most_images, too_many, with_levels, with_results
from augkit.strategy.problems import Place, Problems
from augkit.strategy.typing import Axes, Scope, Typed, check, clamp, interval_text

MAX_COUNT = 64
MAX_WIDTH = 16
COUNTED = ("correct", "seen", "loss", "val_correct", "val_seen", "used", "strength_used", "step", "epoch")
_POSITIVE: Interval = (0.0, math.inf)
_ROUNDS = 3

BATCH: Axes = ("batch",)
PICKS: Axes = ("batch", "picks")
BRANCHES: Axes = ("batch", "branches")


@dataclass
class Checker:
    """Checks one draft; `typed` fills as it goes."""

    draft: Draft
    registry: Registry
    problems: Problems
    typed: dict[str, Typed] = field(default_factory=dict)

    def run(self) -> None:
        """Check state, pipeline and update rules."""
        self.base = self.scope()
        check_palette(self.draft.choices, self.draft.palette, self.problems)
        self.order_state()
        self.infer_state()
        highest = check_probes(self)
        pipeline = with_levels(replace(self.base, indices=True), self.draft.probes, highest)
        for path, steps in step_lists(self.draft.pipeline, self.draft.views, {}).items():
            self.steps(steps, path, pipeline)
        check_steps(self, highest)
        self.state()
        for number, rule in enumerate(self.draft.update):
            if rule is not None:
                self.rule(rule, number)
        self.cost()

    def cost(self) -> None:
        """Refuse too many operators for an image, and probes that ask too much even of a single class."""
        if self.problems.found:
            return
        check_budget(self.draft, self.typed, self.problems)
        each = most_images(self.draft.probes, self.typed, {})
        if self.draft.max_probe_images < each < math.inf:
            self.problems.add(("probes",), too_many(each, "one class", self.draft.max_probe_images))

    # -- scopes -------------------------------------------------------------------------------------------------

    def scope(self) -> Scope:
        """Params, signals and state."""
        draft = self.draft
        axes = {"classes", "groups", "samples", "batch", "picks", *(("ops",) if draft.has_palette else ())}
        signals = {**SIGNALS, **dict.fromkeys(self.registry.signals, ("classes",))}
        if not draft.has_palette:
            signals = {name: own for name, own in signals.items() if "ops" not in own}
        return Scope(
            names={**signals, **{name: spec.axes for name, spec in draft.state.items()}},
            ranges={**dict.fromkeys(SIGNALS, _POSITIVE), "epochs": (1.0, math.inf)},
            constants={name: float(value) for name, value in draft.params.items()},
            sizes={"ops": len(draft.choices)} if draft.choices else {},
            hidden={PARTNER: PARTNER_IS, KEPT: KEPT_IS},
            axes=frozenset(axes),
        )

    def initial(self, name: str) -> Scope:
        """For the `init` of a state: what is known before anything was drawn, and other state."""
        uncounted = dict.fromkeys([*COUNTED, *self.registry.signals], "nothing has been counted yet when state begins")
        hidden = {**self.base.hidden, **uncounted, name: "it is what is being set up"}
        return replace(
            self.base, names={n: axes for n, axes in self.base.names.items() if n not in hidden}, hidden=hidden
        )

    def order_state(self) -> None:
        """Put state in an order in which each `init` finds what it reads."""
        state, ordered = self.draft.state, dict[str, None]()
        waiting = {name: names(spec.init.node) & set(state) - {name} for name, spec in state.items()}
        while waiting:
            ready = [name for name, reads in waiting.items() if reads <= set(ordered)]
            if not ready:
                circle = ", ".join(sorted(waiting))
                self.problems.add(("state",), f"the init expressions of {circle} read each other in a circle")
                ready = list(waiting)
            for name in ready:
                ordered[name] = None
                del waiting[name]
        self.draft.state = {name: state[name] for name in ordered}

    def infer_state(self) -> None:
        """Ranges of state: its clamp, or else what its expressions can give, widened until nothing changes."""
        ranges = {name: self.clamp_range(name) for name in self.draft.state}
        unknown = [name for name, interval in ranges.items() if interval is None]
        known: dict[str, Interval] = {name: interval for name, interval in ranges.items() if interval is not None}
        for name in unknown:
            self.with_ranges(known)
            known[name] = self.quiet(self.draft.state[name].init, self.initial(name), self.draft.state[name].axes)
        for turn in range(_ROUNDS):
            self.with_ranges(known)
            grown = self.assigned({name: known[name] for name in unknown})
            if all(grown[name] == known[name] for name in unknown):
                return
            last = turn == _ROUNDS - 2
            known.update({n: ANY if last and grown[n] != known[n] else interval for n, interval in grown.items()})
        self.with_ranges({**known, **dict.fromkeys(unknown, ANY)})

    def with_ranges(self, ranges: Mapping[str, Interval]) -> None:
        self.base = replace(self.base, ranges={**self.base.ranges, **ranges})

    def clamp_range(self, name: str) -> Interval | None:
        """Low and high of a clamp; None for a state without one on both sides."""
        spec = self.draft.state[name]
        if spec.clamp is None:
            return None
        scope = replace(self.base, names={"epochs": ()}, random=False)
        low, high = (ANY if edge is None else self.quiet(edge, scope, ()) for edge in spec.clamp)
        return clamp(
            ANY, low if spec.clamp[0] else (-math.inf, -math.inf), high if spec.clamp[1] else (math.inf, math.inf)
        )

    def assigned(self, ranges: dict[str, Interval]) -> dict[str, Interval]:
        """The ranges of states, widened by everything that rules set them to."""
        for rule in self.draft.update:
            if rule is not None and ranges.keys() & rule.set.keys():
                scope = self.lets(rule, None)
                for name in ranges.keys() & rule.set.keys():
                    found = self.quiet(rule.set[name], scope, self.draft.state[name].axes)
                    ranges[name] = union(ranges[name], found)
        return ranges

    def quiet(self, expression: Expr, scope: Scope, want: Axes) -> Interval:
        """The range of an expression; anything if it is wrong, which is reported elsewhere."""
        try:
            typed = check(expression.node, scope, want)
        except ExpressionError:
            return ANY
        return typed.low, typed.high

    # -- expressions --------------------------------------------------------------------------------------------

    def expression(self, source: Expr, scope: Scope, want: Axes | None, path: str, place: Place) -> Typed | None:
        """Check one expression and keep the result."""
        try:
            typed = check(source.node, scope, want, path)
        except ExpressionError as error:
            if not names(source.node) & self.draft.broken:
                self.problems.add(place, located(error, source.text))
            return None
        self.typed[path] = typed
        return typed

    def share(self, source: Expr, scope: Scope, want: Axes, path: str, place: Place) -> None:
        """A probability or a strength: never wholly outside 0..1."""
        typed = self.expression(source, scope, want, path, place)
        if typed is not None and (typed.low > 1 or typed.high < 0):
            self.problems.add(place, f"`{source}` is {interval_text(typed)}, never within 0..1")

    def weight(self, source: Expr, scope: Scope, want: Axes, path: str, place: Place) -> None:
        """A relative weight: not always negative."""
        typed = self.expression(source, scope, want, path, place)
        if typed is not None and typed.high < 0:
            self.problems.add(place, f"`{source}` is {interval_text(typed)}, but a weight is not negative")

    # -- steps --------------------------------------------------------------------------------------------------

    def steps(self, steps: Iterable[Step], path: str, scope: Scope) -> None:
        for number, step in enumerate(steps):
            self.step(step, f"{path}[{number}]", scope)

    def step(self, step: Step, path: str, scope: Scope) -> None:
        place = self.draft.places.get(path, ())
        if isinstance(step, OperatorStep):
            self.operator(step, f"{path}.{step.choice.operator.name}", place, scope)
        elif isinstance(step, PickStep):
            self.pick(step, f"{path}.pick", scope)
        elif isinstance(step, BranchesStep):
            self.branches(step, f"{path}.branches", scope)
        elif isinstance(step, UseStep):
            self.share(step.p, scope, BATCH, f"{path}.use.p", (*self.draft.places[f"{path}.use"], "p"))
        elif isinstance(step, OneOfStep):
            for number, alternative in enumerate(step.alternatives):
                at = f"{path}.one_of[{number}]"
                self.weight(alternative.weight, scope, BATCH, f"{at}.weight", (*self.draft.places[at], "weight"))
                self.steps(alternative.steps, f"{at}.steps", scope)
        else:
            check_mixing(self, step, f"{path}.batch", scope)

    def operator(self, step: OperatorStep, path: str, place: Place, scope: Scope) -> None:
        place = self.draft.places.get(path, place)
        self.share(step.p, scope, BATCH, f"{path}.p", (*place, "p"))
        if step.strength is not None:
            self.share(step.strength, scope, BATCH, f"{path}.strength", (*place, "strength"))
        if step.value is not None:
            here = self.draft.places.get(f"{path}.value", place)
            typed = self.expression(step.value, scope, BATCH, f"{path}.value", here)
            fault = beyond(step.choice.operator, typed.low, typed.high) if typed is not None else ""
            if fault and typed is not None:
                self.problems.add(here, f"`{step.value}` is {interval_text(typed)}, {fault}")
            elif typed is not None and not self.draft.broken:  # ranges mean little while a state is wrong
                check_width(step.choice, here, self.problems, f"`{step.value}` can be", typed.high)
        else:
            check_width(step.choice, place, self.problems)

    def pick(self, step: PickStep, path: str, scope: Scope) -> None:
        place = self.draft.places[path]
        self.share(step.p, scope, BATCH, f"{path}.p", (*place, "p"))
        self.share(step.each_p, scope, PICKS, f"{path}.each_p", (*place, "each_p"))
        self.share(step.strength, scope, PICKS, f"{path}.strength", (*place, "strength"))
        if step.weights is not None:
            self.weight(step.weights, scope, ("batch", "ops"), f"{path}.weights", (*place, "weights"))
        count = self.expression(step.count, scope, BATCH, f"{path}.count", (*place, "count"))
        self.count(step.count, count, step.replace, MAX_COUNT, (*place, "count"))

    def count(self, source: Expr, count: Typed | None, replace: bool, most: int, here: Place) -> None:
        """A number of operators to draw from the palette."""
        if count is None or self.draft.broken:  # ranges mean little while a state is wrong
            return
        if count.high > most:
            cure = "bound it, as in min(x, 8), or give the state it reads a clamp"
            self.problems.add(here, f"`{source}` can be {count.high:g}, at most {most} operators are drawn; {cure}")
        elif count.high < 0:
            self.problems.add(here, f"`{source}` is {interval_text(count)}, but a count is not negative")
        elif not replace and self.draft.choices and count.low > len(self.draft.choices):
            have = len(self.draft.choices)
            self.problems.add(
                here, f"{count.low:g} operators cannot be drawn from a palette of {have} without replace: true"
            )

    def branches(self, step: BranchesStep, path: str, scope: Scope) -> None:
        place = self.draft.places[path]
        self.share(step.p, scope, BATCH, f"{path}.p", (*place, "p"))
        self.share(step.blend, scope, BATCH, f"{path}.blend", (*place, "blend"))
        self.share(step.strength, scope, (*BRANCHES, "picks"), f"{path}.strength", (*place, "strength"))
        width = self.expression(step.width, scope, (), f"{path}.width", (*place, "width"))
        found = width.constant if width is not None else None
        if width is not None and (found is None or found not in range(1, MAX_WIDTH + 1)):
            told = f"`{step.width}` is {interval_text(width)}, but there is one whole number of branches"
            self.problems.add((*place, "width"), f"{told}, from 1 to {MAX_WIDTH}")
            found = None
        along = replace(
            scope, along="branches", axes=scope.axes | {"branches"}, sizes={**scope.sizes, "branches": int(found or 1)}
        )
        self.weight(step.weights, along, BRANCHES, f"{path}.weights", (*place, "weights"))
        depth = self.expression(step.depth, scope, BRANCHES, f"{path}.depth", (*place, "depth"))
        self.count(step.depth, depth, step.replace, MAX_COUNT // int(found or 1), (*place, "depth"))

    # -- state and rules ----------------------------------------------------------------------------------------

    def state(self) -> None:
        for name, spec in self.draft.state.items():
            place: Place = ("state", name)
            if "ops" in spec.axes and not self.draft.has_palette:
                self.problems.add((*place, "axes"), "the axis ops needs a palette, and the strategy has none")
            self.expression(spec.init, self.initial(name), spec.axes, f"state.{name}.init", (*place, "init"))
            scope = replace(self.base, names={"epochs": ()}, random=False)
            edges: list[Typed | None] = []
            for number, (side, edge) in enumerate(zip(("low", "high"), spec.clamp or (None, None), strict=True)):
                here = (*place, "clamp", number)
                edges.append(self.expression(edge, scope, (), f"state.{name}.clamp.{side}", here) if edge else None)
            if edges[0] is not None and edges[1] is not None and edges[0].low > edges[1].high:
                self.problems.add(
                    (*place, "clamp"), f"the low end {edges[0].low:g} is above the high end {edges[1].high:g}"
                )

    def lets(self, rule: Rule, number: int | None) -> Scope:
        """The scope of a rule: with its `let` names, checked (and reported, where `number` is given) one by one."""
        scope = with_results(self.base, self.draft.probes)
        for name, expression in rule.let.items():
            try:
                typed: Typed | None = check(expression.node, scope, None)
            except ExpressionError:
                typed = None
            if number is not None:
                place: Place = ("update", number, "let", name)
                self.expression(expression, scope, None, f"update[{number}].let.{name}", place)
            if typed is None:
                self.draft.broken.add(name)
                continue
            ranges = {**scope.ranges, name: (typed.low, typed.high)}
            probes = {**scope.probes, name: typed.probes}
            scope = replace(scope, names={**scope.names, name: typed.axes}, ranges=ranges, probes=probes)
        return scope

    def rule(self, rule: Rule, number: int) -> None:
        place: Place = ("update", number)
        if rule.when is not None:
            scope = with_results(self.base, self.draft.probes)
            self.expression(rule.when, scope, (), f"update[{number}].when", (*place, "when"))
        scope = self.lets(rule, number)
        for name, expression in rule.set.items():
            if name in self.draft.state:
                path = f"update[{number}].set.{name}"
                self.expression(expression, scope, self.draft.state[name].axes, path, (*place, "set", name))
