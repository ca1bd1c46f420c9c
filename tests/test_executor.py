"""The batched executor: masked equals grouped, Output, mixing, memory and what it refuses."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from operator_references import DRAWS, choice, photos, plan_of, random_plan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from augkit.engine.batched import execute, mix_targets
from augkit.engine.buffers import SMALL, Recycler
from augkit.engine.mix_plan import MIX_KINDS, Mix
from augkit.engine.output import Output
from augkit.engine.plan import ImageSettings, Plan
from augkit.errors import InputError
from augkit.operators import ALL
from augkit.operators.base import Kernel
from augkit.operators.mix_shapes import cutmix_boxes, kept_share

EVERY = tuple(choice(one.name) for one in ALL if one.kind != "opaque" or one.name in ("fog", "linear_light"))
IMAGENET = Output(torch.float32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalised(images: Tensor, out: Output) -> Tensor:
    """By definition, in float64."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (out.mean, out.std))
    return (images.double() / (255 if images.dtype == torch.uint8 else 1) - mean) / std


def no_operators(batch: int, mixes: tuple[Mix, ...] = ()) -> Plan:
    empty = torch.zeros(batch, 0)
    return Plan((), empty.long(), empty, empty, torch.zeros(batch, 0, 0), torch.arange(batch) % 3, mixes)


def mix(kinds: list[int], partner: list[int], lam: list[float], *, pooled: bool = False, seed: int = 0) -> Mix:
    centre = torch.rand(len(kinds), 2, generator=torch.Generator().manual_seed(seed))
    labels = torch.tensor(partner).long() % 3
    return Mix(torch.tensor(kinds).long(), torch.tensor(partner).long(), torch.tensor(lam), centre, labels, pooled)


@pytest.mark.parametrize("fill", ["black", "mean", "reflect"])
@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("out", [None, IMAGENET])
def test_masked_equals_grouped(resample: str, fill: str, exact: bool, out: Output | None) -> None:
    images = photos(32, 64)
    plan = random_plan(EVERY, 64, 3, seed=11, image=ImageSettings(resample, fill, exact))
    assert torch.equal(execute(images, plan, out=out), execute(images, plan, out=out, masked=True))


@pytest.mark.parametrize("fill", ["black", "mean", "reflect"])
@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
def test_warps_along_the_axes_run_alike_both_ways(resample: str, fill: str) -> None:
    """A batch without a turned image takes a shorter way to its coordinates, however many warps an image has."""
    upright = tuple(map(choice, ("hflip", "vflip", "random_crop", "translate_x", "translate_y", "resize_crop")))
    images = photos(32, 64)[:, :, :27].contiguous()
    plan = random_plan(upright, 64, 4, seed=3, image=ImageSettings(resample, fill), empty=0.3)
    assert torch.equal(execute(images, plan), execute(images, plan, masked=True))


@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
@pytest.mark.parametrize("exact", [False, True])
def test_mirrors_are_flips(resample: str, exact: bool) -> None:
    images = photos(32, 64)[:, :, :27].contiguous()
    mirrors = (choice("hflip"), choice("vflip"))
    plan = random_plan(mirrors, 64, 4, seed=4, image=ImageSettings(resample, exact=exact), empty=0.3)
    expected = images.clone()
    for row, drawn in enumerate(plan.choice.tolist()):
        for k in drawn:
            expected[row] = expected[row] if k < 0 else expected[row].flip(2 - k)
    assert torch.equal(execute(images, plan), expected)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(0, 9),
    slots=st.integers(0, 5),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    resample=st.sampled_from(["nearest", "bilinear"]),
    fill=st.sampled_from(["black", "mean", "reflect"]),
    normalise=st.booleans(),
)
@example(670494, 4, 3, 20, 12, "bilinear", "black", False)  # a map that once depended on how many images there were
def test_any_plan_runs_alike_both_ways(
    seed: int, batch: int, slots: int, height: int, width: int, resample: str, fill: str, normalise: bool
) -> None:
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=source)
    plan = random_plan(EVERY, batch, slots, seed=seed, image=ImageSettings(resample, fill), empty=0.3)
    out = IMAGENET if normalise else None
    grouped, masked = execute(images, plan, out=out), execute(images, plan, out=out, masked=True)
    assert grouped.shape == images.shape and torch.equal(grouped, masked)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(2, 40),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    kept=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_what_an_image_drew_does_not_depend_on_its_batch(
    seed: int, batch: int, size: tuple[int, int], kept: tuple[float, float]
) -> None:
    """Parameters agree bit by bit, so that no image has other bytes among other images."""
    start, stop = sorted(round(share * batch) for share in kept)
    few = slice(min(start, batch - 1), max(stop, start + 1))
    draws = torch.rand(batch, DRAWS + 1, generator=torch.Generator().manual_seed(seed))
    for one in (*EVERY, choice("grid_distortion", steps=10), choice("elastic", sigma=0.05)):
        if one.operator.kind == "opaque" or one.operator.looks_at:
            continue
        value, u = one.low + (one.high - one.low) * draws[:, 0], draws[:, 1:]
        every, some = (one.lower(value[rows], u[rows], size) for rows in (slice(None), few))
        pairs = zip(every, some, strict=True) if isinstance(every, Kernel) else [(every, some)]
        for whole, part in pairs:
            if isinstance(whole, Tensor) and len(whole) == batch:
                assert torch.equal(whole[few], part.expand_as(whole[few])), one.operator.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_output_is_the_normalised_result(dtype: torch.dtype) -> None:
    images = photos(32, 64)
    out = Output(dtype, IMAGENET.mean, IMAGENET.std)
    plan = random_plan(EVERY, 64, 2, seed=1, empty=0.3)
    result = execute(images, plan, out=out)
    assert result.dtype == dtype
    limit = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 2e-6)
    assert (result.double() - normalised(execute(images, plan), out)).abs().max() < limit


def test_output_of_floats_keeps_untouched_images_exact() -> None:
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plan = random_plan(EVERY, 8, 2, seed=1, empty=0.7)
    untouched = ((plan.choice < 0) | (plan.choice == 0)).all(1)
    assert untouched.any() and not untouched.all()
    result = execute(images, plan, out=IMAGENET)
    assert (result.double() - normalised(images, IMAGENET))[untouched].abs().max() < 1e-6


def test_output_of_one_channel() -> None:
    images = photos(16, 8)[:, :1]
    plan = random_plan(EVERY, 8, 2, seed=1)
    result = execute(images, plan, out=Output(mean=(0.5,), std=(0.25,)))
    assert result.shape == (8, 1, 16, 16)
    assert torch.allclose(result, (execute(images, plan).float() / 255 - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": torch.uint8},
        {"dtype": "float32"},
        {"mean": (0.5,), "std": (0.1, 0.2)},
        {"mean": "grey"},
        {"mean": None},
        {"std": (0.0, 1.0, 1.0)},
        {"std": (-1.0,) * 3},
    ],
)
def test_output_refuses(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Output"):
        Output(**arguments)  # type: ignore[arg-type]


def test_output_takes_plain_numbers_lists_and_tensors() -> None:
    wanted = Output(mean=(0.5,), std=(0.25,))
    assert Output(mean=0.5, std=0.25) == Output(mean=[0.5], std=torch.tensor([0.25])) == wanted  # type: ignore[arg-type]


def test_executor_refuses() -> None:
    plan = no_operators(2)
    for images in (
        torch.zeros(2, 3, 4),
        torch.zeros(2, 0, 4, 4),
        torch.zeros(3, 3, 4, 4),
        torch.zeros(2, 3, 4, 4).int(),
    ):
        with pytest.raises(InputError):
            execute(images, plan)
    with pytest.raises(InputError, match="means"):
        execute(torch.zeros(2, 3, 4, 4), plan, out=Output(mean=(0.1, 0.2), std=(1.0, 1.0)))


def test_mixup_pixels_and_labels() -> None:
    images = photos(16, 4)
    plan = no_operators(4, (mix([1, 0, 1, 1], [1, 2, 3, 3], [0.25, 0.9, 1.0, 0.5]),))
    result = execute(images, plan)
    expected = images.double()
    expected[0] = (images[0].double() * 0.25 + images[1].double() * 0.75).round()
    assert torch.equal(result.double(), expected)
    labels = mix_targets(plan, plan.targets, 3, 0.0, (16, 16))
    assert torch.allclose(labels, torch.tensor([[0.25, 0.75, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]))


def test_cutmix_pixels_and_labels() -> None:
    images = photos(16, 6)
    plan = no_operators(6, (mix([2, 2, 2, 0, 2, 2], [1, 2, 0, 1, 5, 4], [0.3, 0.7, 0.0, 0.5, 1.0, 0.5], seed=3),))
    one = plan.mixes[0]
    result = execute(images, plan)
    boxes = cutmix_boxes(one.lam, one.centre, (16, 16)).tolist()
    labels = mix_targets(plan, plan.targets, 3, 0.0, (16, 16))
    for i in range(6):
        top, left, bottom, right = boxes[i] if i != 3 else (0, 0, 0, 0)
        expected = images[i].clone()
        expected[:, top:bottom, left:right] = images[int(one.partner[i]), :, top:bottom, left:right]
        assert torch.equal(result[i], expected)
        share = (bottom - top) * (right - left) / 256
        row = torch.zeros(3)
        row[i % 3] += 1 - share
        row[int(one.partner_class[i])] += share
        assert torch.allclose(labels[i], row, atol=1e-6), i
    # the whole image's box is cut off by the frame unless its centre is the image's
    assert 0 < (boxes[2][2] - boxes[2][0]) * (boxes[2][3] - boxes[2][1]) < 256


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.floats(0, 1, width=32),
    st.floats(0, 1, width=32),
    st.floats(0, 1, width=32),
)
def test_cutmix_boxes_stay_in_the_frame(height: int, width: int, lam: float, y: float, x: float) -> None:
    box = cutmix_boxes(torch.tensor([lam]), torch.tensor([[y, x]]), (height, width))
    top, left, bottom, right = box[0].tolist()
    assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
    share = kept_share(box, (height, width)).item()
    assert lam - 1e-5 <= share <= 1 or share == pytest.approx(1 - (bottom - top) * (right - left) / (height * width))
    assert share >= lam - 1e-5  # the clipped box is never larger than the one drawn


def test_partners_are_augmented_images_of_the_batch() -> None:
    images = photos(16, 2)
    invert = torch.tensor([[-1], [0]])
    plan = plan_of((choice("invert"),), invert, torch.zeros(2, 1), torch.zeros(2, 1, DRAWS))
    plan = Plan(
        *[getattr(plan, name) for name in ("choices", "choice", "value", "strength", "u", "targets")],
        (mix([1, 0], [1, 0], [0.5, 0.5]),),
    )
    result = execute(images, plan)
    expected = (images[0].double() + 255 - images[1].double()) / 2
    assert (result[0].double() - expected).abs().max() <= 0.5
    assert torch.equal(result[1], 255 - images[1])


def test_partners_from_a_pool_and_two_mixes_in_a_row() -> None:
    images, pool = photos(16, 3), photos(16, 6, seed=5)[3:]
    second = mix([2, 0, 0], [2, 0, 0], [0.5, 1.0, 1.0])
    plan = no_operators(3, (mix([1, 1, 0], [4, 5, 3], [0.5, 0.0, 0.5], pooled=True), second))
    for out in (None, IMAGENET):
        result = execute(images, plan, out=out, partners=(pool, None))
        first = images.double()
        first[0] = (first[0] + pool[0].double()) / 2
        first[1] = pool[1].double()
        top, left, bottom, right = cutmix_boxes(second.lam, second.centre, (16, 16))[0].tolist()
        expected = first.clone()
        expected[0, :, top:bottom, left:right] = first[2, :, top:bottom, left:right]
        if out is None:
            assert (result.double() - expected).abs().max() <= 0.5
        else:
            assert (result.double() - normalised(expected / 255, out)).abs().max() < 1e-5
    with pytest.raises(InputError, match="pool"):
        execute(images, plan)


def test_smoothing_spreads_evenly() -> None:
    plan = no_operators(4, (mix([1, 0, 0, 0], [1, 0, 0, 0], [0.5, 1.0, 1.0, 1.0]),))
    labels = mix_targets(plan, plan.targets, 5, 0.1, (8, 8))
    assert torch.allclose(labels.sum(1), torch.ones(4))
    assert torch.allclose(labels[1], torch.tensor([0.02, 0.92, 0.02, 0.02, 0.02]))
    assert torch.allclose(labels[0], torch.tensor([0.47, 0.47, 0.02, 0.02, 0.02]))


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches_mix(batch: int) -> None:
    images = photos(16, 1)[:batch]
    plan = no_operators(batch, (mix([1] * batch, [0] * batch, [0.5] * batch),))
    assert torch.equal(execute(images, plan), images)
    assert mix_targets(plan, plan.targets, 3, 0.0, (16, 16)).shape == (batch, 3)
    assert MIX_KINDS[:3] == ("none", "mixup", "cutmix")


@pytest.mark.slow
def test_results_that_are_kept_stay_as_they_are() -> None:
    images = photos(96, 32)
    plans = [random_plan(EVERY, 32, 2, seed=seed) for seed in range(12)]
    fresh = [execute(images, plan, out=IMAGENET, buffers=Recycler()).clone() for plan in plans]
    kept = [execute(images, plan, out=IMAGENET) for plan in plans]
    for result, expected in zip(kept, fresh, strict=True):
        assert torch.equal(result, expected)


def test_memory_is_used_again_once_nobody_looks_at_it() -> None:
    recycled = Recycler(most=2)
    shape, device = (SMALL // 4,), torch.device("cpu")
    first = recycled.empty(shape, torch.float32, device)
    place = first.data_ptr()
    assert recycled.empty(shape, torch.float32, device).data_ptr() != place
    view = first[5:9]
    del first
    assert recycled.empty(shape, torch.float32, device).data_ptr() != place
    held = np.asarray(view)
    del view
    assert recycled.empty(shape, torch.float32, device).data_ptr() != place
    del held
    assert recycled.empty((SMALL // 2,), torch.bfloat16, device).data_ptr() == place


class Watch(TorchDispatchMode):
    """Notes every operation that takes a tensor from the host and gives one on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given_devices = {a.device.type for a in args if isinstance(a, Tensor) and a.dim()}
        if isinstance(result, Tensor) and result.device.type == "meta" and "cpu" in given_devices:
            self.sent.append(str(func))
        return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resample", "fill"),
    [
        ("bilinear", "reflect"),
        ("nearest", "mean"),
        ("nearest", "black"),
        ("nearest", "reflect"),
        ("bilinear", "black"),
        ("bilinear", "mean"),
    ],
)
def test_on_a_device_nothing_waits(resample: str, fill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data stand in for a device: whatever needs a value from there fails."""
    images = torch.empty(8, 3, 16, 16, dtype=torch.uint8, device="meta")
    lowered = tuple(one for one in EVERY if one.operator.kind != "opaque")  # opaque ones wait, and say so
    plan = random_plan(lowered, 8, 2, seed=1, image=ImageSettings(resample, fill))
    base = [getattr(plan, name) for name in ("choices", "choice", "value", "strength", "u", "targets")]
    plan = Plan(*base, (mix([1, 2] * 4, list(range(8)), [0.5] * 8),), plan.image).to("meta")
    with pytest.raises(RuntimeError):
        plan.choice.max().item()

    def everything() -> None:
        for out in (None, IMAGENET):
            assert execute(images, plan, out=out).shape == images.shape
            execute(torch.empty(images.shape, device="meta"), plan, out=out)
        mix_targets(plan, plan.targets, 3, 0.1, (16, 16))

    everything()  # constants are sent once
    with monkeypatch.context() as patch, Watch() as watch:
        patch.setattr(torch, "tensor", None)  # would send a new constant with every batch
        patch.setattr(Tensor, "new_tensor", None)
        everything()
    assert watch.sent == []
    with Watch() as watch:
        images.add(torch.ones(16).to("meta"))
    assert watch.sent, "the watch sees nothing"


@pytest.mark.slow
def test_threads_do_not_share_memory() -> None:
    images = photos(96, 32)
    plans = [random_plan(EVERY, 32, 3, seed=seed) for seed in range(4)]
    expected = [execute(images, plan, out=IMAGENET).clone() for plan in plans]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            if not torch.equal(execute(images, plans[number], out=IMAGENET), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
