"""Which images there shall be: their seeds, and the chunks that they are made in.

Image k of a class (and group) has a seed of its own, and chunk j of the class is always its images j*B .. j*B + B - 1,
B being the source's batch. So whatever is there already, and however chunks are shared out, an image is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from augkit.errors import AugkitError

Cell = tuple[int, int | None]
"""A class, or with groups a class and a group, by their numbers."""


@dataclass(frozen=True)
class Chunk:
    """Images that are made together; of them only those not yet there are written."""

    label: int
    group: int | None
    index: int
    missing: tuple[int, ...]
    """Numbers of the images that are to be written, ascending."""


def image_seed(seed: int, class_name: str, group_name: str | None, number: int) -> int:
    """The seed of one image, 0 <= seed < 2**63: the first 63 bits of SHA-256 of the four as JSON."""
    told = json.dumps([seed, class_name, group_name, number]).encode()
    return int.from_bytes(hashlib.sha256(told).digest()[:8], "big") >> 1


def chunks(
    wanted: Mapping[Cell, int], batch: int, there: Callable[[int, int | None], frozenset[int]], shard: tuple[int, int]
) -> Iterator[Chunk]:
    """The chunks of one shard that have images missing.

    Args:
        wanted: how many images of each cell there shall be: those numbered from 0.
        batch: images of a chunk.
        there: the numbers of a cell's images that there are.
        shard: (i, n), i from 1: every n-th chunk of all, whether it is missing or not.
    """
    position = 0
    part, parts = shard
    for (label, group), count in wanted.items():
        here = there(label, group)
        for index in range(-(-count // batch)):
            position += 1
            if position % parts == part % parts:
                numbers = range(index * batch, min(count, (index + 1) * batch))
                missing = tuple(number for number in numbers if number not in here)
                if missing:
                    yield Chunk(label, group, index, missing)


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8).

    Raises:
        AugkitError: it is written otherwise, or there is no such shard.
    """
    first, slash, second = text.partition("/")
    if not (slash and first.isascii() and first.isdigit() and second.isascii() and second.isdigit()):
        raise AugkitError(f'--shard says which part of how many, such as 2/8, not "{text}"')
    part, parts = int(first), int(second)
    if not 1 <= part <= parts:
        raise AugkitError(f"--shard {text}: parts are counted from 1, so this one is 1/{parts} to {parts}/{parts}")
    return part, parts
