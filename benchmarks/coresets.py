"""Accuracy and time against the share of images that meet the policy once more, by who chooses them.

    python benchmarks/coresets.py --recipe demo --epochs 20 --every 5 --out digits.jsonl --set data.image_size=16
    python benchmarks/coresets.py --recipe cifar100-lt --epochs 200 --every 20 --out cifar.jsonl \\
        --set data.source=cifar100_lt.npz

Every choice but `none`, `all` and `repeated` is `subset: {name, share, every}` of the recipe: all images with the base
alone, and the chosen ones once more with the policy. `none` is the base alone, `all` is a share of 1, `repeated` the
same without the policy. All runs of a seed are trained in turns, an epoch of each, so that whatever else the machine
does meets them alike and wall times may be compared. A line of the file for each run, written when its seed is done, so
that a seed that is there is not trained again; the table of the whole file is printed at the end, and with `--picture`
drawn. Times are those of all epochs, without loading and tests.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from augkit.lab import paired
from augkit.lab.data import load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.lab.run import pick_device
from augkit.lab.training import Training
from augkit.plugins import registry

CHOOSERS = {
    "facility_location": "name: facility_location",
    "without weights": "name: facility_location, weighted: false",
    "random": "name: random",
    "max_loss": "name: max_loss",
}
ENDS = ("none", "all", "repeated")
Case = tuple[str, float]
Row = dict[str, Any]


@dataclass
class Run:
    """A training, and what it has taken so far: seconds on the wall's clock and of the processor, and of these for
    choosing."""

    case: Case
    training: Training
    wall: float = 0.0
    processor: float = 0.0
    choosing: float = 0.0
    images: int = 0

    def epoch(self) -> None:
        """Train one more."""
        wall, processor = time.perf_counter(), time.process_time()
        record = train_epoch(self.training)
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        subset = record.get("subset", {})
        self.choosing += subset.get("seconds", 0.0)
        self.images += len(self.training.data.train) + subset.get("images", 0)

    def row(self, seed: int) -> Row:
        """What is noted of it."""
        training = self.training
        scores, _ = training.evaluate(training.data.test)
        return {
            "chooser": self.case[0],
            "share": self.case[1],
            "seed": seed,
            **scores.summary(training.data.real_counts),
            "wall": self.wall,
            "processor": self.processor,
            "choosing": self.choosing,
            "images": self.images,
            "asked": sum(record.get("subset", {}).get("asked", 0) for record in training.records),
            "policy": training.recipe.policy.load,
            "epochs": training.recipe.all_epochs,
            "recipe": training.recipe.hash,
        }


def cases(shares: list[float], choosers: list[str]) -> Iterator[Case]:
    """Who chooses, and which share; the ends do not depend on who."""
    yield from zip(ENDS, (0.0, 1.0, 1.0), strict=True)
    yield from ((name, share) for share in shares for name in choosers)


def begun(case: Case, seed: int, asked: argparse.Namespace) -> Run:
    """A run before its first epoch."""
    name, share = case
    policy = "none" if name in ("none", "repeated") else asked.policy
    told = [f"epochs={asked.epochs}", f"seed={seed}", f"policy={policy}", *asked.set]
    if name != "none":
        chooser = CHOOSERS["random" if name in ENDS else name]
        told.append(f"subset={{{chooser}, share: {share}, every: {asked.every}}}")
    recipe = load_recipe(asked.recipe, registry(), told)
    device = pick_device(recipe.device)
    torch.set_num_threads(recipe.threads or 1)
    return Run(case, prepare(recipe, load(recipe.data, device), registry(), device))


def train(seed: int, asked: argparse.Namespace) -> list[Row]:
    """All runs of a seed, in turns; the first turn of each epoch goes round."""
    begun(("all", 1.0), seed, asked).epoch()  # what only a process's first epoch costs is nobody's
    runs = [begun(case, seed, asked) for case in cases(asked.shares, asked.choosers)]
    for number in range(asked.epochs):
        first = number % len(runs)
        for run in [*runs[first:], *runs[:first]]:
            run.epoch()
    return [run.row(seed) for run in runs]


def table(rows: list[Row]) -> list[str]:
    """Means and standard errors over seeds, the difference from `random` of the same share and seed with its 95 %
    interval, and times as a share of those of `all` with the same seed."""
    lines = [
        "| share | chooser | seeds | accuracy, % | less random, % | wall time | processor time | choosing |",
        "|---|---|---|---|---|---|---|---|",
    ]
    whole = {row["seed"]: row for row in rows if row["chooser"] == "all"}
    for name, share in dict.fromkeys((row["chooser"], row["share"]) for row in sorted(rows, key=lambda r: r["share"])):
        own = [row for row in rows if (row["chooser"], row["share"]) == (name, share)]
        fair = {row["seed"]: row["all"] for row in rows if (row["chooser"], row["share"]) == ("random", share)}
        pairs = [(100 * row["all"], 100 * fair[row["seed"]]) for row in own if row["seed"] in fair]
        less = between(*zip(*pairs, strict=True)) if pairs and name != "random" else ""
        times = [spread([row[of] / whole[row["seed"]][of] for row in own], 2) for of in ("wall", "processor")]
        price = mean(row["choosing"] / row["wall"] for row in own)
        accuracy = spread([100 * row["all"] for row in own])
        lines.append(
            "| " + " | ".join([f"{share:.0%}", name, str(len(own)), accuracy, less, *times, f"{price:.0%}"]) + " |"
        )
    busy = mean(row["processor"] / row["wall"] for row in rows)
    return [
        *lines,
        "",
        f"Runs had {busy:.0%} of a core on average; `all` took {mean(r['wall'] for r in whole.values()):.1f} s.",
    ]


def spread(values: list[float], digits: int = 1) -> str:
    """'41.2 ±0.5', the standard error."""
    found = paired.mean(values)
    return f"{found.mean:.{digits}f}" + ("" if found.error is None else f" ±{found.error:.{digits}f}")


def between(values: Sequence[float], control: Sequence[float]) -> str:
    """'-1.8 [-5.6, +2.0]'."""
    found = paired.difference(values, control)
    return f"{found.mean:+.1f}" + ("" if found.low is None else f" [{found.low:+.1f}, {found.high:+.1f}]")


def draw(rows: list[Row], path: Path) -> None:
    """Accuracy against share and against wall time, each seed a point and their mean a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    whole = {row["seed"]: row["wall"] for row in rows if row["chooser"] == "all"}
    rows = [row | {"share": 100 * row["share"], "time": row["wall"] / whole[row["seed"]]} for row in rows]
    ends = [row for row in rows if row["chooser"] in ("none", "all")]
    for name, mark in zip(CHOOSERS, "oDs^", strict=True):
        inner = [row for row in rows if row["chooser"] == name]
        if not inner:
            continue
        own = sorted([*inner, *ends], key=lambda row: row["share"])
        groups = [[row for row in own if row["share"] == share] for share in dict.fromkeys(r["share"] for r in own)]
        height = [100 * mean(row["all"] for row in group) for group in groups]
        for axes, key in ((left, "share"), (right, "time")):
            (line,) = axes.plot([mean(row[key] for row in group) for group in groups], height, label=name)
            points = [row[key] for row in inner], [100 * row["all"] for row in inner]
            axes.scatter(*points, 16, color=line.get_color(), marker=mark, alpha=0.6)
    for axes, key in ((left, "share"), (right, "time")):
        axes.scatter([row[key] for row in ends], [100 * row["all"] for row in ends], 16, color="#666666", alpha=0.6)
    left.set(xlabel="images that met the policy once more, %", ylabel="test accuracy, %")
    right.set(xlabel="wall time of training, 1 is that of all images")
    left.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--policy", default="trivialaugment")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.3, 0.5])
    parser.add_argument("--choosers", nargs="*", default=list(CHOOSERS), choices=list(CHOOSERS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    for seed in asked.seeds:
        if any(row["seed"] == seed for row in rows):
            continue
        rows += train(seed, asked)
        asked.out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print("\n".join(table(rows)))
    if asked.picture:
        draw(rows, asked.picture)


if __name__ == "__main__":
    main()
