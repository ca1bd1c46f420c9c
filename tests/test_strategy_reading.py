"""Documents as plain data: YAML 1.2's numbers and truth values, JSON, lines, duplicate keys, limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.errors import DocumentError
from augkit.strategy.reading import MAX_BYTES, read_file, read_mapping, read_text

plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**12), 10**12),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.text(st.characters(codec="ascii", blacklist_categories=["Cc"]), max_size=8), inner, max_size=4
        ),
    ),
    max_leaves=12,
)


@given(plain, st.sampled_from([None, 2, "\t"]))
@settings(max_examples=300, deadline=None)
def test_json_means_what_json_says(data: Any, indent: int | str | None) -> None:
    written = json.dumps(data, indent=indent, ensure_ascii=False)
    read = read_text(written).data
    assert read == data
    assert json.dumps(read) == json.dumps(data), "1, 1.0 and true are told apart"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2e-4", 0.0002),
        ("2E5", 200000.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-12", -12),
        ("+3", 3),
        (".5", 0.5),
        ("5.", 5.0),
        ("0.50", 0.5),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("NO", "NO"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("2020-01-01", "2020-01-01"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_yaml_1_2_scalars(written: str, value: object) -> None:
    read = read_text(f"a: {written}\n").data["a"]
    assert read == value and type(read) is type(value)


def test_every_part_has_its_line() -> None:
    source = read_text("# a comment\na: 1\nb:\n  - x\n  - c: 2\n    d:\n      - 3\n")
    assert source.data == {"a": 1, "b": ["x", {"c": 2, "d": [3]}]}
    found = {path: source.lines[path] for path in [("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "c"), ("b", 1, "d", 0)]}
    assert list(found.values()) == [2, 3, 4, 5, 5, 7]


def test_a_byte_order_mark_is_no_part_of_the_document(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_file(path).data == {"a": 1}


@pytest.mark.parametrize(
    ("written", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 'the key "a" was given before, in line 1'),
        ('{"a": {"b": 1,\n "b": 2}}', 2, 'the key "b" was given before, in line 1'),
        ("a: .nan\n", 1, '".nan" is not a number'),
        ("a: 1\nb: -.inf\n", 2, '"-.inf" is not a number'),
        ("a: 1e999\n", 1, "is not a number that a document may hold"),
        ("a: " + "9" * 5000, 1, "is not a number that a document may hold"),
        ("a: &x 1\nb: *x\n", 1, "anchors are not allowed: &x"),
        ("a: 1\nb: *x\n", 2, "aliases are not allowed: *x"),
        ("a: !!python/object:os.system {}\n", 1, "tags are not allowed: tag:yaml.org,2002:python/object:os.system"),
        ("a: !!str 1\n", 1, "tags are not allowed"),
        ("a: !include secret\n", 1, "tags are not allowed: !include"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("", 1, "the document is empty"),
        ("# nothing\n", 1, "the document is empty"),
        ("a: [1, 2\n", 2, "this is not YAML"),
        ("a: b: c\n", 1, 'put text that holds ": " in quotes'),
        ("? [1, 2]\n: 3\n", 1, "a key is a name"),
        ("a:\n\t- 1\n", 2, "this is not YAML: a tab; indent with spaces"),
        ("\ta: 1\n", 1, "a tab; indent with spaces"),
        ("a: 1\rb:\r  c:\r\t  d: 1", 4, "a tab; indent with spaces"),
        ("a: @b\t\n", 1, "cannot start any token"),
        ("a: \x00", None, "this is not YAML"),
        ("[" * 40 + "]" * 40, 1, "nests more than 32 deep"),
        ("- 1\n" * 30_000, 20_000, "at most 20000 parts"),
        ("a" * (MAX_BYTES + 1), None, "at most 1048576 bytes"),
    ],
)
def test_errors_have_their_line(written: str, line: int | None, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_text(written, "file.yaml")
    assert message in str(caught.value)
    assert caught.value.line == line and caught.value.file == "file.yaml"


def test_all_duplicate_keys_are_told() -> None:
    with pytest.raises(DocumentError) as caught:
        read_text("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [(2, "a"), (3, "b.c")]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: \xe9\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    for path, message in (
        (tmp_path / "missing.yaml", "No such file or directory; check how its path is written"),
        (tmp_path, "this is no file; give the path of a document"),
        (Path("/dev/zero"), "this is no file"),
        (latin, "is not UTF-8"),
        (large, "at most 1048576 bytes"),
        (Path("nul\0.yaml"), "cannot read the document"),
    ):
        with pytest.raises(DocumentError, match=message):
            read_file(path)


def test_mappings_are_checked_like_files() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = circle
    deep: Any = 1
    for _ in range(50):
        deep = [deep]
    for data, message in (
        (circle, "nests at most 32 deep"),
        ({"a": deep}, "nests at most 32 deep"),
        ({"a": list(range(30_000))}, "at most 20000 parts"),
        ({"a": float("nan")}, "nan is not a number"),
        ({"a": object()}, "not object"),
        ({"a": {1, 2}}, "not set"),
        ({1: 2}, "a key is text, not 1"),
        ({"a": "x" * (MAX_BYTES + 1)}, "at most 1048576 bytes"),
        ({"a": 10**400}, "larger than"),
    ):
        with pytest.raises(DocumentError, match=message):
            read_mapping(data)  # type: ignore[arg-type]
    given = {"a": [1, {"b": 2}]}
    copied = read_mapping(given).data
    assert copied == given and copied["a"] is not given["a"]
