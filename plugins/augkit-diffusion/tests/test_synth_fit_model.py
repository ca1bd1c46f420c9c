"""The network of `fit`: what goes in comes out, guidance keeps its laws, and an image is its own seed's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from augkit_diffusion import fit_model
from augkit_diffusion.fit_model import Shape
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from diffusers import UNet2DModel

TINY = Shape(8, 3, 16, 2)


@pytest.fixture(scope="module")
def model() -> UNet2DModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return fit_model.network(TINY).eval()


def sampled(model: UNet2DModel, labels: list[int], guidance: float, seed: int = 1) -> np.ndarray:
    start = fit_model.noise([seed + i for i in range(len(labels))], TINY)
    return fit_model.sample(
        model, TINY, torch.tensor(labels), start, steps=5, guidance=guidance, precision="float32"
    ).astype(np.int64)


@given(size=st.integers(4, 70), patch=st.sampled_from([1, 2, 4]), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_images_of_any_size_survive_the_way_to_the_network_and_back(size: int, patch: int, seed: int) -> None:
    shape = Shape(size, 2, 16, patch)
    images = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    latent = fit_model.encode(images, shape)
    assert latent.shape == (2, shape.channels, shape.grid, shape.grid)
    assert shape.grid % 2 ** (shape.levels - 1) == 0 and latent.abs().max() <= 1
    assert torch.equal(fit_model.decode(latent, shape), images)


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (8, 2), (25, 2), (28, 2), (32, 1), (64, 4)])
def test_the_network_answers_in_the_form_of_its_input(size: int, patch: int) -> None:
    shape = Shape(size, 2, 16, patch)
    inputs = torch.zeros(2, shape.channels, shape.grid, shape.grid)
    answer = fit_model.network(shape)(inputs, torch.tensor([0, 999]), torch.tensor([1, shape.none])).sample
    assert answer.shape == inputs.shape


def test_a_network_for_32_pixels_has_about_a_million_weights() -> None:
    for patch in (1, 2):
        model = fit_model.network(Shape(32, 10, 32, patch))
        assert 0.9e6 < sum(p.numel() for p in model.parameters()) < 1.6e6


def test_without_guidance_labels_do_not_matter_and_with_it_they_do(model: UNet2DModel) -> None:
    assert np.array_equal(sampled(model, [0, 1], 0.0), sampled(model, [2, 0], 0.0))
    assert not np.array_equal(sampled(model, [0, 1], 1.0), sampled(model, [2, 0], 1.0))


def test_guidance_runs_from_no_label_through_the_label_alone(model: UNet2DModel) -> None:
    """The rule for any guidance, at 0 and at 1, is what each half of it says alone."""
    for end in (0.0, 1.0):
        assert np.abs(sampled(model, [0, 1], end + 1e-9) - sampled(model, [0, 1], end)).max() <= 1


def test_an_image_is_a_function_of_its_label_and_seed_and_not_of_its_neighbours(model: UNet2DModel) -> None:
    first = sampled(model, [0, 1, 2, 0], 2.0)
    start = fit_model.noise([1, 90, 91, 92], TINY)
    labels = torch.tensor([0, 2, 2, 1])
    other = fit_model.sample(model, TINY, labels, start, steps=5, guidance=2.0, precision="float32")
    assert np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])


def test_noise_is_standard_normal_and_each_seed_has_its_own() -> None:
    drawn = fit_model.noise(range(200), TINY)
    assert abs(drawn.mean()) < 0.02 and abs(drawn.std() - 1) < 0.02
    assert torch.equal(drawn[7:8], fit_model.noise([7], TINY)) and not torch.equal(drawn[7], drawn[8])


def test_steps_begin_at_pure_noise() -> None:
    scheduler = fit_model.schedule()
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == fit_model.NOISE_LEVELS - 1
    assert scheduler.alphas_cumprod[-1] < 1e-6


def test_half_precision_samples_nearly_the_same(model: UNet2DModel) -> None:
    start, labels = fit_model.noise([1, 2], TINY), torch.tensor([0, 1])
    made = [
        fit_model.sample(model, TINY, labels, start, steps=5, guidance=2.0, precision=precision).astype(np.int64)
        for precision in ("float32", "bf16")
    ]
    assert made[1].shape == (2, 8, 8, 3) and np.abs(made[0] - made[1]).mean() < 8
