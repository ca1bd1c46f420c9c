"""The page of one run: what it reached, what its policy really did, and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from augkit.report import charts, policy_charts
from augkit.report.charts import GROUPS
from augkit.report.facts import Run
from augkit.report.maps import map_of
from augkit.report.page import render

SAID = {"test": "test", "val": "validation"}


def page(run: Run) -> str:
    """The page as HTML; all names in it are text, whatever they say."""
    order = sorted(range(len(run.classes)), key=lambda k: -run.classes[k]["count"])
    facts = {
        "run": run,
        "which": SAID[run.measured],
        "answer": answer(run),
        "warnings": [*(run.summary or {}).get("warnings", []), *run.missing],
        "bands": bands(run),
        "by_class": by_class(run, order),
        "classes": [run.classes[k] for k in order],
        "curves": list(learning(run)),
        "stages": stages(run),
        "stages_tested": any(row["test"] for row in stages(run)),
        "policy": policy_charts.of_policy(run, order),
        "states": policy_charts.of_states(run, order),
        "amounts": amounts(run),
        "operators": operators(run),
        "fairness": (run.summary or {}).get("groups"),
        "robustness": robustness(run),
        "recipe": yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True),
        "environment": flat(run.environment),
        "command": shlex.join(["augkit", "train", str(run.folder / "recipe.yaml"), "--out", f"{run.folder}-again"]),
        "files": files(run),
        "percent": percent,
    }
    return render("run.html.j2", facts)


def percent(share: float | None, decimals: int = 1) -> str:
    """'81.2 %', and a dash for what is not there."""
    return "–" if share is None or share != share else f"{100 * share:.{decimals}f} %"


def answer(run: Run) -> str:
    """What the run reached, in one sentence."""
    last = run.records[-1]
    if run.summary is None:
        told = f"is right for {percent(last['train_accuracy'])} of the training images as it meets them"
        told += f" and for {percent(last['val']['all'])} of the validation images" if "val" in last else ""
        return f"This run has not ended: after {len(run.records)} of {run.epochs} epochs its model {told}."
    scores, images = run.summary[run.measured], sum(row["images"] or 0 for row in run.classes)
    parts = [f"{name} {percent(scores[name])}" for name in GROUPS if scores[name] is not None]
    by_band = f" (mean over the classes with many, medium and few training images: {', '.join(parts)})"
    by_group = run.summary.get("groups")
    worst = f"; in the worst group for {percent(by_group['worst_group'])}" if by_group else ""
    return (
        f"After the last of {run.epochs} epochs the model is right for {percent(scores['all'])} of"
        f" {f'{images:,}' if images else 'the'} {SAID[run.measured]} images{by_band if len(parts) > 1 else ''}{worst}."
    )


def bands(run: Run) -> list[dict[str, Any]]:
    """Classes, training images and accuracy of each band."""
    scores = (run.summary or {}).get(run.measured) or {}
    rows = []
    for name, words in zip(GROUPS, ("more than 100", "20 to 100", "fewer than 20"), strict=True):
        own = [row for row in run.classes if row["group"] == name]
        if own:
            images = sum(row["count"] for row in own)
            rows.append(
                {"band": name, "which": words, "classes": len(own), "images": images, "accuracy": scores.get(name)}
            )
    return rows


def by_class(run: Run, order: Sequence[int]) -> Markup:
    """The chart of accuracies; nothing where they are not known."""
    if run.summary is None or all(row["images"] is None for row in run.classes):
        return Markup()
    return charts.accuracy_by_class([run.classes[k] for k in order], SAID[run.measured])


def learning(run: Run) -> Iterator[Markup]:
    """Accuracies and losses over epochs."""
    names = {"all": "validation", **{name: f"validation, {name}" for name in GROUPS}}
    rows: list[dict[str, Any]] = []
    for record in run.records:
        rows.append({"epoch": record["epoch"], "series": "training, as met", "value": record["train_accuracy"]})
        for name, value in record.get("val", {}).items():
            if value is not None and name in names:
                rows.append({"epoch": record["epoch"], "series": names[name], "value": value})
    first, last = run.records[0], run.records[-1]
    words = f"Training accuracy from {percent(first['train_accuracy'])} to {percent(last['train_accuracy'])}"
    if "val" in last:
        words += f", validation accuracy to {percent(last['val']['all'])}"
    yield charts.curves(
        rows, "accuracy", f"{words}.", "Accuracy of what the model was shown, augmented, while it learned."
    )
    losses = [{"epoch": r["epoch"], "series": "training loss", "value": r["loss"]} for r in run.records]
    yield charts.curves(
        losses, "training loss", f"Training loss from {first['loss']:.3g} to {last['loss']:.3g}.", percent=False
    )
    yield from _by_class_learned(run)
    kept = [record for record in run.records if "constraint" in record]
    for name, what, caption in CONSTRAINT:
        if kept and all(name in record["constraint"] for record in kept):
            line = [{"epoch": r["epoch"], "series": what, "value": r["constraint"][name]} for r in kept]
            told = f"{what}: from {line[0]['value']:.3g} to {line[-1]['value']:.3g}."
            yield charts.curves(line, what, told, caption, percent=False)


CONSTRAINT = (
    ("slack", "slack", "Of the constraint that the loss keeps: epsilon minus the loss; below zero it is broken."),
    ("mu", "mu", "The multiplier of the constraint, after each epoch: how hard it presses."),
)


def _by_class_learned(run: Run) -> Iterator[Markup]:
    """Training accuracy of each class over the epochs."""
    if run.answers is None or min(run.answers.shape) < 2:
        return
    order = sorted(range(len(run.classes)), key=lambda k: -run.classes[k]["count"])
    names, counts = ([run.classes[k][part] for k in order] for part in ("name", "count"))
    last = run.answers[-1][~np.isnan(run.answers[-1])]
    words = "Training accuracy by class and epoch"
    words += f": in the last epoch from {last.min():.1%} to {last.max():.1%}." if len(last) else "."
    caption = "By class and epoch, of what the model was shown, augmented."
    yield map_of(run.answers[:, order].T, names, "training accuracy, 0 to 1", words, caption, counts=counts)


def stages(run: Run) -> list[dict[str, Any]]:
    """The stages of a run that has several."""
    found = (run.summary or {}).get("stages", [])
    return found if len(found) > 1 else []


def amounts(run: Run) -> list[dict[str, Any]]:
    """What the policy did to an image of each band: operators, strength, and where it was measured changed pixels."""
    if run.intensity is not None:
        return [{"band": name, **one} for name, one in run.intensity.items() if one is not None]
    if run.use is None:
        return []
    groups, rows = np.array([row["group"] for row in run.classes]), []
    for name in ("all", *GROUPS):
        own = (groups == name) | (name == "all")
        if own.any():
            used, seen = run.use.used[:, own], run.use.seen[:, own]
            many = used[:, :, run.use.graded].sum()
            strength = float(run.use.strength_sum[own].sum() / many) if many else None
            rows.append({"band": name, "operators": float(used.sum() / max(1, seen.sum())), "strength": strength})
    return rows


def operators(run: Run) -> list[dict[str, Any]]:
    """How often an image met each operator, by the band of its class, and how strongly: what maps show, as numbers."""
    if run.use is None:
        return []
    groups, use = np.array([row["group"] for row in run.classes]), run.use
    own = {name: (groups == name) | (name == "all") for name in ("all", *GROUPS)}
    met, strength, seen = use.used.sum(0), use.strength_sum.sum(0), use.seen.sum(0)
    return [
        {
            "name": name,
            "by_band": {
                band: float(met[rows, k].sum() / max(1, seen[rows].sum())) for band, rows in own.items() if rows.any()
            },
            "strength": float(strength[k] / met[:, k].sum()) if use.graded[k] and met[:, k].any() else None,
        }
        for k, name in enumerate(use.operators)
    ]


def robustness(run: Run) -> dict[str, Any] | None:
    """Errors on corrupted test images, if they were measured."""
    found = run.robustness
    if found is None or found.get("clean") is None or "mean_corruption_error" not in found:
        return None
    rows = [
        {"name": name, "errors": errors, "mean": float(np.mean(errors))} for name, errors in found["errors"].items()
    ]
    return {"clean": found["clean"], "mean": found["mean_corruption_error"], "rows": rows, "images": found["images"]}


def flat(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as lines."""
    lines: list[tuple[str, str]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            lines.append((prefix + name, ", ".join(map(str, value[:200])) + (", …" if len(value) > 200 else "")))
        else:
            lines.append((prefix + name, "not there" if value is None else str(value)))
    return lines


WHAT = {
    "recipe.yaml": "the resolved recipe",
    "environment.json": "versions, data and device",
    "metrics.jsonl": "a record for each epoch",
    "checkpoint.pt": "model, optimiser and policy after the last epoch",
    "per_class.csv": "the last epoch by class",
    "per_group.csv": "the last epoch by class and group",
    "summary.json": "the run's figures, written last",
    "operators.json": "which classes met which operators, by epoch",
    "intensity.json": "how much the policy did, by band",
    "robustness.json": "errors on corrupted test images",
    "accuracy_by_class.png": "picture of the last epoch",
    "operators_by_class.png": "picture of the operators by class and epoch",
    "constraint.png": "picture of a constraint, and of where chains ended",
    "robustness.png": "picture of the errors on corrupted test images",
    "tensorboard/": "scalars for TensorBoard",
}


def files(run: Run) -> list[dict[str, Any]]:
    """What is in the folder."""
    there = sorted(
        path for path in run.folder.iterdir() if not path.name.startswith(".") and path.name != "report.html"
    )
    return [
        {
            "name": path.name + "/" * path.is_dir(),
            "what": WHAT.get(path.name + "/" * path.is_dir(), ""),
            "size": path.stat().st_size if path.is_file() else None,
        }
        for path in there
        if not path.name.endswith(".part")
    ]
