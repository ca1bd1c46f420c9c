"""Accuracy and processor time against the share of images that meet the policy once more, by who chooses them.

    python benchmarks/coresets.py --recipe demo --epochs 20 --every 5 --out digits.jsonl --set data.image_size=16
    python benchmarks/coresets.py --recipe cifar100-lt --epochs 200 --every 20 --out cifar.jsonl \\
        --set data.source=cifar100_lt.npz

Every choice but `all` and `none` is `subset: {name, share, every}` of the recipe: all images with the base alone, and
the chosen ones once more with the policy. `none` is the base alone, `all` is a share of 1. A line of the file for each
run, so that a run that is there is not made again; the table of the whole file is printed at the end, and with
`--picture` drawn. Times are processor time of all epochs on a CPU and seconds on a GPU, without loading and tests.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from augkit.lab import coreset_epochs, paired
from augkit.lab.data import load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.lab.run import pick_device
from augkit.plugins import registry

CHOOSERS = {
    "facility_location": "name: facility_location",
    "without weights": "name: facility_location, weighted: false",
    "random": "name: random",
    "max_loss": "name: max_loss",
}
choose = coreset_epochs.choose
Case = tuple[str, float]
Row = dict[str, Any]


def cases(shares: list[float], choosers: list[str]) -> Iterator[Case]:
    """Who chooses, and which share; the two ends do not depend on who."""
    yield "none", 0.0
    yield "all", 1.0
    yield from ((name, share) for share in shares for name in choosers)


def run(case: Case, seed: int, asked: argparse.Namespace) -> Row:
    """Train once and measure."""
    name, share = case
    told = [
        f"epochs={asked.epochs}",
        f"seed={seed}",
        f"policy={'none' if name == 'none' else asked.policy}",
        *asked.set,
    ]
    if name != "none":
        chooser = CHOOSERS["random" if name == "all" else name]
        told.append(f"subset={{{chooser}, share: {share}, every: {asked.every}}}")
    recipe = load_recipe(asked.recipe, registry(), told)
    device = pick_device(recipe.device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    torch.set_num_threads(recipe.threads or 1)
    training = prepare(recipe, load(recipe.data, device), registry(), device)
    begin, images, spent = clock(), 0, []

    def timed(*given: Any) -> dict[str, Any]:  # an epoch's record has seconds, which tell little on a busy CPU
        start = clock()
        made = choose(*given)
        spent.append(clock() - start)
        return made

    coreset_epochs.choose = timed
    for _ in range(recipe.all_epochs):
        record = train_epoch(training)
        images += len(training.data.train) + record.get("subset", {}).get("images", 0)
    seconds = clock() - begin
    scores, _ = training.evaluate(training.data.test)
    chosen = [record.get("subset", {}) for record in training.records]
    return {
        "chooser": name,
        "share": share,
        "seed": seed,
        **scores.summary(training.data.real_counts),
        "seconds": seconds,
        "choosing": sum(spent),
        "images": images,
        "asked": sum(part.get("asked", 0) for part in chosen),
        "policy": recipe.policy.load,
        "epochs": recipe.all_epochs,
        "recipe": recipe.hash,
    }


def table(rows: list[Row]) -> list[str]:
    """Means and standard errors over seeds, and the difference from `random` of the same share and seed with its 95 %
    interval."""
    lines = [
        "| share | chooser | seeds | accuracy, % | less random, % | time | choosing |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = {row["seed"]: row["seconds"] for row in rows if row["chooser"] == "all"}
    for name, share in dict.fromkeys((row["chooser"], row["share"]) for row in sorted(rows, key=lambda r: r["share"])):
        own = [row for row in rows if (row["chooser"], row["share"]) == (name, share)]
        fair = {row["seed"]: row["all"] for row in rows if (row["chooser"], row["share"]) == ("random", share)}
        pairs = [(100 * row["all"], 100 * fair[row["seed"]]) for row in own if row["seed"] in fair]
        less = between(*zip(*pairs, strict=True)) if pairs and name != "random" else ""
        times = [row["seconds"] / whole[row["seed"]] for row in own if row["seed"] in whole]
        price = mean(row["choosing"] / row["seconds"] for row in own)
        accuracy = spread([100 * row["all"] for row in own])
        cells = [f"{share:.0%}", name, str(len(own)), accuracy, less, f"{mean(times):.2f}", f"{price:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def spread(values: list[float]) -> str:
    """'41.2 ±0.5', the standard error."""
    found = paired.mean(values)
    return f"{found.mean:.1f}" + ("" if found.error is None else f" ±{found.error:.1f}")


def between(values: Sequence[float], control: Sequence[float]) -> str:
    """'-1.8 [-5.6, +2.0]'."""
    found = paired.difference(values, control)
    return f"{found.mean:+.1f}" + ("" if found.low is None else f" [{found.low:+.1f}, {found.high:+.1f}]")


def draw(rows: list[Row], path: Path) -> None:
    """Accuracy against share and against time, each seed a point and their mean a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    ends = [row for row in rows if row["chooser"] in ("none", "all")]
    for name, mark in zip(CHOOSERS, "oDs^", strict=True):
        own = sorted([*(row for row in rows if row["chooser"] == name), *ends], key=lambda row: row["share"])
        if len(own) == len(ends):
            continue
        shares = list(dict.fromkeys(row["share"] for row in own))
        groups = [[row for row in own if row["share"] == share] for share in shares]
        height = [100 * mean(row["all"] for row in group) for group in groups]
        (line,) = left.plot([100 * share for share in shares], height, label=name)
        right.plot([mean(row["seconds"] for row in group) for group in groups], height, color=line.get_color())
        inner = [row for row in own if row["chooser"] == name]
        for axes, key in ((left, "share"), (right, "seconds")):
            scale = 100 if key == "share" else 1
            along = [scale * row[key] for row in inner]
            axes.scatter(along, [100 * row["all"] for row in inner], 16, color=line.get_color(), marker=mark, alpha=0.6)
    for axes, along in ((left, [100 * row["share"] for row in ends]), (right, [row["seconds"] for row in ends])):
        axes.scatter(along, [100 * row["all"] for row in ends], 16, color="#666666", alpha=0.6)
    left.set(xlabel="images that met the policy once more, %", ylabel="test accuracy, %")
    right.set(xlabel="time of training, s (processor time on a CPU)")
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
        for case in cases(asked.shares, asked.choosers):
            if any((row["chooser"], row["share"], row["seed"]) == (*case, seed) for row in rows):
                continue
            rows.append(run(case, seed, asked))
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(table(rows)))
    if asked.picture:
        draw(rows, asked.picture)


if __name__ == "__main__":
    main()
