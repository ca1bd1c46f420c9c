"""What tests of allocations begin with: a recipe, and the question that a call of the verb asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from augkit_diffusion.allocate_command import _question
from augkit_diffusion.allocating import Allocation
from synth_parts import recipe

COUNTS = (40, 8, 4, 3)


def written(folder: Path, groups: bool = False) -> Path:
    """A recipe with images of 8 x 8 pixels, enough of each class to hold two out; no image is there twice."""
    path, random = recipe(folder, groups=groups), np.random.default_rng(2)
    labels, tested = np.repeat(np.arange(4), [count + 2 for count in COUNTS]), np.repeat(np.arange(4), 3)
    kept = dict(np.load(folder / "data.npz")) | {"train_labels": labels, "test_labels": tested}
    for split, of in (("train", labels), ("test", tested)):
        kept[f"{split}_images"] = random.integers(0, 256, (len(of), 8, 8, 3), dtype=np.uint8)
        if groups:
            kept[f"{split}_groups"] = np.arange(len(of)) % 2
    np.savez(folder / "data.npz", **kept)
    path.write_text(
        "augkit: 1\nname: tiny\ndata: {source: data.npz, validation_per_class: 2}\nmodel: resnet8_cifar\nepochs: 2\n"
        "batch_size: 8\ndevice: cpu\n"
    )
    return path


def asked(
    path: Path,
    *overrides: str,
    source: str = "stamps",
    options: Mapping[str, Any] | None = None,
    splits: list[float] | None = None,
    ratios: tuple[float, ...] = (1, 2),
    weights: tuple[str, ...] = ("1", "1 / class_count"),
    seeds: tuple[int, ...] = (0, 1),
) -> Allocation:
    question = _question(
        str(path),
        list(overrides),
        source,
        options or {},
        path.parent / "out",
        0,
        "cpu",
        splits=[0.0, 0.5] if splits is None else splits,
        ratios=list(ratios),
        weights=list(weights),
        seeds=list(seeds),
    )
    return Allocation(question, path.parent / "out", lambda line: None)
