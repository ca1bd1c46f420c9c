"""Which images of a store a candidate takes, and by what another choice of images is told from it."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from augkit_diffusion.chunks import Cell

There = Mapping[tuple[str, str | None], Sequence[int]]
"""Numbers of the images that are kept, in order, by class and group."""


class Taken(NamedTuple):
    """What a candidate takes: fewer images than it wants where some were refused or put aside."""

    take: dict[str, Any]
    """Numbers of images as `sources.take`."""
    gaps: str = ""
    """Which of those that it wants are missing, as a hash: filters may put others aside and yet as many. Empty for
    none."""

    @property
    def images(self) -> int:
        """In all."""
        return _sum(self.take)


def numbers_in(store: Path) -> There:
    """Those of a store; nothing if there is none."""
    from augkit_diffusion.settings import SETTINGS
    from augkit_diffusion.store import Store

    found: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    if (store / SETTINGS).exists():
        for row in Store.open(store).images():
            found[row["class"], row.get("group")].append(row["number"])
    return {cell: sorted(numbers) for cell, numbers in found.items()}


def taken_of(there: There, wanted: Mapping[Cell, int], classes: Sequence[str], groups: Sequence[str]) -> Taken:
    """Of each cell's first `wanted` images those that are kept."""
    take: dict[str, Any] = {}
    missing = []
    for (label, group), count in wanted.items():
        name, group_name = classes[label], None if group is None else groups[group]
        numbers = there.get((name, group_name), ())
        kept = bisect_left(numbers, count)
        if group_name is None:
            take[name] = kept
        else:
            take.setdefault(name, {})[group_name] = kept
        if kept < count:
            missing.append([name, group_name, sorted({*range(count)} - {*numbers[:kept]})])
    return Taken(take, hashlib.sha256(json.dumps(missing).encode()).hexdigest()[:10] if missing else "")


def _sum(take: Mapping[str, Any]) -> int:
    return sum(_sum(one) if isinstance(one, Mapping) else int(one) for one in take.values())
