"""Group-DRO against its algorithm written out, and how a recipe trains with a loss that remembers."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lab_groups import begun, write_npz
from torch import Tensor

from augkit.errors import DataError, DocumentError
from augkit.lab.folder import load_checkpoint, save_checkpoint
from augkit.lab.group_dro import GroupDRO
from augkit.lab.loop import Training, train_epoch
from augkit.registry import Registry

COUNTS = torch.tensor([[40.0, 3.0], [9.0, 0.0], [25.0, 16.0]])
OPTIONS = 'loss={"name": "group_dro", "step_size": 0.5, "adjustment": 2.0}'


def batches(seed: int, number: int, size: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Logits, labels and groups; nothing of the class and group that has no training image."""
    random = np.random.RandomState(seed)
    cells = np.array([(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)])
    chosen = [cells[random.randint(0, 5, size)] for _ in range(number)]
    return [(random.randn(size, 3) * 3, cell[:, 0], cell[:, 1]) for cell in chosen]


def written_out(step: float, c: float, seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[float]:
    """Image by image and cell by cell, in float64, with weights instead of their logarithms."""
    there = [(y, a) for y in range(3) for a in range(2) if COUNTS[y, a]]
    weights = {cell: 1 / len(there) for cell in there}
    found = []
    for logits, labels, groups in seen:
        losses: dict[tuple[int, int], list[float]] = {}
        for z, y, a in zip(logits, labels, groups, strict=True):
            losses.setdefault((int(y), int(a)), []).append(math.log(sum(math.exp(v - z[y]) for v in z)))
        means = {cell: sum(values) / len(values) for cell, values in losses.items()}
        for cell, mean in means.items():
            weights[cell] *= math.exp(step * (mean + c / math.sqrt(float(COUNTS[cell]))))
        total = sum(weights.values())
        weights = {cell: weight / total for cell, weight in weights.items()}
        found.append(sum(weights[cell] * mean for cell, mean in means.items()))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0, 0.5), st.floats(0, 4), st.integers(1, 12))
def test_the_algorithm(seed: int, step: float, c: float, size: int) -> None:
    seen = batches(seed, 12, size)
    loss = GroupDRO(group_counts=COUNTS, step_size=step, adjustment=c)
    found = [
        float(loss(torch.from_numpy(z).float(), torch.from_numpy(y), groups=torch.from_numpy(a))) for z, y, a in seen
    ]
    assert found == pytest.approx(written_out(step, c, seen), rel=2e-4, abs=1e-6)
    assert float(loss.log_weights.exp().sum()) == pytest.approx(1)


def test_weights_go_to_what_is_served_worst() -> None:
    loss = GroupDRO(group_counts=torch.tensor([[5.0, 5.0], [5.0, 5.0]]), step_size=0.1)
    logits = torch.tensor([[4.0, 0.0]] * 3 + [[0.0, 4.0]])  # wrong on the image of class 0 in group 1 alone
    targets, groups = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1])
    for _ in range(200):
        loss(logits, targets, groups=groups)
    weights = loss.log_weights.exp().view(2, 2)
    assert weights[0, 1] > 0.99 and bool((weights > 0).all())
    long = GroupDRO(group_counts=torch.ones(2, 2), step_size=10.0)
    for _ in range(2000):
        last = long(logits, targets, groups=groups)
    assert torch.isfinite(last) and torch.isfinite(long.log_weights).all()


def test_the_gradient_is_of_the_weighted_loss_and_no_state_is_part_of_the_graph() -> None:
    loss = GroupDRO(group_counts=torch.ones(3, 2), step_size=0.3)
    z, y, a = (torch.from_numpy(part) for part in batches(0, 1, 8)[0])
    for _ in range(3):
        logits = z.float().requires_grad_()
        loss(logits, y, groups=a).backward()
    cells, weights = y * 2 + a, loss.log_weights.exp()
    share = weights[cells] / torch.bincount(cells, minlength=6)[cells]
    expected = (z.float().softmax(1) - torch.nn.functional.one_hot(y, 3)) * share[:, None]
    assert logits.grad is not None and torch.allclose(logits.grad, expected, atol=1e-6)
    assert not loss.log_weights.requires_grad


def test_a_step_waits_for_no_device() -> None:
    loss = GroupDRO(group_counts=COUNTS.to("meta"))  # where reading a number is an error
    labels = torch.zeros(8, dtype=torch.int64, device="meta")
    logits = torch.zeros(8, 3, device="meta", requires_grad=True)
    loss(logits, labels, groups=labels).backward()
    assert logits.grad is not None and loss.log_weights.device.type == "meta"


def weights_of(run: Training) -> Tensor:
    return run.stage.loss.function.log_weights.clone()  # type: ignore[attr-defined, no-any-return]


def test_a_run_goes_on_with_the_weights_it_had(registry: Registry, tmp_path: Path) -> None:
    told = (OPTIONS, "epochs=4", "batch_size=12", "sampler=group_balanced", "model=resnet8_cifar", "optimizer.lr=0.01")
    source = write_npz(tmp_path / "a.npz")
    run = begun(registry, source, *told)
    first = weights_of(run)
    for _ in range(2):
        train_epoch(run)
    assert not torch.equal(weights_of(run), first)
    save_checkpoint(tmp_path, run.state_dict())
    resumed = begun(registry, source, *told)
    state = load_checkpoint(tmp_path, "loss")
    assert state is not None
    resumed.load_state_dict(state)
    for _ in range(2):
        assert train_epoch(run)["loss"] == train_epoch(resumed)["loss"]
    assert torch.equal(weights_of(run), weights_of(resumed))
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_each_stage_begins_with_weights_of_its_own(registry: Registry, tmp_path: Path) -> None:
    stages = "stages=[train, {finetune_head: {epochs: 2, balance: groups, lr: 0.01}}]"
    run = begun(registry, write_npz(tmp_path / "a.npz"), OPTIONS, stages, "epochs=1", "optimizer.lr=0.01")
    train_epoch(run)
    assert run.stages[0].loss.function is not run.stages[1].loss.function
    assert torch.allclose(run.stages[1].loss.function.log_weights.exp(), torch.full((6,), 1 / 6))  # type: ignore[attr-defined]
    train_epoch(run)
    state = copy.deepcopy(run.state_dict())
    resumed = begun(registry, tmp_path / "a.npz", OPTIONS, stages, "epochs=1", "optimizer.lr=0.01")
    resumed.load_state_dict(state)
    assert torch.equal(weights_of(run), weights_of(resumed))
    assert train_epoch(run)["loss"] == train_epoch(resumed)["loss"]


def test_what_it_cannot_work_with_is_one_sentence(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz")
    with pytest.raises(
        DocumentError, match=r'^loss: "group_dro" needs to know .* and "mixup" mixes images: take a pol'
    ):
        begun(registry, source, "loss=group_dro", "policy=mixup")
    with pytest.raises(DocumentError, match=r"loss\.step_size=-1: this should be greater than or equal to 0, not -1"):
        begun(registry, source, "loss=group_dro", "loss.step_size=-1")
    with pytest.raises(DocumentError, match=r'loss\.step=1: there is no option "step" here\. Did you mean "step_size"'):
        begun(registry, source, "loss=group_dro", "loss.step=1")
    lone = write_npz(tmp_path / "b.npz", train_groups=None)
    with pytest.raises(DataError, match=r'^the loss "group_dro" works by group, and the groups'):
        begun(registry, lone, "loss=group_dro")


def test_re_sampling_by_group_draws_cells_and_their_images_evenly(registry: Registry, tmp_path: Path) -> None:
    from scipy.stats import chisquare

    run = begun(registry, write_npz(tmp_path / "a.npz"), "sampler=group_balanced", "epochs=400")
    train, epochs = run.data.train, 400
    assert train.groups is not None
    cells = (train.labels * 2 + train.groups).numpy()
    met = np.stack([np.bincount(torch.cat(run.stage.batches(epoch)), minlength=48) for epoch in range(epochs)])
    by_cell = np.stack([np.bincount(cells, weights=row, minlength=6) for row in met])
    assert chisquare(by_cell.sum(0)).pvalue > 1e-3
    for cell in range(6):
        own = met[:, cells == cell]
        assert np.ptp(own, axis=1).max() <= 1  # in an epoch as often as any other of its cell, give or take one
        assert chisquare(own.sum(0)).pvalue > 1e-3
