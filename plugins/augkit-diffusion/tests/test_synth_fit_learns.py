"""The source `fit` for real: a minute on long-tailed digits, judged by a classifier of balanced real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from augkit_diffusion.chunks import image_seed
from augkit_diffusion.sources import Context, Wish, open_source
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from augkit.lab.data import load
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry

EACH = 24


def small(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 16, 16, 3] to [N, 64]: brightness as in scikit-learn's digits, 0..16."""
    return images.mean(axis=3).reshape(len(images), 8, 2, 8, 2).mean(axis=(2, 4)).reshape(len(images), 64) * (16 / 255)


@pytest.mark.slow
def test_images_are_of_their_class_in_the_tail_too(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = load_recipe("demo", registry(), ("data.image_size=16", "data.imbalance=20"))
    data = load(recipe.data)
    context = Context(data, recipe, tmp_path, torch.device("cpu"))
    source = open_source("fit", {"train_steps": 700}, context, registry())
    wishes = [Wish(c, str(c), k, image_seed(0, str(c), None, k)) for c in range(10) for k in range(EACH)]
    assert source.identity()["model"]
    images = np.stack([image for image in source.make(wishes) if image is not None])
    digits = load_digits()
    judge = KNeighborsClassifier(3).fit(digits.data, digits.target)
    right = (judge.predict(small(images)) == np.repeat(np.arange(10), EACH)).reshape(10, EACH).mean(axis=1)
    few = data.class_counts.numpy() < 20
    assert few.sum() >= 3 and right.mean() > 0.8 and right[few].mean() > 0.7, right.tolist()
    by_class = images.reshape(10, EACH, -1).astype(np.float64)
    assert (by_class.std(axis=1).mean(axis=1) > 8).all()  # not one image again and again
