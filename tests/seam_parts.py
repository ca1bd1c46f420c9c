"""Parts for the tests of the timm seam: images that say who they are, models that answer by what they see."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from augkit.policy import Policy
from augkit.torchvision_compat import ensure_torchvision

ensure_torchvision()

from timm.data import create_loader  # noqa: E402

CLASSES = 5
NONE: dict[str, Any] = {"augkit": 1, "name": "nothing", "pipeline": []}
LEARNS: dict[str, Any] = {
    "augkit": 1,
    "name": "learns",
    "state": {"answered": {"axes": ["classes"], "init": 0}, "right": {"axes": ["classes"], "init": 0}},
    "pipeline": [],
    "update": [{"at": "epoch_end", "set": {"answered": "answered + seen", "right": "right + correct"}}],
}
MIXES: dict[str, Any] = {
    "augkit": 1,
    "name": "mixes",
    "pipeline": [{"batch": [{"mixup": {"p": 1, "alpha": 1.0}}]}],
}
TURNS: dict[str, Any] = {
    "augkit": 1,
    "name": "turns",
    "palette": ["hflip", "invert", "rotate", "posterize"],
    "pipeline": [{"pick": {"count": 1}}],
}


class ImageSet(Dataset[Any]):
    """Plain images 8x8 of one colour: red tells the class, green and blue the index."""

    def __init__(self, size: int = 23, targets: list[int] | None = None) -> None:
        self.targets = targets if targets is not None else [i * 7 % CLASSES for i in range(size)]
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        pixels[:] = (self.targets[i] * 20, i % 256, i // 256)
        image: Any = Image.fromarray(pixels)
        return (self.transform(image) if self.transform is not None else image), self.targets[i]


class Stream(IterableDataset[Any]):
    """The same images as a stream, split over workers."""

    def __init__(self, size: int = 24) -> None:
        self.inner = ImageSet(size)
        self.transform: Any = None

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info is not None else (0, 1)
        for i in range(first, len(self.inner), step):
            image, target = self.inner[i]
            yield (self.transform(image) if self.transform is not None else image), target


class Seer(nn.Module):
    """Answers with the class that the image's red shows, `late` batches late. Images come as value / 255."""

    def __init__(self, late: int = 0, shape: str = "tensor", classes: int = CLASSES) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.late, self.shape, self.num_classes = late, shape, classes
        self.past: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        labels = (x[:, 0].float().mean((1, 2)) * 255 / 20).round().long().clamp(0, self.num_classes - 1)
        logits = nn.functional.one_hot(labels, self.num_classes).float() * 10 * self.scale
        self.past.append(logits)
        logits = self.past[max(0, len(self.past) - 1 - self.late)][: len(x)]
        if self.shape == "tuple":
            return logits, x
        return {"loss": logits.sum(), "output": logits} if self.shape == "dict" else logits


class Net(nn.Module):
    """A tiny network without Python state, for torch.compile and copies."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv, self.head, self.num_classes = nn.Conv2d(3, 4, 3), nn.Linear(4, classes), classes

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return answer


class Recorder(Policy):
    """A policy that keeps what it was called with."""

    calls: list[dict[str, Tensor | None]]

    def __call__(self, images: Tensor, targets: Tensor, **companions: Tensor | None) -> tuple[Tensor, Tensor]:
        told = {"index": None, "group": None, "is_synthetic": None, **companions}
        self.__dict__.setdefault("calls", []).append({"images": images.clone(), "targets": targets.clone(), **told})
        return super().__call__(images, targets, **companions)


def loader(dataset: Any = None, batch: int = 4, **options: Any) -> Any:
    """timm's own training loader on the CPU, without its augmentation, giving value / 255."""
    settings: dict[str, Any] = {
        "is_training": True,
        "no_aug": True,
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "num_workers": 0,
        "device": torch.device("cpu"),
    }
    dataset = dataset if dataset is not None else ImageSet()
    return create_loader(dataset, (3, 8, 8), batch, **{**settings, **options})


def learned(policy: Policy) -> tuple[list[float], list[float]]:
    """What the document LEARNS has counted over all epochs: answers and right answers of each class."""
    values = policy.memory.values[""]
    return values["answered"].tolist(), values["right"].tolist()


def history(policy: Policy) -> list[dict[str, Any]]:
    """The counts of the ended epochs as lists, which compare."""
    return [{n: v.tolist() if isinstance(v, Tensor) else v for n, v in ended.items()} for ended in policy.history]


def epoch(wrapped: Any, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """One epoch of a loop: every batch goes through the model, as in training."""
    model.train()
    seen = []
    for images, targets in wrapped:
        model(images)
        seen.append((images, targets))
    return seen
