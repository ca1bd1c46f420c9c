"""A strategy that a language model wrote: a file, loaded by its path, checked before it touches an image.

    python examples/llm_file.py                                            # a file as a model would write it
    python examples/llm_file.py --file mine.yaml --data photos/            # any file, on your images
    python examples/llm_file.py --llm openai/gpt-5-mini --wish "gentle on rare classes, never flip"

The last line asks a real model through litellm, with its key from the environment (OPENAI_API_KEY) and the plugin
augkit-llm. A document can never run code: what a model writes is read, checked and shown in words like any other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from augkit import AugkitError, Policy
from augkit.plugins import registry
from augkit.strategy.describe import words
from augkit.strategy.document import load_strategy

WRITTEN = """\
# wish: gentle on rare classes, stronger as training goes on, never flip
augkit: 1
name: gentle_on_rare
title: Frequent classes meet stronger operators than rare ones, all of them more with time
palette:
  - {rotate: {low: 0, high: 20}}
  - {translate_x: {low: 0, high: 0.15}}
  - {shear_x: {low: 0, high: 0.2}}
  - {brightness: {low: 1, high: 1.4}}
  - autocontrast
pipeline:
  - pick:
      count: 2
      strength: "(0.3 + 0.5 * epoch / epochs) * class_count[y] / max(class_count, over=classes) * uniform()"
"""


def ask(llm: str, wish: str, file: Path) -> None:
    """Let a real model write the file; faults go back to it twice."""
    command = ["augkit", "write", wish, "--llm", llm, "--out", str(file), "--force"]
    subprocess.run([sys.executable, "-m", *command], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--file", type=Path, help="a strategy; without it one is written to a temporary folder")
    parser.add_argument("--llm", help="a model of litellm, or local, that writes it now")
    parser.add_argument("--wish", default="gentle on rare classes, never flip", help="what it is asked for")
    parser.add_argument("--data", default="digits", help="a folder of images to show it on; digits without it")
    parser.add_argument("--out", type=Path, default=Path("llm_file.png"), help="the picture to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        file = args.file or Path(temporary) / "written.yaml"
        if args.llm:
            ask(args.llm, args.wish, file)
        elif args.file is None:
            file.write_text(WRITTEN)
        use(file, args.data, args.out)


def use(file: Path, data: str, out: Path) -> None:
    """Check the file, say what it does, and show it."""
    try:
        strategy = load_strategy(file, registry())
    except AugkitError as error:
        raise SystemExit(f"refused: {error}") from None  # each fault with its line and the nearest valid name
    print(words(strategy))

    policy = Policy.load(file, class_counts=[500, 60, 8], epochs=100)
    for epoch in (0, 99):
        policy.epoch = epoch
        plan = policy.plan(torch.tensor([0, 1, 2]))  # an image of each class
        print(f"\nepoch {epoch}:", *(f"  class {label}: {plan.describe(label)}" for label in range(3)), sep="\n")

    preview = ["augkit", "preview", str(file), "--data", data, "--out", str(out), "--epoch", "99"]
    subprocess.run([sys.executable, "-m", *preview], check=True)


if __name__ == "__main__":
    main()
