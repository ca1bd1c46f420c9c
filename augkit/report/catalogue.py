"""`python -m augkit.report.catalogue docs`: writes `operators.md` and a picture of each built-in operator.

The measured errors come from `operators/errors.json`, which `tests/measure_errors.py` writes beside the pictures.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augkit.engine.batched import execute
from augkit.engine.plan import ImageSettings, Plan
from augkit.operators import ALL, Choice, Operator

STRENGTHS = (0.25, 0.5, 1.0)
SIDE = 112
SEED = 7
KINDS = {
    "warp": ("Warps", "Affine moves of pixels. Neighbours merge into one pass."),
    "map": ("Maps", "Moves of pixels that no matrix says: each pixel has its own place to come from."),
    "color": ("Colour matrices", "Each pixel's new red, green and blue are sums of its old ones."),
    "tone": ("Tone tables", "Each value maps to another by itself. Neighbours merge into one table."),
    "kernel": ("Kernels", "Small filters, one for each image."),
    "erase": ("Boxes", "Painted black."),
    "opaque": ("Opaque operators", "Any function of the images. They merge with nothing."),
}
INTRO = """# Operators

<!-- Written by `make catalogue`; do not edit. -->

What can be named in a strategy: {count} operators, by how they run.

Strength 0 is the first end of an operator's range and strength 1 the other; a document may set both ends (`low`,
`high`), or give a value in the operator's own unit. *Either side*: each image draws whether its value lies on one side
of what changes nothing or as far on the other. Random places, angles and pixels are drawn for each image, from its own
stream: the batch it is in changes nothing.

Pictures: the image, then strength 0.25, 0.5 and 1; without a strength, up to three draws.

{contents}
"""
SIZES = ("32", "224", "other")
MEASURED = """## Measured errors

Differences of 255 levels, mean and greatest, over photographs and values drawn from the range (bilinear warps).

- *Reference*: one operator alone against the library named as its source, at 32 and at 224 pixels, and the worst of
  other sizes (100 x 100, 57 x 41, 33 x 100, 225 x 301). Empty where no library can be fed the random numbers; the
  tests then check laws: means, variances, shares, what stays.
- *In a pair*: the operator before and after others, fused, against the two one after the other; the worst pair's mean.
- *{executors}*: this executor against the batched one on the same plan, at the same sizes.

{table}

Measured with {versions}.
"""


def write(folder: Path, *, pictures: bool = True) -> Path:
    """Write the page, and with `pictures` one WebP for each operator; returns the page's path."""
    kept = folder / "operators"
    kept.mkdir(parents=True, exist_ok=True)
    if pictures:
        for old in kept.glob("*.webp"):
            old.unlink()
        for one in ALL:
            strip(one).save(kept / f"{one.name}.webp", quality=72, method=6)
    errors = kept / "errors.json"
    measured = json.loads(errors.read_text(encoding="utf-8")) if errors.exists() else None
    path = folder / "operators.md"
    path.write_text(page(measured), encoding="utf-8")
    return path


def page(measured: Mapping[str, Any] | None) -> str:
    """The whole page; `measured` is what `tests/measure_errors.py` found."""
    lines = []
    for kind, (title, _) in KINDS.items():
        links = ", ".join(f"[{one.name}](#{one.name})" for one in _of(kind))
        lines.append(f"- [{title}](#{title.lower().replace(' ', '-')}): {links}")
    contents = "\n".join(lines)
    if measured is not None:
        contents += "\n- [Measured errors](#measured-errors)"
    parts = [INTRO.format(count=len(ALL), contents=contents)]
    for kind, (title, what) in KINDS.items():
        parts.append(f"## {title}\n\n{what}\n")
        parts += [entry(one) for one in _of(kind)]
    if measured is not None:
        parts.append(errors_part(measured))
    return "\n".join(parts)


def _of(kind: str) -> list[Operator]:
    return [one for one in ALL if one.kind == kind]


def entry(one: Operator) -> str:
    """One operator: picture, docstring, and what its declaration says."""
    text = (inspect.getdoc(one.function) or "").strip()
    rows = [*_strength(one), *_options(one)]
    if one.channels == "rgb":
        rows.append(("images", "red, green and blue, or grey"))
    rows.append(("source", one.source))
    table = "\n".join(f"| {name} | {what.replace('|', chr(92) + '|')} |" for name, what in rows)
    return f"### {one.name}\n\n![{one.name}](operators/{one.name}.webp)\n\n{text}\n\n| | |\n|---|---|\n{table}\n"


def _strength(one: Operator) -> list[tuple[str, str]]:
    if one.low is None or one.high is None:
        return []
    sides = f", on either side of {_number(one.identity or 0)}" if one.signed else ""
    value = f"{_number(one.low)} at strength 0, {_number(one.high)} at strength 1{sides}; {one.unit}"
    rows = [(f"`{one.value_name}`", value), ("effect", direction(one))]
    if one.limits is not None:
        rows.append(("limits", f"{_number(one.limits[0])} to {_number(one.limits[1])}"))
    return rows


def direction(one: Operator) -> str:
    """Which way the effect grows, in words."""
    assert one.low is not None and one.high is not None
    way = "rises" if one.high > one.low else "falls"
    if one.identity is None:
        return f"grows as the value {way}"
    nothing = f"{_number(one.identity)} changes nothing"
    if one.signed or min(one.low, one.high) < one.identity < max(one.low, one.high):
        return f"grows with the distance from {_number(one.identity)}; {nothing}"
    return f"grows as the value {way}; {nothing}"


def _options(one: Operator) -> list[tuple[str, str]]:
    if not one.options:
        return []
    named = (f"`{name}: {_written(option.default)}`" for name, option in one.options.items())
    return [("options", ", ".join(named))]


def _written(value: Any) -> str:
    """A default as a document writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_written(part) for part in value)}]"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10000 else f"{value:g}"


def errors_part(measured: Mapping[str, Any]) -> str:
    """The table of measured errors."""
    executors: Sequence[str] = measured["executors"]
    heads = ["operator", "stated", *(f"reference, {size}" for size in SIZES), "in a pair"]
    heads += [f"{name}, {size}" for name in executors for size in SIZES]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for one in ALL:
        found = measured["operators"].get(one.name, {})
        cells = [_pair(found.get("reference", {}).get(size)) for size in SIZES]
        cells.append(_error(found["pair"]) if "pair" in found else "")
        cells += [_pair(found.get(name, {}).get(size)) for name in executors for size in SIZES]
        stated = _error(one.tolerance) if "reference" in found else ""
        lines.append([f"[{one.name}](#{one.name})", stated, *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    return MEASURED.format(executors=", ".join(executors), table=table, versions=versions)


def _pair(error: Sequence[float] | None) -> str:
    return "" if error is None else f"{_error(error[0])} / {error[1]:.0f}"


def _error(error: float) -> str:
    return "0" if error == 0 else f"{error:.2g}" if error >= 0.01 else "< 0.01"


def strip(one: Operator) -> Image.Image:
    """The image and what the operator makes of it, side by side."""
    source = _photo(one)
    many = len(STRENGTHS) if one.has_value or one.draws else 1
    images = torch.from_numpy(np.array(source)).permute(2, 0, 1).expand(many, -1, -1, -1)
    results = execute(images, _plan(one, many))
    columns = [np.asarray(source), *(image.permute(1, 2, 0).numpy() for image in results)]
    return Image.fromarray(np.concatenate(columns, axis=1))


def _plan(one: Operator, many: int) -> Plan:
    """The same random numbers for each strength; other ones for each draw of an operator without."""
    low, high = one.low or 0.0, one.high or 0.0
    value = torch.tensor([low + (high - low) * strength for strength in STRENGTHS[:many]])[:, None]
    u: Tensor = torch.rand(many, 1, max(1, one.draws), generator=torch.Generator().manual_seed(SEED))
    if one.has_value:
        u = u[:1].expand(many, -1, -1).contiguous()
    zeros = torch.zeros(many, dtype=torch.int64)
    unknown = torch.full_like(value, float("nan"))
    return Plan((Choice(one, low, high),), zeros[:, None], value, unknown, u, zeros, image=ImageSettings("bilinear"))


def _photo(one: Operator) -> Image.Image:
    """A temple for what moves and filters, a flower before a dark ground for what light and weather do."""
    from sklearn.datasets import load_sample_image

    dark = one.function.__module__.rsplit(".", 1)[-1] in ("light", "weather", "hsv", "noise")
    name, left = ("flower.jpg", 150) if dark else ("china.jpg", 60)
    photo = Image.fromarray(load_sample_image(name)).crop((left, 0, left + 427, 427))
    return photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")))
