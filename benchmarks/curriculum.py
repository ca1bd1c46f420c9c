"""The curriculum's level 5 in other libraries: five of its 22 operators with replacement, at strength 5 of 30."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from harness import Contender
from peers import OPENCV, Photos, albumentations_table, on_pillow, on_tensors, with_albumentations
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

LEVEL, COUNT = 5 / 30, 5


def _sign() -> int:
    return random.choice((-1, 1))


def _affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    """`matrix` with the entry that is neither 0 nor 1 given a random sign."""
    at = next(number for number, entry in enumerate(matrix) if entry not in (0, 1))

    def run(image: Image.Image) -> Image.Image:
        drawn = [*matrix[:at], _sign() * matrix[at], *matrix[at + 1 :]]
        return image.transform(image.size, Image.Transform.AFFINE, drawn)

    return run


_FACTOR = 0.1 + 1.8 * LEVEL


def pillow_table(strength: float) -> tuple[Callable[[Image.Image], Image.Image], ...]:
    """The 22 operators on Pillow, each at this share of its range."""
    add = [min(255, level + int(110 * strength)) if level < 128 else level for level in range(256)] * 3
    factor = 0.1 + 1.8 * strength

    def zoom(image: Image.Image) -> Image.Image:
        """Resize, then cut out the centre, as the published code does."""
        width, height = image.size
        wide, high = int(width * (1 + 0.5 * strength)), int(height * (1 + 0.5 * strength))
        left, top = (wide - width) // 2, (high - height) // 2
        return image.resize((wide, high)).crop((left, top, left + width, top + height))

    return (
        ImageOps.flip,
        ImageOps.mirror,
        lambda image: image.filter(ImageFilter.EDGE_ENHANCE),
        lambda image: image.filter(ImageFilter.DETAIL),
        lambda image: image.filter(ImageFilter.SMOOTH),
        ImageOps.autocontrast,
        ImageOps.equalize,
        ImageChops.invert,
        lambda image: image.filter(ImageFilter.GaussianBlur(2 * strength)),
        zoom,
        lambda image: image.rotate(_sign() * 30 * strength),
        lambda image: ImageOps.posterize(image, max(1, int(4 * strength))),  # Pillow knows no 0 bits any more
        lambda image: ImageOps.solarize(image, int(256 * strength)),
        lambda image: image.point(add),
        lambda image: ImageEnhance.Color(image).enhance(factor),
        lambda image: ImageEnhance.Contrast(image).enhance(factor),
        lambda image: ImageEnhance.Brightness(image).enhance(factor),
        lambda image: ImageEnhance.Sharpness(image).enhance(factor),
        _affine(1, 0.3 * strength, 0, 0, 1, 0),
        _affine(1, 0, 0, 0.3 * strength, 1, 0),
        _affine(1, 0, 100 * strength, 0, 1, 0),
        _affine(1, 0, 0, 0, 1, 100 * strength),
    )


PILLOW = pillow_table(LEVEL)


def _tensors(size: int) -> tuple[Callable[[Any], Any], ...]:
    """torchvision's functions; its sharpness stands for Pillow's three fixed filters."""
    from torchvision.transforms.v2 import functional as F

    def affine(image: Any, move: tuple[float, float] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Any:
        return F.affine(image, angle=0, translate=list(move), scale=1, shear=list(shear))

    wide = int(size * (1 + 0.5 * LEVEL))
    shear = 57.3 * 0.3 * LEVEL
    return (
        F.vertical_flip,
        F.horizontal_flip,
        lambda image: F.adjust_sharpness(image, 2),
        lambda image: F.adjust_sharpness(image, 1.5),
        lambda image: F.adjust_sharpness(image, 0),
        F.autocontrast,
        F.equalize,
        F.invert,
        lambda image: F.gaussian_blur(image, 3, 2 * LEVEL),
        lambda image: F.center_crop(F.resize(image, [wide, wide]), [size, size]),
        lambda image: F.rotate(image, _sign() * 30 * LEVEL),
        lambda image: F.posterize(image, int(4 * LEVEL)),
        lambda image: F.solarize(image, 256 * LEVEL),
        lambda image: torch.where(image < 128, image + int(110 * LEVEL), image),
        lambda image: F.adjust_saturation(image, _FACTOR),
        lambda image: F.adjust_contrast(image, _FACTOR),
        lambda image: F.adjust_brightness(image, _FACTOR),
        lambda image: F.adjust_sharpness(image, _FACTOR),
        lambda image: affine(image, shear=(_sign() * shear, 0)),
        lambda image: affine(image, shear=(0, _sign() * shear)),
        lambda image: affine(image, move=(_sign() * 100 * LEVEL, 0)),
        lambda image: affine(image, move=(0, _sign() * 100 * LEVEL)),
    )


def _some(operators: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def run(image: Any) -> Any:
        for one in random.choices(operators, k=COUNT):
            image = one(image)
        return image

    return run


def _albumentations(size: int, interpolation: int) -> Any:
    import albumentations as A

    move = min(100 * LEVEL / size, 1)
    strength = {"degrees": 30 * LEVEL, "shear": 0.3 * LEVEL, "move": move, "enhance": 0.9 - 1.8 * LEVEL}
    usual = albumentations_table(strength, size, interpolation)
    del usual["identity"]
    sharper = [A.Sharpen(alpha=(alpha, alpha), lightness=(1.0, 1.0), p=1) for alpha in (0.5, 0.2)]
    zoom = A.Affine(scale=1 + 0.5 * LEVEL, interpolation=interpolation, p=1)
    blur = A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(2 * LEVEL, 2 * LEVEL), p=1)
    more = [A.HorizontalFlip(p=1), A.VerticalFlip(p=1), *sharper, A.Blur(blur_limit=(3, 3), p=1), blur, zoom]
    return A.SomeOf([*usual.values(), *more, A.RandomToneCurve(p=1)], n=COUNT, replace=True)


def curriculum(photos: Photos, resample: str) -> dict[str, Contender]:
    """Pillow as the published code uses it, torchvision's functions on tensors, albumentations' nearest operators."""
    note = "its nearest operators, SomeOf(n=5)"
    return {
        "Pillow": on_pillow(photos, _some(PILLOW), "each operator as the published code has it"),
        "torchvision on tensors": on_tensors(photos, _some(_tensors(photos.size)), "sharpness for fixed filters"),
        "albumentations": with_albumentations(photos, _albumentations(photos.size, OPENCV[resample]), note),
    }
