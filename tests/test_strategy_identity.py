"""Documents that use each other, and what makes two documents the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from strategy_parts import Plain
from test_strategy_document import BUILT_IN, LEARNER, load, small

from augkit.errors import DocumentError
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.strategy.model import UseStep


def write(folder: Path, **uses: str | list[Any]) -> None:
    for name, use in uses.items():
        pipeline = use if isinstance(use, list) else [{"use": use}]
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.dump({"augkit": 1, "name": name, "pipeline": pipeline}, Dumper=Plain))


def test_documents_use_each_other_by_relative_path(tmp_path: Path) -> None:
    write(tmp_path, a="sub/b.yaml")
    write(tmp_path / "sub", b="./c.yaml", c=["hflip", {"use": "none"}])
    step = load_strategy(str(tmp_path / "a.yaml"), BUILT_IN).pipeline[0]
    assert isinstance(step, UseStep)
    inner = step.strategy.pipeline[0]
    assert isinstance(inner, UseStep) and inner.strategy.name == "c"
    assert inner.strategy.file == str(tmp_path / "sub" / "c.yaml")
    inside = small(pipeline=[{"use": "a.yaml"}])
    assert load_strategy(inside, BUILT_IN, folder=tmp_path).pipeline
    with pytest.raises(DocumentError, match="only in a document that came from a path itself"):
        load_strategy(inside, BUILT_IN)


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.yaml", "sub/../../a.yaml", "..\\a.yaml", "C:/a.yaml"])
def test_a_path_may_not_leave_the_folder(path: str, tmp_path: Path) -> None:
    write(tmp_path, a=["hflip"])
    write(tmp_path / "in", b=path)
    with pytest.raises(DocumentError, match="must be relative"):
        load_strategy(tmp_path / "in" / "b.yaml", BUILT_IN)


def test_circles_and_depth_end(tmp_path: Path) -> None:
    write(tmp_path, a="b.yaml", b="c.yaml", c="a.yaml", me="./me.yaml")
    with pytest.raises(DocumentError, match=r"in a circle: a\.yaml -> b\.yaml -> c\.yaml -> a\.yaml"):
        load_strategy(tmp_path / "a.yaml", BUILT_IN)
    with pytest.raises(DocumentError, match=r"in a circle: me\.yaml -> me\.yaml"):
        load_strategy(tmp_path / "me.yaml", BUILT_IN)
    write(tmp_path, **{f"n{number}": f"n{number + 1}.yaml" for number in range(20)}, n20=["hflip"])
    with pytest.raises(DocumentError, match="more than 8 deep"):
        load_strategy(tmp_path / "n0.yaml", BUILT_IN)
    write(tmp_path, m0=["hflip"] * 8, **{f"m{n + 1}": [{"use": f"m{n}.yaml"}] * 8 for n in range(6)})
    with pytest.raises(DocumentError, match="at most 512 steps"):
        load_strategy(tmp_path / "m6.yaml", BUILT_IN)


def test_a_fault_in_a_used_document_names_both_places(tmp_path: Path) -> None:
    write(tmp_path, a=["hflip", {"use": "b.yaml"}], b=["hflap"])
    with pytest.raises(DocumentError) as caught:
        load_strategy(tmp_path / "a.yaml", BUILT_IN)
    assert "pipeline[1].use" in str(caught.value) and "hflap" in str(caught.value) and "b.yaml" in str(caught.value)


# -- identity -------------------------------------------------------------------------------------------------------


def test_spelling_does_not_change_the_hash(tmp_path: Path) -> None:
    first = load(LEARNER)
    data = yaml.safe_load(LEARNER)
    turned: dict[str, Any] = {key: data[key] for key in reversed(list(data))}
    turned["state"] = {key: data["state"][key] for key in reversed(list(data["state"]))}
    turned |= {"title": "another title", "name": "other", "params": {"warm": 50.0, "p": 0.50}}
    turned["pipeline"][0] = {"hflip": {"p": "1"}}
    turned["update"][0]["when"] = "(epoch)>100/2"
    assert load(turned).hash == first.hash
    path = tmp_path / "same.json"
    path.write_text(json.dumps(turned))
    assert load_strategy(path, BUILT_IN).hash == first.hash
    path = tmp_path / "same.yaml"
    path.write_text("# a comment\n" + LEARNER.replace("0.5", ".5"))
    assert load_strategy(path, BUILT_IN).hash == first.hash
    inlined = LEARNER.replace("warm: 50", "").replace("> warm", "> 50").replace("{p: 0.5, }", "{p: 0.5}")
    assert load(inlined).hash == first.hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("warm: 50", "warm: 51"),
        ("init: 1,", "init: 2,"),
        ("high: 30", "high: 31"),
        ("vflip, ", ""),
        ("[1, null]", "[1, 9]"),
        ("- hflip", "- hflip: {p: 0.5}"),
        ("correct - previous", "correct - 2 * previous"),
        ("epoch_end", "epoch_start"),
    ],
)
def test_a_change_in_meaning_changes_the_hash(old: str, new: str) -> None:
    assert old in LEARNER
    assert load(LEARNER.replace(old, new)).hash != load(LEARNER).hash


def test_versions_of_what_is_used_belong_to_the_hash() -> None:
    document = yaml.safe_load(LEARNER)
    newer = Registry(
        operators=BUILT_IN.operators,
        palettes=BUILT_IN.palettes,
        strategies=BUILT_IN.strategies,
        origins={**BUILT_IN.origins, ("operators", "rotate"): "rotations 2.0"},
    )
    assert load_strategy(document, newer).hash != load_strategy(document, BUILT_IN).hash
    unused = Registry(
        operators=BUILT_IN.operators,
        palettes=BUILT_IN.palettes,
        strategies=BUILT_IN.strategies,
        origins={**BUILT_IN.origins, ("operators", "invert"): "inversions 2.0"},
    )
    assert load_strategy(document, unused).hash == load_strategy(document, BUILT_IN).hash


def test_signals_of_plugins_are_names() -> None:
    more = Registry(operators=BUILT_IN.operators, signals={"margin": len})
    strategy = load_strategy(small(pipeline=[{"hflip": {"p": "clip(margin[y], 0, 1)"}}]), more)
    assert strategy.needs == {"observe"} and "margin" in strategy.reads
    with pytest.raises(DocumentError, match="is reserved"):
        load_strategy(small(params={"margin": 1}), more)
