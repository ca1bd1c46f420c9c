"""Evaluating a checked expression on tensors: vectorised, on the device of the environment, without waiting for it.

Every operation is total, as `folding.py` says; a division by zero gives 0 and is counted. Overflow gives infinity,
which the engine refuses to store in state. Random numbers come from the environment, keyed by the call's site; each
function takes a fixed number of them for an element, so that no draw depends on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from augkit.strategy.expression import AXES
from augkit.strategy.folding import DIVISIONS
from augkit.strategy.sampling import beta_from, categorical_from, dirichlet_from, normal_from, permutation_from, take
from augkit.strategy.typing import INDEXED, Axes, Typed


class Environment(Protocol):
    """Where an expression finds its values and its random numbers."""

    @property
    def device(self) -> torch.device:
        """Where values live."""

    def value(self, name: str) -> Tensor:
        """The float32 tensor of a name, its dims in canonical order."""

    def size(self, axis: str) -> int:
        """Length of a named axis."""

    def uniform(self, site: str, axes: tuple[str, ...], count: int) -> Tensor:
        """[*sizes of axes, count] float32 in [0, 1)."""

    def index(self, name: str) -> Tensor:
        """`y`, `index`, `group`, `partner` or `is_synthetic` of each image: [B] int64."""

    def count_division_by_zero(self, where: Tensor) -> None:
        """Remember how often something was divided by zero, without a synchronisation."""


class _Uncounted:
    """An environment that forgets divisions by zero."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.device = environment.device
        self.value, self.size = environment.value, environment.size
        self.uniform, self.index = environment.uniform, environment.index

    def count_division_by_zero(self, where: Tensor) -> None:
        """Not counted."""


def evaluate(typed: Typed, environment: Environment) -> Tensor:
    """The value: float32, with exactly the dims `typed.axes`."""
    if typed.kind == "number":
        return torch.full((), typed.low, dtype=torch.float32, device=environment.device)
    if typed.kind == "name":
        return environment.value(typed.name).to(torch.float32)
    if typed.kind == "image":
        return environment.index(typed.name).to(torch.float32)
    if typed.kind == "index":
        return _index(typed, environment)
    if typed.site:
        return _draw(typed, environment)
    if typed.axis:
        return _along(typed, environment)
    # a division that `where` chooses between is guarded, as in where(seen > 0, correct / seen, 0): not worth counting
    inside = _Uncounted(environment) if typed.name == "where" else environment
    values = [align(evaluate(part, inside), part.axes, typed.axes) for part in typed.arguments]
    if typed.name in DIVISIONS:
        return _divide(typed, values[0], values[1], environment)
    return ELEMENTWISE[typed.name](*values)


def align(value: Tensor, axes: Axes, to: Axes) -> Tensor:
    """Dims of length 1 for the axes that a value lacks, so that it broadcasts by name."""
    if axes == to:
        return value
    lengths = iter(value.shape)
    return value.reshape([next(lengths) if axis in axes else 1 for axis in to])


def _index(typed: Typed, environment: Environment) -> Tensor:
    (operand,) = typed.arguments
    value = evaluate(operand, environment)
    dim = operand.axes.index(INDEXED[typed.name])
    return value.index_select(dim, environment.index(typed.name)).movedim(dim, 0)


def _divide(typed: Typed, a: Tensor, b: Tensor, environment: Environment) -> Tensor:
    divisor = typed.arguments[1]
    if divisor.low <= 0 <= divisor.high:
        zero = (b == 0).expand(torch.broadcast_shapes(a.shape, b.shape))
        drawn = _drawn(typed, typed.axes, environment)
        environment.count_division_by_zero(zero if drawn is None else zero & drawn)
        return torch.where(zero, 0.0, _DIVIDE[typed.name](a, torch.where(b == 0, 1.0, b)))
    return _DIVIDE[typed.name](a, b)


_DIVIDE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "/": torch.div,
    "//": lambda a, b: torch.floor(a / b),
    "%": torch.remainder,
}


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    real = ((base >= 0) | (exponent == exponent.floor())) & ((base != 0) | (exponent >= 0))
    return torch.where(real, torch.pow(base, exponent), 0.0)


def _linear(start: Tensor, stop: Tensor, progress: Tensor) -> Tensor:
    return start + (stop - start) * progress.clamp(0, 1)


def _cosine(start: Tensor, stop: Tensor, progress: Tensor) -> Tensor:
    return _linear(start, stop, (1 - torch.cos(math.pi * progress.clamp(0, 1))) / 2)


def _cyclic(start: Tensor, stop: Tensor, progress: Tensor) -> Tensor:
    return _linear(start, stop, 1 - (2 * progress.remainder(1.0) - 1).abs())


def _minimum(*values: Tensor) -> Tensor:
    result = values[0]
    for value in values[1:]:
        result = torch.minimum(result, value)
    return result


def _maximum(*values: Tensor) -> Tensor:
    result = values[0]
    for value in values[1:]:
        result = torch.maximum(result, value)
    return result


ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "**": _power,
    "==": lambda a, b: (a == b).float(),
    "!=": lambda a, b: (a != b).float(),
    "<": lambda a, b: (a < b).float(),
    "<=": lambda a, b: (a <= b).float(),
    ">": lambda a, b: (a > b).float(),
    ">=": lambda a, b: (a >= b).float(),
    "and": lambda a, b: ((a != 0) & (b != 0)).float(),
    "or": lambda a, b: ((a != 0) | (b != 0)).float(),
    "not": lambda a: (a == 0).float(),
    "neg": torch.neg,
    "where": lambda condition, a, b: torch.where(condition != 0, a, b),
    "min": _minimum,
    "max": _maximum,
    "clip": lambda x, low, high: torch.minimum(torch.maximum(x, low), high),
    "abs": torch.abs,
    "sign": torch.sign,
    "sqrt": lambda x: x.clamp(min=0).sqrt(),
    "exp": torch.exp,
    "log": lambda x: torch.where(x > 0, x, 1.0).log(),
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "linear": _linear,
    "cosine": _cosine,
    "step": lambda start, stop, progress: torch.where(progress >= 1, stop, start),
    "cyclic": _cyclic,
}


def _along(typed: Typed, environment: Environment) -> Tensor:
    """Reductions, and functions that keep or add the axis they work along."""
    axis, arguments = typed.axis, typed.arguments
    inner = tuple(name for name in AXES if name in typed.axes or name == axis)
    dim = inner.index(axis)
    if typed.name == "onehot":
        position = align(evaluate(arguments[0], environment), arguments[0].axes, inner)
        places = torch.arange(environment.size(axis), device=position.device, dtype=position.dtype)
        return (position.round() == align(places, (axis,), inner)).float()
    values = [align(evaluate(part, environment), part.axes, inner) for part in arguments]
    drawn = _drawn(arguments[0], inner, environment)
    if drawn is not None:
        return RAGGED[typed.name](dim, values[0], drawn.expand(values[0].shape))
    return ALONG[typed.name](dim, *values)


def _drawn(typed: Typed, inner: Axes, environment: Environment) -> Tensor | None:
    """Which cells of a value over levels were drawn, by all the probes it reads; None for any other value."""
    if not typed.probes:
        return None
    drawn = environment.value(f"{typed.probes[0]}.drawn") > 0
    for probe in typed.probes[1:]:
        drawn = drawn & (environment.value(f"{probe}.drawn") > 0)
    if "classes" not in inner:  # a level of all classes together: some class drew it
        return align(drawn.any(0), ("levels",), inner)
    return align(drawn, ("classes", "levels"), inner)


def _rank(dim: int, x: Tensor) -> Tensor:
    order = x.argsort(dim=dim, descending=True, stable=True)
    places = torch.arange(x.shape[dim], device=x.device).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    return torch.empty_like(order).scatter_(dim, order, places.expand_as(order)).float()


def _quantile(dim: int, x: Tensor, q: Tensor) -> Tensor:
    """Between the two neighbours in proportion, as is usual; `q` has length 1 along `dim`."""
    last = x.shape[dim] - 1
    shape = [1 if d == dim else max(a, b) for d, (a, b) in enumerate(zip(x.shape, q.shape, strict=True))]
    ascending = x.sort(dim=dim).values.expand([last + 1 if d == dim else n for d, n in enumerate(shape)])
    place = (q.clamp(0, 1) * last).expand(shape)
    below = place.floor().long()
    low, high = ascending.gather(dim, below), ascending.gather(dim, (below + 1).clamp(max=last))
    return torch.lerp(low, high, place - below).squeeze(dim)


ALONG: dict[str, Callable[..., Tensor]] = {
    "sum": lambda dim, x: x.sum(dim),
    "mean": lambda dim, x: x.mean(dim),
    "min": lambda dim, x: x.amin(dim),
    "max": lambda dim, x: x.amax(dim),
    "any": lambda dim, x: (x != 0).any(dim).float(),
    "all": lambda dim, x: (x != 0).all(dim).float(),
    "argmax": lambda dim, x: x.argmax(dim).float(),
    "rank": _rank,
    "topk": lambda dim, x, k: (_rank(dim, x) < k).float(),
    "quantile": _quantile,
    "softmax": lambda dim, x: x.softmax(dim),
}


def _extreme(dim: int, x: Tensor, drawn: Tensor, way: str) -> Tensor:
    """The smallest or largest of what was drawn; 0 of nothing."""
    edge = math.inf if way == "amin" else -math.inf
    found: Tensor = getattr(torch.where(drawn, x, edge), way)(dim)
    return torch.where(drawn.any(dim), found, 0.0)


RAGGED: dict[str, Callable[[int, Tensor, Tensor], Tensor]] = {
    "sum": lambda dim, x, drawn: torch.where(drawn, x, 0.0).sum(dim),
    "mean": lambda dim, x, drawn: torch.where(drawn, x, 0.0).sum(dim) / drawn.sum(dim).clamp(min=1),
    "min": lambda dim, x, drawn: _extreme(dim, x, drawn, "amin"),
    "max": lambda dim, x, drawn: _extreme(dim, x, drawn, "amax"),
    "any": lambda dim, x, drawn: ((x != 0) & drawn).any(dim).float(),
    "all": lambda dim, x, drawn: ((x != 0) | ~drawn).all(dim).float(),
}
"""Reductions of values over levels: cells that were not drawn take no part. Of nothing `all` gives 1, the others 0."""


def _draw(typed: Typed, environment: Environment) -> Tensor:
    """A random call: each element from its own uniform numbers [*axes, count]."""
    name, axis = typed.name, typed.axis
    inner = tuple(part for part in AXES if part in typed.axes or part == axis)
    cells = typed.axes if name == "categorical" else inner
    u = environment.uniform(typed.site, cells, take(name))
    values = [align(evaluate(part, environment), part.axes, inner) for part in typed.arguments]
    if name == "categorical":
        return categorical_from(values[0], u[..., 0], inner.index(axis))
    if name == "dirichlet":
        return dirichlet_from(values[0], u, inner.index(axis))
    if name == "permutation":
        return permutation_from(u[..., 0], inner.index(axis))
    return DRAWS[name](u, *values)


def _uniform(u: Tensor, *bounds: Tensor) -> Tensor:
    u = u[..., 0]
    if not bounds:
        return u
    low, high = bounds if len(bounds) == 2 else (torch.zeros_like(bounds[0]), bounds[0])
    return low + (high - low) * u


def _normal(u: Tensor, *moments: Tensor) -> Tensor:
    z = normal_from(u)
    mean = moments[0] if moments else torch.zeros_like(z)
    return mean + z * moments[1] if len(moments) == 2 else mean + z


def _randint(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    low, last = low.floor(), high.ceil() - 1
    # the product can round up to the end that is left out
    return torch.maximum(torch.minimum(low + (u[..., 0] * (last - low + 1)).floor(), last), low)


DRAWS: dict[str, Callable[..., Tensor]] = {
    "uniform": _uniform,
    "normal": _normal,
    "randint": _randint,
    "bernoulli": lambda u, p: (u[..., 0] < p).float(),
    "beta": lambda u, a, b: beta_from(a, b, u),
}
