"""Random, changed and crossed strategies: always valid, within the limits of a search, and unlike their parents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from augkit_llm.limits import admit
from augkit_llm.propose import ProposeError, crossed, mutated, random_document
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit import Policy
from augkit.errors import DocumentError
from augkit.plugins import registry
from augkit.registry import Registry
from augkit.strategy.document import load_strategy

REGISTRY = registry()
LIBRARY = [load_strategy(name, REGISTRY).document for name in sorted(REGISTRY.strategies)]
SEEDS = st.integers(0, 2**40)


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def parent(seed: int) -> Mapping[str, Any]:
    """One that chance made, or one with a name, those included that a search would not train."""
    return LIBRARY[seed % len(LIBRARY)] if seed % 3 == 0 else random_document(rng(seed), REGISTRY)


def checked(document: Mapping[str, Any], parents: Sequence[Mapping[str, Any]] = ()) -> None:
    """Whatever holds for every proposal."""
    strategy = admit(document, REGISTRY)
    assert not {"val_correct", "val_seen"} & strategy.reads and "val" not in strategy.needs
    assert strategy.hash not in {load_strategy(one, REGISTRY).hash for one in parents}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    Policy.load(document, class_counts=[40, 12, 3], epochs=20)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_random_document_is_one_that_a_search_may_train(seed: int) -> None:
    document = random_document(rng(seed), REGISTRY)
    checked(document)
    assert random_document(rng(seed), REGISTRY) == document


@given(SEEDS, st.sampled_from(["m1", "m2", "m3"]))
@settings(max_examples=20, deadline=None)
def test_a_mutation_is_valid_and_another_strategy(seed: int, operator: str) -> None:
    before = parent(seed)
    copy = json.loads(json.dumps(before))
    document = mutated(before, rng(seed), REGISTRY, operator)
    checked(document, [before])
    assert before == copy and mutated(before, rng(seed), REGISTRY, operator) == document


@given(st.lists(SEEDS, max_size=3), SEEDS, st.sampled_from(["e1", "e2"]))
@settings(max_examples=12, deadline=None)
def test_a_crossing_is_valid_and_unlike_every_parent(seeds: list[int], seed: int, operator: str) -> None:
    parents = [parent(one) for one in seeds]
    document = crossed(parents, rng(seed), REGISTRY, operator)
    checked(document, parents)
    assert crossed(parents, rng(seed), REGISTRY, operator) == document


@pytest.mark.slow
def test_random_documents_are_wide() -> None:
    strategies = [admit(random_document(rng(seed), REGISTRY), REGISTRY) for seed in range(150)]
    assert len({strategy.hash for strategy in strategies}) == 150
    reads = [strategy.reads for strategy in strategies]
    for name in ("correct", "seen", "loss", "used", "class_count", "class_rank", "epoch", "y"):
        assert sum(name in read for read in reads) >= 4, name
    assert sum("observe" in strategy.needs for strategy in strategies) >= 45, "many learn from answers"
    assert sum("rare" in strategy.state for strategy in strategies) >= 15, "many tell classes apart by their size"
    assert sum(strategy.mixes for strategy in strategies) >= 15
    used = {choice.operator.name for strategy in strategies for choice in strategy.choices}
    assert used >= set(REGISTRY.operators) - {"identity"}


LEARNING: dict[str, Any] = {
    "augkit": 1,
    "name": "learning",
    "params": {"goal": 0.6},
    "palette": ["rotate", "equalize", "invert"],
    "state": {"level": {"axes": ["classes"], "init": 0.2, "clamp": [0, 1]}},
    "pipeline": ["hflip", {"pick": {"p": 0.5, "strength": "level[y]"}}],
    "update": [{"at": "epoch_end", "set": {"level": "where(correct > goal * seen, level + 0.1, level - 0.1)"}}],
}


def words(document: Mapping[str, Any]) -> Any:
    """A document without its numbers."""
    if isinstance(document, Mapping):
        return {key: words(value) for key, value in document.items() if key not in ("name", "title")}
    if isinstance(document, list):
        return [words(value) for value in document]
    return "".join("0" if letter in "0123456789." else letter for letter in str(document)).replace("0", "")


def test_m2_changes_numbers_alone() -> None:
    for seed in range(12):
        assert words(mutated(LEARNING, rng(seed), REGISTRY, "m2")) == words(LEARNING)


def test_m3_takes_something_out() -> None:
    before = len(json.dumps({**LEARNING, "name": "", "title": ""}))
    for seed in range(12):
        made = mutated(LEARNING, rng(seed), REGISTRY, "m3")
        assert len(json.dumps({**made, "name": "", "title": ""})) < before


def test_e2_keeps_the_idea_of_one_parent_in_the_palette_of_the_other() -> None:
    other = {"augkit": 1, "name": "other", "palette": ["solarize", "shear_x"], "pipeline": [{"pick": {"count": 1}}]}
    made = [crossed([LEARNING, other], rng(seed), REGISTRY, "e2") for seed in range(20)]
    both = [one for one in made if "level" in one.get("state", {}) and one["palette"] == other["palette"]]
    assert len(both) >= 5


def test_a_strategy_that_cannot_be_simpler_is_changed_in_another_way() -> None:
    checked(mutated({"augkit": 1, "name": "x", "pipeline": []}, rng(1), REGISTRY, "m3"))


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(ProposeError, match="m1, m2 and m3"):
        mutated(LEARNING, rng(0), REGISTRY, "e1")
    with pytest.raises(ProposeError, match="e1 and e2"):
        crossed([LEARNING], rng(0), REGISTRY, "m1")
    with pytest.raises(ProposeError, match="registered"):
        random_document(rng(0), Registry())


def step(**more: Any) -> dict[str, Any]:
    return {"augkit": 1, "name": "x", "palette": ["rotate"], "pipeline": [{"pick": {}}], **more}


VAL = {"state": {"a": {"axes": ["classes"]}}, "update": [{"at": "epoch_end", "set": {"a": "val_correct"}}]}
PROBE = {"p": {"upto": 2, "samples": 1, "steps": ["hflip"]}}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (step(**VAL), "reads val_correct"),
        (step(probes=PROBE), "has probes"),
        ({"augkit": 1, "name": "x", "pipeline": [{"use": "cuda"}]}, "has probes"),
        ({"augkit": 1, "name": "x", "pipeline": [{"use": "augmix"}]}, "has views"),
        (step(state={"a": {"axes": ["groups"]}}, pipeline=[{"pick": {"strength": "a[group]"}}]), "reads groups"),
        (step(pipeline=[{"batch": [{"mixup": {"across": "synthetic"}}]}]), "which images are synthetic"),
        (step(palette=["kornia:RandomPlasmaShadow"]), "of another library"),
        (step(pipeline=[{"one_of": [[{"albumentations:CoarseDropout": {}}]]}]), "of another library"),
        (step(pipeline=[{"rotat": {}}]), 'Did you mean "rotate"'),
        ({"pipeline": None}, "missing"),
    ],
)
def test_a_search_refuses_in_a_sentence(document: dict[str, Any], told: str) -> None:
    with pytest.raises(DocumentError, match=told):
        admit(document, REGISTRY)
