"""Weight balancing: its loss and its bound in float64, image by image and vector by vector, and its stage in a run."""

from __future__ import annotations

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_parts import write_npz
from test_lab_stages import begun, changed, weights
from torch import nn

from augkit.errors import DocumentError
from augkit.lab import losses
from augkit.lab.heads import weight_norms
from augkit.lab.loop import train_epoch
from augkit.lab.max_norm import MaxNorm
from augkit.lab.recipe import load_recipe
from augkit.lab.run import train
from augkit.registry import Registry

SECOND = "{max_norm_head: {epochs: 2, lr: 0.1, weight_decay: 0.1, threshold: 0.2, loss: class_balanced_bce}}"
BOTH = ("epochs=1", "model=resnet8_cifar", f"stages=[train, {SECOND}]")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 6), st.floats(0, 1), st.booleans())
def test_vectors_longer_than_the_radius_are_shortened_to_it(seed: int, rows: int, share: float, kernel: bool) -> None:
    torch.manual_seed(seed)
    layer: nn.Module = nn.Conv2d(4, rows, 1) if kernel else nn.Linear(4, rows)
    weight, bias = (part.detach() for part in layer.parameters())
    lengths = [math.sqrt(sum(float(x) ** 2 for x in row.flatten())) for row in weight]
    radius = min(lengths) + share * (max(lengths) - min(lengths))
    bound, free = MaxNorm(layer, share), bias.clone()
    with torch.no_grad():
        weight.add_(torch.randn_like(weight))
        before = weight.double().clone()
        bound.project()
    for row, old in zip(weight.double(), before, strict=True):
        length = math.sqrt(sum(float(x) ** 2 for x in old.flatten()))
        expected = old * min(1.0, radius / length)
        assert torch.allclose(row, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(bias, free)
    again = weight.clone()
    with torch.no_grad():
        bound.project()
    assert torch.allclose(weight, again, rtol=1e-5)


def test_a_vector_of_zeros_stays() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    bound = MaxNorm(layer, 0.5)
    with torch.no_grad():
        bound.project()
    assert torch.equal(layer.weight, torch.zeros(2, 3))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 9), st.sampled_from([0.0, 0.9, 0.9999]), st.floats(0.1, 30))
def test_the_loss(seed: int, size: int, beta: float, spread: float) -> None:
    random = np.random.RandomState(seed)
    counts, z = random.randint(1, 500, 4), random.randn(size, 4) * spread
    labels = random.randint(0, 4, size)
    weight = (1 - beta) / (1 - np.power(float(beta), counts))
    weight = weight / weight.sum() * 4
    total = 0.0
    for row, y in zip(z, labels, strict=True):
        e = np.exp(row - row.max())
        for c in range(4):
            right, others = e[c] / e.sum(), (e.sum() - e[c] if c != row.argmax() else np.delete(e, c).sum()) / e.sum()
            total -= weight[y] * math.log(right if c == y else others)
    logits, targets = torch.from_numpy(z).float(), torch.from_numpy(labels)
    options = {"class_counts": torch.from_numpy(counts).float(), "beta": beta}
    found = losses.class_balanced_bce(logits, targets, **options)
    assert float(found) == pytest.approx(total / (size * 4), rel=1e-3, abs=1e-6)
    dense = torch.nn.functional.one_hot(targets, 4).float()
    assert float(losses.class_balanced_bce(logits, dense, **options)) == pytest.approx(float(found), rel=1e-5)


@pytest.mark.slow
def test_both_stages_and_going_on_in_the_second(registry: Registry) -> None:
    run = begun(registry, *BOTH)
    train_epoch(run)
    first = weights(run)
    lengths = first["fc.weight"].norm(dim=1)
    radius = float(lengths.min() + 0.2 * (lengths.max() - lengths.min()))
    train_epoch(run)
    assert isinstance(run.part, MaxNorm) and float(run.part.get_buffer("radius_0")) == pytest.approx(radius)
    assert weights(run)["fc.weight"].norm(dim=1).max().item() <= radius * (1 + 1e-5)
    assert changed(run, first) == {"fc.weight", "fc.bias"}
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.1]
    state = copy.deepcopy(run.state_dict())
    resumed = begun(registry, *BOTH)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.part.get_buffer("radius_0"), run.part.get_buffer("radius_0"))
    assert train_epoch(run)["loss"] == train_epoch(resumed)["loss"]
    assert not changed(resumed, weights(run)) and not any("radius" in name for name in run.model.state_dict())


def test_the_first_stage_decays_as_the_recipe_says_and_recipes_are_the_published_ones(registry: Registry) -> None:
    recipe = load_recipe("cifar100-lt-weight-balancing", registry)
    assert recipe.optimizer.weight_decay == 5e-3 and recipe.stage_epochs == (200, 10)
    run = begun(registry, *BOTH, "optimizer.weight_decay=0.005")
    assert [stage.recipe.optimizer.weight_decay for stage in run.stages] == [0.005, 0.1]
    assert [stage.recipe.loss.name for stage in run.stages] == ["ce", "class_balanced_bce"]
    assert load_recipe("cifar100-lt-bcl", registry).loss.options["contrast"] == 0.6


@pytest.mark.parametrize("head", [nn.Linear(4, 3), nn.Conv2d(4, 3, 2), (nn.Linear(4, 3), nn.Linear(4, 3)), None])
def test_how_long_vectors_are(head: Any) -> None:
    model = nn.Module()
    model.get_classifier = lambda: head  # type: ignore[assignment]
    layers = head if isinstance(head, tuple) else [head]
    if head is None:
        assert weight_norms(model, 3) is None
        return
    by_hand = [[math.sqrt(float((row.detach().double() ** 2).sum())) for row in layer.weight] for layer in layers]
    assert weight_norms(model, 3) == pytest.approx(np.mean(by_hand, 0), rel=1e-4) and weight_norms(model, 4) is None


def test_the_table_of_classes_tells_lengths_before_and_after(registry: Registry, tmp_path: Path) -> None:
    told = ["data={}", f"data.source={write_npz(tmp_path / 'a.npz')}", "base={}", "threads=1", *BOTH]
    folder = train("demo", told, tmp_path / "run", registry=registry)
    with (folder / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    before, after = ([float(row[name]) for row in rows] for name in ("weight_norm_before", "weight_norm"))
    radius = min(before) + 0.2 * (max(before) - min(before))
    assert max(after) <= radius * (1 + 1e-4) < max(before)
    model = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    assert after == pytest.approx(model["fc.weight"].norm(dim=1).tolist(), rel=1e-4)
    assert [json.loads(line).get("weight_norms") for line in (folder / "metrics.jsonl").open()] == [before, None, None]


def test_a_threshold_is_a_share(registry: Registry) -> None:
    with pytest.raises(DocumentError, match=r"stages\[1\]\.threshold: this should be less than or equal to 1, not 2"):
        begun(registry, "stages=[train, {max_norm_head: {threshold: 2}}]")
