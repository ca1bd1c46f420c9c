"""What filters reject: a function of the images' scores and of which filters there are, and of nothing else.

Each filter gives every image a score. Some set aside what lies beyond a threshold; others keep a share of the images of
each class (with groups: of each class in each group) that no filter before them in `FILTERS` set aside. The share is of
a class, since a store evens classes out: a share of all images would be taken from the rare and hard classes most. Of
n images ceil(share * n) are kept, so that no class loses all. The filters of a store are noted in it, so the order in
which they were asked for changes nothing, asking twice changes nothing, and taking one away leaves what the others
would have done without it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from augkit.errors import AugkitError, StateError, nearest
from augkit.lab import folder as files

FILE = "filters.yaml"
DECIMALS = 5
"""Of scores: how images are batched may change the sixth, and shall decide nothing."""


@dataclass(frozen=True)
class Filter:
    """One filter."""

    what: str
    """What it rejects."""
    score: str
    """What its score is."""
    high_is_bad: bool
    option: str | None
    """`keep` takes a share of each class, `limit` a threshold; None where the threshold is fixed."""
    limit: float = 0.0
    network: bool = False
    """Whether it asks a network, or in its place a linear classifier."""


FILTERS: Mapping[str, Filter] = {
    "broken": Filter("files that cannot be decoded", "1 for a broken file", True, None, 0.5),
    "blank": Filter("images of nearly one colour", "standard deviation of grey values, 0 to 127", False, None, 2.0),
    "near_duplicate": Filter(
        "near-copies of a training image or its mirror image",
        "correlation of pixels with the nearest one",
        True,
        "limit",
    ),
    "repeat": Filter(
        "near-copies of an earlier image of the store", "correlation of pixels with the nearest one", True, "limit"
    ),
    "agree": Filter(
        "images that a classifier takes for another class",
        "probability of its class less that of the likeliest other",
        False,
        None,
        network=True,
    ),
    "cosine": Filter(
        "all but the share nearest to the real images of its class", "cosine of features", False, "keep", network=True
    ),
    "entropy": Filter(
        "all but the share that a classifier is surest of", "entropy of its answer, in nats", True, "keep", network=True
    ),
}
"""In the order in which they decide."""
Plan = dict[str, dict[str, Any]]
"""The filters of a store: options by name, `keep` or `limit`."""


@dataclass(frozen=True)
class Noted:
    """What a store notes of its filters."""

    plan: Plan
    viewer: dict[str, Any]
    """What looked at the images, see `features.Viewer.told`; empty if nothing was asked yet."""


def read(folder: Path) -> Noted:
    """The filters of a store.

    Raises:
        StateError: its note of them cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return Noted({}, {})
    try:
        noted = yaml.safe_load(path.read_text(encoding="utf-8"))
        plan = {name: dict(options) for name, options in noted["filters"].items()}
        if not plan.keys() <= FILTERS.keys():
            raise ValueError
        return Noted(plan, dict(noted["viewer"]))
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError("not a note of filters; remove it and give the filters again", file=path) from error


def write(folder: Path, noted: Noted) -> None:
    """Note the filters of a store, in their order."""
    plan = {name: noted.plan[name] for name in FILTERS if name in noted.plan}
    files.write_yaml(folder / FILE, {"viewer": noted.viewer, "filters": plan})


def rejects(
    name: str, options: Mapping[str, Any], scores: Mapping[str, float], cells: Mapping[str, Hashable]
) -> set[str]:
    """What one filter rejects of the images in `scores`, by `file`; `cells` gives the class, or class and group."""
    one = FILTERS[name]
    sign = 1.0 if one.high_is_bad else -1.0
    if one.option != "keep":
        limit = sign * float(options.get("limit", one.limit))
        # a correlation of exactly the limit is one too many; a margin of exactly 0 is not
        return {file for file, score in scores.items() if sign * score > limit or (one.high_is_bad and score == limit)}
    by_cell: dict[Hashable, list[str]] = defaultdict(list)
    for file in sorted(scores, key=lambda file: (sign * scores[file], file)):
        by_cell[cells[file]].append(file)
    return {file for members in by_cell.values() for file in members[kept(options["keep"], len(members)) :]}


def kept(share: float, count: int) -> int:
    """How many of `count` images are kept: the least whole number that is no smaller than the share."""
    return min(count, math.ceil(share * count - 1e-9))


def decide(
    plan: Plan, scores: Mapping[str, Mapping[str, float]], cells: Mapping[str, Hashable]
) -> dict[str, str | None]:
    """What rejects each image of `cells`; None for those that are kept. Images without a score pass a filter."""
    found: dict[str, str | None] = dict.fromkeys(cells)
    for name in FILTERS:
        if name in plan:
            standing = {f: s for f, s in scores.get(name, {}).items() if f in found and found[f] is None}
            found |= dict.fromkeys(rejects(name, plan[name], standing, cells), name)
    return found


def check_name(name: str, known: set[str]) -> None:
    """Raise unless a filter by this name can be undone."""
    if name != "all" and name not in FILTERS and name not in known:
        raise AugkitError(f'there is no filter "{name}" to undo.{nearest(name, ["all", *FILTERS])}')
