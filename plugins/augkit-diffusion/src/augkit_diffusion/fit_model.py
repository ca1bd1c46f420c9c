"""The class-conditional diffusion model that `fit` learns: diffusers' UNet over patches, and sampling with DDIM.

The network predicts v (Salimans and Ho, 2022) on a squared-cosine schedule. The usual noise target says almost nothing
about the image where noise is all there is, and 20 steps of DDIM begin there: after a short training that turns into
wrong brightness. v is the image there and the noise where noise is little, so every step is well posed, and the image
that it implies needs no division by a small number.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from augkit.torchvision_compat import ensure_torchvision

Network: TypeAlias = Any
"""diffusers' UNet2DModel, whose types do not survive its decorators."""
Scheduler: TypeAlias = Any
"""diffusers' DDIMScheduler."""

NOISE_LEVELS = 1000
GROUP_NORM = 8
"""Groups of each normalisation; widths are multiples of it."""


@dataclass(frozen=True)
class Shape:
    """What the network is made for. Hashable and JSON by `asdict`: it decides which weights fit."""

    size: int
    """Pixels of the square images."""
    labels: int
    """Labels that can be asked for; one more, the last, stands for none."""
    width: int
    """Channels of the finest level; the others have twice as many."""
    patch: int
    """Pixels of the squares that enter as one position: 2 makes a step four times as cheap."""

    @property
    def none(self) -> int:
        """The label that says nothing: what guidance compares with."""
        return self.labels

    @property
    def levels(self) -> int:
        """Halvings of the grid, and one: down to three or four positions across."""
        across, levels = -(-self.size // self.patch), 1
        while across > 4:
            across, levels = -(-across // 2), levels + 1
        return max(2, levels)

    @property
    def grid(self) -> int:
        """Positions across the finest level, so many that it can be halved."""
        step: int = 2 ** (self.levels - 1)
        return -(-self.size // (self.patch * step)) * step

    @property
    def channels(self) -> int:
        """Numbers of one position."""
        return 3 * self.patch**2

    def asdict(self) -> dict[str, int]:
        """As JSON."""
        return asdict(self)


def network(shape: Shape) -> Network:
    """A new network with weights from torch's generator; [B, channels, grid, grid], times and labels [B] to v."""
    ensure_torchvision()
    from diffusers.models.unets.unet_2d import UNet2DModel

    widths = (shape.width, *[2 * shape.width] * (shape.levels - 1))
    plain, attentive = ("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D")
    kinds = [plain] * (shape.levels - 1) + [attentive]  # attention costs the square of the positions
    return UNet2DModel(
        sample_size=shape.grid,
        in_channels=shape.channels,
        out_channels=shape.channels,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=tuple(down for down, _ in kinds),
        up_block_types=tuple(up for _, up in reversed(kinds)),
        num_class_embeds=shape.labels + 1,
        norm_num_groups=GROUP_NORM,
        attention_head_dim=16,
    )


def schedule() -> Scheduler:
    """Noise levels of training and steps of sampling. Steps begin at pure noise; implied images stay within -1..1."""
    ensure_torchvision()
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=NOISE_LEVELS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=True,
    )


def encode(images: Tensor, shape: Shape) -> Tensor:
    """uint8 [B, 3, size, size] to float32 [B, channels, grid, grid] in -1..1; its edge is repeated to fill the grid."""
    more = shape.grid * shape.patch - shape.size
    plain = functional.pad(images.float() / 127.5 - 1, (0, more, 0, more), mode="replicate")
    return functional.pixel_unshuffle(plain, shape.patch)


def decode(latent: Tensor, shape: Shape) -> Tensor:
    """The reverse of `encode`: uint8 [B, 3, size, size]."""
    images = functional.pixel_shuffle(latent.float(), shape.patch)[..., : shape.size, : shape.size]
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def noise(seeds: Sequence[int], shape: Shape) -> Tensor:
    """Float32 [B, channels, grid, grid] on the CPU: each image's own, by its seed, whatever its neighbours are."""
    form = (shape.channels, shape.grid, shape.grid)
    return torch.stack([torch.randn(form, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """bfloat16 where it is asked for."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@torch.no_grad()
def sample(
    model: Network, shape: Shape, labels: Tensor, start: Tensor, *, steps: int, guidance: float, precision: str
) -> np.ndarray:
    """Images uint8 [B, size, size, 3] of labels [B] from noise `start`, by DDIM without further noise.

    The prediction is that without a label plus `guidance` times what the label adds to it (Ho and Salimans, 2021): 0
    ignores labels, 1 follows them as learnt, more exaggerates what tells them from others.
    """
    device = start.device
    scheduler = schedule()
    scheduler.set_timesteps(steps, device=device)
    latent = start
    nothing = torch.full_like(labels, shape.none)
    for time in scheduler.timesteps:
        with autocast(device, precision):
            if guidance in (0.0, 1.0):
                v = model(latent, time, labels if guidance else nothing).sample.float()
            else:
                both = model(latent.repeat(2, 1, 1, 1), time, torch.cat([labels, nothing])).sample.float()
                given, free = both.chunk(2)
                v = free + guidance * (given - free)
        latent = scheduler.step(v, time, latent, use_clipped_model_output=True).prev_sample
    return decode(latent, shape).permute(0, 2, 3, 1).contiguous().cpu().numpy()
