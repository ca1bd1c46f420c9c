"""A picture of what a policy does to real images: before above, after below, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from augkit.errors import DataError
from augkit.lab.sources import IMAGE_ENDINGS, Files, Reader, open_source
from augkit.policy import Policy

TILE, GAP, COLUMNS, LINE = 176, 14, 8, 16
INK, FAINT, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"


@dataclass(frozen=True)
class Samples:
    """Some images of a data set. `images` [N, 3, S, S] uint8, `targets` and `index` [N] int64."""

    images: Tensor
    targets: Tensor
    index: Tensor
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]


def sample(data: str, *, count: int = 8, size: int | None = None, seed: int = 0) -> Samples:
    """Take `count` images, from as many classes as there are, and make them squares of one size.

    Args:
        data: a folder of class folders, a flat folder of images, or any other source of the lab's (`digits`, an .npz).
        size: the side in pixels; by default that of the smallest chosen image, between 32 and 224.

    Raises:
        DataError: there are no images, or one cannot be read.
    """
    reader, class_names = _open(data)
    order = np.random.default_rng(seed).permutation(len(reader.labels))
    chosen = _spread(reader.labels[order], count)
    index = np.sort(order[chosen])
    index = index[np.argsort(reader.labels[index], kind="stable")]
    pictures = [Image.fromarray(np.ascontiguousarray(reader.read(int(i)))) for i in index]
    side = size or min(224, max(32, min(min(picture.size) for picture in pictures)))
    squares = [np.array(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)) for picture in pictures]
    return Samples(
        torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(reader.labels[index].astype(np.int64)),
        torch.from_numpy(index.astype(np.int64)),
        class_names,
        tuple(np.bincount(reader.labels, minlength=len(class_names)).tolist()),
    )


def picture(policy: Policy, samples: Samples) -> Image.Image:
    """Augment the samples and lay them out, before above after, with the class above and the plan's words below."""
    group = torch.zeros_like(samples.targets) if "group" in policy.needs else None
    plan = policy.plan(samples.targets, index=samples.index, group=group, images=samples.images)
    results, _ = policy.apply(samples.images, plan)
    fonts = ImageFont.load_default(12), ImageFont.load_default(15)
    tiles = [
        _tile(samples.class_names[int(samples.targets[i])], samples.images[i], results[i], plan.describe(i), fonts[0])
        for i in range(len(results))
    ]
    columns = min(COLUMNS, len(tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    head = 40
    page = Image.new("RGB", (columns * (TILE + GAP) + GAP, head + sum(heights) + GAP * len(rows)), PAPER)
    title = f"{policy.strategy.name}, seed {policy.seed}, {samples.images.shape[-1]} px: before above, after below"
    ImageDraw.Draw(page).text((GAP, 12), title, fill=INK, font=fonts[1])
    top = head
    for row, height in zip(rows, heights, strict=True):
        for i, tile in enumerate(row):
            page.paste(tile, (GAP + i * (TILE + GAP), top))
        top += height + GAP
    return page


def _open(data: str) -> tuple[Reader, tuple[str, ...]]:
    folder = Path(data).expanduser()
    if folder.is_dir() and not any(child.is_dir() for child in folder.iterdir()):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
        if not paths:
            raise DataError(f"no image file ({', '.join(IMAGE_ENDINGS)}) lies in the folder", file=folder)
        return Files(paths, np.zeros(len(paths), dtype=np.int64)), (folder.resolve().name,)
    source = open_source(data)
    return source.splits["train"], source.class_names


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` images, taking from each class in turn."""
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        turn[where] = np.arange(len(where))
    return np.argsort(turn, kind="stable")[:count]


def _tile(
    name: str, before: Tensor, after: Tensor, words: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> Image.Image:
    lines = [line for part in words.split(", then ") for line in _wrap(part, font)]
    tile = Image.new("RGB", (TILE, LINE + 2 * TILE + 6 + 4 + LINE * len(lines)), PAPER)
    pen = ImageDraw.Draw(tile)
    pen.text((0, 0), _wrap(name, font)[0], fill=FAINT, font=font)
    tile.paste(_enlarge(before), (0, LINE))
    tile.paste(_enlarge(after), (0, LINE + TILE + 6))
    for i, line in enumerate(lines):
        pen.text((0, LINE + 2 * TILE + 10 + i * LINE), line, fill=INK, font=font)
    return tile


def _enlarge(image: Tensor) -> Image.Image:
    """A tile of it: small images keep their pixels visible, large ones are averaged."""
    shown = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    method = Image.Resampling.NEAREST if shown.width <= TILE else Image.Resampling.BOX
    return shown.resize((TILE, TILE), method)


def _wrap(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > TILE:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
