"""A policy in a plain PyTorch loop: uint8 images go in, augmented and normalised ones come out, on their device.

    python examples/plain_pytorch.py                                    # digits, seconds on a CPU
    python examples/plain_pytorch.py --data photos/ --policy randaugment  # your images, a folder for each class

Copy it and change it: the lines with `policy` are all that a loop of your own needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from augkit import Output, Policy


def load(folder: Path | None, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 3, size, size] uint8 and class numbers [N], of class folders or of scikit-learn's digits."""
    if folder is None:
        digits = load_digits()
        pictures, labels = [Image.fromarray(np.uint8(image * 255 / 16)) for image in digits.images], digits.target
    else:
        paths = sorted(folder.glob("*/*.*"))
        pictures, (_, labels) = (
            [Image.open(path) for path in paths],
            np.unique([path.parent.name for path in paths], return_inverse=True),
        )
    images = np.stack([np.asarray(picture.convert("RGB").resize((size, size))) for picture in pictures])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def network(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64 * 4, classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with a folder of images for each class; digits without it")
    parser.add_argument("--policy", default="trivialaugment", help="a registered name or a document's path")
    parser.add_argument("--size", type=int, default=16, help="side of the images")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = (tensor.to(device) for tensor in load(args.data, args.size))
    held_out = torch.arange(len(images), device=device) % 5 == 0  # every fifth is never trained on
    chosen = (~held_out).nonzero()[:, 0]
    counts = labels[chosen].bincount().tolist()
    model = network(len(counts)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    out = Output(mean=0.3, std=0.35)
    policy = Policy.load(args.policy, class_counts=counts, num_samples=len(images), epochs=args.epochs, out=out)

    for epoch in range(args.epochs):
        model.train()
        for index in chosen[torch.randperm(len(chosen), device=device)].split(64):
            inputs, targets = policy(images[index], labels[index], index=index)
            logits = model(inputs)
            policy.observe(logits)  # a strategy that learns reads the answers
            loss = nn.functional.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        policy.end_epoch()

        model.eval()
        with torch.inference_mode():
            answers = model((images[held_out] / 255 - 0.3) / 0.35).argmax(1)
        print(f"epoch {epoch}: top-1 {100 * (answers == labels[held_out]).float().mean():.1f} %")
    print(f"the last batch's first image: {policy.last_plan.describe(0)}")


if __name__ == "__main__":
    main()
