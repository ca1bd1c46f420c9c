"""The page of a comparison: what its sentence and charts say of figures that are given, literally."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from augkit.lab.grid import GRID
from augkit.lab.several import _controls, _names, _table, read_comparison
from augkit.plugins import load_registry
from augkit.report import comparison_page, told
from augkit.report.comparison import draw_differences
from augkit.report.comparison_charts import lines_by_class
from augkit.report.facts import Comparison, Run, Series
from augkit.report.pictures import COLORS

GROUPS = ("all", "many", "medium", "few")


def difference(low: float | None, high: float | None, p_holm: float | None = 0.01, mean: float = 0) -> dict[str, Any]:
    """A difference in points; its mean is in the middle of its interval."""
    if low is None or high is None:
        return {"mean": mean, "low": None, "high": None, "p": None, "verdict": "too few seeds to tell from none"}
    mean = (low + high) / 2
    side = f"{abs(mean):.1f} {'above' if mean > 0 else 'below'} none"
    verdict = side if told.sign(low, high) else "cannot be told from none"
    return {"mean": mean, "low": low, "high": high, "p": 0.01, "p_holm": p_holm, "verdict": verdict}


def row(name: str, found: dict[str, Any] | None, *, seeds: int = 3, right: float | None = 50) -> dict[str, Any]:
    measured = None if right is None else {"mean": right, "error": None, "seeds": seeds}
    policy, _, loss = name.partition(" with ")
    own = {"name": name, "policy": policy, "loss": loss or "ce", "seeds": list(range(seeds)), "difference": found}
    groups = dict.fromkeys(GROUPS)
    return own | groups | {"all": measured, "minutes": None, "intensity": dict(groups)}


def results(*rows: dict[str, Any], seeds: int = 3, failed: dict[str, str] | None = None) -> dict[str, Any]:
    looked_at = sum(one["difference"] is not None and one["difference"]["low"] is not None for one in rows)
    of = {"rows": list(rows), "seeds": list(range(seeds)), "differences_looked_at": looked_at, "failed": failed or {}}
    more = {"recipe": "demo", "fast": None, "measured": "once", "command": "augkit compare demo", "runs": []}
    return of | more | {"control": "none", "confidence": 0.95}


NONE = row("none", None)
ABOVE, BELOW, NOT = difference(1, 3), difference(-4, -1), difference(-1, 2, 0.6)
ALONE, DOWN = difference(0.5, 2.7, 0.09), difference(-1.5, -0.5, 0.09)
FEW = difference(None, None, mean=2)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([row("a", ABOVE)], "Above none on test images: a by 2.0 points (3 seeds, 95 % intervals)."),
        ([row("a", NOT)], "Cannot be told from none: a (3 seeds, 95 % intervals)."),
        (
            [row("a", ABOVE), row("b", BELOW), row("c", NOT)],
            "Above none on test images: a by 2.0 points; below none on test images: b by 2.5 points; cannot be told"
            " from none: c (3 seeds, 95 % intervals, Holm's correction for the 3 looked at).",
        ),
        (
            [row("a", ALONE), row("b", NOT)],
            "Differs from none by its own interval alone, not after Holm's correction for the 2 looked at: a"
            " (+1.6 points); cannot be told from none: b (3 seeds, 95 % intervals).",
        ),
        (
            [row("a", ALONE), row("b", DOWN)],
            "Differ from none by their own intervals alone, not after Holm's correction for the 2 looked at: a"
            " (+1.6 points) and b (-1.0 points) (3 seeds, 95 % intervals).",
        ),
        (
            [row("a with ce", ABOVE), row("a with ldam", BELOW)],
            "Above none on test images: a with ce by 2.0 points; below none on test images: a with ldam by 2.5 points"
            " (3 seeds, 95 % intervals, Holm's correction for the 2 looked at).",
        ),
        (
            [row(name, NOT) for name in "abcde"],
            "Cannot be told from none: a, b, c, d and e (3 seeds, 95 % intervals).",
        ),
        (
            [row(name, NOT) for name in "abcdef"],
            "Cannot be told from none: a, b, c, d and 2 more (3 seeds, 95 % intervals).",
        ),
        (
            [row("a", FEW, seeds=1, right=52)],
            "Too few seeds to tell from none: a (52.0 % right, +2.0 points) (1 seed).",
        ),
        # of two rows with the same name one has too few seeds: both are told
        (
            [row("cuda", ABOVE), row("cuda", FEW, seeds=1)],
            "Above none on test images: cuda by 2.0 points; too few seeds to tell from none: cuda (50.0 % right,"
            " +2.0 points) (3 seeds, 95 % intervals).",
        ),
    ],
)
def test_the_sentence_on_top(found: Sequence[dict[str, Any]], says: str) -> None:
    seeds = max(len(one["seeds"]) for one in found)
    assert told.answer(results(NONE, *found, seeds=seeds)) == says


def test_the_sentence_where_nothing_can_be_compared() -> None:
    assert told.answer(results(row("none", None, seeds=1), row("a", None, seeds=2, right=48))) == (
        "There is no difference to tell, because nothing else here has recipe, loss and seed in common with a finished"
        " run of none; right on test images: none 50.0 % (1 seed) and a 48.0 % (2 seeds)."
    )
    gone = [row("none", None, seeds=0, right=None), row("a", None, seeds=0, right=None)]
    assert told.answer(results(*gone, failed={"none-ce-seed0": "out of memory.", "a-ce-seed0": "out of memory"})) == (
        "Every run failed, so there is nothing to compare: out of memory (2 runs)."
    )
    failed = {"none-ce-seed0": "out of memory", "a-ce-seed0": "the loss is nan", "a-ce-seed1": "the loss is nan"}
    assert told.answer(results(*gone, failed=failed)) == (
        "Every run failed, so there is nothing to compare: out of memory (1 run) and the loss is nan (2 runs)."
    )
    assert told.answer(results(*gone)) == "No run of this comparison has ended, so there is nothing to compare."


def test_the_chart_and_the_table_of_differences_tell_what_holds_after_holm() -> None:
    found = results(NONE, row("a", ABOVE), row("b", ALONE), row("c", NOT), row("d", FEW))
    drawn = str(comparison_page.differences(found))
    spec = json.loads(drawn.partition('application/json">')[2].partition("</script>")[0])
    sides = (
        [one["side"] for one in spec["layer"][1]["data"]["values"]]
        if "data" in spec["layer"][1]
        else [one["side"] for one in spec["data"]["values"]]
    )
    assert sides == ["above", "by its interval alone", "cannot be told", "too few seeds"]
    assert "b 1.6 above none, not after Holm&#39;s correction for the 3 looked at;" in drawn
    assert "Orange: the interval leaves out zero, but it does not hold after Holm" in drawn
    assert "Grey: the interval contains zero or there are too few seeds for an interval." in drawn
    none_told = str(comparison_page.differences(results(NONE, row("c", NOT))))
    assert "Line: 95 % interval. Grey: the interval contains zero.<" in none_told  # and of no other colour
    means = [line["which means"] for line in _table(found)]
    assert means[1:4] == ["2.0 above none", "1.6 above none, not after Holm's correction", "cannot be told from none"]


def test_every_row_has_a_name_of_its_own_in_as_few_words_as_tell_it() -> None:
    def names(*kinds: tuple[str, ...]) -> list[str]:
        return list(_names(kinds).values())

    assert names(("none", "ce", "demo", "b", "1"), ("a", "ce", "demo", "b", "2")) == ["none", "a"]
    assert names(("a", "ce", "demo", "b", "1"), ("a", "ldam", "demo", "b", "2")) == ["a with ce", "a with ldam"]
    assert names(("a", "ce", "x", "b", "1"), ("a", "ce", "y", "c", "2")) == ["a in x", "a in y"]
    assert names(("a", "ce", "x", "b", "1"), ("a", "bs", "y", "c", "2"), ("a", "bs", "x", "b", "3")) == [
        "a with ce in x",
        "a with bs in y",
        "a with bs in x",
    ]
    assert names(("none", "ce", "x", "b", "1"), ("a", "ce", "x", "b", "234567"), ("a", "ce", "x", "b", "345678")) == [
        "none",
        "a (234567)",
        "a (345678)",
    ]


def test_of_several_variants_of_the_control_the_first_is_taken_and_named() -> None:
    kinds = [("a", "ce", "x", "b", "1"), ("a", "ce", "x", "b", "2"), ("c", "ce", "x", "b", "3")]
    assert _controls(kinds, "a") == ({kinds[0][1:4]: kinds[0]}, [kinds[0]])
    assert _controls(kinds[1:], "a") == ({kinds[0][1:4]: kinds[1]}, [])


def run(policy: str = "a", words: str = "", *, counts: Sequence[int] = (9, 5, 2), right: float = 0.5) -> Run:
    classes = [
        {"name": f"class {k}", "count": n, "group": "many" if n > 4 else "few", "images": 10, "accuracy": right}
        for k, n in enumerate(counts)
    ]
    records = [{"epoch": 0, "loss": 1.0, "train_accuracy": right}]
    recipe = {"name": "demo", "seed": 0, "test": True, "loss": {"name": "ce"}}
    return Run(Path("run"), recipe, policy, 1, {}, records, {}, classes, words=words)


def test_every_strategy_is_told_once() -> None:
    one, other = run(words="turns"), run(words="flips")
    found = [Series("a (1)", [one]), Series("a (2)", [other]), Series("none with ce", [run("none", "nothing")])]
    found.append(Series("none with ldam", [run("none", "nothing")]))
    found[3].runs[0].missing.append("There is no checkpoint in this folder.")
    assert comparison_page.strategies(found) == {"a (1)": one, "a (2)": other, "none": found[2].runs[0]}


def test_a_comparison_whose_runs_all_failed_has_a_page(tmp_path: Path) -> None:
    gone = [row("none", None, seeds=0, right=None), row("a", None, seeds=0, right=None)]
    stored = results(*gone, seeds=1, failed={"none-ce-seed0": "out of memory", "a-ce-seed0": "no <disk>"})
    for one in stored["rows"]:
        del one["name"]  # which results.json does not have
    (tmp_path / "results.json").write_text(json.dumps(stored))
    grid = {"control": "none", "policies": {"none": "none", "a": "a"}, "losses": ["ce"], "seeds": [0]}
    (tmp_path / GRID).write_text(json.dumps(grid))
    (tmp_path / "runs" / "a-ce-seed0").mkdir(parents=True)
    (tmp_path / "runs" / "a-ce-seed0" / "recipe.yaml").write_text("{}")
    text = comparison_page.page(read_comparison(tmp_path, load_registry()))
    assert (
        "Every run failed, so there is nothing to compare: out of memory (1 run) and no &lt;disk&gt; (1 run)." in text
    )
    assert "The run a-ce-seed0 failed: no &lt;disk&gt;" in text and 'id="runs"' not in text


def values_of(drawn: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    spec = json.loads(drawn.partition('application/json">')[2].partition("</script>")[0])
    return spec, spec["data"]["values"]


def tips(spec: dict[str, Any]) -> list[str]:
    return [one["title"] for one in spec["encoding"]["tooltip"]]


def test_counts_and_bands_by_class_are_told_only_where_all_runs_have_them() -> None:
    first = Series("a", [run(right=0.5), run(right=0.7)])
    spec, (line, other) = values_of(str(comparison_page.by_class([first, Series("b", [run(right=0.2)])])))
    assert line["class"] == other["class"] == ["class 0", "class 1", "class 2"] and line["n"] == ["9", "5", "2"]
    assert line["band"] == ["many", "many", "few"] and (line["v"][0], line["low"][0], line["high"][0]) == (
        0.6,
        0.5,
        0.7,
    )
    assert tips(spec)[2:] == ["training images", "band", "test accuracy, mean over seeds", "lowest", "highest"]
    drawn = str(comparison_page.by_class([first, Series("b", [run(counts=(2, 5, 9))])]))
    spec, lines = values_of(drawn)
    assert not any({"n", "band"} & set(one) for one in lines) and not {"training images", "band"} & set(tips(spec))
    assert "The runs have different training images, so the order of classes is that of a." in drawn
    assert "Left out, for its classes are others: c." in str(
        comparison_page.by_class([first, Series("c", [run(counts=(3, 2))])])
    )
    alone = str(comparison_page.by_class([Series("b", [run()])]))
    assert tips(values_of(alone)[0])[-1] == "test accuracy" and "click a name" not in alone


def test_many_classes_are_drawn_in_bundles_of_neighbours() -> None:
    accuracy = np.array([[0.0, 1.0] * 500, [0.5, 1.0] * 500])
    accuracy[:, :4] = np.nan
    classes = [{"name": f"c{k}", "count": 1000 - k, "group": "many" if k < 501 else "few"} for k in range(1000)]
    drawn = str(lines_by_class([("a", accuracy)], classes))
    _, (line,) = values_of(drawn)
    assert len(line["v"]) == len(line["class"]) == 300 and line["class"][:2] == ["c0 to c2", "c3 to c5"]
    assert line["n"][0] == "1,000 to 998" and "many to few" in line["band"]
    assert line["v"][0] is None and line["low"][1] == 0.5 and line["high"][1] == 0.75  # of c4 and c5 alone
    assert "A point is the mean of 4 neighbouring classes or one less." in drawn


def test_a_comparison_of_many_classes_is_a_small_page() -> None:
    rng = np.random.default_rng(0)
    series = []
    for k in range(10):
        one = run(f"policy-{k}", counts=range(2000, 0, -1))
        for name, of in enumerate(one.classes):
            of |= {"name": f"Genus species-of-some-length number {name}", "accuracy": float(rng.random())}
        series.append(Series(one.policy, [one]))
    found = results(*(row(one.name, ABOVE) for one in series))
    text = comparison_page.page(Comparison(None, "many", found, _table(found), [], series))
    assert len(text.encode()) < 2e6  # of which 0.9 MB are what draws


def test_a_caption_speaks_of_seeds_only_where_there_are_several() -> None:
    alone = "".join(map(str, comparison_page.curves([Series("a", [run()])])))
    assert "One seed each." in alone and "Mean over seeds" not in alone and "Click a name" not in alone
    two = "".join(map(str, comparison_page.curves([Series("a", [run(), run()]), Series("b", [run()])])))
    assert "Mean over seeds; the band goes from the lowest to the highest. Click a name to see it alone." in two


def test_the_picture_is_orange_where_holm_leaves_nothing(tmp_path: Path) -> None:
    def shown(name: str, *found: dict[str, Any]) -> set[str]:
        rows = [row(f"policy-{k}", one) for k, one in enumerate(found)]
        path = draw_differences(results(NONE, *rows), tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
        return {name for name in COLORS if (pixels == np.array(ImageColor.getrgb(COLORS[name]))).all(1).any()}

    assert shown("all", ABOVE, ALONE, NOT, FEW) == {"many", "medium"}
    assert shown("below", BELOW, NOT) == {"few"}
