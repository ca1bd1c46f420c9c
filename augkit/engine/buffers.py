"""Memory that is used again: a fresh large tensor costs more in page faults than the pass that fills it."""

from __future__ import annotations

import sys
import threading
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 20
LARGEST = 31 << 20
"""Bytes of a block that glibc still learns from."""


class Recycler:
    """Hands out tensors in memory that nobody looks at any more.

    A tensor made from a numpy array holds a reference to it for as long as any view of it lives. So an array to which
    only the recycler refers is free, and a caller who keeps a result keeps it unharmed.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._arrays: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Uninitialised [*shape]; small ones and those of other devices come fresh from torch's allocator."""
        size = dtype.itemsize
        for extent in shape:
            size *= extent
        if device.type != "cpu" or size < SMALL:
            return torch.empty(shape, dtype=dtype, device=device)
        return torch.from_numpy(self._array(size)).view(dtype).view(shape)

    def _array(self, size: int) -> np.ndarray:
        """A free array of exactly so many bytes."""
        for position in range(len(self._arrays)):
            if self._arrays[position].nbytes == size and _references(self._arrays, position) == IDLE:
                self._arrays.append(self._arrays.pop(position))
                return self._arrays[-1]
        self._arrays.append(np.empty(size, dtype=np.uint8))
        del self._arrays[: -self._most]
        return self._arrays[-1]


def _references(arrays: list[np.ndarray], position: int) -> int:
    return sys.getrefcount(arrays[position])


IDLE = _references([np.empty(0)], 0)
"""What `_references` counts for an array that only its list refers to; it differs between Pythons."""

_local = threading.local()


def recycler() -> Recycler:
    """The calling thread's own."""
    found: Recycler | None = getattr(_local, "recycler", None)
    if found is None:
        _settle_allocator()
        found = _local.recycler = Recycler()
    return found


@lru_cache(maxsize=1)
def _settle_allocator() -> None:
    """Let the C library keep what passes free from one to the next.

    glibc gives freed memory back to the system, and takes it again page by page, until it has seen a large block freed.
    The first large tensor of a training loop does that; before it, a third of the time of a warp went into page faults.
    """
    torch.empty(LARGEST, dtype=torch.uint8)
