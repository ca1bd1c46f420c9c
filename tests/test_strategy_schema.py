"""The JSON Schema: accepts what loads, refuses what is misspelt, and describes every key."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from strategies_gen import documents

from augkit.errors import DocumentError
from augkit.plugins import load_registry
from augkit.strategy.document import load_strategy
from augkit.strategy.reading import read_file
from augkit.strategy.schema import json_schema

BUILT_IN = load_registry(plugins=False)
SCHEMA = json_schema(BUILT_IN)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", sorted(BUILT_IN.strategies))
def test_built_in_documents_fit(name: str) -> None:
    VALIDATOR.validate(read_file(BUILT_IN.strategies[name]).data)


@given(documents(BUILT_IN, samples=True))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_generated_documents_fit(document: dict[str, Any]) -> None:
    VALIDATOR.validate(document)


WHOLE: dict[str, Any] = {
    "augkit": 1,
    "name": "whole",
    "title": "t",
    "source": "s",
    "params": {"p": 0.5, "on": True},
    "palette": ["hflip", {"rotate": {"low": 0, "high": "p * 10", "signed": False}}, {"cutout": {"length": 8}}],
    "image": {"resample": "nearest", "fill": "mean", "exact": True},
    "state": {"w": {"axes": ["classes", "ops"], "init": 1, "clamp": [0, None], "dtype": "int"}},
    "pipeline": [
        "vflip",
        {"equalize": None},
        {"rotate": {"degrees": 3, "p": "p"}},
        {"color_jitter": {"brightness": 0.1}},
        {
            "pick": {
                "p": 1,
                "count": 2,
                "weights": "w[y]",
                "replace": True,
                "order": "palette",
                "each_p": 1,
                "strength": 1,
            }
        },
        {"one_of": ["hflip", ["hflip", "vflip"], {"weight": 2, "steps": [{"solarize": {"threshold": 128}}]}]},
        {"use": {"name": "randaugment", "p": 0.5, "params": {"m": 3}}},
        {
            "branches": {
                "p": 1,
                "width": 3,
                "depth": "randint(1, 4)",
                "replace": True,
                "strength": 1,
                "weights": "dirichlet(1)",
                "blend": 0.5,
            }
        },
        {"batch": ["mixup", {"one_of": [{"weight": 2, "steps": ["cutmix"]}, {"mixup": {"alpha": 1}}]}]},
    ],
    "update": [{"at": "epoch_end", "when": "epoch > 1", "let": {"a": 1}, "set": {"w": "w + a"}}],
}


VIEWED: dict[str, Any] = {
    **WHOLE,
    "pipeline": WHOLE["pipeline"][:-2],
    "views": {"clean": [], "mix": {"times": 2, "steps": ["hflip", *WHOLE["pipeline"][-2:-1]]}},
}


@pytest.mark.parametrize("document", [WHOLE, VIEWED], ids=["mixed", "viewed"])
def test_a_document_with_every_part_loads_and_fits(document: dict[str, Any]) -> None:
    load_strategy(document, BUILT_IN)
    VALIDATOR.validate(document)


def mappings(value: Any, free: bool = False) -> Iterator[tuple[dict[str, Any], str]]:
    """Every mapping of a document with each of its keys, but for those whose keys are names of the author's own."""
    if isinstance(value, dict):
        for key in list(value):
            if not free:
                yield value, key
            yield from mappings(value[key], key in ("params", "state", "let", "set", "views") and not free)
    elif isinstance(value, list):
        for inner in value:
            yield from mappings(inner)


PLACES = [(whole, n) for whole in (WHOLE, VIEWED) for n in range(len(list(mappings(whole))))]


@pytest.mark.parametrize(("whole", "number"), PLACES)
def test_a_misspelt_key_does_not_fit(whole: dict[str, Any], number: int) -> None:
    document = copy.deepcopy(whole)
    place, key = list(mappings(document))[number]
    place[f"{key}z"] = place.pop(key)
    assert not VALIDATOR.is_valid(document), f"{key} misspelt"
    with pytest.raises(DocumentError):
        load_strategy(document, BUILT_IN)
    assert len(PLACES) > 100


@pytest.mark.parametrize(
    "change",
    [
        {"augkit": 2},
        {"name": 3},
        {"name": "a b"},
        {"pipeline": "hflip"},
        {"pipeline": ["hflap"]},
        {"pipeline": [{"rotate": {"strength": 0.5, "degrees": 3}}]},
        {"pipeline": [{"hflip": {"strength": 0.5}}]},
        {"pipeline": [{"hflip": {}, "vflip": {}}]},
        {"pipeline": [{"use": "randaugmnt"}]},
        {"pipeline": [{"pick": {"order": "palete"}}]},
        {"pipeline": [{"batch": ["mixip"]}]},
        {"palette": "randaugment15"},
        {"palette": ["hflip"] * 65},
        {"palette": [{"cutout": {"length": "long"}}]},
        {"image": {"resample": "bicubic"}},
        {"params": {"a b": 1}},
        {"params": {"a": "x"}},
        {"state": {"a": {"axes": ["class"]}}},
        {"state": {"a": {"clamp": [0]}}},
        {"update": [{"set": {"w": 1}}]},
        {"update": [{"at": "epoch_end"}]},
        {"probes": {"a": {}}},
        {"views": ["clean"]},
        {"views": {"a": 3}},
        {"views": {"a": {"times": 2}}},
        {"pipeline": [{"branches": {"replace": "no"}}]},
        {"pipeline": [{"use": "rend-m9"}]},
    ],
)
def test_what_does_not_load_for_its_form_does_not_fit(change: dict[str, Any]) -> None:
    document = {**WHOLE, **change}
    with pytest.raises(DocumentError):
        load_strategy(document, BUILT_IN)
    assert not VALIDATOR.is_valid(document)


def test_an_editor_can_complete_from_it() -> None:
    step = SCHEMA["$defs"]["step"]["anyOf"][1]["properties"]
    assert {"rotate", "pick", "one_of", "use", "batch", "color_jitter"} <= set(step)
    rotate = step["rotate"]["anyOf"][0]
    assert set(rotate["properties"]) == {"p", "strength", "degrees", "low", "high", "signed"}
    assert rotate["description"] and "degrees" in rotate["properties"]["degrees"]["description"]
    for name, schema in SCHEMA["properties"].items():
        assert "description" in schema or name == "probes", name
    for name in ("pick", "branches", "image", "state", "rule"):
        for key, schema in SCHEMA["$defs"][name]["properties"].items():
            assert schema.get("description"), f"{name}.{key}"
