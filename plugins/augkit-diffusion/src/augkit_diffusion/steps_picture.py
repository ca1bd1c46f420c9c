"""The picture of a comparison of steps: curves, and the same image at every number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from augkit_diffusion import features
from augkit_diffusion.look import Seen
from augkit_diffusion.look_pictures import MADE, REAL
from augkit_diffusion.telling_apart import spread

PICTURE = "steps.png"
COLUMNS = 10
"""Classes in the strip, at most: from those with most real images to those with fewest."""
EMPTY = 232
"""Grey where there is no image."""
LEAST_RANGE = 10.0
"""Points of an axis of percentages."""


def draw(seen: Sequence[Seen], results: Mapping[str, Any], folder: Path) -> Path:
    """Write `steps.png`; `seen` are the stores by rising steps, `results` the content of `steps.json`."""
    rows, real, training = results["rows"], results["real"], results["training"]
    panels = 5 if training is not None else 4
    figure = plt.figure(figsize=(2.7 * panels, 3.0 + 0.72 * (len(rows) + 1)), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[2.7, 0.3 + 0.72 * (len(rows) + 1)])
    cells = halves[0].subgridspec(1, panels)
    grid = [figure.add_subplot(cells[0, panel]) for panel in range(panels)]
    steps = [row["steps"] for row in rows]
    _agree(grid[0], steps, rows, 100 / len(seen[0].store.class_names))
    _told_apart(grid[1], steps, rows, real)
    _frechet(grid[2], steps, rows)
    _speed(grid[3], steps, rows)
    if training is not None:
        _training(grid[4], rows, training)
    for axes in grid:
        _finish(axes, steps)
    _strip(figure.add_subplot(halves[1]), seen, steps)
    path = folder / PICTURE
    _save(figure, path)
    return path


def _save(figure: Figure, path: Path) -> None:
    half = path.with_suffix(".part")
    figure.savefig(half, dpi=130, format="png")
    plt.close(figure)
    half.replace(path)


def _finish(axes: Axes, steps: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(one) for one in steps], fontsize=8)
    axes.minorticks_off()
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("denoising steps", fontsize=8)
    axes.margins(x=0.08)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, frameon=False)


def _agree(axes: Axes, steps: Sequence[int], rows: Sequence[Mapping[str, Any]], guessing: float) -> None:
    shares = [100 * row["agree"] for row in rows]
    axes.plot(steps, shares, "o-", color=MADE, markersize=4)
    axes.axhline(guessing, color="black", linewidth=0.8, label="guessing")
    low, high = min(*shares, guessing), max(*shares, guessing)
    room = max(0.05 * (high - low), (LEAST_RANGE - (high - low)) / 2)  # so that a chance difference looks small
    low = max(0.0, low - room) if high - low < LEAST_RANGE else low - room
    axes.set_ylim(low, max(high + room, low + LEAST_RANGE))
    axes.set_title("taken for their class, %", fontsize=9, loc="left")


def _told_apart(axes: Axes, steps: Sequence[int], rows: Sequence[Mapping[str, Any]], real: Mapping[str, Any]) -> None:
    axes.axhline(50, color="black", linewidth=0.8, label="guessing")
    if real["told_apart"] is not None:
        held_out = 100 * real["told_apart"]["accuracy"]
        axes.axhline(held_out, color=REAL, linewidth=1.2, linestyle="--", label="held-out real images")
    shown = [(one, row["told_apart"]) for one, row in zip(steps, rows, strict=True) if row["told_apart"] is not None]
    values = np.array([[100 * found[key] for key in ("accuracy", "low", "high")] for _, found in shown]).reshape(-1, 3)
    errors = np.maximum(0, np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]))
    axes.errorbar(
        [one for one, _ in shown], values[:, 0], errors, fmt="o-", color=MADE, markersize=4, elinewidth=1, capsize=2
    )
    axes.set_title("told from real images, %", fontsize=9, loc="left")


def _frechet(axes: Axes, steps: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
    shown = [(one, row["frechet"]) for one, row in zip(steps, rows, strict=True) if row["frechet"] is not None]
    where = [one for one, _ in shown]
    axes.plot(where, [found["distance"] for _, found in shown], "o-", color=MADE, markersize=4)
    by_chance = [found["by_chance"] for _, found in shown]
    axes.plot(where, by_chance, "--", color="black", linewidth=0.8, label="so few images alone")
    axes.set_ylim(bottom=0)
    axes.set_title("Fréchet distance to real", fontsize=9, loc="left")


def _speed(axes: Axes, steps: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
    shown = [(one, row["images_per_second"]) for one, row in zip(steps, rows, strict=True) if row["images_per_second"]]
    axes.plot([one for one, _ in shown], [speed for _, speed in shown], "o-", color=MADE, markersize=4)
    if shown:
        ticks = _around([speed for _, speed in shown])
        axes.set_yscale("log")
        axes.set_ylim(ticks[0], ticks[-1])
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_title("images a second", fontsize=9, loc="left")


def _around(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten, ascending: from the last one below all values to the first above."""
    ladder = [float(f"{digit}e{power}") for power in range(-6, 7) for digit in (1, 2, 5)]
    first = max(i for i, one in enumerate(ladder) if one < min(values) or i == 0)
    last = min(i for i, one in enumerate(ladder) if one > max(values) or i == len(ladder) - 1)
    return ladder[first : last + 1]


def _training(axes: Axes, rows: Sequence[Mapping[str, Any]], training: Mapping[str, Any]) -> None:
    shown = [(row["steps"], training["rows"][row["store"]]["accuracy"]) for row in rows]
    shown = [(steps, found) for steps, found in shown if found is not None]
    errors = [found["error"] or 0.0 for _, found in shown]
    means = [found["mean"] for _, found in shown]
    axes.errorbar(
        [steps for steps, _ in shown], means, errors, fmt="o-", color=MADE, markersize=4, elinewidth=1, capsize=2
    )
    alone = training["rows"]["real"]["accuracy"]
    if alone is not None:
        error = alone["error"] or 0.0
        axes.axhline(alone["mean"], color=REAL, linewidth=1.2, linestyle="--", label="real images alone")
        axes.axhspan(alone["mean"] - error, alone["mean"] + error, color=REAL, alpha=0.15, linewidth=0)
    axes.set_title("trained with, validation %", fontsize=9, loc="left")


def _strip(axes: Axes, seen: Sequence[Seen], steps: Sequence[int]) -> None:
    """A column a class: a real image, and below it the same synthetic one, number 0, at every number of steps."""
    first = seen[0]
    labels = spread(np.array(first.classes), min(COLUMNS, len(first.classes))).tolist()
    side = first.evidence.size
    gap = max(1, side // 16)
    place = side + gap
    sheet = np.full(((len(steps) + 1) * place, len(labels) * place, 3), 255, np.uint8)
    for column, label in enumerate(labels):
        for row, image in enumerate([_real(first, label), *(_made(one, label) for one in seen)]):
            shown = EMPTY if image is None else image
            sheet[row * place : row * place + side, column * place : column * place + side] = shown
    axes.imshow(sheet, interpolation="nearest" if side <= 64 else "antialiased")
    names = [first.store.class_names[label] for label in labels]
    axes.set_xticks(
        np.arange(len(labels)) * place + side / 2 - 0.5,
        [(name if len(name) <= 12 else f"{name[:11]}…").replace("$", r"\$") for name in names],
        fontsize=8,
    )
    words = ["real", *(f"{one} step{'s' * (one > 1)}" for one in steps)]
    axes.set_yticks(np.arange(len(words)) * place + side / 2 - 0.5, words, fontsize=8)
    axes.tick_params(length=0)
    axes.set_title("number 0 of each class, made from the same noise", fontsize=9, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _real(seen: Seen, label: int) -> np.ndarray | None:
    """The first real image of a class [side, side, 3]."""
    places = seen.real(label)[:1]
    if not len(places):
        return None
    train = seen.evidence.data.train
    (images,) = train.batches([torch.from_numpy(seen.evidence.real_rows[places]).to(train.labels.device)])
    return np.asarray(images[0].cpu().numpy().transpose(1, 2, 0))


def _made(seen: Seen, label: int) -> np.ndarray | None:
    """Image 0 of a class [side, side, 3], even if a filter put it aside: the column is about steps."""
    name = seen.store.name(label, None, 0)
    row = next((row for row in seen.evidence.rows if row["file"] == name), None)
    image = None if row is None else features.read(seen.store.path(row), seen.evidence.size)
    return None if image is None else image.numpy().transpose(1, 2, 0)
