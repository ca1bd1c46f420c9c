"""Between a loader and the model: images become uint8, the policy augments them, their labels are queued."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from augkit.errors import InputError
from augkit.policy import Policy


class Normalisation:
    """Takes a loader's normalisation off and puts it on again.

    mean and std are in 0..1 units, one number or one a channel.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float32).reshape(-1, 1, 1) * 255
        self.std = torch.as_tensor(std, dtype=torch.float32).reshape(-1, 1, 1) * 255
        if self.mean.numel() == 0 or bool((self.std <= 0).any()):
            raise InputError("mean and std must hold a number for each channel, and std numbers above 0")
        for name, given in (("mean", self.mean), ("std", self.std)):
            if given.numel() not in (1, 3):
                raise InputError(f"{name} must hold one number or one for each of 3 channels, not {given.numel()}")

    def undo(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised to uint8: what the loader decoded, since that had 8 bits."""
        mean, std = self._on(images.device)
        return images.float().mul(std).add_(mean).round_().clamp_(0, 255).to(torch.uint8)

    def redo(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """[B, C, H, W] uint8 to normalised `dtype`; floating point (a policy with `out`) is left alone."""
        if images.is_floating_point():
            return images
        mean, std = self._on(images.device)
        return images.to(torch.float32).sub_(mean).div_(std).to(dtype)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.mean.device != device:
            self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self.mean, self.std


class MixupFn:
    """Stands where timm's `Mixup` stands: `(images, targets) -> (images, targets)` for images already normalised.

    See `mixup_fn`.
    """

    def __init__(self, policy: Policy, normalisation: Normalisation) -> None:
        self.policy, self.normalisation = policy, normalisation

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] normalised floats, target [B] int64; neither is written to."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"mixup_fn takes normalised images of floating point, not {kind}; call the policy for uint8"
            )
        images, targets = self.policy(self.normalisation.undo(x), target)
        return self.normalisation.redo(images, x.dtype), targets

    @property
    def mixup_enabled(self) -> bool:
        """Whether images are mixed; False leaves the other steps on, and targets dense, as timm does."""
        return self.policy.mixing

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self.policy.mixing = bool(value)


def mixup_fn(policy: Policy, mean: float | Sequence[float], std: float | Sequence[float]) -> MixupFn:
    """A policy as timm's `mixup_fn`, for loops that get normalised images and call it themselves.

    Images are brought back to 8 bits, augmented, and normalised again; what random erasing drew beyond 0..255 is
    clipped. Call `policy.observe(logits)` after the forward pass and `policy.end_epoch()` after each epoch.

    Args:
        policy: the policy.
        mean: what the loader normalised with, in 0..1 units.
        std: likewise.

    Raises:
        InputError: mean or std has neither 1 nor 3 numbers, or a std is not above 0.
    """
    return MixupFn(policy, Normalisation(mean, std))


class Given(NamedTuple):
    """What came with a batch that the model will answer."""

    labels: Tensor | None
    """[B] int64, or [V * B] with views; None for no batch."""
    levels: Mapping[str, Tensor] = {}
    """`plan.levels`, [B] each."""


class Feed:
    """Stands in for a DataLoader: gives its batches augmented, and notes the labels of each in `queue`.

    A prefetching loader takes one batch more than the model has seen, hence the queue. Inside one, work is put on
    that loader's side stream, so that it overlaps with the model as the transfer does.
    """

    def __init__(
        self,
        source: Any,
        policy: Policy,
        *,
        indexed: bool,
        companions: Mapping[str, Tensor],
        normalisation: Normalisation | None,
        prefetcher: Any = None,
    ) -> None:
        self.source, self.policy = source, policy
        self.indexed, self.companions, self.normalisation = indexed, companions, normalisation
        # weak, since that loader holds this one: workers hang for ten seconds when a cycle is what ends them
        self._prefetcher = weakref.ref(prefetcher) if prefetcher is not None else None
        self.queue: deque[Given] = deque()

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def __iter__(self) -> Iterator[Any]:
        queue = self.queue = deque()  # an abandoned iterator keeps its own
        for batch in self.source:
            with self._on_stream():
                augmented, labels = self.augment(batch)
            plan = self.policy.last_plan
            queue.append(Given(labels, plan.levels if plan is not None else {}))
            yield augmented

    def augment(self, batch: Any) -> tuple[Any, Tensor]:
        """A loader's batch with images and targets replaced, and the labels it came with."""
        index = None
        if self.indexed:
            batch, index = batch
        images, labels, rest = _split(batch)
        device = self.device
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        told: dict[str, Tensor] = {}
        if index is not None:
            told = {name: of_each[index] for name, of_each in self.companions.items()} | {"index": index}
            told = {name: value.to(device, non_blocking=True) for name, value in told.items()}
        dtype = images.dtype
        if self.normalisation is not None and images.is_floating_point():
            images = self.normalisation.undo(images)
        images, targets = self.policy(images, labels, **told)
        if self.normalisation is not None and dtype.is_floating_point:
            images = self.normalisation.redo(images, dtype)
        if self.policy.views:  # the labels of every image that the model will see
            labels = labels.repeat(len(self.policy.views))
        return _like(batch, [images, targets, *rest]), labels

    @property
    def device(self) -> torch.device:
        """Where the policy works: with a prefetching loader that loader's device."""
        prefetcher = self._prefetcher() if self._prefetcher is not None else None
        device: torch.device = self.policy.device if prefetcher is None else prefetcher.device
        return device

    @property
    def stream(self) -> Any:
        """The prefetching loader's side stream on a GPU, or None."""
        prefetcher = self._prefetcher() if self._prefetcher is not None else None
        return prefetcher.stream if prefetcher is not None and prefetcher.is_cuda else None

    def _on_stream(self) -> AbstractContextManager[Any]:
        stream = self.stream
        if stream is None:
            return nullcontext()
        # memory that the model's stream gave back may be handed out below: wait until it is done with it
        stream.wait_stream(torch.cuda.current_stream(self.device))
        return torch.cuda.stream(stream)


def _like(batch: Any, parts: list[Any]) -> Any:
    """`parts` in the kind of sequence that the batch was."""
    kind = type(batch)
    make = getattr(kind, "_make", kind)  # named tuples take their fields one by one
    return make(parts)


def _split(batch: Any) -> tuple[Tensor, Tensor, list[Any]]:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2 or not isinstance(batch[0], Tensor):
        what = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list, dict)) else "")
        raise InputError(f"wrap needs a loader whose batches are (images, targets), this one gives {what}")
    images, labels, *rest = batch
    if isinstance(labels, Tensor) and labels.ndim == 2:
        raise InputError(
            f"the loader gives dense targets {tuple(labels.shape)}; turn timm's mixup and multi-label targets off,"
            " the policy mixes by itself"
        )
    return images, labels.long() if isinstance(labels, Tensor) and not labels.is_floating_point() else labels, rest
