"""Price and gain of invariance-constrained learning beside trivialaugment and none, at equal epochs and equal time.

    python benchmarks/invariance.py OUT [--recipe demo] [--epochs 20] [--seeds 3] [--set PATH=VALUE ...]

First the price: processor seconds of an epoch, medians over epochs that take turns. Then each arm is trained with every
seed, the two controls once for as many epochs and once for as long, that is for more, as the price says. Prints a
table and writes OUT/results.json; what OUT holds is not made again. `--table` only prints.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from augkit.lab import paired
from augkit.lab.data import Data, load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry

ARMS = {
    "none": ["policy=none", "loss=ce"],
    "trivialaugment": ["policy=trivialaugment", "loss=ce"],
    "invariance": ["policy=invariance_proposals", "loss=invariance"],
}
EVEN = [*ARMS["invariance"], "policy.params.steps=1"]
"""The same constraint without a choice: one proposal for each image."""
COLUMNS = ("all", "many", "medium", "few")


def price(recipe: str, overrides: list[str], epochs: int, dual: list[str]) -> dict[str, Any]:
    """Processor seconds and passes of an epoch of each arm; the first epoch of each warms up."""
    names = registry()
    runs, data = {}, None
    for arm, told in ARMS.items():
        read = load_recipe(recipe, names, [*overrides, *told, *(dual if arm == "invariance" else [])])
        data = data or load(read.data)
        runs[arm] = prepare(read, data, names, torch.device("cpu"))
    spent: dict[str, list[float]] = {arm: [] for arm in runs}
    for _ in range(epochs + 1):
        for arm, run in runs.items():
            begin = time.process_time()
            train_epoch(run)
            spent[arm].append(time.process_time() - begin)
    passes = {arm: run.records[-1].get("passes", {"forward": 1.0, "backward": 1.0}) for arm, run in runs.items()}
    return {arm: {"seconds": statistics.median(of[1:]), "passes": passes[arm]} for arm, of in spent.items()}


def cells(epochs: int, longer: int) -> dict[str, tuple[str, int]]:
    """Arm and epochs of everything that is trained, by name."""
    result = {f"invariance, {epochs} epochs": ("invariance", epochs)}
    result[f"one proposal, {epochs} epochs"] = ("even", epochs)
    for arm in ("trivialaugment", "none"):
        result |= {f"{arm}, {number} epochs": (arm, number) for number in (longer, epochs)}
    return result


def trained(note: Path, recipe: str, told: list[str], data: Data) -> dict[str, Any]:
    """Test accuracies in percent of a run after its last epoch, and its processor seconds; what is noted is read."""
    if not note.exists():
        names = registry()
        run = prepare(load_recipe(recipe, names, told), data, names, torch.device("cpu"))
        begin = time.process_time()
        while run.epoch < run.recipe.all_epochs:
            train_epoch(run)
        seconds = time.process_time() - begin
        scores, _ = run.evaluate(data.test)
        test = {name: 100 * value for name, value in scores.summary(data.real_counts).items() if value is not None}
        note.write_text(json.dumps({"test": test, "seconds": seconds, "last": run.records[-1]}))
    return json.loads(note.read_text())  # type: ignore[no-any-return]


def words(found: paired.Difference | None) -> str:
    """A paired difference with its interval."""
    if found is None:
        return ""
    interval = "" if found.low is None or found.high is None else f" [{found.low:+.1f}, {found.high:+.1f}]"
    return f"{found.mean:+.1f}{interval}"


def table(results: dict[str, Any]) -> str:
    """Markdown: means and standard errors over seeds, and the first row's difference to each other, paired by seed."""
    lines = ["| run | " + " | ".join(COLUMNS) + " | processor s | invariance minus this |", "|---" * 7 + "|"]
    first, *_ = results["runs"].values()
    for name, runs in results["runs"].items():
        values = []
        for column in COLUMNS:
            found = paired.mean([run["test"][column] for run in runs])
            values.append(f"{found.mean:.1f}" + (f" ±{found.error:.1f}" if found.error is not None else ""))
        pairs = [(mine["test"]["all"], other["test"]["all"]) for mine, other in zip(first, runs, strict=True)]
        difference = None if runs is first else paired.difference([a for a, _ in pairs], [b for _, b in pairs])
        spent = statistics.fmean(run["seconds"] for run in runs)
        lines.append(f"| {name} | " + " | ".join(values) + f" | {spent:.0f} | {words(difference)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=0.6)
    parser.add_argument("--dual-lr", type=float, default=0.02)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    path = asked.out / "results.json"
    if asked.table:
        print(table(json.loads(path.read_text())))
        return
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    shared, dual = [*asked.set, "threads=1"], [f"loss.epsilon={asked.epsilon}", f"loss.dual_lr={asked.dual_lr}"]
    noted = asked.out / "price.json"
    if not noted.exists():
        noted.write_text(json.dumps(price(asked.recipe, shared, 4, dual)))
    cost = json.loads(noted.read_text())
    data = load(load_recipe(asked.recipe, registry(), shared).data)
    longer = round(asked.epochs * cost["invariance"]["seconds"] / cost["trivialaugment"]["seconds"])
    print(json.dumps(cost), longer, flush=True)
    found: dict[str, Any] = {name: [] for name in cells(asked.epochs, longer)}
    for seed in range(asked.seeds):
        for name, (arm, epochs) in cells(asked.epochs, longer).items():
            own = [*EVEN, *dual] if arm == "even" else [*ARMS[arm], *(dual if arm == "invariance" else [])]
            told = [*shared, *own, f"epochs={epochs}", f"seed={seed}"]
            found[name].append(trained(asked.out / f"{arm}-{epochs}-seed{seed}.json", asked.recipe, told, data))
        results = {"price": cost, "runs": found}
        path.write_text(json.dumps(results, indent=1))
        print(table(results), flush=True)


if __name__ == "__main__":
    main()
