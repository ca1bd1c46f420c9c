"""Fusing slots into passes changes no pixel: every ordered pair of operators, and longer plans, against one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from operator_references import DRAWS, choice, photos, plan_of, random_plan
from torch import Tensor

from augkit.engine.batched import execute
from augkit.engine.lowering import KINDS, LATE, lower
from augkit.engine.passes import schedule
from augkit.engine.plan import ImageSettings, Plan
from augkit.operators import ALL

EVERY = tuple(choice(one.name) for one in ALL)
NUMBER = {one.operator.name: k for k, one in enumerate(EVERY)}


def describe(stage: int) -> str:
    """'round 1, tone' of a stage's number."""
    return f"round {stage // len(KINDS)}, {KINDS[stage % len(KINDS)]}"


def slot_by_slot(images: Tensor, plan: Plan) -> Tensor:
    """Each slot as a plan of its own: what fusing must equal."""
    for s in range(plan.choice.shape[1]):
        at = slice(s, s + 1)
        images = execute(
            images, plan_of(plan.choices, plan.choice[:, at], plan.value[:, at], plan.u[:, at], plan.image)
        )
    return images


def plan_by_names(names: list[list[str]], image: ImageSettings | None = None, value: float = 0.3) -> Plan:
    """[B][S] names, "" for none; every value the same."""
    drawn = torch.tensor([[NUMBER.get(name, -1) for name in row] for row in names])
    u = torch.rand(*drawn.shape, DRAWS, generator=torch.Generator().manual_seed(0))
    return plan_of(EVERY, drawn, torch.full(drawn.shape, value), u, image)


def stages(plan: Plan, size: tuple[int, int] = (32, 32)) -> list[list[str]]:
    """Where each slot runs, in words."""
    found = schedule(plan, lower(plan, size, masked=False), size).stage.tolist()
    return [[describe(stage) if stage >= 0 else "" for stage in row] for row in found]


def ordered_pairs() -> Tensor:
    """[P, 2]: all pairs of operators that may merge or be moved.

    Operators that are asked for late, maps and opaque ones, never merge: of these each comes before and after one
    operator of every other kind and before the next of its own, which shows that nothing is moved across it.
    """
    late = [k for k, one in enumerate(EVERY) if KINDS.index(one.operator.kind) in LATE]
    early = [k for k in range(len(EVERY)) if k not in late]
    beside = [NUMBER[name] for name in ("rotate", "color", "sharpness", "invert", "equalize", "cutout")]
    pairs = list(itertools.product(early, repeat=2))
    pairs += [pair for k in late for other in beside for pair in ((k, other), (other, k))]
    pairs += list(itertools.pairwise(late))
    assert len(early) >= 35 and len(late) >= 35 and len(set(pairs)) == len(pairs)
    return torch.tensor(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    ("resample", "fill"), [("nearest", "black"), ("bilinear", "black"), ("nearest", "reflect"), ("bilinear", "mean")]
)
def test_every_ordered_pair(resample: str, fill: str, size: int) -> None:
    pairs = ordered_pairs()
    each = 3
    image = ImageSettings(resample, fill)
    images = photos(size, each).repeat(100, 1, 1, 1)
    worst = 0.0
    for start in range(0, len(pairs), 100):
        some = pairs[start : start + 100].repeat_interleave(each, 0)
        plan = pair_plan(some, start, image)
        fused, apart = execute(images[: len(some)], plan), slot_by_slot(images[: len(some)], plan)
        if resample == "nearest":
            assert torch.equal(fused, apart)
        error = (fused.int() - apart.int()).abs().float().mean((1, 2, 3))
        worst = max(worst, error.max().item())
    assert worst <= 0.01, worst  # the promise is 2; flips before a bilinear warp differ by float32 rounding alone


def pair_plan(pairs: Tensor, seed: int, image: ImageSettings) -> Plan:
    """Each row's two operators with random values of their ranges, on either side where they have two."""
    source = torch.Generator().manual_seed(seed)
    low, high, neutral = (
        torch.tensor([float(end(one) or 0) for one in EVERY])[pairs]
        for end in (lambda one: one.low, lambda one: one.high, lambda one: one.operator.identity)
    )
    value = torch.lerp(low, high, torch.rand(len(pairs), 2, generator=source))
    other = torch.tensor([one.signed for one in EVERY])[pairs] & (torch.rand(len(pairs), 2, generator=source) < 0.5)
    u = torch.rand(len(pairs), 2, DRAWS, generator=source)
    return plan_of(EVERY, pairs, torch.where(other, 2 * neutral - value, value), u, image)


@pytest.mark.slow
@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
@pytest.mark.parametrize("seed", range(4))
def test_long_plans(seed: int, resample: str) -> None:
    images = photos(32, 60)
    plan = random_plan(EVERY, 60, 7, seed=seed, image=ImageSettings(resample))
    fused, apart = execute(images, plan), slot_by_slot(images, plan)
    if resample == "nearest":
        assert torch.equal(fused, apart)
    assert (fused.int() - apart.int()).abs().float().mean((1, 2, 3)).max() <= 2


@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
def test_exact_equals_one_pass_an_operator(resample: str) -> None:
    images = photos(32, 40)
    plan = random_plan(EVERY, 40, 4, seed=9, image=ImageSettings(resample, exact=True))
    found = schedule(plan, lower(plan, (32, 32), masked=False), (32, 32)).stage
    drawn = (plan.choice >= 0) & (plan.choice != NUMBER["identity"])
    rounds = found // len(KINDS)
    assert torch.equal(rounds.amax(1) + 1, drawn.sum(1))
    assert torch.equal(execute(images, plan), slot_by_slot(images, plan))


def test_where_slots_run() -> None:
    plan = plan_by_names(
        [
            ["rotate", "shear_x", ""],
            ["brightness", "rotate", "posterize"],
            ["invert", "rotate", ""],
            ["equalize", "contrast", "solarize"],
            ["rotate", "cutout", "rotate"],
            ["color", "color", ""],
            ["rotate", "sharpness", "equalize"],
            ["", "identity", "cutout"],
            ["contrast", "rotate", ""],
        ],
        ImageSettings("nearest"),
    )
    assert stages(plan) == [
        ["round 0, warp", "round 0, warp", ""],
        ["round 0, tone", "round 0, warp", "round 0, tone"],
        ["round 0, tone", "round 1, warp", ""],
        ["round 0, tone", "round 0, tone", "round 0, tone"],
        ["round 0, warp", "round 0, erase", "round 1, warp"],
        ["round 0, color", "round 1, color", ""],
        ["round 0, warp", "round 0, kernel", "round 0, tone"],
        ["", "", "round 0, erase"],
        ["round 0, tone", "round 1, warp", ""],
    ]


def test_where_bilinear_warps_run() -> None:
    plan = plan_by_names(
        [
            ["hflip", "rotate", "vflip"],
            ["rotate", "shear_x", ""],
            ["random_crop", "rotate", ""],
            ["rotate", "random_crop", ""],
            ["brightness", "rotate", ""],
            ["brightness", "hflip", ""],
        ],
        ImageSettings("bilinear"),
    )
    assert stages(plan) == [
        ["round 0, warp", "round 0, warp", "round 0, warp"],
        ["round 0, warp", "round 1, warp", ""],
        ["round 0, warp", "round 1, warp", ""],
        ["round 0, warp", "round 0, warp", ""],
        ["round 0, tone", "round 1, warp", ""],
        ["round 0, tone", "round 0, warp", ""],
    ]


def test_fill_decides_what_a_warp_may_pass() -> None:
    names = [["invert", "rotate"], ["brightness", "rotate"], ["rotate", "rotate"], ["equalize", "rotate"]]
    by_fill = {fill: stages(plan_by_names(names, ImageSettings("nearest", fill))) for fill in ("reflect", "mean")}
    back, forward = ["round 0, tone", "round 0, warp"], ["round 0, tone", "round 1, warp"]
    merged, apart = ["round 0, warp", "round 0, warp"], ["round 0, warp", "round 1, warp"]
    assert by_fill == {"reflect": [back, back, merged, forward], "mean": [forward, forward, apart, forward]}


def test_a_translation_there_and_back_leaves_black() -> None:
    """What a careless product of matrices gets wrong: the pixels that left the frame are gone."""
    images = photos(32, 1)
    there = plan_by_names([["translate_x_pixels", "translate_x_pixels"]], ImageSettings("nearest"))
    plan = plan_of(EVERY, there.choice, torch.tensor([[20.0, -20.0]]), there.u, there.image)
    result = execute(images, plan)
    assert torch.equal(result[..., 20:], images[..., 20:]) and not result[..., :20].any()
