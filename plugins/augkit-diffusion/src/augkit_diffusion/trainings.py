"""A training of a recipe with a store's images, and what it is measured by: `allocate` and `steps` compare them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkit.lab import folder as files


def train_one(recipe: Mapping[str, Any], folder: str, store: str | None = None) -> dict[str, float]:
    """Train, or go on with a training, and measure it on the validation images; a task, see `augkit.lab.jobs`.

    Returns:
        `balanced`: see `balanced_accuracy`.
    """
    from augkit.lab.run import train

    place = Path(folder)
    if store is not None:
        recipe = {**recipe, "sources": {**recipe["sources"], "folder": store}}
    train(recipe, (), place, resume=bool(files.contents(place)))
    return {"balanced": balanced_accuracy(place)}


def balanced_accuracy(folder: Path) -> float:
    """Of a finished run, in percent: the mean over classes that have validation images."""
    with (folder / files.PER_CLASS).open(encoding="utf-8", newline="") as file:
        rows = [(int(row["correct"]), int(row["val_images"])) for row in csv.DictReader(file)]
    found = [100 * correct / images for correct, images in rows if images]
    return sum(found) / len(found)
