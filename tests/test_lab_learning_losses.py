"""Losses that learn or look into the model, losses and weight decays of single stages, parts that are projected."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_lab_stages import begun, changed, weights
from torch import Tensor, nn
from torch.nn import functional

from augkit.errors import DocumentError
from augkit.lab import stages
from augkit.lab.loop import Training, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.registry import Registry

SMALL = ("model=resnet8_cifar", "epochs=1")


class Towards(nn.Module):
    """Cross-entropy, and the distance of features to a point that learns and to the mean of those it has met."""

    mean: Tensor

    def __init__(self, *, head: nn.Module, class_counts: Tensor, pull: float = 0.1) -> None:
        super().__init__()
        self.pull, self.point = pull, nn.Parameter(torch.randn(head.in_features))  # type: ignore[arg-type]
        self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("mean", torch.zeros(len(self.point)))
        assert class_counts.sum() > 0

    def forward(
        self, logits: Tensor, targets: Tensor, *, features: Tensor, head: nn.Module, inputs: Tensor, epochs: int
    ) -> Tensor:
        assert features.shape == (len(logits), len(self.point)) and inputs.shape[0] == len(logits) and epochs > 0
        assert torch.allclose(head(features), logits, atol=1e-5)
        self.mean = 0.9 * self.mean + 0.1 * features.detach().mean(0)
        distance = (features - self.point).square().mean() + (features - self.mean).square().mean()
        return functional.cross_entropy(logits, targets) + self.pull * distance


def with_parts(registry: Registry, **losses: Callable[..., Any]) -> Registry:
    return dataclasses.replace(registry, losses={**registry.losses, **losses})


@pytest.fixture
def mine(registry: Registry) -> Registry:
    return with_parts(registry, towards=Towards)


def loss_of(run: Training) -> Towards:
    loss = run.stage.loss.function
    assert isinstance(loss, Towards)
    return loss


# -- losses that learn ---------------------------------------------------------------------------------------------


def test_weights_of_a_loss_learn_and_go_on_to_the_bit(mine: Registry) -> None:
    told = (*SMALL, "loss=towards", "epochs=2")
    run = begun(mine, *told)
    before = loss_of(run).point.detach().clone()
    train_epoch(run)
    state = copy.deepcopy(run.state_dict())
    moved = loss_of(run).point.detach().clone()
    assert not torch.equal(before, moved) and torch.equal(loss_of(run).fixed, torch.ones(3))
    assert set(state["loss"]) == {"point", "fixed", "mean"} and not any("point" in name for name in state["model"])
    resumed = begun(mine, *told)
    assert torch.equal(loss_of(resumed).point, before), "drawn from the seed"
    resumed.load_state_dict(state)
    assert torch.equal(loss_of(resumed).point, moved)
    assert train_epoch(run)["loss"] == train_epoch(resumed)["loss"]
    assert not changed(resumed, weights(run))
    for name, value in loss_of(run).state_dict().items():
        assert torch.equal(value, loss_of(resumed).state_dict()[name])


def test_what_a_loss_draws_depends_on_seed_and_stage_alone(mine: Registry) -> None:
    def points(*told: str) -> list[Tensor]:
        run = begun(mine, *SMALL, "stages=[train, finetune_head]", "loss=towards", *told)
        return [stage.loss.function.point.detach() for stage in run.stages]  # type: ignore[attr-defined]

    first, again, other = points(), points("policy=trivialaugment"), points("seed=1")
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("filtered", ["false", "true"])
def test_a_loss_learns_at_the_rate_and_the_weight_decay_of_its_stage(filtered: str, mine: Registry) -> None:
    stage = "{finetune_head: {epochs: 1, lr: 0.03, weight_decay: 0.2, loss: {name: towards, pull: 0}}}"
    options = f"optimizer.options={{filter_bias_and_bn: {filtered}}}"
    run = begun(mine, *SMALL, f"stages=[train, {stage}]", options, "schedule=constant", "optimizer.momentum=0")
    train_epoch(run)
    run.enter(1)
    group = next(g for g in run.optimizer.param_groups if any(p is loss_of(run).point for p in g["params"]))
    assert group["weight_decay"] == 0.2 and [p for p in group["params"] if p.ndim == 1] == [loss_of(run).point]
    before = loss_of(run).point.detach().clone()
    state = copy.deepcopy(run.state_dict())
    run.load_state_dict(state)
    train_epoch(run)
    steps = len(run.stage.batches(1))
    # without a gradient of its own it shrinks by lr * weight_decay a step
    assert torch.allclose(loss_of(run).point, before * (1 - 0.03 * 0.2) ** steps, rtol=1e-5)


def test_a_loss_without_weights_changes_no_optimiser(registry: Registry) -> None:
    run = begun(registry, *SMALL, "loss=focal")
    assert len(run.optimizer.param_groups) == 1


# -- what a loss is shown ------------------------------------------------------------------------------------------


def test_features_carry_gradients_into_the_model(registry: Registry) -> None:
    def only_features(logits: Tensor, targets: Tensor, *, features: Tensor) -> Tensor:
        return features.square().mean()

    run = begun(with_parts(registry, only=only_features), *SMALL, "loss=only", "optimizer.weight_decay=0")
    before = weights(run)
    train_epoch(run)
    moved = changed(run, before)
    assert "conv1.weight" in moved and not {"fc.weight", "fc.bias"} & moved


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_features_are_float32(precision: str, registry: Registry) -> None:
    seen = []

    def look(logits: Tensor, targets: Tensor, *, features: Tensor, head: nn.Module) -> Tensor:
        seen.append((features.dtype, logits.dtype, features.shape[1] == head.in_features))
        return functional.cross_entropy(logits, targets) + 0 * features.sum()

    train_epoch(begun(with_parts(registry, look=look), *SMALL, "loss=look", f"precision={precision}"))
    assert set(seen) == {(torch.float32, torch.float32, True)}


def test_a_loss_that_looks_is_refused_where_there_is_nothing_to_see(mine: Registry) -> None:
    def needs_head(logits: Tensor, targets: Tensor, *, head: nn.Module) -> Tensor:
        return logits.sum()

    both = with_parts(mine, needs_head=needs_head)
    several = ("model=deit_tiny_distilled_patch16_224", "model.options={img_size: 16, patch_size: 8}")
    for name in ("towards", "needs_head"):
        with pytest.raises(
            DocumentError, match=rf'^loss: "{name}" needs a model with one last layer, and VisionTransf'
        ):
            begun(both, *several, f"loss={name}")
    with pytest.raises(DocumentError, match=r'^compile: "towards" looks at what the last layer is given'):
        begun(both, *SMALL, "loss=towards", "compile=true")


# -- stages --------------------------------------------------------------------------------------------------------


def test_a_stage_has_its_own_loss_and_weight_decay(registry: Registry) -> None:
    told = "stages=[train, {finetune_head: {epochs: 1, loss: {name: focal, gamma: 3}, weight_decay: 0}}]"
    run = begun(registry, *SMALL, told, "optimizer.weight_decay=0.01", "loss=balanced_softmax")
    assert [stage.recipe.loss.name for stage in run.stages] == ["balanced_softmax", "focal"]
    assert [stage.recipe.optimizer.weight_decay for stage in run.stages] == [0.01, 0]
    train_epoch(run)
    run.enter(1)
    assert {group["weight_decay"] for group in run.optimizer.param_groups} == {0}
    logits, targets = torch.randn(5, 10), torch.arange(5)
    shares = functional.softmax(logits, 1)[torch.arange(5), targets]
    expected = ((1 - shares) ** 3 * -shares.log()).mean()
    assert torch.allclose(run.loss(logits, targets, torch.arange(5)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            ["stages=[train, {finetune_head: {loss: ldam_drw}}]"],
            r'^stages\[1\]\.loss: "ldam_drw" is made for a last lay',
        ),
        (
            ["loss=ldam_drw", "stages=[train, {finetune_head: {loss: ce}}]"],
            r'^stages\[1\]\.loss: "ldam_drw" .* "ce" is',
        ),
        (["stages=[train, {finetune_head: {loss: jsd}}]"], r'^stages\[1\]\.loss: "jsd" compares views of an image'),
        (["stages=[train, {finetune_head: {loss: cee}}]"], r'stages\[1\]\.loss: there is no loss "cee"'),
        (["stages=[train, {finetune_head: {loss: {name: focal, gama: 1}}}]"], r'stages\[1\]\.loss\.gama: .* "gamma"'),
        (["stages=[train, {finetune_head: {weight_decay: -1}}]"], r"stages\[1\]\.weight_decay: this should be gr"),
        (["stages=[train, {dfr: {loss: ce}}]"], r'stages\[1\]\.loss: "dfr" is fitted and not trained: leave this out'),
        (["stages=[train, {dfr: {weight_decay: 0}}]"], r'stages\[1\]\.weight_decay: "dfr" is fitted and not'),
    ],
)
def test_what_a_stage_cannot_have_is_one_sentence(told: list[str], message: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=message):
        begun(registry, *SMALL, *told)


def test_recipes_from_before_keep_their_hashes(registry: Registry) -> None:
    plain = load_recipe("demo", registry, ["stages=[train, {finetune_head: {epochs: 2, lr: 0.5}}]"])
    second = plain.model_dump(mode="json")["stages"][1]
    assert not {"loss", "weight_decay"} & set(second)
    assert plain.hash == "1e92ec877b6de1b36a9d730e68afdfae7ed722fecfa61b9b82d3290b7f2f7346"
    for said in ("loss: ce", "weight_decay: 0.0005"):
        told = load_recipe("demo", registry, [f"stages=[train, {{finetune_head: {{epochs: 2, lr: 0.5, {said}}}}}]"])
        assert told.hash != plain.hash


# -- parts that are bound to a set ---------------------------------------------------------------------------------


class Rounded(nn.Module):
    """A last layer whose weights are multiples of a quarter; it remembers how often it was asked."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("asked", torch.zeros(()))

    def project(self) -> None:
        assert not torch.is_grad_enabled()
        self.get_buffer("asked").add_(1)
        for parameter in self.layer.parameters():
            parameter.copy_((parameter * 4).round() / 4)


def test_a_part_is_projected_after_each_step_and_what_it_remembers_goes_on(registry: Registry) -> None:
    def rounded_head(model: nn.Module) -> nn.Module:
        return Rounded(model.get_classifier())  # type: ignore[operator]

    mine = dataclasses.replace(registry, stages={**registry.stages, "rounded_head": rounded_head})
    told = (*SMALL, "stages=[train, {rounded_head: {epochs: 2, lr: 0.5}}]")
    run = begun(mine, *told)
    assert isinstance(Rounded(nn.Identity()), stages.Projected) and not isinstance(nn.Linear(1, 1), stages.Projected)
    for _ in range(2):
        train_epoch(run)
    steps = len(run.stage.batches(1))
    assert run.part.get_buffer("asked") == steps
    assert torch.equal(weights(run)["fc.weight"] * 4, (weights(run)["fc.weight"] * 4).round())
    state = copy.deepcopy(run.state_dict())
    assert not any("asked" in name for name in state["model"])
    resumed = begun(mine, *told)
    resumed.load_state_dict(state)
    assert train_epoch(run)["loss"] == train_epoch(resumed)["loss"]
    assert run.part.get_buffer("asked") == resumed.part.get_buffer("asked") == 2 * steps
