"""The levels of a run by class and epoch: read from its checkpoint, drawn as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml

from augkit.errors import DataError, nearest
from augkit.lab.folder import CHECKPOINT, RECIPE, load_checkpoint
from augkit.lab.metrics import group_of

_COUNTED = ("correct", "seen", "loss", "val_correct", "val_seen", "used", "strength_used")

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Levels:
    """What a state of the policy was while each epoch's images were drawn."""

    name: str
    values: np.ndarray
    """[epochs, classes] float; one column if all classes share the number."""
    counts: list[int]
    """Training images of each class."""
    title: str

    @property
    def shared(self) -> bool:
        """Whether all classes share one number."""
        return bool(self.values.shape[1] == 1 < len(self.counts))


def read_levels(folder: Path, state: str = "depth") -> Levels:
    """The levels in the last checkpoint of a run folder, for the epochs that have ended.

    Args:
        folder: of `augkit train`.
        state: the state to read; any that is one number, or one for each class.

    Raises:
        DataError: there is no checkpoint, no ended epoch, or no such state in it.
        StateError: it is no checkpoint of a run.
    """
    stored = load_checkpoint(folder, "policy") if folder.is_dir() else None
    if stored is None:
        raise DataError(f"this is no run folder with a {CHECKPOINT}; give the folder of a run", file=folder)
    policy = stored["policy"]
    history, counts = policy["history"], policy["class_counts"]
    if not history or counts is None:
        raise DataError("no epoch of this run has ended yet; look again after the first", file=folder)
    kept = _kept(policy["memory"]["values"], history[-1])
    found = [name for name in kept if name == state or name.endswith(f"/{state}")]
    if not found:
        names = sorted({name.rpartition("/")[2] for name in kept})
        hint = nearest(state, names) if names else " Its policy learns nothing by class."
        raise DataError(f'the policy of this run has no state "{state}" by class.{hint}', file=folder)
    rows = [torch.as_tensor(epoch[found[0]], dtype=torch.float64).flatten().numpy() for epoch in history]
    return Levels(state, np.stack(rows), [int(count) for count in counts], _title(folder))


def _kept(values: dict[str, dict[str, Any]], epoch: dict[str, Any]) -> list[str]:
    """Paths and names of the states that an epoch's record keeps; what it counted is no state."""
    names = [(path, name) for path, inside in values.items() for name in inside]
    return [path + name for path, name in names if path + name in epoch and name not in _COUNTED and "." not in name]


def _title(folder: Path) -> str:
    path = folder / RECIPE
    if not path.exists():
        return folder.name
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    return f"{recipe['name']}, {recipe['policy']['load']}, seed {recipe['seed']}"


def draw_levels(levels: Levels) -> Figure:
    """A map of classes, most frequent on top, by epochs; below it the mean of each group of classes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    from augkit.report.pictures import COLORS

    figure, (top, below) = plt.subplots(2, 1, figsize=(8, 6), height_ratios=(3, 1), sharex=True, layout="constrained")
    order = sorted(range(len(levels.counts)), key=lambda c: -levels.counts[c])
    shown = levels.values if levels.shared else levels.values[:, order]
    low, high = min(0.0, float(levels.values.min())), max(1.0, float(levels.values.max()))
    image = top.imshow(shown.T, aspect="auto", cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    top.set(title=f"{levels.title}: {levels.name} by class", ylabel="classes, most frequent on top")
    if levels.shared:
        top.set(ylabel="all classes alike", yticks=[])
    figure.colorbar(image, ax=top, label=levels.name, ticks=MaxNLocator(integer=True, min_n_ticks=1))
    if levels.shared:
        below.plot(levels.values[:, 0], color="#666666", label="all classes")
    else:
        groups = np.array(group_of(torch.tensor(levels.counts)))
        for group, color in COLORS.items():
            if (groups == group).any():
                number = int((groups == group).sum())
                mean = levels.values[:, groups == group].mean(1)
                below.plot(mean, color=color, label=f"{group} ({number} class{'es' if number > 1 else ''})")
    below.set(xlabel="epoch", ylabel="mean", ylim=(1.05 * low, 1.05 * high))
    below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    below.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def save_levels(levels: Levels, path: Path) -> Path:
    """Write the picture (.png)."""
    from matplotlib import pyplot as plt

    figure = draw_levels(levels)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, format="png")
    plt.close(figure)
    return path
