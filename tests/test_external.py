"""Transforms of albumentations, kornia and torchvision as operators: seeded by the plan, and alone."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from external_parts import CASES, document, images, load, numbers, run, states
from torch import Tensor

from augkit.engine.plan import Plan
from augkit.errors import OperatorError
from augkit.operators import external as external_module
from augkit.operators.external import OptionError, external, seeds_of
from augkit.operators.libraries import LIBRARIES
from augkit.policy import Policy


@pytest.mark.parametrize("name", CASES)
def test_an_image_gets_the_same_whatever_is_beside_it(name: str) -> None:
    given, u = images().float() / 255, numbers(6)
    before = given.clone()
    together = run(name, CASES[name], given, u)
    alone = torch.cat([run(name, CASES[name], given[i : i + 1], u[i : i + 1]) for i in range(6)])
    shuffled = run(name, CASES[name], given.flip(0), u.flip(0)).flip(0)
    assert torch.equal(together, alone) and torch.equal(together, shuffled)
    assert torch.equal(given, before)
    assert together.shape == given.shape and together.dtype == torch.float32
    assert not torch.equal(together, given)


@pytest.mark.parametrize("name", CASES)
def test_numbers_decide(name: str) -> None:
    given = images(1).float().div(255).expand(8, -1, -1, -1)
    results = run(name, CASES[name], given, numbers(8))
    assert torch.equal(results, run(name, CASES[name], given, numbers(8)))
    assert len({result.numpy().tobytes() for result in results}) > 1


@pytest.mark.parametrize("name", CASES)
def test_global_generators_stay(name: str) -> None:
    external.cache_clear()
    before = states()
    load({name: CASES[name]})(images(3), torch.zeros(3, dtype=torch.int64))
    assert states() == before


def test_albumentations_does_what_it_does_alone() -> None:
    import albumentations as A

    given, u = images(4), numbers(4)
    made = run("albumentations:Affine", {"rotate": [-30, 30]}, given.float() / 255, u)
    for image, result, seed in zip(given, made, seeds_of(u), strict=True):
        transform = A.Affine(rotate=(-30, 30), p=1)
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        expected = transform(image=np.ascontiguousarray(image.permute(1, 2, 0).numpy()))["image"]
        assert np.array_equal(expected, result.mul(255).round().permute(1, 2, 0).numpy())


def test_torchvision_does_what_it_does_alone() -> None:
    v2 = LIBRARIES["torchvision"].module()
    given, u = images(4), numbers(4)
    made = run("torchvision:ColorJitter", {"hue": 0.2, "brightness": 0.5}, given.float() / 255, u)
    for image, result, seed in zip(given, made, seeds_of(u), strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = v2.ColorJitter(hue=0.2, brightness=0.5)(image)
        assert torch.equal(expected, result.mul(255).round().to(torch.uint8))


def test_kornia_does_what_it_does_alone() -> None:
    import kornia.augmentation as K

    given, u = images(4).float() / 255, numbers(4)
    made = run("kornia:RandomPlasmaShadow", {}, given, u)
    for image, result, seed in zip(given, made, seeds_of(u), strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            assert torch.equal(K.RandomPlasmaShadow(p=1)(image[None])[0], result)


@pytest.mark.parametrize("name", ["albumentations:NoOp", "torchvision:Identity"])
def test_bytes_come_through_exactly(name: str) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    result, _ = load(name)(every, torch.zeros(2, dtype=torch.int64))
    assert torch.equal(result, every)


def test_p_is_ours_so_that_the_plan_tells_the_truth() -> None:
    policy = load({"torchvision:RandomInvert": {"p": 0.3}}, {"albumentations:VerticalFlip": {"p": 0.6}})
    given = images(200, side=8)
    plan: Plan = policy.plan(torch.zeros(200, dtype=torch.int64))
    result, _ = policy.apply(given, plan)
    happened = (plan.choice >= 0).sum(0).tolist()
    assert 35 < happened[0] < 85 and 95 < happened[1] < 145
    for i in range(200):
        expected = given[i]
        told = plan.describe(i)
        expected = 255 - expected if "torchvision:RandomInvert" in told else expected
        expected = expected.flip(1) if "albumentations:VerticalFlip" in told else expected
        assert torch.equal(result[i], expected)


@pytest.mark.parametrize("name", CASES)
def test_no_images_are_kept(name: str) -> None:
    given = images(4, side=57).float() / 255
    external_module._THREAD.__dict__.clear()
    run(name, CASES[name], given, numbers(4))
    kept = list(external_module._THREAD.__dict__["kept"].values())
    assert len(kept) == 1 and largest_array(kept) < 57 * 57


def test_no_images_are_kept_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import kornia.augmentation as K

    calls, works = [], K.RandomPlasmaShadow.apply_transform

    def breaks(self: Any, *given: Any, **more: Any) -> Tensor:
        calls.append(0)
        if len(calls) == 2:
            raise RuntimeError("no more")
        made: Tensor = works(self, *given, **more)
        return made

    transform = external("kornia:RandomPlasmaShadow").function.make({})  # type: ignore[attr-defined]
    monkeypatch.setattr(K.RandomPlasmaShadow, "apply_transform", breaks)
    with pytest.raises(RuntimeError, match="no more"):
        LIBRARIES["kornia"].run(transform, images(2, side=57).float() / 255, [1, 2], "single")
    assert largest_array([transform]) < 57 * 57


def largest_array(roots: list[Any]) -> int:
    """The most values that an array or tensor reachable from objects' own data holds."""
    waiting, seen, most = list(roots), set(), 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (Tensor, np.ndarray)):
            most = max(most, item.numel() if isinstance(item, Tensor) else item.size)
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            waiting.extend(item)
        elif not isinstance(item, type) and type(item).__module__.split(".")[0] in LIBRARIES:
            waiting.append(vars(item))
    return most


def test_sides_that_trade_places_are_told_when_they_do() -> None:
    policy = load("albumentations:Transpose")
    policy(images(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(OperatorError, match=r"albumentations:Transpose.* changes the image's size, from 40 x 20"):
        policy(images(2)[..., :20], torch.zeros(2, dtype=torch.int64))


@pytest.mark.slow
def test_two_threads_do_not_disturb_each_other() -> None:
    steps = ["kornia:RandomPlasmaShadow", "albumentations:CoarseDropout", {"torchvision:ColorJitter": {"hue": 0.3}}]
    given, targets = images(8), torch.zeros(8, dtype=torch.int64)

    def work(seed: int) -> list[Tensor]:
        policy = Policy.load(document(*steps), seed=seed)
        return [policy(given, targets)[0] for _ in range(3)]

    expected = [work(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_empty_batch_stays_empty() -> None:
    result, _ = load("kornia:RandomRain")(images(0), torch.zeros(0, dtype=torch.int64))
    assert result.shape == (0, 3, 40, 40)


def usable(library: str) -> list[str]:
    """Names of all transforms that work without an argument."""
    found = []
    for name in LIBRARIES[library].names():
        try:
            external(f"{library}:{name}").function.check({})  # type: ignore[attr-defined]
        except OptionError:
            continue
        found.append(name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("library", "least"), [("albumentations", 75), ("kornia", 35), ("torchvision", 15)])
def test_every_transform_keeps_the_law(library: str, least: int) -> None:
    names = usable(library)
    assert len(names) >= least
    given, u = images(3, side=64).float() / 255, numbers(3)
    before = states()
    for name in names:
        together = run(f"{library}:{name}", {}, given, u)
        alone = torch.cat([run(f"{library}:{name}", {}, given[i : i + 1], u[i : i + 1]) for i in range(3)])
        assert torch.equal(together, alone), name
    assert states() == before
