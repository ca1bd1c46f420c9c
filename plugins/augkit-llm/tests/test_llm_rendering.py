"""The format as models can follow it: what providers demand of a schema, and that nothing is lost on the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import numpy as np
import pytest
from augkit_llm.rendering import RenderingError, small, strict
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_replies import reply

from augkit import Policy
from augkit.errors import DocumentError
from augkit.plugins import registry
from augkit.strategy.document import load_strategy

REGISTRY = registry()
STRICT = strict.schema(REGISTRY)
OUTSIDE = {
    "augmix": "views",
    "bcl_views": "views",
    "bcl_views_autoaugment": "views",
    "bcl_views_cuda": "views",
    "cuda": "probes",
    "cuda_agnostic": "probes",
    "cuda_monotone": "probes",
    "cuda_online": "probes",
    "domain_mixup": "mixup.across",
    "invariance_proposals": "views",
    "invariance_proposals_wide": "views",
}
"""Strategies with a name that the rendering for models leaves out, and the part for which it does."""
KEYWORDS = {"type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "description", "$ref"}
"""All that a strict mode is sure to take, besides $defs at the top."""


def nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every schema in a schema, definitions included, references not followed."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("$defs", {}).values()]
    for one in [*inner, *([schema["items"]] if "items" in schema else [])]:
        yield from nodes(one)


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return STRICT["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def depth(schema: Mapping[str, Any]) -> int:
    """Objects and lists inside each other, the outermost included; endless for a schema that refers to itself."""
    schema = resolved(schema)
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    here = 1 if schema.get("type") in ("object", "array") else 0
    return max((here + depth(one) for one in inner), default=here) if here else max(
        (depth(one) for one in schema.get("anyOf", [])), default=0
    )  # fmt: skip


def first_keys(schema: Mapping[str, Any]) -> list[str]:
    schema = resolved(schema)
    if "anyOf" in schema:
        return [key for one in schema["anyOf"] for key in first_keys(one)]
    return [next(iter(schema["properties"]))] if schema.get("type") == "object" else []


def test_the_strict_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(STRICT)
    assert STRICT["type"] == "object" and "anyOf" not in STRICT


def test_the_strict_schema_has_no_keyword_that_a_strict_mode_refuses() -> None:
    for node in nodes(STRICT):
        assert set(node) - {"$defs"} <= KEYWORDS
        assert set(node) == {"$ref"} or "$ref" not in node, "a reference stands alone"


def test_every_object_is_closed_and_has_all_its_properties() -> None:
    objects = [node for node in nodes(STRICT) if node.get("type") == "object"]
    assert len(objects) > 10
    for node in objects:
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"]) and node["properties"]


def test_the_strict_schema_keeps_to_the_sizes_of_strict_modes() -> None:
    names = [name for node in nodes(STRICT) for name in node.get("properties", {})]
    values = [value for node in nodes(STRICT) for value in node.get("enum", [])]
    assert len(names) <= 5_000 and len(values) <= 1_000
    assert sum(map(len, [*names, *values, *STRICT["$defs"]])) <= 120_000
    assert all(len("".join(node["enum"])) <= 15_000 for node in nodes(STRICT) if "enum" in node)
    assert depth(STRICT) <= 10


def test_alternatives_begin_with_different_keys() -> None:
    for node in nodes(STRICT):
        keys = first_keys(node) if "anyOf" in node else []
        assert len(keys) == len(set(keys))


def test_operators_palettes_and_strategies_are_named_once_and_are_those_that_are_registered() -> None:
    lists = [tuple(node["enum"]) for node in nodes(STRICT) if "enum" in node]
    for names in (REGISTRY.operators, REGISTRY.palettes, REGISTRY.strategies):
        assert lists.count(tuple(sorted(names))) == 1


def test_the_strict_schema_does_not_offer_what_a_search_refuses() -> None:
    assert "val_correct" not in json.dumps(STRICT) and "class_count" in json.dumps(STRICT)


@pytest.mark.parametrize("name", sorted(REGISTRY.strategies))
def test_a_strategy_comes_back_as_it_was_or_is_said_not_to_fit(name: str) -> None:
    strategy = load_strategy(name, REGISTRY)
    if name in OUTSIDE:
        with pytest.raises(RenderingError, match=f"^{OUTSIDE[name]}: "):
            strict.from_document(strategy.document)
        return
    shown = strict.from_document(strategy.document)
    jsonschema.validate(shown, STRICT)
    assert load_strategy(strict.to_document(json.loads(json.dumps(shown))), REGISTRY).hash == strategy.hash


EVERYTHING: dict[str, Any] = {
    "augkit": 1,
    "name": "everything",
    "title": "All that the rendering has",
    "params": {"top": 0.8, "on": True},
    "palette": [
        "equalize",
        {"rotate": {"low": 5, "high": "30 * top", "signed": False}},
        {"grid_mask": {"period": [0.3, 0.6], "degrees": 10}},
    ],
    "image": {"resample": "nearest"},
    "state": {
        "level": {"axes": ["classes"], "init": 1, "clamp": [0, None], "dtype": "int"},
        "open": {"axes": [], "clamp": [None, None]},
        "start": {"axes": ["samples"], "init": "bernoulli(0.5)"},
    },
    "pipeline": [
        {"use": {"name": "randaugment", "p": 0.3, "params": {"n": 1, "m": "10 * top"}}},
        {"use": "trivialaugment"},
        {"posterize": {"bits": "uniform(4, 8)", "signed": True}},
        {"solarize_add": {"p": 0.2, "strength": 0.4, "invert": True}},
        {"hflip": {"p": "start[index]"}},
        {"color_jitter": {"brightness": "top / 2", "saturation": 0.1}},
        {"color_jitter": "2 * top"},
        {"one_of": ["grayscale", ["hflip", {"rotate": {"degrees": 10}}], {"weight": "level[y]", "steps": []}]},
        {"pick": {"count": 2, "replace": True, "order": "palette", "weights": "1 + 0 * used[y]", "each_p": 0.5}},
        "pick",
        {"branches": {"width": 2, "replace": False, "blend": 0.5}},
        {"batch": [{"cutmix": {"p": 0.2, "partner": "pool", "weights": "1 / class_count"}}]},
        {"batch": [{"one_of": ["mixup", {"weight": 2, "steps": [{"fmix": {"alpha": 0.2}}]}]}, "resizemix"]},
    ],
    "update": [
        {"at": "epoch_start", "when": "epoch > 3", "set": {"open": "uniform()"}},
        {
            "at": "epoch_end",
            "let": {"a": "correct / seen", "b": "where(a > top, 1, -1)"},
            "set": {"level": "level + b", "open": "mean(a, over=classes)"},
        },
    ],
}


def test_a_document_with_everything_that_fits_comes_back_as_it_was() -> None:
    shown = strict.from_document(EVERYTHING)
    jsonschema.validate(shown, STRICT)
    back = strict.to_document(shown)
    assert load_strategy(back, REGISTRY).hash == load_strategy(EVERYTHING, REGISTRY).hash
    assert strict.to_document(strict.from_document(back)) == back


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pipeline": [{"one_of": [[{"one_of": ["hflip", "rotate"]}]]}]}, "pipeline[0].one_of[0].steps[0]: one_of"),
        ({"pipeline": ["kornia:RandomPlasmaShadow"]}, "pipeline[0]: kornia:RandomPlasmaShadow is no operator"),
        ({"pipeline": [{"use": "rand-m9-n2"}]}, "pipeline[0].use: rand-m9-n2 is no registered strategy"),
    ],
)
def test_a_document_that_does_not_fit_says_which_part(change: dict[str, Any], told: str) -> None:
    document = {"augkit": 1, "name": "x", **change}
    with pytest.raises(RenderingError) as caught:
        strict.from_document(document)
    assert str(caught.value).startswith(told)


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_whatever_follows_the_strict_schema_is_a_document_or_an_error_that_can_be_told(seed: int) -> None:
    answer = reply(STRICT, np.random.default_rng(seed))
    jsonschema.validate(answer, STRICT)
    try:
        load_strategy(strict.to_document(answer), REGISTRY)
    except (RenderingError, DocumentError) as error:
        assert str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(STRICT["properties"])), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*STRICT["properties"], *small.CHOICES, "operators"]), JSON))
@settings(max_examples=60, deadline=None)
def test_what_follows_no_schema_is_an_error_that_can_be_told(answer: dict[str, Any]) -> None:
    for rendering in (strict, small):
        try:
            load_strategy(rendering.to_document(answer), REGISTRY)
        except (RenderingError, DocumentError) as error:
            assert str(error)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            {"name": "x", "pipeline": [{"operator": "equalize", "value": "3"}]},
            "pipeline[0].value: equalize has no value",
        ),
        ({"name": "x", "pipeline": [{"rotate": {}}]}, "pipeline[0]: expected a step that begins with one of operator"),
        ({"name": "x", "pipeline": [{"pick": {"chance": 1}}]}, "pipeline[0].pick: there is no 'chance' here"),
        ({"name": "x", "params": [{"name": "a", "value": 1}] * 2}, 'params[1].name: "a" was given before'),
        ({"name": "x", "params": {"a": 1}}, "params: expected a list"),
        ({"pipeline": []}, "name: expected text"),
        ({"name": "x", "views": []}, "there is no 'views' here"),
        ({"name": "x", "pipeline": ["hflip"] * 2000}, "pipeline: a list of 2000 items"),
    ],
)
def test_a_reply_that_does_not_follow_the_strict_schema_says_where(answer: dict[str, Any], told: str) -> None:
    with pytest.raises(RenderingError) as caught:
        strict.to_document(answer)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("More for rare classes!", "More_for_rare_classes"), ("__", "unnamed"), ("ok-1.2", "ok-1.2"), ("é", "unnamed")],
)
def test_a_name_becomes_one_that_a_document_may_have(name: str, kept: str) -> None:
    document = strict.to_document({"name": name, "pipeline": []})
    assert document["name"] == kept and load_strategy(document, REGISTRY).name == kept


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(2, 100))
@settings(max_examples=60, deadline=None)
def test_every_reply_that_follows_the_small_schema_gives_a_valid_document(seed: int, operators: int) -> None:
    schema = small.schema(REGISTRY, seed, operators)
    answer = reply(schema, np.random.default_rng(seed))
    jsonschema.validate(answer, schema)
    policy = Policy.load(small.to_document(answer), class_counts=[60, 20, 3], epochs=10)
    assert "val" not in policy.needs


def test_the_small_schema_is_flat_short_and_made_of_enumerations() -> None:
    schema = small.schema(REGISTRY, 3)
    for name, field in schema["properties"].items():
        assert len(field["items"]["enum"] if name == "operators" else field["enum"]) <= 8
    assert schema["required"] == list(schema["properties"]) and len(json.dumps(schema)) < 3000


def test_the_seed_chooses_the_operators_of_the_small_schema() -> None:
    assert small.schema(REGISTRY, 1) == small.schema(REGISTRY, 1)
    seen = {name for seed in range(100) for name in small.sample(REGISTRY, seed)}
    assert seen == set(REGISTRY.operators) - {"identity"}


SMALL: dict[str, Any] = {
    "operators": ["rotate", "equalize", "rotate"],
    "count": 2,
    "probability": 0.5,
    "strength": 0.9,
    "draw": "fixed",
    "many": 0.2,
    "medium": 0.5,
    "few": 1,
    "over_time": "grows",
    "learn": "levels",
    "goal": 0.6,
    "mixing": "cutmix",
}


def test_a_small_reply_can_say_a_strategy_that_learns() -> None:
    import torch

    policy = Policy.load(small.to_document(SMALL), class_counts=[90, 30, 10], epochs=4)
    targets = torch.tensor([0, 1, 2] * 20)
    before = policy.state["level"].clone()
    policy(torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8), targets)
    policy.observe(torch.eye(3)[torch.where(targets == 2, 0, targets)])  # the last class is never right
    policy.end_epoch()
    assert (policy.state["level"] > before).tolist() == [True, True, False]
    assert policy.state["share"].tolist() == pytest.approx([0.2, 0.5, 1.0])


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", 7), ("count", True), ("strength", "0.9"), ("operators", ["rotate"]), ("operators", "x")],
)
def test_a_small_reply_with_another_value_says_which_field(field: str, value: Any) -> None:
    with pytest.raises(RenderingError) as caught:
        small.to_document({**SMALL, field: value})
    assert str(caught.value).startswith(f"{field}: expected")
