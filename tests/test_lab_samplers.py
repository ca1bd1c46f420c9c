"""Samplers: the shares they promise, images of a class alike, orders that are functions of seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from augkit.errors import DocumentError
from augkit.lab import samplers
from augkit.lab.data import epoch_order, load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.registry import Registry

COUNTS = np.array([60, 25, 11, 4])
LABELS = np.random.RandomState(0).permutation(np.repeat(np.arange(4), COUNTS))
POWER = {"uniform": 1.0, "square_root": 0.5, "class_balanced": 0.0, "inverse": -1.0}
QUICK = ("epochs=1", "data.test_share=0.8", "data.image_size=16", "data.imbalance=10", "threads=1")


def shares_of(name: str, counts: np.ndarray = COUNTS) -> np.ndarray:
    given = torch.from_numpy(counts).double()
    return samplers.checked_shares(samplers.SAMPLERS[name](given), given, name, "sampler")


def test_there_are_no_others() -> None:
    assert set(samplers.SAMPLERS) == {*POWER, "group_balanced"}  # that one draws by cells, see test_lab_groups


@pytest.mark.parametrize("name", POWER)
def test_shares_are_powers_of_the_counts(name: str) -> None:
    expected = COUNTS ** POWER[name]
    assert shares_of(name) == pytest.approx(expected / expected.sum())
    assert shares_of(name, np.array([3, 0, 1]))[1] == 0


@pytest.mark.parametrize("name", POWER)
def test_what_comes_first_follows_the_shares(name: str) -> None:
    """Orders of different seeds are independent, so the classes and images at one place of each are a fair sample."""
    shares = shares_of(name)
    orders = [samplers.epoch_positions(LABELS, shares, seed, 3).numpy() for seed in range(4000)]
    for place in (0, 57, 99):
        met = np.array([order[place] for order in orders])
        assert chisquare(np.bincount(LABELS[met], minlength=4), 4000 * shares).pvalue > 1e-3
        each = (shares / COUNTS)[LABELS]
        assert chisquare(np.bincount(met, minlength=100), 4000 * each).pvalue > 1e-3


@pytest.mark.parametrize("name", POWER)
def test_epochs_of_one_run_follow_the_shares(name: str) -> None:
    shares = shares_of(name)
    met = np.concatenate([samplers.epoch_positions(LABELS, shares, 5, epoch).numpy() for epoch in range(300)])
    assert np.bincount(LABELS[met]) / len(met) == pytest.approx(shares, abs=0.002)
    each = (shares / COUNTS)[LABELS] * len(met)
    assert chisquare(np.bincount(met, minlength=100), each).pvalue > 1e-3


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any),
    st.sampled_from(sorted(POWER)),
    st.integers(0, 2**63 - 1),
    st.integers(0, 1000),
)
def test_laws_of_an_epoch(counts: list[int], name: str, seed: int, epoch: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    shares = shares_of(name, np.array(counts))
    order = samplers.epoch_positions(labels, shares, seed, epoch)
    assert order.dtype == torch.int64 and len(order) == len(labels)
    assert torch.equal(order, samplers.epoch_positions(labels, shares, seed, epoch))
    times = np.bincount(order.numpy(), minlength=len(labels))
    for label, count in enumerate(counts):
        own = times[labels == label]
        assert abs(own.sum() - shares[label] * len(labels)) < 1 + 1e-5
        assert count == 0 or own.max() - own.min() <= 1
    if name == "uniform":
        assert torch.equal(order, epoch_order(len(labels), seed, epoch))


def test_orders_differ_by_seed_and_epoch() -> None:
    shares = shares_of("class_balanced")
    orders = [tuple(samplers.epoch_positions(LABELS, shares, s, e).tolist()) for s in (0, 1) for e in (0, 1)]
    assert len(set(orders)) == 4


@pytest.mark.parametrize("name", POWER)
def test_a_run_takes_what_the_sampler_says(name: str, registry: Registry) -> None:
    recipe = load_recipe("demo", registry, [*QUICK, f"sampler={name}"])
    data = load(recipe.data)
    run = prepare(recipe, data, registry, torch.device("cpu"))
    train_epoch(run)
    counts = data.class_counts.numpy()
    seen = torch.as_tensor(run.policy.history[-1]["seen"]).numpy()
    assert seen.sum() == len(data.train)
    assert np.abs(seen - shares_of(name, counts) * counts.sum()).max() < 1 + 1e-5


@pytest.mark.parametrize("wrong", [torch.ones(3), -torch.ones(10), torch.zeros(10), torch.full((10,), float("nan"))])
def test_wrong_shares_are_refused(wrong: torch.Tensor, registry: Registry) -> None:
    mine = Registry(**{**vars(registry), "samplers": {"mine": lambda class_counts: wrong}})
    recipe = load_recipe("demo", mine, [*QUICK, "sampler=mine"])
    run = prepare(recipe, load(recipe.data), mine, torch.device("cpu"))
    with pytest.raises(DocumentError, match=r'^sampler: "mine" returned shares'):
        train_epoch(run)


def test_unknown_samplers_and_options(registry: Registry) -> None:
    for told, says in (
        (["sampler=square_rot"], r'^--set .*: there is no sampler "square_rot" .*Did you mean "square_root"'),
        (["sampler={name: inverse, power: 2}"], r': sampler\.power: there is no option "power"'),
        (["stages=[train, {finetune_head: {sampler: invers}}]"], r': stages\[1\]\.sampler: .* "inverse"'),
    ):
        with pytest.raises(DocumentError, match=says):
            load_recipe({"augkit": 1, "name": "plain"}, registry, told)
