"""Two processes on one machine: they draw different plans, and learn the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from seam_parts import CLASSES, TURNS, ImageSet, Recorder, Seer, Stream, history, loader
from timm.data.distributed_sampler import RepeatAugSampler
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from augkit.engine.plan import Plan
from augkit.integrations.timm import wrap
from augkit.policy import Policy

LEARNS_TOGETHER: dict[str, Any] = {
    "augkit": 1,
    "name": "learns_together",
    "palette": ["hflip", "invert", "rotate", "posterize"],
    "state": {
        "answered": {"axes": ["classes"], "init": 0},
        "right": {"axes": ["classes"], "init": 0},
        "turned": {"axes": ["classes", "ops"], "init": 0},
        "chosen": {"axes": ["classes"], "init": "uniform()"},
    },
    "pipeline": [{"pick": {"count": 1, "strength": "0.2 * chosen[y]"}}],
    "update": [
        {
            "at": "epoch_end",
            "set": {
                "answered": "answered + seen",
                "right": "right + correct",
                "turned": "turned + used",
                "chosen": "uniform()",
            },
        }
    ],
}


class Reader(Seer):
    """Reads the class before the policy touched the colours: from the labels that it was told."""

    told: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.one_hot(self.told, CLASSES).float() * 10
        return logits * self.scale + 0 * x.mean()


def work(rank: int, world: int, port: int, folder: str, kind: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    dataset: Any = Stream(24) if kind == "stream" else ImageSet(24)
    source = loader(dataset, distributed=kind != "stream", num_aug_repeats=2 if kind == "repeats" else 0)
    model = Reader()
    parallel = DistributedDataParallel(model)
    policy = Recorder.load(LEARNS_TOGETHER, class_counts=[5, 5, 5, 5, 4], seed=2)
    wrapped = wrap(source, policy, parallel, state=Path(folder) / "policy.pt")
    plans, indices = [], []
    for epoch in range(2):
        if hasattr(wrapped.sampler, "set_epoch"):
            wrapped.sampler.set_epoch(epoch)
        parallel.train()
        for images, targets in wrapped:
            model.told = targets
            torch.nn.functional.cross_entropy(parallel(images), targets).backward()
    for call in policy.calls:
        indices.append(call["index"])
    # what each rank drew in its first batch, if all had been given the same images and no index
    again = Recorder.load(LEARNS_TOGETHER, class_counts=[5, 5, 5, 5, 4], seed=2)
    plan = again.plan(torch.zeros(64, dtype=torch.int64))
    plans.append(torch.cat([plan.choice.float(), plan.value], dim=1))
    before = {name: value.clone() for name, value in policy.statistics.sums.items()}
    policy.end_epoch()
    result = {
        "state": {name: value.clone() for name, value in policy.memory.values[""].items()},
        "history": history(policy),
        "plan": plans[0],
        "indices": indices,
        "own": before["seen"],
        "epoch": policy.epoch,
    }
    torch.save(result, Path(folder) / f"rank{rank}.pt")
    resumed = wrap(
        source, Recorder.load(LEARNS_TOGETHER, class_counts=[5, 5, 5, 5, 4], seed=9), None, state=wrapped._state
    )
    assert torch.equal(resumed.policy.statistics.sums["seen"], before["seen"]), "each rank goes on with its own counts"
    assert resumed.policy.seed == 2 and resumed.policy.epoch == 1
    distributed.destroy_process_group()


class Planner(Policy):
    """A policy that keeps its plans: index, operator and value of each image, a row each."""

    rows: list[Tensor]

    def plan(self, targets: Tensor, *, index: Tensor | None = None, **more: Any) -> Plan:
        plan = super().plan(targets, index=index, **more)
        assert index is not None
        row = torch.stack([index.float(), plan.choice[:, 0].float(), plan.value[:, 0].nan_to_num()], dim=1)
        self.__dict__.setdefault("rows", []).append(row)
        return plan


def repeat(rank: int, world: int, port: int, folder: str, kind: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    rows = {}
    for batch in (16, 32):
        wrapped = wrap(
            loader(ImageSet(256), batch, distributed=True, num_aug_repeats=3), Planner.load(TURNS, seed=4), None
        )
        assert isinstance(wrapped.sampler, RepeatAugSampler)
        wrapped.sampler.set_epoch(1)
        list(wrapped)
        rows[batch] = torch.cat(wrapped.policy.rows)
    assert torch.equal(rows[16], rows[32]), "within a rank the batch size is no part of the key"
    torch.save(rows[16], Path(folder) / f"rank{rank}.pt")
    distributed.destroy_process_group()


def both(tmp_path: Path, kind: str, task: Callable[..., None] = work) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = "spawn" if kind == "images" else "forkserver"  # fresh processes once: they order sets in another way
    multiprocessing.start_processes(task, args=(2, port, str(tmp_path), kind), nprocs=2, start_method=method)
    return [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "repeats", "stream"])
def test_two_ranks_learn_the_same_and_draw_differently(tmp_path: Path, kind: str, server: None) -> None:
    one, two = both(tmp_path, kind)
    assert one["epoch"] == two["epoch"] == 2
    for name in one["state"]:
        assert torch.equal(one["state"][name], two["state"][name]), name
    assert one["history"] == two["history"] and len(one["history"]) == 2
    assert not torch.equal(one["plan"], two["plan"])
    seen = sum(sum(ended["seen"]) for ended in one["history"])
    each = 2 * (12 // 4 * 4 if kind != "stream" else 24)
    assert seen == 2 * each and float(one["state"]["answered"].sum()) == seen
    assert torch.equal(one["state"]["right"], one["state"]["answered"])
    assert float(one["state"]["turned"].sum()) == seen
    assert float(one["own"].sum()) == float(two["own"].sum()) == each / 2
    if kind == "images":
        first = [set(torch.cat(rank["indices"][:3]).tolist()) for rank in (one, two)]
        assert first[0] | first[1] == set(range(24)) and not first[0] & first[1]


@pytest.mark.slow
def test_copies_of_an_image_in_two_ranks_are_drawn_each_for_itself(tmp_path: Path, server: None) -> None:
    one, two = both(tmp_path, "repeats", repeat)
    pairs = (one[:, None, 0] == two[None, :, 0]).nonzero()
    assert len(pairs) > 150, "the sampler gives each image to both ranks"
    operators = one[pairs[:, 0], 1] == two[pairs[:, 1], 1]
    plans = operators & (one[pairs[:, 0], 2] == two[pairs[:, 1], 2])
    turned = operators & (one[pairs[:, 0], 1] == 2)
    # one of four operators each, and only those of rotation draw from a continuum
    assert 0.15 < operators.float().mean() < 0.35
    assert plans.float().mean() < 0.3 and int(turned.sum()) > 3 and not bool((turned & plans).any())
