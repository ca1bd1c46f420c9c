"""Which candidate is chosen, and whether that is more than noise: functions of accuracies alone."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from augkit.errors import AugkitError
from augkit.lab import paired


def balanced(table: Path) -> float:
    """The mean over classes of the accuracy in a run's `per_class.csv`, 0..1; classes without an image are left out."""
    with table.open(encoding="utf-8") as file:
        found = [float(row["accuracy"]) for row in csv.DictReader(file) if row["accuracy"]]
    return sum(found) / len(found)


@dataclass(frozen=True)
class Choice:
    """Candidates with their accuracies, and what follows from them.

    The best candidate has the highest mean over seeds. Chosen is, of those whose mean is at most the best one's
    standard error below it, the one with the fewest synthetic images. It is called better only if its mean difference
    to each control, paired by seed, is larger than that difference's standard error.
    """

    told: Mapping[str, Any]
    """What `allocation.json` says besides."""
    candidates: Sequence[Mapping[str, Any]]
    """`split`, `weights`, `ratio`, `images`, `take` and `store` of each."""
    scores: Sequence[Mapping[int, float]]
    """Of each candidate, by seed: balanced accuracy on validation images in percent; without runs that failed."""
    controls: Mapping[str, tuple[int, Mapping[int, float]]]
    """Without synthetic images: epochs, and accuracies by seed. The first is the recipe as it is."""

    def results(self) -> dict[str, Any]:
        """What `allocation.json` holds.

        Raises:
            AugkitError: every run of a control, or of all candidates, failed.
        """
        empty = next((name for name, (_, scores) in self.controls.items() if not scores), None)
        if empty is not None or not any(self.scores):
            what = f"{empty} failed" if empty is not None else "the candidates failed"
            first = next(iter(self.told["failed"].values()), "")
            raise AugkitError(f"every run of {what}, so there is nothing to choose: {first}")
        rows = [self._row(i) for i in range(len(self.candidates))]
        measured = [row for row in rows if row["accuracy"] is not None]
        best = max(measured, key=lambda row: row["accuracy"]["mean"])
        margin = best["accuracy"]["mean"] - (best["accuracy"]["error"] or 0.0)
        near = [row for row in measured if row["accuracy"]["mean"] >= margin]
        chosen = min(near, key=lambda row: (row["images"], row["split"], -row["accuracy"]["mean"]))
        for control in self.controls:
            entries = [row["differences"][control] for row in measured if row["differences"][control] is not None]
            known = [entry for entry in entries if entry["p"] is not None]
            for entry, p in zip(known, paired.holm([entry["p"] for entry in known]), strict=True):
                entry["p_holm"] = p
        better = all(_beyond(chosen["differences"][control]) for control in self.controls)
        return {
            **self.told,
            "unit": "percent and percentage points",
            "measured": "balanced accuracy on validation images after the last epoch; the test set was not read",
            "controls": {
                name: {"epochs": epochs, "accuracy": asdict(paired.mean(list(scores.values()))), "seeds": list(scores)}
                for name, (epochs, scores) in self.controls.items()
            },
            "candidates": rows,
            "best": rows.index(best),
            "chosen": rows.index(chosen),
            "better": better,
            "verdict": verdict(chosen, best, self.controls, better, len(measured)),
        }

    def _row(self, i: int) -> dict[str, Any]:
        own = self.scores[i]
        row = {**self.candidates[i], "seeds": list(own), "differences": {}}
        row["accuracy"] = asdict(paired.mean(list(own.values()))) if own else None
        for name, (_, control) in self.controls.items():
            both = [seed for seed in own if seed in control]
            found = paired.difference([own[s] for s in both], [control[s] for s in both]) if both else None
            row["differences"][name] = None if found is None else asdict(found)
        return row


def _beyond(difference: Mapping[str, Any] | None) -> bool:
    """Whether a difference is larger than its standard error; one seed has none, and proves nothing."""
    return difference is not None and difference["error"] is not None and difference["mean"] > difference["error"]


def words(row: Mapping[str, Any]) -> str:
    """A candidate in words."""
    return f"split {row['split']:g}, weights {row['weights']}, ratio {row['ratio']:g} ({row['images']} images)"


def verdict(
    chosen: Mapping[str, Any],
    best: Mapping[str, Any],
    controls: Mapping[str, tuple[int, Any]],
    better: bool,
    count: int,
) -> list[str]:
    """Sentences: what is chosen, and whether it is better than no synthetic images.

    Args:
        chosen: a row of the results.
        best: the row with the highest mean.
        controls: epochs and anything, by name; the first is the recipe as it is.
        better: whether the chosen one is.
        count: candidates that were looked at.
    """
    said = [f"Chosen: {words(chosen)}, {_percent(chosen['accuracy'])}."]
    if chosen is not best:
        said.append(
            f"The highest mean has {words(best)}, {_percent(best['accuracy'])}; the chosen one is within its standard"
            " error with fewer images."
        )
    first = next(iter(controls))
    for name, (epochs, _) in controls.items():
        against = "no synthetic images" if name == first else f"none and as many training steps ({epochs} epochs)"
        said.append(_against(chosen["differences"][name], against))
    if not _beyond(chosen["differences"][first]):
        said.append("So it is not called better: the recipe does as well without synthetic images.")
    elif not better:
        said.append("So it is not called better: more training steps on the real images alone do as much.")
    elif count > 1:
        said.append(
            f"It is called better, by the low bar of a standard error. {_corrected(chosen['differences'], count)}"
        )
    return said


def _corrected(differences: Mapping[str, Any], count: int) -> str:
    """What is left where several were looked at."""
    lucky = f"The best of {count} candidates is lucky too"
    p = [None if found is None else found.get("p_holm") for found in differences.values()]
    if None in p:
        return f"{lucky}, and fewer than {paired.FEWEST} seeds cannot tell how much of it is luck."
    held = sum(value < 1 - paired.LEVEL for value in p if value is not None)
    left = "holds" if held == len(p) else f"holds against {held} of {len(p)}" if held else "does not hold"
    return f"{lucky}: after Holm's correction for looking at {count} the difference {left} at 95 %."


def _percent(mean: Mapping[str, Any]) -> str:
    error = "" if mean["error"] is None else f" ± {mean['error']:.1f}"
    return f"{mean['mean']:.1f}{error} %"


def _against(found: Mapping[str, Any] | None, what: str) -> str:
    if found is None or found["error"] is None:
        return f"Against {what}: fewer than two seeds in common, so nothing can be told from noise."
    size = f"Against {what}: {found['mean']:+.1f} ± {found['error']:.1f} points"
    if abs(found["mean"]) <= found["error"]:
        return f"{size}, no more than its standard error: noise."
    said = f"{size}, {'better' if found['mean'] > 0 else 'worse'} by more than its standard error"
    if found["low"] is None:
        return f"{said}."
    inside = ", which contains 0" if found["low"] <= 0 <= found["high"] else ""
    return f"{said}; its 95 % interval is {found['low']:+.1f} to {found['high']:+.1f}{inside}."
