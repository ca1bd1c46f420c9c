"""The page of several runs: what can be told between them and what cannot, then what each of them did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from augkit.report import charts, comparison_charts
from augkit.report.facts import Comparison, Run, Series
from augkit.report.page import render
from augkit.report.run_page import flat, percent

MOST = len(charts.SERIES)
"""Rows that a chart has colours for."""
TOLD = 4
"""Differences that the sentence on top names one by one."""


def page(found: Comparison) -> str:
    """The page as HTML; all names in it are text, whatever they say."""
    facts = {
        "found": found,
        "answer": answer(found.results),
        "differences": differences(found.results),
        "by_class": by_class(found.series) if found.series else "",
        "curves": list(curves(found.series)) if found.series else [],
        "did": list(did(found.series)),
        "more": max(0, len(found.series) - MOST),
        "strategies": {run.policy: run for one in found.series for run in one.runs},
        "recipe": yaml.safe_dump(_shared(found.series), sort_keys=False, allow_unicode=True),
        "environment": flat(found.series[0].runs[0].environment) if found.series else [],
        "percent": percent,
    }
    return render("comparison.html.j2", facts)


def answer(results: Mapping[str, Any]) -> str:
    """Which differences can be told and which cannot, in one sentence."""
    control, known = results["control"], [row for row in results["rows"] if row["difference"]]
    losses = len({row["loss"] for row in results["rows"]}) > 1
    names = {id(row): f"{row['policy']} with {row['loss']}" if losses else row["policy"] for row in known}
    if not known:
        best = [f"{row['policy']} {row['all']['mean']:.1f} %" for row in results["rows"] if row["all"]]
        return (
            f"There is no difference to tell, for no policy stands beside another with the same seeds: {_list(best)}."
        )
    few = [names[id(row)] for row in known if row["difference"]["low"] is None]
    told = [row for row in known if names[id(row)] not in few and not _holds_zero(row["difference"])]
    not_told = [names[id(row)] for row in known if names[id(row)] not in few and _holds_zero(row["difference"])]
    parts = []
    for word, sign in (("above", 1), ("below", -1)):
        own = [row for row in told if row["difference"]["mean"] * sign > 0]
        if own:
            amounts = [f"{names[id(row)]} by {abs(row['difference']['mean']):.1f} points" for row in own]
            parts.append(f"{word} {control} on test images: {_list(amounts)}")
    parts += [f"cannot be told from {control}: {_list(not_told)}"] if not_told else []
    parts += [f"too few seeds to tell from {control}: {_list(few)}"] if few else []
    sentence = "; ".join(parts)
    seeds, how = len(results["seeds"]), ", 95 % intervals" if len(few) < len(known) else ""
    return f"{sentence[:1].upper()}{sentence[1:]} ({seeds} seed{'s' * (seeds > 1)}{how})."


def _holds_zero(found: Mapping[str, Any]) -> bool:
    return bool(found["low"] <= 0 <= found["high"])


def _list(names: Sequence[str]) -> str:
    more = len(names) - TOLD
    shown = list(names[:TOLD]) if more > 1 else list(names)
    shown += [f"{more} more"] if more > 1 else []
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def differences(results: Mapping[str, Any]) -> Markup:
    """The chart of differences to the control."""
    losses = len({row["loss"] for row in results["rows"]}) > 1
    rows = []
    for row in results["rows"]:
        found = row["difference"]
        if found:
            name = f"{row['policy']}, {row['loss']}" if losses else row["policy"]
            rows.append({"name": name, **{key: found[key] for key in ("mean", "low", "high", "verdict")}})
    return comparison_charts.differences(rows, results["control"]) if rows else Markup()


def by_class(series: Sequence[Series]) -> Markup:
    """Accuracy by class, the mean over seeds, a line for each row that has the classes of the first."""
    classes = series[0].runs[0].classes
    order = sorted(range(len(classes)), key=lambda k: -classes[k]["count"])
    lines = []
    for one in series[:MOST]:
        if all([row["name"] for row in run.classes] == [row["name"] for row in classes] for run in one.runs):
            values = np.array([[_number(run.classes[k]["accuracy"]) for k in order] for run in one.runs])
            lines.append((one.name, values))
    return comparison_charts.lines_by_class(lines, [classes[k] for k in order])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def curves(series: Sequence[Series]) -> Iterator[Markup]:
    """Accuracy and loss over epochs, a line for each row and a band over its seeds."""
    names = [one.name for one in series]
    if all("val" in run.records[0] for one in series for run in one.runs):
        yield _curves(series, names, "validation accuracy", lambda run: [_val(record) for record in run.records])
    told = "training accuracy, as met"
    yield _curves(series, names, told, lambda run: [record["train_accuracy"] for record in run.records])
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
        one
        for one in own
        if all(run.use and run.use.strength is not None and run.use.strength.any() for run in one.runs)
    ]
    if graded:
        yield _curves(graded, names, "mean strength, 0 to 1", _strength, percent=False)


def _operators(run: Run) -> list[float]:
    assert run.use is not None
    return list(run.use.used.sum((1, 2)) / np.maximum(1, run.use.seen.sum(1)))


def _strength(run: Run) -> list[float]:
    assert run.use is not None and run.use.strength is not None
    graded = run.use.strength_sum.sum(0) > 0
    many = run.use.used[:, :, graded].sum((1, 2))
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
    caption = "Mean over seeds; the band goes from the lowest to the highest. Click a name to see it alone."
    words = f"{title}, at the end: {', '.join(ends)}."
    return charts.curves(rows, title, words, caption, percent=percent, names=names)


def _shared(series: Sequence[Series]) -> dict[str, Any]:
    """The parts of the recipe that all runs have in common."""
    recipes = [run.recipe for one in series for run in one.runs]
    first = recipes[0] if recipes else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in recipes)}
