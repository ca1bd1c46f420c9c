"""Methods for groups beside each other on PACS: `python benchmarks/groups.py --data pacs/ --out runs/groups`.

ERM, group re-sampling and Group-DRO train the recipe `pacs` with a small network on 32-pixel images; DFR fits the last
layer of what ERM trained anew. With `--store DIR` ERM trains on synthetic images too, that even out the cells:

    augkit synth make pacs --set data.source=pacs/ --set data.image_size=32 --groups --target 250 --source fit \\
        --option train_steps=2500 --out DIR

Finished runs are not repeated, and a run that was cut off goes on. Prints a table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from augkit.lab import paired
from augkit.lab.run import train

BALANCED = "sampler=group_balanced"
METHODS: dict[str, tuple[str, ...]] = {
    "ERM": (),
    "group_balanced": (BALANCED,),
    "group_dro": (BALANCED, "loss=group_dro"),
    "group_dro, step_size 0.001": (BALANCED, "loss={name: group_dro, step_size: 0.001}"),
    "DFR, validation images": ("stages=[dfr]",),
    "DFR, training images": ("stages=[{dfr: {fit_on: training}}]",),
}
SYNTHETIC: dict[str, tuple[str, ...]] = {
    "ERM, synthetic": (),
    "ERM, synthetic, mixup, head": (
        "policy=domain_mixup",
        "stages=[train, {finetune_head: {data: real, balance: groups}}]",
    ),
}
"""With `sources`. Mixing is across real and synthetic images, the head is tuned on as many real ones of each cell."""
COLUMNS = (
    "all",
    "worst_cell",
    "mean_cell",
    "worst_group",
    "dp_max",
    "dp_mean",
    "eo_max",
    "eo_mean",
    "ed_max",
    "ed_mean",
)
IN_PERCENT = ("all", "worst_cell", "mean_cell", "worst_group")


def small(data: str, epochs: int) -> list[str]:
    """What makes the recipe short enough for a CPU."""
    schedule = "schedule={name: cosine, options: {warmup_epochs: 1, warmup_lr: 0.005}}"
    base = "base={before: [{random_crop: {padding: 4}}, {hflip: {p: 0.5}}]}"
    settings = ["data.image_size=32", "model=test_resnet", f"epochs={epochs}", "threads=1", schedule, base]
    return [f"data.source={data}", *settings]


def folder_of(out: Path, method: str, seed: int) -> Path:
    return out / f"{method.replace(', ', '-').replace(' ', '-')}-seed{seed}"


def one(method: str, seed: int, out: Path, shared: list[str], store: Path | None) -> dict[str, Any]:
    """One run; its summary."""
    told = [*shared, *(METHODS | SYNTHETIC)[method], f"seed={seed}"]
    if method in SYNTHETIC:
        told.append(f"sources={store}")
    if method.startswith("DFR"):
        told.append(f"model.weights={folder_of(out, 'ERM', seed)}")
    folder = train("pacs", told, folder_of(out, method, seed), resume=True)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {"all": summary["test"]["all"], **summary["groups"]}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Mean and standard error over seeds; in bold where the difference to ERM, paired by seed, leaves out zero."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * len(COLUMNS)]
    looked_at: list[float] = []
    for method, runs in found.items():
        cells = []
        for column in COLUMNS:
            scale, digits = (100, 1) if column in IN_PERCENT else (1, 3)
            values, base = ([scale * run[column] for run in some] for some in (runs, found["ERM"]))
            mean = paired.mean(values)
            cell = f"{mean.mean:.{digits}f}" + ("" if mean.error is None else f" ±{mean.error:.{digits}f}")
            against = paired.difference(values, base)
            if method != "ERM" and against.low is not None and against.high is not None and against.p is not None:
                looked_at.append(against.p)
                cell = cell if against.low <= 0 <= against.high else f"**{cell}**"
            cells.append(cell)
        lines.append(f"| {method} | {' | '.join(cells)} |")
    told, left = (sum(p < 0.05 for p in some) for some in (looked_at, paired.holm(looked_at)))
    lines.append(
        f"\nDifferences looked at: {len(looked_at)}; told apart from 0: {told}; after Holm's correction: {left}."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder as the recipe `pacs` wants it")
    parser.add_argument("--out", type=Path, default=Path("runs/groups"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *SYNTHETIC])
    parser.add_argument("--store", type=Path, help="synthetic images, as above")
    told = parser.parse_args()
    methods = told.methods or [*METHODS, *(SYNTHETIC if told.store else ())]
    shared, found = small(told.data, told.epochs), {}
    for seed in range(told.seeds):
        for method in methods:
            found.setdefault(method, []).append(one(method, seed, told.out, shared, told.store))
            print(f"{method}, seed {seed}: {found[method][-1]}", flush=True)
    print(table(found) if "ERM" in found else "No table: ERM is what the others are compared with.")


if __name__ == "__main__":
    main()
