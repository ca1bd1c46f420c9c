"""What `augkit synth allocate` chooses among, and what it refuses before anything is made."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from augkit.errors import AugkitError, DataError, DocumentError
from augkit.lab import folder as files
from augkit_diffusion.making import Order

if TYPE_CHECKING:
    from augkit.lab.data import Data
    from augkit.lab.recipe import Recipe

SETTINGS, RESULTS = "settings.json", "allocation.json"
SPLITS = (0.0, 0.3, 0.5)
WEIGHTS = ("class_count", "1", "1 / class_count")
"""In proportion to classes, all alike, inverse."""


class Candidate(NamedTuple):
    """One way to fill up."""

    split: float
    """Share of each class's real training images that only the source learns from; 0 has all in both."""
    weights: str
    ratio: float
    """Synthetic images for each real one."""

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"split{self.split:g}-ratio{self.ratio:g}-{_plain(self.weights)}"


@dataclass(frozen=True)
class Question:
    """What is chosen among; order and recipe are checked."""

    recipe: Recipe
    """Without a store's images, without images set apart."""
    order: Order
    """For the source; its recipe and folder are put in for each store."""
    splits: Sequence[float] | None
    """None leaves them to the source, see `splits_for`."""
    ratios: Sequence[float]
    weights: Sequence[str]
    seeds: Sequence[int]
    sources: Mapping[str, Any]
    """What the recipe's `sources` say besides: `share` or `replace`."""

    def recipe_of(self, candidate: Candidate | None, take: Any = None, folder: str | None = None) -> dict[str, Any]:
        """The recipe that a candidate, or the control, is trained by, as JSON."""
        own = self.recipe.model_dump(mode="json")
        if candidate is not None:
            own["sources"] = {**self.sources, "folder": folder, "tuning": candidate.split, "take": take}
        return own


@dataclass(frozen=True)
class Earlier:
    """What the last call in a folder judged, those before it included: the best of all that were looked at is lucky."""

    rows: Mapping[Candidate, Mapping[str, Any]]
    """As in `allocation.json`; `values` has the accuracies by seed."""
    epochs: int
    """Of the longest training without synthetic images."""

    @classmethod
    def read(cls, out: Path) -> Earlier:
        """Empty for a folder where nothing was judged yet.

        Raises:
            DataError: what was judged cannot be read.
        """
        path = out / RESULTS
        if not path.exists():
            return cls({}, 0)
        found = read_json(path)
        try:
            names = ("split", "weights", "ratio", "images", "take", "store", "values")
            # before gaps were noted, nothing told which images were missing: only a full set is known to be the same
            rows = [{name: row[name] for name in names} | {"gaps": row.get("gaps", "")} for row in found["candidates"]]
            known = {Candidate(row["split"], row["weights"], row["ratio"]): row for row in rows}
            return cls(known, max(control["epochs"] for control in found["controls"].values()))
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(path) from error


def read_json(path: Path) -> dict[str, Any]:
    """What a file of a choice says.

    Raises:
        DataError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> DataError:
    return DataError("damaged, or not of this verb; put it back, or choose another folder with --out", file=path)


def check_ratios(ratios: Sequence[float], real: int) -> None:
    """Raise unless each ratio makes an image.

    Raises:
        AugkitError: one makes none.
    """
    none = next((ratio for ratio in ratios if round(ratio * real) < 1), None)
    if none is not None:
        raise AugkitError(
            f"--ratios {none:g}: of {real} real images that is no synthetic image; say {1 / real:.2g} or more"
        )


def check_validation(data: Data) -> None:
    """Raise unless every class has validation images.

    Raises:
        DocumentError: nothing, or too little, is held out.
    """
    advice = "say data.validation_per_class, such as --set data.validation_per_class=20"
    if data.val is None:
        raise DocumentError(f"validation images choose, and none are held out: {advice}", path="data")
    seen = data.val.labels.cpu().bincount(minlength=data.num_classes)
    if int(seen.min()) == 0:
        name = data.class_names[int(seen.argmin())]
        raise DocumentError(
            f'class "{name}" has no validation image, so that none chooses for it: {advice}', path="data"
        )


def check_folder(out: Path) -> None:
    """Raise unless a choice may be written or gone on with there; nothing is written."""
    if out.exists() and not out.is_dir():
        raise DataError("the place of the choice is taken by a file; choose another with --out", file=out)
    if files.contents(out) and not (out / SETTINGS).exists():
        raise DataError("this folder holds something else; choose another with --out", file=out)


def splits_for(source: Any, name: str, asked: Sequence[float] | None) -> list[float]:
    """The splits that are tried.

    Raises:
        AugkitError: the source learns from no real image, so that setting some apart would only lose them.
    """
    if getattr(source, "from_real", True):
        return list(asked if asked is not None else SPLITS)
    if asked is not None and any(asked):
        raise AugkitError(
            f'source "{name}" learns from no real image, so none need be set apart for it: say --splits 0'
        )
    return [0.0]


def _plain(text: str) -> str:
    """An expression as a part of a file's name: `1 / class_count` as `1-class_count-1f2e3d`."""
    short = "-".join(re.findall(r"[A-Za-z0-9_.]+", text))[:40]
    return short if short == text else f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
