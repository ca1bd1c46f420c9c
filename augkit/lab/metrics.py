"""How well a model does: all, many, medium and few classes, and each class by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from augkit.lab.data import Split
from augkit.lab.experts import joint

GROUPS = ("many", "medium", "few")
MANY, FEW = 100, 20


@dataclass(frozen=True)
class Scores:
    """Answers over one split: [classes] int64 counts on the CPU."""

    correct: Tensor
    seen: Tensor

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy over all images, 0..1."""
        return int(self.correct.sum()) / int(self.seen.sum())

    def by_class(self) -> list[float | None]:
        """Accuracy 0..1 of each class; None for a class without an image in the split."""
        return [c / n if n else None for c, n in zip(self.correct.tolist(), self.seen.tolist(), strict=True)]

    def summary(self, class_counts: Tensor) -> dict[str, float | None]:
        """Accuracy over all images, and the mean over classes of each group; None for a group that is not there."""
        groups = group_of(class_counts)
        classes = self.by_class()
        result: dict[str, float | None] = {"all": self.accuracy}
        for name in GROUPS:
            members = [
                value for value, group in zip(classes, groups, strict=True) if group == name and value is not None
            ]
            result[name] = sum(members) / len(members) if members else None
        return result


def group_of(class_counts: Tensor) -> list[str]:
    """The group of each class by its training images: many > 100, medium 20..100, few < 20 (Liu et al., CVPR 2019)."""
    return ["many" if n > MANY else "few" if n < FEW else "medium" for n in class_counts.tolist()]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    num_classes: int,
    prepare: Callable[[Tensor], Tensor],
    context: torch.autocast,
    batch_size: int = 512,
) -> tuple[Scores, Tensor]:
    """Run the model over a split in eval mode; (scores, joint logits [N, classes] float32 on the split's device).

    `prepare` turns uint8 images [B, 3, H, W] into what the model takes.
    """
    was_training = model.training
    model.eval()
    device = split.labels.device
    positions = list(torch.split(torch.arange(len(split), device=device), batch_size))
    gathered = []
    for images in split.batches(positions):
        with context:
            gathered.append(joint(model(prepare(images))).float())
    model.train(was_training)
    logits, labels = torch.cat(gathered), split.labels.cpu()
    right = labels[logits.argmax(1).cpu() == labels]
    return Scores(*(torch.bincount(those, minlength=num_classes) for those in (right, labels))), logits
