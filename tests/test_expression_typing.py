"""The static check: names, axes, arguments, ranges; and that no value leaves the range that was promised."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies_gen import Place, well_typed
from strategy_parts import SIZES, filled

from augkit.errors import ExpressionError
from augkit.strategy.evaluate import evaluate
from augkit.strategy.expression import AXES, parse
from augkit.strategy.functions import FUNCTIONS
from augkit.strategy.typing import Scope, Typed, check, ordered

NAMES = {
    "epoch": (),
    "depth": ("classes",),
    "weight": ("classes", "ops"),
    "taste": ("ops",),
    "start": ("samples",),
    "fair": ("groups",),
}
SCOPE = Scope(
    names=NAMES,
    ranges={"depth": (0.0, 10.0), "taste": (0.5, 2.0), "epoch": (0.0, math.inf)},
    constants={"p": 0.5, "n": 3.0},
    sizes={"ops": SIZES["ops"]},
    hidden={"seen": "nothing has been counted yet"},
    indices=True,
)
BATCH = ("batch",)


def typed(source: str, want: tuple[str, ...] | None = BATCH, scope: Scope = SCOPE) -> Typed:
    return check(parse(source), scope, want, "here")


@pytest.mark.parametrize(
    ("source", "want", "axes"),
    [
        ("1", BATCH, ()),
        ("p", BATCH, ()),
        ("y", BATCH, ("batch",)),
        ("depth[y]", BATCH, ("batch",)),
        ("weight[y]", ("batch", "ops"), ("batch", "ops")),
        ("sum(weight[y], over=ops)", BATCH, ("batch",)),
        ("sum(weight, over=ops)[y]", BATCH, ("batch",)),
        ("start[index] + fair[group]", BATCH, ("batch",)),
        ("taste + depth", ("classes", "ops"), ("classes", "ops")),
        ("uniform()", ("batch", "picks"), ("batch", "picks")),
        ("depth[y] / 3", ("batch", "picks"), ("batch",)),
        ("onehot(argmax(weight, over=ops), ops)", ("classes", "ops"), ("classes", "ops")),
        ("onehot(categorical(weight, over=ops), ops)", ("classes", "ops"), ("classes", "ops")),
        ("rank(depth, over=classes)", ("classes",), ("classes",)),
        ("min(depth, over=classes)", (), ()),
        ("min(depth, 3)", ("classes",), ("classes",)),
        ("dirichlet(1, over=ops)", ("classes", "ops"), ("classes", "ops")),
        ("permutation(over=classes)", ("classes",), ("classes",)),
        ("quantile(weight, taste, over=classes)", ("ops",), ("ops",)),
        ("bernoulli(depth / 10)", None, ("classes",)),
        ("sum(uniform(), over=ops)", None, ()),
        ("sum(start, over=samples)", (), ()),
    ],
)
def test_axes(source: str, want: tuple[str, ...] | None, axes: tuple[str, ...]) -> None:
    assert typed(source, want).axes == axes


def test_random_calls_have_stable_sites_and_the_axes_of_their_target() -> None:
    whole = typed("uniform() + sum(normal() * weight[y], over=ops)")
    draws = {part.site: part.axes for part in whole.parts if part.site}
    assert draws == {"here#0": ("batch",), "here#1": ("batch", "ops")}
    assert whole.sites == ("here#0", "here#1")
    assert whole.reads == {"weight", "y"}


@pytest.mark.parametrize(
    ("source", "want", "message"),
    [
        ("wieght", BATCH, 'no name "wieght". Did you mean "weight"?'),
        ("seen", BATCH, "nothing has been counted yet"),
        ("ops", BATCH, "is an axis, not a value"),
        ("sqrt", BATCH, "is a function: sqrt(x)"),
        ("sqr(4)", BATCH, 'no function "sqr". Did you mean "sqrt"?'),
        ("sqrt()", BATCH, "does not take 0 arguments"),
        ("sqrt(1, 2)", BATCH, "does not take 2 arguments"),
        ("clip(depth[y], 2)", BATCH, "does not take 2 arguments"),
        ("max(epoch)", BATCH, "does not take 1 arguments"),
        ("depth", BATCH, "own with `depth[y]`"),
        ("start", BATCH, "own with `start[index]`"),
        ("taste", BATCH, "reduce it, as in sum(x, over=ops)"),
        ("weight[y]", BATCH, "has the axis ops"),
        ("depth", (), "a single number is wanted"),
        ("y", (), "there is no image at this place"),
        ("sum(depth, over=classs)", (), 'no axis "classs". Did you mean "classes"?'),
        ("sum(depth, over=ops)", ("classes",), "the value has no axis ops, it has [classes]"),
        ("sum(y, over=batch)", (), "may not depend on what else is in its batch"),
        ("sum(depth)", (), "needs the axis"),
        ("sqrt(depth, over=classes)", (), "takes no `over=`"),
        ("epoch[y]", BATCH, "needs a value with the axis classes, this has none"),
        ("depth[y][y]", BATCH, "needs a value with the axis classes"),
        ("(depth * y)[y]", BATCH, "belongs to one image already"),
        ("depth[group]", BATCH, "needs a value with the axis groups"),
        ("(weight * uniform())[y]", ("batch", "ops"), "may not be indexed"),
        ("onehot(taste, ops)", ("ops",), "the position may not have the axis ops"),
        ("topk(weight, taste, over=ops)", ("classes", "ops"), "the second argument may not have the axis ops"),
        ("categorical(epoch, over=ops)", (), "the weight has no axis ops"),
        ("start[index] + uniform() * sum(start * y, over=samples)", BATCH, "too large"),
        ("start * weight", ("classes", "ops", "samples"), "too large"),
        ("sum(uniform(), over=samples)", BATCH, "too large"),
        ("randint(3, 3)", BATCH, "high must be larger"),
        ("if(epoch < 2, 0, 1)", BATCH, 'there is no function "if": write `where(condition, a, b)`'),
        ("epoch * True", BATCH, 'there is no name "True": write 1'),
        ("bernoulli(p + 1)", BATCH, "p is 1.5, never within 0..1"),
        ("beta(0, 1)", BATCH, "takes positive numbers"),
        ("quantile(depth, 2, over=classes)", (), "q is 2, never within 0..1"),
        ("n ** n ** n ** n", BATCH, "larger than"),
    ],
)
def test_errors(source: str, want: tuple[str, ...], message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        typed(source, want)
    assert message in str(caught.value)


def test_scopes_limit_what_may_be_said() -> None:
    dry = Scope(names={"depth": ("classes",)}, axes=frozenset({"classes"}), random=False)
    for source, message in (
        ("depth[y]", "there is none at this place"),
        ("uniform()", "nothing random is allowed"),
        ("permutation(over=ops)", "the strategy has no palette"),
    ):
        with pytest.raises(ExpressionError, match=message):
            typed(source, ("classes", "ops"), dry)


@pytest.mark.parametrize(
    ("source", "low", "high"),
    [
        ("p * 2 + 1", 2, 2),
        ("uniform()", 0, 1),
        ("uniform(2, 5)", 2, 5),
        ("randint(0, 31) / 30", 0, 1),
        ("depth[y]", 0, 10),
        ("depth[y] / 30", 0, 10 / 30),
        ("-depth[y]", -10, 0),
        ("abs(depth[y] - 4)", 0, 6),
        ("clip(normal(9, 1), 0, 10) / 10", 0, 1),
        ("clip(normal(9, 0), 0, 10) / 10", 0.9, 0.9),
        ("sum(onehot(argmax(weight, over=ops), ops)[y], over=ops)", 0, 3),
        ("min(epoch, 8)", 0, 8),
        ("1 / max(1, epoch)", 0, 1),
        ("epoch % 2", 0, 2),
        ("epoch > 3", 0, 1),
        ("where(epoch > 3, 2, depth[y])", 0, 10),
        ("epoch - epoch", -math.inf, math.inf),
        ("0 * weight[y]", 0, 0),
        ("linear(0.1, 0.9, epoch / 10)", 0.1, 0.9),
        ("argmax(weight[y], over=ops)", 0, 2),
        ("1 / (epoch + 1) ** 2", 0, 1),
        ("(depth[y] - 5) ** 2", 0, 25),
    ],
)
def test_ranges(source: str, low: float, high: float) -> None:
    found = typed(source, ("batch", "ops"))
    assert (found.low, found.high) == pytest.approx((low, high))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_checked_expression_has_the_promised_axes_and_stays_in_the_promised_range(data: st.DataObject) -> None:
    want = data.draw(
        st.sampled_from([(), ("classes",), ("classes", "ops"), BATCH, ("batch", "picks"), ("batch", "ops")])
    )
    names = {name: axes for name, axes in NAMES.items() if not {"samples", "groups"} & set(axes)}
    place = Place({**names, "p": ()}, frozenset(want), image="batch" in want)
    source = data.draw(st.composite(lambda draw: well_typed(draw, place))())
    expression = typed(source, want)
    numbers = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0, 3.0, 10.0, -2.5, 1e3]), min_size=1, max_size=4))
    value = evaluate(expression, filled(SCOPE, numbers, seed=data.draw(st.integers(0, 99))))
    assert value.shape == tuple(SIZES[axis] for axis in expression.axes), source
    assert set(expression.axes) <= set(want) and expression.axes == ordered(expression.axes)
    assert value.dtype == torch.float32
    assert value.isfinite().all(), source
    slack = 1e-4 * value.abs() + 1e-4
    assert (value >= expression.low - slack).all() and (value <= expression.high + slack).all(), source


def test_every_function_is_documented_and_has_a_signature_of_its_own_name() -> None:
    assert len(FUNCTIONS) == 34
    for name, function in FUNCTIONS.items():
        assert function.signature.startswith(f"{name}(") and function.meaning
    assert not set(FUNCTIONS) & set(AXES)
