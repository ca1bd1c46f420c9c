"""Heat maps of reports: classes by epochs, or by operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

from augkit.report.charts import NAMED, unlike
from augkit.report.page import chart

ROWS, COLUMNS = 100, 40
"""The most cells of a map that way; more are averaged, so that a page stays small and quick."""
LETTERS = 24
"""Of a name beside a map."""


def map_of(
    values: np.ndarray,
    rows: Sequence[str],
    unit: str,
    words: str,
    caption: str = "",
    *,
    columns: Sequence[str] | None = None,
    counts: Sequence[int] | None = None,
) -> Markup:
    """A map, a row for each class (most training images on top) or other thing, a column for each epoch or operator.

    Args:
        values: [rows, columns]; nan leaves a cell blank.
        rows: their names.
        unit: what a value is.
        words: for those who do not see it.
        caption: under it.
        columns: their names; without them they are epochs.
        counts: training images of each row.
    """
    names, values, counts = _fewer_rows(list(rows), values, counts)
    edges = np.arange(values.shape[1] + 1)
    if columns is None and values.shape[1] > COLUMNS:
        edges = np.unique(np.linspace(0, values.shape[1], COLUMNS + 1).round().astype(int))
        values = np.stack([_average(values[:, a:b], 1) for a, b in pairwise(edges)], 1)
    across = list(columns) if columns is not None else edges[:-1].tolist()
    data: list[dict[str, Any]] = [
        {"row": name, "at": across, "v": [None if math.isnan(v) else float(f"{v:.4g}") for v in line]}
        | ({} if counts is None else {"n": counts[place]})
        | ({"to": edges[1:].tolist()} if columns is None else {})
        for place, (name, line) in enumerate(zip(names, values, strict=True))
    ]
    what = "class" if counts is not None else "of"
    tip = [alt.Tooltip("row:N", title=what)]
    tip += [] if counts is None else [alt.Tooltip("n:Q", title="training images", format=",")]
    tip += [alt.Tooltip("at:N" if columns else "at:Q", title="operator" if columns else "epoch")]
    tip += [alt.Tooltip("v:Q", title=unit, format=".3~f")]
    few = len(names) <= NAMED
    labels = alt.Axis(labelLimit=110, labelOverlap=False) if few else alt.Axis(labels=False, ticks=False)
    title = "classes, most images on top" if counts is not None else None
    drawn = alt.Chart(alt.Data(values=data)).transform_flatten(["v", "at"] if columns else ["v", "at", "to"])
    drawn = drawn.transform_filter("isValid(datum.v)")
    if columns is not None:
        x: Any = {"x": alt.X("at:N", sort=None, title=None, axis=alt.Axis(labelAngle=-50, labelLimit=110))}
    else:
        scale = alt.Scale(domain=[0, int(edges[-1])], nice=False)
        x = {
            "x": alt.X("at:Q", title="epoch (from 0)", axis=alt.Axis(tickMinStep=1, format="d"), scale=scale),
            "x2": "to:Q",
        }
    legend = alt.Legend(title=unit, orient="top", gradientLength=180, tickCount=4)
    drawn = (
        drawn.mark_rect()
        .encode(
            **x,
            y=alt.Y("row:N", scale=alt.Scale(domain=names), sort=None, title=title, axis=labels),
            color=alt.Color("v:Q", scale=alt.Scale(scheme="viridis"), legend=legend),
            tooltip=tip,
        )
        .properties(width="container", height=max(70, round(len(names) * (18 if few else 3.6))))
    )
    return chart(drawn, words, caption)


def _fewer_rows(
    names: list[str], values: np.ndarray, counts: Sequence[int] | None
) -> tuple[list[str], np.ndarray, list[int] | None]:
    """Neighbours together, until there are few enough; their counts are means."""
    names = [name if len(name) <= LETTERS else name[: LETTERS - 1] + "…" for name in names]
    if len(names) <= ROWS:
        return unlike(names), values, None if counts is None else list(counts)
    edges = np.unique(np.linspace(0, len(names), ROWS + 1).round().astype(int))
    pairs = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    told = [names[a] if b == a + 1 else f"{names[a]} and {b - a - 1} more" for a, b in pairs]
    averages = np.stack([_average(values[a:b], 0) for a, b in pairs])
    return unlike(told), averages, None if counts is None else [round(sum(counts[a:b]) / (b - a)) for a, b in pairs]


def _average(values: np.ndarray, axis: int) -> np.ndarray:
    """Of what is known; nan where nothing is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis)
    return np.asarray(np.divide(total, known.sum(axis), out=np.full(total.shape, np.nan), where=known.any(axis)))
