"""augkit and albumentations side by side: a policy in an A.Compose, and albumentations' transforms in a policy.

    python examples/albumentations_interop.py                   # images made on the spot, seconds
    python examples/albumentations_interop.py --data photos/ --out interop.png    # your images, a folder of them

Inside a loader goes what needs no answer of the model; what learns or mixes belongs into the training loop, where a
policy works on whole batches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import albumentations as A
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from augkit import Policy
from augkit.integrations.albumentations import to_transform

BORROWED = {
    "augkit": 1,
    "name": "borrowed",
    "palette": ["rotate", "albumentations:GridDistortion", "albumentations:RandomFog"],
    "pipeline": [
        {"pick": {"count": 1}},
        {"albumentations:CoarseDropout": {"p": 0.5, "num_holes_range": [1, 3]}},
    ],
}


def load(folder: Path | None) -> list[np.ndarray]:
    """Images [H, W, 3] uint8: of a folder with or without class folders, or waves of colour."""
    if folder is not None:
        paths = [path for path in sorted(folder.rglob("*.*")) if path.suffix.lower() in (".png", ".jpg", ".jpeg")]
        return [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    y, x = np.mgrid[0:80, 0:96] / 12
    return [np.uint8(127 + 127 * np.sin(np.stack([x + k, y, x + y], axis=-1))) for k in range(12)]


class Images(Dataset):
    """What any data set of yours does: read an image, transform it."""

    def __init__(self, images: list[np.ndarray], transform: A.Compose) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.transform(image=self.images[i])["image"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of images; some are made without it")
    parser.add_argument("--policy", default="trivialaugment", help="for the loader: a name or a document's path")
    parser.add_argument("--out", type=Path, default=Path("interop.png"), help="the picture to write")
    args = parser.parse_args()
    images = load(args.data)

    transform = A.Compose([A.RandomResizedCrop(size=(64, 64)), to_transform(args.policy)], seed=0)
    batch = next(iter(DataLoader(Images(images, transform), batch_size=8)))  # [B, H, W, C] uint8
    print(f"{args.policy} in A.Compose: a batch of {tuple(batch.shape)}, {batch.dtype}")

    policy = Policy.load(BORROWED, seed=0)
    inputs = batch.permute(0, 3, 1, 2).contiguous()
    borrowed, _ = policy(inputs, torch.zeros(len(inputs), dtype=torch.int64))  # a batch at once, a draw for each image
    for i in range(3):
        print(f"borrowed, image {i}: {policy.last_plan.describe(i)}")

    rows = [np.concatenate(list(row), axis=1) for row in (batch.numpy(), borrowed.permute(0, 2, 3, 1).numpy())]
    Image.fromarray(np.concatenate(rows)).save(args.out)
    print(f"{args.out}: above from the loader, below after the borrowed transforms")


if __name__ == "__main__":
    main()
