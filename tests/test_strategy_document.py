"""Loading strategies: models, faults all told with their places, `use`, params, identity, needs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies_gen import documents
from strategy_parts import Plain

from augkit.errors import DocumentError
from augkit.plugins import load_registry
from augkit.strategy.document import load_strategy
from augkit.strategy.model import BatchStep, OneOfMix, OneOfStep, OperatorStep, PickStep, Strategy, UseStep
from augkit.strategy.reading import read_text

BUILT_IN = load_registry(plugins=False)

LEARNER = """\
augkit: 1
name: learner
params: {p: 0.5, warm: 50}
palette: [vflip, {rotate: {low: 0, high: 30}}, equalize]
state:
  chosen:   {axes: [classes, ops], init: "onehot(categorical(weight, over=ops), ops)"}
  weight:   {axes: [ops, classes], init: 1, clamp: [1, null]}
  previous: {axes: [classes]}
pipeline:
  - hflip
  - pick: {p: p, count: "sum(chosen[y], over=ops)", weights: "chosen[y]", strength: "uniform()"}
update:
  - at: epoch_end
    when: "epoch > warm"
    let: {better: "max(1, weight + chosen * sign(correct - previous))"}
    set: {weight: better, previous: correct}
"""


def load(document: str | dict[str, Any], **more: Any) -> Strategy:
    data = yaml.safe_load(document) if isinstance(document, str) else document
    return load_strategy(data, BUILT_IN, **more)


def small(**parts: Any) -> dict[str, Any]:
    return {"augkit": 1, "name": "small", "pipeline": [], **parts}


def faults(document: Any, tmp_path: Path | None = None, **more: Any) -> list[DocumentError]:
    source = document
    if tmp_path is not None:
        source = tmp_path / "my.yaml"
        source.write_text(document, encoding="utf-8")
    with pytest.raises(DocumentError) as caught:
        load_strategy(source, BUILT_IN, **more)
    return list(caught.value.problems)


def fault(document: Any, **more: Any) -> str:
    found = faults(document, **more)
    assert len(found) == 1, [str(problem) for problem in found]
    return str(found[0])


def test_a_document_becomes_a_strategy() -> None:
    strategy = load(LEARNER)
    flip, pick = strategy.pipeline
    assert isinstance(flip, OperatorStep) and flip.choice.operator.name == "hflip" and flip.strength is None
    assert isinstance(pick, PickStep) and pick.p.text == "p" and pick.replace is False
    assert [choice.operator.name for choice in strategy.choices] == ["vflip", "rotate", "equalize"]
    assert strategy.choices[1].high == 30 and strategy.choices[1].signed
    assert list(strategy.state).index("weight") < list(strategy.state).index("chosen"), "init finds what it reads"
    assert strategy.state["weight"].axes == ("classes", "ops"), "axes stand in canonical order"
    assert strategy.needs == {"observe"} and strategy.reads >= {"correct", "chosen", "y"} and not strategy.mixes
    typed = strategy.typed
    assert typed["pipeline[1].pick.p"].constant == 0.5
    assert (typed["pipeline[1].pick.count"].low, typed["pipeline[1].pick.count"].high) == (0, 3)
    assert typed["pipeline[1].pick.strength"].axes == ("batch", "picks")
    assert typed["state.weight.clamp.low"].constant == 1 and "state.weight.clamp.high" not in typed
    assert typed["update[0].set.weight"].axes == ("classes", "ops") and typed["update[0].when"].axes == ()
    with pytest.raises(Exception, match="frozen"):
        strategy.name = "other"  # type: ignore[misc]
    assert copy.deepcopy(strategy).hash == strategy.hash


def test_steps_of_every_kind() -> None:
    strategy = load(
        small(
            palette="randaugment14",
            pipeline=[
                {"color_jitter": {"brightness": 0.3, "saturation": 1.5}},
                {"rotate": {"degrees": 15, "p": 0.5}},
                {"rotate": {"degrees": 15, "signed": True}},
                {"rotate": {"strength": "2/4", "high": "3 * 5"}},
                {"rotate": None},
                {"cutout": {"length": 8}},
                {
                    "one_of": [
                        "hflip",
                        ["vflip", {"posterize": {"bits": 4}}],
                        {"weight": "1/2", "steps": [{"pick": {}}]},
                    ]
                },
                {"use": {"name": "randaugment", "p": 0.5, "params": {"m": 5}}},
                {"batch": ["mixup", {"one_of": [{"cutmix": {"alpha": 0.3}}, {"weight": 3, "steps": ["mixup"]}]}]},
            ],
        )
    )
    brightness, color, plain, random, half, free, cutout, ways, use, batch = strategy.pipeline
    assert isinstance(brightness, OperatorStep) and isinstance(color, OperatorStep)
    assert (brightness.choice.operator.name, str(brightness.value)) == ("brightness", "uniform(0.7, 1.3)")
    assert (color.choice.operator.name, str(color.value)) == ("color", "uniform(0, 2.5)")
    assert isinstance(plain, OperatorStep) and not plain.choice.signed and plain.strength is None
    assert isinstance(random, OperatorStep) and random.choice.signed
    assert isinstance(half, OperatorStep) and half.choice.high == 15 and half.choice.signed
    assert isinstance(free, OperatorStep) and str(free.strength) == "uniform()"
    assert isinstance(cutout, OperatorStep) and cutout.choice.options == {"length": 8}
    assert isinstance(ways, OneOfStep) and [len(way.steps) for way in ways.alternatives] == [1, 2, 1]
    assert isinstance(use, UseStep) and use.strategy.params["m"] == 5 and use.strategy.name == "randaugment"
    assert isinstance(batch, BatchStep) and isinstance(batch.mixes[1], OneOfMix) and strategy.mixes
    typed = strategy.typed
    assert typed["pipeline[2].rotate.value"].constant == 15
    assert typed["pipeline[4].rotate.strength"].constant == 0.5
    assert typed["pipeline[7].one_of[2].weight"].constant == 0.5
    assert typed["pipeline[7].one_of[1].steps[1].posterize.value"].constant == 4
    assert typed["pipeline[7].one_of[2].steps[0].pick.count"].constant == 1
    assert typed["pipeline[8].use.p"].constant == 0.5
    assert typed["pipeline[9].batch[0].mixup.alpha"].constant == 1
    assert typed["pipeline[9].batch[1].one_of[0].cutmix.alpha"].constant == 0.3
    assert typed["pipeline[9].batch[1].one_of[1].weight"].constant == 3


FAULTY = """\
augkit: 2
name: "my policy"
titel: x
params: {p: "1/2", epoch: 3}
palette: [rotat, {rotate: {hihg: 3}}, {cutout: {length: no}}]
image: {resample: bicubic, exact: yes}
state:
  weight: {axes: [class], init: 1}
  ratio: {axes: [classes], init: "correct / seen", clamp: [0]}
  max: {init: 0}
pipeline:
  - pick: {p: 0.5, stength: 1, order: palete}
  - {hflip: {}, vflip: {}}
  - hflip: {p: 1.5, strength: 1}
  - rotate: {degrees: 3, strength: 1}
  - rotate: {strength: "degres / 30"}
  - one_of: []
  - use: randaugmnt
  - color_jitter: {hue: 0.1}
update:
  - at: epoch_ende
    set: {wieght: 1}
  - at: epoch_end
    when: "correct > 1"
    set: {}
"""


def test_everything_wrong_is_told_with_line_path_and_the_nearest_name(tmp_path: Path) -> None:
    found = [str(problem).removeprefix(f"{tmp_path}/") for problem in faults(FAULTY, tmp_path)]
    expected = [
        ":1: augkit: this version of augkit reads documents of version 1, not 2",
        ":2: name: a name has 1 to 100 ASCII letters A-Z a-z, digits 0-9, _ - and .",
        ':3: titel: there is no key "titel" here. Did you mean "title"?',
        ':4: params.p: a param is a number, true or false, not "1/2"',
        ':4: params.epoch: "epoch" is reserved; choose another name',
        ':5: palette[0]: there is no operator "rotat" here. Did you mean "rotate"?',
        ':5: palette[1].rotate.hihg: there is no key "hihg" here. Did you mean "high"?',
        ':5: palette[2].cutout.length: "no" is no value for length',
        ':6: image.resample: expected "nearest" or "bilinear", found "bicubic".',
        ':6: image.exact: expected true or false, found "yes"',
        ':8: state.weight.axes[0]: there is no axis "class" here. Did you mean "classes"?',
        ":9: state.ratio.clamp: expected [low, high], null for an open end, found a list",
        ':10: state.max: "max" is reserved; choose another name',
        ':12: pipeline[0].pick.stength: there is no key "stength" here. Did you mean "strength"?',
        ':12: pipeline[0].pick.order: expected "drawn" or "palette", found "palete". Did you mean "palette"?',
        ":13: pipeline[1]: expected a step: a name, or a mapping with one key, found a mapping with 2 keys",
        ':14: pipeline[2].hflip.strength: there is no key "strength" here.',
        ":15: pipeline[3].rotate: give strength or degrees, not both",
        ':16: pipeline[4].rotate.strength: there is no name "degres".',
        ":17: pipeline[5].one_of: it must not be empty: expected a list of alternatives",
        ':18: pipeline[6].use: there is no strategy "randaugmnt". Did you mean "randaugment"?',
        ':19: pipeline[7].color_jitter.hue: there is no key "hue" here. Valid: brightness, contrast, saturation.',
        ':21: update[0].at: expected "epoch_start" or "epoch_end", found "epoch_ende". Did you mean "epoch_end"?',
        ":23: update[1]: a rule sets something",
    ]
    for line in expected:
        assert any(text.startswith(f"my.yaml{line}") for text in found), (line, found)
    assert len(found) == len(expected), found
    with pytest.raises(DocumentError) as caught:
        load_strategy(tmp_path / "my.yaml", BUILT_IN)
    assert str(caught.value).count("\n") == len(expected) - 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"pipeline": [{"hflip": {"p": 2}}]}, "pipeline[0].hflip.p: `2` is 2, never within 0..1"),
        ({"pipeline": [{"rotate": {"strength": "-1 - uniform()"}}]}, "is -2..-1, never within 0..1"),
        (
            {"pipeline": [{"hflip": {"p": "uniform() +"}}]},
            "pipeline[0].hflip.p: expected a number, a name or a bracket",
        ),
        ({"pipeline": [{"hflip": {"p": "y / 10"}}, {"hflip": {"p": "sum(y)"}}]}, "`sum(x, over=axis)` needs the axis"),
        ({"pipeline": [{"hflip": {"p": None}}]}, "expected a number or an expression, not nothing"),
        ({"pipeline": [{"hflip": {"p": [1]}}]}, "expected a number or an expression, not a list"),
        ({"pipeline": ["hflap"]}, 'no operator or step "hflap" here. Did you mean "hflip"?'),
        ({"pipeline": [3]}, "expected a step: a name, or a mapping with one key, found 3"),
        ({"pipeline": {"hflip": {}}}, "pipeline: expected a list of steps, found a mapping"),
        ({"pipeline": [{"pick": {}}]}, "a pick needs a palette"),
        ({"pipeline": [{"one_of": [{"weight": -1, "steps": ["hflip"]}]}]}, "a weight is not negative"),
        ({"pipeline": [{"one_of": [{"weigth": 1, "steps": ["hflip"]}]}]}, 'Did you mean "weight"?'),
        ({"pipeline": [{"one_of": [{"weight": 1}]}]}, "expected steps: with a list, found nothing"),
        ({"pipeline": [{"batch": ["mixup"]}, "hflip"]}, "pipeline[1]: mixing comes last"),
        ({"pipeline": [{"use": "mixup"}, "hflip"]}, "pipeline[1]: mixing comes last"),
        ({"pipeline": [{"one_of": [{"use": "mixup"}]}]}, "mixing cannot be one of several steps"),
        ({"pipeline": [{"use": {"name": "mixup", "p": 0.5}}]}, "say how often with p in its own mixing steps"),
        ({"pipeline": [{"use": {"name": "randaugment", "params": {"mm": 3}}}]}, 'no param "mm".'),
        ({"pipeline": [{"use": {"nam": "randaugment"}}]}, "nam"),
        ({"pipeline": [{"batch": ["mixip"]}]}, 'no mixing step "mixip" here. Did you mean "mixup"?'),
        ({"pipeline": [{"batch": [{"mixup": {"partner": "pol"}}]}]}, 'found "pol". Did you mean "pool"?'),
        ({"pipeline": [{"batch": [{"mixup": {"alpha": -1}}]}]}, "a weight is not negative"),
        ({"pipeline": [{"color_jitter": -1}]}, "expected a number from 0 to 10"),
        ({"pipeline": [{"rotate": {"high": "uniform()"}}]}, "an expression of params alone"),
        ({"probes": {"answers": {"upto": 3, "samples": 1}}}, "probes.answers: give one of pick and steps"),
        ({"palette": "randaugment15"}, 'no palette "randaugment15" here. Did you mean "randaugment14"?'),
        ({"palette": []}, "it must not be empty"),
        ({"palette": ["hflip"] * 65}, "a palette has at most 64 operators, this has 65"),
        ({"palette": [{"hflip": {"low": 1}}]}, 'no key "low" here'),
        ({"params": {"é": 1}}, "ASCII letters A-Z a-z, digits 0-9 and _"),
        ({"params": {"__class__": 1}}, "ASCII letters A-Z a-z, digits 0-9 and _"),
        ({"params": {"p": 1e31}}, "at most 1e30"),
        ({"state": {"a": {"init": "b"}, "b": {"init": "a"}}}, "init expressions of a, b read each other in a circle"),
        ({"state": {"a": {"init": "a + 1"}}}, "`a` cannot be used here: it is what is being set up"),
        ({"state": {"a": {"init": "epoch"}}}, "nothing has been counted yet when state begins"),
        ({"state": {"a": {"axes": ["ops"]}}}, "the axis ops needs a palette"),
        ({"state": {"a": {"axes": ["samples", "classes"]}}}, "it would grow too large"),
        ({"state": {"a": {"axes": ["levels"]}}}, 'no axis "levels" here'),
        ({"state": {"a": {"clamp": [3, 1]}}}, "the low end 3 is above the high end 1"),
        ({"state": {"a": {"clamp": ["uniform()", 1]}}}, "nothing random is allowed here"),
        ({"state": {"a": {"axes": ["classes"]}}, "pipeline": [{"hflip": {"p": "a"}}]}, "own with `a[y]`"),
        ({"state": {"a": {}}, "params": {"a": 1}}, "names something else in this document already"),
        ({"update": [{"at": "epoch_end", "set": {"a": 1}}]}, 'there is no state "a" here'),
        ({"state": {"a": {}}, "update": [{"set": {"a": 1}}]}, 'update[0]: "at" is missing'),
        ({"state": {"a": {}}, "update": [{"at": "epoch_end", "set": {"a": "y"}}]}, "there is none at this place"),
        ({"state": {"a": {}}, "update": [{"at": "epoch_end", "set": {"a": "correct"}}]}, "a single number is wanted"),
        (
            {"state": {"a": {}}, "update": [{"at": "epoch_end", "let": {"a": 1}, "set": {"a": 1}}]},
            "names something else",
        ),
        (
            {"state": {"a": {}}, "update": [{"at": "epoch_end", "let": {"b": "c", "c": 1}, "set": {"a": "b"}}]},
            'there is no name "c"',
        ),
    ],
)
def test_one_fault(parts: dict[str, Any], message: str) -> None:
    found = faults(small(**parts))
    assert message in str(found[0]), str(found[0])
    if "nam" not in str(parts) or "name" in str(parts):
        assert len(found) == 1, [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("pick", "message"),
    [
        ({"count": "depth[y]"}, "can be inf, at most 64 operators are drawn"),
        ({"count": 65, "replace": True}, "can be 65, at most 64"),
        ({"count": 3}, "3 operators cannot be drawn from a palette of 2 without replace: true"),
        ({"count": -1}, "but a count is not negative"),
        ({"weights": "depth"}, "the axis classes"),
        ({"weights": "-1 - uniform()"}, "a weight is not negative"),
        ({"each_p": 1.5}, "never within 0..1"),
    ],
)
def test_faults_of_a_pick(pick: dict[str, Any], message: str) -> None:
    state = {"depth": {"axes": ["classes"], "init": 1}}
    rules = [{"at": "epoch_end", "set": {"depth": "depth + 1"}}]
    document = small(palette=["hflip", "rotate"], state=state, pipeline=[{"pick": pick}], update=rules)
    assert message in fault(document)


def test_a_clamp_or_the_rules_bound_a_count() -> None:
    document = small(
        palette=["hflip", "rotate"],
        params={"deepest": 9},
        state={
            "depth": {"axes": ["classes"], "init": 0, "clamp": [0, "deepest"]},
            "coin": {"axes": ["classes"], "init": "bernoulli(0.5)"},
        },
        pipeline=[{"pick": {"count": "depth[y]", "replace": True}}, {"pick": {"count": "coin[y] + 1"}}],
        update=[{"at": "epoch_end", "set": {"depth": "depth + 1", "coin": "1 - coin"}}],
    )
    typed = load(document).typed
    assert typed["pipeline[0].pick.count"].high == 9
    assert (typed["pipeline[1].pick.count"].low, typed["pipeline[1].pick.count"].high) == (1, 2)


def test_what_is_missing_and_what_is_no_document() -> None:
    assert {problem.message for problem in faults({})} == {
        '"augkit" is missing: write augkit: 1',
        '"name" is missing',
        '"pipeline" is missing',
    }
    with pytest.raises(DocumentError, match="is a name, a path or a mapping, not 3"):
        load_strategy(3, BUILT_IN)  # type: ignore[arg-type]
    with pytest.raises(DocumentError, match=r'no strategy "trivialagument"\. Did you mean "trivialaugment"'):
        load_strategy("trivialagument", BUILT_IN)
    with pytest.raises(DocumentError, match="No such file"):
        load_strategy("trivialaugment.yaml", BUILT_IN)


def test_params_and_image_can_be_overridden() -> None:
    assert load(LEARNER, params={"p": 0.25}).typed["pipeline[1].pick.p"].constant == 0.25
    assert load(LEARNER, image={"resample": "nearest"}).image.resample == "nearest"
    assert (
        fault(yaml.safe_load(LEARNER), params={"wram": 3}) == 'params: there is no param "wram". Did you mean "warm"?'
    )
    assert "expected a number" not in fault(yaml.safe_load(LEARNER), params={"p": "0.5"})
    assert "never within 0..1" in fault(yaml.safe_load(LEARNER), params={"p": 7})
    assert "at most 1e30" in fault(yaml.safe_load(LEARNER), params={"p": float("nan")})
    flag = small(params={"on": True}, pipeline=[{"hflip": {"p": "on"}}])
    assert load(flag, params={"on": False}).typed["pipeline[0].hflip.p"].constant == 0
    assert "expected true or false" in fault(flag, params={"on": 0.5})
    assert 'found "bicubic"' in fault(small(), image={"resample": "bicubic"})
    assert 'Did you mean "resample"' in fault(small(), image={"resampel": "nearest"})


@pytest.mark.parametrize(
    ("parts", "needs"),
    [
        ({}, set()),
        ({"pipeline": [{"hflip": {"p": "1 / (1 + class_rank[y])"}}]}, {"class_counts"}),
        ({"pipeline": [{"hflip": {"p": "epoch / epochs"}}]}, {"epochs"}),
        ({"state": {"a": {"axes": ["samples"]}}, "pipeline": [{"hflip": {"p": "a[index]"}}]}, {"index"}),
        ({"state": {"a": {"axes": ["groups"]}}, "pipeline": [{"hflip": {"p": "a[group]"}}]}, {"group"}),
        ({"pipeline": [{"hflip": {"p": "clip(index, 0, 1)"}}]}, {"index"}),
        ({"pipeline": [{"hflip": {"p": "correct[y] / seen[y]"}}]}, {"observe"}),
        ({"pipeline": [{"hflip": {"p": "val_correct[y] / val_seen[y]"}}]}, {"val"}),
        (
            {"pipeline": [{"batch": [{"cutmix": {"partner": "pool", "weights": "1 / class_count"}}]}]},
            {"pool", "class_counts"},
        ),
        ({"state": {"a": {"axes": ["classes"]}}, "pipeline": [{"hflip": {"p": "a[y]"}}]}, set()),
        ({"palette": ["hflip"], "pipeline": [{"pick": {"weights": "used[y] + 1"}}]}, set()),
    ],
)
def test_needs(parts: dict[str, Any], needs: set[str], tmp_path: Path) -> None:
    assert load(small(**parts)).needs == needs
    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(small(**parts)))
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump(small(pipeline=[{"use": "inner.yaml"}])))
    assert load_strategy(tmp_path / "outer.yaml", BUILT_IN).needs == needs


# -- generated documents --------------------------------------------------------------------------------------------


@given(documents(BUILT_IN, samples=True))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_generated_document_loads_the_same_from_json_and_yaml(document: dict[str, Any]) -> None:
    strategy = load_strategy(document, BUILT_IN)
    assert len(strategy.hash) == 64
    for path, typed in strategy.typed.items():
        assert path.partition(".")[0].partition("[")[0] in ("pipeline", "views", "state", "update", "probes")
        assert typed.low <= typed.high
    for written in (json.dumps(document), yaml.dump(document, Dumper=Plain)):
        assert load_strategy(read_text(written).data, BUILT_IN).hash == strategy.hash


@given(documents(BUILT_IN), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_misspelt_key_anywhere_is_one_clear_error(document: dict[str, Any], data: st.DataObject) -> None:
    places: list[dict[str, Any]] = []

    def walk(value: Any, inside: str) -> None:
        if isinstance(value, dict):
            if inside not in ("params", "state", "let", "set", "use", "views", "probes"):
                places.append(value)
            for key, inner in value.items():
                walk(inner, "" if inside in ("state",) else key)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, inside)

    walk(document, "")
    place = data.draw(st.sampled_from([place for place in places if place]))
    key = data.draw(st.sampled_from(sorted(place)))
    place[f"{key}zz"] = place.pop(key)
    with pytest.raises(DocumentError) as caught:
        load_strategy(document, BUILT_IN)
    assert f"{key}zz" in str(caught.value)
