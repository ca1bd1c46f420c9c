"""Budgets: what is reserved, what still fits, and what is told beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from augkit_llm.budget import Budget, StopError, cost
from augkit_llm.estimate import estimate
from augkit_llm.records import Evaluation, Spent
from hypothesis import given
from hypothesis import strategies as st

from augkit.errors import DataError

NOTHING = Spent(0, 0, 0.0, 0.0)


@dataclass(frozen=True)
class Stage:
    """What budgets know of one."""

    name: str
    epochs: int
    seeds: int
    keep: int | None


STAGES = (Stage("short", 2, 2, 3), Stage("warm", 20, 2, 1), Stage("full", 50, 3, None))
stages = st.lists(st.builds(Stage, st.uuids().map(str), *[st.integers(1, 5)] * 2, st.integers(1, 8)), min_size=1)


@pytest.mark.parametrize(
    ("budget", "price", "reason"),
    [
        (Budget(usd=1.0), (10, 0.51), "usd"),
        (Budget(tokens=100), (51, 0.0), "tokens"),
        (Budget(hours=1.0), (1, 0.0), "hours"),
    ],
)
def test_a_call_that_might_go_beyond_a_budget_is_not_made(
    budget: Budget, price: tuple[int, float], reason: str
) -> None:
    with pytest.raises(StopError) as stop:
        budget.allow_call(Spent(0, 50, 0.5, 3601.0), *price)
    assert stop.value.reason == reason


def test_a_call_that_uses_a_budget_up_is_made() -> None:
    Budget(tokens=100, usd=1.0, hours=1.0).allow_call(Spent(0, 50, 0.5, 3599.0), 50, 0.5)
    Budget(usd=1.0).allow_call(Spent(0, 0, sum([0.1] * 9), 0.0), 1, 0.1)  # which is a little more than 0.9


def test_what_the_candidates_of_a_generation_may_take() -> None:
    assert cost(1, STAGES) == 2 + 2 + 3
    assert cost(8, STAGES) == 16 + 6 + 3


def test_a_generation_is_as_large_as_its_whole_way_is_paid_for() -> None:
    assert Budget(evaluations=25).slots(NOTHING, 8, STAGES, 0) == 8
    assert Budget(evaluations=24).slots(NOTHING, 8, STAGES, 0) == 7
    assert Budget(evaluations=25).slots(NOTHING, 8, STAGES, 18) == 1
    assert Budget().slots(NOTHING, 8, STAGES, 18) == 8
    with pytest.raises(StopError, match="19 of 25 evaluations are made and one more strategy may take 7") as stop:
        Budget(evaluations=25).slots(Spent(19, 0, 0.0, 0.0), 8, STAGES, 0)
    assert stop.value.reason == "evaluations"


@pytest.mark.slow
@given(stages, st.integers(0, 200), st.integers(0, 200), st.integers(1, 12), st.integers(0, 30))
def test_a_generation_never_takes_more_than_is_left(
    cascade: list[Stage], most: int, used: int, population: int, controls: int
) -> None:
    spent = Spent(used, 0, 0.0, 0.0)
    try:
        size = Budget(evaluations=most).slots(spent, population, cascade, controls)
    except StopError:
        assert used + controls + cost(1, cascade) > most
        return
    assert 1 <= size <= population
    assert used + controls + cost(size, cascade) <= most
    assert size == population or used + controls + cost(size + 1, cascade) > most


@given(stages, st.integers(0, 300), st.integers(1, 12), st.integers(0, 3))
def test_the_estimate_is_within_the_budget(cascade: list[Stage], most: int, population: int, controls: int) -> None:
    found = estimate(NOTHING, Budget(evaluations=most), population, cascade, [controls * one.seeds for one in cascade])
    assert found is not None
    assert found.generations <= found.strategies <= found.generations * population
    if found.generations:
        assert sum(found.runs) <= most
        assert found.runs[0] == (found.strategies + controls) * cascade[0].seeds


def test_time_is_estimated_by_epochs() -> None:
    found = estimate(NOTHING, Budget(evaluations=25), 8, STAGES, [0, 0, 0])
    assert found is not None and found.runs == (16, 6, 3)
    first = Evaluation("short", "none", 0, "done", seconds=4.0)
    assert found.seconds(first, STAGES, jobs=2) == (16 * 2 + 6 * 20 + 3 * 50) * 4.0 / 2 / 2


def test_without_a_bound_on_evaluations_nothing_is_estimated() -> None:
    assert estimate(NOTHING, Budget(hours=1), 8, STAGES, [6, 8, 9]) is None


def test_budgets_are_raised_and_never_lowered() -> None:
    budget = Budget(evaluations=60, usd=5.0)
    assert budget.raised(Budget(evaluations=90)) == Budget(evaluations=90, usd=5.0)
    assert budget.raised(Budget(hours=2)) == Budget(evaluations=60, usd=5.0, hours=2)
    with pytest.raises(DataError, match="--budget-usd 4 is less than the 5 of this search"):
        budget.raised(Budget(usd=4))


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_budget_is_a_number_from_zero(value: float) -> None:
    with pytest.raises(DataError, match="--budget-usd"):
        Budget(usd=value)
