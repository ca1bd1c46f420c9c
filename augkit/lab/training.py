"""What a run holds between two steps: model, policy, stage, optimiser and loss, and how a checkpoint takes them up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from augkit.answers import count
from augkit.binding import class_signals
from augkit.errors import AugkitError
from augkit.lab import experts, metrics, optimise
from augkit.lab.augmentation import Normalise
from augkit.lab.coreset_epochs import Chosen, weighed
from augkit.lab.course import Stage
from augkit.lab.data import Data, Split
from augkit.lab.embeddings import Embeddings, embed, watched
from augkit.lab.heads import linear_layer
from augkit.lab.recipe import Recipe
from augkit.lab.stages import Projected
from augkit.lab.view_choice import ChoosesViews, Tells, statistics_kept
from augkit.learning.probes import Answer
from augkit.policy import Policy

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
    chosen: Chosen | None = None
    """Which images the recipe's chooser took last."""
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
        loss = self.stage.loss.function
        if isinstance(loss, nn.Module) and (own := [p for p in loss.parameters() if p.requires_grad]):
            self.optimizer.add_param_group({"params": own, "weight_decay": self.stage.recipe.optimizer.weight_decay})
        self.schedule = optimise.schedule(self.stage.recipe, self.optimizer)
        self.policy.mixing = self.stage.mixing
        self.policy.counting = not isinstance(loss, ChoosesViews)
        self.policy.memory.set_signals(class_signals(self.stage.class_counts))
        self.policy.answer = self.judge(self.stage.class_counts)

    def answer(
        self, inputs: Tensor, targets: Tensor, where: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The model's logits, [B, C] or [B, experts, C], and the loss of a batch, a single number.

        `where` are the images' positions in the training split; with V views inputs and targets are V times as many.
        `weights` [B] say how much each image's gradient counts.
        """
        parts, copies, whole = [inputs], len(self.policy.views), len(where) == self.recipe.batch_size
        kept = self.views_kept(inputs, targets)
        if kept is not None:
            parts, targets = [self.layout(inputs[rows]) for rows in kept], targets[kept.flatten()]
            inputs, copies = torch.cat(parts), len(kept)
        seen = {"inputs": inputs}
        with ExitStack() as context:
            context.enter_context(self.autocast())
            looked = "features" in self.stage.loss.wanted
            given = context.enter_context(watched(self.stage.facts["head"])) if looked else []
            answers = [experts.stacked(self.forward(part, whole=whole)) for part in parts]
        logits = answers[0] if kept is None else torch.cat(answers)
        if given:
            seen["features"] = (given[0] if kept is None else torch.cat(given)).float()
        return logits, self.loss(weighed(logits, weights, copies), targets, where, **seen)

    def views_kept(self, inputs: Tensor, targets: Tensor) -> Tensor | None:
        """[P, B] rows of the inputs that are trained on, if the stage's loss chooses; the policy counts those alone."""
        loss, plan = self.stage.loss.function, self.policy.last_plan
        if not isinstance(loss, ChoosesViews) or plan is None or plan.keys is None:
            return None

        def ask(images: Tensor) -> Tensor:
            with torch.no_grad(), self.autocast(), statistics_kept(self.model):
                return experts.joint(self.model(images)).float()

        kept = loss.choose(ask, inputs, targets, plan.keys)
        count(self.policy, kept)
        return kept

    def loss(self, logits: Tensor, targets: Tensor, where: Tensor, **seen: Tensor) -> Tensor:
        """The stage's loss, told where it stands; of several experts the sum of each one's, unless it asks for all.

        Args:
            logits: [B, C] or [B, experts, C].
            targets: [B] or [B, C].
            where: as in `answer`.
            seen: what the loss may know of this batch beside these, `inputs` and `features`.
        """
        stage, logits, groups = self.stage, logits.float(), self.data.train.groups
        facts: dict[str, Any] = {
            **stage.facts,
            **seen,
            "epoch": self.epoch - stage.begin,
            "views": len(self.policy.views),
            "autocast": self.autocast,
            "groups": None if groups is None else groups[where].repeat(len(logits) // len(where)),
        }
        if "experts" in stage.loss.wanted:
            all_of_them = logits if logits.ndim == 3 else logits[:, None]
            return stage.loss(experts.joint(logits), targets, experts=all_of_them, **facts)  # type: ignore[no-any-return]
        single = (logits,) if logits.ndim == 2 else logits.unbind(1)
        each: list[Tensor] = [stage.loss(one, targets, **facts) for one in single]
        return each[0] if len(each) == 1 else torch.stack(each).sum()

    def step(self, loss: Tensor) -> None:
        """Backward, the optimiser's step, and what the stage's part does after each."""
        loss.backward()
        self.optimizer.step()
        part: Any = self.part  # mypy takes a module and a protocol for strangers
        if isinstance(part, Projected):
            with torch.no_grad():
                part.project()

    def told(self) -> Record:
        """What the stage's loss has to tell of the epoch that ends, for its record."""
        loss = self.stage.loss.function
        record: Record = {"constraint": dict(loss.tell())} if isinstance(loss, Tells) else {}
        if isinstance(loss, ChoosesViews):
            record["passes"] = dict(loss.passes(len(self.policy.views)))
        return record

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
            "part": self._remembered(),
            "loss": loss.state_dict() if hasattr(loss, "state_dict") else {},
            "chosen": None if self.chosen is None else self.chosen.state_dict(),
            "random": random,
            "records": self.records,
        }

    def _remembered(self) -> dict[str, Tensor]:
        """What the part that learns keeps beside the model's own, such as a radius, by name."""
        known = {id(buffer) for buffer in self.model.buffers()}
        return {name: buffer for name, buffer in self.part.named_buffers() if id(buffer) not in known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        for number in range(self.number + 1, state["stage"] + 1):
            self.enter(number)  # the model may have another form afterwards
        self.model.load_state_dict(state["model"])
        for name, value in self._remembered().items():
            value.copy_(state["part"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.policy.load_state_dict(state["policy"])
        if hasattr(self.stage.loss.function, "load_state_dict"):
            self.stage.loss.function.load_state_dict(state["loss"])
        if self.chosen is not None:
            self.chosen.load_state_dict(state["chosen"])
        self.records = list(state["records"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)

    def forward(self, inputs: Tensor, *, whole: bool) -> Any:
        """The model's output in training. A last batch that is not `whole` goes uncompiled: its size would be compiled
        for itself.

        Raises:
            AugkitError: the model cannot be compiled.
        """
        if self.compiled is None or not whole:
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
