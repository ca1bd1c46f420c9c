"""The committed catalogue of operators is the one that is written today, but for the pixels of its pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from augkit.operators import ALL, Operator
from augkit.report.catalogue import SIDE, direction, page, strip, write

DOCS = Path(__file__).parents[1] / "docs"
NAMES = [one.name for one in ALL]
MEASURED = json.loads((DOCS / "operators" / "errors.json").read_text(encoding="utf-8"))


def test_page_is_up_to_date() -> None:
    committed = (DOCS / "operators.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### (\w+)$", committed, re.MULTILINE)) == sorted(NAMES)
    assert committed == page(MEASURED), "run `make catalogue`"
    assert committed.startswith("# Operators\n\n<!-- Written by `make catalogue`; do not edit. -->\n")  # for no reader


def test_every_operator_has_its_picture_and_no_other() -> None:
    pictures = sorted((DOCS / "operators").glob("*.webp"))
    assert [path.stem for path in pictures] == sorted(NAMES)
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.height == SIDE and picture.width % SIDE == 0
    assert sum(path.stat().st_size for path in (DOCS / "operators").iterdir()) < 1_500_000


def test_measured_errors_are_within_what_is_stated() -> None:
    assert sorted(MEASURED["operators"]) == sorted(NAMES) and "opencv" in MEASURED["executors"]
    for one in ALL:
        found = MEASURED["operators"][one.name]
        for mean, most in found.get("reference", {}).values():
            assert mean <= one.tolerance and most <= 255, one.name
        assert found["pair"] <= 2, one.name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rotate", "grows with the distance from 0; 0 changes nothing"),
        ("posterize", "grows as the value falls; 8 changes nothing"),
        ("brightness", "grows with the distance from 1; 1 changes nothing"),
        ("jpeg", "grows as the value falls"),
        ("clahe", "grows as the value rises"),
        ("fog", "grows as the value rises; 0 changes nothing"),
    ],
)
def test_direction_is_read_from_the_declaration(name: str, words: str) -> None:
    assert direction(next(one for one in ALL if one.name == name)) == words


@pytest.mark.parametrize("one", ALL[::9], ids=lambda one: one.name)
def test_strips_show_the_image_and_what_became_of_it(one: Operator) -> None:
    picture = strip(one)
    shown = [picture.crop((left, 0, left + SIDE, SIDE)) for left in range(0, picture.width, SIDE)]
    assert len(shown) == (4 if one.has_value or one.draws else 2)
    if one.name != "identity":
        assert any(part.tobytes() != shown[0].tobytes() for part in shown[1:])


def test_a_page_without_measurements_says_nothing_of_them(tmp_path: Path) -> None:
    text = write(tmp_path, pictures=False).read_text(encoding="utf-8")
    assert "Measured" not in text and text.count("\n### ") == len(ALL)
