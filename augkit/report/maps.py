"""Heat maps of reports: classes by epochs, or by operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

from augkit.report.charts import NAMED, epoch_ticks, unlike
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
    height, epochs = values.shape
    names, values, counts = _fewer_rows(list(rows), values, counts)
    edges = np.arange(epochs + 1)
    if columns is None and epochs > COLUMNS:
        edges = np.unique(np.linspace(0, epochs, COLUMNS + 1).round().astype(int))
        values = np.stack([_average(values[:, a:b], 1) for a, b in pairwise(edges)], 1)
    across = list(columns) if columns is not None else edges[:-1].tolist()
    data: list[dict[str, Any]] = [
        {"row": name, "at": across, "v": [None if math.isnan(v) else float(f"{v:.4g}") for v in line]}
        | ({} if counts is None else {"n": counts[place]})
        | ({"to": edges[1:].tolist()} if columns is None else {})
        for place, (name, line) in enumerate(zip(names, values, strict=True))
    ]
    merged = {
        "classes" if counts is not None else "rows": -(-height // len(names)),
        "epochs": int(np.diff(edges).max()) if columns is None else 1,
    }
    few = len(names) <= NAMED
    labels = alt.Axis(labelLimit=110, labelOverlap=False) if few else alt.Axis(labels=False, ticks=False)
    title = "classes, most images on top" if counts is not None else None
    legend = alt.Legend(title=unit, orient="top", gradientLength=180, tickCount=4)
    drawn = (
        _flat(data, epochs=columns is None)
        .mark_rect()
        .encode(
            **(_operators() if columns is not None else _epochs(epochs)),
            y=alt.Y("row:N", scale=alt.Scale(domain=names), sort=None, title=title, axis=labels),
            color=alt.Color("v:Q", scale=alt.Scale(scheme="viridis"), legend=legend),
            tooltip=_tooltip(unit, merged, counted=counts is not None, epochs=columns is None),
        )
        .properties(width="container", height=max(70, round(len(names) * (18 if few else 3.6))))
    )
    together = " and ".join(f"up to {most} {name}" for name, most in merged.items() if most > 1)
    return chart(drawn, words, f"{caption} A cell is the mean of {together}.".strip() if together else caption)


def _flat(rows: list[dict[str, Any]], *, epochs: bool) -> Any:
    """Cells of rows; those of epochs know how these are called: "8", or "8 to 14"."""
    drawn = alt.Chart(alt.Data(values=rows)).transform_flatten(["v", "at", "to"] if epochs else ["v", "at"])
    drawn = drawn.transform_filter("isValid(datum.v)")
    if not epochs:
        return drawn
    return drawn.transform_calculate(when="datum.at + (datum.to > datum.at + 1 ? ' to ' + (datum.to - 1) : '')")


def _epochs(many: int) -> dict[str, Any]:
    """Cells from their epoch to the next, each named below its middle."""
    axis = alt.Axis(values=[epoch + 0.5 for epoch in epoch_ticks(range(many))], labelExpr="floor(datum.value)")
    scale = alt.Scale(domain=[0, many], nice=False)
    return {"x": alt.X("at:Q", title="epoch (from 0)", axis=axis, scale=scale), "x2": "to:Q"}


def _operators() -> dict[str, Any]:
    return {"x": alt.X("at:N", sort=None, title=None, axis=alt.Axis(labelAngle=-50, labelLimit=110))}


def _tooltip(unit: str, merged: dict[str, int], *, counted: bool, epochs: bool) -> list[alt.Tooltip]:
    tip = [alt.Tooltip("row:N", title="class" if counted else "of")]
    if counted:
        mean = ", mean of a class" if merged["classes"] > 1 else ""
        tip.append(alt.Tooltip("n:Q", title=f"training images{mean}", format=","))
    if epochs:
        tip.append(alt.Tooltip("when:N", title="epochs" if merged["epochs"] > 1 else "epoch"))
    else:
        tip.append(alt.Tooltip("at:N", title="operator"))
    return [*tip, alt.Tooltip("v:Q", title=unit, format=".3~f")]


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
