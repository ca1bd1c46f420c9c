"""How an option of an operator is checked."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter


@lru_cache(maxsize=1024)
def option_type(function: Callable[..., Any], key: str) -> TypeAdapter[Any]:
    """How an option of an operator is checked: by its annotation, or else by the kind of its default."""
    try:
        hint_ = typing.get_type_hints(function)[key]
    except (KeyError, NameError, TypeError):
        default = inspect.signature(function).parameters[key].default
        hint_ = Any if default is None else type(default)
    return TypeAdapter(hint_)
