"""Finished runs on corrupted test images: errors by corruption and severity. `augkit robustness` is this.

The corruptions are those of the strategy `imagenet_c`, drawn by augkit's streams: which noise an image gets depends on
its position in the test set and on nothing of the run, so that all models see the very same images.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.errors import DataError, StateError
from augkit.lab import data as lab_data
from augkit.lab import folder as files
from augkit.lab.data import Data, Split
from augkit.lab.experts import joint
from augkit.lab.finished import enter_stages, prepare_finished
from augkit.lab.recipe import Recipe, read_recipe
from augkit.lab.run import pick_device, same_data, threads
from augkit.lab.training import Training
from augkit.plugins import registry as default_registry
from augkit.policy import Policy
from augkit.registry import Registry
from augkit.strategy.document import load_strategy

RECORD, PICTURE = "robustness.json", "robustness.png"
STRATEGY = "imagenet_c"
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The published names of the strategy's branches, in their order."""
MISSING = ("frost",)
"""Of the published fifteen, for want of photographs of frost."""
SEVERITIES = (1, 2, 3, 4, 5)
SEED, BATCH = 0, 256
SPARE = 2**30
"""Bytes of a disk that are left free."""
Record = dict[str, Any]


@dataclass
class Subject:
    """A finished run whose model is asked."""

    folder: Path
    recipe: Recipe
    run: Training
    record: Record
    """What `robustness.json` holds: identity, `clean`, and by corruption the errors at each severity, all 0..1."""


def find(folders: Sequence[Path]) -> list[Path]:
    """The run folders among some, each once: of a folder that is none those in it, or in its `runs/`.

    Raises:
        DataError: one of them neither is nor holds a run folder, or a run is not finished.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        inner = [folder / files.RECIPE] if (folder / files.RECIPE).exists() else []
        inner = inner or sorted(folder.glob(f"*/{files.RECIPE}")) or sorted(folder.glob(f"runs/*/{files.RECIPE}"))
        if not inner:
            raise DataError(
                "there is no run folder here (recipe.yaml in it); name one, or a folder of them", file=folder
            )
        for path in inner:
            found.setdefault(path.parent.resolve(), path.parent)
    for folder in found.values():
        if not (folder / files.SUMMARY).exists():
            raise DataError(
                "this run is not finished (no summary.json in it): go on with augkit train --resume", file=folder
            )
    return list(found.values())


def measure(
    folders: Sequence[Path],
    *,
    memory: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    check: Callable[[list[Record]], None] = lambda records: None,
    registry: Registry | None = None,
) -> list[Record]:
    """Ask the models of finished runs about their test images, corrupted in every way, and note it in their folders.

    What is noted of the same checkpoint, images and strategy is not measured again, corruption by corruption, so that a
    stopped call may be repeated. Runs on the same data share the corrupted images.

    Args:
        folders: run folders, as `find` gives them.
        memory: MiB that test images held on the device may take, instead of what the recipe says; those that take more
            lie as bytes in a nameless file in the first run's folder meanwhile, or, where the disk is too full for it,
            are read anew for each of the seventy measurements.
        say: called with a line about each corruption.
        check: called with the records before anything is measured; what it raises ends the call.

    Returns:
        What each `robustness.json` holds, in the folders' order.

    Raises:
        AugkitError: a run left its test set alone, its data have changed, or its model is not what it was.
    """
    registry = registry or default_registry()
    subjects = list(_open(folders, registry, memory))
    check([subject.record for subject in subjects])
    with ExitStack() as claims:
        for subject in subjects:
            claims.enter_context(files.claim(subject.folder))
        for together in _by_data(subjects):
            with threads(together[0].recipe.threads):
                _measure(together, say)
    return [subject.record for subject in subjects]


def _open(folders: Sequence[Path], registry: Registry, memory: int | None = None) -> Iterator[Subject]:
    known: dict[str, Data] = {}
    for folder in folders:
        recipe = read_recipe(folder / files.RECIPE)
        if not recipe.test:
            raise DataError("this run left its test set alone (test: false), and so does this", file=folder)
        device = pick_device(recipe.device)
        parts = [recipe.data, recipe.sources] if recipe.sources else [recipe.data]
        key = json.dumps([str(device), *(part.model_dump(mode="json") for part in parts)])
        if key not in known:
            known[key] = _data(recipe, device, recipe.data.memory if memory is None else memory, folder)
        same_data(folder, known[key])
        yield _subject(folder, recipe, known[key], registry, device)


def _data(recipe: Recipe, device: torch.device, memory: int, folder: Path) -> Data:
    """The recipe's data; of the images only those of the test set are held: on the device, if they fit into so many
    MiB, else in a file in the folder, if they fit there."""
    data = lab_data.load(recipe.data.model_copy(update={"memory": 0}), device, recipe.sources)
    test, shape = data.test, (len(data.test), 3, data.test.size, data.test.size)
    if math.prod(shape) <= memory * 2**20:
        held = torch.empty(shape, dtype=torch.uint8, device=device)
    elif math.prod(shape) <= shutil.disk_usage(folder).free - SPARE:
        with TemporaryFile(dir=folder) as file:  # nameless, so it ends with the process, however that ends
            held = torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))
    else:
        return data
    positions = torch.arange(len(test), device=device).split(BATCH)
    for where, images in zip(positions, test.batches(positions), strict=True):
        held[where.to(held.device)] = images.to(held.device)
    return replace(data, test=replace(test, held=held))


def _subject(folder: Path, recipe: Recipe, data: Data, registry: Registry, device: torch.device) -> Subject:
    """The run as its last epoch left it, and what is known of it."""
    state = files.load_checkpoint(folder, "recipe", "stage", "model")
    if state is None or state["recipe"] != recipe.hash:
        reason = "there is no checkpoint.pt here" if state is None else "the checkpoint belongs to another recipe"
        raise StateError(f"{reason}: train the run anew", file=folder)
    run = prepare_finished(recipe, data, registry, device)
    enter_stages(run, state["stage"])
    run.model.load_state_dict(state["model"])
    run.model.eval()
    record = {
        "name": recipe.name,
        "policy": recipe.policy_name,
        "loss": recipe.loss.name,
        "seed": recipe.seed,
        "recipe_sha256": recipe.hash,
        "kind_sha256": recipe.model_copy(update={"seed": 0}).hash,
        "checkpoint_sha256": hashlib.sha256((folder / files.CHECKPOINT).read_bytes()).hexdigest(),
        "labels_sha256": data.labels_sha256,
        "subset_sha256": data.subset_sha256,
        "test_sha256": _images_of(data.test),
        "images": len(data.test),
        "pixels": data.test.size,
        "strategy": STRATEGY,
        "strategy_sha256": load_strategy(STRATEGY, registry).hash,
        "strategy_seed": SEED,
        "missing": list(MISSING),
        "read": "the test set, after the last epoch; nothing is chosen by it",
    }
    return Subject(folder, recipe, run, record | _noted(folder, record))


def _images_of(split: Split) -> str:
    """SHA-256 of the positions of a split's images in their source, and of their labels: int64, little-endian."""
    digest = hashlib.sha256(split.rows.astype("<i8").tobytes())
    digest.update(split.labels.cpu().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _noted(folder: Path, record: Record) -> Record:
    """What was measured before of the very same, or that nothing was."""
    try:
        there = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if all(there[name] == value for name, value in record.items()):
            measured = ("clean", "errors", "mean_corruption_error")
            return {name: there[name] for name in measured if name in there}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing, or of a damaged file nothing that can be used
    return {"clean": None, "errors": {}}


def _by_data(subjects: Sequence[Subject]) -> list[list[Subject]]:
    found: dict[int, list[Subject]] = {}
    for subject in subjects:
        found.setdefault(id(subject.run.data), []).append(subject)
    return list(found.values())


def _measure(subjects: list[Subject], say: Callable[[str], None]) -> None:
    """Fill the records of runs on the same data, and write them after each corruption."""
    data = subjects[0].run.data
    fresh = [subject for subject in subjects if subject.record["clean"] is None]
    for subject, error in zip(fresh, _errors(fresh, data.test, None), strict=True):
        _check_clean(subject, error)
        subject.record["clean"] = error
    device = data.test.labels.device
    for number, name in enumerate(CORRUPTIONS):
        left = [subject for subject in subjects if name not in subject.record["errors"]]
        if not left:
            continue
        begin = time.perf_counter()
        by_severity = []
        for severity in SEVERITIES:
            policy = Policy.load(STRATEGY, seed=SEED, severity=severity, only=number, device=device)
            by_severity.append(_errors(left, data.test, policy))
        for place, subject in enumerate(left):
            subject.record["errors"][name] = [errors[place] for errors in by_severity]
            if len(subject.record["errors"]) == len(CORRUPTIONS):
                subject.record["mean_corruption_error"] = mean_error(subject.record)
            files.write_json(subject.folder / RECORD, subject.record)
        mean = statistics.fmean(error for errors in by_severity for error in errors)
        runs = f"{len(left)} run{'s' * (len(left) > 1)}"
        seconds = time.perf_counter() - begin
        say(f"{number + 1}/{len(CORRUPTIONS)}  {name}  mean error {100 * mean:.1f} %  ({runs}, {seconds:.1f} s)")


def mean_error(record: Record) -> float:
    """The mean corruption error, 0..1: over severities, then over corruptions; not normalised."""
    return statistics.fmean(statistics.fmean(record["errors"][name]) for name in CORRUPTIONS)


@torch.no_grad()
def _errors(subjects: Sequence[Subject], split: Split, policy: Policy | None) -> list[float]:
    """The share of wrong answers of each model, 0..1, over the images as the policy corrupts them, or as they are."""
    if not subjects:
        return []
    device = split.labels.device
    positions = torch.arange(len(split), device=device).split(BATCH)
    wrong = [torch.zeros((), dtype=torch.int64, device=device) for _ in subjects]
    for where, images in zip(positions, split.batches(positions), strict=True):
        labels = split.labels[where]
        shown = images if policy is None else policy(images, labels, index=where)[0]
        for place, subject in enumerate(subjects):
            wrong[place] += (_logits(subject.run, shown).argmax(1) != labels).sum()
    return [int(count) / len(split) for count in wrong]


def _logits(run: Training, images: Tensor) -> Tensor:
    with run.autocast():
        return joint(run.model(run.layout(run.normalise(images)))).float()


def _check_clean(subject: Subject, error: float) -> None:
    """Raise if the model answers its own test set otherwise than when the run ended; rounding may turn an answer."""
    summary = json.loads((subject.folder / files.SUMMARY).read_text(encoding="utf-8"))
    before = 1 - summary["test"]["all"]
    if abs(error - before) > 0.005 + 1 / subject.record["images"]:
        raise StateError(
            f"the model of this run has an error of {100 * error:.1f} % on the test images, and had"
            f" {100 * before:.1f} % when it ended: its checkpoint or its images are others now",
            file=subject.folder,
        )
