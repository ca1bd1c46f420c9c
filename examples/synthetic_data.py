"""Synthetic images for classes that have too few: make them, train with and without, compare.

    python examples/synthetic_data.py                                   # long-tailed digits, under a minute on a CPU
    python examples/synthetic_data.py --data photos/ --extra crawled/   # your images; others of the same classes
    python examples/synthetic_data.py --source fit                      # images of a diffusion model learnt here

Needs the plugin augkit-diffusion. Without --data a twelfth of the digits, made lighter, stands for images that were
crawled elsewhere. In earnest: `augkit synth` has diffusion models, filters and a look at what was made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from augkit.lab.run import train


def recipe(data: Path, imbalance: float | None, epochs: int) -> dict[str, object]:
    """A small network; half of the images of each class are for testing."""
    return {
        "augkit": 1,
        "name": "synthetic",
        "data": {"source": str(data), "imbalance": imbalance, "image_size": 16, "test_share": 0.5},
        "model": "test_resnet",
        "optimizer": {"name": "adamw", "lr": 0.002},
        "epochs": epochs,
        "batch_size": 32,
        "threads": 1,
    }


def write_digits(real: Path, extra: Path) -> None:
    """Class folders of digits: most are the data set, the others are made lighter, as if they came from elsewhere."""
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = (real if i % 12 else extra) / str(label)
        place.mkdir(parents=True, exist_ok=True)
        grey = image * 255 / 16 if i % 12 else image * 200 / 16 + 40
        Image.fromarray(np.uint8(grey)).convert("RGB").save(place / f"{i}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with a folder of images for each class; digits without it")
    parser.add_argument("--extra", type=Path, help="other images in folders of the same names, for --source folder")
    parser.add_argument("--source", default="folder", choices=("folder", "fit"), help="what makes the images")
    parser.add_argument("--target", type=int, default=40, help="images that each class shall have in the end")
    parser.add_argument("--train-steps", type=int, default=400, help="of --source fit; more give better images")
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(Path(temporary), args)


def compare(folder: Path, args: argparse.Namespace) -> None:
    data, extra = args.data or folder / "digits", args.extra or folder / "crawled"
    if args.data is None:
        write_digits(data, extra)
    document = recipe(data, None if args.data else 50, args.epochs)  # the digits are made long-tailed
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))

    store = folder / "synth"
    make = ["augkit", "synth", "make", folder / "recipe.yaml", "--target", args.target, "--out", store]
    make += ["--source", args.source]
    if args.source == "folder":
        make += ["--option", f"path={extra}"]
    else:
        make += ["--steps", 8, "--option", f"train_steps={args.train_steps}"]
    subprocess.run([sys.executable, "-m", *map(str, make)], check=True)

    for name, sources in (("real images alone", None), ("with synthetic images", str(store))):
        out = folder / name.replace(" ", "-")
        train(document if sources is None else {**document, "sources": sources}, out=out)
        found = json.loads((out / "summary.json").read_text())["test"]
        told = (f"{group} {found[group]:.1%}" for group in ("all", "many", "medium", "few") if found[group] is not None)
        print(f"{name}: test accuracy {', '.join(told)}")
    print("one seed each: `augkit compare` says which differences can be told from chance")


if __name__ == "__main__":
    main()
