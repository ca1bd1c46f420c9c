"""The training loop: base before, policy, base after, normalise, model, loss, backward, observe; stage by stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augkit.binding import class_signals
from augkit.errors import AugkitError, DocumentError, InputError
from augkit.lab import experts, fairness, metrics, models, named, optimise
from augkit.lab.augmentation import Normalise, build_policy, probe_pool
from augkit.lab.course import Stage, plan
from augkit.lab.data import Data, Split
from augkit.lab.embeddings import Embeddings, embed
from augkit.lab.heads import linear_layer
from augkit.lab.recipe import Recipe
from augkit.learning.probes import Answer
from augkit.policy import Policy
from augkit.registry import Registry

Record = dict[str, Any]


@dataclass
class Training:
    """Everything a run needs between two steps; `state_dict` is what a checkpoint holds."""

    recipe: Recipe
    data: Data
    device: torch.device
    model: nn.Module
    policy: Policy
    stages: tuple[Stage, ...]
    normalise: Normalise
    judge: Callable[[Tensor], Answer]
    """What counts as a right answer of a model that was trained on so many images of each class, [C] float32."""
    records: list[Record] = field(default_factory=list)
    """One for each finished epoch."""
    number: int = -1
    """Of the stage that was entered last."""
    part: nn.Module = field(init=False)
    """What learns in it."""
    optimizer: torch.optim.Optimizer = field(init=False)
    schedule: Any = field(init=False)
    compiled: Callable[[Tensor], Any] | None = None

    def __post_init__(self) -> None:
        if self.recipe.compile:
            mode = "reduce-overhead" if self.device.type == "cuda" else None  # CUDA graphs
            self.compiled = torch.compile(self.model, dynamic=False, mode=mode)
        self.fixed = frozenset(name for name, p in self.model.named_parameters() if not p.requires_grad)
        self.enter(0)

    @property
    def stage(self) -> Stage:
        """The one that was entered last."""
        return self.stages[self.number]

    def enter(self, number: int) -> None:
        """Begin a stage: choose the part that learns, with an optimiser and a schedule of its own."""
        self.number = number
        self.part = self.stage.enter(self.model, self.device)
        learning = {id(parameter) for parameter in self.part.parameters()}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(id(parameter) in learning and name not in self.fixed)
        self.optimizer = optimise.optimizer(self.stage.recipe.optimizer, self.part)
        self.schedule = optimise.schedule(self.stage.recipe, self.optimizer)
        self.policy.mixing = self.stage.mixing
        self.policy.memory.set_signals(class_signals(self.stage.class_counts))
        self.policy.answer = self.judge(self.stage.class_counts)

    def loss(self, logits: Tensor, targets: Tensor, where: Tensor) -> Tensor:
        """The recipe's loss, told where the stage stands: logits [B, C] or [B, experts, C], targets [B] or [B, C].

        `where` are the images' positions in the training split; with V views logits and targets are V times as many.
        """
        stage, logits, groups = self.stage, logits.float(), self.data.train.groups
        facts: dict[str, Any] = {
            **stage.facts,
            "epoch": self.epoch - stage.begin,
            "views": len(self.policy.views),
            "groups": None if groups is None else groups[where].repeat(max(1, len(self.policy.views))),
        }
        if "experts" in stage.loss.wanted:
            all_of_them = logits if logits.ndim == 3 else logits[:, None]
            return stage.loss(experts.joint(logits), targets, experts=all_of_them, **facts)  # type: ignore[no-any-return]
        single = (logits,) if logits.ndim == 2 else logits.unbind(1)
        each: list[Tensor] = [stage.loss(one, targets, **facts) for one in single]
        return each[0] if len(each) == 1 else torch.stack(each).sum()

    @property
    def epoch(self) -> int:
        """The epoch to run next, 0-based."""
        return len(self.records)

    def state_dict(self) -> dict[str, Any]:
        """Model, optimiser, schedule, policy, random state and records. The data's order needs only seed and epoch."""
        plain = (int, float, str, list, type(None))
        schedule = {name: value for name, value in self.schedule.state_dict().items() if isinstance(value, plain)}
        random, loss = {"cpu": torch.get_rng_state()}, self.stage.loss.function
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "recipe": self.recipe.hash,
            "stage": self.number,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": schedule,
            "policy": self.policy.state_dict(),
            "loss": loss.state_dict() if hasattr(loss, "state_dict") else {},
            "random": random,
            "records": self.records,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        for number in range(self.number + 1, state["stage"] + 1):
            self.enter(number)  # the model may have another form afterwards
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.policy.load_state_dict(state["policy"])
        if hasattr(self.stage.loss.function, "load_state_dict"):
            self.stage.loss.function.load_state_dict(state["loss"])
        self.records = list(state["records"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)

    def forward(self, inputs: Tensor) -> Any:
        """The model's output in training. A smaller last batch goes uncompiled: its size would be compiled for itself.

        Raises:
            AugkitError: the model cannot be compiled.
        """
        if self.compiled is None or len(inputs) < self.recipe.batch_size * max(1, len(self.policy.views)):
            return self.model(inputs)
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        try:
            return self.compiled(inputs)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n")[:2]).strip()
            raise AugkitError(
                f'compile: true does not work with "{self.recipe.model.name}" here ({reason}); set compile to false'
            ) from error

    def autocast(self) -> torch.autocast:
        """The context of forward passes: bfloat16 where the recipe asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def layout(self, images: Tensor) -> Tensor:
        """The memory layout that the recipe asks for."""
        return images.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else images

    def evaluate(self, split: Split) -> tuple[metrics.Scores, Tensor]:
        """Scores and logits of a split, in eval mode."""

        def ready(images: Tensor) -> Tensor:
            return self.layout(self.normalise(images))

        return metrics.evaluate(self.model, split, self.data.num_classes, ready, self.autocast())

    def embeddings(self, which: str) -> Embeddings:
        """What the last layer is given: "train" is the stage's images, "val" those that were held out."""
        split, rows = (self.data.train, self.stage.rows) if which == "train" else (self.data.val, None)
        assert split is not None  # `plan` refuses a stage that is fitted without any
        return embed(self.evaluate, split, linear_layer(self.model), rows)


def prepare(recipe: Recipe, data: Data, registry: Registry, device: torch.device) -> Training:
    """Model, policy and stages of a recipe, the first stage entered, before the first step.

    Raises:
        DocumentError: one of them cannot be built, or the model does not take images of this size.
    """
    model = models.create(recipe.model.name, data.num_classes, recipe.model.options, recipe.seed)
    if getattr(registry.losses[recipe.loss.name], "wants_cosines", False):
        models.give_cosines(model)
    if recipe.model.weights is not None:
        models.load_weights(model, Path(recipe.model.weights))
    model = model.to(device)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    policy = build_policy(recipe, data, registry, device)
    stages = plan(recipe, data, registry, device)
    if stages[-1].fitted:
        linear_layer(model)
    if "views" in stages[0].loss.wanted and len(policy.views) < 2:
        raise DocumentError(
            f'"{recipe.loss.name}" compares views of an image, and "{recipe.policy_name}" makes none: take a policy'
            " with views, such as augmix, or another loss",
            path="loss",
        )
    if getattr(registry.losses[recipe.loss.name], "wants_labels", False) and policy.strategy.mixes:
        raise DocumentError(
            f'"{recipe.loss.name}" needs to know the one class of each image, and "{recipe.policy_name}" mixes images:'
            " take a policy that does not, or another loss",
            path="loss",
        )
    if not recipe.test and data.val is None:
        raise DocumentError(
            "nothing measures this run: leave test at true, or hold images out with data.validation_per_class",
            path="test",
        )
    if not recipe.test and stages[-1].fits_validation:
        raise DocumentError(
            f'nothing measures this run, since "{stages[-1].name}" is fitted on the validation images: leave test at'
            " true, or say fit_on: training",
            path="test",
        )
    normalise = Normalise(recipe.data.mean, recipe.data.std).to(device)
    run = Training(recipe, data, device, model, policy, stages, normalise, _judge(recipe, registry))
    _try(run)
    if "model" in policy.needs:
        policy.attach_model(model, probe_pool(data.train, recipe.seed), run.layout, autocast=run.autocast)
    return run


def _judge(recipe: Recipe, registry: Registry) -> Callable[[Tensor], Answer]:
    """What counts as a right answer in this recipe."""
    function = named.bind(registry.answers[recipe.answer.name], recipe.answer.options, named.ANSWER_FACTS)

    def judge(class_counts: Tensor) -> Answer:
        return lambda output, targets: function(experts.stacked(output), targets, class_counts=class_counts)

    return judge


@torch.no_grad()
def _try(run: Training) -> None:
    """One black image through the model; neither its state nor a random generator is changed.

    Raises:
        DocumentError: it does not take images of this size, or answers with something else than a number a class.
    """
    size, name, was_training = run.data.train.size, run.recipe.model.name, run.model.training
    images = run.layout(torch.zeros(1, 3, size, size, device=run.device))
    wanted = getattr(run.model, "pretrained_cfg", {}).get("input_size", (3, size, size))[-1]
    hint = f"set data.image_size to {wanted} or take another model" if wanted != size else "take another model"
    run.model.eval()
    try:
        with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []), run.autocast():
            answer = experts.joint(run.model(images))
    except InputError:
        answer = None
    except Exception as error:  # whatever any of timm's models makes of a size that it was not built for
        reason = str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
        raise DocumentError(
            f'"{name}" does not take images of {size} x {size} pixels ({reason}): {hint}', path="model"
        ) from error
    finally:
        run.model.train(was_training)
    if answer is None or answer.shape != (1, run.data.num_classes):
        raise DocumentError(
            f'"{name}" with these options gives no [images, {run.data.num_classes}] logits', path="model.options"
        )


def train_epoch(run: Training, on_step: Callable[[int, int], None] | None = None) -> Record:
    """One epoch, validation included; appends its record and returns it.

    `seconds` is the training part as a whole, `seconds_input` what loading, augmentation, normalisation, counting and
    update rules took of it (on the CPU, where a clock can tell; None on a GPU, which works on while the host draws).

    Raises:
        AugkitError: the loss is no longer finite.
    """
    policy, split, epoch = run.policy, run.data.train, run.epoch
    if epoch == run.stage.end:
        run.enter(run.number + 1)
    if run.stage.fitted:
        return _fit(run)
    run.model.eval()  # outside the part that learns: batch statistics stay as they are
    run.part.train()
    run.schedule.step(epoch - run.stage.begin)
    total, seconds_input, begin = torch.zeros((), device=run.device), 0.0, time.perf_counter()
    chosen = run.stage.batches(epoch)
    positions = [part.to(run.device) for part in chosen]
    batches = split.batches(positions)
    for step, where in enumerate(positions):
        tick = time.perf_counter()
        inputs, targets = policy(next(batches), split.labels[where], **split.companions(where))
        inputs = run.layout(inputs)
        seconds_input += time.perf_counter() - tick

        run.optimizer.zero_grad(set_to_none=True)  # before a CUDA graph may write where the last gradients were
        with run.autocast():
            logits = experts.stacked(run.forward(inputs))
        loss = run.loss(logits, targets, where)
        loss.backward()
        run.optimizer.step()

        tick = time.perf_counter()
        policy.observe(logits.detach())
        total += loss.detach() * len(where)  # summed on the device: a step waits for nothing
        seconds_input += time.perf_counter() - tick
        if on_step is not None:
            on_step(step + 1, len(positions))
    record: Record = {"epoch": epoch, "stage": run.stage.name, "lr": run.optimizer.param_groups[0]["lr"]}
    if run.data.synthetic.any():
        record["synthetic"] = float(run.data.synthetic[torch.cat(chosen).numpy()].mean())
    record["loss"] = float(total) / len(run.stage.rows)
    seconds = time.perf_counter() - begin
    if not math.isfinite(record["loss"]):
        raise AugkitError(f"the training loss is {record['loss']} after epoch {epoch}; try a lower optimizer.lr")
    return _finish_epoch(run, record, seconds, seconds_input)


def _fit(run: Training) -> Record:
    """The one epoch of a stage that is fitted; loss and accuracy are of all training images, as they are."""
    begin, stage, train = time.perf_counter(), run.stage, run.data.train
    run.model.eval()
    stage.function(run.model, embeddings=run.embeddings, seed=stage.seed, **stage.facts)
    record: Record = {"epoch": run.epoch, "stage": stage.name, "lr": 0.0}
    scores, logits = run.evaluate(train)
    record["loss"] = float(nn.functional.cross_entropy(logits, train.labels))
    record |= {"train_accuracy": scores.accuracy, "seconds": time.perf_counter() - begin, "seconds_input": None}
    if not stage.fits_validation:
        _validate(run, record)
    run.records.append(record)
    return record


def _validate(run: Training, record: Record) -> Tensor | None:
    """Measure on the validation images; their logits."""
    if run.data.val is None:
        return None
    scores, logits = run.evaluate(run.data.val)
    record["val"] = scores.summary(run.data.real_counts)
    return logits


def _finish_epoch(run: Training, record: Record, seconds: float, seconds_input: float) -> Record:
    """Validation, the policy's update rules, the test set at the end of a stage but the last, and the record."""
    logits = _validate(run, record)
    if logits is not None and run.data.val is not None:
        run.policy.observe(logits, run.data.val.labels, split="val")
    tick = time.perf_counter()
    run.policy.end_epoch()
    rules = time.perf_counter() - tick
    counted = run.policy.history[-1]
    correct, seen = (float(torch.as_tensor(counted[name]).double().sum()) for name in ("correct", "seen"))
    record["train_accuracy"] = correct / max(1.0, seen)
    record["seconds"] = seconds + rules
    record["seconds_input"] = seconds_input + rules if run.device.type == "cpu" else None
    if "model" in run.policy.needs:
        record["seconds_probes"] = run.policy.probe_seconds  # part of the others
    if run.recipe.test and run.stage is not run.stages[-1] and record["epoch"] + 1 == run.stage.end:
        scores, logits = run.evaluate(run.data.test)  # told, and nothing else
        record["test"] = scores.summary(run.data.real_counts)
        by_group = fairness.measure(logits, run.data.test, run.data)
        if by_group is not None:
            record["test_groups"] = by_group.summary()
    run.records.append(record)
    return record
