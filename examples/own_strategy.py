"""A strategy of one's own, and what it did: a class meets stronger operators once the model knows it.

    python examples/own_strategy.py                  # long-tailed digits, under a minute on a CPU
    python examples/own_strategy.py --data photos/   # your images, a folder for each class

The document below could as well be a file: `augkit validate mine.yaml` names every mistake with its line, and
`augkit show mine.yaml` says in words what it does. At the end a table says how strong each class was augmented.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from augkit import Output, Policy

STRATEGY = """
augkit: 1
name: as_strong_as_learned
title: A class meets stronger operators once the model knows it
palette: [rotate, shear_x, shear_y, translate_x, translate_y, sharpness]
state:
  level: {axes: [classes], init: 0.1, clamp: [0, 1]}
pipeline:
  - pick: {count: 2, strength: "level[y] * uniform()"}
update:
  - at: epoch_end
    set: {level: "level + where(correct / seen > 0.8, 0.1, -0.05)"}
"""


def load(folder: Path | None) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Images [N, 3, 16, 16] uint8, class numbers [N] and names: of class folders, or digits with few of the last."""
    if folder is None:
        digits = load_digits()
        rank = [np.sum(digits.target[:i] == label) for i, label in enumerate(digits.target)]
        kept = [i for i, label in enumerate(digits.target) if rank[i] < 160 // 2 ** (label / 2)]
        pictures = [Image.fromarray(np.uint8(digits.images[i] * 255 / 16)) for i in kept]
        names = [str(digits.target[i]) for i in kept]
    else:
        paths = sorted(folder.glob("*/*.*"))
        pictures, names = [Image.open(path) for path in paths], [path.parent.name for path in paths]
    images = np.stack([np.asarray(picture.convert("RGB").resize((16, 16))) for picture in pictures])
    classes, labels = np.unique(names, return_inverse=True)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), classes.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with a folder of images for each class; digits without it")
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    torch.manual_seed(0)
    images, labels, names = load(args.data)
    counts = labels.bincount().tolist()
    policy = Policy.load(
        yaml.safe_load(STRATEGY), class_counts=counts, class_names=names, out=Output(mean=0.3, std=0.35)
    )
    print(policy.strategy.title)

    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(len(counts)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(args.epochs):
        for index in torch.randperm(len(images)).split(32):
            inputs, targets = policy(images[index], labels[index], index=index)
            logits = model(inputs)
            policy.observe(logits)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, targets).backward()
            optimizer.step()
        policy.end_epoch()
        levels = " ".join(f"{level:.2f}" for level in policy.state["level"].tolist())
        print(f"epoch {epoch}: level by class {levels}")

    first, last = (policy.history[k]["strength_used"] / policy.history[k]["seen"][:, None] for k in (0, -1))
    print(f"\n{'class':>12}  images  strength of both operators together, in the first epoch and in the last")
    for label, name in enumerate(names):
        print(f"{name:>12}  {counts[label]:6}  {first[label].sum():.2f}  {last[label].sum():.2f}")
    print(f"\nan image of the last batch: {policy.last_plan.describe(0)}")


if __name__ == "__main__":
    main()
