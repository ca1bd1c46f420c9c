"""The charts of reports: from a few numbers to specifications of Vega-Lite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

from augkit.report.page import COLORS, chart

GROUPS = ("many", "medium", "few")
NAMED = 30
"""Classes whose names are written along an axis."""
DOTTED = 60
"""Epochs that have a dot along a line; of more the dots are there for the pointer alone."""
SERIES = ("#888888", "#2a9d9d", "#8d6cc0", "#e0a030", "#3b6ea5", "#c0504d", "#4f8a4b", "#b8732e", "#d26f9e", "#6f8fd2")


def bands() -> alt.Scale:
    """The colours of many, medium and few."""
    return alt.Scale(domain=list(GROUPS), range=[COLORS[name] for name in GROUPS])


def _series(names: Sequence[str], of: Sequence[str] = ()) -> alt.Scale:
    """A colour for each name, by its place among all of them; bands keep theirs."""

    def color(place: int, name: str) -> str:
        band = name.rpartition(", ")[2]
        return COLORS.get(band if band in GROUPS else name, SERIES[place % len(SERIES)])

    places = {name: place for place, name in enumerate(of or names)}
    colors = [color(places[name], name) for name in names]
    return alt.Scale(domain=list(names), range=colors)


def _legend(title: str | None = None, names: Sequence[str] = ()) -> alt.Legend | None:
    """Above the chart, so that a narrow page has room for both; none for a single line."""
    if len(names) == 1:
        return None
    wide = sum(len(name) + 4 for name in names) > 44
    return alt.Legend(
        title=title, orient="top", columns=2 if wide else 0, labelLimit=170, symbolLimit=30, symbolOpacity=1
    )


def _percent(title: str, *, grid: bool = True, low: float = 0) -> alt.Y:
    scale = alt.Scale(domain=[low, 1])
    return alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(format=".0%", grid=grid, tickCount=6))


def accuracy_by_class(classes: Sequence[Mapping[str, Any]], which: str) -> Markup:
    """A bar for each class, most training images first, coloured by band; a line for the number of these images.

    Args:
        classes: `name`, `count`, `group`, `images`, `accuracy` 0..1 or None; in that order.
        which: of which images: "test" or "validation".
    """
    rows = [
        {"class": name, "n": row["count"], "band": row["group"], "of": row["images"], "value": row["accuracy"]}
        for name, row in zip(unlike([row["name"] for row in classes]), classes, strict=True)
    ]
    x = alt.X("class:N", sort=None, title="classes, most training images first", axis=_class_axis(rows))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x)
    tip = [
        alt.Tooltip("class:N", title="class"),
        alt.Tooltip("n:Q", title="training images", format=","),
        alt.Tooltip("band:N", title="band"),
        alt.Tooltip("value:Q", title=f"{which} accuracy", format=".1%"),
        alt.Tooltip("of:Q", title=f"{which} images", format=","),
    ]
    bars = base.mark_bar().encode(
        y=_percent(f"{which} accuracy"),
        color=alt.Color("band:N", scale=bands(), legend=_legend("classes with")),
        tooltip=tip,
    )
    images = base.mark_line(color="#888888", strokeWidth=1.5, point={"color": "#888888", "size": 12}).encode(
        y=alt.Y("n:Q", title="training images (line)", scale=alt.Scale(type="log"), axis=_log_axis(rows)), tooltip=tip
    )
    drawn = alt.layer(bars, images).resolve_scale(y="independent").properties(width="container", height=260)
    known = [row for row in classes if row["accuracy"] is not None]
    ends = sorted(known, key=lambda row: row["accuracy"])
    said = f"Bars: {which} accuracy of {len(rows)} classes, those with most training images first."
    if ends:
        said += (
            f" Lowest {ends[0]['accuracy']:.1%} ({ends[0]['name']}), highest {ends[-1]['accuracy']:.1%}"
            f" ({ends[-1]['name']}). The table by class has every number."
        )
    return chart(
        drawn, said, "Hover over a bar, or open the table below. Line: training images, on a logarithmic scale."
    )


def _class_axis(rows: Sequence[Mapping[str, Any]]) -> alt.Axis:
    if len(rows) > NAMED:
        return alt.Axis(labels=False, ticks=False)
    angle = -50 if max(len(row["class"]) for row in rows) > 3 else 0
    return alt.Axis(labelAngle=angle, labelLimit=110, labelOverlap=False)


def _log_axis(rows: Sequence[Mapping[str, Any]]) -> alt.Axis:
    high = max(row["n"] for row in rows)
    ticks = [step * 10**power for power in range(7) for step in (1, 3) if step * 10**power <= 1.5 * high]
    return alt.Axis(values=ticks[-8:], format="~s", grid=False)


def unlike(names: Sequence[str]) -> list[str]:
    """The same names, numbered where one comes twice, so that none hides another."""
    return [name if names.index(name) == k else f"{name} ({k})" for k, name in enumerate(names)]


def curves(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    words: str,
    caption: str = "",
    *,
    percent: bool = True,
    names: Sequence[str] = (),
) -> Markup:
    """Lines over epochs, one for each series, with a band where seeds spread.

    Args:
        rows: `epoch`, `series`, `value`, and `low` and `high` for a band.
        title: of the y axis.
        words: for those who do not see it.
        caption: under it.
        percent: the values are 0..1.
        names: all series of the page, of which each has the same colour in every chart.
    """
    drawn_names = list(dict.fromkeys(row["series"] for row in rows))
    epochs = len({row["epoch"] for row in rows})
    dots = {"size": 60} if epochs == 1 else {"size": 14} if epochs <= DOTTED else {"size": 40, "opacity": 0}
    form = ".1%" if percent else ".3~f"
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=percent), axis=_value_axis(percent))
    picked = alt.selection_point(fields=["series"], bind="legend", name="picked")
    color = alt.Color(
        "series:N", scale=_series(drawn_names, names), sort=drawn_names, legend=_legend(names=drawn_names)
    )
    base = alt.Chart(alt.Data(values=[_rounded(row) for row in rows])).encode(
        x=alt.X(
            "epoch:Q", title="epoch (from 0)", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False)
        ),
        color=color,
        opacity=alt.condition(picked, alt.value(1.0), alt.value(0.15)),
    )
    tip = [alt.Tooltip("series:N", title="line"), alt.Tooltip("epoch:Q"), alt.Tooltip("value:Q", format=form)]
    lines = base.mark_line(strokeWidth=1.8, strokeJoin="round", point=dots).encode(y=y, tooltip=tip)
    parts = [lines.add_params(picked)]
    if any("low" in row for row in rows):
        spread = base.mark_area().encode(
            y=alt.Y("low:Q", title=title), y2="high:Q", opacity=alt.condition(picked, alt.value(0.18), alt.value(0.03))
        )
        parts.insert(0, spread)
    return chart(alt.layer(*parts).properties(width="container", height=230), words, caption)


def _value_axis(percent: bool) -> alt.Axis:
    return alt.Axis(format=".0%", tickCount=6) if percent else alt.Axis(tickCount=6)


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}


def differences(rows: Sequence[Mapping[str, Any]], control: str) -> Markup:
    """A point for each difference to the control, in percentage points, with its 95 % interval.

    Args:
        rows: `name`, `mean`, `low`, `high` (None with too few seeds), `verdict`.
        control: what they are differences to.
    """
    told = {1: "above", -1: "below", 0: "cannot be told"}

    def side(row: Mapping[str, Any]) -> str:
        known = row["low"] is not None and not row["low"] <= 0 <= row["high"]
        return told[(1 if row["mean"] > 0 else -1) if known else 0]

    data = [_rounded({**row, "side": side(row)}) for row in rows]
    scale = alt.Scale(domain=list(told.values()), range=[COLORS["many"], COLORS["few"], COLORS["other"]])
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, labelOverlap=False))
    tip = [
        alt.Tooltip("name:N", title="policy"),
        alt.Tooltip("mean:Q", title="difference, points", format="+.2f"),
        alt.Tooltip("low:Q", title="95 % interval from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("verdict:N", title="which means"),
    ]
    base = alt.Chart(alt.Data(values=data)).encode(y=y, color=alt.Color("side:N", scale=scale, legend=_legend()))
    x = f"test accuracy minus that of {control}, points"
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeWidth=1.5).encode(x="x:Q")
    bars = base.mark_rule(strokeWidth=3).encode(x=alt.X("low:Q", title=x), x2="high:Q", tooltip=tip)
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x=alt.X("mean:Q", title=x), tooltip=tip)
    words = f"Differences to {control}: " + "; ".join(f"{row['name']} {row['verdict']}" for row in rows) + "."
    caption = (
        "Point: mean over seeds. Line: 95 % interval. Grey: the interval contains zero, or there are too few seeds."
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
    axis = _class_axis([{"class": label} for label in labels])
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
            y=alt.Y("v:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]), axis=_value_axis(True)),
            color=alt.Color("series:N", scale=_series(names), sort=names, legend=_legend(names=names)),
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
