"""What a loader gives a policy whose document asks the model: training images, and how the model sees them."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from augkit.errors import InputError
from augkit.integrations.datasets import labels_of
from augkit.integrations.feed import Normalisation
from augkit.learning.probe_pool import MAX_BYTES, ProbePool, rows_within
from augkit.policy import Policy

logger = logging.getLogger(__name__)


def check_probes(policy: Policy, model: nn.Module | None, indexed: bool) -> None:
    """Refuse a document that asks the model where there is none, or no list of training images.

    Raises:
        InputError: saying what is missing.
    """
    if "model" not in policy.needs or policy.asked is not None:
        return
    name = policy.strategy.name
    if model is None:
        raise InputError(f'strategy "{name}" asks the model: give it to wrap, or call policy.attach_model before')
    if not indexed:
        raise InputError(
            f'strategy "{name}" asks the model about training images, which this loader cannot list; use a map-style'
            " data set, or call policy.attach_model before"
        )


def attach(
    policy: Policy,
    model: nn.Module,
    inner: Any,
    unit: Normalisation | None,
    prefetcher: Any,
    companions: Mapping[str, Tensor],
) -> None:
    """Read the training images once, as the loader gives them, and attach them and the model.

    Args:
        policy: its document asks the model.
        model: what is asked.
        inner: a DataLoader that gives indices, see `IndexedDataset`.
        unit: how an unprefetched loader normalises.
        prefetcher: timm's prefetching loader, if it is one.
        companions: `group` and `is_synthetic` of each sample, [samples], as far as they are known.
    """
    pool = read_pool(inner, unit, policy.seed, companions)
    if pool.note:
        logger.warning(f"{pool.note}; for another choice call policy.attach_model before wrap")
    policy.attach_model(model, pool, _prepare(unit, prefetcher))


def read_pool(
    inner: Any,
    unit: Normalisation | None,
    seed: int,
    companions: Mapping[str, Tensor] | None = None,
    max_bytes: int = MAX_BYTES,
) -> ProbePool:
    """The images of a loader's data set behind the loader's own transforms, each drawn once.

    The generators that those draw from are seeded for it and put back, so that every rank, and a run that is resumed,
    has the same pool and trains as it would without.
    """
    dataset = inner.dataset
    with _seeded(seed):
        first, _, _ = _parts(inner.collate_fn([dataset[0]]), unit)
        most = max(1, max_bytes // first[0].numel())
        rows = _rows(dataset, most, seed)
        logger.info(f"reading {len(rows)} of {len(dataset)} training images for probes")
        reader = DataLoader(
            Subset(dataset, rows.tolist()),
            batch_size=64,
            num_workers=inner.num_workers,
            collate_fn=inner.collate_fn,
            worker_init_fn=inner.worker_init_fn,
            multiprocessing_context=inner.multiprocessing_context,
        )
        parts = [_parts(batch, unit) for batch in reader]
    images, labels, index = (torch.cat([part[k] for part in parts]) for k in range(3))
    known = {name: of_each[index] for name, of_each in (companions or {}).items()}
    return ProbePool(images, labels, index=index, of=len(dataset), **known)


def _rows(dataset: Any, most: int, seed: int) -> Tensor:
    labels = labels_of(dataset) if len(dataset) > most else None
    if labels is not None:
        return rows_within(torch.as_tensor(labels).long(), most, seed)
    return torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:most].sort().values


def _parts(batch: Any, unit: Normalisation | None) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 images, labels and indices of a batch."""
    (images, labels, *_), index = batch
    if images.is_floating_point():
        images = unit.undo(images) if unit is not None else images.mul(255).round().clamp(0, 255).to(torch.uint8)
    return images, labels, index


def _prepare(unit: Normalisation | None, prefetcher: Any) -> Callable[[Tensor], Tensor] | None:
    """Augmented images as the loop will get them."""
    if prefetcher is not None:
        mean, std, dtype = prefetcher.mean, prefetcher.std, prefetcher.img_dtype
        return lambda images: images.to(mean.device).to(dtype).sub(mean).div(std)
    return (lambda images: unit.redo(images, torch.float32)) if unit is not None else None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Every generator that transforms use, seeded, and as it was afterwards."""
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
