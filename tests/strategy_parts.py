"""What tests of strategies share: an environment to evaluate expressions in, and YAML written out in full."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import yaml
from torch import Tensor

from augkit.strategy.typing import Scope, ordered

SIZES = {"batch": 3, "branches": 2, "picks": 2, "samples": 5, "groups": 2, "classes": 4, "levels": 2, "ops": 3}
CPU = torch.device("cpu")


class Plain(yaml.SafeDumper):
    """Writes every part out, however often it comes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass
class Box:
    """An environment with given values and its own random numbers."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=lambda: dict(SIZES))
    indices: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    divided: float = 0.0
    device: torch.device = CPU

    def value(self, name: str) -> Tensor:
        return self.values[name]

    def size(self, axis: str) -> int:
        return self.sizes[axis]

    def index(self, name: str) -> Tensor:
        return self.indices[name]

    def uniform(self, site: str, axes: tuple[str, ...], count: int) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {site}".encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        return torch.rand([*(self.sizes[axis] for axis in axes), count], generator=generator)

    def count_division_by_zero(self, where: Tensor) -> None:
        self.divided += float(where.sum())


def filled(scope: Scope, numbers: Sequence[float], seed: int = 0) -> Box:
    """An environment in which every name of a scope has values out of `numbers`, cut to what is known of it."""
    values, generator = {}, torch.Generator().manual_seed(seed)
    pool = torch.tensor(list(numbers), dtype=torch.float32)
    for name, axes in scope.names.items():
        shape = [SIZES[axis] for axis in ordered(axes)]
        drawn = pool[torch.randint(len(pool), shape, generator=generator)]
        values[name] = drawn.clamp(*scope.ranges.get(name, (-1e30, 1e30)))
    lengths = {"y": "classes", "index": "samples", "group": "groups"}
    indices = {key: torch.randint(SIZES[axis], (SIZES["batch"],), generator=generator) for key, axis in lengths.items()}
    indices["is_synthetic"] = torch.randint(2, (SIZES["batch"],), generator=generator)
    return Box(values, indices=indices, seed=seed)
