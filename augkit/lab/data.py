"""Data for a run: splits, long-tailed subsets, and batches whose order is a function of seed and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augkit.errors import DataError
from augkit.lab.readers import Arrays, Reader, Source
from augkit.lab.recipe_parts import DataRecipe
from augkit.lab.sources import open_source

NO_GROUPS = (
    "the groups of the training images are not known: say data.groups: folder, or give a groups.csv or train_groups"
)


@dataclass(frozen=True)
class Split:
    """Images of one split: held as one uint8 tensor [N, 3, H, W] on the device, or read when asked for."""

    labels: Tensor
    """[N] int64, on the device."""
    held: Tensor | None
    reader: Reader
    rows: np.ndarray
    """[N] positions in the source's split."""
    size: int
    groups: Tensor | None = None
    """[N] int64, on the device: the group of each image, if the source says so."""

    def __len__(self) -> int:
        return len(self.rows)

    def companions(self, where: Tensor) -> dict[str, Tensor]:
        """What a policy is told of the images at some positions [B] beside their labels: `index`, perhaps `group`."""
        return {"index": where} if self.groups is None else {"index": where, "group": self.groups[where]}

    def batches(self, positions: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images [B, 3, H, W] uint8 on the device for each batch of positions ([B] int64 on the device)."""
        if self.held is not None:
            for where in positions:
                yield self.held[where]
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
        return torch.stack(list(readers.map(lambda row: _fit(self.reader.read(int(row)), self.size), rows)))


@dataclass(frozen=True)
class Data:
    """What a run trains and is measured on. `val` is None when nothing was held out."""

    train: Split
    val: Split | None
    test: Split
    class_names: tuple[str, ...]
    class_counts: Tensor
    """[classes] int64, on the CPU: training images after everything held out was taken away."""
    subset_sha256: str
    """Of the chosen training indices before validation is held out: sorted int64, little-endian."""
    synthetic: np.ndarray
    """[N] bool: which training images were generated; none, unless the source says so."""
    group_names: tuple[str, ...] = ()
    """Of the groups of all splits; empty if the source knows none."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels_sha256(self) -> str:
        """Of the labels of train, validation and test images in their order: int64, little-endian, each after its
        number of images; and their groups and which are synthetic, if any. It tells data that changed under the same
        indices."""
        digest = hashlib.sha256()
        for split in (self.train, self.val, self.test):
            labels = split.labels.cpu().numpy() if split is not None else np.empty(0, np.int64)
            digest.update(np.concatenate([[len(labels)], labels]).astype("<i8").tobytes())
            if split is not None and split.groups is not None:
                digest.update(b"groups" + split.groups.cpu().numpy().astype("<i8").tobytes())
        if self.synthetic.any():
            digest.update(np.packbits(self.synthetic).tobytes())
        return digest.hexdigest()


def load(recipe: DataRecipe, device: torch.device | str = "cpu") -> Data:
    """Open the source, choose the subset, hold out what is to be held out.

    Raises:
        DataError: the source cannot be read, or has too few images for what was asked.
    """
    source = open_source(recipe.source, root=recipe.root, download=recipe.download, grouped=recipe.groups == "folder")
    labels = source.splits["train"].labels
    rows, test_rows = np.arange(len(labels)), None
    if "test" not in source.splits:
        rows, test_rows = hold_out(rows, labels, recipe.test_share, recipe.subset_seed)
        if not len(test_rows):
            raise DataError(f'"{recipe.source}" has no test images: add a test split or raise data.test_share')
    available = rows
    if recipe.imbalance is not None:
        rows = long_tailed(rows, labels, recipe.imbalance, len(source.class_names), recipe.subset_seed)
    digest = index_hash(rows)
    rows, val_rows = _validation(recipe, source, available, rows)
    counts = np.bincount(labels[rows], minlength=len(source.class_names))
    if (counts == 0).any():
        raise DataError(f'class "{source.class_names[int(counts.argmin())]}" has no training image; remove the class')
    size = recipe.image_size or _common_size(source)
    device = torch.device(device)

    def split(name: str, chosen: np.ndarray | None) -> Split:
        reader, groups = source.splits[name], source.groups.get(name)
        chosen = np.arange(len(reader.labels)) if chosen is None else chosen
        return _split(reader, chosen, size, recipe.memory, device, None if groups is None else groups[chosen])

    val = split("train", val_rows) if val_rows is not None else split("val", None) if "val" in source.splits else None
    test = split("train", test_rows) if test_rows is not None else split("test", None)
    synthetic = np.zeros(len(labels), bool) if source.synthetic is None else source.synthetic
    train, names = split("train", rows), source.class_names
    return Data(train, val, test, names, torch.from_numpy(counts), digest, synthetic[rows], source.group_names)


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


def spare(
    rows: np.ndarray, unused: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold `count` images of each class out, of the `unused` before those of `rows`; (rest of rows, held out), sorted.

    Raises:
        DataError: a class would keep no training image.
    """
    random = np.random.RandomState(seed)
    held_out = []
    for label in np.unique(labels[rows]):
        idle, own = (part[labels[part] == label] for part in (unused, rows))
        chosen = np.concatenate([random.permutation(idle), random.permutation(own)])[:count]
        if count >= len(idle) + len(own):
            raise DataError(
                f"data.validation_per_class {count} would leave class {label} no training image: it has"
                f" {len(idle) + len(own)} in all"
            )
        held_out.append(chosen)
    taken = np.sort(np.concatenate(held_out))
    return np.setdiff1d(rows, taken), taken


def long_tailed_counts(largest: int, imbalance: float, classes: int) -> list[int]:
    """Images of each class: `int(largest * imbalance ** (-c / (classes - 1)))` for class c."""
    if classes < 2:
        return [largest] * classes
    return [int(largest * imbalance ** (-c / (classes - 1))) for c in range(classes)]


def long_tailed(rows: np.ndarray, labels: np.ndarray, imbalance: float, classes: int, seed: int) -> np.ndarray:
    """The exponential long-tailed subset of `rows`, sorted: class 0 keeps most, the last class least.

    The largest count is the largest with which every class has enough images, so the profile is always exact
    (500 for CIFAR-100). Within a class the images are the first of a shuffle by numpy's frozen `RandomState(seed)`,
    class after class: the selection of the long-tailed CIFAR papers (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019).
    """
    available = np.bincount(labels[rows], minlength=classes)
    largest = int(available.max())
    while (np.array(long_tailed_counts(largest, imbalance, classes)) > available).any():
        largest -= 1
    counts = long_tailed_counts(largest, imbalance, classes)
    if min(counts) < 1:
        raise DataError(
            f"at imbalance {imbalance:g} class {counts.index(0)} would keep no image (the largest keeps {largest}):"
            " lower data.imbalance"
        )
    random = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(counts):
        own = rows[labels[rows] == label]
        random.shuffle(own)
        chosen.append(own[:count])
    return np.sort(np.concatenate(chosen))


def hold_out(rows: np.ndarray, labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out), both sorted: of each class `round(share * n)` images, never its last one."""
    random = np.random.RandomState(seed)
    held = []
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        random.shuffle(own)
        held.append(own[: min(round(share * len(own)), len(own) - 1)])
    out = np.sort(np.concatenate(held)) if held else rows[:0]
    return np.setdiff1d(rows, out), out


def index_hash(rows: np.ndarray) -> str:
    """SHA-256 of sorted indices as little-endian int64."""
    return hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()


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


def _split(
    reader: Reader, rows: np.ndarray, size: int, memory: int, device: torch.device, groups: np.ndarray | None
) -> Split:
    labels = torch.from_numpy(reader.labels[rows]).to(device)
    held = None
    if len(rows) * 3 * size * size <= memory * 2**20:
        held = _hold(reader, rows, size).to(device)
    return Split(labels, held, reader, rows, size, None if groups is None else torch.from_numpy(groups).to(device))


def _hold(reader: Reader, rows: np.ndarray, size: int) -> Tensor:
    if isinstance(reader, Arrays) and reader.images.shape[1:3] == (size, size):
        return torch.from_numpy(np.ascontiguousarray(reader.images[rows].transpose(0, 3, 1, 2)))
    with ThreadPoolExecutor() as readers:
        images = list(readers.map(lambda row: _fit(reader.read(int(row)), size), rows))
    return torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)


def _fit(image: np.ndarray, size: int) -> Tensor:
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
