"""Replies that follow `strict_schema.py` to strategy documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from augkit.registry import Registry
from augkit.strategy.reading import resolve
from augkit_llm.rendering import RenderingError
from augkit_llm.rendering.strict_schema import BRANCHES, MIX, PICK

MAX_ITEMS = 1000
"""Of a list of a reply; more than any list of a document may have."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


class Reader:
    """Replies to documents."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def document(self, reply: Any) -> dict[str, Any]:
        known = ("title", "name", "params", "palette", "image", "state", "pipeline", "update")
        given = _fields(reply, known, "")
        made: dict[str, Any] = {"augkit": 1, "name": _name(given.get("name"))}
        if given.get("title"):
            made["title"] = " ".join(_string(given["title"], "title").split())
        made["params"] = self.named(given.get("params"), "params", _number)
        if isinstance(given.get("palette"), str):
            made["palette"] = given["palette"]
        elif given.get("palette") is not None:
            made["palette"] = [self.entry(item, at) for item, at in _items(given["palette"], "palette")]
        if given.get("image") is not None:
            made["image"] = _fields(given["image"], ("resample", "fill", "exact"), "image")
        made["state"] = self.states(given.get("state"))
        made["pipeline"] = [self.step(item, at) for item, at in _items(given.get("pipeline"), "pipeline")]
        made["update"] = [self.rule(item, at) for item, at in _items(given.get("update"), "update")]
        return {key: value for key, value in made.items() if value not in ({}, []) or key == "pipeline"}

    def named(self, value: Any, path: str, read: Callable[[Any, str], Any]) -> dict[str, Any]:
        """A list of {name, value} as a mapping."""
        made: dict[str, Any] = {}
        for item, at in _items(value, path):
            pair = _fields(item, ("name", "value"), at)
            name = _string(pair.get("name"), f"{at}.name")
            if name in made:
                raise RenderingError(f'"{name[:60]}" was given before', path=f"{at}.name")
            made[name] = read(pair.get("value"), f"{at}.value")
        return made

    def entry(self, item: Any, path: str) -> Any:
        body = _fields(item, ("operator", "low", "high", "signed", "options"), path)
        name = _string(body.pop("operator", None), f"{path}.operator")
        return _step_of(name, self.choice(body, path))

    def choice(self, body: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Range, sign and options of an operator."""
        made = _numbers(body, ("low", "high"), path)
        if body.get("signed") is not None:
            made["signed"] = body["signed"]
        return {**made, **self.named(body.get("options"), f"{path}.options", _option)}

    def states(self, value: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for item, at in _items(value, "state"):
            given = _fields(item, ("name", "axes", "init", "clamp", "dtype"), at)
            name = _string(given.get("name"), f"{at}.name")
            if name in made:
                raise RenderingError(f'"{name[:60]}" was given before', path=f"{at}.name")
            axes = [_string(axis, place) for axis, place in _items(given.get("axes"), f"{at}.axes")]
            one: dict[str, Any] = {"axes": axes, "init": _expression(given.get("init", 0), f"{at}.init")}
            if given.get("clamp") is not None:
                clamp = _fields(given["clamp"], ("low", "high"), f"{at}.clamp")
                one["clamp"] = [_maybe(clamp.get(side), f"{at}.clamp.{side}") for side in ("low", "high")]
            if given.get("dtype") not in (None, "float"):
                one["dtype"] = given["dtype"]
            made[name] = one
        return made

    def step(self, item: Any, path: str, *, inside: bool = False) -> Any:
        kinds: dict[str, Callable[[Any, str], Any]] = {"operator": self.operator_step, "pick": self.pick}
        kinds |= {"use": self.use}
        if not inside:
            kinds |= {"one_of": self.one_of, "branches": self.branches, "batch": self.batch}
        kind = next((key for key in kinds if isinstance(item, Mapping) and key in item), None)
        if kind is None:
            raise RenderingError(f"expected a step that begins with one of {', '.join(kinds)}", path=path)
        return kinds[kind](item, path)

    def operator_step(self, item: Any, path: str) -> Any:
        keys = ("operator", "p", "strength", "value", "low", "high", "signed", "options")
        body = _fields(item, keys, path)
        name = _string(body.pop("operator"), f"{path}.operator")
        made = _numbers(body, ("p", "strength"), path)
        if body.get("value") is not None:
            known = self.registry.operators.get(name)
            unit = known.value_name if known is not None else ""
            if not unit:
                raise RenderingError(f"{name[:60]} has no value: make it null", path=f"{path}.value")
            made[unit] = _expression(body["value"], f"{path}.value")
        return _step_of(name, {**made, **self.choice(body, path)})

    def pick(self, item: Any, path: str) -> dict[str, Any]:
        body = _fields(_fields(item, ("pick",), path)["pick"], (*PICK, "replace", "order"), f"{path}.pick")
        flags = {key: body[key] for key in ("replace", "order") if body.get(key) not in (None, False, "drawn")}
        return {"pick": {**_numbers(body, PICK, f"{path}.pick"), **flags}}

    def branches(self, item: Any, path: str) -> dict[str, Any]:
        inner = f"{path}.branches"
        body = _fields(_fields(item, ("branches",), path)["branches"], (*BRANCHES, "replace"), inner)
        flags = {"replace": body["replace"]} if body.get("replace") not in (None, True) else {}
        return {"branches": {**_numbers(body, BRANCHES, inner), **flags}}

    def use(self, item: Any, path: str) -> dict[str, Any]:
        body = _fields(item, ("use", "p", "params"), path)
        params = self.named(body.get("params"), f"{path}.params", _expression)
        more = {**_numbers(body, ("p",), path), **({"params": params} if params else {})}
        name = _string(body["use"], f"{path}.use")
        return {"use": {"name": name, **more} if more else name}

    def one_of(self, item: Any, path: str) -> dict[str, Any]:
        made = []
        for way, at in _items(_fields(item, ("one_of",), path)["one_of"], f"{path}.one_of"):
            body = _fields(way, ("weight", "steps"), at)
            steps = [self.step(step, place, inside=True) for step, place in _items(body.get("steps"), f"{at}.steps")]
            made.append({**_numbers(body, ("weight",), at), "steps": steps})
        return {"one_of": made}

    def batch(self, item: Any, path: str) -> dict[str, Any]:
        body = _fields(item, ("batch",), path)
        return {"batch": [self.mix_or_choice(mix, at) for mix, at in _items(body["batch"], f"{path}.batch")]}

    def mix_or_choice(self, item: Any, path: str) -> dict[str, Any]:
        if not (isinstance(item, Mapping) and "one_of" in item):
            return self.mix(item, path)
        made = []
        for way, at in _items(_fields(item, ("one_of",), path)["one_of"], f"{path}.one_of"):
            body = _fields(way, ("weight", "mix"), at)
            made.append({**_numbers(body, ("weight",), at), "steps": [self.mix(body.get("mix"), f"{at}.mix")]})
        return {"one_of": made}

    def mix(self, item: Any, path: str) -> dict[str, Any]:
        body = _fields(item, ("mix", *MIX, "partner"), path)
        kind = _string(body.get("mix"), f"{path}.mix")
        partner = {"partner": body["partner"]} if body.get("partner") not in (None, "batch") else {}
        return {kind: {**_numbers(body, MIX, path), **partner}}

    def rule(self, item: Any, path: str) -> dict[str, Any]:
        body = _fields(item, ("at", "when", "let", "set"), path)
        made = {"at": body.get("at"), **_numbers(body, ("when",), path)}
        let, settled = (self.named(body.get(key), f"{path}.{key}", _expression) for key in ("let", "set"))
        return {**made, **({"let": let} if let else {}), "set": settled}


def _fields(value: Any, known: tuple[str, ...], path: str) -> dict[str, Any]:
    """A mapping that has no other keys than these."""
    if not isinstance(value, Mapping):
        raise RenderingError(f"expected an object with {', '.join(known)}", path=path)
    for key in value:
        if key not in known:
            raise RenderingError(f"there is no {str(key)[:60]!r} here, only {', '.join(known)}", path=path)
    return dict(value)


def _items(value: Any, path: str) -> Iterable[tuple[Any, str]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RenderingError("expected a list", path=path)
    if len(value) > MAX_ITEMS:
        raise RenderingError(f"a list of {len(value)} items is longer than any of a document", path=path)
    return [(item, f"{path}[{number}]") for number, item in enumerate(value)]


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise RenderingError("expected text", path=path)
    return value


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RenderingError("expected a number", path=path)
    return value


def _expression(value: Any, path: str) -> Any:
    """Text as it is, but a number where that is all it says."""
    if isinstance(value, str):
        read = resolve(value.strip()) if len(value) < 40 else value
        number = isinstance(read, (int, float)) and not isinstance(read, bool) and abs(read) <= 1e30
        return read if number else value
    return _number(value, path)


def _maybe(value: Any, path: str) -> Any:
    return None if value is None else _expression(value, path)


def _numbers(body: Mapping[str, Any], names: Iterable[str], path: str) -> dict[str, Any]:
    """The expressions among these that are said."""
    return {name: _expression(body[name], f"{path}.{name}") for name in names if body.get(name) is not None}


def _option(value: Any, path: str) -> Any:
    written = _string(value, path)
    try:
        return json.loads(written) if len(written) < 200 else written
    except ValueError:
        return written


def _name(value: Any) -> str:
    """What a document may be called, from what a model calls it."""
    written = _NOT_IN_NAMES.sub("_", _string(value, "name")).strip("_.-")[:100]
    return written or "unnamed"


def _step_of(name: str, body: dict[str, Any]) -> Any:
    return {name: body} if body else name
