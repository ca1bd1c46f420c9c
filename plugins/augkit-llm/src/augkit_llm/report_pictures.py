"""The pictures of a search's report, drawn from its facts alone, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from augkit.report.pictures import COLORS, GREY

ORIGINS = ("#3b6ea5", "#a53b4f", "#4f8a4b", "#7a5aa6", "#d9893b", "#2a9d9d")
CONTROL = {"none": "#999999", "uniform_class_choice": "#c9a227", "trivialaugment": "#5aa0a0"}


def curves(facts: Mapping[str, Any]) -> str:
    """A panel for each stage: each strategy's reward where it was found, the best so far, and the controls as bands."""
    parts = [part for part in facts["curves"] if part["points"] or part["controls"]]
    if not parts:
        return ""
    who = list(dict.fromkeys(point["who"] for part in parts for point in part["points"]))
    color = {name: ORIGINS[number % len(ORIGINS)] for number, name in enumerate(who)}
    end = max(1, facts["spent"]["evaluations"])
    figure, grid = plt.subplots(
        len(parts), 1, figsize=(8.6, 2.7 * len(parts) + 0.5), squeeze=False, sharex=True, layout="constrained"
    )
    for axes, part in zip(grid[:, 0], parts, strict=True):
        _controls(axes, part["controls"], end)
        for name in who:
            _origin(axes, [point for point in part["points"] if point["who"] == name], color[name], name, end)
        axes.set(ylabel="reward", xlim=(0, end * 1.02))
        epochs = f"{part['epochs']} epoch{'s' if part['epochs'] > 1 else ''}"
        axes.set_title(f"stage {_plain(part['stage'])}, {epochs}", loc="left", fontsize=10)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    grid[-1, 0].set_xlabel("evaluations so far (training runs, those of the controls included)")
    grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure)


def _controls(axes: Axes, controls: Sequence[Mapping[str, Any]], end: float) -> None:
    for one in controls:
        reward, error, color = one["reward"], one["standard_error"], CONTROL.get(one["name"], GREY)
        axes.fill_between([0, end], reward - error, reward + error, color=color, alpha=0.18, linewidth=0)
        axes.plot([0, end], [reward, reward], color=color, linewidth=1, linestyle="--", label=one["name"])


def _origin(axes: Axes, points: Sequence[Mapping[str, Any]], color: str, name: str, end: float) -> None:
    """Points with their errors, and a line through the best so far."""
    if not points:
        return
    where, rewards = [one["evaluations"] for one in points], [one["reward"] for one in points]
    errors = [one["standard_error"] for one in points]
    axes.errorbar(where, rewards, errors, fmt="o", markersize=4, color=color, elinewidth=0.8, alpha=0.65)
    so_far = [max(rewards[: number + 1]) for number in range(len(rewards))]
    axes.plot(
        [*where, end], [*so_far, so_far[-1]], drawstyle="steps-post", color=color, linewidth=1.8, label=_plain(name)
    )


def use(found: Mapping[str, Any]) -> str:
    """Left, how often an image of each class group met each operator; right, all operators together, by epoch."""
    groups = [group for group in found["by_epoch"] if group != "all"]
    operators = found["operators"]
    figure, (bars, lines) = plt.subplots(
        1, 2, figsize=(8.6, max(2.6, 0.26 * len(operators) + 1.2)), width_ratios=(1.4, 1), layout="constrained"
    )
    height = 0.8 / len(groups)
    for number, group in enumerate(groups):
        epochs = found["by_epoch"][group]
        share = [sum(epoch[k] for epoch in epochs) / len(epochs) for k in range(len(operators))]
        places = [k + (number - (len(groups) - 1) / 2) * height for k in range(len(operators))]
        bars.barh(places, share, height, color=COLORS[group], label=group)
        lines.plot(range(1, len(epochs) + 1), [sum(epoch) for epoch in epochs], "o-", markersize=3, color=COLORS[group])
    bars.set_yticks(range(len(operators)), [_plain(name) for name in operators], fontsize=8)
    bars.set(xlabel="times an image met it", ylim=(len(operators) - 0.5, -0.5))
    figure.legend(*bars.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    lines.set(xlabel="epoch", ylabel="operators an image", ylim=(0, None))
    lines.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure)


def searches(all_of_them: Sequence[Mapping[str, Any]]) -> str:
    """The best reward so far of several searches in each stage, by evaluations."""
    stages = [part["stage"] for part in all_of_them[0]["curves"]]
    figure, grid = plt.subplots(
        len(stages), 1, figsize=(8.6, 2.3 * len(stages) + 0.5), squeeze=False, sharex=True, layout="constrained"
    )
    for number, one in enumerate(all_of_them):
        for axes, part in zip(grid[:, 0], one["curves"], strict=True):
            points = part["points"]
            rewards = [point["reward"] for point in points]
            so_far = [max(rewards[: k + 1]) for k in range(len(rewards))]
            color = ORIGINS[number % len(ORIGINS)]
            where = [*(point["evaluations"] for point in points), one["spent"]["evaluations"]]
            if points:
                axes.plot(where, [*so_far, so_far[-1]], drawstyle="steps-post", color=color, label=_plain(one["label"]))
                at = max(range(len(points)), key=lambda k: rewards[k])
                axes.errorbar(where[at], rewards[at], points[at]["standard_error"], fmt="o", color=color, capsize=3)
            axes.set_title(f"stage {_plain(part['stage'])}", loc="left", fontsize=10)
            axes.set(ylabel="best reward")
    for axes in grid[:, 0]:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    grid[-1, 0].set_xlabel("evaluations so far")
    return _svg(figure)


def _plain(text: str, longest: int = 34) -> str:
    """Text that matplotlib does not take for mathematics."""
    return (text if len(text) <= longest else text[: longest - 1] + "…").replace("$", r"\$")


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()
