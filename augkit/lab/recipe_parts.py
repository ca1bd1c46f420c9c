"""The parts of a recipe: what each may say, and what it means when it says nothing."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from augkit.lab.ratios import checked_ratio, checked_share

Three = tuple[float, float, float]
FLIPS = ("hflip", "vflip")


def _step(step: Any) -> Any:
    """A bare flip in a base means one image in two, as everywhere; as a strategy's step it would flip every image."""
    if isinstance(step, str):
        return {step: {"p": 0.5}} if step in FLIPS else step
    if isinstance(step, dict) and len(step) == 1:
        return step
    raise ValueError("a step is an operator's name, or a mapping with that name as its only key")


Step = Annotated[Any, AfterValidator(_step)]
Ratio = Annotated[Any, AfterValidator(checked_ratio)]
"""A number in 0..1, an expression of `epoch` and `epochs`, or None."""


def _take(said: Any) -> Any:
    """None, a number, or numbers by class, or by class and group."""

    def is_number(value: Any) -> bool:
        return type(value) is int and value >= 0

    def fits(value: Any) -> bool:
        return is_number(value) or (isinstance(value, dict) and all(map(is_number, value.values())))

    if said is None or is_number(said) or (isinstance(said, dict) and all(map(fits, said.values()))):
        return said
    raise ValueError(
        "take is a number of images, 0 or more, or a mapping of class names to such numbers (or to mappings of group"
        " names to them)"
    )


class Part(BaseModel):
    """Frozen; unknown fields are errors; nothing is converted silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    later: ClassVar[tuple[str, ...]] = ()
    """Fields that are left out where they hold their defaults, so that folders and hashes from before there were such
    hold."""

    @model_serializer(mode="wrap")
    def _without_unused(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = inner(self)
        unsaid = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in found.items() if name not in unsaid}


class DataRecipe(Part):
    """What is trained and tested on."""

    later = ("groups", "label", "group", "ages", "correlation")

    source: str = "digits"
    """`digits` or another name of `augkit datasets`, a path to an .npz file, a folder of class folders or a list of
    images, or a timm dataset name."""
    root: str | None = None
    """Where a published data set, a list's images or a timm dataset lies."""
    download: bool = False
    groups: Literal["folder", "border"] | None = None
    """`folder`: the folders above the class folders are the images' groups. `border`: data without groups get two, and
    each image a border in the colour of its own."""
    label: str | None = None
    """What is told of an image that is its class, where a data set tells several things; None takes its default."""
    group: str | None = None
    """What is told of it that is its group."""
    ages: tuple[int, ...] = ()
    """First ages of the bins after the youngest, where an age is label or group; none takes 20, 40 and 60."""
    imbalance: float | None = Field(None, ge=1)
    """Images of the most frequent class for one of the rarest; None keeps the data as they are."""
    correlation: float | None = Field(None, ge=0, le=1)
    """Share of each class's training images that are of its own group, whose number is the class's modulo the number of
    groups; the other groups share the rest alike. None keeps the data as they are."""
    subset_seed: int = Field(0, ge=0, lt=2**31)
    image_size: int | None = Field(None, ge=4, le=4096)
    """Pixels; None keeps images that are all alike."""
    validation: float = Field(0.0, ge=0, lt=1)
    """Share of each class held out of train."""
    validation_per_class: int = Field(0, ge=0)
    """Images of each class held out: first of those that `imbalance` leaves out, the rest of the class's own. So the
    set is balanced, and large enough to rank by where a share of a rare class is no image."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of each class that becomes the test set of a source that has none."""
    memory: int = Field(4096, ge=0)
    """MiB; a split that fits is held on the device as uint8, a larger one is read from its files."""
    mean: Three = (0.485, 0.456, 0.406)
    std: Three = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _subset(self) -> DataRecipe:
        if self.correlation is not None and self.imbalance is not None:
            raise ValueError("correlation and imbalance each choose how many images a class keeps: say one")
        if any(age < 1 for age in self.ages) or list(self.ages) != sorted(set(self.ages)):
            raise ValueError("ages are whole numbers above 0 that rise")
        return self


class SourcesRecipe(Part):
    """Synthetic images to train on beside the data's own."""

    later = ("tuning", "take")

    folder: str | None = None
    """A store of synthetic images, or any folder of class folders whose classes are among the data's; None where the
    data source itself marks synthetic images."""
    share: Ratio = None
    """Share of an epoch's images that are synthetic; None takes all images alike."""
    replace: Ratio = None
    """Chance that a real image's place in an epoch is taken by a synthetic one of its class."""
    tuning: float = Field(0.0, ge=0, lt=1)
    """Share of each class's real training images that what makes synthetic ones learns from, and no stage trains on."""
    take: Annotated[Any, AfterValidator(_take)] = None
    """How many images of each class of `folder` are trained on, the first in order of file name: a number (at most so
    many), or a mapping of class names to numbers (so many; none of a class that is not there). Where groups are known
    numbers are of each class in each group, and a class may say a mapping of group names. None takes all."""

    @model_validator(mode="after")
    def _one_of_them(self) -> SourcesRecipe:
        if self.take is not None and self.folder is None:
            raise ValueError("take chooses among the images of a folder: say which folder")
        if self.share is not None and self.replace is not None:
            raise ValueError("share and replace are two ways to mix images in: say one")
        return self


class BaseRecipe(Part):
    """The base augmentation, run with every policy and with none: operator steps before and after it."""

    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()


class ModelRecipe(Part):
    """Any timm model; `options` go to `timm.create_model`."""

    later = ("experts", "expert_width")

    name: str = "resnet32_cifar"
    options: dict[str, Any] = {}
    weights: str | None = None
    """A run folder whose model this one begins with; None draws the weights from the seed."""
    experts: int | None = Field(None, ge=1)
    """How many experts of a ResNet have its last two stages and last layer to themselves; None leaves it whole."""
    expert_width: float = Field(0.75, gt=0, le=1)
    """What an expert's stages have of the ResNet's channels."""


class OptimizerRecipe(Part):
    """Any timm optimiser; `options` go to `timm.optim.create_optimizer_v2`. `momentum` is SGD without Nesterov."""

    name: str = "momentum"
    lr: float = Field(0.1, gt=0)
    weight_decay: float = Field(2e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    options: dict[str, Any] = {"filter_bias_and_bn": False}


class ScheduleRecipe(Part):
    """`published` is the step schedule of the long-tailed CIFAR papers; other names and `options` are timm's."""

    name: str = "published"
    options: dict[str, Any] = {}


class Named(Part):
    """Something registered by name; all other fields are its options."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What was said beyond the fields that every one has."""
        return dict(self.model_extra or {})


class LossRecipe(Named):
    """What is minimised."""

    name: str = "ce"


class SamplerRecipe(Named):
    """Which images an epoch takes; it is always as long as the data."""

    name: str = "uniform"


class SubsetRecipe(Named):
    """Images that a chooser takes again and again, by what the model then makes of them."""

    share: Annotated[Any, AfterValidator(checked_share)]
    """Of each class's images: a number in 0..1, or an expression of `class_count`, `epoch` and `epochs`."""
    every: int = Field(1, ge=1)
    """Epochs from one choice to the next."""
    of: Literal["appended", "augmentation", "training"] = "appended"
    """`appended`: every image comes without the policy, and those chosen once more with it, as the paper has it.
    `augmentation`: every image comes once, those chosen with the policy. `training`: only those chosen come, with the
    policy."""


class AnswerRecipe(Named):
    """What counts as a right answer of the model, for policies that ask it or count its answers by level."""

    name: str = "top1"


class StageRecipe(Named):
    """A part of the training, with its own optimiser, schedule and images; None takes what the recipe says."""

    later = ("weight_decay", "loss")

    name: str = "train"
    epochs: int | None = Field(None, ge=1)
    """None is the recipe's `epochs` for the first stage and 10 for each further one."""
    lr: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    loss: LossRecipe | None = None
    schedule: ScheduleRecipe | None = None
    sampler: SamplerRecipe | None = None
    data: Literal["all", "real"] = "all"
    """`real` leaves out images that the data set marks as synthetic."""
    balance: Literal["classes", "groups"] | None = None
    """`classes` keeps as many images of each class as the smallest has, the same in every epoch; `groups` likewise of
    each class in each group."""
    mixing: bool = True
    """Whether the policy mixes images."""


class PolicyRecipe(Part):
    """A strategy by name or path, and its params."""

    load: str = "none"
    params: dict[str, float | int | bool] = {}
