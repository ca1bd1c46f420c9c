"""What a run's policy really did, and what it learned: charts for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from augkit.report import charts
from augkit.report.charts import GROUPS
from augkit.report.facts import Run, State, ratio
from augkit.report.maps import map_of

Lines = list[dict[str, Any]]


def of_policy(run: Run, order: Sequence[int]) -> list[Markup]:
    """Operators and strengths by band, class, epoch and operator; empty if the policy has no operator."""
    use = run.use
    if use is None:
        return []
    names, counts = _named(run, order)
    graded, met, seen = use.graded, use.used.sum(2), use.seen
    kinds = [("operators an image", "Operators an image", met, seen, "")]
    if use.strength is not None and graded.any():
        many, what = use.used[:, :, graded].sum(2), "mean strength, 0 to 1"
        kinds.append((what, "Mean strength", use.strength.sum(2), many, "Of the operators that have a strength."))
    drawn = [
        charts.curves(_by_band(run, part, whole), unit, _ends(what, ratio(part, whole)), caption, percent=False)
        for unit, what, part, whole, caption in kinds
    ]
    for unit, what, part, whole, _ in kinds if len(seen) > 1 and len(names) > 1 else []:
        values = ratio(part, whole)[:, order]
        caption = f"{what} by class and epoch{'; blank: none was met' * bool(np.isnan(values).any())}."
        drawn.append(map_of(values.T, names, unit, _words(what, values), caption, counts=counts))
    share, unit = ratio(use.used.sum(0), seen.sum(0)[:, None])[order], "times an image met it"
    caption, said = "By class and operator, over all epochs.", _by_operator(use.operators, share)
    drawn.append(map_of(share, names, unit, said, caption, columns=use.operators, counts=counts))
    if graded.any():
        own = [name for name, has in zip(use.operators, graded, strict=True) if has]
        strength = ratio(use.strength_sum[:, graded], use.used.sum(0)[:, graded])[order]
        caption, said = f"{caption} Operators without a strength are left out.", "Mean strength by class and operator."
        drawn.append(map_of(strength, names, "mean strength, 0 to 1", said, caption, columns=own, counts=counts))
    return drawn


def _named(run: Run, order: Sequence[int]) -> tuple[list[str], list[int]]:
    return [run.classes[k]["name"] for k in order], [run.classes[k]["count"] for k in order]


def of_states(run: Run, order: Sequence[int]) -> list[dict[str, Any]]:
    """Each number that the policy learned: its name and charts."""
    found = [{"name": state.name, "charts": _state(run, state, order)} for state in run.states]
    names, counts = _named(run, order)
    caption = "By class and operator, after the last epoch: epochs before it are not stored."
    for table in run.tables:
        own, said = table.operators, _by_operator(table.operators, table.values)
        if len(table.values) == 1:
            drawn = map_of(table.values, ["all classes"], table.name, said, caption, columns=own)
        else:
            drawn = map_of(table.values[order], names, table.name, said, caption, columns=own, counts=counts)
        found.append({"name": table.name, "charts": [drawn]})
    return found


def _state(run: Run, state: State, order: Sequence[int]) -> list[Markup]:
    values, name = state.values, state.name
    if values.shape[1] == 1:
        rows = [{"epoch": e, "series": name, "value": float(v[0])} for e, v in enumerate(values)]
        return [charts.curves(rows, name, f"{name}, one number for all classes.", percent=False)]
    names, counts = _named(run, order)
    caption = "By class, as it stood while each epoch's images were drawn."
    drawn = [map_of(values[:, order].T, names, name, _words(name, values), caption, counts=counts)]
    lines, caption = _by_band(run, values, np.ones_like(values)), "Mean over the classes of each band."
    return [*drawn, charts.curves(lines, name, _ends(name, values), caption, percent=False)]


def _by_band(run: Run, part: np.ndarray, whole: np.ndarray) -> Lines:
    """`part` over `whole` [epochs, classes], summed over the classes of each band, as lines of a chart."""
    groups = np.array([row["group"] for row in run.classes])
    lines: Lines = []
    for name in GROUPS:
        own = groups == name
        if own.any():
            values = ratio(part[:, own].sum(1), whole[:, own].sum(1))
            lines += [{"epoch": e, "series": name, "value": float(v) if v == v else None} for e, v in enumerate(values)]
    return lines


def _ends(what: str, values: np.ndarray) -> str:
    first, last = (float(np.nanmean(row)) if not np.isnan(row).all() else 0.0 for row in (values[0], values[-1]))
    return f"{what}, mean over classes: {first:.2f} in the first epoch, {last:.2f} in the last."


def _words(what: str, values: np.ndarray) -> str:
    """Of a map [epochs, classes], most frequent class first."""
    known = values[-1][~np.isnan(values[-1])]
    if not len(known):
        return f"{what} by class and epoch."
    ends = f"from {known.min():.3g} to {known.max():.3g}, mean {known.mean():.3g}"
    return f"{what} by class and epoch: in the last epoch {ends}."


def _by_operator(operators: Sequence[str], values: np.ndarray) -> str:
    mean = np.nanmean(np.where(np.isnan(values), 0, values), 0)
    order = np.argsort(-mean, kind="stable")
    most, least = order[0], order[-1]
    return (
        f"By class and operator, {len(operators)} operators: most {operators[most]} ({mean[most]:.3g} on average over"
        f" classes), least {operators[least]} ({mean[least]:.3g})."
    )
