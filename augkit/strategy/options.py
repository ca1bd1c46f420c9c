"""How the options of an operator are checked, and the values in its own unit."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from augkit.operators.base import Operator


@lru_cache(maxsize=1024)
def option_type(function: Callable[..., Any], key: str) -> TypeAdapter[Any]:
    """How an option of an operator is checked: by its annotation, or else by the kind of its default."""
    try:
        hint_ = typing.get_type_hints(function, include_extras=True)[key]
    except (KeyError, NameError, TypeError):
        default = inspect.signature(function).parameters[key].default
        hint_ = Any if default is None else type(default)
    return TypeAdapter(hint_)


def beyond(operator: Operator, low: float, high: float) -> str:
    """What is wrong with values from low to high: "never within -360..360 degrees", or nothing if some can be meant."""
    if operator.limits is None or (low <= operator.limits[1] and high >= operator.limits[0]):
        return ""
    least, most = operator.limits
    return f"never within {least:g}..{most:g} {operator.unit}".rstrip()
