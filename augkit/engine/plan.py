"""A Plan: every random value of one batch, before a pixel is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augkit.engine.mix_plan import Mix
from augkit.errors import InputError
from augkit.operators.base import Choice


@dataclass(frozen=True)
class ImageSettings:
    """How a document wants pixels treated. `exact` runs one pass an operator, as Pillow would."""

    resample: str = "bilinear"
    """`nearest` or `bilinear`."""
    fill: str = "black"
    """`black`, `mean` (of the image) or `reflect`."""
    exact: bool = False


@dataclass(frozen=True)
class Branches:
    """Chains of operators that are blended with the image they start from. B images, W branches."""

    plan: Plan
    """For B * W images: the branches of the first image, those of the second, and so on."""
    weights: Tensor
    """[B, W] float32 share of each branch in the blend; they sum to 1, or are all 0."""
    blend: Tensor
    """[B] float32 share of the blend in the result; 0 leaves the image alone."""

    def gated(self, happens: Tensor) -> Branches:
        """The same for the images in `happens` [B] alone."""
        each = happens.repeat_interleave(self.weights.shape[1])[:, None]
        plan = replace(self.plan, choice=torch.where(each, self.plan.choice, -1))
        return Branches(plan, self.weights, torch.where(happens, self.blend, 0.0))

    def describe(self, i: int) -> str:
        """What is blended for image `i`, in words; "" for nothing."""
        if not float(self.blend[i]):
            return ""
        width = self.weights.shape[1]
        parts = [
            f"{float(self.weights[i, w]):.2f} x ({self.plan.describe(i * width + w).replace(', then ', ' and ')})"
            for w in range(width)
        ]
        return f"{float(self.blend[i]):.2f} of a blend of {' + '.join(parts)}"


@dataclass(frozen=True)
class Plan:
    """What happens to each image of a batch, replayable. B images, S slots in order, K extra numbers a slot."""

    choices: tuple[Choice, ...]
    """What the numbers in `choice` mean."""
    choice: Tensor
    """[B, S] int64 index into `choices`; -1 is an empty slot."""
    value: Tensor
    """[B, S] float32 in the operator's own unit, sign included; 0 where the operator has no value."""
    strength: Tensor
    """[B, S] float32 0..1; NaN where the operator has none or the value was given in its own unit."""
    u: Tensor
    """[B, S, K] float32 uniform in [0, 1), for operators that declare draws."""
    targets: Tensor
    """[B] int64 class of each image."""
    mixes: tuple[Mix, ...] = ()
    image: ImageSettings = ImageSettings()
    branches: Branches | None = None
    """What is blended with the images after their operators and before mixing."""
    views: tuple[tuple[str, Plan], ...] = ()
    """What each view does to the images after all this, by name: B images in, len(views) * B out, view by view."""
    levels: Mapping[str, Tensor] = field(default_factory=dict)
    """For each probe that counts training answers, [B] int64 level of each image, -1 for one that does not count."""

    keys: Tensor | None = None
    """[B] int64 stream of random numbers of each image, that everything here was drawn from."""

    def __len__(self) -> int:
        return self.choice.shape[0]

    def to(self, device: torch.device | str) -> Plan:
        """The same plan with its tensors on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("choice", "value", "strength", "u", "targets")}
        mixes = tuple(mix.to(device) for mix in self.mixes)
        branches = self.branches and Branches(
            self.branches.plan.to(device), self.branches.weights.to(device), self.branches.blend.to(device)
        )
        views = tuple((name, view.to(device)) for name, view in self.views)
        levels = {name: level.to(device) for name, level in self.levels.items()}
        keys = None if self.keys is None else self.keys.to(device)
        return replace(self, mixes=mixes, branches=branches, views=views, levels=levels, keys=keys, **moved)

    def select(self, rows: Tensor) -> Plan:
        """The operators of some images ([N] int64 positions) as a plan of their own, without what follows them."""
        own = {name: getattr(self, name)[rows] for name in ("choice", "value", "strength", "u", "targets")}
        keys = None if self.keys is None else self.keys[rows]
        return replace(self, mixes=(), branches=None, views=(), levels={}, keys=keys, **own)

    def operators(self) -> Plan:
        """The operators alone, without branches, mixing and views."""
        return replace(self, mixes=(), branches=None, views=())

    def mixing(self) -> Plan:
        """The mixing alone."""
        empty = {name: getattr(self, name)[:, :0] for name in ("choice", "value", "strength", "u")}
        return replace(self, branches=None, views=(), **empty)

    def without_operators(self) -> Plan:
        """The same plan doing nothing to single images."""
        views = tuple((name, view.without_operators()) for name, view in self.views)
        return replace(self, choice=torch.full_like(self.choice, -1), branches=None, views=views, levels={})

    def parts(self) -> Iterator[tuple[Plan, int]]:
        """Every plan in it that holds operators, and how many rows it has for each image."""
        yield self, 1
        if self.branches is not None:
            yield self.branches.plan, self.branches.weights.shape[1]
        for _, view in self.views:
            yield from view.parts()

    def describe(self, i: int) -> str:
        """What happens to image `i`, in words: 'rotate -12.0 degrees, then posterize 4 bits'.

        With views `i` is the position in the result, which holds all images of the first view, then of the second.
        """
        results = len(self) * max(1, len(self.views))
        if not 0 <= i < results:
            made = f"{len(self)} images" + (f" in {len(self.views)} views" if self.views else "")
            raise InputError(f"the plan has no image {i}; it was drawn for {made}, from 0")
        return ", then ".join(self._words(i)) or "unchanged"

    def _words(self, i: int) -> list[str]:
        if self.views:
            view, image = divmod(i, len(self))
            return [*replace(self, views=())._words(image), *self.views[view][1]._words(image)]
        parts = []
        for slot, index in enumerate(self.choice[i].tolist()):
            if index < 0:
                continue
            operator = self.choices[index].operator
            parts.append(f"{operator.name} {operator.told(self.value[i, slot].item())}".rstrip())
        if self.branches is not None and self.branches.describe(i):
            parts.append(self.branches.describe(i))
        return [*parts, *(text for mix in self.mixes if (text := mix.describe(i)))]
