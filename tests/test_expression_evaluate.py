"""Expressions on tensors: every function against its definition on plain numbers, axes by name, total semantics."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_parts import SIZES, Box
from torch import Tensor

from augkit.strategy.evaluate import ALONG, DRAWS, ELEMENTWISE, evaluate
from augkit.strategy.expression import parse
from augkit.strategy.folding import DIVISIONS, SCALAR
from augkit.strategy.functions import FUNCTIONS
from augkit.strategy.typing import Scope, check

DEPTH = torch.tensor([3.0, 0.0, 1.0, 2.0])
WEIGHT = torch.tensor([[1.0, 5.0, 2.0], [0.0, 0.0, 0.0], [7.0, 7.0, 1.0], [-1.0, 4.0, 4.0]])
NAMES = {"depth": ("classes",), "weight": ("classes", "ops"), "fair": ("groups",), "start": ("samples",), "a": ()}
VALUES = {
    "depth": DEPTH,
    "weight": WEIGHT,
    "fair": torch.tensor([10.0, 20.0]),
    "start": torch.arange(5.0),
    "a": torch.tensor(4.0),
}
INDICES = {"y": torch.tensor([2, 0, 2]), "index": torch.tensor([4, 1, 0]), "group": torch.tensor([1, 0, 1])}
SCOPE = Scope(names=NAMES, constants={"p": 0.5}, sizes={"ops": 3}, indices=True)
EACH_QUANTILE = torch.stack([row.quantile(share / 10) for row, share in zip(WEIGHT, DEPTH, strict=True)])
ALL_AXES = ("batch", "classes", "ops")


def value(source: str, want: tuple[str, ...] | None = None, box: Box | None = None) -> Tensor:
    return evaluate(check(parse(source), SCOPE, want), box or Box(VALUES, indices=INDICES))


GRID = (-2.5, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.5)
ARITY = {
    "where": 3,
    "clip": 3,
    "linear": 3,
    "cosine": 3,
    "step": 3,
    "cyclic": 3,
    "neg": 1,
    "not": 1,
    "min": 3,
    "max": 2,
}


def arity(name: str) -> int:
    return ARITY.get(name) or (FUNCTIONS[name].least if name in FUNCTIONS else 2)


@pytest.mark.parametrize("name", sorted(set(SCALAR) - set(DIVISIONS)))
def test_tensors_and_plain_numbers_agree(name: str) -> None:
    grid = list(itertools.product(GRID, repeat=arity(name)))
    expected = torch.tensor([SCALAR[name](*numbers) for numbers in grid], dtype=torch.float32)
    found = ELEMENTWISE[name](*torch.tensor(grid).unbind(1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert len(expected) >= 9


@pytest.mark.parametrize("operator", DIVISIONS)
def test_divisions_agree_and_are_counted(operator: str) -> None:
    pairs = torch.tensor(list(itertools.product(GRID, repeat=2)))
    scope = Scope(names={"x": ("samples",), "z": ("samples",)})
    box = Box({"x": pairs[:, 0], "z": pairs[:, 1]}, sizes={"samples": len(pairs)})
    found = evaluate(check(parse(f"x {operator} z"), scope, ("samples",)), box)
    expected = torch.tensor([SCALAR[operator](x, z) for x, z in pairs.tolist()])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert box.divided == len(GRID)


def test_a_divisor_that_is_never_zero_is_not_looked_at() -> None:
    box = Box(VALUES, indices=INDICES)
    assert torch.equal(value("depth / max(1, depth)", None, box), DEPTH / DEPTH.clamp(min=1))
    assert box.divided == 0
    assert value("1 / 0 + 5 % 0", None, box) == 0 and box.divided == 2
    assert torch.equal(value("weight / depth", ("classes", "ops"), box)[1], torch.zeros(3)) and box.divided == 5


def test_every_function_can_be_evaluated() -> None:
    known = {*ELEMENTWISE, *ALONG, *DRAWS, "onehot", "categorical", "dirichlet", "permutation"}
    assert set(FUNCTIONS) <= known
    assert set(ALONG) | set(DRAWS) <= set(FUNCTIONS)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("depth[y]", DEPTH[INDICES["y"]]),
        ("weight[y]", WEIGHT[INDICES["y"]]),
        ("start[index] * fair[group]", torch.tensor([80.0, 10.0, 0.0])),
        ("y + index", torch.tensor([6.0, 1.0, 2.0])),
        ("weight + depth", WEIGHT + DEPTH[:, None]),
        ("depth * depth[y]", DEPTH[INDICES["y"]][:, None] * DEPTH),
        ("sum(weight, over=ops)", WEIGHT.sum(1)),
        ("sum(weight, over=classes)", WEIGHT.sum(0)),
        ("mean(weight[y], over=ops)", WEIGHT[INDICES["y"]].mean(1)),
        ("max(weight, over=ops) - min(weight, over=ops)", WEIGHT.amax(1) - WEIGHT.amin(1)),
        ("any(weight > 4, over=ops)", torch.tensor([1.0, 0.0, 1.0, 0.0])),
        ("all(weight > 0, over=ops)", torch.tensor([1.0, 0.0, 1.0, 0.0])),
        ("argmax(weight, over=ops)", torch.tensor([1.0, 0.0, 0.0, 1.0])),
        ("rank(weight, over=ops)", torch.tensor([[2.0, 0, 1], [0, 1, 2], [0, 1, 2], [2, 0, 1]])),
        ("topk(weight, 2, over=ops)", torch.tensor([[0.0, 1, 1], [1, 1, 0], [1, 1, 0], [0, 1, 1]])),
        ("onehot(depth, classes)", None),
        ("softmax(weight, over=ops)", WEIGHT.softmax(1)),
        ("quantile(weight, 0.25, over=classes)", WEIGHT.quantile(0.25, dim=0)),
        ("quantile(weight, depth / 10, over=ops)", EACH_QUANTILE),
        ("where(depth > 1, a, -1)", torch.tensor([4.0, -1.0, -1.0, 4.0])),
        ("not depth or depth >= 3", torch.tensor([1.0, 1.0, 0.0, 0.0])),
        ("p", torch.tensor(0.5)),
    ],
)
def test_values(source: str, expected: Tensor | None) -> None:
    if expected is None:
        with pytest.raises(Exception, match="may not have the axis classes"):
            value(source)
        return
    found = value(source)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_onehot() -> None:
    expected = torch.eye(3)[WEIGHT.argmax(1)]
    assert torch.equal(value("onehot(argmax(weight, over=ops), ops)"), expected)
    assert torch.equal(value("onehot(y, ops)"), torch.eye(3)[INDICES["y"]])
    assert value("onehot(7, ops)").sum() == 0
    assert torch.equal(value("onehot(a - 3, ops)"), torch.tensor([0.0, 1.0, 0.0]))


@given(st.permutations(ALL_AXES).map(tuple), st.data())
@settings(max_examples=60, deadline=None)
def test_axes_broadcast_by_name_whatever_the_order_of_names(axes: tuple[str, ...], data: st.DataObject) -> None:
    kept = [tuple(a for a in axes if data.draw(st.booleans())) for _ in range(2)]
    scope = Scope(names=dict(zip("xz", kept, strict=True)))
    ordered = [tuple(a for a in ALL_AXES if a in own) for own in kept]
    tensors = [torch.randn([SIZES[a] for a in own]) for own in ordered]
    found = check(parse("x - 2 * z"), scope, ALL_AXES)
    letters = {"batch": "b", "classes": "c", "ops": "o"}
    out = "".join(letters[a] for a in found.axes)
    parts = [
        torch.einsum(f"{''.join(letters[a] for a in own)},{out}->{out}", t, torch.ones([SIZES[a] for a in found.axes]))
        for own, t in zip(ordered, tensors, strict=True)
    ]
    result = evaluate(found, Box(dict(zip("xz", tensors, strict=True))))
    torch.testing.assert_close(result, parts[0] - 2 * parts[1])


def test_empty_batches_have_values_too() -> None:
    none = {name: index[:0] for name, index in INDICES.items()}
    box = Box(VALUES, {**SIZES, "batch": 0}, none)
    assert value("sum(weight[y], over=ops) * uniform()", ("batch",), box).shape == (0,)
    assert value("categorical(weight[y], over=ops)", ("batch",), box).shape == (0,)
    assert value("onehot(y, ops)", ("batch", "ops"), box).shape == (0, 3)
    assert value("permutation(over=ops) + depth[y]", ("batch", "ops"), box).shape == (0, 3)
