"""The training of `adapt`: low-rank changes (LoRA) of a pretrained pipeline's networks.

What is learnt are the small matrices alone; the pipeline's own weights stay as they are. The loss is that of the
pipeline's own training: the error of the noise (or of v) that the UNet finds in a noisy image, told the prompt of the
image's class.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from augkit.errors import AugkitError, StateError
from augkit.lab.folder import write
from augkit_diffusion import learning
from augkit_diffusion.learning import Learner, Material, plain

if TYPE_CHECKING:
    from augkit_diffusion.pipelines import Pipeline

WEIGHTS = "pytorch_lora_weights.safetensors"
"""diffusers' own name, so that `load_lora_weights` reads the folder."""
UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True)
class Plan(learning.Plan):
    """What decides the weights, besides pipeline, data and augmentation."""

    rank: int
    text_encoder: bool
    """Whether the text encoder is adapted too."""
    prior: float
    """Weight of the loss that holds the class without its token to what the pipeline made of it before; 0 for none."""


@dataclass(frozen=True)
class Captions:
    """What images of each label are called: the prompts that are learnt, and those that shall stay as they were."""

    learnt: Sequence[str]
    before: Sequence[str]


class Training(Learner):
    """Low-rank changes between two steps."""

    def __init__(self, pipeline: Pipeline, plan: Plan, material: Material, captions: Captions) -> None:
        from diffusers import DDPMScheduler

        self.pipe, self.lora, self.material, self.captions = pipeline.pipe, plan, material, captions
        self.device = pipeline.device
        self.networks = {"unet": self.pipe.unet} | (
            {"text_encoder": self.pipe.text_encoder} if plan.text_encoder else {}
        )
        self.levels = DDPMScheduler.from_config(self.pipe.scheduler.config)
        if self.levels.config.prediction_type not in ("epsilon", "v_prediction"):
            raise AugkitError(f"adapt knows no pipelines that predict {self.levels.config.prediction_type}")
        for name in ("unet", "vae", "text_encoder"):
            getattr(self.pipe, name).requires_grad_(False).eval()
        if pipeline.low:
            self.pipe.unet.enable_gradient_checkpointing()
        with torch.random.fork_rng([]):
            torch.manual_seed(plan.seed)
            for name, network in self.networks.items():
                network.add_adapter(_lora(plan.rank, UNET_LAYERS if name == "unet" else TEXT_LAYERS))
        named = [(f"{part}.{name}", p) for part, net in self.networks.items() for name, p in net.named_parameters()]
        weights = {name: weight for name, weight in named if weight.requires_grad}
        for weight in weights.values():
            weight.data = weight.data.float()
        super().__init__("adapt", plan, weights, torch.optim.AdamW(weights.values(), lr=plan.lr), "give a lower lr")

    def advance(self) -> None:
        """One step."""
        plan = self.lora
        positions, labels, keys = self.material.draw(plan, self.step)
        noisy, times, wanted = self._noisy(self.material.images(positions, keys), self.random())
        with self._mixed():
            loss = functional.mse_loss(self._predict(noisy, times, labels, self.captions.learnt).float(), wanted)
            if plan.prior:
                with torch.no_grad(), self._unchanged():
                    before = self._predict(noisy, times, labels, self.captions.before)
                now = self._predict(noisy, times, labels, self.captions.before)
                loss = loss + plan.prior * functional.mse_loss(now.float(), before.float())
        self.learn(loss)

    def _noisy(self, images: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents with noise, the noise levels [B], and what the UNet should find, of images [B, 3, H, W] uint8."""
        vae, count = self.pipe.vae, len(images)
        with torch.no_grad():
            spread = vae.encode(images.to(self.device, vae.dtype) / 127.5 - 1).latent_dist
            chance = torch.randn(spread.mean.shape, generator=source)
            latents = (spread.mean + spread.std * chance.to(spread.mean)).float() * vae.config.scaling_factor
            dust = torch.randn(latents.shape, generator=source).to(latents)
            times = torch.randint(self.levels.config.num_train_timesteps, (count,), generator=source).to(self.device)
            noisy = self.levels.add_noise(latents, dust, times)
            wanted = dust
            if self.levels.config.prediction_type == "v_prediction":
                wanted = self.levels.get_velocity(latents, dust, times)
        return noisy, times, wanted

    def _predict(self, noisy: Tensor, times: Tensor, labels: Tensor, captions: Sequence[str]) -> Tensor:
        tokenizer = self.pipe.tokenizer
        words = tokenizer(
            [captions[label] for label in labels.tolist()],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        told = self.pipe.text_encoder(words.input_ids.to(self.device))[0]
        unet = self.pipe.unet
        found: Tensor = unet(noisy.to(unet.dtype), times, told.to(unet.dtype)).sample
        return found

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """The networks as they were before."""
        for network in self.networks.values():
            network.disable_adapters()
        try:
            yield
        finally:
            for network in self.networks.values():
                network.enable_adapters()

    def _mixed(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.lora.precision == "bf16")

    def finish(self, folder: Path) -> str:
        """Write what was learnt as diffusers does, and return the file's SHA-256; the checkpoint stays."""
        from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        layers = {
            f"{name}_lora_layers": {
                key: plain(value)
                for key, value in convert_state_dict_to_diffusers(get_peft_model_state_dict(network)).items()
            }
            for name, network in self.networks.items()
        }
        with tempfile.TemporaryDirectory() as scratch:
            type(self.pipe).save_lora_weights(scratch, safe_serialization=True, weight_name=WEIGHTS, **layers)
            content = (Path(scratch) / WEIGHTS).read_bytes()
        write(folder / WEIGHTS, content)
        return hashlib.sha256(content).hexdigest()


def _lora(rank: int, layers: Sequence[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(layers))


def loaded(pipe: Any, weights: Path, sha256: str | None) -> None:
    """Let a pipeline have what was learnt, in place of what it had.

    Raises:
        StateError: the file is missing or damaged, not the one with this hash, or of another pipeline.
    """
    from augkit_diffusion.pipelines import quiet

    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != sha256:
        raise StateError(
            f"these are not the weights that were learnt; remove {weights.parent} to learn anew", file=weights
        )
    with quiet():
        pipe.unload_lora_weights()
        try:
            pipe.load_lora_weights(
                str(weights.parent), weight_name=weights.name, local_files_only=True, use_safetensors=True
            )
        except Exception as error:  # diffusers, peft, safetensors and torch each raise their own
            raise StateError(
                f"what was learnt cannot be loaded ({type(error).__name__}); remove {weights.parent} to learn anew",
                file=weights,
            ) from error
