"""The charts of reports: from a few numbers to specifications of Vega-Lite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import altair as alt
from markupsafe import Markup

from augkit.report.page import COLORS, chart

GROUPS = ("many", "medium", "few")
NAMED = 30
"""Classes whose names are written along an axis."""
DOTTED = 60
"""Epochs that have a dot along a line; of more the dots are there for the pointer alone."""
TICKS = 12
"""The most epochs that are named along an axis."""
UNSEEN = {"size": 40, "fillOpacity": 0, "strokeOpacity": 0}  # its opacity is that of the line that is picked
SERIES = ("#888888", "#2a9d9d", "#8d6cc0", "#e0a030", "#3b6ea5", "#c0504d", "#4f8a4b", "#b8732e", "#d26f9e", "#6f8fd2")


def bands() -> alt.Scale:
    """The colours of many, medium and few."""
    return alt.Scale(domain=list(GROUPS), range=[COLORS[name] for name in GROUPS])


def series_colors(names: Sequence[str], of: Sequence[str] = ()) -> alt.Scale:
    """A colour for each name, by its place among all of them; bands keep theirs."""

    def color(place: int, name: str) -> str:
        band = name.rpartition(", ")[2]
        return COLORS.get(band if band in GROUPS else name, SERIES[place % len(SERIES)])

    places = {name: place for place, name in enumerate(of or names)}
    colors = [color(places[name], name) for name in names]
    return alt.Scale(domain=list(names), range=colors)


def legend(title: str | None = None, names: Sequence[str] = ()) -> alt.Legend | None:
    """Above the chart, so that a narrow page has room for both; none for a single line."""
    if len(names) == 1:
        return None
    longest, together = max(map(len, names), default=0), sum(len(name) + 4 for name in names)
    columns = 1 if longest > 24 else 2 if together > 44 else 0
    return alt.Legend(
        title=title, orient="top", columns=columns, labelLimit=170 if columns == 2 else 300, symbolOpacity=1
    )


def _percent(title: str) -> alt.Y:
    return alt.Y("value:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=value_axis(True))


def accuracy_by_class(classes: Sequence[Mapping[str, Any]], which: str) -> Markup:
    """A bar for each class, most training images first, coloured by band; a line for the number of these images.

    Args:
        classes: `name`, `count`, `group`, `images`, `accuracy` 0..1 or None; in that order.
        which: of which images: "test" or "validation".
    """
    rows = [
        rounded({"class": name, "n": row["count"], "band": row["group"], "of": row["images"], "value": row["accuracy"]})
        for name, row in zip(unlike([row["name"] for row in classes]), classes, strict=True)
    ]
    x = alt.X("class:N", sort=None, title="classes, most training images first", axis=class_axis(rows))
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
        color=alt.Color("band:N", scale=bands(), legend=legend("classes with")),
        tooltip=tip,
    )
    counted = alt.Scale(type="symlog" if any(row["n"] == 0 for row in rows) else "log")  # the logarithm has no 0
    images = base.mark_line(color="#888888", strokeWidth=1.5, point={"color": "#888888", "size": 12}).encode(
        y=alt.Y("n:Q", title="training images (line)", scale=counted, axis=_log_axis(rows)), tooltip=tip
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


def class_axis(rows: Sequence[Mapping[str, Any]]) -> alt.Axis:
    if len(rows) > NAMED:
        return alt.Axis(labels=False, ticks=False)
    angle = -50 if max(len(row["class"]) for row in rows) > 3 else 0
    return alt.Axis(labelAngle=angle, labelLimit=110, labelOverlap=False)


def _log_axis(rows: Sequence[Mapping[str, Any]]) -> alt.Axis:
    low, high = min(row["n"] for row in rows), max(row["n"] for row in rows)
    ticks = [step * 10**power for power in range(7) for step in (1, 3) if step * 10**power <= 1.5 * high][-8:]
    return alt.Axis(values=ticks if low else [0, *ticks], format="~s", grid=False)


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
    dots = {"size": 60} if epochs == 1 else {"size": 14} if epochs <= DOTTED else UNSEEN
    form = ".1%" if percent else ".3~f"
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=percent), axis=value_axis(percent))
    picked = alt.selection_point(fields=["series"], bind="legend", name="picked")
    color = alt.Color(
        "series:N", scale=series_colors(drawn_names, names), sort=drawn_names, legend=legend(names=drawn_names)
    )
    base = alt.Chart(alt.Data(values=[rounded(row) for row in rows])).encode(
        x=alt.X(
            "epoch:Q",
            title="epoch (from 0)",
            axis=alt.Axis(values=epoch_ticks([row["epoch"] for row in rows]), format="d"),
            scale=alt.Scale(nice=False),
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


def epoch_ticks(epochs: Iterable[int]) -> list[int]:
    """Whole epochs with a tick: each of them, or of many every 2nd, 5th, 10th, ... one. Vega by itself would set ticks
    between two epochs that are close, and write their rounded numbers."""
    known = sorted(set(epochs))
    steps = (step * 10**power for power in count() for step in (1, 2, 5))
    step = next(step for step in steps if known[-1] - known[0] < TICKS * step)
    first = -(-known[0] // step) * step
    return list(range(first, known[-1] + 1, step))


def value_axis(percent: bool) -> alt.Axis:
    return alt.Axis(format=".0%", tickCount=6) if percent else alt.Axis(tickCount=6)


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: few digits, and None for what is no number."""

    def plain(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return round(value, 5) if math.isfinite(value) else None

    return {name: plain(value) for name, value in row.items()}
