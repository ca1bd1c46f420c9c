"""Which candidate is chosen, and whether that is more than noise: functions of accuracies alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from augkit.errors import AugkitError
from augkit.lab import paired

BETTER, WORSE, UNTOLD, TOO_FEW = "better", "worse", "cannot be told", "too few seeds"


@dataclass(frozen=True)
class Choice:
    """Candidates with their accuracies, and what follows from them.

    The best candidate has the highest mean over seeds. Chosen is, of those whose mean is at most the best one's
    standard error below it, the one with the fewest synthetic images. It is called better only if its mean difference
    to each control, paired by three seeds or more, is larger than that difference's standard error.

    A stale candidate's images are others now, so that nothing can be trained on those that gave its accuracy: it is no
    candidate any more, but was looked at, and counts when the others are corrected for that.
    """

    told: Mapping[str, Any]
    """What `allocation.json` says besides."""
    candidates: Sequence[Mapping[str, Any]]
    """`split`, `weights`, `ratio`, `images`, `take`, `gaps`, `stale`, `store` and `values` of each."""
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
        rows = [self._row(i) for i in range(len(self.candidates))]
        measured = [row for row in rows if row["accuracy"] is not None]
        standing = [row for row in measured if not row["stale"]]
        if empty is not None or not standing:
            what = f"{empty} failed" if empty is not None else "the candidates failed"
            first = next(iter(self.told["failed"].values()), "")
            raise AugkitError(f"every run of {what}, so there is nothing to choose: {first}")
        best = max(standing, key=lambda row: row["accuracy"]["mean"])
        margin = best["accuracy"]["mean"] - (best["accuracy"]["error"] or 0.0)
        near = [row for row in standing if row["accuracy"]["mean"] >= margin]
        chosen = min(near, key=lambda row: (row["images"], row["split"], -row["accuracy"]["mean"]))
        for control in self.controls:
            entries = [row["differences"][control] or {"p": None} for row in measured]
            # one without a p was looked at too
            adjusted = paired.holm([1.0 if entry["p"] is None else entry["p"] for entry in entries])
            for entry, p in zip(entries, adjusted, strict=True):
                entry["p_holm"] = None if entry["p"] is None else p
        better = all(_side(chosen["differences"][control]) == BETTER for control in self.controls)
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
            "verdict": [*verdict(chosen, best, self.controls, len(measured)), *_told(len(measured) - len(standing))],
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


def _told(stale: int) -> list[str]:
    """A sentence about stale candidates, if there are some."""
    if not stale:
        return []
    many = f"{stale} candidates of earlier calls were" if stale > 1 else "1 candidate of earlier calls was"
    return [
        f"{many} measured with images that were put aside or brought back since: stale, so not chosen, but counted"
        " by the correction. What is asked for again is measured anew."
    ]


def _side(difference: Mapping[str, Any] | None) -> str:
    """What a difference says: beyond its standard error on either side, or nothing. Too few seeds have no interval."""
    if difference is None or difference["low"] is None:
        return TOO_FEW
    if abs(difference["mean"]) <= difference["error"]:
        return UNTOLD
    return BETTER if difference["mean"] > 0 else WORSE


def words(row: Mapping[str, Any]) -> str:
    """A candidate in words."""
    return f"split {row['split']:g}, weights {row['weights']}, ratio {row['ratio']:g} ({row['images']} images)"


def verdict(
    chosen: Mapping[str, Any], best: Mapping[str, Any], controls: Mapping[str, tuple[int, Any]], count: int
) -> list[str]:
    """Sentences: what is chosen, and whether it is better than no synthetic images.

    Args:
        chosen: a row of the results.
        best: the row with the highest mean.
        controls: epochs and anything, by name; the first is the recipe as it is.
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
    return [*said, _conclusion(chosen["differences"], first, count)]


def _conclusion(differences: Mapping[str, Any], first: str, count: int) -> str:
    """The last sentence: by the first control that the chosen one is not better than, if there is one."""
    name = next((name for name, found in differences.items() if _side(found) != BETTER), None)
    if name is None:
        return f"It is called better, by the low bar of a standard error. {_corrected(differences, count)}"
    side = _side(differences[name])
    if side == TOO_FEW:
        return f"So it is not called better: fewer than {paired.FEWEST} seeds are too few to tell."
    control = "the recipe without synthetic images" if name == first else "more training steps on the real images alone"
    if side == WORSE:
        return f"So it is not called better: it is worse than {control}, by the low bar of a standard error."
    return f"So it is not called better: it cannot be told from {control}."


def _corrected(differences: Mapping[str, Any], count: int) -> str:
    """What is left at 95 %, where several were looked at after a correction for that."""
    held = sum(found["p_holm"] < 1 - paired.LEVEL for found in differences.values())
    left = (
        "holds"
        if held == len(differences)
        else f"holds against {held} of {len(differences)}"
        if held
        else "does not hold"
    )
    if count == 1:
        return f"At 95 % the difference {left}."
    return (
        f"The best of {count} candidates is lucky too: after Holm's correction for looking at {count} the difference"
        f" {left} at 95 %."
    )


def _percent(mean: Mapping[str, Any]) -> str:
    error = "" if mean["error"] is None else f" ± {mean['error']:.1f}"
    return f"{mean['mean']:.1f}{error} %"


def _against(found: Mapping[str, Any] | None, what: str) -> str:
    side = _side(found)
    if found is None or side == TOO_FEW:
        size = "" if found is None else f"{found['mean']:+.1f} points, but "
        return f"Against {what}: {size}fewer than {paired.FEWEST} seeds in common are too few to tell."
    size = f"Against {what}: {found['mean']:+.1f} ± {found['error']:.1f} points"
    if side == UNTOLD:
        return f"{size}, no more than its standard error, so it cannot be told from 0."
    inside = ", which contains 0" if found["low"] <= 0 <= found["high"] else ""
    interval = f"its 95 % interval is {found['low']:+.1f} to {found['high']:+.1f}{inside}."
    return f"{size}, {side} by more than its standard error; {interval}"
