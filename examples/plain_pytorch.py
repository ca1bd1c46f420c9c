"""A policy in a plain PyTorch loop: the images are on the device as uint8, the policy augments each batch there.

    python examples/plain_pytorch.py

The document below is a strategy of its own, with a state for each class: a class that the model gets right is
augmented more strongly, one that it gets wrong more gently. Copy it and change it.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

from augkit.engine.output import Output
from augkit.policy import Policy

STRATEGY = {
    "augkit": 1,
    "name": "as_strong_as_learned",
    "palette": ["rotate", "shear_x", "shear_y", "translate_x", "translate_y", "sharpness"],
    "state": {"level": {"axes": ["classes"], "init": 0.1, "clamp": [0, 0.6]}},
    "pipeline": [{"pick": {"count": 2, "strength": "level[y] * uniform()"}}],
    "update": [{"at": "epoch_end", "set": {"level": "level + where(correct / seen > 0.9, 0.05, -0.05)"}}],
}


def digits(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images [N, 3, 16, 16] uint8, labels [N] int64 and which of them are for training [N] bool."""
    data = load_digits()
    images = torch.tensor(data.images * 255 / 16, dtype=torch.float32)[:, None]
    images = nn.functional.interpolate(images, size=16, mode="bilinear").round().to(torch.uint8).expand(-1, 3, -1, -1)
    return (
        images.to(device),
        torch.tensor(data.target, device=device),
        torch.arange(len(images), device=device) % 5 != 0,
    )


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    epochs = parser.parse_args().epochs
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels, train = digits(device)
    chosen = train.nonzero()[:, 0]
    mean, std = (0.3, 0.3, 0.3), (0.35, 0.35, 0.35)
    model = network().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    counts = labels[train].bincount().tolist()
    policy = Policy.load(STRATEGY, class_counts=counts, num_samples=len(images), out=Output(mean=mean, std=std))

    for epoch in range(epochs):
        model.train()
        for index in chosen[torch.randperm(len(chosen), device=device)].split(64):
            x, targets = policy(images[index], labels[index], index=index)  # uint8 in, normalised float32 out
            logits = model(x)
            policy.observe(logits)
            loss = nn.functional.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        policy.end_epoch()

        model.eval()
        with torch.inference_mode():
            held_out = (images[~train] / 255 - mean[0]) / std[0]
            right = (model(held_out).argmax(1) == labels[~train]).float().mean().item()
        levels = ", ".join(f"{level:.2f}" for level in policy.memory.values[""]["level"].tolist())
        print(f"epoch {epoch}: top-1 {100 * right:.1f} %, strength by class {levels}")


if __name__ == "__main__":
    main()
