"""Running a recipe: from a document to a run folder."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from augkit.errors import DocumentError, StateError
from augkit.lab import data as lab_data
from augkit.lab import fairness, models, optimise
from augkit.lab import folder as files
from augkit.lab.augmentation import own_operators, strategy_of
from augkit.lab.board import Board
from augkit.lab.board import check as check_board
from augkit.lab.heads import weight_norms
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.metrics import Scores, group_of
from augkit.lab.progress import Reporter
from augkit.lab.recipe import Recipe, load_recipe, read_recipe
from augkit.lab.training import Training
from augkit.plugins import registry as default_registry
from augkit.registry import Registry
from augkit.strategy.model import Strategy

PACKAGES = ("augkit", "torch", "kornia", "timm", "torchvision", "numpy", "pillow", "pydantic")


def train(
    recipe_source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    *,
    registry: Registry | None = None,
) -> Path:
    """Train what a recipe describes and write its run folder.

    Args:
        recipe_source: a registered name, a path, or a mapping.
        overrides: `"a.b=value"`, applied in order.
        out: the run folder; `runs/NAME-POLICY-seedN-HASH`, of the recipe's hash, if it is not given.
        resume: go on with the run in that folder, or begin it if there is none.

    Returns:
        The run folder: `recipe.yaml` (resolved), `environment.json`, `metrics.jsonl`, `per_class.csv`, `summary.json`,
        `operators.json`, `checkpoint.pt` and pictures, and `per_group.csv` where groups are known.

    Raises:
        AugkitError: the recipe, the data or the folder is wrong.
    """
    registry = registry or default_registry()
    recipe = load_recipe(recipe_source, registry, overrides)
    strategy = strategy_of(recipe, registry)  # every document is checked before data are read
    device = pick_device(recipe.device)
    models.check(recipe.model.name)
    optimise.check(recipe.optimizer.name, recipe.schedule.name)
    if recipe.tensorboard:
        check_board()
    folder = Path(out) if out is not None else default_folder(recipe)
    files.check(folder, resume=resume)
    _same_recipe(folder, recipe, strategy)
    if (folder / files.SUMMARY).exists():
        return folder
    if resume and not (folder / files.RECIPE).exists():
        print(f"{folder}: there is no run to resume; it starts anew", file=sys.stderr)
    with threads(recipe.threads):
        _train(recipe, registry, device, folder, strategy.hash)
    return folder


def default_folder(recipe: Recipe) -> Path:
    """Where a run goes that was not told: another folder for every other recipe."""
    return Path("runs") / f"{recipe.name}-{recipe.policy_name}-seed{recipe.seed}-{recipe.hash[:8]}"


def _train(recipe: Recipe, registry: Registry, device: torch.device, folder: Path, strategy_hash: str) -> None:
    data = lab_data.load(recipe.data, device, recipe.sources)
    same_data(folder, data)
    run = prepare(recipe, data, registry, device)
    with files.claim(folder):
        files.write_yaml(folder / files.RECIPE, recipe.model_dump(mode="json"))  # a wrong recipe claims nothing
        checkpoint = files.load_checkpoint(folder, "recipe", "stage", "model", "policy", "records")
        if checkpoint is not None:
            if checkpoint["recipe"] != recipe.hash:
                raise StateError("the checkpoint belongs to another recipe; remove it to train anew", file=folder)
            run.load_state_dict(checkpoint)
        files.write_json(folder / files.ENVIRONMENT, environment(run, strategy_hash))
        _epochs(run, folder)
        finish(run, folder)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """As many CPU threads as said, and what it was before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _same_recipe(folder: Path, recipe: Recipe, strategy: Strategy) -> None:
    """Raise if the folder's run was begun with another recipe, or with another document by the policy's name."""
    path = folder / files.RECIPE
    if not path.exists():
        return
    there, here = flat(read_recipe(path).model_dump(mode="json")), flat(recipe.model_dump(mode="json"))
    differing = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differing:
        first = differing[0]
        raise StateError(
            f"this run was begun with {first}: {there.get(first)}, not {here.get(first)}; resume it with its own recipe"
            f" or choose another folder with --out (differing: {', '.join(differing)})",
            file=path,
        )
    noted = folder / files.ENVIRONMENT
    if noted.exists() and json.loads(noted.read_text(encoding="utf-8"))["strategy_sha256"] != strategy.hash:
        raise StateError(
            f'this run was begun with another document than "{recipe.policy.load}" as it stands now;'
            " put the document back or choose another folder with --out",
            file=folder,
        )


def same_data(folder: Path, data: lab_data.Data) -> None:
    """Raise if the folder's run was begun with other data than the source holds now."""
    path = folder / files.ENVIRONMENT
    if not path.exists():
        return
    noted, here = json.loads(path.read_text(encoding="utf-8")), identity(data)
    differing = [name for name, value in here.items() if name in noted and noted[name] != value]
    if differing:
        raise StateError(
            "this run was begun with other data than its source holds now; put the data back or choose another folder"
            f" with --out (differing: {', '.join(differing)})",
            file=path,
        )


def identity(data: lab_data.Data) -> dict[str, Any]:
    """What tells these data from others: which images were chosen, of which classes."""
    return {
        "subset_sha256": data.subset_sha256,
        "labels_sha256": data.labels_sha256,
        "class_counts": data.class_counts.tolist(),
    }


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    result: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def pick_device(name: str) -> torch.device:
    """`auto` is the accelerator if there is one.

    Raises:
        DocumentError: torch knows no such device, or it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise DocumentError(f'"{name}" cannot be used ({first}); say auto or cpu', path="device") from error


def environment(run: Training, policy_hash: str) -> dict[str, Any]:
    """What a number in this folder depends on besides the recipe."""
    data = run.data
    special = {"synthetic": int(data.synthetic.sum())} if data.synthetic.any() else {}
    special |= {"tuning": len(data.tuning)} if data.tuning is not None else {}
    return {
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "begins_at_epoch": run.epoch,
        "recipe_sha256": run.recipe.hash,
        "strategy_sha256": policy_hash,
        **identity(data),
        "images": {
            "train": len(data.train),
            **special,
            "val": len(data.val) if data.val else 0,
            "test": len(data.test),
        },
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else str(run.device),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _epochs(run: Training, folder: Path) -> None:
    """All epochs that are left, with a checkpoint after each."""
    recipe = run.recipe
    # metrics.jsonl is written from the checkpoint's records, so a kill between the two is mended here
    files.write_lines(folder / files.METRICS, run.records)
    title = f"{recipe.name} {recipe.policy_name} seed {recipe.seed}"
    with (
        Board(folder, recipe.tensorboard, run.epoch) as board,
        Reporter(title, recipe.all_epochs, run.epoch) as reporter,
    ):
        while run.epoch < recipe.all_epochs:
            record = train_epoch(run, reporter.step)
            files.save_checkpoint(folder, run.state_dict())
            files.write_lines(folder / files.METRICS, run.records)
            board.write(record)
            reporter.epoch(record)
    for warning in run.policy.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def finish(run: Training, folder: Path) -> None:
    """Measure the last epoch's model on the test set, once, and write tables and pictures; the summary comes last.

    A recipe that leaves the test set alone is measured on the validation images.
    """
    from augkit.report.pictures import draw_run

    which, split = ("test", run.data.test) if run.recipe.test else ("val", run.data.val)
    assert split is not None  # `prepare` refuses such a recipe without any
    scores, logits = run.evaluate(split)
    names, groups = run.data.class_names, group_of(run.data.real_counts)
    real = run.data.real_counts
    columns = (tensor.tolist() for tensor in (real, run.data.class_counts - real, scores.seen, scores.correct))
    counts, made, seen, correct = columns
    norms = _weight_norms(run)
    told = names, counts, groups, seen, correct, scores.by_class(), made, *norms.values()
    rows = zip(range(len(names)), *told, strict=True)
    header = ("class", "name", "train_images", "group", f"{which}_images", "correct", "accuracy", "synthetic_images")
    files.write_table(folder / files.PER_CLASS, (*header, *norms), rows)
    files.write_json(folder / files.OPERATORS, operator_use(run))
    by_group = fairness.measure(logits, split, run.data)
    if by_group is not None:
        files.write_table(folder / files.PER_GROUP, fairness.HEADER, by_group.rows(fairness.images(run.data)))
    summary = summarise(run, scores, None if by_group is None else by_group.summary())
    draw_run(folder)
    files.write_json(folder / files.SUMMARY, summary)


def _weight_norms(run: Training) -> dict[str, list[float] | list[None]]:
    """How long each class's weight vector is in the end, and where there are several stages, as the last one began."""
    nothing: list[None] = [None] * run.data.num_classes
    found = {"weight_norm": weight_norms(run.model, run.data.num_classes) or nothing}
    if len(run.stages) > 1:
        found["weight_norm_before"] = run.records[run.stages[-1].begin - 1].get("weight_norms") or nothing
    return found


def operator_use(run: Training) -> dict[str, Any]:
    """How many of each class's images met each of the policy's operators, epoch by epoch, and the sum of the strengths
    over all epochs. Of views that a loss chooses among, those that were trained on count."""
    columns = own_operators(run.policy)
    choices, history = run.policy.program.choices, run.policy.history
    strength = sum((torch.as_tensor(epoch["strength_used"])[:, columns].double() for epoch in history), torch.zeros(()))
    return {
        "operators": [choices[column].operator.name for column in columns],
        "used": [torch.as_tensor(epoch["used"])[:, columns].long().tolist() for epoch in history],
        "seen": [torch.as_tensor(epoch["seen"]).long().tolist() for epoch in history],
        "strength_used": (strength * 1e4).round().div(1e4).tolist(),
    }


def summarise(run: Training, scores: Scores, by_group: Mapping[str, Any] | None) -> dict[str, Any]:
    """The run in one page: the last epoch's accuracy, what it cost, and what identifies it.

    `by_group` is `GroupScores.summary` of the images that measure the run, if their groups are known.
    """
    last = run.records[-1]
    seconds = statistics.median(record["seconds"] for record in run.records)
    parts = [record["seconds_input"] for record in run.records if record["seconds_input"] is not None]
    spent = statistics.median(parts) if parts else None
    test = scores.summary(run.data.real_counts) if run.recipe.test else None
    tests = [run.records[stage.end - 1].get("test") for stage in run.stages[:-1]] + [test]
    read = "last epoch, test set read once" if len(run.stages) == 1 else "last epoch, test set read after each stage"
    stages: list[dict[str, Any]] = [
        {"stage": stage.name, "epochs": stage.epochs, "images": len(stage.rows), "test": of_stage}
        for stage, of_stage in zip(run.stages, tests, strict=True)
    ]
    if by_group is not None and run.recipe.test:
        groups = [run.records[stage.end - 1].get("test_groups") for stage in run.stages[:-1]] + [by_group]
        for entry, found in zip(stages, groups, strict=True):
            entry["groups"] = found
    return {
        "name": run.recipe.name,
        "policy": run.recipe.policy_name,
        "seed": run.recipe.seed,
        "epochs": run.recipe.all_epochs,
        "test": test,
        **({} if by_group is None else {"groups": by_group}),
        "reported": read if run.recipe.test else "last epoch, validation images; the test set was not read",
        "stages": stages,
        "val": last.get("val"),
        "train": {"loss": last["loss"], "accuracy": last["train_accuracy"]},
        **({"passes": last["passes"]} if "passes" in last else {}),
        "seconds_per_epoch": seconds,
        "seconds_input_per_epoch": spent,
        "recipe_sha256": run.recipe.hash,
        "subset_sha256": run.data.subset_sha256,
        "warnings": run.policy.warnings,
    }
