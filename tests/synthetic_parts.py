"""Real images in an archive and synthetic ones in a store, and runs on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from augkit.lab.data import Data, load
from augkit.lab.loop import Training, prepare
from augkit.lab.recipe import Recipe, load_recipe
from augkit.registry import Registry

BLUE = 200
"""Every image of a store here has this blue, which no real one has."""
TOLD = ("epochs=2", "data.image_size=16", "threads=1", "base={}", "data.imbalance=null")


def write_store(root: Path, counts: dict[str, int], *, within: str = "train", prefix: str = "") -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / within / name).mkdir(parents=True)
        for i in range(count):
            path = root / within / name / f"{prefix}{i:06d}.png"
            Image.new("RGB", (20, 20), (40 * number, i, BLUE)).save(path)
    return root


def write_npz(path: Path, **changes: Any) -> Path:
    """60 real images of three classes a, b, c; 30, 12 and 6 of them to train on, 4 each to test on."""
    random = np.random.RandomState(0)
    arrays: dict[str, Any] = {
        "train_images": random.randint(0, BLUE, (48, 16, 16, 3), np.uint8),
        "train_labels": np.repeat(np.arange(3), [30, 12, 6]),
        "test_images": random.randint(0, BLUE, (12, 16, 16, 3), np.uint8),
        "test_labels": np.arange(12) % 3,
        "class_names": np.array(["a", "b", "c"]),
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def write_archive_and_store(folder: Path) -> tuple[Path, Path]:
    """Such an archive, and a store that evens its classes out and has rejected an image."""
    root = write_store(folder / "synth", {"b": 18, "c": 24})
    (root / "rejected" / "a").mkdir(parents=True)
    (root / "rejected" / "a" / "000000.png").write_bytes(b"no image")
    return write_npz(folder / "data.npz"), root


def recipe_of(registry: Registry, npz: Path, *told: str) -> Recipe:
    return load_recipe("demo", registry, [*TOLD, f"data.source={npz}", *told])


def begun(registry: Registry, npz: Path, *told: str) -> Training:
    recipe = recipe_of(registry, npz, *told)
    return prepare(recipe, load(recipe.data, sources=recipe.sources), registry, torch.device("cpu"))


def is_made(data: Data) -> list[bool]:
    """What the images themselves say."""
    assert data.train.held is not None
    return (data.train.held[:, 2] == BLUE).all(dim=(1, 2)).tolist()
