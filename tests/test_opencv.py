"""The OpenCV executor: the same plans as the batched one, within what is stated, on any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from operator_references import DRAWS, choice, photos, plan_of, random_plan
from torch import Tensor

from augkit import Policy
from augkit.engine import batched, opencv
from augkit.engine.cvpasses import Canvas, Scratch
from augkit.engine.output import Output
from augkit.engine.plan import ImageSettings, Plan
from augkit.errors import InputError
from augkit.operators import ALL

LOWERED = [one.name for one in ALL if one.kind != "opaque"]
EVERY = tuple(choice(name) for name in LOWERED)
IMAGENET = Output(torch.float32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SOFT = {"warp", "map"}


def apart(first: Tensor, second: Tensor) -> Tensor:
    """[B] mean absolute difference, of 255."""
    return (first.double() - second.double()).abs().mean((1, 2, 3))


@pytest.mark.parametrize("fill", ["black", "mean", "reflect"])
@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", LOWERED)
def test_every_operator_agrees_with_the_batched_executor(name: str, resample: str, fill: str) -> None:
    """Rounding: within 1/2 of 255 on average. A bilinear warp blends its border with the fill: within 3 at 96 px."""
    images = photos(96, 8)
    plan = random_plan((choice(name),), 8, 1, seed=3, image=ImageSettings(resample, fill), empty=0)
    both = batched.execute(images, plan), opencv.execute(images, plan)
    soft = resample == "bilinear" and choice(name).operator.kind in SOFT
    assert apart(*both).max() <= (3 if soft else 0.5)
    if not soft and fill != "reflect":
        off = (both[0].int() - both[1].int()).abs() > 1
        assert off.float().mean() < 0.002, "more than pixels whose source lies between two"


@pytest.mark.parametrize(
    "shape", [(0, 3, 8, 8), (1, 3, 1, 1), (3, 3, 5, 70), (2, 1, 40, 31), (5, 2, 33, 8), (2, 4, 9, 9)]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_any_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = images if dtype == torch.uint8 else (images / 255).to(dtype)
    before = images.clone()
    some = tuple(one for one in EVERY if shape[1] in (1, 3) or one.operator.channels == "any")
    plan = random_plan(some, shape[0], 3, seed=1)
    result = opencv.execute(images, plan)
    assert result.shape == images.shape and result.dtype == dtype
    assert torch.equal(images, before)
    still = (plan.choice < 0).all(1)
    assert torch.equal(result[still], images[still])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_output_is_the_normalised_result(dtype: torch.dtype) -> None:
    images = photos(64, 24)
    plan = random_plan(EVERY, 24, 3, seed=7, empty=0.3)
    out = Output(dtype, IMAGENET.mean, IMAGENET.std)
    plain = opencv.execute(images, plan).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (out.mean, out.std))
    limit = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 3e-6)
    result = opencv.execute(images, plan, out=out)
    assert result.dtype == dtype and (result.double() - (plain - mean) / std).abs().max() < limit


def test_layout_is_kept() -> None:
    images = photos(64, 6)
    plan = random_plan(EVERY, 6, 2, seed=2)
    last = opencv.execute(images.contiguous(memory_format=torch.channels_last), plan, out=IMAGENET)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, opencv.execute(images, plan, out=IMAGENET))


@pytest.mark.parametrize("size", [48, 200])
def test_threads_change_nothing(size: int) -> None:
    images = photos(size, 14)
    plan = random_plan(EVERY, 14, 3, seed=5)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(opencv.execute(images, plan, out=IMAGENET))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.slow
def test_torch_works_alone_in_the_threads_and_as_before_outside() -> None:
    """Torch's further threads spin after each small operation and would take the cores from ours."""
    code = (
        "import torch; torch.set_num_threads(3)\n"
        "from augkit.engine.opencv import _pool\n"
        "assert set(_pool(3).map(lambda _: torch.get_num_threads(), range(30))) == {1}\n"
        "assert torch.get_num_threads() == 3\n"
        "import threading; found = []\n"
        "thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))\n"
        "thread.start(); thread.join(); assert found == [3]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_several_callers_at_once() -> None:
    images = photos(200, 5)
    plans = [random_plan(EVERY, 5, 2, seed=seed) for seed in range(6)]
    alone = [opencv.execute(images, plan) for plan in plans]
    results: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: opencv.execute(images, plans[n])})) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(results[n], alone[n]) for n in range(6))


def test_opaque_operators_and_mixing_go_along() -> None:
    images = photos(48, 12)
    plan = random_plan(tuple(choice(one.name) for one in ALL if one.name in ("fog", "rotate", "invert")), 12, 2, seed=1)
    nearest = Plan(**{**plan.__dict__, "image": ImageSettings("nearest")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert apart(opencv.execute(images, nearest), batched.execute(images, nearest)).max() <= 0.5
    policies = [Policy.load("mixup_cutmix", class_names=["a", "b"], executor=name) for name in ("opencv", "batched")]
    results = [policy(images, torch.arange(12) % 2) for policy in policies]
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("shift", [-40.0, -7.5, -0.7, -0.5, 0.0, 0.25, 0.5, 3.0, 31.5, 32.0, 50.0])
@pytest.mark.parametrize("name", ["translate_x_pixels", "translate_y_pixels"])
def test_shifts_by_copying_equal_warps(name: str, shift: float) -> None:
    images = photos(32, 3)
    for resample in ("nearest", "bilinear"):
        value = torch.full((3, 1), shift)
        zero = torch.zeros(3, 1, dtype=torch.int64)
        plan = plan_of((choice(name),), zero, value, torch.zeros(3, 1, DRAWS), ImageSettings(resample))
        off = (opencv.execute(images, plan).int() - batched.execute(images, plan).int()).abs()
        assert off.max() <= 1


@pytest.mark.parametrize("radius", [0.3, 1.2, 2.4])
def test_filters_without_their_zeros_do_the_same(radius: float) -> None:
    images = photos(40, 2)
    first, value = torch.zeros(2, 1, dtype=torch.int64), torch.full((2, 1), radius)
    plan = plan_of((choice("gaussian_blur"),), first, value, torch.zeros(2, 1, DRAWS))
    off = (opencv.execute(images, plan).int() - batched.execute(images, plan).int()).abs()
    assert off.max() <= 1 and off.float().mean() < 0.01


@pytest.mark.parametrize("size", [(3, 5), (40, 40), (41, 30)])
def test_tiles_are_exchanged_by_copying(size: tuple[int, int]) -> None:
    images = photos(48, 6)[:, :, : size[0], : size[1]].contiguous()
    plan = random_plan((choice("jigsaw", cells=3), choice("rotate")), 6, 2, seed=2, image=ImageSettings("nearest"))
    tiles = Plan(**{**plan.__dict__, "choice": torch.where(plan.choice == 0, 0, -1)})
    assert torch.equal(opencv.execute(images, tiles), batched.execute(images, tiles))


def test_scratch_gives_memory_back() -> None:
    scratch = Scratch()
    source = np.zeros((3, 16, 16), np.uint8)
    for _ in range(5):
        canvas = Canvas(source, scratch, planar=True)
        canvas.warp(np.diag([1.1, 1.1, 1.0]).astype(np.float32), ImageSettings())
        canvas.look_up(np.arange(256, dtype=np.uint8)[None])
        canvas.leave(np.empty_like(source), None)
    assert sum(len(arrays) for arrays in scratch.free.values()) <= 4


def test_auto_takes_the_executor_for_the_size_and_says_which() -> None:
    policy = Policy.load("trivialaugment")
    for size, expected in ((32, "batched"), (224, "opencv"), (64, "batched"), (80, "opencv")):
        policy(photos(size, 4), torch.zeros(4, dtype=torch.int64))
        assert policy.last_executor == expected and f"auto ({expected})" in repr(policy)


def test_an_unknown_executor_is_refused() -> None:
    with pytest.raises(InputError, match="executor must be one of auto, batched, compiled, opencv, not 'gpu'"):
        Policy.load("trivialaugment", executor="gpu")
    policy = Policy.load("trivialaugment", executor="opencv", device="meta")
    with pytest.raises(InputError, match="opencv executor works on the CPU"):
        policy(
            torch.zeros(2, 3, 8, 8, device="meta", dtype=torch.uint8), torch.zeros(2, dtype=torch.int64, device="meta")
        )


def test_contrast_after_a_warp_and_a_filter_looks_at_three_channels() -> None:
    """A warp leaves a fourth plane behind it; what looks at the means must not count it."""
    choices = tuple(choice(name) for name in ("rotate", "sharpness", "contrast"))
    drawn = torch.tensor([[0, 1, 2], [2, -1, -1]])
    value = torch.tensor([[20.0, 1.5, 0.4], [0.4, 0, 0]])
    plan = plan_of(choices, drawn, value, torch.rand(2, 3, DRAWS))
    images = photos(64, 2)
    assert apart(batched.execute(images, plan), opencv.execute(images, plan)).max() <= 3


def test_longer_sides_than_opencv_takes_go_the_batched_way() -> None:
    images = torch.randint(0, 256, (2, 3, 2, 40_000), dtype=torch.uint8)
    plan = random_plan((choice("fisheye"), choice("rotate")), 2, 2, seed=0, empty=0)
    assert torch.equal(opencv.execute(images, plan), batched.execute(images, plan))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    code = (
        "import os, torch; torch.set_num_threads(2)\n"
        "from augkit.engine.opencv import _pool\n"
        "assert _pool(2).submit(int, '3').result() == 3\n"
        "child = os.fork()\n"
        "if not child: os._exit(_pool(2).submit(int, '7').result(timeout=20))\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_form_for_one_image_may_give_back_what_it_was_given() -> None:
    """The caller's memory never becomes scratch, and no memory is in use twice."""
    scratch, source = Scratch(), np.full((3, 8, 8), 7, np.uint8)
    canvas = Canvas(source, scratch, planar=True)
    canvas.opaque(lambda planes, value: planes, 0.0, {})
    canvas.look_up(np.full((1, 256), 9, np.uint8))
    taken = [scratch.take(source.shape) for _ in range(3)]
    assert (source == 7).all() and not any(np.shares_memory(array, source) for array in taken)
