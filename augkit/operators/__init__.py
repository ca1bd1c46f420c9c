"""The built-in operators, in the order in which lists show them."""

from __future__ import annotations

from augkit.operators.base import Choice, Kernel, Operator, operator
from augkit.operators.color import color, grayscale
from augkit.operators.erase import cutout, random_erasing
from augkit.operators.filter import detail, edge_enhance, gaussian_blur, sharpness, smooth
from augkit.operators.geometry import (
    hflip,
    random_crop,
    random_resized_crop,
    resize_crop,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_x_pixels,
    translate_y,
    translate_y_pixels,
    vflip,
)
from augkit.operators.tone import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    identity,
    invert,
    posterize,
    solarize,
    solarize_add,
)

ALL: tuple[Operator, ...] = (
    identity,
    hflip,
    vflip,
    rotate,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    translate_x_pixels,
    translate_y_pixels,
    resize_crop,
    random_crop,
    random_resized_crop,
    autocontrast,
    equalize,
    invert,
    posterize,
    solarize,
    solarize_add,
    color,
    contrast,
    brightness,
    sharpness,
    smooth,
    detail,
    edge_enhance,
    gaussian_blur,
    grayscale,
    cutout,
    random_erasing,
)

__all__ = ["ALL", "Choice", "Kernel", "Operator", "operator"]
