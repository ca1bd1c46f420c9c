"""Prompts: which one an image gets, what a prompts file may hold, and what is told of a wrong one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from augkit_diffusion.prompts import MODIFIED, PLAIN, Prompts, open_prompts
from augkit_diffusion.sources import Wish
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from augkit.errors import DataError

NAMES = st.text(min_size=1, max_size=12).filter(lambda text: text.strip("_ \t\n") != "")
SEEDS = st.integers(0, 2**63 - 1)


def wish(seed: int, class_name: str = "cat", group_name: str | None = None) -> Wish:
    return Wish(0, class_name, 7, seed, None if group_name is None else 0, group_name)


@given(name=NAMES, seed=SEEDS)
def test_any_class_name_is_put_in_as_it_is_but_for_underscores(name: str, seed: int) -> None:
    prompt, negative = Prompts().fill(wish(seed, name))
    assert prompt == " ".join(f"a photo of {name.replace('_', ' ')}".split()) and negative == ""


@given(values=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8), seed=SEEDS, other=st.integers(0, 10**6))
def test_a_prompt_is_a_function_of_class_group_and_seed(values: list[str], seed: int, other: int) -> None:
    prompts = Prompts((MODIFIED, "{modifier}: {class} of {group}"), values={"modifier": values})
    one = prompts.fill(Wish(0, "cat", 1, seed, 0, "indoors"))
    assert prompts.fill(Wish(5, "cat", other, seed, 3, "indoors", row=other)) == one
    more = Prompts(prompts.templates, values={"modifier": values, "age": ["1", "2"]})
    assert more.fill(Wish(0, "cat", 1, seed, 0, "indoors")) == one


def test_values_are_drawn_alike_and_apart_from_each_other() -> None:
    prompts = Prompts(("{x}{y}", "{y}{x}"), values={"x": list("abc"), "y": list("de")})
    drawn = Counter(prompts.fill(wish(seed))[0] for seed in range(2400))
    assert set(drawn) == {x + y for x in "abc" for y in "de"} | {y + x for x in "abc" for y in "de"}
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_attributes_of_faces_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "faces.yaml"
    file.write_text(
        "templates: Portrait face photo of {race} {gender}, {age} year old\n"
        "negative: drawing of {gender}\n"
        "values:\n  race: [no, Asian]\n  gender: {men: [man], women: [woman, lady]}\n  age: [010, 30]\n"
    )
    prompts = open_prompts(file)
    for seed in range(20):
        prompt, negative = prompts.fill(wish(seed, "young", "women"))
        race, gender, age = prompt[23:].replace(",", "").split()[:3]
        assert race in ("no", "Asian") and gender in ("woman", "lady") and age in ("010", "30")
        assert negative == f"drawing of {gender}"


def test_templates_are_the_files_unless_one_is_given(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"names": {"n01": "a red fox"}, "values": {"modifier": {"n01": ["wet"]}}}))
    assert open_prompts(None).templates == (PLAIN,)
    assert open_prompts(file).fill(wish(3, "n01"))[0] == "a photo of wet a red fox"
    assert open_prompts(file, "{class}!", "dry").fill(wish(3, "n01")) == ("a red fox!", "dry")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (
            "templates: a {modifer} {class}\nvalues: {modifier: [wet]}",
            r'known of \{modifer\} .*Did you mean "modifier"',
        ),
        (
            "templates: ['{class}', '{modifier}']\nvalues: {modifier: {dog: [wet]}}",
            'nothing for class "cat"; add a list',
        ),
        ("values: {modifier: {dog: [wet]}}", 'values.modifier has nothing for class "cat"; add a list'),
        ("values: {modifier: []}", "values.modifier is empty"),
        ("values: {modifier: [{a: b}]}", "values.modifier must be text, not"),
        ("values: [wet]", "values must be names with what stands for each"),
        ("values: {class: [wet]}", "are known already"),
        ("template: a {class}", 'has no field "template". Did you mean "templates"'),
        ("templates: [a, {b: c]", r"prompts.yaml:1: this is not YAML"),
        ("- a", "has the fields templates, negative, names, values"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_a_sentence(tmp_path: Path, written: str, told: str) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(written)
    with pytest.raises(DataError, match=told) as caught:
        open_prompts(file).fill(wish(0))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_group_without_groups_and_a_file_that_is_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="say --groups"):
        Prompts(("{group} {class}",)).fill(wish(1))
    with pytest.raises(DataError, match=r"No such file.*name a file with --prompts"):
        open_prompts(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"negative: \xff\xfe\xfa")
    with pytest.raises(DataError, match="not UTF-8"):
        open_prompts(tmp_path / "latin.yaml")


def test_what_prompts_depend_on_has_a_hash(tmp_path: Path) -> None:
    same = Prompts(values={"a": ["x"], "b": {"c": ("y",)}}), Prompts(values={"b": {"c": ["y"]}, "a": ("x",)}, file="f")
    assert same[0].sha256() == same[1].sha256() == Prompts(values=same[0].values).sha256()
    others = [Prompts(), Prompts(negative="x"), Prompts(("{class}",)), Prompts(names={"cat": "x"}), same[0]]
    assert len({one.sha256() for one in others}) == len(others)
