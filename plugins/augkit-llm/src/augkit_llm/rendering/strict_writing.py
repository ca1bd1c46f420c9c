"""Strategy documents to the replies that would give them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from augkit.registry import Registry
from augkit.strategy.steps import JITTER_KEYS
from augkit_llm.rendering import RenderingError
from augkit_llm.rendering.strict_schema import BRANCHES, MIX, PICK


class Writer:
    """Documents to replies. The documents are valid: nothing is checked but whether this rendering has the parts."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def reply(self, document: Mapping[str, Any]) -> dict[str, Any]:
        for key in ("views", "probes"):
            if document.get(key):
                raise RenderingError(f"{key} are left out of this rendering", path=key)
        palette = document.get("palette")
        if isinstance(palette, (list, tuple)):
            palette = [self.entry(item, f"palette[{number}]") for number, item in enumerate(palette)]
        image = document.get("image") or None
        defaults = {"resample": "bilinear", "fill": "black", "exact": False}
        steps = [self.steps(item, f"pipeline[{number}]") for number, item in enumerate(document.get("pipeline") or [])]
        return {
            "title": document.get("title") or "",
            "name": document["name"],
            "params": [{"name": name, "value": +value} for name, value in (document.get("params") or {}).items()],
            "palette": palette,
            "image": {**defaults, **image} if image else None,
            "state": [self.state(name, spec) for name, spec in (document.get("state") or {}).items()],
            "pipeline": [made for several in steps for made in several],
            "update": [self.rule(rule) for rule in document.get("update") or []],
        }

    def entry(self, item: Any, path: str) -> dict[str, Any]:
        name, body = _split(item)
        return {"operator": self.known(name, path), **self.choice(body)}

    def known(self, name: str, path: str) -> str:
        if name not in self.registry.operators:
            raise RenderingError(f"{name} is no operator that this rendering has", path=path)
        return name

    def choice(self, body: Mapping[str, Any], also: tuple[str, ...] = ()) -> dict[str, Any]:
        own = ("low", "high", "signed", *also)
        options = [{"name": key, "value": json.dumps(value)} for key, value in body.items() if key not in own]
        return {
            "low": _written(body.get("low")),
            "high": _written(body.get("high")),
            "signed": body.get("signed"),
            "options": options,
        }

    def steps(self, item: Any, path: str, *, inside: bool = False) -> list[dict[str, Any]]:
        name, body = _split(item)
        if name == "color_jitter":
            return [self.steps(step, path)[0] for step in _jitter(body)]
        if name == "pick":
            flags = {"replace": body.get("replace", False), "order": body.get("order", "drawn")}
            return [{"pick": {**_texts(body, PICK), **flags}}]
        if name == "use":
            return [self.use(body, path)]
        if inside and name in ("one_of", "branches", "batch"):
            raise RenderingError(f"{name} inside of an alternative is left out of this rendering", path=path)
        if name == "one_of":
            return [{"one_of": [self.way(way, f"{path}.one_of[{number}]") for number, way in enumerate(body)]}]
        if name == "branches":
            return [{"branches": {**_texts(body, BRANCHES), "replace": body.get("replace", True)}}]
        if name == "batch":
            return [{"batch": [self.mix_or_choice(mix) for mix in body]}]
        unit = self.registry.operators[self.known(name, path)].value_name
        said = {"p": _written(body.get("p")), "strength": _written(body.get("strength"))}
        value = _written(body.get(unit)) if unit else None
        also = tuple(key for key in ("p", "strength", unit) if key)
        return [{"operator": name, **said, "value": value, **self.choice(body, also)}]

    def way(self, way: Any, path: str) -> dict[str, Any]:
        weight, items = _weighted(way)
        steps = [self.steps(item, f"{path}.steps[{number}]", inside=True) for number, item in enumerate(items)]
        return {"weight": weight, "steps": [made for several in steps for made in several]}

    def use(self, body: Any, path: str) -> dict[str, Any]:
        body = {"name": body} if isinstance(body, str) else body
        if body["name"] not in self.registry.strategies:
            raise RenderingError(f"{body['name']} is no registered strategy", path=f"{path}.use")
        params = [{"name": name, "value": _written(value)} for name, value in (body.get("params") or {}).items()]
        return {"use": body["name"], "p": _written(body.get("p")), "params": params}

    def mix_or_choice(self, item: Any) -> dict[str, Any]:
        name, body = _split(item)
        if name != "one_of":
            return self.mix(name, body)
        ways = [_weighted(way) for way in body]
        return {"one_of": [{"weight": weight, "mix": self.mix(*_split(items[0]))} for weight, items in ways]}

    def mix(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if "across" in body:
            raise RenderingError("sides of a batch are left out of this rendering", path=f"{name}.across")
        return {"mix": name, **_texts(body, MIX), "partner": body.get("partner", "batch")}

    def state(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        clamp = spec.get("clamp")
        edges = {"low": _written(clamp[0]), "high": _written(clamp[1])} if clamp else None
        init = _written(spec.get("init", 0))
        return {
            "name": name,
            "axes": list(spec.get("axes") or []),
            "init": init,
            "clamp": edges,
            "dtype": spec.get("dtype", "float"),
        }

    def rule(self, rule: Mapping[str, Any]) -> dict[str, Any]:
        lists = {
            key: [{"name": name, "value": _written(value)} for name, value in (rule.get(key) or {}).items()]
            for key in ("let", "set")
        }
        return {"at": rule["at"], "when": _written(rule.get("when")), **lists}


def _split(item: Any) -> tuple[str, Any]:
    """A name alone, or a mapping with one key: the name and its body."""
    if isinstance(item, str):
        return item, {}
    ((name, body),) = item.items()
    return name, {} if body is None else body


def _weighted(way: Any) -> tuple[str | None, list[Any]]:
    if isinstance(way, Mapping) and ("weight" in way or "steps" in way):
        return _written(way.get("weight")), list(way["steps"])
    return None, way if isinstance(way, list) else [way]


def _jitter(body: Any) -> Iterable[dict[str, Any]]:
    """The steps that `color_jitter` stands for."""
    amounts = body if isinstance(body, Mapping) else dict.fromkeys(JITTER_KEYS, body)
    for key, name in JITTER_KEYS.items():
        if key in amounts:
            yield {name: {"factor": f"uniform(max(0, 1 - ({amounts[key]})), 1 + ({amounts[key]}))"}}


def _written(value: Any) -> str | None:
    """An expression as text."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(float(value) if isinstance(value, bool) else value)


def _texts(body: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: _written(body.get(name)) for name in names}
