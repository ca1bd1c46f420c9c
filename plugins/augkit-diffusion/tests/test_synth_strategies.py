"""`domain_mixup`: real images meet synthetic ones alone."""

from __future__ import annotations

import torch

from augkit import Policy


def test_partners_come_from_the_other_side() -> None:
    """Real images are black and of class 0 or 1, synthetic ones white and of class 2 or 3."""
    synthetic = torch.arange(40) % 4 == 0
    targets = 2 * synthetic.long() + torch.arange(40) % 2
    images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    images[synthetic] = 255
    policy = Policy.load("domain_mixup", class_counts=[4, 4, 4, 4], seed=1)
    mixed, labels = policy(images, targets, is_synthetic=synthetic)
    white = (mixed.float() / 255).mean((1, 2, 3))
    assert torch.allclose(labels[:, 2:].sum(1), white, atol=0.01)
    assert torch.allclose(labels.gather(1, targets[:, None])[:, 0], torch.where(synthetic, white, 1 - white), atol=0.01)
    shares = labels.gather(1, targets[:, None])[:, 0]
    assert 0.25 < shares.mean() < 0.75 and (shares < 0.999).all()


def test_real_images_alone_stay_as_they_are() -> None:
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    policy = Policy.load("domain_mixup", class_counts=[4, 4, 4, 4], seed=1)
    mixed, labels = policy(images, torch.arange(16) % 4, is_synthetic=torch.zeros(16, dtype=torch.bool))
    assert torch.equal(mixed, images)
    assert torch.equal(labels.argmax(1), torch.arange(16) % 4) and (labels.max(1).values == 1).all()
