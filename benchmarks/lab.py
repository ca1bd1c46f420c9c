"""Seconds of an epoch of the lab on CIFAR-100-LT with ResNet-32, where they go, and eight runs at once on a GPU.

    python benchmarks/lab.py --data cifar100_lt.npz --out lab.json
    python benchmarks/lab.py --out lab.json               # random images of the same shape and counts: the same work

It runs on a machine with PyTorch, torchvision and timm, and these wheels beside them, put there with `pip install
--no-deps`: those that `gpu.py` names, and torchmetrics, lightning-utilities. `--smoke` runs all of it on the CPU with a
small network and few images, to see that it runs; its times mean nothing.

Settings take turns. On a CPU times are processor time on one thread, of some steps, scaled to the epoch. On a GPU a
whole epoch is timed as it trains, and its parts on steps that wait for the device after each part, so that they add up
to more. `input` is reading, augmenting and normalising, `rest` counting answers and all else that the loop does. Eight
runs at once go through `augkit.lab.jobs`: seconds of each while all train, and of everything, start included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from harness import Clock, device_clock, machine

from augkit.lab.data import load
from augkit.lab.jobs import Task
from augkit.lab.jobs import map as spread
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.lab.subsets import long_tailed_counts
from augkit.plugins import registry

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
PARTS = ("input", "forward", "backward", "optimiser", "rest")
QUICK = ["precision=bf16", "channels_last=true"]
SETTINGS = {
    "float32": ["precision=float32", "channels_last=false"],
    "bf16, channels_last": QUICK,
    "the same compiled": [*QUICK, "compile=true", *(["executor=compiled"] if CUDA else [])],
}
GOAL = "On an H200-class GPU: 200 epochs in 60 s alone, in 15 s each when eight run together."


def made_up(folder: Path, largest: int = 500, classes: int = 100) -> Path:
    """An .npz of random images in the shape of CIFAR-100-LT at imbalance 100."""
    draw, labels = np.random.default_rng(0), np.repeat(np.arange(classes), long_tailed_counts(largest, 100, classes))
    images = draw.integers(0, 256, (len(labels) + classes, 32, 32, 3), np.uint8)
    train, test = images[: len(labels)], images[len(labels) :]
    path = folder / "random.npz"
    np.savez(path, train_images=train, train_labels=labels, test_images=test, test_labels=np.arange(classes))
    return path


def training(told: list[str]) -> Training:
    """A run before its first step."""
    recipe = load_recipe("cifar100-lt", registry(), told)
    return prepare(recipe, load(recipe.data, DEVICE), registry(), DEVICE)


def steps(run: Training, number: int, clock: Clock) -> list[dict[str, float]]:
    """Seconds of each part in some steps of an epoch, as `train_epoch` makes them; the first is not counted."""
    policy, split, found = run.policy, run.data.train, list[dict[str, float]]()
    run.model.train()
    positions = [part.to(DEVICE) for part in run.stage.batches(run.epoch)][: number + 1]
    positions = [part for part in positions if len(part) == run.recipe.batch_size]
    batches, total = split.batches(positions), torch.zeros((), device=DEVICE)
    policy.begin_epoch()
    for where in positions:
        times = [clock()]
        inputs, targets = policy(next(batches), split.labels[where], **split.companions(where))
        inputs = run.layout(inputs)
        times.append(clock())
        run.optimizer.zero_grad(set_to_none=True)
        logits, loss = run.answer(inputs, targets, where)
        times.append(clock())
        loss.backward()  # type: ignore[no-untyped-call]
        times.append(clock())
        run.optimizer.step()
        times.append(clock())
        policy.observe(logits.detach())
        total += loss.detach() * len(where)
        times.append(clock())
        found.append({name: after - before for name, before, after in zip(PARTS, times[:-1], times[1:], strict=True)})
    return found[1:]


def epochs(runs: dict[str, Training], repeats: int, number: int) -> list[dict[str, Any]]:
    """A row for each setting: seconds of an epoch, and of its parts."""
    clock = device_clock(DEVICE) if CUDA else time.process_time
    wholes: dict[str, list[float]] = {name: [] for name in runs}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for run in runs.values():  # compiles, and makes what is made once
        train_epoch(run) if CUDA else steps(run, 2, clock)
    for _ in range(repeats):
        for name, run in runs.items():
            if CUDA:
                begin = clock()
                train_epoch(run)
                wholes[name].append(clock() - begin)
            parts[name] += steps(run, number, clock)
    rows = []
    for name, run in runs.items():
        each = len(run.data.train) / run.recipe.batch_size  # the last batch is smaller
        seconds = {part: each * statistics.median(one[part] for one in parts[name]) for part in PARTS}
        whole = statistics.median(wholes[name]) if CUDA else sum(seconds.values())
        rows.append({"setting": name, "epoch_seconds": whole, "parts": seconds, "steps": len(parts[name])})
    return rows


def whole_run(told: list[str], epochs: int) -> dict[str, float]:
    """Train in this process; when its epochs after the first began and ended (a task of `together`)."""
    begun = time.time()
    run = training(told)
    train_epoch(run)
    clock = device_clock(DEVICE)
    clock()
    first = time.time()
    for _ in range(epochs):
        train_epoch(run)
    clock()
    last = time.time()
    run.evaluate(run.data.test)
    return {"begun": begun, "first": first, "last": last}


def together(told: list[str], jobs: int, epochs: int) -> dict[str, Any]:
    """So many runs at once, of so many epochs each after a first one."""
    begin = time.time()
    arguments = [{"told": [*told, f"seed={seed}"], "epochs": epochs} for seed in range(jobs)]
    tasks = [Task(f"run-{seed}", "lab:whole_run", one) for seed, one in enumerate(arguments)]
    results = spread(tasks, jobs=jobs)
    failed = [result.reason for result in results if result.failed]
    if failed:
        raise SystemExit(f"a run failed: {failed[0]}")
    spans = [(result.value["first"], result.value["last"]) for result in results]
    each = [last - first for first, last in spans]
    shared = (max(last for _, last in spans) - min(first for first, _ in spans)) / jobs
    return {
        "jobs": jobs,
        "epochs": epochs,
        "seconds_of_each": each,
        "seconds_shared": shared,
        "seconds_shared_200": 200 * shared / epochs,
        "seconds_with_start": time.time() - begin,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'seconds of':22} {'an epoch':>9} " + " ".join(f"{part:>10}" for part in PARTS)]
    for row in rows:
        parts = " ".join(f"{row['parts'][part]:>10.2f}" for part in PARTS)
        lines.append(f"{row['setting']:22} {row['epoch_seconds']:>9.2f} {parts}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz of CIFAR-100-LT; random images without it")
    parser.add_argument("--out", type=Path, default=Path("lab.json"), help="where the JSON goes")
    parser.add_argument("--policy", default="none")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each setting")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn whose parts are timed")
    parser.add_argument("--epochs", type=int, default=20, help="of each run when eight run at once")
    parser.add_argument("--jobs", type=int, default=8, help="how many run at once, on a GPU")
    parser.add_argument("--smoke", action="store_true", help="a few images on the CPU, to see that all of it runs")
    given = parser.parse_args()
    told = [f"policy={given.policy}", f"device={DEVICE.type}", "threads=1"]
    if given.smoke:
        given.repeats, given.steps, given.epochs, given.jobs = 1, 2, 1, 2
        told += ["model=resnet8_cifar", "batch_size=16"]
        torch.compile = lambda model, **_: model  # type: ignore[assignment]  # a minute on a processor
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        data = given.data or made_up(Path(folder), 100 if given.smoke else 500)
        told.append(f"data.source={data.absolute()}")
        runs = {name: training([*told, *setting]) for name, setting in SETTINGS.items()}
        images = len(next(iter(runs.values())).data.train)
        found: dict[str, Any] = {"machine": machine(), "data": "given" if given.data else "random images"}
        found |= {"images": images, "policy": given.policy, "clock": "device" if CUDA else "processor, one thread"}
        print(json.dumps(found["machine"]), f"{images:,} images ({found['data']}), policy {given.policy}", sep="\n")
        found["epochs"] = epochs(runs, given.repeats, given.steps)
        print(table(found["epochs"]), flush=True)
        given.out.write_text(json.dumps(found, indent=1))  # what there is, should the rest fail
        if CUDA or given.smoke:
            quick = [*told, *SETTINGS["the same compiled" if CUDA else "bf16, channels_last"]]
            found["together"] = [together(quick, jobs, given.epochs) for jobs in sorted({1, given.jobs})]
            print(GOAL, json.dumps(found["together"], indent=1), sep="\n")
    given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
