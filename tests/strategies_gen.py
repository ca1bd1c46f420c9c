"""Expressions and documents that are valid by construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from augkit.operators.base import Operator
from augkit.registry import Registry
from augkit.strategy.build import SIGNALS
from augkit.strategy.expression import BINARY, Binary, Call, Index, Name, Node, Number, Unary
from augkit.strategy.typing import INDEXED

Axes = frozenset[str]
Names = Mapping[str, Sequence[str]]

_NAMES = st.sampled_from(["a", "weight", "epoch", "x1", "notes", "order", "And", "a.correct", "x1.level"])
_ODD = st.sampled_from([1e-7, 0.5, 1e29, 123456.789])
_NUMBERS = st.one_of(st.integers(0, 10**6).map(float), st.floats(0, 1e6), _ODD)


def _grow(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    comparisons = [op for op, power in BINARY.items() if power == 4]
    plain = [op for op in BINARY if op not in comparisons]
    return st.one_of(
        st.builds(Binary, st.sampled_from(plain), inner, inner),
        st.builds(Binary, st.sampled_from(comparisons), inner, inner),
        st.builds(Unary, st.sampled_from(["-", "+", "not"]), inner),
        st.builds(Index, inner, st.sampled_from(list(INDEXED))),
        st.builds(
            Call,
            st.sampled_from(["sum", "f", "max"]),
            st.lists(inner, max_size=3).map(tuple),
            st.sampled_from([None, "ops", "classes"]),
        ),
    )


trees: st.SearchStrategy[Node] = st.recursive(
    st.one_of(st.builds(Number, _NUMBERS), st.builds(Name, _NAMES)), _grow, max_leaves=20
)


# -- expressions that pass the static check -------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where an expression stands: readable names, wanted axes, whether there are an image, random calls, a partner."""

    names: Names
    want: Axes
    image: bool = False
    random: bool = True
    partner: bool = False

    def but(self, want: Axes | set[str]) -> Place:
        return replace(self, want=frozenset(want))


_EACH = ["{} + {}", "{} - {}", "{} * {}", "min({}, {})", "max({}, {})", "{} < {}", "{} == {}", "{} and {}", "{} or {}"]
_EACH += ["{} / max(0.01, {})", "{} % max(0.5, {})", "{} // max(1, {})", "where({} > 1, {}, 2)"]
_ONE = ["-{}", "not {}", "abs({})", "sign({})", "sqrt({})", "log({})", "exp(-abs({}))", "floor({})", "ceil({})"]
_ONE += ["round({})", "clip({}, -2, 3)", "linear(0, 2, {})", "cosine(1, 0, {})", "step(0, 1, {})", "cyclic(-1, 1, {})"]
_REDUCE = ["sum({}, over={})", "mean({}, over={})", "any({}, over={})", "all({}, over={})", "min({}, over={})"]
_REDUCE += ["max({}, over={})", "argmax({}, over={})", "quantile({}, 0.3, over={})"]
_ALONG = ["rank({}, over={})", "topk({}, 2, over={})", "softmax({}, over={})"]
_DRAWS = ["uniform()", "uniform(1, 3)", "normal(0, 1)", "bernoulli(0.3)", "randint(0, 5)", "beta(2, 0.5)"]


def _leaf(draw: st.DrawFn, place: Place) -> str:
    options = [draw(st.one_of(st.integers(0, 9).map(str), st.sampled_from(["0.5", ".25", "2e-1"])))]
    for name, axes in place.names.items():
        if frozenset(axes) <= place.want:
            options.append(name)
        for key, axis in INDEXED.items():
            rest = frozenset(axes) - {axis}
            if (place.image if key != "partner" else place.partner) and axis in axes and rest <= place.want:
                options.append(f"{name}[{key}]")
    if place.image:
        options.append("is_synthetic")
    if place.random:
        options += _DRAWS
    return draw(st.sampled_from(options))


def _with_axis(draw: st.DrawFn, place: Place, axis: str, depth: int) -> str | None:
    """An expression that surely has an axis."""
    names = [name for name, axes in place.names.items() if axis in axes and frozenset(axes) <= place.want]
    if place.random:
        names.append("uniform()")
    if not names:
        return None
    anchor = draw(st.sampled_from(names))
    other = well_typed(draw, place, depth - 1)
    return draw(st.sampled_from([anchor, f"({anchor} + {other})", f"max({anchor}, {other})"]))


def well_typed(draw: st.DrawFn, place: Place, depth: int = 3) -> str:
    """Text of an expression that is valid at a place, with brackets wherever they might matter."""
    kind = draw(st.sampled_from(["leaf", "each", "one", "reduce", "along", "onehot"])) if depth > 0 else "leaf"
    if kind == "each":
        parts = [well_typed(draw, place, depth - 1) for _ in range(2)]
        return f"({draw(st.sampled_from(_EACH)).format(*parts)})"
    if kind == "one":
        return f"({draw(st.sampled_from(_ONE)).format(well_typed(draw, place, depth - 1))})"
    axes = sorted({"classes", "ops"} & {axis for own in place.names.values() for axis in own})
    if "samples" in place.want:  # nothing is as large as samples times something else
        axes = []
    axis = draw(st.sampled_from(axes)) if axes else ""
    if kind == "reduce" and axis:
        inner = _with_axis(draw, place.but(place.want | {axis}), axis, depth)
        return draw(st.sampled_from(_REDUCE)).format(inner, axis) if inner else _leaf(draw, place)
    if kind == "along" and axis in place.want:
        inner = _with_axis(draw, place, axis, depth)
        return draw(st.sampled_from(_ALONG)).format(inner, axis) if inner else _leaf(draw, place)
    if kind == "onehot" and axis in place.want:
        return f"onehot({well_typed(draw, place.but(place.want - {axis}), depth - 1)}, {axis})"
    return _leaf(draw, place)


# -- documents ------------------------------------------------------------------------------------------------------


@st.composite
def documents(draw: st.DrawFn, registry: Registry, *, samples: bool = False, mixing: bool = True) -> dict[str, Any]:
    """A valid document out of a registry's operators and palettes.

    Args:
        draw: supplied by hypothesis.
        registry: what may be named.
        samples: whether state may have the axis samples, so that batches need indices.
        mixing: whether it may end with a mixing step.
    """
    params = {f"p{number}": draw(st.sampled_from([0, 0.25, 1, 3, 2e-4])) for number in range(draw(st.integers(0, 2)))}
    palette = draw(st.one_of(st.none(), st.just(draw(_palette(registry))), st.sampled_from(sorted(registry.palettes))))
    names: dict[str, Sequence[str]] = {**dict.fromkeys(params, ()), **SIGNALS}
    if palette is None:
        names = {name: axes for name, axes in names.items() if "ops" not in axes}
    state = _state(draw, names, palette is not None, samples)
    names.update({name: spec.get("axes", ()) for name, spec in state.items()})
    probes, levels, learns = _probes(draw, registry, names, state, palette is not None)
    place = Place({**names, **levels}, frozenset({"batch"}), image=True)
    step = _step(registry, place, palette is not None)
    pipeline = [draw(step) for _ in range(draw(st.integers(0, 3)))]
    views = _views(draw, step, place, palette is not None) if draw(st.integers(0, 3)) == 0 else {}
    if not views:
        pipeline += _branches(draw, place) if palette is not None and draw(st.booleans()) else []
        if mixing and draw(st.integers(0, 3)) == 0:
            pipeline.append({"batch": [draw(_mix(place)) for _ in range(draw(st.integers(1, 2)))]})
    document: dict[str, Any] = {
        "augkit": 1,
        "name": "generated",
        "params": params,
        "state": state,
        "pipeline": pipeline,
    }
    if views:
        document["views"] = views
    document["update"] = [*_rules(draw, Place(names, frozenset()), state), *learns]
    if probes:
        document["probes"] = probes
        document["max_probe_images"] = draw(st.sampled_from([1_000, "500 * 2"]))
    if palette is not None:
        document["palette"] = palette
    if draw(st.booleans()):
        document["image"] = {"resample": draw(st.sampled_from(["nearest", "bilinear"])), "exact": draw(st.booleans())}
    return document


def _probes(
    draw: st.DrawFn, registry: Registry, names: dict[str, Sequence[str]], state: dict[str, Any], palette: bool
) -> tuple[dict[str, Any], Names, list[Any]]:
    """Probes, the names that images know of them, and rules that read them; a state `reach` says how far they go."""
    kinds = draw(st.sets(st.sampled_from(["asks", "counts"]))) if draw(st.integers(0, 3)) == 0 else set()
    if not kinds:
        return {}, {}, []
    axes = draw(st.sampled_from([[], ["classes"]]))
    state["reach"] = {"axes": axes, "init": draw(st.integers(0, 2)), "clamp": [-1, 3], "dtype": "int"}
    names["reach"] = axes
    each = Place(names, frozenset({"classes"}), random=False)
    upto = draw(st.sampled_from(["reach", f"clip({well_typed(draw, each, 2)}, 0, 2)"]))
    probes: dict[str, Any] = {}
    if "asks" in kinds:
        inside = Place({**names, "level": ("batch",)}, frozenset({"batch"}), image=True)
        steps = [draw(_step(registry, inside, palette)) for _ in range(draw(st.integers(0, 2)))]
        how = {"pick": _pick(draw, inside)} if palette and draw(st.booleans()) else {"steps": steps}
        probes["asks"] = {"upto": upto, "samples": f"clip({well_typed(draw, each, 2)}, 0, 2) * (level + 1)", **how}
    if "counts" in kinds:
        probes["counts"] = {"upto": upto, "level": well_typed(draw, Place(names, frozenset({"batch"}), image=True), 2)}
    name, reduce = draw(st.sampled_from(sorted(kinds))), draw(st.sampled_from(_REDUCE[:6]))
    cells = draw(
        st.sampled_from(["{0}.correct >= 0.6 * {0}.drawn", "{0}.correct / {0}.drawn", "{0}.drawn - uniform()"])
    )
    passed = reduce.format(cells.format(name), "levels")
    passed = passed if axes else f"mean({passed}, over=classes)"
    rule = {"at": draw(st.sampled_from(["epoch_start", "epoch_end"])), "let": {"passed": passed}}
    rule["set"] = {"reach": "where(passed > 0.5, reach + 1, reach - 1)"}
    return probes, {f"{name}.level": ("batch",) for name in kinds & {"counts"}}, [rule]


@st.composite
def _palette(draw: st.DrawFn, registry: Registry) -> list[Any]:
    return [draw(_operator(registry)) for _ in range(draw(st.integers(1, 4)))]


@st.composite
def _operator(draw: st.DrawFn, registry: Registry) -> Any:
    operator = registry.operators[draw(st.sampled_from(sorted(registry.operators)))]
    if not operator.has_value or draw(st.booleans()):
        return operator.name
    low, high = _between(draw, operator), _between(draw, operator)
    return {operator.name: {"low": low, "high": high, "signed": draw(st.booleans())}}


def _between(draw: st.DrawFn, operator: Operator) -> float:
    share = draw(st.integers(0, 4)) / 4
    return (operator.low or 0.0) * (1 - share) + (operator.high or 0.0) * share


def _state(draw: st.DrawFn, names: Names, palette: bool, samples: bool) -> dict[str, Any]:
    shapes = [[], ["classes"]] + ([["ops"], ["classes", "ops"]] if palette else []) + ([["samples"]] if samples else [])
    state = {}
    readable = {name: axes for name, axes in names.items() if name not in SIGNALS or name == "class_count"}
    for number in range(draw(st.integers(0, 3))):
        axes = draw(st.sampled_from(shapes))
        init = well_typed(draw, Place(readable, frozenset(axes)), 2)
        spec: dict[str, Any] = {"axes": axes, "init": init, "clamp": draw(st.sampled_from([[0, 1], [-3, 5]]))}
        spec["dtype"] = draw(st.sampled_from(["float", "int"]))
        state[f"s{number}"] = spec
        if axes != ["samples"]:
            readable[f"s{number}"] = axes
    return state


def _share(draw: st.DrawFn, place: Place) -> Any:
    """A probability or a strength."""
    constant = st.sampled_from([0, 0.5, 1, True, "1/4", "p0 * 0 + 1" if "p0" in place.names else 1])
    return draw(constant) if draw(st.booleans()) else f"clip({well_typed(draw, place, 2)}, 0, 1)"


@st.composite
def _step(draw: st.DrawFn, registry: Registry, place: Place, palette: bool, depth: int = 1) -> Any:
    kinds = ["operator"] * 3 + (["pick"] * 3 if palette else []) + (["one_of"] if depth else []) + ["jitter", "use"]
    kind = draw(st.sampled_from(kinds))
    if kind == "pick":
        return {"pick": _pick(draw, place)}
    if kind == "one_of":
        inner = _step(registry, place, palette, depth - 1)
        ways: list[Any] = []
        for _ in range(draw(st.integers(1, 3))):
            steps = [draw(inner) for _ in range(draw(st.integers(1, 2)))]
            weighted = {"weight": f"abs({well_typed(draw, place, 1)})", "steps": steps}
            ways.append(draw(st.sampled_from([steps[0], steps, weighted])))
        return {"one_of": ways}
    if kind == "jitter" and {"brightness", "contrast", "color"} <= set(registry.operators):
        return {"color_jitter": draw(st.sampled_from([0.3, {"brightness": 0.2, "saturation": 1.5}]))}
    if kind == "use" and "randaugment" in registry.strategies:
        return {"use": draw(st.sampled_from(["none", {"name": "randaugment", "p": 0.5, "params": {"m": 5}}]))}
    operator = registry.operators[draw(st.sampled_from(sorted(registry.operators)))]
    body: dict[str, Any] = {"p": _share(draw, place)}
    if operator.has_value:
        amount = draw(st.sampled_from(["strength", operator.value_name, ""]))
        if amount:
            body[amount] = _share(draw, place) if amount == "strength" else _between(draw, operator)
    return draw(st.sampled_from([operator.name, {operator.name: None}, {operator.name: body}]))


def _pick(draw: st.DrawFn, place: Place) -> dict[str, Any]:
    picks = place.but(place.want | {"picks"})
    body: dict[str, Any] = {
        "p": _share(draw, place),
        "count": draw(st.sampled_from([1, "randint(0, 2)"])) if draw(st.booleans()) else None,
        "each_p": _share(draw, picks),
        "strength": _share(draw, picks),
        "replace": draw(st.booleans()),
        "order": draw(st.sampled_from(["drawn", "palette"])),
        "weights": f"abs({well_typed(draw, place.but(place.want | {'ops'}), 2)})",
    }
    if body["count"] is None:
        body["count"] = f"clip({well_typed(draw, place, 2)}, 0, 3)"
    kept = draw(st.sets(st.sampled_from(sorted(body))))
    return {name: value for name, value in body.items() if name in kept}


def _branches(draw: st.DrawFn, place: Place) -> list[Any]:
    each = place.but(place.want | {"branches"})
    body: dict[str, Any] = {
        "p": _share(draw, place),
        "width": draw(st.sampled_from([1, 2, 3])),
        "depth": draw(st.sampled_from([1, "randint(0, 3)", f"clip({well_typed(draw, each, 2)}, 0, 3)"])),
        "replace": draw(st.booleans()),
        "strength": _share(draw, place.but(place.want | {"branches", "picks"})),
        "weights": draw(st.sampled_from(["dirichlet(0.5)", "dirichlet(2, over=branches)", "uniform() - 0.5", 0])),
        "blend": _share(draw, place),
    }
    kept = draw(st.sets(st.sampled_from(sorted(body)))) - ({"replace"} if body["depth"] not in (1,) else set())
    return [{"branches": {name: value for name, value in body.items() if name in kept}}]


def _views(draw: st.DrawFn, step: st.SearchStrategy[Any], place: Place, palette: bool) -> dict[str, Any]:
    views: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 3))):
        steps = [draw(step) for _ in range(draw(st.integers(0, 2)))]
        steps += _branches(draw, place) if palette and draw(st.booleans()) else []
        views[f"v{number}"] = draw(st.sampled_from([steps, {"steps": steps}, {"times": 2, "steps": steps}]))
    return views


@st.composite
def _mix(draw: st.DrawFn, place: Place) -> Any:
    met = replace(place, partner=True)
    body: dict[str, Any] = {"p": _share(draw, met), "alpha": draw(st.sampled_from([0.2, 1]))}
    body["weights"] = draw(
        st.sampled_from(["1 / class_count", "class_rank + 1", "correct", "1", "epoch", "class_rank * (y == 1)"])
    )
    if draw(st.booleans()):
        one, other = (well_typed(draw, replace(met, random=False), 2) for _ in range(2))
        ways = ["clip({0} + {1} * kept, 0, 1)", "where(kept < {0}, 0, min(1, kept))", "clip({0}, 0, 1)", "kept % 0.5"]
        body["label"] = draw(st.sampled_from(ways)).format(one, other)
    if draw(st.booleans()):
        body["across"] = draw(st.sampled_from(["synthetic", "group"]))
    return {draw(st.sampled_from(["mixup", "cutmix"])): body}


def _rules(draw: st.DrawFn, place: Place, state: Mapping[str, Any]) -> list[dict[str, Any]]:
    rules = []
    for _ in range(draw(st.integers(0, 2)) if state else 0):
        rule: dict[str, Any] = {"at": draw(st.sampled_from(["epoch_start", "epoch_end"]))}
        if draw(st.booleans()):
            rule["when"] = well_typed(draw, place, 2)
        names = dict(place.names)
        if draw(st.booleans()):
            rule["let"] = {"mine": well_typed(draw, place, 2)}
        chosen = draw(st.lists(st.sampled_from(sorted(state)), min_size=1, unique=True))
        if "let" in rule:
            names["mine"] = ()  # a draw in it has the axes of its arguments: none
        small = {name: axes for name, axes in names.items() if "samples" not in axes}
        rule["set"] = {}
        for name in chosen:
            axes = frozenset(state[name]["axes"])
            rule["set"][name] = well_typed(draw, Place(names if axes == {"samples"} else small, axes), 2)
        rules.append(rule)
    return rules
