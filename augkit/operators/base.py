"""What an operator is: a pure function over a batch, with its range, unit and sign beside it as frozen data."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

from torch import Tensor

from augkit.errors import OperatorError

Kind = Literal["warp", "map", "color", "tone", "kernel", "erase", "opaque"]
Channels = Literal["any", "rgb"]
Function = TypeVar("Function", bound=Callable[..., Any])

# What a function may ask for by parameter name; the value itself is whatever comes first.
SUPPLIED = ("size", "histogram", "means", "extremes", "u")
STATISTICS = ("histogram", "means", "extremes")
"""Those that look at the image; `means` and `extremes` cost a tenth of a histogram."""


@lru_cache(maxsize=1024)
def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """A function's parameters; kept, since looking takes longer than a small operator."""
    return inspect.signature(function).parameters


class Kernel(NamedTuple):
    """A small filter for each image. `result = blend * image + (1 - blend) * filtered`, clipped to 0..255."""

    weights: Tensor
    """[N, k, k] float32, or [N, k] for a separable kernel run along rows and columns; odd k; sums to 1."""
    blend: Tensor
    """[N] float32; 0 gives the filtered image, 1 the image itself, beyond 1 sharpens."""
    border: Literal["copy", "replicate"] = "copy"
    """`copy` leaves border pixels as they were (Pillow's 3x3 filters); `replicate` extends the edge."""


@dataclass(frozen=True)
class Operator:
    """One image transformation with at most one strength.

    `function` lowers to a pass, according to `kind` (N images that drew this operator; H, W from `size`):

    | kind | what the function returns |
    |---|---|
    | warp | [N, 3, 3] float32, output to input, in pixel-edge coordinates (x, y, 1): a centre is at +0.5; affine |
    | map | [N, H, W, 2] float32: for each pixel where it comes from (x, y), in the same coordinates |
    | color | [N, 3, 4] float32 acting on (R, G, B, 1) in 0..255; the result is clipped and truncated |
    | tone | [N, C, 256] float32 or uint8 tables in 0..255, clipped inside the table; [N, 1, 256] for all channels |
    | kernel | `Kernel` |
    | erase | [N, 4] boxes (top, left, bottom, right) in pixels, half open; or several, [N, L, 4] |
    | opaque | images [N, C, H, W] float32 in 0..1 come first, and go out alike |

    The function's parameters say what it is given: the value [N] float32 in the operator's own unit (first, after
    `images` for an opaque one, present only with a range), `size` (H, W), `u` [N, draws] uniform in [0, 1), and of the
    image as it stands, in 0..255, `histogram` [N, C, 256], `means` [N, C] float64 or `extremes` [N, C, 2] (lowest and
    highest value). Keyword-only parameters with defaults are options of a document.
    """

    name: str
    kind: Kind
    function: Callable[..., Any]
    low: float | None = None
    high: float | None = None
    unit: str = ""
    signed: bool = False
    identity: float | None = None
    draws: int = 0
    keeps_black: bool = False
    tolerance: float = 1.0
    source: str = ""
    options: Mapping[str, inspect.Parameter] = field(default_factory=dict, hash=False)
    limits: tuple[float, float] | None = None
    """Least and greatest value that can be meant, in `unit`; None where any can."""
    channels: Channels = "any"
    """`rgb`: it treats channels as red, green and blue, so images with another number than 3 or 1 do not fit."""
    applied: Callable[[float], float] | None = None
    """What the function makes of a value before it uses it, for telling: whole bits, whole qualities."""

    def told(self, value: float) -> str:
        """A value as it is applied, with its unit: "4 bits", "8500 kelvin"; "" without a range."""
        if not self.has_value:
            return ""
        used = self.applied(value) if self.applied is not None else value
        number = f"{used:.0f}" if abs(used) >= 100 else f"{used:.3g}"
        return f"{number} {self.unit}".rstrip()

    @property
    def has_value(self) -> bool:
        """Whether a strength means anything to it."""
        return self.low is not None

    @property
    def value_name(self) -> str:
        """What a document calls the value in the operator's own unit: `degrees`, `bits`, `factor`."""
        names = [name for name in inspect.signature(self.function).parameters if name != "images"]
        return names[0] if self.has_value else ""

    @property
    def looks_at(self) -> str:
        """Which of the image's statistics it asks for, "" for none; no pass may be moved across one that looks."""
        return next((name for name in STATISTICS if name in inspect.signature(self.function).parameters), "")

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


@dataclass(frozen=True)
class Choice:
    """An operator as one document uses it: its range, sign and options settled."""

    operator: Operator
    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def lower(
        self,
        value: Tensor,
        u: Tensor,
        size: tuple[int, int],
        *,
        images: Tensor | None = None,
        statistic: Tensor | None = None,
    ) -> Any:
        """Call the operator's function with what it asks for. `value` [N], `u` [N, >= draws]; see `Operator`.

        `statistic` is what `operator.looks_at` names.
        """
        operator = self.operator
        wanted = parameters_of(operator.function)
        arguments: list[Any] = [images] if operator.kind == "opaque" else []
        if operator.has_value:
            arguments.append(value)
        supplied = {"size": size, "u": u[:, : operator.draws], **dict.fromkeys(STATISTICS, statistic)}
        named = {name: supplied[name] for name in SUPPLIED if name in wanted}
        return operator.function(*arguments, **named, **self.options)


def operator(
    *,
    kind: Kind = "opaque",
    range: tuple[float, float] | None = None,  # noqa: A002  the field's word for it
    unit: str = "",
    signed: bool = False,
    identity: float | None = None,
    draws: int = 0,
    keeps_black: bool = False,
    tolerance: float = 1.0,
    source: str = "",
    name: str | None = None,
    limits: tuple[float, float] | None = None,
    channels: Channels | None = None,
    applied: Callable[[float], float] | None = None,
) -> Callable[[Function], Operator]:
    """Declare an operator.

    Args:
        kind: what the function lowers to, see `Operator`. `opaque` is any batched function of images.
        range: the value at strength 0 and at strength 1, in `unit`; a falling range is written high to low.
            Without it the operator has no strength.
        signed: whether each image draws on which side of `identity` its value lies: v or 2 * identity - v.
        identity: the value that changes nothing, if there is one.
        draws: how many further uniform numbers the function needs for each image (positions, sizes).
        keeps_black: whether every value maps black to black and does not look at the image's statistics.
        tolerance: mean absolute error against the reference, of 255.
        source: where the definition comes from.
        name: what documents call it, the function's name unless said.
        limits: least and greatest value that can be meant, in `unit`. A document that goes beyond is refused.
        channels: `rgb` if it treats channels as red, green and blue, `any` if it treats all channels alike; color and
            opaque operators are `rgb` unless they say otherwise, the others `any`.
        applied: what the function makes of a value before it uses it, where a plan shall tell that: posterize keeps
            whole bits. An option called `widest` bounds the value: a document whose values go beyond it is refused.

    Raises:
        OperatorError: the function does not fit the declaration.
    """

    def declare(function: Function) -> Operator:
        label = name or function.__name__.rstrip("_")
        parameters = inspect.signature(function).parameters
        positional = [p.name for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        expected = (["images"] if kind == "opaque" else []) + (["value"] if range is not None else [])
        plain = [p for p in positional if p not in SUPPLIED]
        if len(plain) != len(expected) or (kind == "opaque" and plain[:1] != ["images"]):
            raise OperatorError(
                f'operator "{label}" ({kind}, {"with" if range else "without"} a range) must take'
                f" {expected or 'nothing'} and then any of {', '.join(SUPPLIED)}, but takes {positional}"
            )
        if ("u" in positional) != (draws > 0):
            raise OperatorError(f'operator "{label}" must take `u` if and only if it declares draws')
        options = {p.name: p for p in parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        missing = [p.name for p in options.values() if p.default is inspect.Parameter.empty]
        if missing:
            raise OperatorError(f'operator "{label}": option {missing[0]} needs a default')
        low, high = _ends(label, range, limits) if range is not None else (None, None)
        takes = channels or ("rgb" if kind in ("color", "opaque") else "any")
        about = (unit, signed, identity, draws, keeps_black, tolerance, source, options, limits, takes, applied)
        return Operator(label, kind, function, low, high, *about)

    return declare


def _ends(label: str, ends: Any, limits: Any) -> tuple[float, float]:
    """The ends of a range, which must lie within the limits."""
    for word, pair in (("range", ends), ("limits", limits)):
        if pair is not None and not _is_pair(pair):
            raise OperatorError(f'operator "{label}": {word} must be two numbers, as in {word}=(0, 1), not {pair!r}')
    if limits is not None and not limits[0] <= min(ends) <= max(ends) <= limits[1]:
        raise OperatorError(f'operator "{label}": the range {ends!r} must lie within the limits {limits!r}')
    return ends[0], ends[1]


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and all(isinstance(end, (int, float)) and math.isfinite(end) for end in pair)
    )
