"""The picture of a choice, drawn from what `allocation.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkit.report.pictures import GREY, save

COLORS = ("#3b6ea5", "#d9893b", "#a53b4f", "#4f8a5b", "#7a5ea8", "#8a6d3b", "#3b9c9c")


def draw(results: Mapping[str, Any], path: Path) -> Path:
    """A panel for each split: validation accuracy by the ratio of synthetic to real images, a line for each weights.

    Whiskers and bands are standard errors over seeds; bands are what is had without synthetic images, that of the
    dashed line with as many training steps; a ring marks the chosen candidate. Stale ones are left out.
    """
    from matplotlib import pyplot as plt

    rows = [row for row in results["candidates"] if row["accuracy"] is not None and not row["stale"]]
    splits = sorted({row["split"] for row in rows})
    weights = list(dict.fromkeys(row["weights"] for row in rows))
    size = (max(6.2, 1.4 + 3.1 * len(splits)), 4.1)
    figure, panels = plt.subplots(1, len(splits), figsize=size, sharey=True, squeeze=False, layout="constrained")
    chosen = results["candidates"][results["chosen"]]
    for axes, split in zip(panels[0], splits, strict=True):
        _controls(axes, results["controls"])
        for number, one in enumerate(weights):
            own = sorted((r for r in rows if r["split"] == split and r["weights"] == one), key=lambda row: row["ratio"])
            shift = 1 + 0.012 * (number - (len(weights) - 1) / 2)  # so that whiskers do not hide each other
            style = {
                "color": COLORS[number % len(COLORS)],
                "label": f"weights {one}",
            }  # in the legend if there are none
            _line(axes, own, shift, style)
            for row in own:
                if row is chosen:
                    axes.plot(row["ratio"] * shift, row["accuracy"]["mean"], "o", ms=12, mfc="none", mec="black")
        what = "nothing set apart" if not split else f"{100 * split:g} % set apart"
        axes.set(xscale="log", xlabel="synthetic images for each real one", title=f"split {split:g}: {what}")
        axes.title.set_fontsize(9)
        ratios = sorted({row["ratio"] for row in rows})
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.minorticks_off()
    panels[0][0].set_ylabel("balanced accuracy, validation, %")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2 if len(splits) == 1 else 3, frameon=False, fontsize=8
    )
    figure.suptitle(_title(results), fontsize=9)
    return save(figure, path)


def _title(results: Mapping[str, Any]) -> str:
    better = "called better than without" if results["better"] else "not called better than without"
    seeds = f"{len(results['seeds'])} seed{'s' * (len(results['seeds']) > 1)}"
    return f"{results['recipe']}: {seeds}, whiskers are standard errors;\nthe chosen one (ring) is {better}"


def _line(axes: Any, own: Sequence[Mapping[str, Any]], shift: float, style: Mapping[str, str]) -> None:
    """Of candidates with the same weights."""
    ratios, means = [row["ratio"] * shift for row in own], [row["accuracy"]["mean"] for row in own]
    errors = [row["accuracy"]["error"] or 0.0 for row in own]
    axes.errorbar(ratios, means, yerr=errors, marker="o", markersize=4, capsize=2, linewidth=1.2, **style)


def _controls(axes: Any, controls: Mapping[str, Any]) -> None:
    for number, control in enumerate(controls.values()):
        mean, error = control["accuracy"]["mean"], control["accuracy"]["error"] or 0.0
        label = f"no synthetic images, {control['epochs']} epochs"
        axes.axhline(mean, color=GREY, linewidth=1, linestyle="--" if number else "-", label=label)
        axes.axhspan(mean - error, mean + error, color=GREY, alpha=0.1 if number else 0.2, linewidth=0)
