"""Every kind of mixing: against its definition, and the laws that all of them keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_references import photos
from scipy.stats import ks_2samp
from timm.data.mixup import Mixup, cutmix_bbox_and_lam
from torch import Tensor

from augkit import Policy
from augkit.engine.mix_labels import mix_targets
from augkit.engine.mix_pixels import mix_images
from augkit.engine.mix_plan import MIX_KINDS, PLACES, Mix
from augkit.engine.output import Output
from augkit.engine.plan import Plan
from augkit.errors import DocumentError
from augkit.operators.mix_shapes import DECAY, fmix_masks, kept_share, mosaic_shares, resizemix_boxes
from augkit.operators.noise import pixel_normal

KINDS = MIX_KINDS[1:]


def mix_of(kinds: list[str], batch: int, seed: int = 0, lam: float | None = None) -> Mix:
    """One step with these kinds in turn; partners as a policy draws them."""
    source = torch.Generator().manual_seed(seed)
    kind = torch.tensor([MIX_KINDS.index(kinds[i % len(kinds)]) for i in range(batch)]).long()
    order = torch.randperm(batch, generator=source)
    follows = torch.empty_like(order)
    follows[order] = order.roll(-1)
    share = torch.rand(batch, generator=source) if lam is None else torch.full((batch,), lam)
    centre, u = torch.rand(batch, 2, generator=source), torch.rand(batch, PLACES, generator=source)
    second = follows[follows] if batch else follows
    more = torch.stack((second, follows[second]), 1) if batch else torch.zeros(0, 2).long()
    return Mix(kind, follows, share, centre, follows, False, tuple(KINDS), u, more)


def plan_of(*mixes: Mix) -> Plan:
    batch = len(mixes[0].kind)
    empty = torch.zeros(batch, 0)
    return Plan((), empty.long(), empty, empty, torch.zeros(batch, 0, 0), torch.arange(batch), mixes)


def mixed(images: Tensor, *mixes: Mix, masked: bool = False) -> Tensor:
    return mix_images(images.clone(), plan_of(*mixes), None, None, masked=masked)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(MIX_KINDS), min_size=1, max_size=4),
    st.integers(0, 9),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_labels_say_what_shows(kinds: list[str], batch: int, height: int, width: int, seed: int, masked: bool) -> None:
    """Image i shows in channel i alone, so the mean of channel j is how much of image j there is, after two steps."""
    images = torch.eye(batch).view(batch, batch, 1, 1).expand(-1, -1, height, width).clone()
    steps = (mix_of(kinds, batch, seed), mix_of(kinds[::-1], batch, seed + 1))
    plan = plan_of(*steps)
    labels = mix_targets(plan, plan.targets, max(1, batch), 0.0, (height, width), masked=masked)
    assert torch.allclose(labels.sum(1), torch.ones(batch), atol=1e-5) and (labels >= -1e-6).all()
    # the second step sees pixels of the first that lie in its own part, so only one step alone can be held to the pixel
    first = plan_of(steps[0])
    labels = mix_targets(first, first.targets, max(1, batch), 0.0, (height, width), masked=masked)
    if batch:
        shown = mixed(images, steps[0], masked=masked).mean((2, 3))
        assert torch.allclose(shown, labels, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_masked_equals_grouped(dtype: torch.dtype) -> None:
    images = photos(32, 30)
    given_images = images if dtype == torch.uint8 else (images / 255).to(dtype)
    steps = (mix_of(list(MIX_KINDS), 30), mix_of(["mosaic", "resizemix"], 30, seed=1))
    grouped = mixed(given_images, *steps)
    assert grouped.dtype == dtype and torch.equal(grouped, mixed(given_images, *steps, masked=True))
    plan = plan_of(*steps)
    labels = [mix_targets(plan, plan.targets, 30, 0.1, (32, 32), masked=masked) for masked in (False, True)]
    assert torch.equal(*labels)


def test_on_a_device_nothing_waits() -> None:
    """The meta device cannot answer a question about values, so whatever asks one fails."""
    mix = mix_of(list(MIX_KINDS), 12).to("meta")
    images = torch.zeros(12, 3, 16, 20, device="meta")
    plan = plan_of(mix_of(["mixup"], 12)).to("meta")
    plan = replace(plan, mixes=(mix,))
    assert mix_images(images, plan, None, None).shape == images.shape
    assert mix_targets(plan, plan.targets, 12, 0.0, (16, 20)).shape == (12, 12)


def test_resizemix_shows_the_whole_partner_shrunken() -> None:
    images = photos(48, 12)
    mix = mix_of(["resizemix"], 12, lam=0.7)
    boxes = resizemix_boxes(mix.lam, mix.centre, (48, 48))
    result = mixed(images, mix)
    for i, (top, left, bottom, right) in enumerate(boxes.tolist()):
        assert bottom - top == right - left == int(48 * 0.3**0.5)
        small = torch.nn.functional.interpolate(
            images[mix.partner[i]][None].float(), (bottom - top, right - left), mode="bilinear", align_corners=False
        )
        expected = images[i].clone()
        expected[:, top:bottom, left:right] = small[0].round().to(torch.uint8)
        assert (result[i].int() - expected.int()).abs().max() <= 1
    assert len({tuple(box) for box in boxes.tolist()}) > 6


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**31))
def test_resizemix_boxes_lie_in_the_frame(height: int, width: int, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    lam, place = torch.rand(20, generator=source), torch.rand(20, 2, generator=source)
    boxes = resizemix_boxes(lam, place, (height, width))
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2] <= height).all() and (boxes[:, 3] <= width).all()
    assert ((kept_share(boxes, (height, width)) - lam) <= 2 / min(height, width) + 1e-6).all()


@pytest.mark.parametrize("size", [(32, 32), (33, 48), (64, 50), (7, 5), (1, 1)])
def test_fmix_masks_are_the_published_ones(size: tuple[int, int]) -> None:
    """The official formula with our normal numbers: spectrum, inverse transform, the highest `lam` of the values."""
    source = torch.Generator().manual_seed(0)
    lam, u = torch.rand(8, generator=source), torch.rand(8, 2, generator=source)
    masks = fmix_masks(lam, u, size)
    numbers = pixel_normal(u, (2, 33, 17)).double().numpy()
    height, width = size
    for k in range(8):
        spectrum = np.zeros((height, width // 2 + 1), dtype=complex)
        for row in range(-16, 17):
            for column in range(17):
                if -(height // 2) <= row <= (height - 1) // 2 and column <= width // 2:
                    real, imaginary = numbers[k, :, row + 16, column]
                    frequency = max(np.hypot(row / height, column / width), 1 / max(size))
                    spectrum[row, column] = (real + 1j * imaginary) / frequency**DECAY
        field = np.fft.irfft2(spectrum, size)
        count = int(torch.round(lam[k] * height * width))
        expected = np.zeros(height * width, dtype=bool)
        expected[field.reshape(-1).argsort()[::-1][:count]] = True
        # equal values may swap places
        assert (masks[k].numpy() != expected.reshape(size)).sum() <= 2
        assert int(masks[k].sum()) == count


def test_fmix_keeps_the_share_that_was_drawn_for_large_images_too() -> None:
    lam = torch.linspace(0, 1, 21)
    u = torch.rand(21, 2, generator=torch.Generator().manual_seed(1))
    share = fmix_masks(lam, u, (224, 160)).float().mean((1, 2))
    assert (share - lam).abs().max() < 0.01 and share[0] == 0 and share[-1] == 1


def test_mosaic_is_four_crops_around_a_point() -> None:
    images = photos(32, 9)
    mix = mix_of(["mosaic"], 9)
    assert mix.u is not None and mix.more is not None
    result = mixed(images, mix)
    for i in range(9):
        row, column = (int(torch.round(mix.centre[i, axis] * 32)) for axis in range(2))
        four = [i, int(mix.partner[i]), *mix.more[i].tolist()]
        rows, columns = ((0, row), (0, row), (row, 32), (row, 32)), ((0, column), (column, 32)) * 2
        expected = torch.empty_like(images[i])
        for k, ((top, bottom), (left, right)) in enumerate(zip(rows, columns, strict=True)):
            y = min(int(mix.u[i, k] * (32 - (bottom - top) + 1)), 32 - (bottom - top))
            x = min(int(mix.u[i, 4 + k] * (32 - (right - left) + 1)), 32 - (right - left))
            crop = images[four[k], :, y : y + bottom - top, x : x + right - left]
            expected[:, top:bottom, left:right] = crop
        assert torch.equal(result[i], expected)
    assert torch.allclose(mosaic_shares(mix.centre, (32, 32)).sum(1), torch.ones(9))


@pytest.mark.parametrize("kind", KINDS)
def test_partners_are_others(kind: str) -> None:
    policy = Policy.load({"augkit": 1, "name": "m", "pipeline": [{"batch": [kind]}]}, class_counts=[9] * 4)
    for batch in (2, 3, 4, 7, 32):
        (mix,) = policy.plan(torch.arange(batch) % 4).mixes
        assert (mix.kind == MIX_KINDS.index(kind)).all() and mix.kinds == (kind,)
        every = torch.stack([torch.arange(batch), mix.partner, *(mix.more.unbind(1) if mix.more is not None else ())])
        assert (every[1] != every[0]).all()
        assert all(len(set(column)) == min(batch, len(every)) for column in every.T.tolist())
    assert kind in policy.plan(torch.arange(8) % 4).describe(3)


@pytest.mark.parametrize("kind", ["cutmix", "resizemix", "fmix", "mixup"])
def test_partners_of_the_pool(kind: str) -> None:
    images, others = photos(16, 6), photos(16, 12)[6:]
    own = mix_of([kind], 6)
    pooled = replace(own, pooled=True, kinds=(kind,), more=None)
    out = Output(torch.float32, (0.4,), (0.2,))
    plain = mix_images(images.clone(), plan_of(pooled), (others,), None)
    # as if the partners stood in the batch
    twice = own.rows(torch.arange(12) % 6)
    kinds = torch.where(torch.arange(12) < 6, twice.kind, 0)
    twice = replace(twice, kind=kinds, partner=torch.arange(12) % 6 + 6, kinds=(kind,))
    assert torch.equal(mixed(torch.cat([images, others]), twice)[:6], plain)
    scaled = (images / 255 - 0.4) / 0.2
    normalised = mix_images(scaled, plan_of(pooled), (others,), out)
    assert ((normalised * 0.2 + 0.4) * 255 - plain.float()).abs().max() <= 1.01


def weighted(kind: str) -> Any:
    step = {kind: {"weights": "where(class_count < 5, 1, 0)"}}
    return {"augkit": 1, "name": "m", "pipeline": [{"batch": [step]}]}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_choose_the_partners_class(kind: str) -> None:
    policy = Policy.load(weighted(kind), class_counts=[9, 9, 4, 1])
    targets = torch.arange(40) % 4
    (mix,) = policy.plan(targets).mixes
    others = [mix.partner] + ([] if mix.more is None else list(mix.more.unbind(1)))
    assert all((targets[other] >= 2).all() for other in others)
    (mix,) = policy.plan(torch.zeros(5, dtype=torch.int64)).mixes
    assert (mix.kind == 0).all()  # nobody there to mix with


def test_one_of_draws_a_kind_for_each_image() -> None:
    document = {"augkit": 1, "name": "m", "pipeline": [{"batch": [{"one_of": list(KINDS)}]}]}
    policy = Policy.load(document, class_counts=[9] * 4)
    images, targets = photos(24, 64), torch.arange(64) % 4
    result, labels = policy(images, targets)
    (mix,) = policy.last_plan.mixes  # type: ignore[union-attr]
    assert set(mix.kind.tolist()) == {1, 2, 3, 4, 5}
    assert result.shape == images.shape and torch.allclose(labels.sum(1), torch.ones(64), atol=1e-5)


def test_mixup_cutmix_draws_as_timm_does_for_each_element() -> None:
    """timm's Mixup in mode `elem`: the kinds, the shares of each kind after correction, and the share left alone."""
    policy = Policy.load("mixup_cutmix", class_counts=[9] * 2, p=0.8, switch=0.4, mixup_alpha=0.3, cutmix_alpha=0.7)
    timm = Mixup(mixup_alpha=0.3, cutmix_alpha=0.7, prob=0.8, switch_prob=0.4, mode="elem")
    np.random.seed(0)
    lam, boxed = timm._params_per_elem(4000)
    theirs = np.array([
        cutmix_bbox_and_lam((3, 32, 32), part, correct_lam=True)[1] if box and part != 1 else part
        for part, box in zip(lam, boxed, strict=True)
    ])  # fmt: skip
    plan = policy.plan(torch.zeros(4000, dtype=torch.int64))
    (mix,) = plan.mixes
    # own label 0 and partner label 1, so that the first column is the share
    apart = replace(plan, mixes=(replace(mix, partner_class=torch.ones_like(mix.partner), pooled=True),))
    ours = mix_targets(apart, plan.targets, 2, 0.0, (32, 32))[:, 0].numpy()
    cut = mix.kind.numpy() == 2
    assert (mix.kind != 0).float().mean() == pytest.approx(0.8, abs=0.02)
    assert cut.mean() / 0.8 == pytest.approx(0.4, abs=0.03)
    for own, their in (
        (ours[cut], theirs[boxed & (lam != 1)]),
        (ours[mix.kind.numpy() == 1], theirs[~boxed & (lam != 1)]),
    ):
        assert ks_2samp(own, their).pvalue > 1e-3


def test_resizemix_shrinks_to_a_tenth_up_to_eight_tenths() -> None:
    for source in ("resizemix", {"augkit": 1, "name": "m", "pipeline": [{"batch": ["resizemix"]}]}):
        (mix,) = Policy.load(source, class_counts=[9] * 2).plan(torch.zeros(4000, dtype=torch.int64)).mixes
        side = (1 - mix.lam).sqrt().numpy()
        assert ks_2samp(side, np.random.default_rng(0).uniform(0.1, 0.8, 4000)).pvalue > 1e-3


def test_mosaic_meets_where_two_betas_say() -> None:
    (mix,) = Policy.load("mosaic", class_counts=[9] * 2).plan(torch.zeros(3000, dtype=torch.int64)).mixes
    expected = np.random.default_rng(0).beta(0.3, 0.3, 3000)
    for axis in range(2):
        assert ks_2samp(mix.centre[:, axis].numpy(), expected).pvalue > 1e-3
    assert abs(np.corrcoef(mix.centre.T.numpy())[0, 1]) < 0.06


def test_cmo_rests_at_both_ends_and_prefers_rare_classes() -> None:
    policy = Policy.load("cmo", class_counts=[900, 90, 9], epochs=10, p=1)
    rates, partners = [], []
    pool_images = photos(8, 30)
    policy.pool.add(pool_images, torch.tensor([0] * 20 + [1] * 8 + [2] * 2))  # type: ignore[union-attr]
    for _ in range(10):
        (mix,) = policy.plan(torch.zeros(600, dtype=torch.int64)).mixes
        rates.append((mix.kind == 2).float().mean().item())
        partners.append(mix.partner_class)
        policy.begin_epoch()
        policy.end_epoch()
    assert rates == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    share = torch.bincount(partners[5], minlength=3) / 600
    # an image of class c is drawn by 1 / n_c
    expected = torch.tensor([20 / 900, 8 / 90, 2 / 9])
    assert torch.allclose(share, expected / expected.sum(), atol=0.06)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"mosaic": {"partner": "pool"}}, "takes its partners from the batch"),
        ({"mosaic": {"share": 0.5}}, "say alpha instead"),
        ({"mixup": {"share": 0.5, "alpha": 1}}, "say either alpha or share"),
        ({"mixup": {"share": 2}}, "share"),
        ({"resizmix": {}}, "resizemix"),
    ],
)
def test_what_a_mixing_step_refuses(step: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        Policy.load({"augkit": 1, "name": "m", "pipeline": [{"batch": [step]}]}, class_counts=[1, 1])
