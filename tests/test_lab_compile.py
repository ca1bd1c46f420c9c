"""`compile: true`: the same training up to rounding, compiled once, with checkpoints of the plain model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from augkit.errors import AugkitError
from augkit.lab import models
from augkit.lab.data import load
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.registry import Registry

TINY = [
    "epochs=3",
    "model=few_layers",
    "data.test_share=0.8",
    "data.image_size=8",
    "data.imbalance=10",
    "threads=1",
    "policy=none",
]


@models.register_model
def few_layers(pretrained: bool = False, num_classes: int = 10, **_: Any) -> nn.Module:
    """Small, since Inductor takes seconds for each layer; timm's name of the last layer, for stages."""

    class Net(nn.Sequential):
        def get_classifier(self) -> nn.Module:
            return self[-1]

    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return Net(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), pooled, nn.Linear(32, num_classes))


def made(registry: Registry, *overrides: str) -> Training:
    recipe = load_recipe("demo", registry, [*TINY, *overrides])
    return prepare(recipe, load(recipe.data), registry, torch.device("cpu"))


class Compiler:
    """Stands in for Inductor, which takes half a minute: runs what was traced as it is, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graphs, self.batches = 0, list[int]()
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=self.compile))
        torch.compiler.reset()

    def compile(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        self.graphs += 1

        def run(*given: Tensor) -> Any:
            self.batches.append(next(len(one) for one in given if one.ndim == 4 and one.shape[-1] == 8))
            return graph(*given)

        return run


def test_whole_batches_go_through_one_graph_and_the_last_one_goes_the_plain_way(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler(monkeypatch)
    plain, run = made(registry), made(registry, "compile=true")
    left = len(run.data.train) % 32
    assert left
    for _ in range(3):
        assert train_epoch(run)["loss"] == pytest.approx(train_epoch(plain)["loss"], rel=1e-3)
    assert compiler.graphs == 1 and set(compiler.batches) == {32}
    assert len(compiler.batches) == 3 * (len(run.data.train) // 32)
    assert list(run.state_dict()["model"]) == list(plain.state_dict()["model"])
    plain.model.load_state_dict(run.state_dict()["model"])
    assert torch.equal(plain.evaluate(plain.data.test)[1], run.evaluate(run.data.test)[1])


def test_views_of_a_batch_are_one_batch(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    run = made(registry, "compile=true", "policy=augmix", "loss=jsd")
    train_epoch(run)
    assert compiler.graphs == 1 and set(compiler.batches) == {32 * len(run.policy.views)}


def test_of_views_that_a_loss_chooses_among_what_is_trained_on_is_compiled(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler(monkeypatch)
    told = ["policy=invariance_proposals", "loss=invariance"]
    plain, run = made(registry, *told), made(registry, *told, "compile=true")
    for _ in range(2):
        assert train_epoch(run)["loss"] == pytest.approx(train_epoch(plain)["loss"], rel=1e-3)
    assert compiler.graphs == 1 and set(compiler.batches) == {32}
    assert len(compiler.batches) == 2 * 2 * (len(run.data.train) // 32)


def test_stages_and_probes_do_what_they_do_uncompiled(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    told = ["stages=[train, {finetune_head: {epochs: 1}}, {retrain_head: {epochs: 1}}]", "epochs=1"]
    plain, run = made(registry, *told), made(registry, *told, "compile=true")
    for _ in range(3):
        assert train_epoch(run)["loss"] == pytest.approx(train_epoch(plain)["loss"], rel=1e-2)
    assert compiler.graphs <= 3


def test_a_model_that_cannot_be_compiled_is_named(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("no compiler is found")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=refuse))
    torch.compiler.reset()
    with pytest.raises(AugkitError, match=r'compile: true does not work with "few_layers" here \(.*no compiler'):
        train_epoch(made(registry, "compile=true"))


def after(run: Training, epochs: int) -> dict[str, Tensor]:
    """The weights after so many epochs more."""
    for _ in range(epochs):
        train_epoch(run)
    return {name: value.clone() for name, value in run.model.state_dict().items()}


@pytest.mark.slow(20)
def test_a_compiled_run_is_resumed_exactly_and_its_checkpoint_is_anybodys(registry: Registry, tmp_path: Path) -> None:
    whole = after(made(registry, "compile=true"), 3)
    first = made(registry, "compile=true")
    after(first, 1)
    torch.save(first.state_dict(), tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second = made(registry, "compile=true")
    second.load_state_dict(state)
    again = after(second, 2)
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    plain = made(registry)
    plain.model.load_state_dict(state["model"])
    assert isinstance(plain.model, nn.Module) and plain.evaluate(plain.data.test)[0].seen.sum() > 0
    beside = after(made(registry), 1)
    assert all(torch.allclose(state["model"][name], value, atol=1e-3) for name, value in beside.items())
