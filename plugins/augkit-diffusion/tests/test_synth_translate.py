"""The source `translate`: which real image an image begins with, and that it stays near it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augkit_diffusion.sources import Wish
from scipy.stats import chisquare
from sd_parts import COUNTS, SIDE, made, opened, save_pipeline, wishes

from augkit.errors import AugkitError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("model") / "pipeline", checker=False)


def rows(source: Any, label: int, count: int) -> list[int]:
    found = [wish.row for wish in wishes(source, label, range(count))]
    assert all(row is not None for row in found)
    return [row for row in found if row is not None]


def test_intra_begins_with_each_image_of_the_class_in_turn(tmp_path: Path, model: Path) -> None:
    source = opened("translate", tmp_path, model)
    for label, count in enumerate(COUNTS.values()):
        found = rows(source, label, 2 * count + 1)
        assert found[:count] == found[count : 2 * count] and found[-1] == found[0]
        assert sorted(found[:count]) == np.flatnonzero(source.context.data.train.labels.numpy() == label).tolist()


def test_inter_begins_with_any_image_of_the_larger_classes(tmp_path: Path, model: Path) -> None:
    source = opened("translate", tmp_path, model, begin="inter")
    labels = source.context.data.train.labels.numpy()
    for label, larger in ((2, {0, 1}), (1, {0}), (0, {1, 2})):  # the largest begins with any other
        drawn = Counter(rows(source, label, 600))
        assert set(labels[list(drawn)]) == larger and len(drawn) == np.isin(labels, list(larger)).sum()
        assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_what_it_begins_with_depends_on_class_number_and_seed_alone(tmp_path: Path, model: Path) -> None:
    for begin in ("intra", "inter"):
        one, two = (opened("translate", tmp_path, model, begin=begin) for _ in range(2))
        for seed in range(20):
            wish = Wish(2, "dog", seed % 5, seed)
            assert one.complete(wish) == two.complete(wish) == one.complete(one.complete(wish))


def test_images_show_the_image_that_they_begin_with(tmp_path: Path, model: Path) -> None:
    """The autoencoder has random weights, so likeness is measured to what it makes of the image alone."""
    source = opened("translate", tmp_path, model, begin="inter", strength=0.1, steps=20, size="model", guidance=1.0)
    wished = wishes(source, 2, range(6))
    begun = [source.image(wish) for wish in wished]
    for wish, image in zip(wished, begun, strict=True):
        array, row = np.asarray(image), wish.row
        assert row is not None and array.shape == (SIDE, SIDE, 3)
        assert np.array_equal(array[0, 0], source.context.data.train.reader.read(row)[0, 0])
    far_off = opened("translate", tmp_path, model, size="model", strength=1.0, steps=20, guidance=1.0)
    for one in (source, far_off):
        certain(one.pipeline.pipe.vae)
    near, far = (made(one, wished).astype(int) for one in (source, far_off))
    pipe = source.pipeline.pipe
    latents = pipe.vae.encode(pipe.image_processor.preprocess(begun)).latent_dist.mode()
    decoded = pipe.vae.decode(latents).sample.detach()
    alone = (decoded.permute(0, 2, 3, 1).numpy() * 0.5 + 0.5).clip(0, 1) * 255
    assert np.abs(near - alone).mean() < 0.5 * np.abs(far - alone).mean()


def certain(vae: Any) -> None:
    """Let latents be as large as trained ones, and no noise."""
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= 20
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -20


def test_images_are_the_same_however_they_are_made(tmp_path: Path, model: Path) -> None:
    source, later = (opened("translate", tmp_path, model, strength=1.0) for _ in range(2))
    all_of_them = made(source, wishes(source, 1, range(6)))
    again = [made(later, wishes(later, 1, numbers)) for numbers in (range(3, 6), range(3))]
    assert np.array_equal(all_of_them, np.concatenate(again[::-1]))
    assert source.identity() == later.identity()
    other = opened("translate", tmp_path, model, begin="inter", strength=0.5)
    differing = {name for name, value in source.identity().items() if other.identity()[name] != value}
    assert differing == {"begin", "strength"}


def test_strength_that_takes_no_step_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(AugkitError, match=r"strength 0.1 of 5 steps leaves none to take"):
        opened("translate", tmp_path, model, strength=0.1, steps=5)
