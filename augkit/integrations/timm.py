"""The one line that puts a policy into a timm training loop.

    loader = wrap(loader, "trivialaugment", model)

`wrap` works for loaders of timm's `create_loader`, prefetching or not, and for plain DataLoaders; `mixup_fn` for loops
that call such a function on normalised batches themselves.
"""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from augkit.errors import DataError, DocumentError, InputError
from augkit.integrations.datasets import IndexedCollate, IndexedDataset, class_counts, gives_indices
from augkit.integrations.feed import Feed, Given, MixupFn, Normalisation, mixup_fn
from augkit.integrations.probing import attach, check_probes
from augkit.integrations.statefile import check_place, read_state, write_state
from augkit.integrations.transforms import describe, normalisation, transforms_of, without_chance
from augkit.integrations.watch import Watch, classes_of
from augkit.policy import Policy

__all__ = ["MixupFn", "WrappedLoader", "mixup_fn", "wrap"]

logger = logging.getLogger(__name__)


def wrap(
    loader: Any,
    policy: Policy | str | Path | Mapping[str, Any],
    model: nn.Module | None,
    *,
    state: str | Path | None = None,
    base: Literal["loader", "policy"] = "loader",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    sample_groups: Sequence[int] | Tensor | None = None,
    sample_synthetic: Sequence[bool] | Tensor | None = None,
    **load: Any,
) -> WrappedLoader:
    """Put a policy between a training loader and the model. The loader given is left as it was.

    Args:
        loader: of timm's `create_loader` (prefetching or not), or any DataLoader with batches (images, targets).
        policy: a policy, or what `Policy.load` takes; then class counts are read from the data set and the other
            arguments of `Policy.load` may follow as keywords (`seed`, `epochs`, `label_smoothing`, params).
        model: the module that the loop calls, after torch.compile and DDP. None if the loop itself calls
            `policy.observe(logits, loader.labels, levels=loader.levels)`. A document with probes asks it at each
            epoch's start about the images that the loader's own transforms give, read once.
        state: file for the learned state: written atomically at each epoch's end, and loaded now if it is there.
        base: `loader` keeps the loader's own random transforms and adds the policy, `policy` turns them off.
        mean: what an unprefetched loader normalises with, in 0..1 units; found by itself in torchvision transforms.
        std: likewise.
        sample_groups: group number of each sample, for documents that use groups.
        sample_synthetic: whether each sample was generated, for documents that read `is_synthetic`.

    Raises:
        InputError, DataError, DocumentError, StateError: loader, labels, document or state file do not fit.
    """
    if base not in ("loader", "policy"):
        raise InputError(f'base must be "loader" or "policy", not {base!r}')
    inner, prefetching = _check_loader(loader)
    dataset = getattr(inner, "dataset", None)
    found = transforms_of(dataset)
    _tell_base(found, loader, base)
    if isinstance(policy, Policy):
        if load:
            raise InputError(f"{', '.join(sorted(load))}: give these to Policy.load, the policy is loaded already")
    else:
        policy = _load(policy, dataset, model, load)
    companions = _companions(sample_groups, sample_synthetic)
    _check_fit(policy, dataset, model, companions, gives_indices(inner), prefetching)
    check_probes(policy, model, gives_indices(inner))
    if base == "policy":
        dataset = without_chance(dataset)
    unit = _normalisation(found, mean, std) if not prefetching else None
    return WrappedLoader(loader, inner, dataset, policy, model, unit, state, companions, erase=base == "loader")


class WrappedLoader:
    """A training loader that augments. Iterate it as the loader it wraps; attributes pass through to that.

    The rules of an epoch's end run when the next iteration gives its first batch, unless the loop has called
    `policy.end_epoch()`; an iterator that was left early counts as an epoch too. An iterator left after one batch that
    the model never saw was a look at the data: it is not counted, and the next iteration draws as if it had not been.
    """

    def __init__(
        self,
        loader: Any,
        inner: Any,
        dataset: Any,
        policy: Policy,
        model: nn.Module | None,
        unit: Normalisation | None,
        state: str | Path | None,
        companions: Mapping[str, Tensor],
        erase: bool,
    ) -> None:
        self.policy = policy
        self.labels: Tensor | None = None
        """[B] int64 labels of the batch that the loop has in hand."""
        self.levels: Mapping[str, Tensor] = {}
        """Its images' levels, where a document counts answers by level, see `Policy.observe`."""
        self._model, self._unit = weakref.ref(model) if model is not None else None, unit
        self._dataset = dataset
        self._watch = Watch(policy, model) if model is not None else None
        self._state = Path(state) if state is not None else None
        prefetching = inner is not loader
        # copies, so that the caller's loader goes on as it was
        outer = copy.copy(loader) if prefetching else None
        indexed = gives_indices(inner)
        if indexed or dataset is not getattr(inner, "dataset", None):
            inner = _with_dataset(inner, dataset, indexed)
        self._feed = Feed(
            inner,
            policy,
            indexed=indexed,
            companions=companions,
            normalisation=unit,
            prefetcher=outer,
        )
        if outer is not None:
            outer.loader, outer.stream = self._feed, None
            if not erase:
                outer.random_erasing = None
        self._outer = outer
        self._opened: int | None = None  # the epoch whose batches were given, until its end has run
        self._given, self._exhausted, self._resumed = 0, False, False
        self._met: Tensor | None = None  # images that the policy's pool had met when the iteration began
        self._resume()
        if indexed:  # on a GPU the policy cannot look for the largest index without waiting
            policy.occurrences.reserve(len(dataset))

    def __len__(self) -> int:
        return len(self._feed)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._outer if self._outer is not None else self._feed, name)

    @property
    def dataset(self) -> Any:
        """The data set, without what carries its indices."""
        return self._dataset

    @property
    def mixup_enabled(self) -> bool:
        """Whether images are mixed. timm's loop sets it False at `--mixup-off-epoch`; targets stay dense."""
        return self.policy.strategy.mixes and self.policy.mixing

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self.policy.mixing = bool(value)

    def __iter__(self) -> Iterator[Any]:
        self._finish()
        self._begin()
        source = self._outer if self._outer is not None else self._feed
        try:
            for batch in source:
                self._given += 1
                self._hand(self._feed.queue.popleft())
                yield batch
        finally:
            self._join()
        self._hand(Given(None))
        self._exhausted = True
        if self._watch is not None:
            complaint = self._watch.complaint(self.policy.epoch)
            if complaint and self._given:
                logger.warning(complaint)
        self.save()

    def save(self) -> None:
        """Write the state file, if there is one; it happens by itself at each epoch's end."""
        if self._state is not None:
            self._join()
            finished = self._exhausted and self._opened == self.policy.epoch
            write_state(self._state, self.policy, finished=finished)

    def _hand(self, given: Given) -> None:
        self.labels, self.levels = given
        if self._watch is not None:
            self._watch.expect(*given)

    def _ask(self) -> None:
        """Make an epoch's probes before the first batch is drawn, which a prefetching loader does on a stream aside."""
        model = self._model() if self._model is not None else None
        if self.policy.asked is None and model is not None:
            attach(self.policy, model, self._feed.source, self._unit, self._outer, self._feed.companions)
        self.policy.begin_epoch()

    def _begin(self) -> None:
        if self._resumed:
            self._resumed = False
            samplers: list[Any] = [getattr(self, name, None) for name in ("batch_sampler", "sampler")]
            expected = next((sampler.epoch for sampler in samplers if hasattr(sampler, "epoch")), None)
            if isinstance(expected, int) and expected not in (0, self.policy.epoch):
                logger.warning(
                    f"the policy goes on at epoch {self.policy.epoch} but the sampler is at {expected};"
                    f" {self._state} and the training checkpoint may be of different epochs"
                )
        self._opened, self._given, self._exhausted = self.policy.epoch, 0, False
        self._met = self.policy.pool.met.clone() if self.policy.pool is not None else None
        if self._watch is not None:
            self._watch.begin()
        if "model" in self.policy.needs:
            self._ask()

    def _finish(self) -> None:
        """Run the rules of the end of the epoch that the last iteration opened, unless that has been done."""
        opened, self._opened = self._opened, None
        self._hand(Given(None))
        if opened is None:
            return
        if opened == self.policy.epoch:
            seen = self._watch.answers if self._watch is not None else self.policy.statistics.observed
            if not self._exhausted and self._given <= 1 and not seen:
                self._forget()
                return
            if self._watch is not None and self._given and "observe" in self.policy.needs:
                self._watch.require_answers(opened)
            self._join()
            self.policy.end_epoch()
        self.save()

    def _forget(self) -> None:
        """Undo what a look at the data has drawn."""
        self._join()
        self.policy.restart_epoch()
        if self.policy.pool is not None and self._met is not None:
            # the next images take the slots that those of the look took
            self.policy.pool.met = self._met.to(self.policy.pool.met.device)

    def _join(self) -> None:
        stream = self._feed.stream
        if stream is not None:  # an abandoned prefetch may still be drawing there
            torch.cuda.current_stream(self._feed.device).wait_stream(stream)

    def _resume(self) -> None:
        if self._state is None:
            return
        check_place(self._state)
        if not self._state.exists():
            return
        finished = read_state(self._state, self.policy)
        logger.info(f"policy state of epoch {self.policy.epoch} loaded from {self._state}; delete it to start anew")
        self._resumed = True
        if finished:
            self._opened, self._exhausted = self.policy.epoch, True


def _check_loader(loader: Any) -> tuple[Any, bool]:
    """The DataLoader in a loader, and whether the loader prefetches (timm's `PrefetchLoader`)."""
    if isinstance(loader, WrappedLoader):
        raise InputError("this loader is wrapped already; combine policies in one document with `use`")
    prefetching = all(hasattr(loader, name) for name in ("loader", "img_dtype", "random_erasing"))
    inner = loader.loader if prefetching else loader
    if hasattr(getattr(inner, "collate_fn", None), "mixup_enabled"):
        raise InputError(
            "the loader mixes images itself (timm's FastCollateMixup); create it without collate_fn (--mixup 0"
            " --cutmix 0) and let the document mix"
        )
    if not hasattr(inner, "__iter__"):
        raise InputError(f"wrap needs a loader to iterate, not {type(loader).__name__}")
    return inner, prefetching


def _tell_base(found: list[Any], loader: Any, base: str) -> None:
    random, unknown = describe(found)
    if getattr(loader, "random_erasing", None) is not None:
        random.append(type(loader.random_erasing).__name__)
    words = ", ".join([*random, *(f"{name} (unknown)" for name in unknown)]) or "none"
    fate = "kept, the policy is added" if base == "loader" else "turned off, the policy alone augments"
    logger.info(f"random transforms of the loader: {words}; {fate}")
    stacked = [name for name in random if "Augment" in name or "AugMix" in name]
    if stacked and base == "loader":
        logger.warning(f"the loader runs {', '.join(stacked)} before the policy; create it without auto_augment (--aa)")


def _load(source: Any, dataset: Any, model: nn.Module | None, load: dict[str, Any]) -> Policy:
    """The policy of a source, with class counts from the data set unless they were given."""
    reason: DataError | None = None
    if "class_counts" not in load:
        try:
            load["class_counts"] = class_counts(dataset, classes_of(model))
        except DataError as error:
            reason = error
            number = classes_of(model)
            if number is not None and "class_names" not in load:
                load["class_names"] = [str(k) for k in range(number)]
    if "num_samples" not in load and hasattr(dataset, "__len__") and len(dataset):
        load["num_samples"] = len(dataset)
    try:
        return Policy.load(source, **load)
    except DocumentError as error:
        if reason is not None and "class_counts" in str(error):
            raise DataError(f"{error}; {reason}") from None
        raise


_COMPANIONS = {
    "group": ("sample_groups", "the group of each sample"),
    "is_synthetic": ("sample_synthetic", "a truth value for each sample"),
}
"""What a policy may be told of each image: the argument of `wrap`, and what that holds."""


def _companions(groups: Any, synthetic: Any) -> dict[str, Tensor]:
    """What is known of each sample by the policy's name for it: `group` [S] int64, `is_synthetic` [S] bool."""
    told: dict[str, Tensor] = {}
    if groups is not None:
        told["group"] = torch.as_tensor(groups, dtype=torch.int64)
    if synthetic is not None:
        told["is_synthetic"] = torch.as_tensor(synthetic, dtype=torch.bool)
    return told


def _check_fit(
    policy: Policy,
    dataset: Any,
    model: nn.Module | None,
    companions: Mapping[str, Tensor],
    indexed: bool,
    prefetching: bool,
) -> None:
    name, answers = policy.strategy.name, classes_of(model)
    cares = policy.strategy.mixes or "observe" in policy.needs
    if cares and policy.num_classes is not None and answers is not None and answers != policy.num_classes:
        raise InputError(
            f"the model answers {answers} classes but the policy was loaded with {policy.num_classes};"
            " give both the same number"
        )
    if "index" in policy.needs and not indexed:
        raise InputError(f'strategy "{name}" uses `index`, which this loader cannot give; use a map-style data set')
    for read, (argument, what) in _COMPANIONS.items():
        if read in policy.needs and (read not in companions or not indexed):
            raise InputError(f'strategy "{name}" uses `{read}`: pass {argument}=, {what} of a map-style data set')
        if read in companions and indexed and len(companions[read]) != len(dataset):
            told = f"{argument} has {len(companions[read])} entries but the data set {len(dataset)} samples"
            raise InputError(told)
    if prefetching and policy.out is not None:
        raise InputError("timm's prefetching loader normalises; load the policy without out=")


def _normalisation(found: list[Any], mean: Any, std: Any) -> Normalisation | None:
    if (mean is None) != (std is None):
        raise InputError("give both mean and std, or neither")
    if mean is not None:
        return Normalisation(mean, std)
    own = normalisation(found)
    return Normalisation(*own) if own is not None else None


def _with_dataset(inner: DataLoader[Any], dataset: Any, indexed: bool) -> Any:
    """A copy of a DataLoader over another data set. Its workers start when it is first iterated."""
    other = copy.copy(inner)
    # DataLoader refuses assignment to `dataset`; the copy has no workers yet that could hold the old one
    other.__dict__["dataset"] = IndexedDataset(dataset) if indexed else dataset
    other.__dict__["_iterator"] = None
    if "iterator" in other.__dict__:  # timm's MultiEpochsDataLoader
        other.__dict__["iterator"] = None
    if indexed:
        other.collate_fn = IndexedCollate(inner.collate_fn)
    return other
