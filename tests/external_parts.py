"""Transforms of other libraries with options, images for them, and one operator run alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augkit.errors import DocumentError
from augkit.operators.base import Choice
from augkit.operators.external import external
from augkit.policy import Policy

CASES: dict[str, dict[str, Any]] = {
    "albumentations:CoarseDropout": {"num_holes_range": [1, 3]},
    "albumentations:Affine": {"rotate": [-30, 30]},
    "albumentations:GaussNoise": {},
    "albumentations:AdditiveNoise": {"noise_type": "gaussian", "spatial_mode": "per_pixel", "noise_params": {
        "mean_range": [0.0, 0.1], "std_range": [0.05, 0.1]}},
    "albumentations:RandomRotate90": {},
    "kornia:RandomPlasmaShadow": {},
    "kornia:RandomAffine": {"degrees": 30},
    "kornia:ColorJitter": {"brightness": 0.5, "hue": 0.2},
    "kornia:RandomRain": {},
    "kornia:RandomFisheye": {"center_x": [-0.3, 0.3], "center_y": [-0.3, 0.3], "gamma": [0.9, 1.1]},
    "torchvision:ColorJitter": {"brightness": 0.5, "hue": [-0.1, 0.1]},
    "torchvision:GaussianNoise": {},
    "torchvision:ElasticTransform": {},
    "torchvision:AutoAugment": {"policy": "cifar10", "interpolation": "bilinear"},
}  # fmt: skip


def images(count: int = 6, side: int = 40, seed: int = 0) -> Tensor:
    """[count, 3, side, side] uint8: ramps with noise."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, side)[None, None, None] + generator.integers(0, 56, (count, 3, side, side))
    return torch.from_numpy(ramp.astype(np.uint8))


def document(*steps: Any, **more: Any) -> dict[str, Any]:
    return {"augkit": 1, "name": "outside", "pipeline": list(steps), **more}


def load(*steps: Any, **more: Any) -> Policy:
    return Policy.load(document(*steps, **more))


def fault(*steps: Any, **more: Any) -> str:
    with pytest.raises(DocumentError) as caught:
        load(*steps, **more)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def run(name: str, options: dict[str, Any], given: Tensor, u: Tensor) -> Tensor:
    """[N, C, H, W] float32 in 0..1 through one operator."""
    operator = external(name)
    choice = Choice(operator, options=options)
    result = choice.lower(torch.zeros(len(u)), u, (given.shape[2], given.shape[3]), images=given)
    assert isinstance(result, Tensor)
    return result


def numbers(count: int, seed: int = 0) -> Tensor:
    """[count, 2] uniform numbers of 24 bits, as the streams give them."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 1 << 24, (count, 2)) / (1 << 24)).float()


def states() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (kind, keys.tolist(), *rest)  # type: ignore[union-attr]
