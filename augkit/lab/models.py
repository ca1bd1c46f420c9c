"""Models: the small residual networks that the long-tailed CIFAR papers use, and anything timm knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from augkit.errors import DocumentError, nearest
from augkit.lab import folder as files
from augkit.lab.expert_models import divided
from augkit.lab.heads import classifier
from augkit.lab.losses import made_for_cosines
from augkit.lab.recipe import Recipe
from augkit.registry import Registry
from augkit.torchvision_compat import ensure_torchvision

ensure_torchvision()

import timm  # noqa: E402  torchvision must be importable first
from timm.models import ResNet, build_model_with_cfg, generate_default_cfgs, register_model  # noqa: E402

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Block(nn.Module):
    """Two 3x3 convolutions around an option-A shortcut: stride by slicing, new channels are zeros, no parameters."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.extra = stride, width - width_in

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.extra:
            x = functional.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return functional.relu(y + x, inplace=True)


class ResNetCifar(nn.Module):
    """ResNet for 32-pixel images with 6n + 2 layers (He et al., CVPR 2016, section 4.2).

    Input [B, in_chans, H, W] float, output [B, num_classes] logits. He initialisation for convolutions and the head.
    `channels` are the widths of its three stages.
    """

    def __init__(
        self,
        depth: int = 32,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        channels: Sequence[int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        if global_pool not in ("avg", ""):
            raise ValueError(f'global_pool must be "avg" or "", not "{global_pool}"')
        self.num_classes, self.in_chans = num_classes, in_chans
        self.drop_rate, self.global_pool = drop_rate, global_pool
        self.channels, count = tuple(channels), (depth - 2) // 6
        first, second, third = self.channels
        self.num_features = self.head_hidden_size = third
        self.conv1 = nn.Conv2d(in_chans, first, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.act1 = nn.ReLU(inplace=True)
        self.layer1 = _stage(first, first, count, stride=1)
        self.layer2 = _stage(first, second, count, stride=2)
        self.layer3 = _stage(second, third, count, stride=2)
        self.fc: nn.Module = nn.Linear(third, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        """The last layer, as timm asks for it."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer for `num_classes`; 0 leaves the features."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] to [B, num_features, H / 4, W / 4]."""
        x = self.act1(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean over the image, then the last layer unless `pre_logits`."""
        if self.global_pool:
            x = x.mean(dim=(2, 3))
        if self.drop_rate:
            x = functional.dropout(x, self.drop_rate, self.training)
        logits: Tensor = x if pre_logits else self.fc(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _stage(width_in: int, width: int, count: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(width_in, width, stride), *(Block(width, width, 1) for _ in range(count - 1)))


_config = {
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "num_classes": 100,
    "mean": CIFAR_MEAN,
    "std": CIFAR_STD,
    "first_conv": "conv1",
    "classifier": "fc",
    "fixed_input_size": False,
}
default_cfgs = generate_default_cfgs(
    {"resnet8_cifar": _config, "resnet20_cifar": _config, "resnet32_cifar": _config, "resnet56_cifar": _config}
)


def _build(variant: str, depth: int, pretrained: bool, **kwargs: Any) -> ResNetCifar:
    if pretrained:
        raise ValueError(f"{variant} has no pretrained weights")
    model = build_model_with_cfg(ResNetCifar, variant, False, depth=depth, **kwargs)
    assert isinstance(model, ResNetCifar)
    return model


@register_model
def resnet8_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """One block a stage: for demonstrations on two cores."""
    return _build("resnet8_cifar", 8, pretrained, **kwargs)


@register_model
def resnet20_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """ResNet-20 for CIFAR."""
    return _build("resnet20_cifar", 20, pretrained, **kwargs)


@register_model
def resnet32_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """ResNet-32 for CIFAR, the network of the long-tailed CIFAR tables (LDAM, CUDA and after)."""
    return _build("resnet32_cifar", 32, pretrained, **kwargs)


@register_model
def resnet56_cifar(pretrained: bool = False, **kwargs: Any) -> ResNetCifar:
    """ResNet-56 for CIFAR."""
    return _build("resnet56_cifar", 56, pretrained, **kwargs)


class CosineHead(nn.Module):
    """A last layer [B, features] to [B, classes] of cosines between features and a vector for each class; no bias.

    Vectors are drawn uniformly in a cube and put on the sphere, as LDAM's (Cao et al., NeurIPS 2019). Cosines are
    float32 under autocast too: a loss multiplies them by thirty.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new vectors."""
        with torch.no_grad():
            self.weight.uniform_(-1, 1)
            self.weight.copy_(functional.normalize(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(functional.normalize(x.float()), functional.normalize(self.weight))


def give_cosines(model: nn.Module) -> None:
    """Put a `CosineHead` in the place of a model's linear last layer, or of each of several.

    Raises:
        DocumentError: a last layer is something else.
    """
    found = classifier(model)
    heads = list(found) if isinstance(found, (tuple, list)) else [found]
    places = {id(module): name for name, module in model.named_modules()}
    if not all(isinstance(head, nn.Linear) and places.get(id(head)) for head in heads):
        raise DocumentError(
            f"it is made for a last layer of cosines, which {type(model).__name__} cannot be given since its last"
            " layer is not one linear layer, or one for each expert: take another loss or another model",
            path="loss",
        )
    for head in heads:
        parent, _, name = places[id(head)].rpartition(".")
        setattr(model.get_submodule(parent), name, CosineHead(head.in_features, head.out_features))


def check(name: str) -> None:
    """Raise a DocumentError if timm does not know a model by this name."""
    if not timm.is_model(name):
        raise DocumentError(f'timm knows no model "{name}".{_near(name)}', path="model.name")


def create(
    name: str,
    num_classes: int,
    options: Mapping[str, Any],
    seed: int,
    *,
    experts: int | None = None,
    expert_width: float = 0.75,
) -> nn.Module:
    """Any timm model by name, its weights drawn from `seed`; a ResNet with so many experts, if any are asked for.

    Raises:
        DocumentError: timm does not know the name, the model does not take the options, or it cannot have experts.
    """
    check(name)
    if experts is not None and expert_width < 1 and options.get("pretrained"):
        raise DocumentError(
            "pretrained weights fit experts of full width alone: set this to 1, or leave pretrained out",
            path="model.expert_width",
        )

    def build(**more: Any) -> nn.Module:
        return timm.create_model(name, num_classes=num_classes, **{**options, **more})

    torch.manual_seed(seed)  # timm's models draw their weights from torch's global generator
    try:
        if experts is None:
            return build()
        channels = _channels(build(**dict.fromkeys(options.keys() & {"pretrained"}, False)))
        torch.manual_seed(seed)
        return divided(build, channels, experts, expert_width)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise DocumentError(f'model "{name}" cannot be built: {error}', path="model.options") from error


def _channels(model: nn.Module) -> tuple[int, ...]:
    """What a ResNet calls the channels of its stages."""
    if isinstance(model, ResNetCifar):
        return model.channels
    if not isinstance(model, ResNet):
        raise DocumentError(
            f"{type(model).__name__} cannot be divided among experts, only ResNets can: leave this out, or take one",
            path="model.experts",
        )
    stages: list[Any] = [model.get_submodule(str(info["module"])) for info in model.feature_info[1:]]
    return tuple(
        info["num_chs"] // stage[-1].expansion for info, stage in zip(model.feature_info[1:], stages, strict=True)
    )


def made(recipe: Recipe, num_classes: int, registry: Registry) -> nn.Module:
    """The model of a recipe, with last layers of cosines if its first stage's loss is made for them."""
    said, loss = recipe.model, recipe.stages[0].loss or recipe.loss
    model = create(
        said.name, num_classes, said.options, recipe.seed, experts=said.experts, expert_width=said.expert_width
    )
    if made_for_cosines(registry.losses[loss.name], loss.options):
        give_cosines(model)
    return model


def load_weights(model: nn.Module, run: Path, path: str = "model.weights") -> None:
    """Begin with the model of a run folder: all its weights and running statistics.

    `path` is the place in the recipe that names the folder.

    Raises:
        DocumentError: there is no such run, or its model is another one.
    """
    state = files.load_checkpoint(run, "model") if run.is_dir() else None
    if state is None:
        raise DocumentError(f"{run} is no run folder with a checkpoint.pt in it", path=path)
    there, here = ({k: v.shape for k, v in weights.items()} for weights in (state["model"], model.state_dict()))
    differing = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differing:
        raise DocumentError(
            f"the model of {run} is another one: {len(differing)} of its weights do not fit, such as {differing[0]}",
            path=path,
        )
    model.load_state_dict(state["model"])


def _near(name: str) -> str:
    hint = nearest(name.partition(".")[0], timm.list_models())
    return hint if "Did you mean" in hint else ' `timm.list_models("*resnet*")` lists names.'
