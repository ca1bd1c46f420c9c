"""What synthetic images change: the ablation of SYNAuG (Ye-Bin et al., 2023) on a recipe and a store, with controls.

    augkit synth make demo --target "max(class_count, over=classes)" --source fit --out synth
    python benchmarks/synaug.py demo --store synth --out runs/synaug

Rows add one thing after another: nothing; synthetic images until classes are even; mixing real with synthetic ones; a
head that is trained anew, or fine-tuned, on as many real images of each class as the rarest has. Beside them stand what
needs no synthetic image: as many training steps as the evened-out data give, mixup, classes drawn alike, and a head
fine-tuned likewise. All rows share the seeds; differences to `none` are paired. The last epoch counts. The test set is
read at the end of each run and chooses nothing here. Runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from augkit.lab.data import load
from augkit.lab.paired import difference, mean
from augkit.lab.recipe import load_recipe
from augkit.lab.run import train
from augkit.plugins import registry

COLUMNS = ("all", "many", "medium", "few")
CONTROL = "none"
HEAD = "data: real, balance: classes"


def rows(store: Path, epochs: int, steps: float) -> dict[str, list[str]]:
    """What each row sets in the recipe."""
    synthetic = [f"sources={store}"]
    mixed = [*synthetic, "policy=domain_mixup"]
    tuned = f"stages=[train, {{finetune_head: {{{HEAD}}}}}]"
    return {
        CONTROL: [],
        "none, as many steps": [f"epochs={round(epochs * steps)}"],
        "mixup": ["policy=mixup"],
        "classes alike": ["sampler=class_balanced"],
        "fine-tuned head": [tuned],
        "uniform": synthetic,
        "uniform + mixup": mixed,
        "uniform + mixup + re-trained head": [*mixed, f"stages=[train, {{retrain_head: {{{HEAD}}}}}]"],
        "uniform + mixup + fine-tuned head": [*mixed, tuned],
    }


def measured(recipe: str, told: list[str], store: Path, seeds: int, out: Path) -> dict[str, list[dict[str, Any]]]:
    """The summary of each run, by row and seed."""
    known = registry()
    plain = load_recipe(recipe, known, told)
    both = load_recipe(recipe, known, [*told, f"sources={store}"])
    many, few = (len(load(one.data, sources=one.sources).train) for one in (both, plain))
    found: dict[str, list[dict[str, Any]]] = {}
    for name, more in rows(store, plain.epochs, many / few).items():
        for seed in range(seeds):
            folder = out / name.replace(" ", "_") / f"seed{seed}"
            train(recipe, [*told, *more, f"seed={seed}"], folder, resume=folder.exists())
            found.setdefault(name, []).append(json.loads((folder / "summary.json").read_text()))
            print(f"{name}, seed {seed}: {found[name][-1]['test']}", flush=True)
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Mean, standard error and paired difference in %, by row and column; None where a group is not there."""
    result: dict[str, dict[str, Any]] = {}
    for name, runs in found.items():
        result[name] = {}
        for column in COLUMNS:
            values, control = ([run["test"][column] for run in of] for of in (runs, found[CONTROL]))
            if None in values:
                continue
            percent = [100 * value for value in values]
            gap = difference(percent, [100 * value for value in control])
            result[name][column] = {
                "mean": asdict(mean(percent)),
                "difference": asdict(gap),
                "words": gap.words(CONTROL),
            }
    return result


def told(found: dict[str, dict[str, Any]]) -> str:
    """The table as Markdown."""
    columns = [column for column in COLUMNS if column in found[CONTROL]]
    lines = ["| | " + " | ".join(columns) + " | few against none |", "|---|" + "---:|" * len(columns) + "---|"]
    for name, row in found.items():
        cells = [f"{row[c]['mean']['mean']:.1f} ± {row[c]['mean']['error'] or 0:.1f}" for c in columns]
        gap = row[columns[-1]]["difference"]
        interval = "" if gap["low"] is None else f" [{gap['low']:+.1f}, {gap['high']:+.1f}]"
        last = "" if name == CONTROL else f"{gap['mean']:+.1f}{interval}, {row[columns[-1]]['words']}"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {last} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--set", dest="told", action="append", default=[], help="change the recipe, as `augkit train` does"
    )
    given = parser.parse_args()
    found = table(measured(given.recipe, given.told, given.store.absolute(), given.seeds, given.out))
    (given.out / "table.json").write_text(json.dumps(found, indent=1) + "\n")
    text = told(found)
    (given.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
