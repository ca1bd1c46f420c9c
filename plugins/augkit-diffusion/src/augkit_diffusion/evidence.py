"""What is known of a store's images beside the real ones that it was made for, and the scores that come of it.

The real images are the training images that the store's recipe chose, and never those for validation or test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkit.errors import DataError
from augkit_diffusion import features, near_copies
from augkit_diffusion.filters import DECIMALS, Plan
from augkit_diffusion.manifest import Row
from augkit_diffusion.near_copies import CHUNK, nearest
from augkit_diffusion.store import Store

if TYPE_CHECKING:
    from augkit.lab.data import Data
    from augkit.lab.recipe import Recipe

PROBED = 500
"""Real images of a class that a linear classifier learns from, at most."""
Progress = Callable[[str, int, int], None]


@dataclass
class Evidence:
    """A store's images, seen by a viewer beside the real ones; what is not asked for is not computed."""

    store: Store
    rows: Sequence[Row]
    """Of all images that were not refused."""
    run: Path | None = None
    model: str | None = None
    weights: Path | None = None
    progress: Progress = lambda what, done, of: None

    @cached_property
    def recipe(self) -> Recipe | None:
        """Of the run."""
        return None if self.run is None else features.recipe_of_run(self.run)

    @cached_property
    def data(self) -> Data:
        """What the store was made for, in the size that the run takes."""
        return real_data(self.store, None if self.recipe is None else self.recipe.data.image_size)

    @cached_property
    def viewer(self) -> features.Viewer:
        """Who looks."""
        if self.run is None and self.model is None:
            return features.Pixels()
        return features.open_viewer(self.data, self.recipe, self.run, self.model, self.weights)

    @property
    def size(self) -> int:
        """Of images that are looked at, in pixels."""
        if self.run is None:
            return int(self.store.settings["data"]["image_size"])
        return self.data.train.size

    @cached_property
    def _seen(self) -> tuple[features.Looks, np.ndarray]:
        paths = [self.store.path(row) for row in self.rows]
        return features.of_files(self.viewer, paths, self.size, lambda done, of: self.progress("looking", done, of))

    @property
    def made(self) -> features.Looks:
        """The images of the store that are whole."""
        return self._seen[0]

    @property
    def whole(self) -> np.ndarray:
        """[rows] bool."""
        return self._seen[1]

    @cached_property
    def files(self) -> list[str]:
        """Of `made`."""
        return [row["file"] for row, whole in zip(self.rows, self.whole, strict=True) if whole]

    @cached_property
    def labels(self) -> np.ndarray:
        """[N] int64 of `made`."""
        number = {name: i for i, name in enumerate(self.store.class_names)}
        return np.array([number[r["class"]] for r, whole in zip(self.rows, self.whole, strict=True) if whole], np.int64)

    @cached_property
    def real_rows(self) -> np.ndarray:
        """[M] positions in `data.train` of the images that are real."""
        return np.flatnonzero(~self.data.synthetic)

    @cached_property
    def real_labels(self) -> np.ndarray:
        """[M] int64."""
        found: np.ndarray = self.data.train.labels.cpu().numpy()[self.real_rows]
        return found

    @cached_property
    def real(self) -> features.Looks:
        """The real training images."""
        return features.of_training(
            self.viewer, self.data, self.real_rows, lambda done, of: self.progress("looking at real images", done, of)
        )

    @cached_property
    def chances(self) -> np.ndarray:
        """[N, C] float64 probabilities of classes for `made`: the network's, or of a linear classifier on features
        that learnt from the real images, each class as important as another."""
        if self.made.logits is not None:
            logits = self.made.logits.astype(np.float64)
            scaled = np.exp(logits - logits.max(1, keepdims=True))
            return np.asarray(scaled / scaled.sum(1, keepdims=True))
        return probe(self.real.features, self.real_labels, self.made.features, len(self.store.class_names))

    @cached_property
    def copies(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each of `made` the likeness of the training image that it is most like, and that one's place in `real`."""
        return near_copies.likest(self.made.small, self.real.small, self.made.pixels, self.real.pixels)

    @property
    def classifier(self) -> str:
        """Who says which class an image is of."""
        who = self.viewer.words
        return who if getattr(self.viewer, "classes", None) is not None else f"a linear classifier on {who}"

    def scores(self, plan: Plan) -> dict[str, dict[str, float]]:
        """What the filters of a plan think of each image, by filter and file."""
        return {name: _SCORES[name](self, options) for name, options in plan.items()}

    def by_file(self, values: np.ndarray) -> dict[str, float]:
        """Rounded; images without a value are left out."""
        return {
            file: round(float(value), DECIMALS) + 0.0
            for file, value in zip(self.files, values, strict=True)
            if not np.isnan(value)
        }


def real_data(store: Store, size: int | None = None) -> Data:
    """The real images that a store was made for, without those that its recipe kept from its source.

    Args:
        store: its settings say which.
        size: in pixels, if another one than the store's is wanted.

    Raises:
        DataError: they cannot be read, or are others now.
    """
    from augkit.lab import data as lab_data
    from augkit.lab.recipe_parts import DataRecipe, SourcesRecipe
    from augkit_diffusion.making import data_facts

    told = store.settings["told"]
    recipe = DataRecipe.model_validate_json(json.dumps(told["data"]))
    sources = SourcesRecipe(tuning=told.get("tuning", 0.0))
    recipe = recipe.model_copy(update={"image_size": size}) if size is not None else recipe
    data = lab_data.load(recipe, sources=sources).for_sources
    here, there = data_facts(data), store.settings["data"]
    differing = [name for name in there if name != "image_size" and here.get(name) != there[name]]
    if differing:
        raise DataError(
            f'the real images that this store was made for ("{recipe.source}") are others now: put them back'
            f" (differing: {', '.join(differing)})",
            file=store.folder,
        )
    return data


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def probe(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """[N, C] float64 probabilities of a linear classifier (logistic regression, classes weighted alike).

    It learns from at most `PROBED` images of each class, the first ones.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:PROBED] for c in range(classes)]))
    found = np.zeros((len(asked), classes))
    seen = np.unique(labels[chosen])
    if len(seen) == 1 or not len(asked):
        found[:, seen] = 1
        return found
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
    model.fit(known[chosen], labels[chosen])
    found[:, seen] = model.predict_proba(asked)
    return found


def _broken(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    return {row["file"]: float(not whole) for row, whole in zip(evidence.rows, evidence.whole, strict=True)}


def _blank(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    return evidence.by_file(evidence.made.spread)


def _near_duplicate(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    return evidence.by_file(evidence.copies[0])


def _repeat(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    """With earlier images of its class; the first of a class has no such, and no score."""
    found = np.full(len(evidence.made), np.nan, np.float32)
    for label in np.unique(evidence.labels):
        own = np.flatnonzero(evidence.labels == label)
        pixels = evidence.made.pixels[own]
        for begin in range(0, len(own), CHUNK):
            products = pixels[begin : begin + CHUNK] @ pixels.T
            earlier = np.arange(len(own))[None, :] < (begin + np.arange(len(products)))[:, None]
            best = np.where(earlier, products, -np.inf).max(1)
            found[own[begin : begin + CHUNK]] = np.where(np.isfinite(best), best, np.nan)
    return evidence.by_file(found)


def _agree(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    chances, at = evidence.chances.copy(), np.arange(len(evidence.made))
    own = chances[at, evidence.labels]
    chances[at, evidence.labels] = -np.inf
    rival = chances.max(1) if chances.shape[1] > 1 else np.zeros(len(own))
    return evidence.by_file(own - rival)


def _cosine(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    """With the mean of its class's real images, or on average with the `nearest` of them."""
    made, real, count = unit(evidence.made.features), unit(evidence.real.features), options.get("nearest", 0)
    found = np.full(len(made), np.nan, np.float32)
    for label in np.unique(evidence.labels):
        own, its = evidence.labels == label, real[evidence.real_labels == label]
        if len(its) and count:
            found[own] = nearest(made[own], its, min(count, len(its)))[0].mean(1)
        elif len(its):
            found[own] = made[own] @ unit(its.mean(0))
    return evidence.by_file(found)


def _entropy(evidence: Evidence, options: Mapping[str, Any]) -> dict[str, float]:
    chances = evidence.chances
    return evidence.by_file(-(chances * np.log(np.maximum(chances, 1e-300))).sum(1))


_SCORES: Mapping[str, Callable[[Evidence, Mapping[str, Any]], dict[str, float]]] = {
    "broken": _broken,
    "blank": _blank,
    "near_duplicate": _near_duplicate,
    "repeat": _repeat,
    "agree": _agree,
    "cosine": _cosine,
    "entropy": _entropy,
}
