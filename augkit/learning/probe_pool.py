"""All training images as uint8 by class: what probes draw from, with replacement."""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.errors import InputError

MAX_BYTES = 2 << 30


class ProbePool:
    """Training images for probes, on one device. The images given are kept, not copied.

    Args:
        images: [N, C, H, W] uint8.
        labels: [N] int64 class of each.
        index: [N] int64 position of each in the data set; in order unless said.
        group: [N] int64 group of each, for documents that use groups.
        is_synthetic: [N] bool, for documents that read it.
        of: how many training images there are, if these are not all of them.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        index: Tensor | None = None,
        group: Tensor | None = None,
        is_synthetic: Tensor | None = None,
        of: int | None = None,
    ) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise InputError(f"a probe pool holds uint8 images [N, C, H, W], not {images.dtype} {tuple(images.shape)}")
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise InputError(f"labels must be class numbers [{len(images)}], not {labels.dtype} {tuple(labels.shape)}")
        if len(images) == 0 or int(labels.min()) < 0:
            raise InputError("a probe pool holds at least one image, and class numbers of 0 or more")
        self.images, self.labels = images, labels.long()
        device = images.device
        self.index = torch.arange(len(images), device=device) if index is None else index.long()
        self.group = group.long() if group is not None else None
        self.is_synthetic = is_synthetic.long() if is_synthetic is not None else None
        self.of = len(images) if of is None else of
        self.order = torch.argsort(self.labels.to(device), stable=True)
        self.counts = torch.bincount(self.labels.to(device))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def note(self) -> str:
        """What to say if it holds fewer than all training images; empty if it holds all."""
        if len(self) >= self.of:
            return ""
        size = self.images.numel() / 2**20
        return (
            f"probes draw from {len(self)} of the {self.of} training images ({size:.0f} MiB): the same number of each"
            " class as far as it has them"
        )

    def classes(self, number: int) -> None:
        """Lay out the counts for so many classes.

        Raises:
            InputError: a label is beyond them.
        """
        if len(self.counts) > number:
            most = len(self.counts) - 1
            raise InputError(f"the probe pool holds class {most}, but the policy was loaded with {number} classes")
        self.counts = torch.nn.functional.pad(self.counts, (0, number - len(self.counts)))

    def to(self, device: torch.device) -> ProbePool:
        """Move everything; returns the pool."""
        for name in ("images", "labels", "index", "group", "is_synthetic", "order", "counts"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(device))
        return self

    def take(self, classes: Tensor, u: Tensor) -> Tensor:
        """[N] classes and [N] uniform numbers to [N] int64 rows of `images`; only classes that have images."""
        held = self.counts[classes]
        start = (self.counts.cumsum(0) - self.counts)[classes]
        place = torch.minimum((u * held).long(), held - 1)
        return self.order[start + place]


def rows_within(labels: Tensor, most: int, seed: int = 0) -> Tensor:
    """Which images to hold when there is room for `most`: the same number of each class as far as it has them.

    Args:
        labels: [N] int64 on the CPU.
        most: room, in images.
        seed: decides which images of a class.

    Returns:
        [M] int64 rows in order; all of them if there is room.

    Raises:
        InputError: there is not even room for one image of each class.
    """
    if len(labels) <= most:
        return torch.arange(len(labels))
    counts = torch.bincount(labels)
    quota = 0
    for step in reversed([1 << bit for bit in range(int(counts.max()).bit_length())]):
        if int(counts.clamp(max=quota + step).sum()) <= most:
            quota += step
    if quota == 0:
        raise InputError(f"there is room for {most} images, not one for each of {len(counts)} classes; raise the cap")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(labels)) - starts[labels[order]]
    return order[place < quota].sort().values
