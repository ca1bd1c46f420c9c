"""How many images which class gets."""

from __future__ import annotations

import pytest
from augkit_diffusion.allocation import by_budget, by_target, check_request
from augkit_diffusion.chunks import Cell, chunks, image_seed, parse_shard
from hypothesis import given
from hypothesis import strategies as st

from augkit.errors import AugkitError

COUNTS: dict[Cell, int] = {(label, None): count for label, count in enumerate((50, 20, 7, 7, 0))}
counts_of = st.lists(st.integers(0, 5000), min_size=1, max_size=30).map(
    lambda counts: {(label, None): count for label, count in enumerate(counts)}
)


@pytest.mark.parametrize(
    ("target", "made"),
    [
        ("30", [0, 10, 23, 23, 30]),
        ("max(class_count, 20)", [0, 0, 13, 13, 20]),
        ("class_count * 3", [100, 40, 14, 14, 0]),
        ("max(class_count, over=classes)", [0, 30, 43, 43, 50]),
        ("where(class_rank >= 3, 10, class_count)", [0, 0, 0, 3, 10]),
        ("2 * classes", [0, 0, 3, 3, 10]),
        ("7.6", [0, 0, 1, 1, 8]),
    ],
)
def test_a_target_is_what_a_class_has_in_the_end(target: str, made: list[int]) -> None:
    assert list(by_target(COUNTS, target).values()) == made


def test_equal_targets_even_groups_out() -> None:
    counts: dict[Cell, int] = {(0, 0): 5, (0, 1): 1, (1, 0): 0, (1, 1): 9}
    assert by_target(counts, "max(class_count, over=classes)") == {(0, 0): 4, (0, 1): 8, (1, 0): 9, (1, 1): 0}


@given(counts_of, st.integers(0, 6000))
def test_no_class_ends_below_its_target_or_loses_an_image(counts: dict[Cell, int], target: int) -> None:
    made = by_target(counts, str(target))
    assert all(counts[cell] + number == max(counts[cell], target) for cell, number in made.items())


@given(counts_of, st.integers(1, 100_000), st.sampled_from(["1", "1 / max(class_count, 1)", "class_rank + 0.5"]))
def test_a_budget_is_spent_to_the_last_image(counts: dict[Cell, int], budget: int, weights: str) -> None:
    made = by_budget(counts, budget, weights)
    assert sum(made.values()) == budget and min(made.values()) >= 0
    if weights == "1":
        assert max(made.values()) - min(made.values()) <= 1


def test_a_budget_follows_its_weights() -> None:
    assert list(by_budget(COUNTS, 84, "class_count").values()) == [50, 20, 7, 7, 0]
    assert list(by_budget(COUNTS, 7).values()) == [2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("clas_count", 'there is no name "clas_count". Did you mean "class_count"'),
        ("epoch * 2", 'there is no name "epoch"'),
        ("class_count + uniform()", "nothing random is allowed"),
        ("500 500", "expected an operator or the end"),
        ("", "the expression is empty"),
        ("-5", "a class cannot have -5 images"),
        ("class_count * 1e9", "a class cannot have 5e"),
    ],
)
def test_a_wrong_target_is_told(target: str, told: str) -> None:
    with pytest.raises(AugkitError) as error:
        by_target(COUNTS, target)
    assert told in str(error.value) and str(error.value).startswith(f'--target "{target}"')


@pytest.mark.parametrize("weights", ["0", "0 - class_count", "class_count - 20"])
def test_wrong_weights_are_told(weights: str) -> None:
    with pytest.raises(AugkitError, match="weights are 0 or more and not all 0"):
        by_budget(COUNTS, 10, weights)


def test_how_many_is_said_in_one_way() -> None:
    for said, told in (
        ((None, None, None), "say how many images"),
        (("5", 5, None), "two ways to say"),
        (("5", None, "1"), "--weights shares a --budget out"),
    ):
        with pytest.raises(AugkitError, match=told):
            check_request(*said)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/2/3", "²/3"])
def test_a_shard_that_is_none_is_told(text: str) -> None:
    with pytest.raises(AugkitError, match="--shard"):
        parse_shard(text)


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=6),
    st.integers(1, 9),
    st.integers(1, 7),
    st.frozensets(st.tuples(st.integers(0, 5), st.integers(0, 59))),
)
def test_shards_share_what_is_missing_out(
    numbers: list[int], batch: int, parts: int, there: frozenset[tuple[int, int]]
) -> None:
    wanted: dict[Cell, int] = {(label, None): number for label, number in enumerate(numbers)}

    def known(label: int, group: int | None) -> frozenset[int]:
        return frozenset(number for other, number in there if other == label)

    shards = [list(chunks(wanted, batch, known, (part, parts))) for part in range(1, parts + 1)]
    made = [(chunk.label, number) for shard in shards for chunk in shard for number in chunk.missing]
    expected = [(label, k) for label, number in enumerate(numbers) for k in range(number) if (label, k) not in there]
    assert sorted(made) == expected
    for chunk in (chunk for shard in shards for chunk in shard):
        assert all(number // batch == chunk.index for number in chunk.missing)


def test_seeds_are_the_same_everywhere_and_differ() -> None:
    assert image_seed(0, "dog", None, 12) == 2434473914531495714  # of SHA-256, as other programs find it
    told = [(s, c, g, k) for s in (0, 1) for c in ("a", "b") for g in (None, "x", "None") for k in range(50)]
    assert len({image_seed(*one) for one in told}) == len(told)
