"""A strategy as a function of images and keys alone, as a transform inside a loader has to be: nothing can go stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augkit.engine.draw import draw
from augkit.engine.environment import Bank
from augkit.engine.plan import Plan
from augkit.errors import DocumentError, InputError
from augkit.plugins import registry
from augkit.policy import Policy
from augkit.strategy.build import SIGNALS
from augkit.strategy.document import load_strategy
from augkit.strategy.expression import IS_SYNTHETIC
from augkit.strategy.model import Strategy

MOVING = ("warp", "map", "opaque")
"""Kinds of operators after which masks, boxes and keypoints may no longer fit the image."""


class Keyed:
    """Augments images by one number each: the same number does the same to the same image, in whatever process.

    Nothing is learned or counted, so copies of it in worker processes stay as good as the first. A strategy that
    learns, that follows epochs or classes, or that mixes images is refused: only a training loop knows what it needs.

    Args:
        source: a policy (its strategy is taken, not its seed), or what `Policy.load` takes.
        folder: where paths that a document uses start.

    Raises:
        InputError: the strategy cannot run inside a loader; the reason.
        DocumentError: the document is wrong.
    """

    def __init__(self, source: Policy | str | Path | Mapping[str, Any], folder: Path | str | None = None) -> None:
        where = Path(folder) if folder is not None else None
        if isinstance(source, Policy) and source.out is not None:
            raise InputError("the policy normalises its images (out=...); load it without, and normalise afterwards")
        strategy = source.strategy if isinstance(source, Policy) else _load(source, where)
        reason = refusal(strategy)
        if reason:
            raise InputError(
                f'strategy "{strategy.name}" cannot run inside a loader: {reason};'
                " call the policy on whole batches in the training loop instead"
            )
        self.strategy = strategy
        self.document = strategy.document
        self.folder = where or (Path(strategy.file).parent if strategy.file is not None else None)
        self.policy = Policy(strategy, class_names=("any",), registry=registry(), device="cpu")
        self.moves = any(choice.operator.kind in MOVING for choice in self.policy.program.choices)

    def __reduce__(self) -> tuple[Any, ...]:
        return Keyed, (self.document, self.folder)

    def plan(self, keys: Sequence[int], device: torch.device | None = None) -> Plan:
        """What happens to images with these keys (64-bit whole numbers)."""
        if device is not None and self.policy.device != device:
            self.policy.to(device)
        at = self.policy.device
        numbers = torch.tensor(list(keys), dtype=torch.int64, device=at)
        memory, program = self.policy.memory, self.policy.program
        # a bank of its own for each call: threads may share a transform
        environment = memory.environment(program.root, "draw", 0)
        environment = environment.for_batch(numbers, Bank(), {"y": torch.zeros_like(numbers)})
        return draw(program, memory.values, environment, None)

    def __call__(self, images: Tensor, keys: Sequence[int]) -> Tensor:
        """[B, C, H, W] uint8 or floating point in 0..1, and B keys, to images alike."""
        result, _ = self.policy.apply(images, self.plan(keys, images.device))
        return result


def _load(source: str | Path | Mapping[str, Any], folder: Path | None) -> Strategy:
    if not isinstance(source, (str, Path, Mapping)):
        raise DocumentError(
            f"expected a policy, or the name, path or mapping of a strategy, not {type(source).__name__}"
        )
    return load_strategy(source, registry(), folder=folder)


def refusal(strategy: Strategy) -> str:
    """Why a strategy cannot be a function of images and keys alone; "" if it can."""
    known = {*SIGNALS, *registry().signals}
    asks = sorted(strategy.reads & known) + sorted(strategy.needs)
    if strategy.reads & {"y", "index", "group"}:
        return "it looks at each image's class, index or group"
    if IS_SYNTHETIC in strategy.reads:
        return "it looks at which images are synthetic"
    if strategy.state or strategy.update:
        return "it learns, and every worker would keep a copy that never changes"
    if strategy.mixes:
        return "it mixes images, and a loader's transform sees one at a time"
    if strategy.view_names:
        return "it makes several views of each image"
    return f'it follows "{asks[0]}", which only the training loop knows' if asks else ""
