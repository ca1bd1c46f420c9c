"""Replies that follow a schema, drawn at random: what a model under a grammar may answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

WORDS = (
    "p",
    "0.5",
    "level[y]",
    "uniform()",
    "1e999",
    "",
    "NaN",
    "correct > 3",
    "weight",
    "epoch / epochs",
    "-1",
    "{",
    "é",
)


def reply(schema: Mapping[str, Any], rng: np.random.Generator, root: Mapping[str, Any] | None = None) -> Any:
    """A value that follows a schema of the dialect that the renderings use."""
    root = root or schema
    if "$ref" in schema:
        return reply(root["$defs"][schema["$ref"].rpartition("/")[2]], rng, root)
    if "anyOf" in schema:
        return reply(schema["anyOf"][rng.integers(len(schema["anyOf"]))], rng, root)
    if "enum" in schema:
        return schema["enum"][rng.integers(len(schema["enum"]))]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = kinds[rng.integers(len(kinds))]
    if kind == "object":
        return {name: reply(inner, rng, root) for name, inner in schema["properties"].items()}
    if kind == "array":
        length = rng.integers(schema.get("minItems", 0), schema.get("maxItems", 3) + 1)
        return [reply(schema["items"], rng, root) for _ in range(length)]
    values = {
        "string": WORDS[rng.integers(len(WORDS))],
        "number": float(rng.normal()),
        "boolean": bool(rng.integers(2)),
    }
    return values.get(kind)
