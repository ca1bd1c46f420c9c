"""What a model may know of a recipe's data: counts and sizes, and if allowed the classes' names and a few images."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from augkit.lab import data as lab_data
from augkit.lab.recipe import load_recipe
from augkit.registry import Registry
from augkit_llm.request import DataFacts

ROWS, COLUMNS = 20, 6
"""Of a contact sheet: classes, spread evenly from the most to the least frequent, and images of each."""
_TILE, _MARGIN, _LABEL = 64, 4, 150


def data_facts(
    recipe: str, registry: Registry, *, names: bool = False, sheet: bool = False, overrides: Sequence[str] = ()
) -> DataFacts:
    """The facts of the data that a recipe trains on.

    Args:
        recipe: by name or path.
        registry: what recipes may name.
        names: whether the names of the classes are told.
        sheet: whether a contact sheet is made.
        overrides: `path=value`, of the recipe.

    Raises:
        DocumentError: there is no such recipe, or it is wrong.
        DataError: its data cannot be read.
    """
    read = load_recipe(recipe, registry, overrides)
    data = lab_data.load(read.data, sources=read.sources)
    return DataFacts(
        counts=tuple(data.class_counts.tolist()),
        image_size=data.train.size,
        names=data.class_names if names else None,
        sheet=contact_sheet(data, names=names) if sheet else None,
        title=read.title,
    )


def contact_sheet(data: lab_data.Data, *, names: bool) -> bytes:
    """A PNG with a row for each class, or for some of them: its number or name, its count, a few training images."""
    labels = data.train.labels.cpu().numpy()
    counts = data.class_counts.tolist()
    order = sorted(range(len(counts)), key=lambda label: -counts[label])
    kept = [
        order[place] for place in np.unique(np.linspace(0, len(order) - 1, min(ROWS, len(order))).round().astype(int))
    ]
    side = _TILE + _MARGIN
    sheet = Image.new("RGB", (_LABEL + COLUMNS * side, len(kept) * side + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(kept):
        top = _MARGIN + row * side
        told = data.class_names[label][:20] if names else f"class {label}"
        draw.text((_MARGIN, top + 16), "".join(sign if sign.isprintable() else " " for sign in told), "black")
        draw.text((_MARGIN, top + 32), f"{counts[label]} images", "black")
        where = torch.from_numpy(np.flatnonzero(labels == label)[:COLUMNS])
        for column, image in enumerate(next(data.train.batches([where.to(data.train.labels.device)]))):
            sheet.paste(_tile(image), (_LABEL + column * side, top))
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _tile(image: torch.Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).cpu().numpy()
    how = Image.Resampling.NEAREST if len(pixels) < _TILE else Image.Resampling.BILINEAR
    return Image.fromarray(pixels).resize((_TILE, _TILE), how)
