"""Pictures of a run folder, drawn from its tables alone. Needs matplotlib, which nothing else of augkit imports."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

COLORS = {"many": "#3b6ea5", "medium": "#d9893b", "few": "#a53b4f"}
GREY = "#666666"
LETTER = 0.065
"""Inches that a letter of a class's name takes."""
WIDE, GAP = 2.0, (0.15, 0.3)
"""Inches that a map of an operator takes, and those between it and the next one, beside and below."""


def draw_run(folder: Path) -> list[Path]:
    """Draw `accuracy_by_class.png`, `operators_by_class.png` if the run's policy has operators, and `constraint.png` if
    its loss had one to keep.

    Reads `per_class.csv`, `operators.json` and `metrics.jsonl`.
    """
    with (folder / "per_class.csv").open(encoding="utf-8") as file:
        classes = list(csv.DictReader(file))
    drawn = [save(accuracy_by_class(classes, folder.name), folder / "accuracy_by_class.png")]
    use = json.loads((folder / "operators.json").read_text(encoding="utf-8"))
    if use["operators"] and use["used"]:
        counts = [int(row["train_images"]) for row in classes]
        names = [row["name"] for row in classes]
        drawn.append(save(operators_by_class(use, counts, names, folder.name), folder / "operators_by_class.png"))
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [record for record in map(json.loads, lines) if "constraint" in record]
        if records:
            from augkit.report.constraint import constraint_picture  # it draws with what is here

            picture = constraint_picture(use, classes, records, folder.name)
            drawn.append(save(picture, folder / "constraint.png"))
    return drawn


def accuracy_by_class(classes: list[dict[str, str]], title: str) -> Figure:
    """Bars: accuracy of each class on test (or validation) images, most frequent first, coloured by group; a line:
    training images (log)."""
    rows = sorted(classes, key=lambda row: -int(row["train_images"]))
    counts = [int(row["train_images"]) for row in rows]
    measured = "test" if "test_images" in rows[0] else "validation"
    known = [float(row["accuracy"] or "nan") * 100 for row in rows]
    width, named = max(7.5, min(14.0, 0.1 * len(rows) + 4)), _names([row["name"] for row in rows])
    below = 0.85 if len(rows) > 30 else 0.65 + (0.8 * named if named > 3 * LETTER else 0.0)  # they are slanted
    right = 0.48 + 0.09 * len(str(int(max(counts) * 1.5)))  # ticks are as wide as the largest number has digits
    figure, axes = plt.subplots(
        figsize=(width, 3.2 + below), gridspec_kw=_inside(width, 3.2 + below, 0.7, right, below, 0.35)
    )
    axes.bar(range(len(rows)), known, color=[COLORS[row["group"]] for row in rows], width=0.85)
    axes.set(ylim=(0, 100), xlim=(-0.6, len(rows) - 0.4), ylabel=f"{measured} accuracy, %")
    axes.set_title(f"{title}: last epoch, by class")
    for group, color in COLORS.items():
        members = [
            value for value, row in zip(known, rows, strict=True) if row["group"] == group and not math.isnan(value)
        ]
        if members:
            number = f"{len(members)} class{'es' if len(members) > 1 else ''}"
            label = f"{group} ({number}): {sum(members) / len(members):.1f} %"
            axes.bar(0, 0, color=color, label=label)
    images = axes.twinx()
    images.plot(range(len(rows)), counts, color=GREY, marker="." if len(rows) <= 30 else None, linewidth=1)
    images.set(yscale="log", ylabel="training images (line)", ylim=(max(0.7, min(counts) / 1.5), max(counts) * 1.5))
    _plain_ticks(images)
    class_ticks(axes, [row["name"] for row in rows], along_x=True)
    figure.legend(loc="lower center", ncols=3, frameon=False)
    return figure


def _plain_ticks(axes: Axes) -> None:
    """Numbers such as 50 along a logarithmic y axis: its decades, and some between them where it has few."""
    low, high = axes.get_ylim()
    between = (1.0,) if high > 100 * low else (1.0, 2.0, 3.0, 5.0)  # at most a factor of 2 apart, so one always shows
    axes.yaxis.set_major_locator(LogLocator(subs=between))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))


def _names(names: Sequence[str]) -> float:
    """How long the longest name is that `class_ticks` writes, in inches."""
    return LETTER * max(map(len, names)) if len(names) <= 30 else 0.0


def _inside(width: float, height: float, left: float, right: float, below: float, above: float) -> dict[str, float]:
    """Where the axes of a figure stand, all in inches. A layout that matplotlib finds takes longer than a small run."""
    return {"left": left / width, "right": 1 - right / width, "bottom": below / height, "top": 1 - above / height}


def operators_by_class(use: dict[str, Any], counts: list[int], names: list[str], title: str) -> Figure:
    """A small map for each operator: classes (most frequent on top) by epochs, shade = share of images that met it.

    All maps lie in one pair of axes, measured in inches: a pair for each would take longer than a small run.
    """
    operators, share = _shares(use)
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    columns = min(5, len(operators))
    lines = math.ceil(len(operators) / columns)
    each = 1.6 if len(counts) > 30 else max(1.2, 0.13 * len(counts) + 0.3)
    left = 0.55 + (_names(names) or 2 * LETTER)
    size = columns * (WIDE + GAP[0]) - GAP[0], lines * (each + GAP[1]) - GAP[1]
    width, height = left + size[0] + 1.0, size[1] + 1.2
    inside = _inside(width, height, left, 1.0, 0.55, 0.65)
    figure, axes = plt.subplots(figsize=(width, height), gridspec_kw=inside)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), frame_on=False, xticks=[])
    top = max(float(share.max()), 1e-9)
    for number, name in enumerate(operators):
        x, y = number % columns * (WIDE + GAP[0]), number // columns * (each + GAP[1])
        shade, place = share[:, order, number].T, (x, x + WIDE, y + each, y)
        axes.imshow(shade, aspect="auto", cmap="magma_r", vmin=0, vmax=top, interpolation="nearest", extent=place)
        axes.add_patch(Rectangle((x, y), WIDE, each, fill=False, linewidth=0.8, clip_on=False))
        axes.text(x + WIDE / 2, y - 0.06, name, fontsize=9, ha="center")
        if number + columns >= len(operators):  # the lowest map of its column
            _epochs_below(axes, len(share), x, y + each)
    _classes_beside(axes, [names[c] for c in order], [line * (each + GAP[1]) for line in range(lines)], each)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("classes, most frequent on top", fontsize=9, x=0.08 / width)
    figure.suptitle(f"{title}: which operators each class met", fontsize=10)
    bar_place = (1 - 0.85 / width, inside["bottom"] + 0.05, 0.15 / width, inside["top"] - inside["bottom"] - 0.1)
    bar = figure.colorbar(axes.images[0], cax=figure.add_axes(bar_place))
    bar.set_label("applications per image", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _epochs_below(axes: Axes, epochs: int, left: float, below: float) -> None:
    """Numbers of epochs along a map's lower edge."""
    told = MaxNLocator(5, integer=True, min_n_ticks=1).tick_values(-0.5, epochs - 0.5)
    places = {int(epoch): left + (epoch + 0.5) / epochs * WIDE for epoch in told if -0.5 <= epoch <= epochs - 0.5}
    axes.vlines([*places.values()], below, below + 0.05, color="black", linewidth=0.8, clip_on=False)
    for epoch, x in places.items():
        axes.text(x, below + 0.07, str(epoch), fontsize=7, ha="center", va="top")


def _classes_beside(axes: Axes, names: list[str], tops: list[float], each: float) -> None:
    """Names of classes beside the first map of each line, ranks where there are too many."""
    few = len(names) <= 30
    ranks = range(len(names)) if few else [int(c) for c in MaxNLocator(5).tick_values(0, len(names)) if c < len(names)]
    places = [top + (c + 0.5) / len(names) * each for top in tops for c in ranks]
    axes.set_yticks(places, [names[c] if few else str(c) for c in ranks] * len(tops), fontsize=8 if few else 7)


def _shares(use: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """Names without repeats, and applications an image: [epochs, classes, operators]."""
    used = np.asarray(use["used"], dtype=np.float64)
    seen = np.maximum(np.asarray(use["seen"], dtype=np.float64), 1)[..., None]
    operators, together = merged(use["operators"], used)
    return operators, together / seen


def merged(names: Sequence[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names without repeats, and the sums of their columns: [..., columns] to [..., names]."""
    operators = list(dict.fromkeys(names))
    together = np.zeros((*values.shape[:-1], len(operators)))
    for column, name in enumerate(names):
        together[..., operators.index(name)] += values[..., column]
    return operators, together


def class_ticks(axes: Axes, names: list[str], *, along_x: bool) -> None:
    """Names where they can be read, ranks where there are too many."""
    axis = axes.xaxis if along_x else axes.yaxis
    if len(names) <= 30:
        axis.set_ticks(range(len(names)), names, fontsize=8)
        if along_x and max(map(len, names)) > 3:
            axes.tick_params(axis="x", rotation=60)
    elif along_x:
        axes.set_xlabel("classes by training images")


def save(figure: Figure, path: Path) -> Path:
    """Write a figure so that it is there whole or not at all, and close it."""
    half = path.with_name(path.name + ".part")
    figure.set_dpi(130)
    FigureCanvasAgg(figure).print_png(half)  # draws it once, where savefig does twice
    plt.close(figure)
    half.replace(path)
    return path
