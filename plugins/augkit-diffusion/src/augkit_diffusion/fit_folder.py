"""What `fit` has learnt, as files: in the store's `model/`, named as diffusers names them, so that it reads them too.

learnt.json                                         what was learnt, from which data, and the hash of the weights
config.json, diffusion_pytorch_model.safetensors    the network (diffusers' UNet2DModel), mean of its weights
scheduler_config.json                               noise levels (diffusers' DDIMScheduler)
checkpoint.safetensors                              while it learns
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from augkit.errors import StateError
from augkit.lab.folder import write
from augkit_diffusion import learnt
from augkit_diffusion.fit_model import Network, Shape, network, schedule
from augkit_diffusion.fit_training import Training
from augkit_diffusion.learning import read_tensors

CONFIG, LEVELS = "config.json", "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = (WEIGHTS, CONFIG, LEVELS)


def finish(folder: Path, settings: Mapping[str, Any], training: Training) -> None:
    """Write what was learnt, and remove the checkpoint."""
    from safetensors.torch import save

    weights = bytes(save(training.averaged(), {"format": "pt"}))
    write(folder / WEIGHTS, weights)
    write(folder / CONFIG, training.model.to_json_string())
    write(folder / LEVELS, schedule().to_json_string())
    learnt.finish(folder, settings, hashlib.sha256(weights).hexdigest())


def load(folder: Path, shape: Shape, device: torch.device) -> Network:
    """The network that was learnt, ready to sample.

    Raises:
        StateError: its file is missing or damaged, or not the one that was learnt.
    """
    path, advice = folder / WEIGHTS, f"remove {folder} to learn anew"
    tensors, _ = read_tensors(path, advice)
    if hashlib.sha256(path.read_bytes()).hexdigest() != learnt.learnt(folder):
        raise StateError(f"these are not the weights that {learnt.NOTE} tells of; {advice}", file=path)
    with torch.random.fork_rng([]):
        model = network(shape)
    model.load_state_dict(tensors)
    return sampling(model, device)


def sampling(model: Network, device: torch.device) -> Network:
    """A network, ready to sample."""
    model = model.to(device).eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last) if device.type == "cuda" else model
