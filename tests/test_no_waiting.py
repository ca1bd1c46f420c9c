"""A training step never waits for the device.

On meta tensors, which hold no values, any look at one raises. Where there is a GPU, it says itself who waits.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_references import photos
from policy_parts import COUNTS, LEARNER

from augkit import Output, Policy
from augkit.operators import ALL

POOLED = {
    "augkit": 1,
    "name": "pooled",
    "pipeline": [
        {"batch": [{"cutmix": {"partner": "pool", "weights": "1 / class_count", "label": "kept * (y != partner)"}}]}
    ],
}
ACROSS = {
    "augkit": 1,
    "name": "across",
    "pipeline": [
        {"hflip": {"p": "0.5 * is_synthetic"}},
        {"batch": [{"mixup": {"across": "synthetic"}}, {"mosaic": {"across": "group", "weights": "1 / class_count"}}]},
    ],
}
VARYING = {
    "augkit": 1,
    "name": "varying",
    "pipeline": [
        {
            "one_of": [
                {"weight": "epoch + 1", "steps": ["hflip", {"rotate": {"p": 0.5}}]},
                {"weight": 2, "steps": ["cutout"]},
            ]
        },
        {"rotate": {"p": "step / 10"}},
    ],
}
CHAINS = [{"branches": {"p": 0.5, "weights": "dirichlet(1 + correct[y])", "depth": "randint(0, 3)"}}]
BLENDED = {"augkit": 1, "name": "blended", "palette": "autoaugment", "pipeline": ["hflip", *CHAINS]}
VIEWED = {
    **BLENDED,
    "name": "viewed",
    "pipeline": ["hflip"],
    "views": {"clean": [], "mix": {"times": 2, "steps": CHAINS}},
}
WITHOUT_WAITING = [one.name for one in ALL if one.kind != "opaque"]
MIXED = ("mixup", "cutmix", "resizemix", "fmix", "mosaic")
EVERYTHING = {
    "augkit": 1,
    "name": "everything",
    "palette": WITHOUT_WAITING,
    "pipeline": [
        {"pick": {"count": 2, "strength": "uniform(0, 1)"}},
        {"batch": [{kind: {"p": 0.5}} for kind in MIXED]},
    ],
}
NAMES = [
    "none",
    "randaugment",
    "trivialaugment",
    "uniformaugment",
    "autoaugment_cifar10",
    "mixup_cutmix",
    "remix",
    "uniform_class_choice",
]


def companions(size: int, device: str) -> dict[str, torch.Tensor]:
    index = torch.arange(size, device=device)
    return {"index": index, "group": index % 2, "is_synthetic": index % 3 == 0}


def takes_no_value(source: Any, out: Output | None) -> None:
    policy = Policy.load(source, class_counts=COUNTS, groups=2, num_samples=100, out=out)
    labels, told = torch.arange(8) % 3, companions(8, "cpu")
    policy(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), labels, **told)  # an epoch begins on the host
    policy.to("meta")
    for _ in range(2):
        images = torch.empty(8, 3, 16, 16, dtype=torch.uint8, device="meta")
        inputs, targets = policy(images, labels.to("meta"), **{name: value.to("meta") for name, value in told.items()})
        policy.observe(torch.empty(len(inputs), 3, device="meta"))
        assert inputs.device.type == targets.device.type == "meta"


@pytest.mark.parametrize(
    "source",
    [
        *NAMES,
        LEARNER,
        POOLED,
        ACROSS,
        VARYING,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (BLENDED, VIEWED)),
        EVERYTHING,
    ],
    ids=lambda s: s if isinstance(s, str) else s["name"],
)
def test_a_step_needs_no_value_from_the_device(source: Any) -> None:
    takes_no_value(source, Output())


@pytest.mark.slow
def test_nor_does_a_step_whose_results_are_bytes() -> None:
    takes_no_value(BLENDED, None)


@pytest.mark.slow
@pytest.mark.parametrize("image", [{"resample": "nearest"}, {"fill": "mean"}, {"fill": "reflect"}, {"exact": True}])
def test_nor_does_any_way_to_treat_pixels(image: dict[str, Any]) -> None:
    policy = Policy.load(EVERYTHING, class_counts=COUNTS, image=image, out=Output())
    policy(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.arange(8) % 3)
    policy.to("meta")
    images = torch.empty(8, 3, 16, 16, device="meta")
    assert policy(images, torch.arange(8, device="meta") % 3)[0].shape == images.shape


def test_meta_tensors_do_notice_a_look() -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(torch.empty(1, device="meta").sum() > 0)


# ---- on a GPU

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
SOURCES = ["randaugment", "mixup_cutmix", LEARNER, POOLED, ACROSS, VARYING, BLENDED, VIEWED, EVERYTHING]
HALF = Output(torch.bfloat16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def steps(policy: Policy, size: int, batches: int) -> None:
    labels, told = torch.arange(64, device="cuda") % 3, companions(64, "cuda")
    images = torch.randint(0, 256, (64, 3, size, size), dtype=torch.uint8, device="cuda")
    for _ in range(batches):
        inputs, _targets = policy(images, labels, **told)
        policy.observe(torch.zeros(len(inputs), 3, device="cuda"))


@on_gpu
@pytest.mark.parametrize("executor", ["batched", "compiled"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s if isinstance(s, str) else s["name"])
def test_a_gpu_sees_nobody_wait(source: Any, executor: str) -> None:
    policy = Policy.load(
        source, class_counts=COUNTS, groups=2, num_samples=100, out=HALF, executor=executor, device="cuda"
    )
    steps(policy, 32, 3)  # an epoch begins on the host, graphs are compiled and captured
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(policy, 32, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s if isinstance(s, str) else s["name"])
def test_a_gpu_draws_what_the_host_draws(source: Any) -> None:
    plans = []
    for device in ("cpu", "cuda"):
        policy = Policy.load(source, class_counts=COUNTS, groups=2, num_samples=100, device=device)
        labels = torch.arange(64, device=device) % 3
        images = torch.zeros(64, 3, 16, 16, dtype=torch.uint8, device=device)
        plans.append(policy.plan(labels, **companions(64, device), images=images).to("cpu"))
    host, device_plan = plans
    slots = host.choice.shape[1]  # on the host slots that nobody uses are cut off
    assert torch.equal(host.choice, device_plan.choice[:, :slots]) and (device_plan.choice[:, slots:] < 0).all()
    assert torch.equal(host.u, device_plan.u[:, :slots])
    assert torch.allclose(host.value, device_plan.value[:, :slots], atol=1e-5)
    for one, other in zip(host.mixes, device_plan.mixes, strict=True):
        assert torch.equal(one.kind, other.kind) and torch.equal(one.partner, other.partner)
        assert torch.allclose(one.lam, other.lam, atol=1e-5)


@on_gpu
@pytest.mark.parametrize("executor", ["batched", "compiled"])
@pytest.mark.parametrize("image", [{"resample": "bilinear"}, {"resample": "nearest"}, {"fill": "mean"}])
def test_a_gpu_gives_the_pixels_of_the_host(executor: str, image: dict[str, Any]) -> None:
    host = Policy.load("randaugment", image=image, executor="batched")
    policy = Policy.load("randaugment", image=image, executor=executor, device="cuda")
    images = photos(64, 64)
    plan = host.plan(torch.zeros(64).long())
    expected = host.apply(images, plan)[0].int()
    for layout in (torch.contiguous_format, torch.channels_last):
        given = images.cuda().contiguous(memory_format=layout)
        result = policy.apply(given, plan.to("cuda"))[0]
        assert result.is_contiguous(memory_format=layout)
        # a number that is rounded to the other side moves one of 256; equalize and posterize may widen it
        assert (result.cpu().int() - expected).abs().double().mean() < 0.1


@on_gpu
@pytest.mark.parametrize("executor", ["batched", "compiled"])
def test_memory_on_a_gpu(executor: str) -> None:
    policy = Policy.load("randaugment", image={"resample": "bilinear"}, out=HALF, executor=executor, device="cuda")
    images = torch.randint(0, 256, (128, 3, 224, 224), dtype=torch.uint8, device="cuda")
    labels, floats = torch.zeros(128, dtype=torch.int64, device="cuda"), images.numel() * 4
    for _ in range(4):
        policy(images, labels)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        policy(images, labels)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 3 * floats
    assert torch.cuda.memory_allocated() - before <= 0.01 * floats
