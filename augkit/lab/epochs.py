"""The images of an epoch, out of real and synthetic ones: functions of seed and epoch alone.

Without a say on synthetic images an epoch takes every image as the sampler wants. With a `share` so many of its images
are synthetic: real and synthetic images are gone through each for itself, without repeating one of a cell before all of
that cell have come, over the epochs of a stage. With `replace` an epoch is one of the real images, some of whose places
are taken by synthetic ones of the same class, and of the same group where groups are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augkit.engine.streams import key_of
from augkit.lab.samplers import checked_shares, epoch_positions, quotas, unit


@dataclass(frozen=True)
class Sampler:
    """A recipe's sampler, the seed of its draws, and the epoch in which its stage begins."""

    name: str
    draw: Callable[..., Tensor]
    """Images of each class [C], and by name `group_counts` [C, G] or None, and the stage's `epoch`, to shares."""
    seed: int
    begin: int


@dataclass(frozen=True)
class Part:
    """Images to draw from."""

    rows: np.ndarray
    """[n] int64 sorted positions in the training split."""
    labels: np.ndarray
    """[n] int64."""
    groups: np.ndarray | None
    """[n] int64, if groups are known."""
    classes: int
    group_count: int = 1

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, mask: np.ndarray) -> Part:
        """Some of them, [n] bool."""
        groups = None if self.groups is None else self.groups[mask]
        return Part(self.rows[mask], self.labels[mask], groups, self.classes, self.group_count)

    @property
    def cells(self) -> np.ndarray:
        """[n] int64: the class of each, or where groups are known the class and group."""
        return self.labels if self.groups is None else self.labels * self.group_count + self.groups

    def shares(self, sampler: Sampler, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The cells that a sampler draws by, [n] int64 classes or classes by groups, and the share of each.

        Raises:
            DocumentError: it returned no shares.
        """
        counts = torch.from_numpy(np.bincount(self.labels, minlength=self.classes)).double()
        by_group = None
        if self.groups is not None:
            cells = np.bincount(self.cells, minlength=self.classes * self.group_count)
            by_group = torch.from_numpy(cells).double().view(self.classes, self.group_count)
        said = torch.as_tensor(sampler.draw(counts, group_counts=by_group, epoch=epoch - sampler.begin))
        grouped = said.ndim == 2 and by_group is not None
        found = checked_shares(said, by_group if grouped and by_group is not None else counts, sampler.name, "sampler")
        return self.cells if grouped else self.labels, found.reshape(-1)


def whole(part: Part, sampler: Sampler, epoch: int) -> np.ndarray:
    """Rows of an epoch as long as the part, see `samplers.epoch_positions`."""
    cells, shares = part.shares(sampler, epoch)
    return np.asarray(part.rows[epoch_positions(cells, shares, sampler.seed, epoch).numpy()])


def blended(real: Part, made: Part, sampler: Sampler, share: Callable[[int], float], epoch: int) -> np.ndarray:
    """Rows of an epoch as long as both parts together, `share(epoch of the stage)` of them synthetic, to the image."""
    size, seed, rows = len(real) + len(made), sampler.seed, []
    for part, what in ((real, "real"), (made, "made")):
        before = now = np.zeros(0, np.int64)
        for at in range(sampler.begin, epoch + 1):  # what earlier epochs took is theirs to say, not a state's
            wanted = round(share(at - sampler.begin) * size)
            cells, shares = part.shares(sampler, at)
            offset = unit(_raw(1, seed, at, what))[0]
            # a sampler that goes over from classes to classes by groups begins anew
            before = before + now if len(before) == len(now) == len(shares) else np.zeros(len(shares), np.int64)
            now = quotas(shares, wanted if part is made else size - wanted, offset)
        rows.append(part.rows[np.fromiter(_cycled(cells, before, now, seed, what), np.int64)])
    together = np.concatenate(rows)
    return np.asarray(together[np.argsort(_raw(size, seed, epoch, "order"), kind="stable")])


def _cycled(cells: np.ndarray, before: np.ndarray, now: np.ndarray, seed: int, which: str) -> Iterator[int]:
    """Of each cell the next `now` positions, where `before` have come already: one shuffled round after another."""
    for cell in np.flatnonzero(now):
        own = np.flatnonzero(cells == cell)
        first, last = int(before[cell]), int(before[cell] + now[cell])
        for cycle in range(first // len(own), -(-last // len(own))):
            order = own[np.argsort(_raw(len(own), seed, cycle, which, int(cell)), kind="stable")]
            at = cycle * len(own)
            yield from order[max(first - at, 0) : last - at].tolist()


def replaced(rows: np.ndarray, real: Part, made: Part, chance: float, seed: int, epoch: int) -> np.ndarray:
    """Rows of real images, each replaced with a chance by one of its cell's synthetic images, any of them alike.

    An image whose cell has none stays.
    """
    raw = _raw(2 * len(rows), seed, epoch, "replace")
    cells = real.cells[np.searchsorted(real.rows, rows)]
    by_cell = np.argsort(made.cells, kind="stable")
    counts = np.bincount(made.cells, minlength=real.classes * real.group_count)
    place = (np.cumsum(counts) - counts)[cells] + (unit(raw[len(rows) :]) * counts[cells]).astype(np.int64)
    happens = (unit(raw[: len(rows)]) < chance) & (counts[cells] > 0)
    found: np.ndarray = rows.copy()
    found[happens] = made.rows[by_cell[place[happens]]]
    return found


def _raw(count: int, seed: int, number: int, *what: str | int) -> np.ndarray:
    """[count] uint64 of a stream of its own for each use."""
    key = key_of(seed, "synthetic", *what) % 2**64
    return np.asarray(np.random.Philox(key=[key, number]).random_raw(count))
