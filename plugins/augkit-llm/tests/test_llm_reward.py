"""Rewards: their error, their order, and a real run that gives one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from augkit_llm.cascade import hopeless
from augkit_llm.controls import CONTROLS
from augkit_llm.evaluate import balanced, baselines, check_recipe, measure, stages, tasks
from augkit_llm.opening import settle
from augkit_llm.reward import Score, paired, ranked, score
from hypothesis import given
from hypothesis import strategies as st

from augkit.errors import DocumentError
from augkit.lab.recipe import load_recipe, read_recipe
from augkit.plugins import registry


@dataclass
class Run:
    seed: int
    reward: float | None
    standard_error: float | None


def test_the_error_of_balanced_accuracy_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(0)
    rates, images = rng.uniform(0.1, 0.9, 30), rng.integers(20, 60, 30)
    drawn = [balanced(list(zip(rng.binomial(images, rates), images, strict=True))) for _ in range(2000)]
    spread = np.std([accuracy for accuracy, _ in drawn])
    assert abs(np.mean([error for _, error in drawn]) / spread - 1) < 0.05
    assert balanced([(1, 1), (0, 0), (1, 2)])[0] == 0.75  # a class without images says nothing


def test_a_model_that_is_always_or_never_right_is_not_sure_of_it() -> None:
    accuracy, error = balanced([(20, 20)] + [(0, 20)] * 9)
    assert accuracy == 0.1 and 0.005 < error < 0.02
    never, always = balanced([(0, 20)])[1], balanced([(20, 20)])[1]
    assert never == pytest.approx(always) and always > balanced([(0, 200)])[1] > 0


def test_what_is_hopeless_is_so_by_the_error_of_the_difference() -> None:
    scores = {name: Score(name, 0.5, 0.03, {}) for name in CONTROLS}
    for reward, error, expected in ((0.44, 0.0, True), (0.48, 0.0, False), (0.46, 0.04, False), (0.44, 0.04, True)):
        assert bool(hopeless("x", {**scores, "x": Score("x", reward, error, {})})) == expected


def test_more_seeds_lessen_only_the_error_that_comes_of_seeds() -> None:
    alike = score("a", [Run(seed, 0.5, 0.02) for seed in range(10)])
    assert alike.reward == 0.5 and alike.standard_error == pytest.approx(0.02)
    apart = score("b", [Run(seed, 0.5 + 0.1 * (seed % 2), 0.02) for seed in range(10)])
    assert apart.standard_error > 0.02
    assert paired(apart, alike).mean == pytest.approx(0.05)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2)), max_size=12))
def test_an_order_never_says_more_than_the_errors_allow(found: list[tuple[float, float]]) -> None:
    scores = {str(k): Score(str(k), reward, error, {}) for k, (reward, error) in enumerate(found)}
    order = ranked(list(scores), scores)
    assert sorted(order) == sorted(scores)
    if not order:
        return
    best = max(scores.values(), key=lambda one: one.reward)
    level = [name for name in scores if scores[name].reward >= best.reward - best.standard_error]
    assert order[: len(level)] == level  # as they were found


def test_the_stages_of_a_recipe_grow_and_the_last_is_the_recipe() -> None:
    for epochs in (1, 50, 200):
        found = stages(epochs)
        assert [stage.epochs for stage in found] == sorted(stage.epochs for stage in found)
        assert found[-1].epochs == epochs and found[-1].keep is None and [s.warm for s in found] == [False, True, False]
        assert all(stage.seeds >= 2 for stage in found)
    assert [stage.epochs for stage in stages(200)] == [10, 20, 200]


def test_a_recipe_must_hold_out_enough_to_rank_by() -> None:
    for override, said in (("data.validation_per_class=5", "5 reward images"), ("data.validation=0.1", "a share of")):
        with pytest.raises(DocumentError, match=said):
            check_recipe(load_recipe("demo", registry(), [override]))


@pytest.mark.slow
def test_a_run_is_measured_and_a_warm_one_begins_with_its_baseline(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{augkit: 1, name: tiny, data: {source: digits, imbalance: 10, image_size: 8, validation_per_class: 20},"
        " model: resnet8_cifar, epochs: 4, threads: 1}"
    )
    first, second, _ = stages(4)
    assert set(CONTROLS) <= set(registry().strategies)
    (cold,) = tasks(first, str(recipe), {"trivialaugment": "trivialaugment"}, tmp_path, seeds=[0])
    value = measure(**cold.arguments, **cold.places)
    assert 0 < value["reward"] < 1 and 0 < value["standard_error"] < 0.1
    assert value["intensity"]["all"]["operators"] == pytest.approx(1, abs=0.05)
    assert measure(**cold.arguments, **cold.places) == value  # found again
    (before,) = baselines(second, str(recipe), 4, tmp_path, seeds=[0])
    (warm,) = tasks(second, str(recipe), {"none": "none"}, tmp_path, seeds=[0])
    measure(**before.arguments, **before.places)
    assert measure(**warm.arguments, **warm.places)["reward"] > measure(**before.arguments, **before.places)["reward"]
    assert baselines(first, str(recipe), 4, tmp_path, seeds=[0]) == []


@pytest.mark.slow
def test_a_recipe_of_several_stages_is_shortened_in_all_of_them(tmp_path: Path) -> None:
    """And what its schedule counts in epochs; its own length is the recipe itself."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "{augkit: 1, name: tiny, data: {source: digits, imbalance: 10, image_size: 8, validation_per_class: 20},"
        " model: resnet8_cifar, schedule: {name: cosine, options: {warmup_epochs: 4}}, threads: 1,"
        " stages: [{train: {epochs: 8}}, {retrain_head: {epochs: 4}}]}"
    )
    settings = settle(recipe, [], ["none"])
    assert [stage.epochs for stage in settings.stages] == [1, 1, 8]
    (tmp_path / "settled.yaml").write_text(json.dumps(settings.recipe))
    for epochs, lengths, warm in ((2, [2, 1], 1), (8, [8, 4], 4)):
        out = tmp_path / f"run{epochs}"
        measure(str(tmp_path / "settled.yaml"), "none", 0, epochs, None, str(out))
        summary = json.loads((out / "summary.json").read_text())
        assert [stage["epochs"] for stage in summary["stages"]] == lengths
        assert read_recipe(out / "recipe.yaml").schedule.options["warmup_epochs"] == warm
    there = read_recipe(tmp_path / "run8" / "recipe.yaml").model_dump(exclude={"policy", "test"})
    assert there == read_recipe(tmp_path / "settled.yaml").model_dump(exclude={"policy", "test"})
