"""The picture of an invariance-constrained run: which operators its chains ended at, by class, and the constraint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from augkit.report.pictures import COLORS, GREY, class_ticks, merged

FEW = 200
"""Accepted operators below which a class's row says little: its shares are drawn towards even ones."""


def constraint_picture(
    use: Mapping[str, Any], classes: Sequence[Mapping[str, str]], records: Sequence[Mapping[str, Any]], title: str
) -> Figure:
    """Two maps, classes (most frequent on top) by operators: how often chains ended at an operator, as a multiple of an
    even share, and how strong it then was; below them mu and the slack of the constraint over the epochs.

    Args:
        use: what `operators.json` holds.
        classes: the rows of `per_class.csv`.
        records: of the epochs that have a `constraint`.
        title: of the run.
    """
    counts = [int(row["train_images"]) for row in classes]
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    names, used = merged(use["operators"], np.asarray(use["used"], np.float64).sum(0))
    _, strength = merged(use["operators"], np.asarray(use["strength_used"], np.float64))
    used, strength = used[order], strength[order]
    height = max(3.2, min(7.0, 0.09 * len(counts) + 1.6))
    figure = plt.figure(figsize=(11, height + 2.4), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[height, 2.0])
    _shares(figure, figure.add_subplot(grid[0, 0]), used)
    _strengths(figure, figure.add_subplot(grid[0, 1]), used, strength)
    for axes in figure.axes[:4]:
        if axes.get_label() != "<colorbar>":
            axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
            class_ticks(axes, [classes[c]["name"] for c in order], along_x=False)
            _between_groups(axes, [classes[c]["group"] for c in order])
            axes.set_ylabel("classes, most frequent on top", fontsize=8)
    _curves(figure.add_subplot(grid[1, :]), records)
    figure.suptitle(f"{title}: where the chains ended, and how the constraint was kept", fontsize=10)
    return figure


def _shares(figure: Figure, axes: Axes, used: np.ndarray) -> None:
    """Shares as multiples of an even one; rows of few images are drawn towards 1, so that noise looks like none."""
    total = used.sum(1, keepdims=True)
    even = total / used.shape[1]
    ratio = (used + FEW / used.shape[1]) / (even + FEW / used.shape[1])
    far = max(0.1, float(np.abs(ratio - 1).max()))
    norm = TwoSlopeNorm(1, max(0.0, 1 - far), 1 + far)
    image = axes.imshow(ratio, aspect="auto", cmap="PuOr_r", norm=norm, interpolation="nearest")
    axes.set_title(f"accepted, against an even share (rows of few images drawn to 1 by {FEW} even ones)", fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)


def _strengths(figure: Figure, axes: Axes, used: np.ndarray, strength: np.ndarray) -> None:
    known = np.where((strength > 0) & (used > 0), strength / np.maximum(used, 1), np.nan)
    image = axes.imshow(known, aspect="auto", cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title("mean strength of what was accepted (blank: none)", fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)


def _between_groups(axes: Axes, groups: Sequence[str]) -> None:
    for place in range(1, len(groups)):
        if groups[place] != groups[place - 1]:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.8)


def _curves(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    epochs = [record["epoch"] for record in records]
    axes.plot(epochs, [record["constraint"]["slack"] for record in records], color=COLORS["many"], label="slack")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylabel("slack: epsilon - loss", fontsize=8)
    axes.set_xlabel("epoch", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    other = axes.twinx()
    other.plot(epochs, [record["constraint"]["mu"] for record in records], color=COLORS["few"], label="mu")
    other.set_ylabel("mu, after the epoch", fontsize=8)
    other.set_ylim(bottom=0)
    for side in (axes, other):
        side.tick_params(labelsize=7)
        side.margins(x=0.02)
    handles = [*axes.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
    axes.legend(handles, ["slack (left)", "mu (right)"], fontsize=8, frameon=False, loc="best")
