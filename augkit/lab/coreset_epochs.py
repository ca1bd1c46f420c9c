"""How a run uses a chosen part of its images: choosing, which images then meet the policy, and what they weigh.

An epoch's images are told by their positions in the training split, n images long. Where chosen images come once more
(`of: appended`), a position plus n is an image that the policy leaves alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from augkit.engine.streams import key_of
from augkit.errors import DocumentError
from augkit.lab import coresets, experts, named
from augkit.lab.data import in_batches
from augkit.lab.epochs import whole
from augkit.lab.ratios import shares
from augkit.lab.recipe import Recipe
from augkit.learning.probes import examined
from augkit.registry import Registry

if TYPE_CHECKING:
    from augkit.lab.training import Training

MET = "augmented"
"""State of a recipe's combined document, [samples]: 1 for images that the policy may change."""
BATCH = 512
OnStep = Callable[[int, int, str], None]


@dataclass
class Chosen:
    """A recipe's chooser, and what it chose last."""

    chooser: named.Bound
    rows: Tensor
    """[S] int64 positions in the training split, rising, on the device."""
    weights: Tensor
    """[n] or [2 n] float32, by an image's place in an epoch; the chosen ones' have a mean of 1, others' are 1."""
    weighted: bool = False
    """Whether any weight is not 1."""

    def state_dict(self) -> dict[str, Any]:
        """What was chosen, on the CPU."""
        return {"rows": self.rows.cpu(), "weights": self.weights.cpu(), "weighted": self.weighted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was chosen."""
        device = self.rows.device
        self.rows, self.weights = state["rows"].to(device), state["weights"].to(device)
        self.weighted = state["weighted"]


def places(recipe: Recipe, images: int) -> int:
    """How many places the images of a training split have in an epoch."""
    return 2 * images if recipe.subset is not None and recipe.subset.of == "appended" else images


def prepare(recipe: Recipe, images: int, registry: Registry, device: torch.device) -> Chosen | None:
    """The recipe's chooser, before it chose; None for a recipe without one.

    Raises:
        DocumentError: the recipe draws epochs in a way of its own.
    """
    if recipe.subset is None:
        return None
    asked = [name for name in ("share", "replace") if getattr(recipe.sources, name, None) is not None]
    if asked:
        raise DocumentError(
            f"sources.{asked[0]} says which images an epoch takes, and so does subset: leave one of them out",
            path="subset",
        )
    chooser = named.bind(registry.subsets[recipe.subset.name], recipe.subset.options, named.SUBSET_FACTS)
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    return Chosen(chooser, nothing, torch.ones(places(recipe, images), device=device))


def choose(run: Training, on_step: OnStep | None = None) -> dict[str, Any]:
    """Choose anew if it is time; what to note of it.

    It is time in the first epoch of a stage and in every so many after that, since the model's answers age.

    Returns:
        `images`, how many are chosen; `asked`, how many the model was shown for it now; `seconds`, what that took.

    Raises:
        DocumentError: the chooser did not keep to its budgets, or its weights cannot reach the loss.
    """
    said, chosen, stage = run.recipe.subset, run.chosen, run.stage
    assert said is not None and chosen is not None
    begin, local, asked = time.perf_counter(), run.epoch - stage.begin, 0
    if local % said.every:
        return {"images": len(chosen.rows), "asked": 0, "seconds": 0.0}
    rows = torch.from_numpy(stage.rows).to(run.device)
    labels = run.data.train.labels[rows]
    budgets = budgets_of(said.share, stage.class_counts, local, stage.epochs)
    facts: dict[str, Any] = {"seed": key_of(run.recipe.seed, "subset", run.epoch) % 2**63}
    if {"gradients", "losses"} & chosen.chooser.wanted:
        facts |= _answers(run, rows, labels, on_step)
        asked = len(rows)
    choice = coresets.checked(chosen.chooser(labels, budgets, **facts), labels, budgets, said.name)
    _keep(run, rows[choice[0]], choice[1])
    return {"images": len(chosen.rows), "asked": asked, "seconds": time.perf_counter() - begin}


def budgets_of(share: float | str, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
    """[C] int64 how many images of each class are chosen: its share, rounded, and one at least of those it has."""
    counts = class_counts.cpu().double()
    wanted = (shares(share, counts, epoch, epochs) * counts).round()
    return wanted.clamp(min=1).minimum(counts).long().to(class_counts.device)


def _answers(run: Training, rows: Tensor, labels: Tensor, on_step: OnStep | None) -> dict[str, Tensor]:
    """Gradients [n, C] and losses [n] of images as they are, by the model as it stands."""
    logits, parts = [], list(rows.split(BATCH))
    with examined(run.model):
        for number, images in enumerate(run.data.train.batches(parts)):
            with run.autocast():
                logits.append(experts.joint(run.model(run.layout(run.normalise(images)))).float())
            if on_step is not None:
                on_step(number + 1, len(parts), "choosing")
    answers = torch.cat(logits)
    losses = functional.cross_entropy(answers, labels, reduction="none")
    return {"gradients": answers.softmax(1) - functional.one_hot(labels, answers.shape[1]), "losses": losses}


def _keep(run: Training, rows: Tensor, weights: Tensor) -> None:
    said, chosen = run.recipe.subset, run.chosen
    assert said is not None and chosen is not None
    chosen.rows, chosen.weighted = rows, bool((weights != 1).any())
    if chosen.weighted and "features" in run.stage.loss.wanted:
        raise DocumentError(
            f'weights reach a loss through its logits, and "{run.stage.recipe.loss.name}" looks at features too: take'
            " another loss, or a chooser whose weights are 1, such as random or {name: facility_location, weighted:"
            " false}",
            path="subset",
        )
    chosen.weights = torch.ones_like(chosen.weights).index_copy(0, rows, weights)
    if said.of != "training":
        met = run.policy.state[MET]
        met.copy_(torch.zeros_like(met).index_fill(0, rows, 1.0))


def batches(run: Training) -> list[Tensor]:
    """The places of an epoch's images, batch by batch, on the CPU; a function of the seed, the epoch and the choice."""
    recipe, stage, epoch = run.recipe, run.stage, run.epoch
    said, chosen = recipe.subset, run.chosen
    if said is None or chosen is None or said.of == "augmentation":
        return stage.batches(epoch)
    rows = chosen.rows.cpu().numpy()
    if said.of == "training":
        order = whole(stage.part.of(np.isin(stage.rows, rows)), stage.sampler, epoch)
        return in_batches(torch.from_numpy(order), recipe.batch_size)
    order = np.concatenate([whole(stage.part, stage.sampler, epoch) + len(run.data.train), rows])
    raw = np.random.Philox(key=[key_of(recipe.seed, "appended") % 2**64, epoch]).random_raw(len(order))
    return in_batches(torch.from_numpy(order[np.argsort(raw, kind="stable")]), recipe.batch_size)


def weights(run: Training, place: Tensor) -> Tensor | None:
    """[B] of images by their places, on the device; None where all weigh alike."""
    chosen = run.chosen
    return chosen.weights[place] if chosen is not None and chosen.weighted else None


class _Weighed(torch.autograd.Function):
    """The same forward; gradients times a weight for each row."""

    @staticmethod
    def forward(context: Any, logits: Tensor, weights: Tensor) -> Tensor:
        context.save_for_backward(weights)
        return logits.view_as(logits)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weights,) = context.saved_tensors
        return gradients[0] * weights.view(-1, *[1] * (gradients[0].ndim - 1)), None


def weighed(logits: Tensor, weights: Tensor | None, copies: int) -> Tensor:
    """Logits of so many copies of each image, one after another, with gradients multiplied by its weight, [B].

    So a weighted image counts as if it came so many times, whatever the loss divides by, as long as it is a sum over
    images of what it makes of each one's logits.
    """
    if weights is None:
        return logits
    result: Tensor = _Weighed.apply(logits, weights.repeat(max(1, copies)))
    return result
