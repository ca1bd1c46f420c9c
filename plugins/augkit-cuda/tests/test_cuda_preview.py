"""A preview of the curriculum has a slider of its level, and more happens at a higher one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from augkit.plugins import registry
from augkit.policy import Policy
from augkit.report.dials import dials_of
from augkit.report.preview import Samples
from augkit.report.preview_board import board_of
from augkit.strategy.document import load_strategy


@pytest.mark.parametrize("name", ["cuda", "cuda_agnostic", "cuda_online", "bcl_views_cuda"])
def test_a_level_shows_as_many_operators(name: str) -> None:
    found = registry()
    strategy = load_strategy(name, found)
    images = torch.arange(12 * 3 * 16 * 16).reshape(12, 3, 16, 16).remainder(251).to(torch.uint8)
    samples = Samples(images, torch.arange(12) % 3, torch.arange(12), ("a", "b", "c"), (50, 20, 5))

    def make() -> Policy:
        return Policy(strategy, class_counts=samples.class_counts, epochs=100, registry=found)

    (dial,) = dials_of(make())
    assert [place.label for place in dial.positions] == [str(level) for level in range(11)] and dial.start == 0
    board = board_of(make, samples, (dial,), 0, lossless=True)
    frames = board.frames[0]
    assert board.dials[0].start == (0 if name == "bcl_views_cuda" else 5), "nothing is seen where the level begins"
    assert all(a.shots != b.shots for a, b in pairwise(frames))
    if name != "bcl_views_cuda":  # whose base and other views do something at level 0 too
        assert set(frames[0].words) == {"unchanged"}
        for level, frame in enumerate(frames[1:], 1):
            assert {len(words.split(", then ")) for words in frame.words if words != "unchanged"} == {level}
