"""Optimisers and learning-rate schedules: timm's by name, and the step schedule of the long-tailed CIFAR papers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from augkit.errors import DocumentError, nearest
from augkit.lab.recipe import Recipe
from augkit.lab.recipe_parts import OptimizerRecipe
from augkit.torchvision_compat import ensure_torchvision

ensure_torchvision()

# torchvision must be importable first
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]  # noqa: E402
from timm.scheduler.scheduler import Scheduler  # noqa: E402
from timm.scheduler.scheduler_factory import create_scheduler_v2  # noqa: E402

# plateau looks at a measured score, and the lab selects nothing by a score
TIMM_SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly", "wsd", "rsqrt", "constant")


class PublishedSteps(Scheduler):
    """Linear warm-up over 5 epochs, then lr x 0.01 from epoch 160 on and x 0.0001 from 180 on, of 200 (LDAM, CUDA).

    With another number of epochs the three boundaries are scaled alike. timm's `multistep` is not used because it
    drops at the epoch before the milestone and warms up from another value.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        warmup: float = 5,
        milestones: Sequence[float] = (160, 180),
        decay: float = 0.01,
    ) -> None:
        self.warmup = round(warmup * epochs / 200)
        self.milestones = [round(milestone * epochs / 200) for milestone in milestones]
        self.decay = decay
        super().__init__(optimizer, param_group_field="lr")

    def factor(self, epoch: int) -> float:
        """What the base rate is multiplied with in `epoch`, 0-based."""
        if epoch < self.warmup:
            return (epoch + 1) / self.warmup
        return float(self.decay ** sum(epoch >= milestone for milestone in self.milestones))

    def _get_lr(self, t: int) -> list[float]:
        return [value * self.factor(t) for value in self.base_values]


def check(optimizer: str, schedule: str) -> None:
    """Raise a DocumentError if there is no optimiser or no schedule by these names."""
    known = [str(name) for name in list_optimizers()]
    if optimizer not in known:
        hint = nearest(optimizer, known)
        hint = hint if "Did you mean" in hint else " `timm.optim.list_optimizers()` lists them."
        raise DocumentError(f'timm knows no optimiser "{optimizer}".{hint}', path="optimizer.name")
    if schedule not in ("published", *TIMM_SCHEDULES):
        hint = nearest(schedule, ("published", *TIMM_SCHEDULES))
        raise DocumentError(f'there is no schedule "{schedule}".{hint}', path="schedule.name")


def optimizer(recipe: OptimizerRecipe, model: nn.Module) -> torch.optim.Optimizer:
    """A timm optimiser over the model's parameters."""
    check(recipe.name, "published")
    settings = recipe.model_dump(exclude={"name", "options"}) | recipe.options
    made: torch.optim.Optimizer = _call(create_optimizer_v2, "optimizer", model, opt=recipe.name, **settings)
    return made


def schedule(recipe: Recipe, optimizer: torch.optim.Optimizer) -> Scheduler:
    """The schedule of a recipe; call `.step(epoch)` at the beginning of each epoch."""
    name, options = recipe.schedule.name, recipe.schedule.options
    if name == "published":
        steps: Scheduler = _call(PublishedSteps, "schedule", optimizer, recipe.epochs, **options)
        return steps
    check("sgd", name)
    made: Scheduler = _call(
        create_scheduler_v2, "schedule", optimizer, sched=name, num_epochs=recipe.epochs, **options
    )[0]
    return made


def _call(function: Callable[..., Any], path: str, *args: Any, **options: Any) -> Any:
    """Call, and turn an option that does not fit into an error of the recipe."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in options if name not in parameters]
    if unknown and not takes_any:
        hint = nearest(unknown[0], parameters)
        raise DocumentError(f'"{unknown[0]}" is not an option of it.{hint}', path=f"{path}.options")
    try:
        return function(*args, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise DocumentError(f"it does not take these options: {error}", path=f"{path}.options") from error
