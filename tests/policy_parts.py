"""A document that draws, one that learns, batches for them and a model's answers."""

from __future__ import annotations

from typing import Any

import torch

COUNTS = [40, 20, 10]
PICK: dict[str, Any] = {
    "augkit": 1,
    "name": "pick",
    "palette": ["hflip", "invert", "rotate", "posterize"],
    "pipeline": [{"pick": {"count": 2, "p": 0.8}}],
}
LEARNER: dict[str, Any] = {
    "augkit": 1,
    "name": "learner",
    "palette": ["hflip", "invert", "equalize"],
    "state": {
        "weight": {"axes": ["classes", "ops"], "init": 1, "clamp": [1, None]},
        "chosen": {"axes": ["classes", "ops"], "init": "onehot(categorical(weight, over=ops), ops)"},
        "previous": {"axes": ["classes"], "init": 0},
    },
    "pipeline": [{"pick": {"p": 0.5, "count": 1, "weights": "chosen[y]", "strength": "uniform()"}}],
    "update": [
        {"at": "epoch_end", "when": "epoch > 0", "set": {"weight": "weight + chosen * sign(correct - previous)"}},
        {"at": "epoch_end", "set": {"previous": "correct", "chosen": "onehot(categorical(weight, over=ops), ops)"}},
    ],
}


def batch(size: int, seed: int = 0, side: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 3, (size,), generator=generator), torch.arange(size)


def answers(targets: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Logits that are right where asked."""
    return torch.nn.functional.one_hot((targets + (~right).long()) % 3, 3).float()
