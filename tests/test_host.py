"""Opaque operators for one image with OpenCV: they do what the batched ones do, within rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from operator_references import choice, photos, plan_of, random_plan
from torch import Tensor

from augkit.engine import batched, opencv
from augkit.engine.plan import Plan
from augkit.operators import ALL
from augkit.operators.host import HOST

NAMES = [one.name for one in ALL if one.function in HOST]
OPTIONS: dict[str, dict[str, object]] = {"median_blur": {"window": 5}, "saturate": {"add": 0.2}, "clahe": {"cells": 2}}


def apart(images: Tensor, plan: Plan) -> float:
    """Mean difference of the two executors, of 255."""
    one, other = (engine.execute(images, plan) for engine in (batched, opencv))
    assert one.shape == other.shape and one.dtype == other.dtype
    return (one.double() - other.double()).abs().mean().item() * (255 if one.dtype.is_floating_point else 1)


def test_there_are_some() -> None:
    assert len(NAMES) == len(HOST) >= 9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(16, 3, 64, 64), (5, 3, 33, 47), (3, 1, 24, 24), (2, 3, 1, 1), (1, 3, 2, 37)])
def test_executors_agree(name: str, shape: tuple[int, int, int, int]) -> None:
    count, channels, height, width = shape
    images = photos(64, 16)[:count, :channels, :height, :width].contiguous()
    assert apart(images, random_plan((choice(name),), count, 1, seed=1, empty=0)) < 1
    assert apart(images.float() / 255, random_plan((choice(name),), count, 1, seed=2, empty=0.3)) < 1


@pytest.mark.parametrize("name", OPTIONS)
def test_options_mean_the_same(name: str) -> None:
    plan = random_plan((choice(name, **OPTIONS[name]),), 12, 1, seed=1, empty=0)
    images = photos(48, 12)
    assert apart(images, plan) < 1
    plain = plan_of((choice(name),), plan.choice, plan.value, plan.u)
    assert not torch.equal(opencv.execute(images, plan), opencv.execute(images, plain))


@pytest.mark.slow
def test_between_other_passes() -> None:
    """Many images on several threads, with passes before and after, and opaque operators that go the batched way."""
    every = tuple(choice(one.name) for one in ALL if one.kind in ("tone", "color") or one.name in (*NAMES, "fog"))
    images = photos(32, 90)
    plan = random_plan(every, 90, 3, seed=5)
    differences = (batched.execute(images, plan).double() - opencv.execute(images, plan).double()).abs().mean((1, 2, 3))
    assert differences.median() < 0.3 and differences.mean() < 2  # equalizing and inverting make more of a level


@pytest.mark.parametrize("name", NAMES)
def test_images_given_stay(name: str) -> None:
    image = photos(32, 1)[0].numpy()
    before = image.copy()
    one = choice(name).operator
    drawn = {"u": torch.rand(one.draws)} if one.draws else {}
    result = HOST[one.function](image, float(one.high or 0), **drawn)
    assert np.array_equal(image, before) and not np.shares_memory(image, result)
    assert result.dtype == np.uint8 and result.shape == image.shape
