"""A recipe: a document that describes a whole training run, and its reading, overriding and hashing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Step = str | dict[str, Any]
Three = tuple[float, float, float]


def _named(key: str) -> BeforeValidator:
    """Lets a document write `policy: randaugment` for `policy: {load: randaugment}`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataRecipe(_Part):
    """What is trained and tested on."""

    source: str = "digits"
    """`digits`, a path to an .npz file or to a folder of class folders, or a timm dataset name."""
    root: str | None = None
    """Where a timm dataset lies."""
    download: bool = False
    imbalance: float | None = Field(None, ge=1)
    """Images of the most frequent class for one of the rarest; None keeps the data as they are."""
    subset_seed: int = Field(0, ge=0, lt=2**31)
    image_size: int | None = Field(None, ge=4, le=4096)
    """Pixels; None keeps images that are all alike."""
    validation: float = Field(0.0, ge=0, lt=1)
    """Share of each class held out of train."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of each class that becomes the test set of a source that has none."""
    memory: int = Field(4096, ge=0)
    """MiB; a split that fits is held on the device as uint8, a larger one is read from its files."""
    mean: Three = (0.485, 0.456, 0.406)
    std: Three = (0.229, 0.224, 0.225)


class BaseRecipe(_Part):
    """The base augmentation, run with every policy and with none: operator steps before and after it."""

    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()


class ModelRecipe(_Part):
    """Any timm model; `options` go to `timm.create_model`."""

    name: str = "resnet32_cifar"
    options: dict[str, Any] = {}


class OptimizerRecipe(_Part):
    """Any timm optimiser; `options` go to `timm.optim.create_optimizer_v2`. `momentum` is SGD without Nesterov."""

    name: str = "momentum"
    lr: float = Field(0.1, gt=0)
    weight_decay: float = Field(2e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    options: dict[str, Any] = {"filter_bias_and_bn": False}


class ScheduleRecipe(_Part):
    """`published` is the step schedule of the long-tailed CIFAR papers; other names and `options` are timm's."""

    name: str = "published"
    options: dict[str, Any] = {}


class PolicyRecipe(_Part):
    """A strategy by name or path, and its params."""

    load: str = "none"
    params: dict[str, float | int | bool] = {}


class Recipe(_Part):
    """A whole training run. Everything that changes its result stands here."""

    augkit: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = ""
    source: str = ""
    data: DataRecipe = DataRecipe()
    base: BaseRecipe = BaseRecipe()
    model: Annotated[ModelRecipe, _named("name")] = ModelRecipe()
    loss: str = "ce"
    optimizer: Annotated[OptimizerRecipe, _named("name")] = OptimizerRecipe()
    schedule: Annotated[ScheduleRecipe, _named("name")] = ScheduleRecipe()
    policy: Annotated[PolicyRecipe, _named("load")] = PolicyRecipe()
    epochs: int = Field(200, ge=1)
    batch_size: int = Field(128, ge=2)
    seed: int = Field(0, ge=0, lt=2**63)
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = True
    device: str = "auto"
    """`auto` takes an accelerator if there is one."""
    tensorboard: bool = False

    @property
    def policy_name(self) -> str:
        """The policy's name, or the name of its file."""
        return Path(self.policy.load).stem

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form: two recipes with one hash describe one run."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
