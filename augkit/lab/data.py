"""Data for a run: splits, long-tailed subsets, and batches whose order is a function of seed and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augkit.errors import DataError
from augkit.lab import seen
from augkit.lab.artificial import with_borders
from augkit.lab.attribute_sets import Choice
from augkit.lab.readers import Arrays, Joined, Reader, Source
from augkit.lab.recipe_parts import DataRecipe, SourcesRecipe
from augkit.lab.sources import open_source
from augkit.lab.subsets import apart, correlated, hold_out, index_hash, long_tailed, spare
from augkit.lab.synthetic import Added, open_added

NO_GROUPS = (
    "the groups of the training images are not known: say data.groups: folder, or give a groups.csv or train_groups (or"
    " say data.groups: border, which makes some up)"
)


@dataclass(frozen=True)
class Split:
    """Images of one split: held as one uint8 tensor [N, 3, H, W], on the device or mapped from a file, or read when
    asked for."""

    labels: Tensor
    """[N] int64, on the device."""
    held: Tensor | None
    reader: Reader
    rows: np.ndarray
    """[N] positions in the source's split."""
    size: int
    groups: Tensor | None = None
    """[N] int64, on the device: the group of each image, if the source says so."""
    is_synthetic: Tensor | None = None
    """[N] bool, on the device, of training images."""

    def __len__(self) -> int:
        return len(self.rows)

    def companions(self, where: Tensor) -> dict[str, Tensor]:
        """What a policy is told of the images at some positions [B] beside their labels, by name."""
        told = {"group": self.groups, "is_synthetic": self.is_synthetic}
        return {"index": where, **{name: known[where] for name, known in told.items() if known is not None}}

    def batches(self, positions: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images [B, 3, H, W] uint8 on the device for each batch of positions ([B] int64 on the device)."""
        if self.held is not None:
            for where in positions:
                yield self.held[where.to(self.held.device)].to(self.labels.device)
            return
        with ThreadPoolExecutor() as readers, ThreadPoolExecutor(1) as ahead:
            pending: Future[Tensor] | None = None
            for step, where in enumerate(positions):
                images = pending.result() if pending else self._read(where, readers)
                if step + 1 < len(positions):
                    pending = ahead.submit(self._read, positions[step + 1], readers)
                yield images.to(self.labels.device, non_blocking=True)

    def _read(self, where: Tensor, readers: ThreadPoolExecutor) -> Tensor:
        rows = self.rows[where.cpu().numpy()]
        return torch.stack(list(readers.map(lambda row: fit(self.reader.read(int(row)), self.size), rows)))


@dataclass(frozen=True)
class Data:
    """What a run trains and is measured on. `val` is None when nothing was held out."""

    train: Split
    val: Split | None
    test: Split
    class_names: tuple[str, ...]
    class_counts: Tensor
    """[classes] int64, on the CPU: training images, after everything held out was taken away."""
    subset_sha256: str
    """Of the chosen training indices before validation is held out: sorted int64, little-endian; without those that a
    recipe's `sources` add."""
    synthetic: np.ndarray
    """[N] bool: which training images were generated; none, unless the source says so or `sources` add some."""
    group_names: tuple[str, ...] = ()
    """Of the groups of all splits; empty if the source knows none."""
    added_sha256: str = ""
    """Of the names and sizes of the files that a recipe's `sources` add."""
    tuning: Split | None = None
    """What makes synthetic images learns from these and no others, and nothing trains on them; None if the recipe's
    `sources` set nothing apart, and it learns from `train`. The one image of a class that has no other is in both."""

    @property
    def for_sources(self) -> Data:
        """The same with the images that sources learn from as training images."""
        if self.tuning is None:
            return self
        counts = torch.bincount(self.tuning.labels.cpu(), minlength=self.num_classes)
        return replace(
            self, train=self.tuning, class_counts=counts, synthetic=np.zeros(len(self.tuning), bool), tuning=None
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def real_counts(self) -> Tensor:
        """[classes] int64, on the CPU: training images that are not synthetic; they make a class a frequent one."""
        real = self.train.labels.cpu()[~torch.from_numpy(self.synthetic)]
        return torch.bincount(real, minlength=self.num_classes)

    @property
    def labels_sha256(self) -> str:
        """Of the labels of train, validation and test images in their order: int64, little-endian, each after its
        number of images; their groups, which are synthetic, and the files that were added, if any. It tells data that
        changed under the same indices."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            labels = split.labels.cpu().numpy() if split is not None else np.empty(0, np.int64)
            digest.update(np.concatenate([[len(labels)], labels]).astype("<i8").tobytes())
            if split is not None and split.groups is not None:
                digest.update(b"groups" + split.groups.cpu().numpy().astype("<i8").tobytes())
        if self.synthetic.any():
            digest.update(np.packbits(self.synthetic).tobytes())
        digest.update(self.added_sha256.encode())
        return digest.hexdigest()


def load(recipe: DataRecipe, device: torch.device | str = "cpu", sources: SourcesRecipe | None = None) -> Data:
    """Open the source, choose the subset, hold out what is to be held out, and add the images of `sources`.

    Synthetic images are trained on and nothing else: they are never held out, and `imbalance` does not count them. Of
    the real training images `sources` may set some apart that only what makes synthetic ones learns from.

    Raises:
        DataError: the source cannot be read, or has too few images for what was asked; or the images of `sources` were
            made from some that would validate or test.
    """
    source, marks, size = _opened(recipe)
    chosen = _choose(recipe, source, np.flatnonzero(~marks))
    real, learnt = _tuning(recipe, source, chosen.train, 0.0 if sources is None else sources.tuning)
    rows = np.sort(np.concatenate([real, np.flatnonzero(marks)]))
    digest = index_hash(np.concatenate([chosen.subset, np.flatnonzero(marks)]))
    added = ""
    if sources is not None and sources.folder is not None:
        more, before = _more(source, sources), len(marks)
        source, marks, added = _with(source, more), np.append(marks, np.ones(len(more.files.labels), bool)), more.digest
        rows = np.concatenate([rows, np.arange(before, len(marks))])
    counts = np.bincount(source.splits["train"].labels[rows], minlength=len(source.class_names))
    if (counts == 0).any():
        name, listed = source.class_names[int(counts.argmin())], Path(recipe.source).suffix == ".txt"
        way = "count classes from 0 without gaps, and name no others in classes.txt" if listed else "remove the class"
        raise DataError(f'class "{name}" has no training image; {way}', file=Path(recipe.source) if listed else None)
    cut = _Cut(source, marks, size, recipe.memory, torch.device(device))
    data = Data(
        train=cut.training(rows),
        val=cut.val(chosen.val),
        test=cut.test(chosen.test),
        class_names=source.class_names,
        class_counts=torch.from_numpy(counts),
        subset_sha256=digest,
        synthetic=marks[rows],
        group_names=source.group_names,
        added_sha256=added,
        tuning=None if learnt is None else cut.training(learnt),
    )
    if sources is not None and sources.folder is not None:
        seen.check(Path(sources.folder).expanduser(), data)
    return data


def _opened(recipe: DataRecipe) -> tuple[Source, np.ndarray, int]:
    """The source, [N] bool which of its training images are synthetic, and the size that images are brought to."""
    source = open_source(
        recipe.source,
        root=recipe.root,
        download=recipe.download,
        grouped=recipe.groups == "folder",
        choice=Choice(recipe.label, recipe.group, recipe.ages),
    )
    marks = source.synthetic
    marks = np.zeros(len(source.splits["train"].labels), bool) if marks is None else marks
    size = recipe.image_size or _common_size(source)
    return with_borders(source, recipe.subset_seed) if recipe.groups == "border" else source, marks, size


def _more(source: Source, sources: SourcesRecipe) -> Added:
    """The images that `sources` add."""
    groups = source.group_names if "train" in source.groups else None
    return open_added(Path(sources.folder or "").expanduser(), source.class_names, groups, sources.take)


@dataclass(frozen=True)
class _Cut:
    """How splits are cut out of a source."""

    source: Source
    marks: np.ndarray
    """[N] bool: which training images are synthetic."""
    size: int
    memory: int
    device: torch.device

    def of(self, name: str, rows: np.ndarray | None) -> Split:
        """Some images of one of the source's splits; None is all."""
        reader, groups = self.source.splits[name], self.source.groups.get(name)
        rows = np.arange(len(reader.labels)) if rows is None else rows
        held = None
        if len(rows) * 3 * self.size * self.size <= self.memory * 2**20:
            held = _hold(reader, rows, self.size).to(self.device)
        known = None if groups is None else torch.from_numpy(groups[rows]).to(self.device)
        return Split(torch.from_numpy(reader.labels[rows]).to(self.device), held, reader, rows, self.size, known)

    def training(self, rows: np.ndarray) -> Split:
        """Training images, with their marks."""
        return replace(self.of("train", rows), is_synthetic=torch.from_numpy(self.marks[rows]).to(self.device))

    def val(self, rows: np.ndarray | None) -> Split | None:
        """Training images that were held out, else the source's own split, if it has one."""
        if rows is not None:
            return self.of("train", rows)
        return self.of("val", None) if "val" in self.source.splits else None

    def test(self, rows: np.ndarray | None) -> Split:
        """Training images that were held out, else the source's own split."""
        return self.of("test", None) if rows is None else self.of("train", rows)


class _Chosen(NamedTuple):
    """Rows of the source's training split, sorted; None where a split of its own serves, or nothing."""

    train: np.ndarray
    val: np.ndarray | None
    test: np.ndarray | None
    subset: np.ndarray
    """`train` and `val`, where that is of the training split."""


def _choose(recipe: DataRecipe, source: Source, rows: np.ndarray) -> _Chosen:
    """Which of the real images, `rows`, train, validate and test."""
    labels, test_rows = source.splits["train"].labels, None
    if "test" not in source.splits:
        rows, test_rows = hold_out(rows, labels, recipe.test_share, recipe.subset_seed)
        if not len(test_rows):
            raise DataError(f'"{recipe.source}" has no test images: add a test split or raise data.test_share')
    subset = rows
    if recipe.imbalance is not None:
        subset = long_tailed(rows, labels, recipe.imbalance, len(source.class_names), recipe.subset_seed)
    train, val_rows = _validation(recipe, source, rows, subset)
    if recipe.correlation is not None:  # behind what is held out, which so measures all correlations alike
        train = _correlated(recipe, source, train)
        subset = train if val_rows is None else np.union1d(train, val_rows)
    return _Chosen(train, val_rows, test_rows, subset)


def _tuning(recipe: DataRecipe, source: Source, rows: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray | None]:
    """What is left of the real training `rows`, and what sources learn from; None for all of them."""
    if not share:
        return rows, None
    cells, groups = source.splits["train"].labels[rows], source.groups.get("train")
    if groups is not None:
        cells = cells * len(source.group_names) + groups[rows]
    return apart(rows, cells, share, recipe.subset_seed + 3)


def _correlated(recipe: DataRecipe, source: Source, rows: np.ndarray) -> np.ndarray:
    """Those of the training `rows` that `data.correlation` keeps."""
    assert recipe.correlation is not None
    groups = source.groups.get("train")
    if groups is None:
        raise DataError(f"data.correlation is one of classes and groups, and {NO_GROUPS}")
    labels, names, seed = source.splits["train"].labels, source.class_names, recipe.subset_seed
    return correlated(rows, labels, groups, recipe.correlation, names, source.group_names, seed)


def _with(source: Source, added: Added) -> Source:
    """The source with more training images, behind its own."""
    groups = dict(source.groups)
    if added.groups is not None:
        groups["train"] = np.concatenate([groups["train"], added.groups])
    joined = Joined(source.splits["train"], added.files)
    return replace(source, splits={**source.splits, "train": joined}, groups=groups)


def _validation(
    recipe: DataRecipe, source: Source, available: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """What is left of the training `rows`, and what validates; None where the source's own split does, or nothing."""
    if not (recipe.validation or recipe.validation_per_class):
        return rows, None
    if recipe.validation and recipe.validation_per_class:
        raise DataError("data.validation and data.validation_per_class are two ways to hold images out: say one")
    which = "validation" if recipe.validation else "validation_per_class"
    if "val" in source.splits:
        raise DataError(f'"{recipe.source}" has a validation split of its own: set data.{which} to 0')
    labels, seed = source.splits["train"].labels, recipe.subset_seed + 1
    if recipe.validation_per_class:
        return spare(rows, np.setdiff1d(available, rows), labels, recipe.validation_per_class, seed)
    rest, held_out = hold_out(rows, labels, recipe.validation, seed)
    if not len(held_out):
        raise DataError(f"data.validation {recipe.validation} holds out no image of {len(rows)}; give a larger share")
    return rest, held_out


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation [count] int64 that depends on (seed, epoch) alone: raw Philox numbers, sorted."""
    raw = np.random.Philox(key=[seed, epoch]).random_raw(count)
    return torch.from_numpy(np.argsort(raw, kind="stable"))


def epoch_batches(count: int, size: int, seed: int, epoch: int) -> list[Tensor]:
    """Every position once, in batches of `size`, see `in_batches`."""
    return in_batches(epoch_order(count, seed, epoch), size)


def in_batches(order: Tensor, size: int) -> list[Tensor]:
    """Positions [N] in batches of `size`; a last batch of one image joins the one before it.

    Batch normalisation has no variance to divide by in a batch of one.
    """
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _hold(reader: Reader, rows: np.ndarray, size: int) -> Tensor:
    """[N, 3, size, size] uint8 images of sorted rows."""
    if isinstance(reader, Joined):
        before = len(reader.first.labels)
        parts = (reader.first, rows[rows < before]), (reader.second, rows[rows >= before] - before)
        return torch.cat([_hold(part, some, size) for part, some in parts])
    if isinstance(reader, Arrays) and reader.images.shape[1:3] == (size, size):
        return torch.from_numpy(np.ascontiguousarray(reader.images[rows].transpose(0, 3, 1, 2)))
    with ThreadPoolExecutor() as readers:
        images = list(readers.map(lambda row: fit(reader.read(int(row)), size), rows))
    return torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)


def fit(image: np.ndarray, size: int) -> Tensor:
    """[H, W, 3] uint8 to [3, size, size]: the shorter side to `size`, then the middle square."""
    height, width = image.shape[:2]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        wide, high = max(size, round(width * scale)), max(size, round(height * scale))
        resized = Image.fromarray(np.ascontiguousarray(image)).resize((wide, high), Image.Resampling.BILINEAR)
        left, top = (wide - size) // 2, (high - size) // 2
        image = np.asarray(resized.crop((left, top, left + size, top + size)))
    return torch.from_numpy(np.array(image.transpose(2, 0, 1)))


def _common_size(source: Source) -> int:
    """The size of a source whose images are all square and alike; anything else must say data.image_size."""
    train = source.splits["train"]
    if isinstance(train, Arrays) and train.images.shape[1] == train.images.shape[2]:
        return int(train.images.shape[1])
    raise DataError("these images are not all of one square size: set data.image_size")
