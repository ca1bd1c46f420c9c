"""What a data set's own transforms do: which are random, how they normalise, and the same without chance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from augkit.errors import InputError

# By name, because torchvision has two sets of them, timm a third, and none says of itself whether it draws.
PLAIN = {
    "CenterCrop", "CenterCropOrPad", "ConvertImageDtype", "Normalize", "PILToTensor", "Pad", "PatchifyTransform",
    "Resize", "ResizeKeepRatio", "TrimBorder", "ToDtype", "ToImage", "ToNumpy", "ToPILImage", "ToTensor",
    "MaybePILToTensor", "MaybeToTensor", "Patchify", "Grayscale", "FiveCrop", "TenCrop",
}  # fmt: skip
RANDOM = (
    "Random",
    "ColorJitter",
    "AutoAugment",
    "RandAugment",
    "TrivialAugment",
    "AugMix",
    "GaussianBlur",
    "ElasticTransform",
)


def parts(transform: Any) -> Iterator[Any]:
    """The single transforms of a composed one, in order."""
    if transform is None:
        return
    inner = getattr(transform, "transforms", None) if type(transform).__name__ == "Compose" else None
    if inner is None and isinstance(transform, (tuple, list)):
        inner = transform
    if inner is None:
        yield transform
        return
    for part in inner:
        yield from parts(part)


def is_random(transform: Any) -> bool | None:
    """Whether a transform draws; None when there is no telling."""
    if getattr(transform, "random_scale_prob", 0) or getattr(transform, "random_aspect_prob", 0):
        return True
    name = type(transform).__name__
    if name in PLAIN:
        return False
    return True if name.startswith(RANDOM) else None


def transforms_of(dataset: Any) -> list[Any]:
    """Every single transform on the way out of a data set and of what it wraps; of scheduled sizes the first's."""
    found: list[Any] = []
    while dataset is not None:
        choices = getattr(dataset, "transforms", None)
        own = choices[0] if isinstance(choices, tuple) and choices else getattr(dataset, "transform", None)
        found = [*parts(own), *found]
        inner = getattr(dataset, "dataset", None)
        if own is not None and own is getattr(inner, "transform", None):
            break  # a wrapper that shows its inner data set's transform as its own
        dataset = inner
    return found


def describe(found: list[Any]) -> tuple[list[str], list[str]]:
    """Names of the random transforms, and of those nobody knows."""
    random = [type(part).__name__ for part in found if is_random(part)]
    return random, [type(part).__name__ for part in found if is_random(part) is None]


def normalisation(found: list[Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """mean and std (0..1 units) of the last `Normalize`, if there is one."""
    for part in reversed(found):
        if type(part).__name__ == "Normalize":
            return tuple(float(m) for m in part.mean), tuple(float(s) for s in part.std)
    return None


def without_chance(dataset: Any) -> Any:
    """A shallow copy of a data set whose random transforms are gone: random crops become centred ones of their size.

    Raises:
        InputError: it has no transform to be found, or one that cannot be judged.
    """
    changed = copy.copy(dataset)
    if isinstance(getattr(dataset, "transforms", None), tuple):
        changed.transforms = tuple(_settled(choice) for choice in dataset.transforms)
    elif type(dataset).__name__ == "AugMixDataset":
        raise InputError('base="policy" cannot undo augmentation splits; create the loader without num_aug_splits')
    elif getattr(dataset, "transform", None) is not None:
        changed.transform = _settled(dataset.transform)
    elif getattr(dataset, "dataset", None) is not None:
        changed.dataset = without_chance(dataset.dataset)
    else:
        raise InputError(
            f'base="policy" needs the data set\'s transform, and {type(dataset).__name__} has none to be found;'
            ' give it a deterministic transform yourself and use base="loader"'
        )
    return changed


def _settled(transform: Any) -> Callable[[Any], Any]:
    from torchvision.transforms import Compose

    kept: list[Any] = []
    for part in parts(transform):
        random = is_random(part)
        if random is None:
            raise InputError(
                f'base="policy" cannot tell whether the transform {type(part).__name__} is random;'
                ' give the data set a deterministic transform yourself and use base="loader"'
            )
        kept.extend(_counterpart(part) if random else [part])
    composed: Callable[[Any], Any] = Compose(kept)
    return composed


def _counterpart(part: Any) -> list[Any]:
    """What stands in for a random transform: a centred crop for a crop, nothing for the rest."""
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    name = type(part).__name__
    size = getattr(part, "size", None)
    if name == "ResizeKeepRatio":
        still = copy.copy(part)
        still.random_scale_prob = still.random_aspect_prob = 0.0
        return [still]
    if size is None or "Crop" not in name:
        return []
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    if name.startswith("RandomResizedCrop"):
        mode = getattr(part, "interpolation", InterpolationMode.BILINEAR)
        mode = InterpolationMode.BILINEAR if isinstance(mode, (tuple, list)) else mode
        if height != width:
            from timm.data.transforms import ResizeKeepRatio

            keep = ResizeKeepRatio((height, width))
            keep.interpolation = mode
            return [keep, CenterCrop((height, width))]
        return [Resize(height, interpolation=mode), CenterCrop((height, width))]
    if name == "RandomCropOrPad":
        from timm.data.transforms import CenterCropOrPad

        return [CenterCropOrPad(size, padding_mode=getattr(part, "padding_mode", "constant"))]
    return [CenterCrop((height, width))]
