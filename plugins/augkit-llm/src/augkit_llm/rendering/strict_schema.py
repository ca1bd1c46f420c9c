"""The format for models whose provider holds replies to a schema: OpenAI's strict mode and others like it.

Such modes take closed objects only, with every property required, so what may be left out is null and mappings with
free names are lists of `{name, value}`. Every number that may be an expression is text. Objects between which a reply
chooses begin with different properties, a reference stands alone, nothing refers to itself, and no keyword bounds
a number, a text or a list: what the schema cannot say is checked when the document is loaded.
"""

from __future__ import annotations

from typing import Any, get_args

from augkit.registry import Registry
from augkit.strategy.build import SIGNALS
from augkit.strategy.functions import FUNCTIONS
from augkit.strategy.model import STATE_AXES, BranchesStep, Image, MixStep, OperatorStep, PickStep, Rule, State

Schema = dict[str, Any]

MIXES: tuple[str, ...] = get_args(MixStep.model_fields["kind"].annotation)


def expressions(model: Any) -> tuple[str, ...]:
    """The fields of a model that are expressions."""
    return tuple(name for name, field in model.model_fields.items() if "Expr" in str(field.annotation))


PICK, BRANCHES, MIX = expressions(PickStep), expressions(BranchesStep), expressions(MixStep)


def schema(registry: Registry) -> Schema:
    """The JSON Schema of replies, for these operators, palettes and strategies."""
    return {
        **_object(
            {
                "title": _text("the idea in one sentence"),
                "name": _text("a short name of letters, digits and _"),
                "params": _list(_object({"name": _text("a name"), "value": {"type": "number"}}), "numbers with a name"),
                "palette": _ref("palette"),
                "image": _nullable(_ref("image")),
                "state": _list(_ref("state"), "learned values"),
                "pipeline": _list(_ref("step"), "what happens to each image, in order"),
                "update": _list(_ref("rule"), "how state changes between epochs"),
            }
        ),
        "$defs": _definitions(registry),
    }


def _definitions(registry: Registry) -> Schema:
    entry = {"operator": _ref("operator"), **_range()}
    return {
        "expression": _text(_about_expressions(registry)),
        "maybe": {"type": ["string", "null"], "description": "an expression, or null for what the format supposes"},
        "named": _object({"name": _text("a name"), "value": _ref("expression")}),
        "operator": _enum(registry.operators),
        "option": _option(registry),
        "image": _image(),
        "palette": {
            "anyOf": [
                _enum(registry.palettes, "a named palette"),
                _list(_object(entry), "operators of your own choice"),
                {"type": "null"},
            ]
        },
        "state": _state(),
        "operator_step": _operator_step(),
        "pick_step": _object({"pick": _pick()}),
        "use_step": _use(registry),
        "step": {"anyOf": [_ref(kind) for kind in ("operator_step", "pick_step", "use_step", *_OUTER)]},
        "one_of_step": _object({"one_of": _list(_alternative(), "one alternative is drawn for each image")}),
        "branches_step": _object({"branches": _branches()}),
        "batch_step": _object({"batch": _list(_ref("mix_or_choice"), "mixes images; last in the pipeline")}),
        "mix": _mix(),
        "mix_or_choice": {"anyOf": [_ref("mix"), _object({"one_of": _list(_mix_alternative(), "one is drawn")})]},
        "rule": _rule(),
    }


_OUTER = ("one_of_step", "branches_step", "batch_step")
"""Steps that cannot stand in an alternative."""


def _about_expressions(registry: Registry) -> str:
    functions = ", ".join(function.signature for function in FUNCTIONS.values())
    signals = ", ".join(
        f"{name}[{', '.join(axes)}]" if axes else name
        for name, axes in {**SIGNALS, **dict.fromkeys(registry.signals, ("classes",))}.items()
        if not name.startswith("val_")
    )
    return (
        "a number or an expression, as text: 0.5, or clip(level[y] / 10, 0, 1). Arithmetic, comparisons, and, or, not,"
        f" params, state, signals and functions. Signals with their axes: {signals}. In the pipeline x[y] is the entry"
        f" of the image's class. Functions: {functions}. Axes: {', '.join(STATE_AXES)}"
    )


def _option(registry: Registry) -> Schema:
    names = {name for operator in registry.operators.values() for name in operator.options}
    whose = "; ".join(
        f"{operator.name}: {', '.join(operator.options)}"
        for operator in registry.operators.values()
        if operator.options
    )
    value = _text("the value as JSON: 8, true or [0.1, 0.5]")
    return _object({"name": _enum(names, f"options by operator: {whose}"), "value": value})


def _range() -> Schema:
    return {
        "low": _maybe(),
        "high": _maybe(),
        "signed": {"type": ["boolean", "null"]},
        "options": _list(_ref("option"), "of the operator; empty for its defaults"),
    }


def _operator_step() -> Schema:
    said = _said(OperatorStep)
    value = {"type": ["string", "null"], "description": f"an expression: {said['value']}; then strength is null"}
    return _object(
        {"operator": _ref("operator"), "p": _maybe(), "strength": _maybe(), "value": value, **_range()},
        f"one operator. p: {said['p']}; strength: {said['strength']}",
    )


def _pick() -> Schema:
    numbers = {name: _maybe() for name in PICK}
    choices = {"replace": {"type": "boolean"}, "order": _enum(("drawn", "palette"))}
    return _object({**numbers, **choices}, _explained(PickStep))


def _branches() -> Schema:
    numbers = {name: _maybe() for name in BRANCHES}
    return _object({**numbers, "replace": {"type": "boolean"}}, _explained(BranchesStep))


def _use(registry: Registry) -> Schema:
    params = _list(_ref("named"), "values for its params")
    return _object({"use": _enum(registry.strategies, "another strategy"), "p": _maybe(), "params": params})


def _alternative() -> Schema:
    plain = {"anyOf": [_ref("operator_step"), _ref("pick_step"), _ref("use_step")]}
    return _object({"weight": _maybe(), "steps": _list(plain, "what runs, in order")})


def _mix() -> Schema:
    numbers = {name: _maybe() for name in MIX}
    partner = _enum(("batch", "pool"), "where partners come from")
    return _object({"mix": _enum(MIXES), **numbers, "partner": partner}, _explained(MixStep))


def _mix_alternative() -> Schema:
    return _object({"weight": _maybe(), "mix": _ref("mix")})


def _state() -> Schema:
    said = _said(State)
    return _object(
        {
            "name": _text("a name"),
            "axes": _list(_enum(STATE_AXES), said["axes"]),
            "init": _ref("expression"),
            "clamp": _nullable(_object({"low": _maybe(), "high": _maybe()}, said["clamp"])),
            "dtype": _enum(("float", "int"), said["dtype"]),
        }
    )


def _image() -> Schema:
    said = _said(Image)
    fill = _enum(("black", "mean", "reflect"), said["fill"])
    resample = _enum(("nearest", "bilinear"), said["resample"])
    return _object({"resample": resample, "fill": fill, "exact": {"type": "boolean", "description": said["exact"]}})


def _rule() -> Schema:
    said = _said(Rule)
    lists = {name: _list(_ref("named"), said[name]) for name in ("let", "set")}
    return _object({"at": _enum(("epoch_start", "epoch_end"), said["at"]), "when": _maybe(), **lists}, said["when"])


def _said(model: Any) -> dict[str, str]:
    return {name: field.description or "" for name, field in model.model_fields.items()}


def _explained(model: Any) -> str:
    return "; ".join(f"{name}: {said}" for name, said in _said(model).items() if said)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _maybe() -> Schema:
    return _ref("maybe")


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _enum(names: Any, description: str = "") -> Schema:
    made: Schema = {"type": "string", "enum": sorted(names)}
    return {**made, "description": description} if description else made


def _list(items: Schema, description: str) -> Schema:
    return {"type": "array", "items": items, "description": description}


def _nullable(made: Schema) -> Schema:
    return {"anyOf": [made, {"type": "null"}]}


def _object(properties: Schema, description: str = "") -> Schema:
    made: Schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {**made, "description": description} if description else made
