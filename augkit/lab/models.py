"""Models: the small residual networks that the long-tailed CIFAR papers use, and anything timm knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from augkit.errors import DocumentError, nearest
from augkit.lab import folder as files
from augkit.torchvision_compat import ensure_torchvision

ensure_torchvision()

import timm  # noqa: E402  torchvision must be importable first
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model  # noqa: E402

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
    """ResNet for 32-pixel images with 6n + 2 layers and widths 16, 32, 64 (He et al., CVPR 2016, section 4.2).

    Input [B, in_chans, H, W] float, output [B, num_classes] logits. He initialisation for convolutions and the head.
    """

    def __init__(
        self,
        depth: int = 32,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if global_pool not in ("avg", ""):
            raise ValueError(f'global_pool must be "avg" or "", not "{global_pool}"')
        self.num_classes, self.in_chans = num_classes, in_chans
        self.drop_rate, self.global_pool = drop_rate, global_pool
        self.num_features = self.head_hidden_size = 64
        self.conv1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        count = (depth - 2) // 6
        self.layer1 = _stage(16, 16, count, stride=1)
        self.layer2 = _stage(16, 32, count, stride=2)
        self.layer3 = _stage(32, 64, count, stride=2)
        self.fc: nn.Module = nn.Linear(64, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def get_classifier(self) -> nn.Module:
        """The last layer, as timm asks for it."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer for `num_classes`; 0 leaves the 64 features."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.fc = nn.Linear(64, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] to [B, 64, H / 4, W / 4]."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
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


def classifier(model: nn.Module) -> Any:
    """What timm calls the model's classifier: a layer, several, or None for a model without such a thing."""
    getter: Any = getattr(model, "get_classifier", None)
    return getter() if callable(getter) else None


def give_cosines(model: nn.Module) -> None:
    """Put a `CosineHead` in the place of a model's linear last layer.

    Raises:
        DocumentError: the last layer is something else.
    """
    head = classifier(model)
    place = next((name for name, module in model.named_modules() if module is head), "")
    if not isinstance(head, nn.Linear) or not place:
        raise DocumentError(
            f"it is made for a last layer of cosines, which {type(model).__name__} cannot be given since its last"
            " layer is not one linear layer: take another loss or another model",
            path="loss",
        )
    parent, _, name = place.rpartition(".")
    setattr(model.get_submodule(parent), name, CosineHead(head.in_features, head.out_features))


def check(name: str) -> None:
    """Raise a DocumentError if timm does not know a model by this name."""
    if not timm.is_model(name):
        raise DocumentError(f'timm knows no model "{name}".{_near(name)}', path="model.name")


def create(name: str, num_classes: int, options: Mapping[str, Any], seed: int) -> nn.Module:
    """Any timm model by name, its weights drawn from `seed`.

    Raises:
        DocumentError: timm does not know the name, or the model does not take the options.
    """
    check(name)
    torch.manual_seed(seed)  # timm's models draw their weights from torch's global generator
    try:
        return timm.create_model(name, num_classes=num_classes, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise DocumentError(f'model "{name}" cannot be built: {error}', path="model.options") from error


def load_weights(model: nn.Module, run: Path) -> None:
    """Begin with the model of a run folder: all its weights and running statistics.

    Raises:
        DocumentError: there is no such run, or its model is another one.
    """
    state = files.load_checkpoint(run, "model") if run.is_dir() else None
    if state is None:
        raise DocumentError(f"{run} is no run folder with a checkpoint.pt in it", path="model.weights")
    there, here = ({k: v.shape for k, v in weights.items()} for weights in (state["model"], model.state_dict()))
    differing = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if differing:
        raise DocumentError(
            f"the model of {run} is another one: {len(differing)} of its weights do not fit, such as {differing[0]}",
            path="model.weights",
        )
    model.load_state_dict(state["model"])


def _near(name: str) -> str:
    hint = nearest(name.partition(".")[0], timm.list_models())
    return hint if "Did you mean" in hint else ' `timm.list_models("*resnet*")` lists names.'
