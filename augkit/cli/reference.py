"""The reference of the document format, written from its schema, its models and what expressions may name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from augkit.registry import Registry
from augkit.strategy.build import SIGNALS
from augkit.strategy.expression import number_text
from augkit.strategy.functions import FUNCTIONS
from augkit.strategy.mix_steps import MIXES
from augkit.strategy.model import BranchesStep, Expr, Image, MixStep, PickStep, Probe, Rule, State, Strategy, View
from augkit.strategy.schema import json_schema

Schema = dict[str, Any]
INTRO = """# Document format

Every field of a strategy document, written from the models that read it. What the parts are for, with examples:
[strategy documents](../documents.md). The same as a JSON Schema, for editors and language models: `augkit schema`.

An **expression** is a number or text such as `"level[y] * uniform()"`, see [names](#names) and [functions](#functions).
Where a field has no default, its meaning says what holds without it; *required* fields must stand there.
"""
PARTS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("image", "`image: {...}`", Image),
    ("state", "`state: {NAME: {...}}`", State),
    ("pick", "`- pick: {...}`, a step", PickStep),
    ("branches", "`- branches: {...}`, a step", BranchesStep),
    ("view", "`views: {NAME: {...}}`, or the list of steps alone", View),
    ("probe", "`probes: {NAME: {...}}`", Probe),
    ("rule", "`update: [{...}, ...]`", Rule),
)
LISTS = (
    "`pipeline`, a view and a probe hold lists of steps. A step is a name, or a mapping with that name as its one key."
)
STEPS = (
    {
        "step": "an [operator](../operators.md)",
        "written as": "`- equalize`, `- rotate: {p: 0.5, degrees: 15}`",
        "what it is": "[fields](#operator)",
    },
    {
        "step": "a transform of [another library](../interop.md)",
        "written as": "`- kornia:RandomPlasmaShadow: {p: 0.5}`",
        "what it is": "its own arguments, and `p`",
    },
    {"step": "`pick`", "written as": "`- pick: {count: 2}`", "what it is": "[fields](#pick)"},
    {
        "step": "`one_of`",
        "written as": "`- one_of: [hflip, [rotate, invert], {weight: 2, steps: [equalize]}]`",
        "what it is": "draws one for each image; `weight` is 1 unless said",
    },
    {"step": "`branches`", "written as": "`- branches: {width: 3}`", "what it is": "[fields](#branches)"},
    {
        "step": "`use`",
        "written as": "`- use: randaugment`, `- use: {name: randaugment, p: 0.5, params: {m: 5}}`",
        "what it is": "another strategy: a name, a path below this document's folder, or one of timm's strings",
    },
    {
        "step": "`color_jitter`",
        "written as": "`- color_jitter: 0.3`, `- color_jitter: {brightness: 0.3, contrast: 0.2, saturation: 0.1}`",
        "what it is": "factors from 1 - x to 1 + x",
    },
    {"step": "`batch`", "written as": "`- batch: [mixup]`", "what it is": "[mixing](#mixing), the last step"},
)
OPERATOR = """## operator

`- rotate: {...}`, as a step or as an entry of a palette. Units, ends and further options of each:
`augkit operators`, or [the catalogue](../operators.md).

| field | type | meaning |
| --- | --- | --- |
| `p` | expression | probability for each image, 1 unless said; steps only |
| `strength` | expression | 0..1 between `low` and `high`; `uniform()` unless said; steps only |
| its unit, such as `degrees` | expression | the value itself, instead of a strength; steps only |
| `low`, `high` | expression of params | the values at strength 0 and 1 |
| `signed` | true or false | whether each image draws a side of the value that changes nothing |
"""


def documents_page(registry: Registry) -> str:
    """Fields, names and functions of strategy documents, as one Markdown page that stands in `reference/`."""
    schema = json_schema(registry)
    defs = schema["$defs"]
    top = _rows(schema, Strategy)
    parts = [INTRO, f"## A document\n\n{_table(top)}\n"]
    for name, written, model in PARTS:
        if name == "pick":
            parts += [f"## Steps\n\n{LISTS}\n\n{_table(STEPS)}\n", OPERATOR]
        parts.append(f"## {name}\n\n{written}. {_about(model)}\n\n{_table(_rows(defs[name], model))}\n")
        if name == "branches":
            parts.append(_mixing(defs))
    parts += [_names(registry), _functions()]
    return "\n".join(parts)


def _about(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _mixing(defs: Schema) -> str:
    kinds = defs["mix"]["anyOf"][1]["properties"]
    fields = {kind: set(body["anyOf"][0]["properties"]) for kind, body in kinds.items()}
    widest = max(MIXES, key=lambda kind: len(fields[kind]))
    lacking = [f"`{kind}` has no {', '.join(sorted(fields[widest] - have))}" for kind, have in fields.items()]
    told = "; ".join(text for text, have in zip(lacking, fields.values(), strict=True) if have != fields[widest])
    listed = ", ".join(f"`{kind}`" for kind in MIXES)
    table = _table(_rows(kinds[widest]["anyOf"][0], MixStep))
    return (
        f"## mixing\n\n`- batch: [mixup: {{...}}]`, the last step: {listed}, or `one_of` over several of them. "
        f"{_about(MixStep)} {told}.\n\n{table}\n"
    )


def _names(registry: Registry) -> str:
    rows = [{"name": f"`{name}`", "axes": ", ".join(axes) or "a single number"} for name, axes in SIGNALS.items()]
    brought = [name for name in registry.signals if name not in SIGNALS]
    rows += [{"name": f"`{name}`", "axes": "classes"} for name in sorted(brought)]
    told = "[What they hold](../documents.md#expressions), and what belongs to an image or a probe."
    return f"## names\n\nSignals, beside `params` and `state` of the document. {told}\n\n{_table(rows)}\n"


def _functions() -> str:
    rows = [
        {"function": f"`{one.signature}`", "meaning": one.meaning, "random": "yes" if one.draws else ""}
        for one in FUNCTIONS.values()
    ]
    return f"## functions\n\n{_table(rows)}\n"


def _rows(schema: Schema, model: type[BaseModel]) -> list[dict[str, str]]:
    """A row for each field that a document may write; a part with several forms has the fields of all of them."""
    forms = [schema] if "properties" in schema else [form for form in schema["anyOf"] if "properties" in form]
    required = set.intersection(*(set(form.get("required", ())) for form in forms))
    fields = {name: body for form in forms for name, body in form["properties"].items()}
    return [
        {
            "field": f"`{name}`",
            "type": _type(body),
            "default": "*required*" if name in required else _default(model, name),
            "meaning": body.get("description", ""),
        }
        for name, body in fields.items()
    ]


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields.get(name)
    if field is None or field.is_required() or field.default in (None, ""):
        return ""
    value: Any = field.default
    if isinstance(value, Expr):
        return f"`{value}`"
    if isinstance(value, bool) or value is None:
        return f"`{str(value).lower()}`"
    if isinstance(value, (int, float)):
        return f"`{number_text(value)}`"
    return f"`{value}`" if isinstance(value, str) else "none"


def _type(schema: Schema) -> str:
    return " or ".join(dict.fromkeys(_types(schema)))


def _types(schema: Schema) -> Iterator[str]:
    """The forms of a value, in words."""
    if "$ref" in schema:
        yield {"palette": "name or list"}.get(name := schema["$ref"].rpartition("/")[2], name)
    elif "anyOf" in schema:
        for form in schema["anyOf"]:
            yield from _types(form)
    elif "const" in schema:
        yield f"`{schema['const']}`"
    elif "enum" in schema:
        yield from (f"`{word}`" for word in schema["enum"])
    else:
        for kind in [schema["type"]] if isinstance(schema["type"], str) else schema["type"]:
            yield from _plain(kind, schema)


def _plain(kind: str, schema: Mapping[str, Any]) -> Iterator[str]:
    if kind == "array":
        items = _type(schema["items"])
        yield f"list of {items}{'s' if items.isalpha() else ''}"
    elif kind == "object":
        yield f"names to {_type(schema['additionalProperties'])}"
    elif kind != "null":  # an empty value is the same as none
        yield {"string": "text", "boolean": "true or false"}.get(kind, kind)


def _table(rows: Sequence[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
