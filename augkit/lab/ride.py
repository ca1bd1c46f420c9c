"""RIDE without its routing module: experts that learn from the same loss and are driven apart.

Wang, Lian, Miao, Liu and Yu, Long-tailed recognition by routing diverse distribution-aware experts, ICLR 2021. Where
the paper and its authors' code differ, this does as the code, whose numbers are the published ones; see docs/methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from augkit.errors import DocumentError, StateError
from augkit.lab import losses, named
from augkit.lab.experts import joint

Base = Literal["ldam_drw", "ce", "ce_drw", "balanced_softmax"]
_BASE_OPTIONS = ("max_margin", "scale", "from", "beta")


class Ride:
    """Each expert's own loss, and a reward for answering unlike the experts' mean (Wang et al., RIDE, ICLR 2021).

    The sum over experts e of base(e) + diversity_factor * T^2 * KL(mean || e), both softmaxes at temperatures T; the
    mean is that of the logits, and no gradient goes through it. T is `temperature` for all classes, and from the share
    `from` of the epochs on lower for rarer ones, so that experts are driven apart most there: class c with n_c of n
    images has T_c = temperature * (r * C * n_c / n + 1 - r), divided by the largest such factor, with r the
    `reweight_factor`; T^2 is then the square of the mean of T_c.

    With a teacher, the joint answer also learns the teacher's: KL(teacher || mean) at `distill_temperature`, times its
    square and `distill_factor`, is added, and all of it counts once for each expert.

    Defaults are those of the authors' configuration for CIFAR-100-LT.

    Args:
        class_counts: [C] float32 training images of the stage.
        epochs: of the stage.
        base: an expert's loss, by its name; "ldam_drw" makes the last layers cosines.
        diversity_factor: below 0 drives experts apart, 0 lets them be.
        temperature: of the softmaxes that are compared.
        reweight_factor: how much lower temperatures of rarer classes are.
        from_: share of the epochs from which classes are weighted, in the base's way and by temperatures.
        beta, max_margin, scale: of the base; it has no use for those that it does not know.
        teacher: a finished run's folder, whose model answers as it is and learns nothing. Where its last layers are of
            cosines they are multiplied by `scale`, as this model's are.
        distill_factor: what the teacher's part is multiplied by.
        distill_temperature: of its softmaxes.

    Raises:
        DocumentError: the teacher is not a finished run, or its model knows other classes.
    """

    def __init__(
        self,
        *,
        class_counts: Tensor,
        epochs: int,
        base: Base = "ldam_drw",
        diversity_factor: float = -0.45,
        temperature: losses.Positive = 1.0,
        reweight_factor: Annotated[float, Field(ge=0, lt=1)] = 0.05,
        from_: losses.Share = 0.8,
        beta: losses.Beta = 0.9999,
        max_margin: losses.NotNegative = 0.5,
        scale: losses.Positive = 30.0,
        teacher: str | None = None,
        distill_factor: losses.NotNegative = 1.0,
        distill_temperature: losses.Positive = 1.5,
    ) -> None:
        self.counts, self.epochs, self.begin = class_counts, epochs, from_
        function = losses.LOSSES[base]
        said = dict(zip(_BASE_OPTIONS, (max_margin, scale, from_, beta), strict=True))
        known = named.options_of(function, named.LOSS_FACTS)
        self.base = named.bind(function, {k: v for k, v in said.items() if k in known}, named.LOSS_FACTS)
        self.scale = scale if self.wants_cosines(base) else 1.0
        self.diversity_factor, self.temperature = diversity_factor, temperature
        share = class_counts / class_counts.sum()
        factors = reweight_factor * len(share) * share + 1 - reweight_factor
        self.temperatures = temperature * factors / factors.max()
        self.mean_temperature = float(self.temperatures.mean())
        self.distill_factor, self.distill_temperature = distill_factor, distill_temperature
        self.wants_experts = diversity_factor != 0
        self.teacher: nn.Module | None = None
        self.teacher_run, self.teacher_sha256 = teacher, ""
        if teacher is not None:
            self.teacher, cosines = frozen(Path(teacher), len(class_counts))
            self.teacher_sha256 = _hash(self.teacher)
            self.teacher.to(class_counts.device)
            self.teacher_scale = scale if cosines else 1.0

    @staticmethod
    def wants_cosines(base: Base = "ldam_drw", **_: object) -> bool:
        """Whether these options make it one for last layers of cosines."""
        return losses.made_for_cosines(losses.LOSSES[base], {})

    def state_dict(self) -> dict[str, Any]:
        """Which teacher it is; its weights stay in its own folder."""
        return {"teacher_sha256": self.teacher_sha256}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the teacher that it began with.

        Raises:
            StateError: another model stands in the teacher's folder now.
        """
        if state.get("teacher_sha256", "") != self.teacher_sha256:
            raise StateError(
                "the model in this folder is another than the one that taught the run so far: put that one back, or"
                " train anew in another folder with --out",
                file=self.teacher_run,
            )

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        experts: Tensor,
        epoch: int,
        inputs: Tensor,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Tensor:
        """The loss of a batch, a single number.

        Args:
            logits: [B, C] the experts' mean.
            targets: [B] or [B, C].
            experts: [B, experts, C] float32.
            epoch: of the stage, 0-based.
            inputs: [B, 3, H, W] that the model was given.
            autocast: the context that the teacher is asked in.
        """
        facts = {"class_counts": self.counts, "epochs": self.epochs, "epoch": epoch}
        each: list[Tensor] = [self.base(one, targets, **facts) for one in experts.unbind(1)]
        loss = torch.stack(each).sum()
        if self.diversity_factor:
            loss = loss + self.diversity_factor * self.diversity(experts, epoch)
        if self.teacher is None:
            return loss
        with torch.no_grad(), autocast():
            taught = joint(self.teacher(inputs)).float() * self.teacher_scale
        distance = self.distill_temperature**2 * _divergence(
            taught / self.distill_temperature, logits * (self.scale / self.distill_temperature)
        )
        return experts.shape[1] * (loss + self.distill_factor * distance)

    def diversity(self, experts: Tensor, epoch: int) -> Tensor:
        """The sum over experts of KL(mean || expert) times the squared mean temperature, averaged over images.

        Args:
            experts: [B, experts, C] what their last layers gave.
            epoch: of the stage, 0-based.
        """
        late = losses.is_late(epoch, self.epochs, self.begin)
        logits = experts * self.scale
        mean = logits.detach().mean(1, keepdim=True).expand_as(logits)
        divisor: Tensor | float = self.temperatures if late else self.temperature
        square = (self.mean_temperature if late else self.temperature) ** 2
        return square * experts.shape[1] * _divergence((mean / divisor).flatten(0, 1), (logits / divisor).flatten(0, 1))


def _divergence(true: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(true) || softmax(other)) of logits [N, C], the mean over N."""
    return functional.kl_div(other.log_softmax(1), true.log_softmax(1), reduction="batchmean", log_target=True)


def _hash(model: nn.Module) -> str:
    """SHA-256 of a model's weights and running statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def frozen(run: Path, num_classes: int) -> tuple[nn.Module, bool]:
    """A finished run's model for so many classes, in evaluation mode, its weights without gradients.

    Returns:
        The model, and whether its last layers are of cosines.

    Raises:
        DocumentError: the run is not finished, or its model has other classes.
    """
    from augkit.lab import folder as files
    from augkit.lab import models  # it imports timm, which takes a second, and losses are read whenever augkit is used
    from augkit.lab.recipe import read_recipe
    from augkit.plugins import registry

    if not (run / files.RECIPE).is_file() or not (run / files.SUMMARY).is_file():
        raise DocumentError(f"{run} is no finished run: train the teacher to its end first", path="teacher")
    recipe = read_recipe(run / files.RECIPE)
    options = {name: value for name, value in recipe.model.options.items() if name != "pretrained"}  # fetches nothing
    said = recipe.model.model_copy(update={"options": options})
    model = models.made(recipe.model_copy(update={"model": said}), num_classes, registry())
    models.load_weights(model, run, "teacher")
    cosines = any(isinstance(module, models.CosineHead) for module in model.modules())
    return model.eval().requires_grad_(False), cosines
