"""The picture of a comparison, drawn from what `results.json` holds alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from augkit.report.pictures import COLORS, GREY, save
from augkit.report.told import ABOVE, ALONE, BELOW, said


def draw_differences(results: Mapping[str, Any], path: Path) -> Path:
    """A point for each difference to the control, with its confidence interval; grey where that contains zero.

    Orange is what leaves out zero, but does not hold after Holm's correction.
    """
    rows = [row for row in results["rows"] if row["difference"]]
    figure, axes = plt.subplots(figsize=(7.5, 0.34 * len(rows) + 1.7), layout="constrained")
    shades = {ABOVE: COLORS["many"], BELOW: COLORS["few"], ALONE: COLORS["medium"]}
    for place, row in enumerate(rows):
        found = row["difference"]
        certain = found["low"] is not None
        color = shades.get(said(found, results["confidence"]), GREY)
        if certain:
            axes.plot([found["low"], found["high"]], [place, place], color=color, linewidth=2)
        axes.plot(found["mean"], place, "o" if certain else "x", color=color)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row['policy']}, {row['loss']}" for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"test accuracy minus that of {results['control']}, points")
    fast = f", shortened to {results['fast']}" if results["fast"] else ""
    known = any(row["difference"]["low"] is not None for row in rows)
    grey = f"95 % confidence intervals; grey cannot be told from {results['control']}"
    alone = any(said(row["difference"], results["confidence"]) == ALONE for row in rows)
    what = grey + ", orange not after Holm's correction" * alone if known else "too few seeds for intervals"
    figure.suptitle(f"{results['recipe']}{fast}, {len(results['seeds'])} seeds, paired\n{what}", fontsize=9)
    return save(figure, path)
