"""Losses, samplers, choosers, stages and answers: functions by name, and how a recipe's options reach them.

Such a function takes what the lab knows (its facts) and what a recipe may set (its options) as keyword-only
parameters: a fact by its name if it wants it, every other one is an option and has a default. Annotations of options
are checked (`float`, or `Annotated[float, Field(gt=0)]`). An option that is a word of Python, such as `from`, is
written `from_` in the function.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from augkit.errors import nearest
from augkit.strategy.problems import shown

LOSS_FACTS = (
    *("class_counts", "group_counts", "group_names", "epochs", "head"),
    *("epoch", "views", "experts", "groups", "features", "inputs", "autocast"),
)
"""Those of the first line hold for a whole stage."""
SUBSET_FACTS = ("gradients", "losses", "seed")
SAMPLER_FACTS = ("epoch", "epochs", "group_counts")
STAGE_FACTS = ("embeddings", "group_names", "seed")
ANSWER_FACTS = ("class_counts",)
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Bound:
    """A function with its options filled in; call it with its arguments and all facts, and it takes those it wants."""

    function: Callable[..., Any]
    options: Mapping[str, Any]
    wanted: frozenset[str]

    def __call__(self, *arguments: Any, **facts: Any) -> Any:
        chosen = {name: value for name, value in facts.items() if name in self.wanted}
        return self.function(*arguments, **self.options, **chosen)


def bind(function: Callable[..., Any], options: Mapping[str, Any], facts: Sequence[str] = ()) -> Bound:
    """Fill in options that `faults` found nothing wrong with."""
    parameters, types = _parameters(function), _types(function)
    filled = {}
    for name, parameter in parameters.items():
        option = name.rstrip("_")
        if name not in facts and option in options:
            filled[name] = _read(options[option], types.get(name, parameter.annotation))
    return Bound(function, filled, frozenset(parameters) & frozenset(facts))


def faults(
    function: Callable[..., Any], options: Mapping[str, Any], facts: Sequence[str] = (), also: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) for each; `also` are names that may stand beside the options."""
    known = options_of(function, facts)
    types = _types(function)
    for option, value in options.items():
        if option not in known:
            yield option, f'there is no option "{option}" here.{nearest(option, [*known, *also])}'
            continue
        parameter = known[option]
        try:
            _read(value, types.get(parameter.name, Any))
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ").replace("Input should", "this should")
            yield option, f"{message}, not {shown(value)}"
    for option, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and option not in options:
            yield option, f'the option "{option}" is missing'


def options_of(function: Callable[..., Any], facts: Sequence[str] = ()) -> dict[str, inspect.Parameter]:
    """The options of a function by the names that a recipe gives them."""
    return {name.rstrip("_"): p for name, p in _parameters(function).items() if name not in facts}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    module = getattr(function, "forward", None)  # of a torch module, whose own call takes anything
    called = function if module is None or inspect.isclass(function) else module
    parameters = inspect.signature(called).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    except Exception:  # names that exist for type checkers only: the options of such a function go unchecked
        return {}


def _read(value: Any, annotation: Any) -> Any:
    """The value as its annotation wants it; a list becomes a tuple, and nothing else is converted."""
    if annotation in (Any, inspect.Parameter.empty) or isinstance(annotation, str):
        return value
    return TypeAdapter(annotation, config=_STRICT).validate_json(json.dumps(value))
