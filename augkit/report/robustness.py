"""The picture of errors on corrupted images, drawn from what `augkit.lab.robustness_tables.tabulate` gives alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

from augkit.report.pictures import save

_ABREAST = 3


def draw_robustness(results: Mapping[str, Any], path: Path) -> Path:
    """A heat map for each row: corruption by severity, shade and number = error in percent; one scale for all."""
    rows, names, severities = results["rows"], results["corruptions"], results["severities"]
    columns = min(_ABREAST, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(2.6 * columns + 2.6, 3.6 * lines + 0.8), squeeze=False, layout="constrained"
    )
    shown = None
    for number, axes in enumerate(grid.flat):
        if number >= len(rows):
            axes.axis("off")
            continue
        errors = np.array([rows[number]["errors"][name] for name in names])
        shown = axes.imshow(errors, aspect="auto", cmap="magma_r", vmin=0, vmax=100)
        for (y, x), error in np.ndenumerate(errors):
            axes.text(x, y, f"{error:.0f}", ha="center", va="center", fontsize=7, color="w" if error > 45 else "k")
        clean, mean = rows[number]["clean"]["mean"], rows[number]["mean_corruption_error"]["mean"]
        axes.set_title(f"{rows[number]['row']}\nclean {clean:.1f} %, corrupted {mean:.1f} %", fontsize=9)
        axes.set_xticks(range(len(severities)), [str(severity) for severity in severities], fontsize=8)
        axes.set_yticks([])
        if number % columns == 0:
            axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    figure.supxlabel("severity", fontsize=9)
    if shown is not None:
        bar = figure.colorbar(shown, ax=grid, shrink=0.8, pad=0.02)
        bar.set_label("error on corrupted test images, %", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return save(figure, path)
