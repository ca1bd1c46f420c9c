"""A picture of what a policy does to real images: before above, after below, and in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from augkit.engine.plan import Plan
from augkit.errors import some_of
from augkit.policy import Policy
from augkit.report.dials import at_epoch

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
    names: tuple[str, ...] = ()
    """The file of each image, from the data's folder on; empty where images are no files."""
    unreadable: tuple[str, ...] = ()
    """Images that were to be shown, and could not be read."""

    @property
    def warning(self) -> str:
        """A sentence about those that could not be read; empty if all could."""
        if not self.unreadable:
            return ""
        count, tried = len(self.unreadable), len(self.unreadable) + len(self.images)
        images, are, files = ("image", "is", "its file") if count == 1 else ("images", "are", "their files")
        return (
            f"{count} {images} of the {tried} that were tried cannot be read and {are} left out"
            f" ({some_of(self.unreadable)}); training stops at such, so mend or remove {files}"
        )


@dataclass(frozen=True)
class Drawn:
    """What a policy made of samples, with V views all images of the first, then of the second.

    `images` [V * N, 3, S, S] uint8; `words` says what was done to each, its label too where images are mixed.
    """

    images: Tensor
    words: tuple[str, ...]
    plan: Plan


def draw(policy: Policy, samples: Samples) -> Drawn:
    """Augment the samples once; called again, with other random numbers."""
    companions = {name: torch.zeros_like(samples.targets) for name in ("group",) if name in policy.needs}
    if "is_synthetic" in policy.needs:
        companions["is_synthetic"] = samples.index % 2 == 1  # every other image, so that both kinds are shown
    plan = policy.plan(samples.targets, index=samples.index, images=samples.images, **companions)
    images, targets = policy.apply(samples.images, plan)
    words = [plan.describe(i) + _label(targets[i % len(targets)], samples.class_names) for i in range(len(images))]
    return Drawn(images, tuple(words), plan)


def _label(target: Tensor, names: tuple[str, ...]) -> str:
    """What a mixed label says, for an image with more than one class; shares in per cent."""
    if target.dim() == 0 or target.max() > 0.995:
        return ""
    shares = [(share, names[c]) for c, share in enumerate(target.tolist()) if share >= 0.005]
    return "; label " + " and ".join(f"{share:.0%} {name}" for share, name in sorted(shares, reverse=True))


def picture(policy: Policy, samples: Samples, epoch: int = 0) -> Image.Image:
    """Augment the samples and lay them out: before above after, number and class on top, the plan's words below."""
    at_epoch(policy, epoch)
    drawn = draw(policy, samples)
    fonts = ImageFont.load_default(12), ImageFont.load_default(15)
    count, views = len(samples.images), policy.views or ("",)
    tiles = [
        _tile(
            f"{i}  {samples.class_names[int(samples.targets[i])]}" + (f", {view}" if view else ""),
            samples.images[i],
            drawn.images[number * count + i],
            drawn.words[number * count + i],
            fonts[0],
        )
        for i in range(count)
        for number, view in enumerate(views)
    ]
    columns = min(max(1, COLUMNS // len(views)) * len(views), len(tiles))  # an image's views stay in one row
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    head = 40
    title = title_of(policy, drawn.plan, samples.images.shape[-1])
    width = max(columns * (TILE + GAP) + GAP, round(fonts[1].getlength(title)) + 2 * GAP)
    page = Image.new("RGB", (width, head + sum(heights) + GAP * len(rows)), PAPER)
    ImageDraw.Draw(page).text((GAP, 12), title, fill=INK, font=fonts[1])
    top = head
    for row, height in zip(rows, heights, strict=True):
        for i, tile in enumerate(row):
            page.paste(tile, (GAP + i * (TILE + GAP), top))
        top += height + GAP
    return page


def title_of(policy: Policy, plan: Plan, side: int) -> str:
    """What the picture shows, and of a strategy that follows epochs in which one, lest it seem broken."""
    title = f"{policy.strategy.name}, seed {policy.seed}, {side} px: before above, after below"
    if "epoch" not in policy.strategy.reads:
        return title
    results = len(plan) * max(1, len(policy.views))
    idle = all(plan.describe(i) == "unchanged" for i in range(results))
    epoch = int(policy.memory.values[""]["epoch"])
    return f"{title}; epoch {epoch}" + (", where nothing was drawn: try a later one" if idle else "")


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
    """A tile of it: the pixels of small images stay visible, larger ones are resampled."""
    shown = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    method = Image.Resampling.NEAREST if shown.width <= TILE // 2 else Image.Resampling.LANCZOS
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
