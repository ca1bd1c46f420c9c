"""Small runs of the demonstration's recipe, what they wrote, and images of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from augkit.lab.recipe import Recipe, load_recipe
from augkit.registry import Registry

QUICK = ("epochs=2", "data.test_share=0.8", "data.image_size=16", "data.imbalance=10")


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def small(registry: Registry, *overrides: str) -> Recipe:
    return load_recipe("demo", registry, [*QUICK, *overrides])


def write_npz(path: Path, **changes: np.ndarray) -> Path:
    """Sixty images of three classes, twelve of them to test on."""
    images = np.random.RandomState(0).randint(0, 256, (60, 16, 16, 3), np.uint8)
    labels = np.arange(60) % 3
    arrays: dict[str, Any] = {"train_images": images[:48], "train_labels": labels[:48]}
    np.savez(path, **(arrays | {"test_images": images[48:], "test_labels": labels[48:]} | changes))
    return path
