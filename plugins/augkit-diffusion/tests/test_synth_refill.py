"""`--refill` makes others in place of what filters put aside, and shares of filters are of each class in each group."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from augkit_diffusion.chunks import Cell
from augkit_diffusion.store import Store
from hypothesis import given
from hypothesis import strategies as st
from synth_parts import COUNTS, NAMES, plugged, recipe, synth, tree


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugged(tmp_path_factory.mktemp("plugged") / "site"):
        yield


def by_cell(store: Store, *, rejected: bool = False) -> dict[tuple[str, str | None], list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in store.images(rejected=rejected):
        found[row["class"], row.get("group")].append(row)
    return dict(found)


def test_a_class_has_its_target_again_and_what_was_put_aside_stays_so(tmp_path: Path) -> None:
    path, out = recipe(tmp_path), tmp_path / "synth"
    words = ("make", path, "--target", 15, "--source", "stamps", "--out", out)
    assert synth(*words).exit_code == 0
    store = Store.open(out)
    gone = {row["file"] for rows in by_cell(store).values() for row in rows[1:6:2]}
    store.reject("mine", gone)
    before = tree(out)
    assert "0 images made" in synth(*words).output
    planned = json.loads(synth("plan", path, "--target", 15, "--out", out, "--refill", "--json").output)
    assert planned["images"] == len(gone) == 1 + 3 + 3 + 3
    parts = [synth(*words, "--refill", "--shard", f"{part}/3") for part in (1, 2, 3)]
    assert all(part.exit_code == 0 for part in parts)
    assert sum(int(part.output.split()[0]) for part in parts) == len(gone)
    assert {name: tree(out)[name] for name in before} == before
    kept = by_cell(Store.open(out))
    assert {name: len(kept[name, None]) for name in NAMES} == dict(zip(NAMES, (15 - n for n in COUNTS), strict=True))
    assert {row["file"] for row in store.images(rejected=True) if row["rejected_by"] == "mine"} == gone
    assert synth(*words, "--refill").output.startswith("0 images made")
    whole = tmp_path / "whole"
    assert synth(*words[:-1], whole, "--target", 18).exit_code == 0
    names = {name for name in tree(out) if not name.startswith("rejected/")}
    assert {name: tree(out)[name] for name in names} == {name: tree(whole)[name] for name in names}
    alone = synth("plan", path, "--target", 15, "--refill")
    assert alone.exit_code == 2 and "name it with --out" in alone.stderr


class Noted(Store):
    """A store of which only the manifest is asked."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._label, self._group, self.rows = {"a": 0, "b": 1}, {"x": 0}, rows

    def images(self, *, rejected: bool = False) -> list[dict[str, Any]]:
        return self.rows


@given(
    there=st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(0, 25)), st.booleans()),
    first=st.integers(0, 20),
    second=st.integers(0, 20),
)
def test_no_more_are_asked_for_than_make_up_for_what_is_gone(
    there: dict[tuple[str, int], bool], first: int, second: int
) -> None:
    rows = [
        {"class": name, "number": number, "rejected_by": "blank" if gone else None}
        for (name, number), gone in there.items()
    ]
    wanted: dict[Cell, int] = {(0, None): first, (1, None): second}
    found = Noted(rows).refilled(wanted)
    for (label, _), count in found.items():
        gone = {number for (name, number), aside in there.items() if aside and name == "ab"[label]}
        assert len(set(range(count)) - gone) == wanted[label, None]
        assert count == wanted[label, None] or count - 1 not in gone  # the last one is no waste


@pytest.mark.slow
def test_shares_of_filters_are_of_each_class_in_each_group(tmp_path: Path) -> None:
    path, out = recipe(tmp_path, groups=True), tmp_path / "synth"
    words = ("make", path, "--target", 9, "--groups", "--source", "stamps", "--out", out)
    assert synth(*words).exit_code == 0
    made = {cell: len(rows) for cell, rows in by_cell(Store.open(out)).items()}
    assert len(made) == 8 and len(set(made.values())) > 3
    result = synth("filter", out, "--keep-cosine", 0.7, "--keep-entropy", 0.5)
    assert result.exit_code == 0, result.output
    store = Store.open(out)
    left = {cell: len(rows) for cell, rows in by_cell(store).items()}
    # a group that has no real image of its class is judged by the other group's: by the class
    assert left == {cell: math.ceil(0.5 * math.ceil(0.7 * count - 1e-9)) for cell, count in made.items()}
    for rows in by_cell(store, rejected=True).values():
        worst = min(row["score_cosine"] for row in rows if row["rejected_by"] != "cosine")
        assert all(row["score_cosine"] <= worst for row in rows if row["rejected_by"] == "cosine")
    for _ in range(6):
        assert synth(*words, "--refill").exit_code == 0 and synth("filter", out).exit_code == 0
    again = {cell: len(rows) for cell, rows in by_cell(Store.open(out)).items()}
    assert again == made  # filtered and refilled in turn, each has its target
