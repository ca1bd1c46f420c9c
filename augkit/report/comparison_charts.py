"""The charts of several runs side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

from augkit.report import told
from augkit.report.charts import class_axis, legend, rounded, series_colors, unlike, value_axis
from augkit.report.page import COLORS, chart

POINTS = 300
"""Points of a line by class; of more classes neighbours are drawn together."""
DOTTED = 100
"""Points of a line that have a dot; of more the dots are there for the pointer alone."""
LINES = "split(replace(replace(datum.label, ' with ', '|with '), ' in ', '|in '), '|')"
"""A row's name along an axis: what tells it from its namesakes is on lines of its own."""


def differences(rows: Sequence[Mapping[str, Any]], control: str, looked_at: int) -> Markup:
    """A point for each difference to the control, in percentage points, with its 95 % interval.

    Args:
        rows: `name`, `mean`, `low`, `high` (None with too few seeds), `verdict`, and `side` as `told.said` has it.
        control: what they are differences to.
        looked_at: how many differences Holm's correction is for.
    """
    shown = ("name", "mean", "low", "high", "verdict", "side")
    data = [rounded({key: row[key] for key in shown}) for row in rows]
    colors = {
        told.ABOVE: COLORS["many"],
        told.BELOW: COLORS["few"],
        told.ALONE: COLORS["medium"],
        told.NOT: COLORS["other"],
        told.FEW: COLORS["other"],
    }
    colors = {side: color for side, color in colors.items() if any(row["side"] == side for row in rows)}
    scale = alt.Scale(domain=list(colors), range=list(colors.values()))
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, labelOverlap=False, labelExpr=LINES))
    tip = [
        alt.Tooltip("name:N", title="policy"),
        alt.Tooltip("mean:Q", title="difference, points", format="+.2f"),
        alt.Tooltip("low:Q", title="95 % interval from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("verdict:N", title="which means"),
        alt.Tooltip("side:N", title="after Holm's correction"),
    ]
    base = alt.Chart(alt.Data(values=data)).encode(y=y, color=alt.Color("side:N", scale=scale, legend=legend()))
    x = f"test accuracy minus that of {control}, points"
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeWidth=1.5).encode(x="x:Q")
    bars = base.mark_rule(strokeWidth=3).encode(x=alt.X("low:Q", title=x), x2="high:Q", tooltip=tip)
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x=alt.X("mean:Q", title=x), tooltip=tip)
    not_after = {told.ALONE: f", not after Holm's correction for the {looked_at} looked at"}
    verdicts = [f"{row['name']} {row['verdict']}{not_after.get(row['side'], '')}" for row in rows]
    words = f"Differences to {control}: {'; '.join(verdicts)}."
    return chart(
        alt.layer(zero, bars, points).properties(width="container", height=36 * len(rows) + 40),
        words,
        _colors_told({row["side"] for row in rows}, looked_at),
    )


def _colors_told(sides: Set[str], looked_at: int) -> str:
    """What point, line and the colours that there are stand for."""
    holds = " and ".join(name for name, side in (("blue", told.ABOVE), ("red", told.BELOW)) if side in sides)
    said = ["Point: mean over seeds.", *["Line: 95 % interval."] * bool(sides - {told.FEW})]
    if holds:
        said.append(f"{holds.capitalize()}: it holds after Holm's correction for the {looked_at} looked at.")
    if told.ALONE in sides:
        said.append(
            "Orange: the interval leaves out zero, but it does not hold after Holm's correction for the"
            f" {looked_at} looked at."
        )
    grey = {told.NOT: "the interval contains zero", told.FEW: "there are too few seeds for an interval"}
    said += [f"Grey: {' or '.join(words for side, words in grey.items() if side in sides)}."] * bool(sides & set(grey))
    return " ".join(said)


def lines_by_class(
    lines: Sequence[tuple[str, np.ndarray]],
    classes: Sequence[Mapping[str, Any]],
    *,
    alike: bool = True,
    left_out: Sequence[str] = (),
) -> Markup:
    """Test accuracy by class, most training images first: the mean over seeds of each line.

    Args:
        lines: names, and [seeds, classes] accuracies 0..1 (nan where a class has no test image).
        classes: `name`, `count` and `group`, in that order.
        alike: all runs have these counts and groups; otherwise they are not told.
        left_out: names of lines that have other classes.
    """
    names, starts = [name for name, _ in lines], _starts(len(classes))
    bundles = [classes[start:end] for start, end in pairwise([*starts, len(classes)])]
    facts = {"class": unlike([_ends([row["name"] for row in bundle], " to ") for bundle in bundles])}
    if alike:
        facts["n"] = [_ends([f"{row['count']:,}" for row in bundle], " to ") for bundle in bundles]
        facts["band"] = [_ends([row["group"] for row in bundle], " to ") for bundle in bundles]
    seeds = max(len(values) for _, values in lines)
    data = [{"series": name, **facts, **_over_seeds(values, starts)} for name, values in lines]
    drawn = _class_lines(data, names, list(facts), seeds, bundled=len(bundles) < len(classes))
    words = f"Test accuracy of {len(classes)} classes with {', '.join(names)}; the table of each run has every number."
    return chart(drawn, words, _class_caption(names, len(classes), len(bundles), alike, left_out))


def _class_caption(names: Sequence[str], classes: int, points: int, alike: bool, left_out: Sequence[str]) -> str:
    said = ["Hover over a point for its class" + "; click a name to see it alone" * (len(names) > 1) + "."]
    if points < classes:
        less = " or one less" if classes % points else ""
        said.append(f"A point is the mean of {math.ceil(classes / points)} neighbouring classes{less}.")
    if not alike:
        said.append(f"The runs have different training images, so the order of classes is that of {names[0]}.")
    if left_out:
        said.append(f"Left out, for its classes are others: {', '.join(left_out)}.")
    return " ".join(said)


def _class_lines(
    data: Sequence[Mapping[str, Any]], names: Sequence[str], facts: Sequence[str], seeds: int, *, bundled: bool
) -> alt.Chart:
    """The lines; `facts` are what the tooltip tells of each class besides its accuracy."""
    titles = {"class": "classes" if bundled else "class", "n": "training images", "band": "band"}
    tip = [alt.Tooltip("series:N", title="policy"), *(alt.Tooltip(f"{name}:N", title=titles[name]) for name in facts)]
    spread = {"v": "test accuracy, mean over seeds", "low": "lowest", "high": "highest"}
    shown = spread if seeds > 1 else {"v": "test accuracy"}
    tip += [alt.Tooltip(f"{key}:Q", title=title, format=".1%") for key, title in shown.items()]
    picked = alt.selection_point(fields=["series"], bind="legend", name="picked")
    labels = data[0]["class"]
    dots = {"size": 40} if len(labels) <= DOTTED else {"size": 40, "fillOpacity": 0, "strokeOpacity": 0}
    axis = class_axis([{"class": label} for label in labels])
    x = alt.X(
        "class:N", sort=None, scale=alt.Scale(domain=labels), title="classes, most training images first", axis=axis
    )
    drawn: alt.Chart = (
        alt.Chart(alt.Data(values=data))
        .transform_flatten([*facts, *spread])
        .mark_line(strokeWidth=1.5, strokeJoin="round", point=dots)
        .encode(
            x=x,
            y=alt.Y("v:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]), axis=value_axis(True)),
            color=alt.Color("series:N", scale=series_colors(names), sort=names, legend=legend(names=names)),
            opacity=alt.condition(picked, alt.value(1.0), alt.value(0.12)),
            tooltip=tip,
        )
        .add_params(picked)
        .properties(width="container", height=280)
    )
    return drawn


def _starts(classes: int) -> list[int]:
    """Where each point's classes begin: one each, or, of many, neighbours together in bundles that differ by one."""
    points = min(classes, POINTS)
    return [k * classes // points for k in range(points)]


def _ends(texts: Sequence[str], between: str) -> str:
    """The first and the last, or the one that both are."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}{between}{texts[-1]}"


def _over_seeds(values: np.ndarray, starts: Sequence[int]) -> dict[str, list[float | None]]:
    """Mean, lowest and highest over seeds of the mean of each bundle's classes.

    A class without a test image in some seed has none in all of them, and counts for none.
    """
    known = ~np.isnan(values).any(0)
    many = np.add.reduceat(known.astype(float), starts)
    sums = np.add.reduceat(np.where(known, values, 0.0), starts, axis=1)
    means = np.divide(sums, many, out=np.full_like(sums, np.nan), where=many > 0)
    return {
        key: [None if v != v else round(float(v), 4) for v in over]
        for key, over in (("v", means.mean(0)), ("low", means.min(0)), ("high", means.max(0)))
    }
