"""The JSON Schema of strategy documents, built from what is registered: an editor completes operators, options and
units with it, and an LLM is guided by it. It knows the form of a document; expressions are checked on loading.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from augkit.operators.base import Operator
from augkit.operators.external import PATTERN
from augkit.registry import Registry
from augkit.strategy.choices import MAX_OPERATORS
from augkit.strategy.mix_steps import MIXES
from augkit.strategy.model import STATE_AXES, BranchesStep, Image, MixStep, PickStep, Probe, Rule, State, Strategy, View
from augkit.strategy.options import option_type
from augkit.strategy.steps import JITTER, JITTER_KEYS
from augkit.strategy.timm_strings import PARTS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAME = "^[A-Za-z][A-Za-z0-9_]{0,59}$"


def json_schema(registry: Registry) -> Schema:
    """A JSON Schema (draft 2020-12) of the documents that are valid with these operators, palettes and strategies."""
    fields = Strategy.model_fields
    properties: Schema = {
        "augkit": {"const": 1},
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"},
        "title": {"type": "string"},
        "source": {"type": "string"},
        "params": _mapping({"type": ["number", "boolean"]}),
        "palette": _ref("palette"),
        "image": _nullable(_ref("image")),
        "state": _mapping(_ref("state")),
        "pipeline": {"type": ["array", "null"], "items": _ref("step")},
        "views": _mapping(_ref("view")),
        "update": {"type": ["array", "null"], "items": _ref("rule")},
        "probes": _mapping(_ref("probe")),
        "max_probe_images": _nullable(_ref("expression")),
    }
    described = {name: {"description": fields[name].description, **schema} for name, schema in properties.items()}
    return {
        "$schema": DIALECT,
        "title": "augkit strategy",
        "description": "An augmentation policy as a document.",
        "type": "object",
        "properties": described,
        "required": ["augkit", "name", "pipeline"],
        "additionalProperties": False,
        "$defs": _definitions(registry),
    }


def _definitions(registry: Registry) -> Schema:
    operators = dict(sorted(registry.operators.items()))
    steps = {
        **{name: _nullable(_operator(operator, step=True)) for name, operator in operators.items()},
        "pick": _nullable(_ref("pick")),
        "one_of": _ref("one_of"),
        "branches": _nullable(_ref("branches")),
        "use": _ref("use"),
        "batch": _ref("batch"),
    }
    if all(name in operators for name in JITTER):
        steps["color_jitter"] = _jitter()
    entries = {name: _nullable(_operator(operator, step=False)) for name, operator in operators.items()}
    return {
        "expression": {
            "type": ["number", "string", "boolean"],
            "description": "a number, or an expression such as clip(normal(9, 0.5), 0, 10) / 10",
        },
        "palette": {
            "anyOf": [
                {"enum": sorted(registry.palettes)},
                {
                    "type": "array",
                    "items": _named(entries, external=_external(step=False)),
                    "minItems": 1,
                    "maxItems": MAX_OPERATORS,
                },
                {"type": "null"},
            ]
        },
        "image": _model(Image),
        "state": _state(),
        "step": _named(steps, also=["pick"], external=_external(step=True)),
        "view": _view(),
        "probe": _probe(),
        "pick": _model(PickStep),
        "branches": _model(BranchesStep),
        "one_of": _one_of(_ref("step"), {"type": "array", "items": _ref("step")}),
        "use": _use(registry),
        "batch": {"type": "array", "minItems": 1, "items": _ref("mix_or_choice")},
        "mix": _named({kind: _nullable(_mix(kind)) for kind in MIXES}, also=list(MIXES)),
        "mix_or_choice": {"anyOf": [_ref("mix"), _object({"one_of": _one_of_mix()}, ["one_of"])]},
        "rule": _rule(),
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(properties: Schema, required: list[str] | None = None, **more: Any) -> Schema:
    schema = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    return {**schema, "required": required} if required else schema


def _mapping(values: Schema) -> Schema:
    return {"type": ["object", "null"], "propertyNames": {"pattern": _NAME}, "additionalProperties": values}


def _named(bodies: Schema, also: list[str] | None = None, external: Schema | None = None) -> Schema:
    """A bare name, or a mapping with that name as its one key; `external` stands under names of other libraries."""
    bare = [name for name, body in bodies.items() if {"type": "null"} in body.get("anyOf", [])]
    words = sorted({*bare, *(also or [])})
    one = _object(bodies, minProperties=1, maxProperties=1)
    ways: list[Schema] = [{"enum": words}, one] if words else [one]
    if external is not None:
        one["patternProperties"] = {PATTERN: external}
        ways.append({"type": "string", "pattern": PATTERN, "description": external["description"]})
    return {"anyOf": ways}


def _external(*, step: bool) -> Schema:
    """A transform of another library: its arguments are known only to that library, which is not imported here."""
    told = "a transform of albumentations, kornia or torchvision with its own arguments, checked on loading"
    p = {"p": {"description": "probability for each image", **_ref("expression")}} if step else {"p": False}
    return {"type": ["object", "null"], "description": told, "properties": p}


def _model(model: type[BaseModel], without: tuple[str, ...] = ()) -> Schema:
    """A model's own fields, with every expression and default written as in a document."""
    made = model.model_json_schema()
    properties = {}
    for name, schema in made["properties"].items():
        if name in without:
            continue
        schema = {key: value for key, value in schema.items() if key not in ("title", "default", "const")}
        field = model.model_fields[name]
        if "Expr" in str(field.annotation) and "dict" not in str(field.annotation):
            schema = {"description": field.description, **_ref("expression")}
        default = field.default
        if not field.is_required() and isinstance(default, (bool, str)) and default != "":
            schema["default"] = default
        properties[name] = schema
    required = [name for name in made.get("required", []) if name not in without]
    return _object(properties, required)


def _operator(operator: Operator, *, step: bool) -> Schema:
    """What stands under an operator's name, in a pipeline or in a palette."""
    number = _ref("expression")
    properties: Schema = {}
    if step:
        properties["p"] = {"description": "probability for each image", **number}
    if operator.has_value:
        unit = f" in {operator.unit}" if operator.unit else ""
        # numbers are bounded, expressions only once they are read
        bounds = dict(zip(("minimum", "maximum"), operator.limits or (), strict=False))
        bounded = {**number, **bounds}
        if step:
            properties["strength"] = {"description": f"0..1 for {operator.low:g}..{operator.high:g}{unit}", **number}
            properties[operator.value_name] = {"description": f"the value{unit}, instead of a strength", **bounded}
        properties["low"] = {"description": f"value at strength 0{unit}, {operator.low:g} unless said", **bounded}
        properties["high"] = {"description": f"value at strength 1{unit}, {operator.high:g} unless said", **bounded}
        properties["signed"] = {
            "description": "whether each image draws a side of the value that changes nothing",
            "type": "boolean",
        }
    for name, option in operator.options.items():
        properties.setdefault(name, _option(operator, name, option.default))
    schema = _object(properties, description=operator.summary)
    if step and operator.has_value:
        schema["not"] = {"required": ["strength", operator.value_name]}
    return schema


def _option(operator: Operator, name: str, default: Any) -> Schema:
    schema = option_type(operator.function, name).json_schema()
    if isinstance(default, (bool, int, float, str)):
        schema["default"] = default
    return schema


def _state() -> Schema:
    edge = {"anyOf": [_ref("expression"), {"type": "null"}]}
    schema = _model(State)
    schema["properties"]["axes"] = {
        "description": State.model_fields["axes"].description,
        "type": "array",
        "items": {"enum": list(STATE_AXES)},
        "uniqueItems": True,
    }
    schema["properties"]["clamp"] = {
        "description": State.model_fields["clamp"].description,
        "anyOf": [{"type": "array", "items": edge, "minItems": 2, "maxItems": 2}, {"type": "null"}],
    }
    return schema


def _rule() -> Schema:
    schema = _model(Rule)
    names = {"type": "object", "propertyNames": {"pattern": _NAME}, "additionalProperties": _ref("expression")}
    schema["properties"]["let"] = {"description": Rule.model_fields["let"].description, **names}
    schema["properties"]["set"] = {"description": Rule.model_fields["set"].description, **names, "minProperties": 1}
    return {**schema, "required": ["at", "set"]}


def _view() -> Schema:
    steps = {"type": "array", "items": _ref("step")}
    about = {name: {"description": field.description} for name, field in View.model_fields.items()}
    properties = {"times": {**about["times"], **_ref("expression")}, "steps": {**about["steps"], **steps}}
    return {"anyOf": [steps, _object(properties, ["steps"])]}


def _probe() -> Schema:
    """Either kind: one that asks the model, or one that counts training answers."""
    said = {name: {"description": field.description} for name, field in Probe.model_fields.items()}
    number = {name: {**said[name], **_ref("expression")} for name in ("upto", "samples", "level")}
    steps = {
        "pick": {**said["steps"], **_nullable(_ref("pick"))},
        "steps": {**said["steps"], "type": "array", "items": _ref("step")},
    }
    asking = [
        _object({"upto": number["upto"], "samples": number["samples"], key: steps[key]}, ["upto", "samples", key])
        for key in steps
    ]
    return {"anyOf": [*asking, _object({"upto": number["upto"], "level": number["level"]}, ["upto", "level"])]}


def _one_of(single: Schema, several: Schema) -> Schema:
    weighted = _object({"weight": _ref("expression"), "steps": several}, ["steps"])
    return {"type": "array", "minItems": 1, "items": {"anyOf": [single, several, weighted]}}


def _one_of_mix() -> Schema:
    alone = {"type": "array", "items": _ref("mix"), "minItems": 1, "maxItems": 1}
    return _one_of(_ref("mix"), alone)


def _mix(kind: str) -> Schema:
    """A mosaic draws where its images meet, and weighs their labels by that."""
    return _model(MixStep, without=("kind", "share", "label") if kind == "mosaic" else ("kind",))


def _use(registry: Registry) -> Schema:
    patterns = [r"\.(yaml|yml|json)$|/", f"^({'|'.join(PARTS)})(-|$)"]
    name = {"anyOf": [{"enum": sorted(registry.strategies)}, *({"type": "string", "pattern": p} for p in patterns)]}
    params = _mapping(_ref("expression"))
    return {"anyOf": [name, _object({"name": name, "p": _ref("expression"), "params": params}, ["name"])]}


def _jitter() -> Schema:
    amount = {"description": "factors from 1 - x to 1 + x", **_ref("expression")}
    return {"anyOf": [amount, _object(dict.fromkeys(JITTER_KEYS, amount))]}
