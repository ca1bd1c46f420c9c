"""The page of several runs: what can be told between them and what cannot, then what each of them did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from augkit.report import charts, comparison_charts, told
from augkit.report.facts import Comparison, Run, Series
from augkit.report.page import render
from augkit.report.run_page import flat, percent

MOST = len(charts.SERIES)
"""Rows that a chart has colours for."""


def page(found: Comparison) -> str:
    """The page as HTML; all names in it are text, whatever they say."""
    facts = {
        "found": found,
        "answer": told.answer(found.results),
        "differences": differences(found.results),
        "by_class": by_class(found.series) if found.series else "",
        "curves": list(curves(found.series)) if found.series else [],
        "did": list(did(found.series)),
        "more": max(0, len(found.series) - MOST),
        "strategies": strategies(found.series),
        "recipe": yaml.safe_dump(_shared(found.series), sort_keys=False, allow_unicode=True),
        "environment": flat(found.series[0].runs[0].environment) if found.series else [],
        "percent": percent,
    }
    return render("comparison.html.j2", facts)


def differences(results: Mapping[str, Any]) -> Markup:
    """The chart of differences to the control."""
    rows = [
        {"name": row["name"], **row["difference"], "side": told.said(row["difference"], results["confidence"])}
        for row in results["rows"]
        if row["difference"]
    ]
    return (
        comparison_charts.differences(rows, results["control"], results["differences_looked_at"]) if rows else Markup()
    )


def strategies(series: Sequence[Series]) -> dict[str, Run]:
    """A run for each strategy, under its policy's name, or that of its row where a policy has several."""
    found: dict[tuple[str, str], tuple[str, Run]] = {}
    for one in series:
        run = next((run for run in one.runs if run.words), one.runs[0])
        found.setdefault((run.policy, run.words or " ".join(run.missing)), (one.name, run))
    several = Counter(policy for policy, _ in found)
    return {name if several[run.policy] > 1 else run.policy: run for name, run in found.values()}


def by_class(series: Sequence[Series]) -> Markup:
    """Accuracy by class, the mean over seeds, a line for each row that has the classes of the first."""
    classes = series[0].runs[0].classes
    order = sorted(range(len(classes)), key=lambda k: -classes[k]["count"])
    names = [row["name"] for row in classes]
    shown = series[:MOST]
    own = [one for one in shown if all([row["name"] for row in run.classes] == names for run in one.runs)]
    lines = [
        (one.name, np.array([[_number(run.classes[k]["accuracy"]) for k in order] for run in one.runs])) for one in own
    ]
    alike = all(
        (row["count"], row["group"]) == (first["count"], first["group"])
        for one in own
        for run in one.runs
        for row, first in zip(run.classes, classes, strict=True)
    )
    left_out = [one.name for one in shown if one not in own]
    facts = [classes[k] for k in order]
    return comparison_charts.lines_by_class(lines, facts, alike=alike, left_out=left_out)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def curves(series: Sequence[Series]) -> Iterator[Markup]:
    """Accuracy and loss over epochs, a line for each row and a band over its seeds."""
    names = [one.name for one in series]
    if all("val" in run.records[0] for one in series for run in one.runs):
        yield _curves(series, names, "validation accuracy", lambda run: [_val(record) for record in run.records])
    met = "training accuracy, as met"
    yield _curves(series, names, met, lambda run: [record["train_accuracy"] for record in run.records])
    yield _curves(series, names, "training loss", lambda run: [record["loss"] for record in run.records], percent=False)


def _val(record: Mapping[str, Any]) -> float:
    return float(record["val"]["all"]) if "val" in record else float("nan")


def did(series: Sequence[Series]) -> Iterator[Markup]:
    """Operators an image and their mean strength over epochs, of the rows whose policy has operators."""
    names = [one.name for one in series]
    own = [one for one in series if all(run.use is not None for run in one.runs)]
    if own:
        yield _curves(own, names, "operators an image", _operators, percent=False)
    graded = [
        one for one in own if all(run.use and run.use.strength is not None and run.use.graded.any() for run in one.runs)
    ]
    if graded:
        yield _curves(graded, names, "mean strength, 0 to 1", _strength, percent=False)


def _operators(run: Run) -> list[float]:
    assert run.use is not None
    return list(run.use.used.sum((1, 2)) / np.maximum(1, run.use.seen.sum(1)))


def _strength(run: Run) -> list[float]:
    assert run.use is not None and run.use.strength is not None
    many = run.use.used[:, :, run.use.graded].sum((1, 2))
    return list(np.where(many > 0, run.use.strength.sum((1, 2)) / np.maximum(1, many), np.nan))


def _curves(
    series: Sequence[Series],
    names: Sequence[str],
    title: str,
    of: Callable[[Run], Sequence[float]],
    *,
    percent: bool = True,
) -> Markup:
    rows: list[dict[str, Any]] = []
    ends = []
    for one in series[:MOST]:
        values = [of(run) for run in one.runs]
        length = min(map(len, values))
        table = np.array([line[:length] for line in values], dtype=np.float64)
        known = ~np.isnan(table).any(0)
        for epoch in np.flatnonzero(known).tolist():
            column = table[:, epoch]
            row = {"epoch": epoch, "series": one.name, "value": float(column.mean())}
            rows.append(row | ({"low": float(column.min()), "high": float(column.max())} if len(column) > 1 else {}))
        if known.any():
            last = table[:, np.flatnonzero(known)[-1]].mean()
            ends.append(f"{one.name} {last:.1%}" if percent else f"{one.name} {last:.3g}")
    banded = any("low" in row for row in rows)
    caption = "Mean over seeds; the band goes from the lowest to the highest." if banded else "One seed each."
    caption += " Click a name to see it alone." * (len(ends) > 1)
    words = f"{title}, at the end: {', '.join(ends)}."
    return charts.curves(rows, title, words, caption, percent=percent, names=names)


def _shared(series: Sequence[Series]) -> dict[str, Any]:
    """The parts of the recipe that all runs have in common."""
    recipes = [run.recipe for one in series for run in one.runs]
    first = recipes[0] if recipes else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in recipes)}
