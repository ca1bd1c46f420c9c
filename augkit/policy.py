"""A policy: a strategy bound to a data set's classes, holding what it has learned. What a training loop holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augkit.answers import ask_model, attach, count, judged, levels_of, observed, refuse_unwatched, right_answers
from augkit.binding import Counts, Facts, check_cost, draws_partners
from augkit.checks import check_batch, check_images, check_plan, device_of
from augkit.engine.batched import mix_targets
from augkit.engine.draw import draw
from augkit.engine.environment import Bank
from augkit.engine.executors import check_name, choose
from augkit.engine.nested import execute
from augkit.engine.output import Output
from augkit.engine.plan import Plan
from augkit.engine.program import bind, counted_levels
from augkit.engine.streams import Occurrences, image_keys, key_of
from augkit.errors import InputError
from augkit.learning.memory import Memory
from augkit.learning.pool import Pool
from augkit.learning.probe_pool import ProbePool
from augkit.learning.probes import Answer, Asked
from augkit.learning.statistics import BY_CLASS, Statistics
from augkit.plugins import registry
from augkit.registry import Registry
from augkit.resume import restore, state_of
from augkit.strategy.document import load_strategy
from augkit.strategy.model import Strategy


class Policy:
    """Augments batches as its strategy says, and learns from the model's answers.

    Make one with `Policy.load`. Attributes for reading: `strategy`, `program`, `needs`, `epoch` (0-based, the one
    under way), `num_classes`, `statistics` (of the epoch under way), `history` (a dict for each ended epoch: its
    counts, and the state by class that its images were drawn with), `pool`, `out`, `last_plan`, `executor`,
    `last_executor` (which ran the last batch), `probe_images` and `probe_seconds` (of the last probes), `warnings`.
    `enabled = False` passes images through; `mixing = False` leaves out the mixing steps while targets stay dense;
    `counting = False` leaves it to the loop to say what of a batch is counted, with `augkit.answers.count`.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        class_counts: Counts | None = None,
        class_names: Sequence[str] | None = None,
        groups: int | Sequence[str] | None = None,
        num_samples: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        out: Output | None = None,
        label_smoothing: float = 0.0,
        executor: str = "auto",
        registry: Registry,
    ) -> None:
        facts = Facts.gather(class_counts, class_names, groups, num_samples, epochs)
        facts.require(strategy)
        check_cost(strategy, facts)
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing must be in 0..1, below 1, not {label_smoothing}")
        if not isinstance(seed, int):
            raise InputError(f"seed must be a whole number, not {seed!r}")
        if out is not None and not isinstance(out, Output):
            raise InputError(f"out must be an Output, as in Output(torch.float32, mean, std), not {out!r}")
        self.strategy, self.needs, self.facts = strategy, strategy.needs, facts
        self.num_classes = facts.num_classes
        check_name(executor)
        self.seed, self.out, self.label_smoothing = seed, out, label_smoothing
        self.executor, self.last_executor = executor, ""
        self.program = bind(strategy, facts.sizes)
        sizes = self.num_classes or 1, len(self.program.choices)
        self.statistics = Statistics(*sizes, registry.signals, counted_levels(self.program))
        first = facts.first_signals([*BY_CLASS, *self.statistics.signals])
        counted = [*BY_CLASS, *self.statistics.signals, "used", "strength_used"]
        self.memory = Memory(self.program, seed, first, counted)
        self.asked: Asked | None = None
        self.answer: Answer = right_answers
        self.probe_images, self.probe_seconds = 0, 0.0
        self.pool: Pool | None = None
        if draws_partners(strategy):
            self.attach_pool(Pool(self.num_classes or 1))
        self.enabled = self.mixing = self.counting = True
        self.epoch = self.step = self.batch = 0
        self.began = False
        self.history: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.last_plan: Plan | None = None
        self._bank, self.occurrences = Bank(), Occurrences(facts.num_samples or 0)
        self._settled = device is not None
        self.device = torch.device("cpu")
        if device is not None:
            self.to(device)

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[str, Any],
        *,
        class_counts: Counts | None = None,
        class_names: Sequence[str] | None = None,
        groups: int | Sequence[str] | None = None,
        num_samples: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        out: Output | None = None,
        image: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        executor: str = "auto",
        **params: float,
    ) -> Policy:
        """Load a strategy and bind it.

        Args:
            source: a registered name, one of timm's strings (rand-m9-mstd0.5-inc1), a path (it has a path separator or
                ends in .yaml, .yml or .json) or a mapping.
            class_counts: training images of each class, by class number.
            class_names: names of the classes; their number is enough where counts are not needed.
            groups: how many groups there are, or their names.
            num_samples: length of the training set where state has a `samples` axis; the sum of the counts otherwise.
            epochs: planned length of the training, for schedules.
            seed: of every random number.
            device: where the policy works; without it, wherever the first images are.
            out: a normalised output instead of the images' own dtype.
            image: settings that override the document's `image`.
            label_smoothing: 0..1, for documents that mix images and so return dense targets.
            executor: `batched` runs whole batches with torch, `opencv` one image at a time over torch's number of
                threads, on the CPU; `auto` takes what was measured to be faster for the device and the image's size.
                `compiled` is `batched` through `torch.compile` and CUDA graphs, for a GPU: it compiles for half a
                minute or more for each size of images, and then not again, whatever is drawn. Pixels may differ by 1.
            params: values that override the document's `params`.

        Raises:
            DocumentError: the document is wrong, or needs something that was not given.
        """
        names = registry()
        strategy = load_strategy(source, names, params=params or None, image=image)
        return cls(
            strategy,
            class_counts=class_counts,
            class_names=class_names,
            groups=groups,
            num_samples=num_samples,
            epochs=epochs,
            seed=seed,
            device=device,
            out=out,
            label_smoothing=label_smoothing,
            executor=executor,
            registry=names,
        )

    @property
    def state(self) -> dict[str, Tensor]:
        """The learned state of the document itself, by name; of a strategy that it uses, as `path/name`."""
        return {
            bound.path + name: self.memory.values[bound.path][name]
            for bound in self.program.bounds
            for name in bound.strategy.state
        }

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the results that each image gives, in order; empty for a document without views."""
        return self.strategy.view_names

    def __repr__(self) -> str:
        executor = self.executor + (f" ({self.last_executor})" if self.last_executor else "")
        about = f"classes={self.num_classes}, epoch={self.epoch}, seed={self.seed}, executor={executor}"
        return f'Policy("{self.strategy.name}", {about})'

    def to(self, device: torch.device | str) -> Policy:
        """Move tables and learned state; returns the policy."""
        self.device = device_of(device)
        self.program = self.program.to(self.device)
        self.memory.program = self.program
        self.memory.to(self.device)
        self.statistics.to(self.device)
        if self.pool is not None:
            self.pool.to(self.device)
        return self

    def attach_pool(self, pool: Pool) -> None:
        """Draw partners from this pool."""
        if pool.num_classes != (self.num_classes or 1):
            raise InputError(f"the pool has {pool.num_classes} classes, the policy {self.num_classes}")
        self.pool = pool

    def attach_model(
        self,
        model: nn.Module,
        pool: ProbePool,
        prepare: Callable[[Tensor], Tensor] | None = None,
        *,
        answer: Answer | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] | None = None,
        batch: int | None = None,
    ) -> None:
        """Give the probes of a document the model and the training images that they ask about.

        Args:
            model: the module that the loop calls; asked in evaluation mode, after which its own mode is restored.
            pool: the training images; what a loop does to images before the policy they must have behind them.
            prepare: augmented images (uint8, or as `out` says) to the model's input; without it uint8 becomes 0..1.
            answer: (the model's output, targets [N]) to [N] bool, which answers are right; by default those whose
                largest logit is the target's. It judges training answers that are counted by level too.
            autocast: makes the context of the forward pass, if it has one.
            batch: images a batch; it changes no number but by the rounding of the model.
        """
        self.answer = answer or self.answer
        attach(self, Asked(model, pool, self.answer, prepare, autocast or nullcontext, batch))

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        index: Tensor | None = None,
        group: Tensor | None = None,
        is_synthetic: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: [B, C, H, W] uint8, or floating point in 0..1; never written to. Floats too are worked on as bytes:
                an image that meets an operator comes back in steps of 1/255, one that meets none as it was.
            targets: [B] int64 class numbers.
            index: [B] int64 position of each image in the data set; makes the draw independent of batching and order.
            group: [B] int64 group numbers, for documents that use them.
            is_synthetic: [B] bool, whether an image was generated, likewise.

        Returns:
            images of the same dtype (or as `out` says), and the targets: dense [B, C] float32 if the document mixes,
            otherwise the ones given. With V views [V * B, C, H, W] and [V * B]: all images of the first view, then of
            the second, as `views` names them (the layout of timm's JsdCrossEntropy).

        Raises:
            InputError: a shape, dtype, range or device does not fit.
            StateError: the epoch before ended without the `observe` that the document needs.
        """
        plan = self.plan(targets, index=index, group=group, is_synthetic=is_synthetic, images=images)
        return self.apply(images, plan)

    def plan(
        self,
        targets: Tensor,
        *,
        index: Tensor | None = None,
        group: Tensor | None = None,
        is_synthetic: Tensor | None = None,
        images: Tensor | None = None,
    ) -> Plan:
        """Draw the next batch's plan, and count it as what happens to these images.

        `images` only feed the pool of a document that draws partners from it.
        """
        indices = check_batch(self, targets, images, {"index": index, "group": group, "is_synthetic": is_synthetic})
        self._settle_device(targets)
        self.begin_epoch()
        if self.pool is not None and images is not None and draws_partners(self.strategy):
            kept = images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)
            self.pool.add(kept, indices["y"], indices.get("index"))
        if "step" in self.strategy.reads:
            self.memory.set_signals({"step": torch.full((), float(self.step), device=self.device)})
        key = key_of(self.seed, self.epoch, "image")
        keys = image_keys(key, len(targets), indices.get("index"), self.occurrences, self.batch, self.device)
        self._bank.begin(keys)
        env = self.memory.environment(self.program.root, "draw", self.epoch).for_batch(keys, self._bank, indices)
        plan = draw(self.program, self.memory.values, env, self.pool, mixing=self.mixing and self.enabled)
        if not self.enabled:
            plan = plan.without_operators()
        self.batch += 1
        self.step += 1
        self.last_plan = plan
        if self.counting:
            count(self)
        return plan

    def apply(self, images: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """Do what a plan says: the same plan and images give the same result, as long as the pool holds the same
        images (only documents with `partner: pool` look there). Shapes as for calling the policy.

        Raises:
            InputError: the plan was drawn for another number of images.
        """
        check_images(images, first=False, out=self.out)
        check_plan(plan, images)
        partners = tuple(
            self.pool.gather(mix.partner) if mix.pooled and self.pool is not None else None for mix in plan.mixes
        )
        self.last_executor, executor = choose(self.executor, images)
        result = execute(images, plan, executor, out=self.out, partners=partners)
        if not self.strategy.mixes:
            return result, plan.targets.repeat(len(plan.views)) if plan.views else plan.targets
        size = (images.shape[-2], images.shape[-1])
        return result, mix_targets(plan, plan.targets, self.num_classes or 1, self.label_smoothing, size)

    def begin_epoch(self) -> None:
        """Make the probes and run the rules of an epoch's start; the first batch of an epoch does this by itself.

        Raises:
            StateError: the document asks the model, and none was attached.
        """
        if self.began:
            return
        self.memory.set_signals({"epoch": torch.full((), float(self.epoch), device=self.device)})
        if "model" in self.needs:
            ask_model(self)
        self.began = True
        self.memory.run("epoch_start", self.epoch)

    def observe(
        self,
        logits: Tensor | tuple[Any, ...] | dict[str, Any],
        targets: Tensor | None = None,
        split: str = "train",
        *,
        levels: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Count the model's answers by the images' own labels, on the device. Call it once for each batch.

        Args:
            logits: [B, C]; of [B, experts, C] the mean counts, of a tuple or a dict the first tensor [B, C]. With V
                views [V * B, C], or without targets of as many views as were asked, of which the first B count.
            targets: [B], or [V * B], int64; without them, those of the last batch. Needed for `val`.
            split: `train`, or `val` for the `val_*` signals.
            levels: `plan.levels` of these images, for documents that count by level; else those of the last batch.

        Raises:
            InputError: shapes do not fit, or there was no batch yet.
        """
        own, labels = observed(self, logits, targets, split)
        if self.num_classes is None:
            return
        self.statistics.count_answers(own, labels, split)
        if split == "train" and self.statistics.levels:
            levels = levels_of(self, levels, len(labels))
            self.statistics.count_levels(levels, labels, judged(self, logits, own, labels))

    def end_epoch(self) -> None:
        """Run the rules of an epoch's end with its counts, and begin to count anew.

        Raises:
            StateError: the document learns from answers, and nobody showed it any in this epoch.
        """
        self.begin_epoch()
        self.statistics.reduce()
        refuse_unwatched(self)
        sums = {name: value.clone() for name, value in self.statistics.sums.items()}
        held = self.memory.by_class()
        self.memory.set_signals({**sums, "step": torch.full((), float(self.step), device=self.device)})
        self.memory.run("epoch_end", self.epoch)
        counts = {name: value.cpu() for name, value in {**sums, **self.memory.asked()}.items()}
        self.history.append({"epoch": self.epoch, **held, **counts})
        told = self.memory.complaint(self.epoch)
        if told and not self.warnings:
            self.warnings.append(told)
        self.statistics.reset()
        self.occurrences.reset()
        self.epoch += 1
        self.batch, self.began = 0, False

    def restart_epoch(self) -> None:
        """Forget the batches drawn in the epoch under way, so that it begins anew; counts of validation stay."""
        self.statistics.restart()
        self.occurrences.reset()
        self.step -= self.batch
        self.batch = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, seed included; tensors on the CPU."""
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state.

        Raises:
            StateError: it belongs to another document or data set.
        """
        restore(self, state)

    def _settle_device(self, targets: Tensor) -> None:
        if targets.device == self.device:
            return
        if self._settled:
            raise InputError(
                f"the policy works on {self.device} but the batch is on {targets.device}; load it with that device="
            )
        self.to(targets.device)
