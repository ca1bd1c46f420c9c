"""The folder of a class: its own name wherever that can name a folder, and never one that leads elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augkit.errors import DataError
from augkit.lab.class_folders import LONGEST, folder_name, folder_names

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
plain = texts.filter(lambda name: name not in (".", "..") and all(c.isprintable() and c not in "/\\" for c in name))


@given(texts)
def test_a_folder_is_one_part_of_a_path(name: str) -> None:
    folder = folder_name(name)
    path = Path("root") / folder
    assert path.parts == ("root", folder) and folder not in (".", "..") and "\0" not in folder
    assert path.resolve().parent == Path("root").resolve()


@given(plain)
def test_names_of_folders_stay_as_they_are(name: str) -> None:
    assert folder_name(name) == name


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("T-shirt/top", "T-shirt%2Ftop"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../../etc", "..%2F..%2Fetc"),
        ("a\\b\n\0", "a%5Cb%0A%00"),
        (".hidden", ".hidden"),
        ("50 %", "50 %"),
        ("Übergröße 大", "Übergröße 大"),
    ],
)
def test_what_is_dangerous_is_written_otherwise(name: str, folder: str) -> None:
    assert folder_name(name) == folder


def test_names_that_can_have_no_folder_are_told() -> None:
    for names, told in (
        (("",), 'the class name "" is empty'),
        (("é" * (LONGEST // 2 + 1),), "longer than 200 bytes"),
        (("\ud800",), "is no valid text"),
        (("a", "b", "a"), 'two classes are called "a"'),
        (("a/b", "a%2Fb"), 'would share the folder "a%2Fb"'),
    ):
        with pytest.raises(DataError, match=told):
            folder_names(names)
    assert folder_names(("a", "A", "a b")) == ("a", "A", "a b")
