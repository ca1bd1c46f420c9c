"""The pictures of a look at a store."""

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
from matplotlib.ticker import MaxNLocator
from PIL import Image

from augkit_diffusion import features, telling_apart
from augkit_diffusion.look import SHEETS, SHOWN, SHOWN_REJECTED, Seen
from augkit_diffusion.manifest import SCORE

REAL, MADE, REJECTED = "#3b6ea5", "#d9893b", "#b9b4ac"
SIDE = 64
"""Pixels of a picture's side, about."""
GAP = 3
NAMED = 30
"""Classes whose names fit below bars."""


def draw(seen: Seen, results: Mapping[str, Any], folder: Path, method: str) -> dict[str, Any]:
    """Draw all pictures into a folder; their names, as the page's template takes them."""
    return {
        "counts": _svg(counts(results["classes"]), folder, "counts.svg"),
        "map": _png(feature_map(seen, method), folder, "map.png"),
        "domain": _svg(domain(results["domain"]), folder, "domain.svg") if results["domain"] else "",
        "scores": _svg(scores(seen, results["filters"]), folder, "scores.svg") if _scored(results) else "",
        "near": _svg(near(seen), folder, "near.svg"),
        "pairs": _pairs(seen, folder),
        "sheets": _sheets(seen, folder),
        "method": method,
    }


def _scored(results: Mapping[str, Any]) -> bool:
    return any(one["name"] != "broken" for one in results["filters"])


def counts(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Stacked bars: real, kept and rejected images of each class."""
    figure, axes = plt.subplots(figsize=(8.6, 3.2), layout="constrained")
    below = np.zeros(len(rows))
    for name, label, color in (
        ("real", "real", REAL),
        ("kept", "synthetic, kept", MADE),
        ("rejected", "rejected", REJECTED),
    ):
        values = np.array([row[name] for row in rows])
        axes.bar(range(len(rows)), values, 0.85, bottom=below, color=color, label=label)
        below = below + values
    axes.set(ylabel="images", xlim=(-0.6, len(rows) - 0.4), ylim=(0, 1.05 * max(1.0, float(below.max()))))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _ticks(axes, [row["class"] for row in rows])
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def domain(found: Mapping[str, Any]) -> Figure:
    """A point with its interval for each class: how often its images' side was guessed right."""
    rows = found["by_class"]
    figure, axes = plt.subplots(figsize=(8.6, 2.8), layout="constrained")
    shares = 100 * np.array([row["accuracy"] for row in rows])
    ends = 100 * np.array([[row["accuracy"] - row["low"], row["high"] - row["accuracy"]] for row in rows]).T
    axes.axhline(50, color="black", linewidth=0.8, label="guessing")
    axes.axhspan(100 * found["low"], 100 * found["high"], color=REAL, alpha=0.18, linewidth=0, label="all classes")
    axes.errorbar(range(len(rows)), shares, np.maximum(ends, 0), fmt="o", color=REAL, elinewidth=1.2, markersize=4)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    axes.set(ylabel="guessed right, %", ylim=(0, 104), xlim=(-0.6, len(rows) - 0.4))
    _ticks(axes, [row["class"] for row in rows])
    return figure


def scores(seen: Seen, found: Sequence[Mapping[str, Any]]) -> Figure:
    """A histogram for each filter: what it rejected apart from the rest."""
    shown = [one for one in found if one["name"] != "broken"]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(2.9 * columns, 2.3 * lines), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    for one, axes in zip(shown, grid.flat, strict=False):
        scored = [
            (r[SCORE + one["name"]], r["rejected_by"])
            for r in seen.evidence.rows
            if r.get(SCORE + one["name"]) is not None
        ]
        own = [score for score, by in scored if by == one["name"]]
        kept = [score for score, by in scored if by is None]
        other = [score for score, by in scored if by not in (None, one["name"])]
        edges = np.histogram_bin_edges([score for score, _ in scored], 30).tolist()
        colors = MADE, REJECTED, "#7d3b4a"
        axes.hist([kept, other, own], edges, stacked=True, color=colors, label=("kept", "by others", "by this filter"))
        if one["limit"] is not None and edges[0] <= one["limit"] <= edges[-1]:
            axes.axvline(one["limit"], color="black", linewidth=0.8, linestyle="--")
        axes.set_title(one["name"], fontsize=10, loc="left")
        axes.tick_params(labelsize=7)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel(one["score"], fontsize=6.5)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8
    )
    return figure


def near(seen: Seen) -> Figure:
    """Two histograms: how near the nearest training image is to synthetic images, and to other training images."""
    made, among = seen.similar[seen.kept], seen.among
    together = np.concatenate([made, among])
    low = min(float(np.quantile(together, 0.01)), 0.9)  # what is farther joins the first bar
    edges = np.linspace(low, 1, 41).tolist()
    figure, axes = plt.subplots(figsize=(8.6, 2.6), layout="constrained")
    for values, label, color in (
        (among, "real image to another real one", REAL),
        (made, "synthetic, kept, to a real one", MADE),
    ):
        weights = np.full(len(values), 100 / max(1, len(values)))
        axes.hist(np.clip(values, low, 1), edges, weights=weights, color=color, alpha=0.6, label=label)
    axes.set(xlabel="correlation of pixels with the nearest training image", ylabel="% of images", xlim=(low, 1))
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def feature_map(seen: Seen, method: str) -> Figure:
    """Dots are real images, crosses synthetic ones: coloured by that, and where classes are few also by class."""
    evidence = seen.evidence
    kept = np.flatnonzero(seen.kept)
    mine, theirs = telling_apart.for_map(evidence.real_labels, evidence.labels[kept])
    theirs = kept[theirs]
    points = telling_apart.plane(np.concatenate([evidence.real.features[mine], evidence.made.features[theirs]]), method)
    real, made = points[: len(mine)], points[len(mine) :]
    names = seen.store.class_names
    by_class = len(names) <= 20
    panels = 2 if by_class else 1
    figure, grid = plt.subplots(1, panels, figsize=(4.8 * panels, 4.4), squeeze=False, layout="constrained")
    axes = grid[0, 0]
    # real images are often fewer: they lie above, with an edge
    dots: dict[str, Any] = {"s": 14, "edgecolors": "white", "linewidths": 0.5, "zorder": 3}
    axes.scatter(*real.T, color=REAL, label=f"real ({len(real)})", **dots)
    axes.scatter(
        *made.T, s=14, color=MADE, alpha=0.8, marker="x", linewidths=0.8, label=f"synthetic, kept ({len(made)})"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.01), fontsize=8, frameon=False, ncols=2, markerscale=2)
    if by_class:
        colors = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
        for label, name in enumerate(names):
            own, its = evidence.real_labels[mine] == label, evidence.labels[theirs] == label
            grid[0, 1].scatter(*real[own].T, color=colors(label), label=_short(name), **dots)
            grid[0, 1].scatter(*made[its].T, s=14, color=colors(label), marker="x", linewidths=0.8)
        columns = 5 if len(names) <= 10 else 7
        grid[0, 1].legend(
            loc="upper left", bbox_to_anchor=(0, -0.01), fontsize=8, frameon=False, ncols=columns, markerscale=2
        )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def _ticks(axes: Axes, names: Sequence[str]) -> None:
    if len(names) <= NAMED:
        axes.set_xticks(range(len(names)), [_short(name) for name in names], fontsize=8)
        if max(map(len, names)) > 3:
            axes.tick_params(axis="x", rotation=60)
    else:
        axes.set_xlabel("classes, most real images first")


def _short(text: str, longest: int = 18) -> str:
    return (text if len(text) <= longest else text[: longest - 1] + "…").replace("$", r"\$")


# images side by side


def _pairs(seen: Seen, folder: Path) -> list[str]:
    """Each near-copy beside its training image."""
    names = []
    for number, place in enumerate(seen.pairs):
        strip = [_made(seen, [place])[0], _real(seen, [int(seen.similar_to[place])])[0]]
        names.append(_save(_strip(strip), folder / f"pair-{number:02d}.png"))
    return names


def _sheets(seen: Seen, folder: Path) -> list[dict[str, str]]:
    """Strips of real, synthetic and rejected images of each class; the fewest real images first."""
    found = []
    for label in seen.classes[::-1][:SHEETS]:
        strips = {
            "real": _real(seen, seen.real(label)[:SHOWN].tolist()),
            "made": _made(seen, seen.made(label, kept=True)[:SHOWN].tolist()),
            "rejected": _made(seen, seen.made(label, kept=False)[:SHOWN_REJECTED].tolist()),
        }
        drawn = {
            name: _save(_strip(images), folder / f"{name}-{label:04d}.png") if images else ""
            for name, images in strips.items()
        }
        found.append({"class": seen.store.class_names[label], **drawn})
    return found


def _made(seen: Seen, places: Sequence[int]) -> list[np.ndarray]:
    by_file = {row["file"]: row for row in seen.evidence.rows}
    paths = [seen.store.path(by_file[seen.evidence.files[place]]) for place in places]
    read = [features.read(path, seen.evidence.size) for path in paths]
    return [image.numpy().transpose(1, 2, 0) for image in read if image is not None]


def _real(seen: Seen, places: Sequence[int]) -> list[np.ndarray]:
    if not places:
        return []
    train = seen.evidence.data.train
    rows = torch.from_numpy(seen.evidence.real_rows[np.asarray(places)]).to(train.labels.device)
    (images,) = train.batches([rows])
    return [image.cpu().numpy().transpose(1, 2, 0) for image in images]


def _strip(images: Sequence[np.ndarray]) -> Image.Image:
    """Images in a row, small ones magnified without smoothing."""
    side = images[0].shape[0]
    shown = side * max(1, round(SIDE / side)) if side <= SIDE else 96
    how = Image.Resampling.NEAREST if side <= SIDE else Image.Resampling.LANCZOS
    sheet = Image.new("RGB", (len(images) * (shown + GAP) - GAP, shown), "white")
    for number, image in enumerate(images):
        sheet.paste(
            Image.fromarray(np.ascontiguousarray(image)).resize((shown, shown), how), (number * (shown + GAP), 0)
        )
    return sheet


def _save(image: Image.Image, path: Path) -> str:
    image.save(path)
    return path.name


def _svg(figure: Figure, folder: Path, name: str) -> str:
    with matplotlib.rc_context({"svg.hashsalt": "augkit"}):
        figure.savefig(folder / name, format="svg", metadata={"Date": None})
    plt.close(figure)
    return name


def _png(figure: Figure, folder: Path, name: str) -> str:
    figure.savefig(folder / name, dpi=130)
    plt.close(figure)
    return name
