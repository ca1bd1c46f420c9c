"""A look at a store: one page of pictures and figures that tell what its images are worth."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import DataError
from augkit.lab import folder as files
from augkit_diffusion import filters, near_copies, telling_apart
from augkit_diffusion.evidence import Evidence
from augkit_diffusion.filters import FILTERS
from augkit_diffusion.manifest import SCORE
from augkit_diffusion.store import REFUSED, Store

FOLDER, PAGE, RESULTS = "look", "index.html", "results.json"
SHOWN, SHOWN_REJECTED, PAIRS = 8, 4, 12
SHEETS = 100
"""Classes whose images are shown, those with the fewest real images first."""
COMPARED = 5000
"""Training images that are compared with all others, spread over all of them."""
COPY = 0.98
"""Likeness of a near-copy."""
NEAR = (0.9, 0.95, COPY, 0.99)


def write(store: Store, evidence: Evidence, method: str = "tsne") -> Path:
    """Write `look/index.html`, its pictures and `look/results.json` into a store; returns the page.

    Args:
        store: open and claimed (`writing`).
        evidence: of its images, rejected ones included.
        method: of the map, `tsne` or `pca`.

    Raises:
        DataError: no image is kept, or the page cannot be written.
    """
    from augkit_diffusion import look_pictures as pictures

    seen = Seen(store, evidence)
    results = facts(seen)
    place, made = store.parts / "page", store.folder / FOLDER
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        drawn = pictures.draw(seen, results, place, method)
        files.write_json(place / RESULTS, results)
        files.write(place / PAGE, page(results, drawn))
        shutil.rmtree(made, ignore_errors=True)
        place.rename(made)
    except OSError as error:
        raise DataError(f"the page cannot be written ({error.strerror or error})", file=made) from error
    return made / PAGE


class Seen:
    """A store's whole images and which of them are kept, beside the real ones."""

    def __init__(self, store: Store, evidence: Evidence) -> None:
        self.store, self.evidence = store, evidence
        rejected_by = {row["file"]: row["rejected_by"] for row in evidence.rows}
        self.rejected_by = [rejected_by[file] for file in evidence.files]
        self.kept = np.array([name is None for name in self.rejected_by], bool)
        if not self.kept.any():
            raise DataError(
                "no image of this store is kept: make some, or take filters back with augkit synth filter --undo all",
                file=store.folder,
            )
        self.similar, self.similar_to = evidence.copies
        """Of each whole image: how near the nearest training image is, and its place among the real ones."""

    @cached_property
    def _compared(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of some training images, and how like each is to the one of the others that it is most like."""
        real = self.evidence.real
        some = telling_apart.spread(np.arange(len(real)), min(COMPARED, len(real)))
        found = near_copies.likest(real.small[some], real.small, real.pixels[some], real.pixels, own=some)[0]
        return some[np.isfinite(found)], found[np.isfinite(found)]

    @property
    def among(self) -> np.ndarray:
        """[n] how like training images are to the nearest other one; of at most `COMPARED`."""
        return self._compared[1]

    def among_of(self, label: int) -> np.ndarray:
        """The same of one class."""
        places, likeness = self._compared
        return np.asarray(likeness[self.evidence.real_labels[places] == label])

    @property
    def classes(self) -> list[int]:
        """Most real images first."""
        count = np.bincount(self.evidence.real_labels, minlength=len(self.store.class_names))
        return sorted(range(len(count)), key=lambda label: (-count[label], label))

    def made(self, label: int, *, kept: bool) -> np.ndarray:
        """Places of a class's whole images."""
        return np.flatnonzero((self.evidence.labels == label) & (self.kept == kept))

    def real(self, label: int) -> np.ndarray:
        """Places of its real ones."""
        return np.flatnonzero(self.evidence.real_labels == label)

    @property
    def pairs(self) -> list[int]:
        """Kept images that are most like a training image: the first of each class before the second of any."""
        places = np.flatnonzero(self.kept)
        order = places[np.argsort(-self.similar[places], kind="stable")].tolist()
        seen: Counter[int] = Counter()
        rank = {}
        for place in order:
            rank[place] = seen[int(self.evidence.labels[place])]
            seen[int(self.evidence.labels[place])] += 1
        return sorted(order, key=lambda place: rank[place])[:PAIRS]


def facts(seen: Seen) -> dict[str, Any]:
    """All figures of the page, as JSON values."""
    store, evidence = seen.store, seen.evidence
    rows = _counts(seen)
    total = {name: sum(row[name] for row in rows) for name in ("real", "kept", "rejected", "refused")}
    return {
        "augkit_look": 1,
        "store": str(store.folder),
        "settings": {key: value for key, value in store.settings.items() if key != "data"},
        "viewer": {"words": evidence.viewer.words, **evidence.viewer.told},
        "classifier": evidence.classifier,
        "total": total,
        "classes": rows,
        "filters": _filters(seen),
        "others": _others(seen),
        "domain": domain(seen),
        "control": control(seen),
        "near": _near(seen),
        "pairs": _pairs(seen),
    }


def _counts(seen: Seen) -> list[dict[str, Any]]:
    """A row a class, most real images first."""
    store, evidence = seen.store, seen.evidence
    refused = Counter(row["class"] for row in store.manifest().to_pylist() if row["rejected_by"] == REFUSED)
    kept = Counter(row["class"] for row in evidence.rows if row["rejected_by"] is None)
    all_of_them = Counter(row["class"] for row in evidence.rows)
    right = evidence.chances.argmax(1) == evidence.labels
    rows = []
    for label in seen.classes:
        name, own = store.class_names[label], seen.made(label, kept=True)
        rows.append(
            {
                "class": name,
                "real": len(seen.real(label)),
                "kept": kept[name],
                "rejected": all_of_them[name] - kept[name],
                "refused": refused[name],
                "agree": _share(right[own]),
                "copies": _share(seen.similar[own] >= COPY),
                "twins": _share(seen.among_of(label) >= COPY),
            }
        )
    return rows


def _share(true: np.ndarray) -> float | None:
    return float(true.mean()) if len(true) else None


def _filters(seen: Seen) -> list[dict[str, Any]]:
    """A row for each filter that has scored images, in their order."""
    plan = filters.read(seen.store.folder).plan
    rejected = Counter(row["rejected_by"] for row in seen.evidence.rows)
    found = []
    for name, one in FILTERS.items():
        scored = sum(row.get(SCORE + name) is not None for row in seen.evidence.rows)
        if (scored and name != "broken") or rejected[name]:
            found.append(
                {
                    "name": name,
                    "rejects": one.what,
                    "score": one.score,
                    "options": plan.get(name, {}),
                    "limit": None if one.option == "keep" else plan.get(name, {}).get("limit", one.limit),
                    "active": name in plan,
                    "scored": scored,
                    "rejected": rejected[name],
                }
            )
    return found


def _others(seen: Seen) -> dict[str, int]:
    """What else rejected images."""
    names = Counter(row["rejected_by"] for row in seen.evidence.rows if row["rejected_by"] is not None)
    return {name: count for name, count in sorted(names.items()) if name not in FILTERS}


def domain(seen: Seen) -> dict[str, Any] | None:
    """How well real and kept synthetic images are told apart."""
    evidence, kept = seen.evidence, seen.kept
    found = telling_apart.tell_apart(
        evidence.real.features, evidence.real_labels, evidence.made.features[kept], evidence.labels[kept]
    )
    if found is None:
        return None
    right, classes, inflation = found
    names = seen.store.class_names
    by_class = [
        {"class": names[label], **telling_apart.told(right[classes == label], inflation).facts()}
        for label in seen.classes
        if (classes == label).any()
    ]
    return {**telling_apart.told(right, inflation).facts(), "by_class": by_class}


def control(seen: Seen) -> dict[str, Any] | None:
    """The same of training images and validation images, which are real too; None where there are none.

    Nothing is chosen by it. A network knows the images that it learnt from, so these look unlike any others to it.
    """
    from augkit_diffusion.features import looks

    evidence, val = seen.evidence, seen.evidence.data.val
    if val is None:
        return None
    import torch

    positions = list(torch.split(torch.arange(len(val), device=val.labels.device), 256))
    viewed = looks(evidence.viewer, val.batches(positions))
    found = telling_apart.tell_apart(
        evidence.real.features, evidence.real_labels, viewed.features, val.labels.cpu().numpy()
    )
    return None if found is None else telling_apart.told(found[0], found[2]).facts()


def _near(seen: Seen) -> dict[str, Any]:
    """How many images have a training image that near; for real ones, another one."""
    among, made = seen.among, seen.similar[seen.kept]
    rows = [
        {
            "at_least": limit,
            "synthetic": float((made >= limit).mean()),
            "real": _share(among >= limit),
        }
        for limit in NEAR
    ]
    return {
        "shares": rows,
        "median": {"synthetic": float(np.median(made)), "real": float(np.median(among)) if len(among) else None},
    }


def _pairs(seen: Seen) -> list[dict[str, Any]]:
    from augkit_diffusion.making import source_image

    evidence, names = seen.evidence, seen.store.class_names
    found = []
    for place in seen.pairs:
        row = int(evidence.real_rows[seen.similar_to[place]])
        label = int(evidence.real_labels[seen.similar_to[place]])
        found.append(
            {
                "file": evidence.files[place],
                "training_image": source_image(evidence.data, row),
                "class": names[label],
                "correlation": float(seen.similar[place]),
            }
        )
    return found


def page(results: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """The page of these figures; prompts and names are text there, whatever they say."""
    from augkit.report.page import render

    facts = {"results": results, "pictures": pictures, "percent": _percent, "plain": _plain}
    return render("look.html.j2", facts, package="augkit_diffusion")


def _percent(share: float | None, decimals: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{decimals}f} %"


def _plain(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in options.items() if value)
