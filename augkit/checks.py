"""Checks of what callers hand in. On a GPU looking at values means waiting, so there only the first batch is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from augkit.engine.output import Output
from augkit.engine.plan import Plan
from augkit.errors import InputError

if TYPE_CHECKING:
    from augkit.policy import Policy

LARGEST_INDEX = 1 << 28
"""A data set's positions are counted by epoch in a table of this length at most (2 GB)."""


def check_images(images: Tensor, *, first: bool, out: Output | None = None) -> None:
    """Refuse anything but [B, C, H, W] uint8 or float in 0..1, with as many channels as the output has means."""
    check_shape(images)
    if out is not None:
        out.check(images.shape)
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise InputError(f"images must be uint8 or floating point, not {images.dtype}")
    if images.numel() and (first or images.device.type == "cpu"):
        low, high = (float(edge) for edge in images.aminmax())
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise InputError(
                f"float images must be in 0..1, these reach from {low:.3g} to {high:.3g};"
                " apply the policy before normalising, or pass uint8 in 0..255"
            )


def check_shape(images: Any) -> None:
    """Refuse anything but [B, C, H, W]."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] == 0:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        single = "; images[None] makes a batch of one image" if isinstance(images, Tensor) and images.ndim == 3 else ""
        raise InputError(f"images must be a tensor [B, C, H, W], not {shape}{single}")


def check_targets(targets: Tensor, num_classes: int | None) -> None:
    """Refuse anything but [B] integer class numbers below `num_classes`."""
    if (
        not isinstance(targets, Tensor)
        or targets.ndim != 1
        or targets.is_floating_point()
        or targets.dtype == torch.bool
    ):
        what = (
            f"{targets.dtype} of shape {tuple(targets.shape)}"
            if isinstance(targets, Tensor)
            else type(targets).__name__
        )
        raise InputError(
            f"targets must be class numbers, an int64 tensor [B], not {what};"
            " dense or multi-label targets do not fit here"
        )
    if num_classes is not None and targets.numel() and targets.device.type == "cpu":
        low, high = (int(edge) for edge in targets.aminmax())
        wrong = low if low < 0 else high
        if not 0 <= wrong < num_classes:
            raise InputError(
                f"targets hold class {wrong}, but the policy was loaded with {num_classes} classes"
                f" (0..{num_classes - 1}); load it with this data set's class_counts"
            )


def check_fit(name: str, value: Tensor, targets: Tensor) -> None:
    """Refuse what has another length or device than the targets."""
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a tensor, not {type(value).__name__}; torch.as_tensor makes one")
    if len(value) != len(targets):
        raise InputError(f"{name} has {len(value)} entries but there are {len(targets)} targets")
    if value.device != targets.device:
        raise InputError(f"{name} is on {value.device} but targets are on {targets.device}; move both to one device")


def check_batch(
    policy: Policy, targets: Tensor, images: Tensor | None, companions: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Check everything that comes with a batch: the labels and companions as int64, by name."""
    check_targets(targets, policy.num_classes)
    indices = {"y": targets.long()}
    facts = policy.facts
    limits = {"index": facts.num_samples if "index" in policy.needs else None, "group": facts.num_groups}
    for name, value in companions.items():
        if value is not None:
            check = check_marks if name == "is_synthetic" else check_companion
            indices[name] = check(name, value, targets, limits.get(name))
        elif name in policy.needs:
            raise InputError(f'strategy "{policy.strategy.name}" uses `{name}`: pass {name}= with each batch')
    if images is not None:
        check_shape(images)
        check_fit("images", images, targets)
        check_images(images, first=policy.step == 0, out=policy.out)
    return indices


def check_plan(plan: Any, images: Tensor) -> None:
    """Refuse what is no plan, or one of other images."""
    if not isinstance(plan, Plan):
        raise InputError(f"expected a plan, as policy.plan(targets) draws it, not {plan!r}")
    if len(plan) != len(images):
        raise InputError(f"the plan was drawn for {len(plan)} images but there are {len(images)}")
    if images.device != plan.choice.device:
        raise InputError(
            f"images are on {images.device} but the plan is on {plan.choice.device}; use plan.to(images.device)"
        )


def check_companion(name: str, value: Tensor, targets: Tensor, limit: int | None) -> Tensor:
    """`index` or `group` of each image as [B] int64; on the CPU also that all are in 0..limit - 1."""
    if not isinstance(value, Tensor) or value.ndim != 1 or value.is_floating_point() or value.dtype == torch.bool:
        what = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} must be an int64 tensor [B], not {what}")
    check_fit(name, value, targets)
    if value.numel() and value.device.type == "cpu":
        low, high = (int(edge) for edge in value.aminmax())
        most = LARGEST_INDEX if limit is None else limit
        if low < 0 or high >= most:
            raise InputError(f"{name} holds {low if low < 0 else high}, outside 0..{most - 1}")
    return value.long()


def check_marks(name: str, value: Tensor, targets: Tensor, limit: int | None = None) -> Tensor:
    """A truth value of each image, [B] bool, as 0 and 1: [B] int64."""
    if not isinstance(value, Tensor) or value.ndim != 1 or value.dtype != torch.bool:
        what = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} must be a bool tensor [B], not {what}")
    check_fit(name, value, targets)
    return value.long()


def device_of(device: torch.device | str) -> torch.device:
    """The device by its full name: "cuda" and "cuda:0" are one, but do not compare equal.

    Raises:
        InputError: torch knows no such device, or it is not there.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the policy cannot work on the device {str(device)!r}: {reason}") from error


def first_answer(output: Any) -> Tensor | None:
    """The first tensor [B, C] in a model's output: a tensor, or a tuple, list or mapping of such."""
    if isinstance(output, Tensor):
        return output if output.ndim == 2 else None
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for found in map(first_answer, parts) if found is not None), None)


def answer_of(output: Any) -> Tensor | None:
    """[B, C] what a model answers: of several experts' logits [B, experts, C] their mean, else `first_answer`."""
    if isinstance(output, Tensor) and output.ndim == 3:
        return output.float().mean(1)
    return first_answer(output)


def check_logits(logits: Any, num_classes: int | None, split: str) -> Tensor:
    """The model's answer [B, C], of the policy's number of classes."""
    if split not in ("train", "val"):
        raise InputError(f'split must be "train" or "val", not {split!r}')
    found = answer_of(logits)
    if found is None or (num_classes is not None and found.shape[1] != num_classes):
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"logits must be a tensor [B, {num_classes or 'C'}], not {what}")
    return found
