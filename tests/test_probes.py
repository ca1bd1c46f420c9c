"""Probes: what rules make of their answers, and what they draw."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_parts import (
    CLASSES,
    COUNTING,
    CURRICULUM,
    MIXED,
    SHIFTS,
    Oracle,
    asked,
    epochs,
    images,
    is_right,
    load,
    plans,
    read,
)
from scipy.stats import chisquare
from strategy_parts import Box
from torch import Tensor, nn

from augkit import Policy, answers
from augkit.errors import DocumentError
from augkit.learning import probes
from augkit.learning.probe_pool import ProbePool
from augkit.strategy.evaluate import evaluate
from augkit.strategy.expression import parse
from augkit.strategy.typing import Scope, check

# -- what rules make of it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [CURRICULUM, SHIFTS], ids=["curriculum", "shifts"])
def test_a_model_that_is_always_right_reaches_level_10_by_epoch_10_and_one_that_is_wrong_stays_at_0(
    document: dict[str, Any],
) -> None:
    for right in (True, False):
        policy = load(document)
        pool = ProbePool(*images())
        policy.attach_model(nn.Flatten(), pool, answer=lambda o, t, right=right: torch.full_like(t, right) > 0)
        depths = epochs(policy, 12)
        expected = [min(epoch + 1, 10) * right for epoch in range(12)]
        assert depths == [[level] * CLASSES for level in expected]


def test_an_oracle_moves_levels_as_the_rule_says_step_by_step() -> None:
    oracle = Oracle(MIXED)
    policy = asked(SHIFTS, oracle)
    depth = [0] * CLASSES
    for epoch, found in enumerate(epochs(policy, 30)):
        correct, drawn = (policy.history[epoch][f"answers.{result}"] for result in ("correct", "drawn"))
        for c in range(CLASSES):
            assert drawn[c].tolist() == [10 * (level + 1) if level <= depth[c] else 0 for level in range(11)]
            passed = all(correct[c, level] > 0.6 * drawn[c, level] for level in range(depth[c] + 1))
            depth[c] = min(max(depth[c] + (1 if passed else -1), 0), 10)
        assert found == depth
    right, number = (sum(ended[f"answers.{result}"] for ended in policy.history) for result in ("correct", "drawn"))
    assert (right[0] == number[0]).all() and (right[3] == 0).all() and depth[0] == 10 and depth[3] == 0
    share = [float(is_right(read(images()[0] / 255)[1][1::4], torch.tensor(0), torch.tensor(0.9)).float().mean())]
    assert abs(float(right[1, 0] / number[1, 0]) - share[0]) < 0.12, "images are drawn alike"
    assert 3 <= depth[1] <= 5, "0.9 right up to level 3, 0.3 beyond: it comes back whenever it passes level 3"
    assert oracle.modes == {False}


def test_the_levels_of_all_classes_together() -> None:
    document = {
        **SHIFTS,
        "state": {"depth": {"dtype": "int", "init": 0, "clamp": [0, "deepest"]}},
        "update": [
            {
                "at": "epoch_start",
                "let": {
                    "right": "sum(answers.correct, over=classes)",
                    "passed": "all(right > gamma * sum(answers.drawn, over=classes), over=levels)",
                },
                "set": {"depth": "where(passed, depth + 1, depth - 1)"},
            }
        ],
    }
    # all right, but for one class of four: 75 % in all
    assert epochs(asked(document, Oracle(torch.tensor([[1.0] * 11] * 3 + [[0.0] * 11]))), 11)[-1] == 10
    assert epochs(asked(document, Oracle(torch.tensor([[1.0] * 11] * 2 + [[0.0] * 11] * 2))), 3)[-1] == 0


REDUCTIONS = {
    "all": lambda cells: float(all(cells)),
    "any": lambda cells: float(any(cells)),
    "sum": lambda cells: sum(cells),
    "mean": lambda cells: sum(cells) / len(cells) if cells else 0.0,
    "min": lambda cells: min(cells, default=0.0),
    "max": lambda cells: max(cells, default=0.0),
}
SCOPE = Scope(
    names={
        **{f"{name}.{result}": ("classes", "levels") for name in ("a", "b") for result in ("correct", "drawn")},
        "weight": ("classes", "ops"),
    },
    probes={f"{name}.{result}": (name,) for name in ("a", "b") for result in ("correct", "drawn")},
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_cells_that_were_not_drawn_take_no_part(data: st.DataObject) -> None:
    classes, levels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    table = st.lists(st.integers(0, 3), min_size=classes * levels, max_size=classes * levels)
    values = {
        f"{name}.{result}": torch.tensor(data.draw(table)).float().view(classes, levels)
        for name in ("a", "b")
        for result in ("correct", "drawn")
    }
    sizes = {"classes": classes, "levels": levels, "ops": 2}
    box = Box({**values, "weight": torch.ones(classes, 2)}, sizes)
    name, axis = data.draw(st.sampled_from(sorted(REDUCTIONS))), data.draw(st.sampled_from(["levels", "classes"]))
    source, both = data.draw(
        st.sampled_from([("a.correct - 1", False), ("a.correct > 0.6 * a.drawn", False), ("a.correct - b.drawn", True)])
    )
    found = evaluate(check(parse(f"{name}({source}, over={axis})"), SCOPE, None), box).tolist()

    def cell(c: int, level: int) -> float:
        a, drawn, b = (float(values[key][c, level]) for key in ("a.correct", "a.drawn", "b.drawn"))
        return {"a.correct - 1": a - 1, "a.correct - b.drawn": a - b}.get(source, float(a > 0.6 * drawn))

    def there(c: int, level: int) -> bool:
        return values["a.drawn"][c, level] > 0 and (not both or values["b.drawn"][c, level] > 0)

    outer, inner = (range(classes), range(levels)) if axis == "levels" else (range(levels), range(classes))
    for i in outer:
        where = [(i, j) if axis == "levels" else (j, i) for j in inner]
        expected = REDUCTIONS[name]([cell(*at) for at in where if there(*at)])
        assert found[i] == pytest.approx(expected), (name, axis, source)
    assert box.divided == 0


def test_a_level_counts_for_all_classes_if_some_class_drew_it() -> None:
    correct = torch.tensor([[1.0, 5.0, 9.0], [2.0, 9.0, 9.0]])
    drawn = torch.tensor([[1.0, 5.0, 0.0], [1.0, 0.0, 0.0]])
    box = Box({"a.correct": correct, "a.drawn": drawn}, {"classes": 2, "levels": 3, "ops": 1})

    def value(source: str) -> list[float]:
        return evaluate(check(parse(source), SCOPE, None), box).tolist()

    assert value("sum(a.correct, over=classes)") == [3, 5, 0]
    assert value("max(sum(a.correct, over=classes), over=levels)") == 5
    assert value("min(sum(a.correct, over=classes), over=levels)") == 3, "level 2 takes no part"
    assert value("sum(mean(a.correct, over=levels), over=classes)") == 5
    assert value("sum(a.correct / a.drawn, over=levels)") == [2, 2]
    assert box.divided == 0, "what was not drawn divides nothing"


# -- what is drawn --------------------------------------------------------------------------------------------------


def test_a_probe_draws_as_the_document_says() -> None:
    policy = asked(CURRICULUM, Oracle(MIXED), batch=500)
    policy.memory.values[""]["depth"] = torch.tensor([10.0, 10, 3, 0])
    found = plans(policy)
    choice = torch.cat(
        [torch.nn.functional.pad(plan.choice, (0, 10 - plan.choice.shape[1]), value=-1) for plan, _ in found]
    )
    drawn = policy.memory.values[""]["answers.drawn"]
    assert len(choice) == drawn.sum() == 660 + 660 + 100 + 10
    level = (choice >= 0).sum(1)
    labels = torch.cat([plan.targets for plan, _ in found])
    for c in range(CLASSES):
        assert torch.bincount(level[labels == c], minlength=11).tolist() == drawn[c].tolist()
    counts = torch.bincount(choice[choice >= 0], minlength=22)
    assert chisquare(counts.numpy()).pvalue > 1e-3, "with replacement, all 22 alike"
    for plan, _ in found:
        own = (plan.choice >= 0).sum(1)[:, None].expand_as(plan.strength) / 30
        valued = ~plan.strength.isnan() & (plan.choice >= 0)
        assert torch.allclose(plan.strength[valued], own[valued])
    number = torch.cat([batch[:, 1, 0, 0] for _, batch in found])[labels == 0]
    assert (torch.cat([batch[:, 0, 0, 0] for _, batch in found]) == labels * 20 + 10).all(), "of its own class"
    assert chisquare(torch.bincount((number - 1) // 4, minlength=20).numpy()).pvalue > 1e-3, "images of a class alike"


def test_numbers_depend_on_neither_batch_size_nor_what_is_asked_beside() -> None:
    probability = torch.rand(CLASSES, 11, generator=torch.Generator().manual_seed(1))
    histories = []
    for batch in (None, 7, 1000):
        policy = asked(SHIFTS, Oracle(probability), batch=batch)
        epochs(policy, 6)
        histories.append(policy.history)
    for other in histories[1:]:
        for own, its in zip(histories[0], other, strict=True):
            assert all(torch.equal(own[f"answers.{name}"], its[f"answers.{name}"]) for name in ("correct", "drawn"))
    policy = asked(SHIFTS, Oracle(probability), seed=4)
    epochs(policy, 6)
    assert any(
        not torch.equal(a["answers.correct"], b["answers.correct"])
        for a, b in zip(policy.history, histories[0], strict=True)
    )


def test_batches_are_large_and_all_but_the_last_of_one_size() -> None:
    oracle = Oracle(MIXED)
    policy = asked(SHIFTS, oracle, batch=64)
    policy.memory.values[""]["depth"] = torch.full((4,), 5.0)
    policy.begin_epoch()
    assert oracle.sizes == [64] * (4 * 210 // 64) + [4 * 210 % 64] and policy.probe_images == 840


def test_images_are_augmented_in_pieces_of_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, oracle, original = list[int](), Oracle(MIXED), answers.execute

    def noted(made: Tensor, *rest: Any, **more: Any) -> Tensor:
        pieces.append(len(made))
        return original(made, *rest, **more)

    monkeypatch.setattr(answers, "execute", noted)
    monkeypatch.setattr(probes, "AUGMENTED", 200 * 6 * 16)
    policy = asked(SHIFTS, oracle, batch=64)
    policy.memory.values[""]["depth"] = torch.full((4,), 5.0)
    policy.begin_epoch()
    assert pieces == [192] * 4 + [72]  # three batches of 64 are the most within 200 images
    assert oracle.sizes == [64] * 13 + [8]


def test_what_stands_around_the_strategy_runs_as_in_training_and_its_own_steps_do_not() -> None:
    inner = {**CURRICULUM, "pipeline": [*CURRICULUM["pipeline"], "invert"]}
    policy = load({**inner, "pipeline": inner["pipeline"]})
    policy.attach_model(Oracle(MIXED), ProbePool(*images()))
    assert not any("invert" in plan.describe(0) for plan, _ in plans(policy)), (
        "the probe stands in place of the pipeline"
    )


def test_a_probe_happens_with_certainty_inside_its_surroundings(tmp_path: Any) -> None:
    import yaml

    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(SHIFTS))
    around = [{"hflip": {"p": 1}}, {"use": "inner.yaml"}, {"vflip": {"p": 0.5}}, {"batch": ["mixup"]}]
    outer = {"augkit": 1, "name": "outer", "image": SHIFTS["image"], "pipeline": around}
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump(outer))
    chance = {**outer, "pipeline": [around[0], {"use": {"name": "inner.yaml", "p": 0.25}}, around[2]]}
    (tmp_path / "chance.yaml").write_text(yaml.safe_dump(chance))
    for name in ("outer", "chance"):
        policy = Policy.load(tmp_path / f"{name}.yaml", class_counts=[20] * CLASSES)
        assert {"model", "pool"} <= policy.needs and policy.pool is None
        policy.attach_model(Oracle(MIXED), ProbePool(*images()))
        policy.memory.values["pipeline[1]/"]["depth"] = torch.full((4,), 10.0)
        words = [plan.describe(i).split(", then ") for plan, _ in plans(policy) for i in range(len(plan))]
        assert all(said[0] == "hflip" and said[1].startswith("translate_x_pixels") for said in words)
        flipped = sum(said[-1] == "vflip" for said in words)
        assert abs(flipped - len(words) / 2) < 4 * (len(words) / 4) ** 0.5
        assert "pipeline[1]/answers.drawn" in policy.memory.asked()


def test_views_take_no_part() -> None:
    policy = asked({**SHIFTS, "views": {"a": ["hflip"], "b": []}}, Oracle(MIXED))
    assert all(not plan.views for plan, _ in plans(policy))
    assert epochs(policy, 3)[-1][0] == 3


def test_a_strategy_of_a_view_is_asked_in_that_view_alone(tmp_path: Any) -> None:
    import yaml

    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(SHIFTS))
    views = {"a": ["equalize"], "b": {"times": 2, "steps": ["vflip", {"use": "inner.yaml"}, {"invert": {"p": 0.5}}]}}
    middle = {"augkit": 1, "name": "middle", "image": SHIFTS["image"], "pipeline": ["hflip"], "views": views}
    (tmp_path / "middle.yaml").write_text(yaml.safe_dump(middle))
    outer = {**middle, "name": "outer", "pipeline": [{"brightness": {"factor": 0.5}}, {"use": "middle.yaml"}]}
    (tmp_path / "outer.yaml").write_text(yaml.safe_dump({**outer, "views": None}))
    for name, path in (("middle", "views.b[1]/"), ("outer", "pipeline[1]/views.b[1]/")):
        policy = Policy.load(tmp_path / f"{name}.yaml", class_counts=[20] * CLASSES)
        assert {"model", "pool"} <= policy.needs and len(policy.views) == 3
        policy.attach_model(Oracle(MIXED), ProbePool(*images()))
        policy.memory.values[path]["depth"] = torch.full((4,), 10.0)
        found = list(plans(policy))
        assert all(not plan.views for plan, _ in found)
        words = [plan.describe(i).split(", then ") for plan, _ in found for i in range(len(plan))]
        before = ["brightness 0.5 times"] * (name == "outer") + ["hflip", "vflip"]
        assert all(said[: len(before)] == before for said in words)
        assert all(said[len(before)].startswith("translate_x_pixels") for said in words)
        assert abs(sum(said[-1] == "invert" for said in words) - len(words) / 2) < 4 * (len(words) / 4) ** 0.5
        assert f"{path}answers.drawn" in policy.memory.asked()


def test_training_answers_are_not_counted_in_a_view(tmp_path: Any) -> None:
    import yaml

    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(COUNTING))
    (tmp_path / "outer.yaml").write_text("{augkit: 1, name: o, pipeline: [], views: {a: [{use: inner.yaml}], b: []}}")
    with pytest.raises(DocumentError, match="counts training answers belongs into the pipeline, not into a view"):
        Policy.load(tmp_path / "outer.yaml", class_counts=[20] * CLASSES)
