"""The pool: at most so many images of each class, the right ones, within its bytes, restored exactly."""

from __future__ import annotations

import pytest
import torch

from augkit.errors import InputError, StateError
from augkit.learning.pool import Pool


def coloured(targets: torch.Tensor, size: int = 4) -> torch.Tensor:
    """Images whose pixels are their class."""
    return targets.to(torch.uint8)[:, None, None, None].expand(-1, 3, size, size)


def test_it_keeps_images_of_their_own_class() -> None:
    pool = Pool(5, per_class=3)
    for seed in range(6):
        targets = torch.randint(0, 4, (17,), generator=torch.Generator().manual_seed(seed))
        pool.add(coloured(targets), targets, torch.arange(17))
    assert pool.filled.tolist() == [3, 3, 3, 3, 0]
    asked = torch.tensor([0, 1, 2, 3] * 5)
    partners = pool.gather(pool.take(asked, torch.linspace(0, 0.999, 20)))
    assert torch.equal(partners, coloured(asked))


def test_bytes_are_capped() -> None:
    pool = Pool(10, per_class=100, max_bytes=10 * 3 * 16 * 7)
    pool.add(coloured(torch.arange(10)), torch.arange(10))
    assert pool.per_class == 7
    with pytest.raises(InputError, match="max_bytes"):
        Pool(10, max_bytes=100).add(coloured(torch.arange(10)), torch.arange(10))


def test_another_image_size_is_refused() -> None:
    pool = Pool(2)
    pool.add(coloured(torch.tensor([0])), torch.tensor([0]))
    with pytest.raises(InputError, match="image size"):
        pool.add(coloured(torch.tensor([0]), size=8), torch.tensor([0]))


def test_state_goes_on_exactly() -> None:
    targets = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(1))
    whole, first = Pool(3, per_class=4), Pool(3, per_class=4)
    for pool in (whole, first):
        pool.add(coloured(targets), targets, torch.arange(40))
    resumed = Pool(3, per_class=4)
    resumed.load_state_dict(first.state_dict())
    for pool in (whole, resumed):
        pool.add(coloured(targets), targets, torch.arange(40, 80))
    assert torch.equal(whole.index, resumed.index)
    with pytest.raises(StateError, match="classes"):
        Pool(4).load_state_dict(first.state_dict())


def test_an_empty_pool_says_so() -> None:
    with pytest.raises(StateError, match="empty"):
        Pool(2).gather(torch.tensor([0]))
