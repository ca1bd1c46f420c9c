"""The training loop: base before, policy, base after, normalise, model, loss, backward, observe; stage by stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from augkit.errors import AugkitError, DocumentError, InputError
from augkit.lab import coreset_epochs, experts, fairness, models, named
from augkit.lab.augmentation import Normalise, build_policy, probe_pool
from augkit.lab.course import Stage, plan
from augkit.lab.data import Data
from augkit.lab.heads import linear_layer, weight_norms
from augkit.lab.losses import made_for_cosines
from augkit.lab.recipe import Recipe
from augkit.lab.recipe_parts import LossRecipe
from augkit.lab.training import Record, Training
from augkit.lab.view_choice import ChoosesViews
from augkit.learning.probes import Answer
from augkit.policy import Policy
from augkit.registry import Registry


def prepare(recipe: Recipe, data: Data, registry: Registry, device: torch.device) -> Training:
    """Model, policy and stages of a recipe, the first stage entered, before the first step.

    Raises:
        DocumentError: one of them cannot be built, or the model does not take images of this size.
    """
    model = models.made(recipe, data.num_classes, registry)
    if recipe.model.weights is not None:
        models.load_weights(model, Path(recipe.model.weights))
    model = model.to(device)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    policy = build_policy(recipe, data, registry, device)
    stages = plan(recipe, data, registry, device, model)
    if stages[-1].fitted:
        linear_layer(model)
    for stage in stages:
        _check_loss(stage, registry, policy, stages[0].recipe.loss)
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
    chooser = coreset_epochs.prepare(recipe, len(data.train), registry, device)
    run = Training(recipe, data, device, model, policy, stages, normalise, _judge(recipe, registry), chooser)
    _check_experts(run, _try(run))
    if "model" in policy.needs:
        policy.attach_model(model, probe_pool(data.train, recipe.seed), run.layout, autocast=run.autocast)
    return run


def _check_loss(stage: Stage, registry: Registry, policy: Policy, first: LossRecipe) -> None:
    """Raise unless the loss of a stage can be reckoned with this policy, model and the first stage's loss."""
    recipe, name = stage.recipe, stage.recipe.loss.name
    path = _loss_path(stage)
    cosines = [made_for_cosines(registry.losses[loss.name], loss.options) for loss in (first, recipe.loss)]
    if cosines[0] != cosines[1]:
        which = f'"{first.name}" is made for a last layer of cosines and "{name}" is not'
        which = which if cosines[0] else f'"{name}" is made for a last layer of cosines and "{first.name}" is not'
        raise DocumentError(f"{which}: a model has one last layer for all stages, take another loss", path=path)
    _check_views(registry.losses[name], name, policy, recipe.policy_name, path)
    chooses = isinstance(stage.loss.function, ChoosesViews)
    if (chooses or "views" in stage.loss.wanted) and len(policy.views) < 2:
        does, such = ("chooses among", "invariance_proposals") if chooses else ("compares", "augmix")
        raise DocumentError(
            f'"{name}" {does} views of an image, and "{recipe.policy_name}" makes none: take a policy'
            f" with views, such as {such}, or another loss",
            path=path,
        )
    if getattr(registry.losses[name], "wants_labels", False) and policy.strategy.mixes:
        raise DocumentError(
            f'"{name}" needs to know the one class of each image, and "{recipe.policy_name}" mixes images:'
            " take a policy that does not, or another loss",
            path=path,
        )
    if "features" in stage.loss.wanted and recipe.compile:
        raise DocumentError(
            f'"{name}" looks at what the last layer is given, which a compiled model does not show: set compile to'
            " false",
            path="compile",
        )


def _check_views(loss: Callable[..., Tensor], name: str, policy: Policy, policy_name: str, path: str) -> None:
    """Raise unless a policy makes as many views as a loss wants, and first the one that it takes for the first."""
    made = len(policy.views)
    wanted = getattr(loss, "wants_views", made)
    if made != wanted:
        raise DocumentError(
            f'"{name}" takes {wanted} views of each image, and "{policy_name}" makes {made or "none"}: take a policy'
            f" that makes {wanted}, or another loss",
            path=path,
        )
    first = getattr(loss, "first_view", None)
    if first in policy.views[1:]:
        raise DocumentError(
            f'"{name}" takes views in their order and "{first}" as the first, and in "{policy_name}" another comes'
            f' before it, "{policy.views[0]}": write "{first}" first',
            path=path,
        )


def _loss_path(stage: Stage) -> str:
    return "loss" if stage.number == 0 else f"{stage.path}.loss"


def _judge(recipe: Recipe, registry: Registry) -> Callable[[Tensor], Answer]:
    """What counts as a right answer in this recipe."""
    function = named.bind(registry.answers[recipe.answer.name], recipe.answer.options, named.ANSWER_FACTS)

    def judge(class_counts: Tensor) -> Answer:
        return lambda output, targets: function(experts.stacked(output), targets, class_counts=class_counts)

    return judge


@torch.no_grad()
def _try(run: Training) -> int:
    """One black image through the model; neither its state nor a random generator is changed.

    Returns:
        How many experts answered.

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
            output = experts.stacked(run.model(images))
            answer = experts.joint(output)
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
    return output.shape[1] if output.ndim == 3 else 1


def _check_experts(run: Training, number: int) -> None:
    """Raise if a loss is there to make several experts of a model differ, and it has a single one."""
    for stage in run.stages:
        if number == 1 and getattr(stage.loss.function, "wants_experts", False):
            raise DocumentError(
                f'"{stage.recipe.loss.name}" drives experts apart, and this model has a single one: set model.experts'
                " to 2 or more, or diversity_factor to 0",
                path=_loss_path(stage),
            )


def train_epoch(run: Training, on_step: Callable[[int, int, str], None] | None = None) -> Record:
    """One epoch, validation included; appends its record and returns it.

    `seconds` is the training part as a whole, `seconds_input` what loading, augmentation, normalisation, counting and
    update rules took of it (on the CPU, where a clock can tell; None on a GPU, which works on while the host draws).
    `on_step` is told how many of how many batches are done, and of what: "epoch", or "choosing" before it.

    Raises:
        AugkitError: the loss is no longer finite.
    """
    policy, split = run.policy, run.data.train
    if run.epoch == run.stage.end:
        run.enter(run.number + 1)
    if run.stage.fitted:
        return _fit(run)
    run.model.eval()  # outside the part that learns: batch statistics stay as they are
    run.part.train()
    run.schedule.step(run.epoch - run.stage.begin)
    total, seconds_input, begin = torch.zeros((), device=run.device), 0.0, time.perf_counter()
    choice = None if run.chosen is None else coreset_epochs.choose(run, on_step)
    order = coreset_epochs.batches(run)
    places = [part.to(run.device) for part in order]
    positions = [place % len(split) for place in places]
    batches = split.batches(positions)
    for step, (place, where) in enumerate(zip(places, positions, strict=True)):
        tick = time.perf_counter()
        inputs, targets = policy(next(batches), split.labels[where], **(split.companions(where) | {"index": place}))
        inputs = run.layout(inputs)
        seconds_input += time.perf_counter() - tick

        run.optimizer.zero_grad(set_to_none=True)  # before a CUDA graph may write where the last gradients were
        logits, loss = run.answer(inputs, targets, where, coreset_epochs.weights(run, place))
        run.step(loss)

        tick = time.perf_counter()
        policy.observe(logits.detach())
        total += loss.detach() * len(where)  # summed on the device: a step waits for nothing
        seconds_input += time.perf_counter() - tick
        if on_step is not None:
            on_step(step + 1, len(positions), "epoch")
    record = _trained(run, order, choice, total)
    return _finish_epoch(run, record, time.perf_counter() - begin, seconds_input)


def _trained(run: Training, order: list[Tensor], choice: Record | None, total: Tensor) -> Record:
    """What is noted of an epoch's steps; waits for the device to have done them."""
    record: Record = {"epoch": run.epoch, "stage": run.stage.name, "lr": run.optimizer.param_groups[0]["lr"]}
    if run.data.synthetic.any():
        record["synthetic"] = float(run.data.synthetic[torch.cat(order).numpy() % len(run.data.train)].mean())
    if choice is not None:
        record["subset"] = choice
    record |= run.told()
    record["loss"] = float(total) / sum(map(len, order))
    if not math.isfinite(record["loss"]):
        raise AugkitError(f"the training loss is {record['loss']} after epoch {run.epoch}; try a lower optimizer.lr")
    return record


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
    """Validation, the policy's update rules, what is told at the end of a stage but the last, and the record."""
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
    if run.stage is not run.stages[-1] and record["epoch"] + 1 == run.stage.end:
        _end_stage(run, record)
    run.records.append(record)
    return record


def _end_stage(run: Training, record: Record) -> None:
    """What is told of a model that another stage goes on with."""
    record["weight_norms"] = weight_norms(run.model, run.data.num_classes)
    if not run.recipe.test:
        return
    scores, logits = run.evaluate(run.data.test)  # told, and nothing else
    record["test"] = scores.summary(run.data.real_counts)
    by_group = fairness.measure(logits, run.data.test, run.data)
    if by_group is not None:
        record["test_groups"] = by_group.summary()
