"""Replacement tests: how well a model does when synthetic images stand in for real ones.

A variant replaces a share of the training images of some classes, all else being as it was: as many images of each
class, the same validation and test images, and for each seed the same training. Which images go is the same for every
seed, and those of a smaller share are among those of a larger one. Class-wise replacement takes all images of some
classes, instance-wise replacement a share of those of all.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkit.errors import AugkitError, DataError, StateError, nearest
from augkit.lab import folder as files
from augkit_diffusion import features
from augkit_diffusion.store import Store

if TYPE_CHECKING:
    from augkit.lab.data import Data, Split
    from augkit.lab.jobs import Result
    from augkit.lab.recipe import Recipe

CONTROL = "real"
SETTINGS, DATA, RUNS, DONE, LOGS, RESULTS = "replace.json", "data", "runs", "done", "logs", "results.json"
COLUMNS = ("all", "many", "medium", "few")


@dataclass(frozen=True)
class Variant:
    """What is replaced."""

    name: str
    labels: tuple[int, ...]
    """Classes."""
    share: float
    """Of the training images of each of them."""
    drop: bool = False
    """Whether the images are left out instead."""


def variants(words: Sequence[str], shares: Sequence[float], left_out: bool, data: Data) -> list[Variant]:
    """The variants of a command line: each of `words` with each of `shares`.

    Args:
        words: `many`, `medium`, `few`, `all`, or names of classes with commas between. Without any: those of the first
            three that the data have.
        shares: greater than 0, at most 1.
        left_out: whether each share below 1 comes a second time with the images left out.
        data: real images.

    Raises:
        AugkitError: there is no such class, or no class in a group.
    """
    from augkit.lab.metrics import GROUPS, group_of

    groups = group_of(data.real_counts)
    found = []
    for word in words or [group for group in GROUPS if group in groups]:
        labels = _labels(word, groups, data.class_names)
        for share in shares:
            name = f"{word} {share:.0%}"
            found.append(Variant(name, labels, share))
            if left_out and share < 1:
                found.append(Variant(f"{name} left out", labels, share, drop=True))
    names = [variant.name for variant in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AugkitError(f'"{twice}" is asked for twice')
    return found


def _labels(word: str, groups: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    if word == "all":
        return tuple(range(len(names)))
    if word in ("many", "medium", "few"):
        chosen = tuple(label for label, group in enumerate(groups) if group == word)
        if not chosen:
            raise AugkitError(f'--classes {word}: no class of these data is in the group "{word}"')
        return chosen
    chosen = ()
    for name in (part.strip() for part in word.split(",")):
        if name not in names:
            raise AugkitError(
                f'--classes: there is no class "{name}".{nearest(name, ["many", "medium", "few", "all", *names])}'
            )
        chosen += (list(names).index(name),)
    return tuple(dict.fromkeys(chosen))


@dataclass(frozen=True)
class Images:
    """Real and synthetic images in the training's size."""

    data: Data
    made: Mapping[int, Sequence[Path]]
    """Files of the kept images of each class, by number."""

    def of(self, variant: Variant | None) -> dict[str, np.ndarray]:
        """The arrays of a data set; of the real images alone without a variant.

        Raises:
            DataError: a class has too few synthetic images.
        """
        train = self.data.train
        images, labels = _array(train), train.labels.cpu().numpy()
        stays = ~self.data.synthetic
        for label in variant.labels if variant is not None else ():
            assert variant is not None
            gone = _chosen(np.flatnonzero((labels == label) & ~self.data.synthetic), label, variant.share)
            if variant.drop:
                stays[gone] = False
            else:
                images[gone] = self._synthetic(label, len(gone))
        found = {"class_names": np.array(self.data.class_names)}
        for name, split in (("train", train), ("val", self.data.val), ("test", self.data.test)):
            if split is None:
                continue
            kept = stays if name == "train" else np.ones(len(split), bool)
            found[f"{name}_images"] = (images if name == "train" else _array(split))[kept]
            found[f"{name}_labels"] = split.labels.cpu().numpy()[kept]
            if split.groups is not None:
                found[f"{name}_groups"] = split.groups.cpu().numpy()[kept]
                found["group_names"] = np.array(self.data.group_names)
        return found

    def _synthetic(self, label: int, count: int) -> np.ndarray:
        paths = self.made[label][:count]
        if len(paths) < count:
            raise DataError(
                f'class "{self.data.class_names[label]}" has {len(paths)} synthetic images for {count} real ones that'
                " are to be replaced: make more (augkit synth make --target 'class_count * 2'), or replace a smaller"
                " --share"
            )
        read = [features.read(path, self.data.train.size) for path in paths]
        broken = [path for path, image in zip(paths, read, strict=True) if image is None]
        if broken:
            raise DataError("the image is broken; filter the store first (augkit synth filter)", file=broken[0])
        return np.stack([image.numpy().transpose(1, 2, 0) for image in read if image is not None])


def _array(split: Split) -> np.ndarray:
    """[N, H, W, 3] uint8, a copy."""
    if split.held is None:
        raise DataError("a replacement test needs the data in memory: raise data.memory, or lower data.image_size")
    return np.ascontiguousarray(split.held.permute(0, 2, 3, 1).cpu().numpy())


def _chosen(rows: np.ndarray, label: int, share: float) -> np.ndarray:
    """Which rows go: the first of an order of their own."""
    order = np.random.Philox(key=[label, 0x5E71]).random_raw(len(rows))
    return np.asarray(rows[np.argsort(order, kind="stable")[: round(share * len(rows))]])


def opened(store: Store, recipe: Recipe) -> Images:
    """The recipe's real images, and the store's kept ones.

    Raises:
        DataError: the store's classes are others, or it was made from images that would validate or test.
    """
    from augkit.lab import data as lab_data
    from augkit.lab import seen

    data = lab_data.load(recipe.data)
    if tuple(data.class_names) != store.class_names:
        raise DataError("this store was made for other classes than those of the recipe", file=store.folder)
    seen.check(store.folder, data)
    made: dict[int, list[Path]] = {label: [] for label in range(data.num_classes)}
    for row in store.images():
        made[store.class_names.index(row["class"])].append(store.path(row))
    return Images(data, made)


@dataclass(frozen=True)
class Test:
    """A replacement test: its recipe, variants and seeds."""

    recipe: Recipe
    variants: Sequence[Variant]
    seeds: Sequence[int]

    def run(
        self, images: Images, out: Path, jobs: int, on: str, say: Callable[[str], None] = lambda line: None
    ) -> dict[str, Any]:
        """Train what is missing; what `results.json` holds.

        Raises:
            StateError: the folder holds another test.
            DataError: it holds something else, or a class has too few synthetic images.
        """
        from augkit.lab import jobs as spread

        if files.contents(out) and not (out / SETTINGS).exists():
            raise DataError("this folder holds something else; choose another with --out", file=out)
        arrays = {name: images.of(variant) for name, variant in self._named}
        settings = {
            "recipe": self.recipe.model_dump(mode="json"),
            "variants": [asdict(variant) for variant in self.variants],
            "seeds": list(self.seeds),
            "data_sha256": {name: _sha256(one) for name, one in arrays.items()},
        }
        with files.claim(out):
            self._settle(out, json.loads(json.dumps(settings)))
            (out / DATA).mkdir(exist_ok=True)
            for name, one in arrays.items():
                files.write(out / DATA / f"{_file(name)}.npz", _packed(one))
            tasks = [self._task(name, seed, out) for seed in self.seeds for name, _ in self._named]
            done = spread.map(
                tasks,
                on,
                jobs,
                record=out / DONE,
                logs=out / LOGS,
                retry=True,
                done=lambda result: say(_line(result)),
            )
            results = self._results(images, out, {result.name: result for result in done})
            files.write_json(out / RESULTS, results)
        return results

    @property
    def _named(self) -> list[tuple[str, Variant | None]]:
        return [(CONTROL, None), *((variant.name, variant) for variant in self.variants)]

    def _settle(self, out: Path, settings: Mapping[str, Any]) -> None:
        if not (out / SETTINGS).exists():
            files.write_json(out / SETTINGS, settings)
            return
        there = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        differing = [name for name in settings if there.get(name) != settings[name]]
        if differing:
            raise StateError(
                f"this test was begun with other {' and '.join(differing)} (data_sha256: images of the recipe or the"
                " store); choose another folder with --out",
                file=out,
            )

    def _task(self, name: str, seed: int, out: Path) -> Any:
        from augkit.lab.jobs import Task

        source = {"source": str((out / DATA / f"{_file(name)}.npz").absolute())}
        data = self.recipe.data
        own = data.model_dump(mode="json") | source | {"imbalance": None, "validation": 0.0, "validation_per_class": 0}
        own.pop("groups", None)
        recipe = self.recipe.model_dump(mode="json") | {"seed": seed, "data": own}
        run = f"{_file(name)}-seed{seed}"
        return Task(run, "augkit.lab.grid:run_one", {"recipe": recipe}, {"folder": str((out / RUNS / run).absolute())})

    def _results(self, images: Images, out: Path, done: Mapping[str, Result]) -> dict[str, Any]:
        """A row for each variant, compared with the real images seed by seed."""
        scores = {
            name: {
                seed: _scores(out / RUNS / run)
                for seed in self.seeds
                if not done[run := f"{_file(name)}-seed{seed}"].failed
            }
            for name, _ in self._named
        }
        rows = [_row(name, variant, scores, images.data) for name, variant in self._named]
        failed = {name: result.reason for name, result in done.items() if result.failed}
        return {
            "recipe": self.recipe.name,
            "seeds": list(self.seeds),
            "measured": "last epoch; the test set is read once, after it",
            "unit": "percent and percentage points",
            "rows": rows,
            "failed": failed,
        }


def _scores(folder: Path) -> dict[str, Any]:
    """Of a finished run: accuracies in percent, and of each class the numbers of right answers and of images."""
    summary = json.loads((folder / files.SUMMARY).read_text(encoding="utf-8"))
    with (folder / files.PER_CLASS).open(encoding="utf-8") as file:
        classes = [(int(row["correct"]), int(row["test_images"])) for row in csv.DictReader(file)]
    return {**{k: None if v is None else 100 * v for k, v in summary["test"].items()}, "classes": classes}


def _row(
    name: str, variant: Variant | None, scores: Mapping[str, Mapping[int, dict[str, Any]]], data: Data
) -> dict[str, Any]:
    from augkit.lab import paired

    own, control = scores[name], scores[CONTROL]
    row: dict[str, Any] = {"variant": name, "replaced_images": 0, "seeds": list(own)}
    for column in COLUMNS:
        values = [one[column] for one in own.values() if one[column] is not None]
        row[column] = asdict(paired.mean(values)) if values else None
    row["difference"] = row["in_replaced"] = row["in_others"] = None
    if variant is None:
        return row
    counts = data.real_counts.tolist()
    row["replaced_images"] = sum(round(variant.share * counts[label]) for label in variant.labels)
    others = tuple(label for label in range(data.num_classes) if label not in variant.labels)
    measures: dict[str, Callable[[dict[str, Any]], float]] = {"difference": lambda one: float(one["all"])}
    measures["in_replaced"] = lambda one: _mean_of(one, variant.labels)
    if others:
        measures["in_others"] = lambda one: _mean_of(one, others)
    both = [seed for seed in own if seed in control]
    for measure, function in measures.items() if both else ():
        found = paired.difference([function(own[s]) for s in both], [function(control[s]) for s in both])
        row[measure] = {**asdict(found), "verdict": found.words(CONTROL)}
    return row


def _mean_of(scores: Mapping[str, Any], labels: Sequence[int]) -> float:
    """The mean accuracy in percent of some classes, of those that have test images."""
    found = [100 * correct / seen for correct, seen in (scores["classes"][label] for label in labels) if seen]
    return sum(found) / len(found) if found else 0.0


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    named: Any = dict(arrays)  # numpy's stub takes them for its own options
    np.savez(buffer, **named)
    return buffer.getvalue()


def _sha256(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.shape} {array.dtype}\0".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _file(name: str) -> str:
    """A name of a variant as one of files: `few 50% left out` as `few-50-left-out`."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.replace("%", ""))
    unclear = any(not (c.isascii() and c.isalnum()) for c in name.replace("%", "").replace(" ", ""))
    return f"{plain[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}" if unclear or len(plain) > 60 else plain


def _line(result: Result) -> str:
    what = f"failed: {result.reason}" if result.failed else f"test {100 * result.value['test']['all']:.1f} %"
    return f"{result.name}  {what}, {result.seconds / 60:.1f} min"
