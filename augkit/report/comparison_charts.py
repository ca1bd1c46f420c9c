"""The charts of several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

from augkit.report import told
from augkit.report.charts import class_axis, legend, rounded, series_colors, unlike, value_axis
from augkit.report.page import COLORS, chart


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
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, labelOverlap=False))
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
    caption = (
        "Point: mean over seeds. Line: 95 % interval. Blue and red: it holds after Holm's correction for the"
        f" {looked_at} looked at. Orange: the interval leaves out zero, but it does not hold after that correction."
        " Grey: the interval contains zero, or there are too few seeds."
        if looked_at
        else "Point: mean over seeds. Grey: there are too few seeds for an interval."
    )
    return chart(
        alt.layer(zero, bars, points).properties(width="container", height=36 * len(rows) + 40), words, caption
    )


def lines_by_class(lines: Sequence[tuple[str, np.ndarray]], classes: Sequence[Mapping[str, Any]]) -> Markup:
    """Test accuracy by class, most training images first: the mean over seeds of each line.

    Args:
        lines: names, and [seeds, classes] accuracies 0..1 (nan where a class has no test image).
        classes: `name`, `count` and `group`, in that order.
    """
    names, labels = [name for name, _ in lines], unlike([row["name"] for row in classes])
    data = [
        {
            "series": name,
            "class": labels,
            "n": [row["count"] for row in classes],
            "band": [row["group"] for row in classes],
            **{
                key: [None if v != v else round(float(v), 4) for v in of(values)]
                for key, of in (("v", _over("mean")), ("low", _over("min")), ("high", _over("max")))
            },
        }
        for name, values in lines
    ]
    tip = [
        alt.Tooltip("series:N", title="policy"),
        alt.Tooltip("class:N", title="class"),
        alt.Tooltip("n:Q", title="training images", format=","),
        alt.Tooltip("band:N", title="band"),
        alt.Tooltip("v:Q", title="test accuracy, mean over seeds", format=".1%"),
        alt.Tooltip("low:Q", title="lowest", format=".1%"),
        alt.Tooltip("high:Q", title="highest", format=".1%"),
    ]
    picked = alt.selection_point(fields=["series"], bind="legend", name="picked")
    axis = class_axis([{"class": label} for label in labels])
    drawn = (
        alt.Chart(alt.Data(values=data))
        .transform_flatten(["class", "n", "band", "v", "low", "high"])
        .mark_line(strokeWidth=1.5, strokeJoin="round", point={"size": 40})
        .encode(
            x=alt.X(
                "class:N",
                sort=None,
                scale=alt.Scale(domain=labels),
                title="classes, most training images first",
                axis=axis,
            ),
            y=alt.Y("v:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]), axis=value_axis(True)),
            color=alt.Color("series:N", scale=series_colors(names), sort=names, legend=legend(names=names)),
            opacity=alt.condition(picked, alt.value(1.0), alt.value(0.12)),
            tooltip=tip,
        )
        .add_params(picked)
        .properties(width="container", height=280)
    )
    words = f"Test accuracy of {len(labels)} classes with {', '.join(names)}; the table of each run has every number."
    return chart(drawn, words, "Hover over a point for its class; click a name to see it alone.")


def _over(how: str) -> Callable[[np.ndarray], np.ndarray]:
    """Over seeds, leaving out what is missing in any of them."""
    return lambda values: np.asarray(getattr(values, how)(0))
