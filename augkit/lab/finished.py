"""Models of finished runs that are asked and not trained: by `augkit robustness`, and by plugins."""

from __future__ import annotations

import torch

from augkit.errors import DocumentError
from augkit.lab.data import Data
from augkit.lab.loop import prepare
from augkit.lab.recipe import Recipe
from augkit.lab.recipe_parts import LossRecipe, PolicyRecipe
from augkit.lab.training import Training
from augkit.registry import Registry


def prepare_finished(recipe: Recipe, data: Data, registry: Registry, device: torch.device) -> Training:
    """The run before its first step, without what only training needs and may be gone by now: the weights that it began
    with, teachers, and the policy, unless the loss compares the policy's views.

    Raises:
        DocumentError: something else of it cannot be built.
    """
    plain = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"weights": None}),
            "loss": _untaught(recipe.loss),
            "stages": tuple(
                stage.model_copy(update={"loss": stage.loss and _untaught(stage.loss)}) for stage in recipe.stages
            ),
        }
    )
    try:
        return prepare(plain.model_copy(update={"policy": PolicyRecipe()}), data, registry, device)
    except DocumentError:
        return prepare(plain, data, registry, device)


def enter_stages(run: Training, last: int) -> None:
    """Enter the stages up to one that the run reached; its model may have another form in each."""
    for number in range(run.number + 1, last + 1):
        run.enter(number)


def _untaught(loss: LossRecipe) -> LossRecipe:
    return LossRecipe.model_validate({name: value for name, value in loss.model_dump().items() if name != "teacher"})
