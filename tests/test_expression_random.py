"""Random calls: the distributions they promise, from numbers of which each element has its own."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from strategy_parts import Box
from torch import Tensor

from augkit.strategy.evaluate import evaluate
from augkit.strategy.expression import parse
from augkit.strategy.sampling import GAMMA, beta_from, categorical_from, log_gamma_from, normal_from, sample_beta
from augkit.strategy.typing import Scope, check

N = 20_000
SCOPE = Scope(
    names={"w": ("ops",), "high": ("batch",), "none": ("ops",)},
    ranges={"high": (1.0, 9.0)},
    constants={"half": 0.5},
    axes=frozenset({"ops", "classes", "batch", "picks"}),
)
WEIGHT = torch.tensor([1.0, 0.0, 5.0, 2.5, -3.0])


def box(seed: int = 0, count: int = N) -> Box:
    values = {"w": WEIGHT, "none": torch.zeros(5), "high": torch.arange(count) % 3 + 1.0}
    return Box(values, {"batch": count, "picks": 2, "ops": 5, "classes": 7}, seed=seed)


def draw(source: str, want: tuple[str, ...] = ("batch",), seed: int = 0) -> Tensor:
    return evaluate(check(parse(source), SCOPE, want, "here"), box(seed))


CONTINUOUS = [
    ("uniform()", stats.uniform()),
    ("uniform(3)", stats.uniform(0, 3)),
    ("uniform(-1, half)", stats.uniform(-1, 1.5)),
    ("normal()", stats.norm()),
    ("normal(2)", stats.norm(2)),
    ("normal(-1, 0.3)", stats.norm(-1, 0.3)),
    *((f"beta({a}, {b})", stats.beta(a, b)) for a in (0.1, 0.4, 1, 2.5, 30) for b in (0.4, 1, 7)),
]  # a smaller b piles up at 1, where float32 has no room, unlike at 0


@pytest.mark.parametrize(("source", "distribution"), CONTINUOUS, ids=[source for source, _ in CONTINUOUS])
def test_continuous_distributions(source: str, distribution: object) -> None:
    found = draw(source).double().numpy()
    assert len(found) == N
    assert stats.kstest(found, distribution.cdf).pvalue > 1e-3  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 3.0, 200.0])
def test_gamma(shape: float) -> None:
    u = torch.rand(N, GAMMA, generator=torch.Generator().manual_seed(3))
    found = log_gamma_from(torch.tensor(shape), u).double()
    assert stats.kstest(found.numpy(), lambda x: stats.gamma(shape).cdf(torch.tensor(x).exp().numpy())).pvalue > 1e-3


def chi_squared(found: Tensor, expected: list[float]) -> float:
    counts = torch.bincount(found.long(), minlength=len(expected)).double()
    cells = torch.tensor(expected, dtype=torch.float64) / sum(expected) * len(found)
    assert len(counts) == len(expected)
    assert counts[cells == 0].sum() == 0, "what has no weight is never drawn"
    assert (cells[cells > 0] >= 5).all()
    if (cells > 0).sum() == 1:
        return 1.0
    return float(stats.chisquare(counts[cells > 0].numpy(), cells[cells > 0].numpy()).pvalue)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("randint(0, 31)", [1.0] * 31),
        ("randint(-2, 3) + 2", [1.0] * 5),
        ("bernoulli(0.3)", [0.7, 0.3]),
        ("bernoulli(0)", [1.0, 0.0]),
        ("bernoulli(1)", [0.0, 1.0]),
        ("categorical(w, over=ops)", [1.0, 0.0, 5.0, 2.5, 0.0]),
        ("categorical(none, over=ops)", [1.0] * 5),
        ("argmax(uniform(), over=ops)", [1.0] * 5),
    ],
)
def test_discrete_distributions(source: str, expected: list[float]) -> None:
    assert chi_squared(draw(source), expected) > 1e-3


def test_randint_takes_bounds_of_each_element() -> None:
    found = draw("randint(0, high)")
    for number in (1, 2, 3):
        group = found[torch.arange(N) % 3 + 1 == number]
        assert chi_squared(group, [1.0] * number) > 1e-3
        assert group.max() == number - 1


def test_permutations_and_dirichlet() -> None:
    places = draw("permutation(over=ops)", ("batch", "ops"))
    assert torch.equal(places.sort(1).values, torch.arange(5.0).expand(N, 5))
    for place in range(5):
        assert chi_squared(places[:, place], [1.0] * 5) > 1e-3
    shares = draw("dirichlet(w * 0 + 0.7, over=ops)", ("batch", "ops")).double()
    torch.testing.assert_close(shares.sum(1), torch.ones(N, dtype=torch.float64), rtol=0, atol=1e-5)
    assert stats.kstest(shares[:, 2].numpy(), stats.beta(0.7, 0.7 * 4).cdf).pvalue > 1e-3


def test_elements_are_independent_and_calls_differ() -> None:
    both = draw("uniform()", ("batch", "picks"))
    assert both.shape == (N, 2)
    assert abs(float(torch.corrcoef(both.T)[0, 1])) < 4 / math.sqrt(N)
    # two calls of one expression have two sites: their difference is triangular, not 0
    difference = draw("uniform() - uniform()").double().numpy()
    assert stats.kstest(difference, stats.triang(0.5, -1, 2).cdf).pvalue > 1e-3
    chosen = draw("onehot(categorical(w, over=ops), ops)", ("classes", "ops"))
    assert chosen.shape == (7, 5) and torch.equal(chosen.sum(1), torch.ones(7))


def test_a_draw_repeats_with_its_seed_alone() -> None:
    assert torch.equal(draw("beta(0.3, 2) + normal()"), draw("beta(0.3, 2) + normal()"))
    assert not torch.equal(draw("normal()"), draw("normal()", seed=1))


def test_the_ends_of_uniform_numbers_stay_finite() -> None:
    for edge in (0.0, 1 - 2.0**-24, 0.5):
        u = torch.full((3, 2 * GAMMA), edge)
        assert normal_from(u).isfinite().all()
        for parameter in (1e-9, 1e-3, 0.2, 1.0, 1e3, 1e6):
            found = beta_from(torch.full((3,), parameter), torch.tensor(0.4), u)
            assert found.isfinite().all() and (found >= 0).all() and (found <= 1).all()
        assert categorical_from(WEIGHT.expand(3, 5), u[:, 0], 1).tolist()[0] in (0, 2, 3)
    tiny = torch.tensor([[1e-38, 0.0, 1e-38]]), torch.tensor([1 - 2.0**-24])
    assert categorical_from(*tiny, 1) == 2


def test_what_the_engine_draws_mixes_with() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.full((N,), 0.8)
    found = sample_beta(alpha, alpha, lambda count: torch.rand(N, count, generator=generator)).double().numpy()
    assert stats.kstest(found, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
