"""The charts of a search's report, drawn from its facts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from markupsafe import Markup

from augkit.report.charts import curves as lines
from augkit.report.charts import legend
from augkit.report.maps import map_of
from augkit.report.page import chart

COLORS = ("#3b6ea5", "#c0504d", "#4f8a4b", "#8d6cc0", "#e0a030", "#2a9d9d")
CONTROLS = {"none": "#999999", "uniform_class_choice": "#c9a227", "trivialaugment": "#5aa0a0"}
Row = dict[str, Any]


def curves(facts: Mapping[str, Any]) -> list[Markup]:
    """A chart for each stage: each strategy's reward where it was found, the best so far, and the controls as bands."""
    parts = [part for part in facts["curves"] if part["points"] or part["controls"]]
    who = list(dict.fromkeys(point["who"] for part in parts for point in part["points"]))
    end = max(1, facts["spent"]["evaluations"])
    return [_stage(part, who, end) for part in parts]


def _stage(part: Mapping[str, Any], who: Sequence[str], end: int) -> Markup:
    names = [*who, *(one["name"] for one in part["controls"])]
    palette = {name: COLORS[k % len(COLORS)] for k, name in enumerate(who)} | CONTROLS
    color = alt.Color(
        "who:N",
        scale=alt.Scale(domain=names, range=[palette.get(name, "#888888") for name in names]),
        legend=legend(names=names),
    )
    x = alt.X("at:Q", title="evaluations so far (training runs)", scale=alt.Scale(domain=[0, end], nice=False))
    layers: list[alt.Chart] = []
    if part["controls"]:
        layers += _controls(part["controls"], end, color)
    if part["points"]:
        layers += _points(part["points"], who, end, color)
    epochs = f"{part['epochs']} epoch{'s' * (part['epochs'] > 1)}"
    title = f"reward in the stage {part['stage']}, {epochs}"
    drawn = alt.layer(*layers).encode(x=x).properties(width="container", height=240)
    best = max(part["points"], key=lambda one: float(one["reward"]), default=None)
    told = "" if best is None else f" The highest is {best['reward']:.3f}, by {best['who']} ({best['found']})."
    others = "".join(f" {one['name']} has {one['reward']:.3f}." for one in part["controls"])
    words = f"Reward of {len(part['points'])} strategies against evaluations, {title}.{told}{others}"
    return chart(drawn, words, f"{title[:1].upper()}{title[1:]}.")


def _controls(controls: Sequence[Mapping[str, Any]], end: int, color: alt.Color) -> list[alt.Chart]:
    rows: list[Row] = [
        {
            "at": at,
            "who": one["name"],
            "reward": one["reward"],
            "low": one["reward"] - one["standard_error"],
            "high": one["reward"] + one["standard_error"],
        }
        for one in controls
        for at in (0, end)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(color=color)
    tip = [alt.Tooltip("who:N", title="control"), alt.Tooltip("reward:Q", format=".3f")]
    band = base.mark_area(opacity=0.16).encode(y=_reward("low:Q"), y2="high:Q")
    return [band, base.mark_line(strokeDash=[5, 4], strokeWidth=1.2).encode(y=_reward(), tooltip=tip)]


def _points(points: Sequence[Mapping[str, Any]], who: Sequence[str], end: int, color: alt.Color) -> list[alt.Chart]:
    """Points with their errors, and a line along the best so far of each origin."""
    rows: list[Row] = [
        {
            "at": one["evaluations"],
            "who": one["who"],
            "found": one["found"],
            "reward": one["reward"],
            "low": one["reward"] - one["standard_error"],
            "high": one["reward"] + one["standard_error"],
            "error": one["standard_error"],
        }
        for one in points
    ]
    tip = [
        alt.Tooltip("found:N", title="strategy"),
        alt.Tooltip("who:N", title="by"),
        alt.Tooltip("reward:Q", format=".3f"),
        alt.Tooltip("error:Q", title="standard error", format=".3f"),
        alt.Tooltip("at:Q", title="evaluations"),
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(color=color, tooltip=tip)
    steps = [row for name in who for row in _so_far([row for row in rows if row["who"] == name], end)]
    best = alt.Chart(alt.Data(values=steps)).mark_line(interpolate="step-after", strokeWidth=2)
    return [
        base.mark_rule(opacity=0.6).encode(y=_reward("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=45, opacity=0.8).encode(y=_reward()),
        best.encode(color=color, y=_reward()),
    ]


def _so_far(rows: Sequence[Row], end: int) -> list[Row]:
    """The best until each evaluation, to the end."""
    found: list[Row] = []
    for row in rows:
        best = max(row["reward"], found[-1]["reward"]) if found else row["reward"]
        found.append({"at": row["at"], "who": row["who"], "reward": best})
    return [*found, {**found[-1], "at": end}] if found else []


def _reward(field: str = "reward:Q") -> alt.Y:
    return alt.Y(field, title="reward", scale=alt.Scale(zero=False))


def use(found: Mapping[str, Any]) -> list[Markup]:
    """How often an image of each class group met each operator, and all operators together by epoch."""
    groups, operators = [group for group in found["by_epoch"] if group != "all"], found["operators"]
    share = np.array([np.mean(found["by_epoch"][group], 0) for group in groups], dtype=np.float64)
    most = operators[int(share.mean(0).argmax())]
    words = f"Times an image met each of {len(operators)} operators, by class group; most often {most}."
    rows = [
        {"epoch": epoch, "series": group, "value": float(sum(met))}
        for group in groups
        for epoch, met in enumerate(found["by_epoch"][group])
    ]
    ends = ", ".join(f"{group} {sum(found['by_epoch'][group][-1]):.2f}" for group in groups)
    return [
        map_of(share, groups, "times an image met it", words, "Over all epochs.", columns=operators),
        lines(rows, "operators an image", f"Operators an image in the last epoch: {ends}.", percent=False),
    ]


def searches(all_of_them: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """The best reward so far of several searches, a chart for each stage."""
    names = [one["label"] for one in all_of_them]
    drawn = []
    for number, part in enumerate(all_of_them[0]["curves"]):
        rows: list[Row] = []
        for one in all_of_them:
            points = [
                {"at": point["evaluations"], "who": one["label"], "reward": point["reward"]}
                for point in one["curves"][number]["points"]
            ]
            rows += _so_far(points, one["spent"]["evaluations"])
        if not rows:
            continue
        scale = alt.Scale(domain=names, range=[COLORS[k % len(COLORS)] for k in range(len(names))])
        tip = [alt.Tooltip("who:N", title="search"), alt.Tooltip("at:Q", title="evaluations")]
        best = (
            alt.Chart(alt.Data(values=rows))
            .mark_line(interpolate="step-after", strokeWidth=2, point=True)
            .encode(
                x=alt.X("at:Q", title="evaluations so far"),
                y=_reward(),
                color=alt.Color("who:N", scale=scale, legend=legend(names=names)),
                tooltip=[*tip, alt.Tooltip("reward:Q", title="best reward", format=".3f")],
            )
            .properties(width="container", height=220)
        )
        ends = "; ".join(f"{row['who']} {row['reward']:.3f}" for row in {row["who"]: row for row in rows}.values())
        drawn.append(chart(best, f"Best reward so far, stage {part['stage']}: {ends}.", f"Stage {part['stage']}."))
    return drawn
