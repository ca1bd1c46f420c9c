"""How many images a second RandAugment(2, 9) with every operator applied takes, here and in timm and torchvision.

    python benchmarks/run.py [--quick] [--out FILE.json]

One process, one pinned thread, interleaved repeats, medians of processor time (what others run beside it is not
counted, though it still empties the caches). Every contender turns the same uint8 images into the same
kind of result: normalised float32 in a buffer that is kept. Decoding is not part of it: contenders on Pillow get
decoded Pillow images, the others uint8 tensors.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from augkit import Output, Policy
from augkit.engine.batched import execute
from augkit.torchvision_compat import ensure_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((32, 256, 41), (224, 64, 15))  # pixels a side, images a batch, repeats
TIMM = "rand-m9-n2-mstd0.5-p1.0"
PACKAGES = ("torch", "torchvision", "timm", "pillow", "numpy")
Contender = Callable[[], Tensor]


def photographs(size: int, count: int) -> Tensor:
    """[count, 3, size, size] uint8 crops of scikit-learn's two photographs."""
    draw = np.random.default_rng(0)
    crops = []
    for number in range(count):
        source = Image.fromarray(load_sample_images().images[number % 2])
        width = min(4 * size, 420)
        left, top = draw.integers(0, source.width - width + 1), draw.integers(0, source.height - width + 1)
        crops.append(np.asarray(source.crop((left, top, left + width, top + width)).resize((size, size))))
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


class PerImage:
    """What a loader does: transform each image, collect bytes in a kept buffer, normalise into another."""

    def __init__(self, images: list[object], transform: Callable[[object], object], shape: torch.Size) -> None:
        self.images, self.transform = images, transform
        self.bytes, self.result = torch.empty(shape, dtype=torch.uint8), torch.empty(shape)
        self.scale = 1 / (255 * torch.tensor(STD).view(-1, 1, 1))
        self.shift = -(torch.tensor(MEAN) / torch.tensor(STD)).view(-1, 1, 1)

    def __call__(self) -> Tensor:
        for place, image in zip(self.bytes, self.images, strict=True):
            done = self.transform(image)
            place.copy_(done if isinstance(done, Tensor) else torch.from_numpy(np.array(done)).permute(2, 0, 1))
        return self.result.copy_(self.bytes).mul_(self.scale).add_(self.shift)


def contenders(images: Tensor, resample: str) -> dict[str, Contender]:
    """By name; each call is one batch."""
    ensure_torchvision()
    from timm.data.auto_augment import rand_augment_transform
    from torchvision.transforms import InterpolationMode, v2

    out = Output(torch.float32, MEAN, STD)
    targets = torch.zeros(len(images), dtype=torch.int64)
    image = {"resample": resample}
    whole = Policy.load("randaugment", out=out, image=image, n=2, m=9, mstd=0.5)
    drawing = Policy.load("randaugment", out=out, image=image, n=2, m=9, mstd=0.5)
    plans = [drawing.plan(targets) for _ in range(8)]
    turn = iter(range(1 << 62))
    mode = Image.Resampling[resample.upper()]
    translate = int(images.shape[-1] * 0.45)
    on_timm = rand_augment_transform(TIMM, {"translate_const": translate, "interpolation": mode})
    on_torchvision = v2.RandAugment(2, 9, interpolation=InterpolationMode(resample))
    tensors = list(images)
    pillow = [Image.fromarray(one.permute(1, 2, 0).contiguous().numpy()) for one in images]
    return {
        "augkit": lambda: whole(images, targets)[0],
        "augkit, drawn beforehand": lambda: execute(images, plans[next(turn) % 8], out=out),
        "timm on Pillow": PerImage(pillow, on_timm, images.shape),
        "torchvision v2 on Pillow": PerImage(pillow, on_torchvision, images.shape),
        "torchvision v2 on tensors": PerImage(tensors, on_torchvision, images.shape),
        "normalising alone": PerImage(tensors, lambda one: one, images.shape),
    }


def check(name: str, result: Tensor, images: Tensor) -> float:
    """The share of images that differ from the plainly normalised ones; raises if the result is of the wrong kind."""
    plain = (images / 255 - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    if result.shape != images.shape or result.dtype != torch.float32 or not result.isfinite().all():
        raise SystemExit(f"{name} returned {list(result.shape)} {result.dtype}")
    changed = ((result - plain).abs().amax((1, 2, 3)) > 0.01).float().mean().item()
    if name != "normalising alone" and changed < 0.8:
        raise SystemExit(f"{name} changed only {changed:.0%} of the images")
    return changed


def measure(size: int, batch: int, resample: str, repeats: int) -> list[dict[str, object]]:
    """Interleaved: each repeat runs every contender once."""
    images = photographs(size, batch)
    runs = contenders(images, resample)
    changed = {name: check(name, run(), images) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    rows: list[dict[str, object]] = []
    for name, times in seconds.items():
        median = statistics.median(times)
        rows.append(
            {
                "size": size,
                "batch": batch,
                "resample": resample,
                "name": name,
                "images_per_second": batch / median,
                "milliseconds": 1000 * median,
                "quartiles": [1000 * float(q) for q in np.quantile(times, (0.25, 0.75))],
                "changed": changed[name],
                "repeats": repeats,
            }
        )
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """A table for each size and resampling, with how many times faster augkit is."""
    ours = next(float(str(row["images_per_second"])) for row in rows if row["name"] == "augkit")
    first = rows[0]
    print(f"\n{first['size']}x{first['size']}, batch {first['batch']}, {first['resample']} warps")
    print(f"  {'':26s}{'images/s':>10s}{'ms a batch':>12s}{'augkit is':>12s}")
    for row in rows:
        speed = float(str(row["images_per_second"]))
        print(f"  {row['name']!s:26s}{speed:10,.0f}{float(str(row['milliseconds'])):12.2f}{ours / speed:10.2f} x")


def machine() -> dict[str, object]:
    """Where this was measured, and with what."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of a minute instead of two")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    about = machine()
    print(f"{about['cpu']}, one thread, load {about['load']:.1f}; Python {about['python']}, {about['versions']}")
    print(f"RandAugment(2, 9), every operator applied; timm: {TIMM}")
    rows: list[dict[str, object]] = []
    for size, batch, repeats in SIZES:
        for resample in ("bilinear", "nearest"):
            found = measure(size, batch, resample, repeats=max(3, repeats // 6) if arguments.quick else repeats)
            show(found)
            rows += found
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"machine": about, "policy": "RandAugment(2, 9)", "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
