"""What `fit` has learnt, as files: in the store's `model/`, named as diffusers names them, so that it reads them too.

    fit.json                                            what was learnt, from which data, and the hash of the weights
    config.json, diffusion_pytorch_model.safetensors    the network (diffusers' UNet2DModel), mean of its weights
    scheduler_config.json                               noise levels (diffusers' DDIMScheduler)
    checkpoint.safetensors                              while it learns

Nothing here is unpickled, and `fit.json` gets its hash last: a folder holds a finished model or none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from augkit.errors import StateError
from augkit.lab.folder import write, write_json
from augkit.lab.run import flat
from augkit_diffusion.fit_model import Network, Shape, network, schedule
from augkit_diffusion.fit_training import CHECKPOINT, Training, read_tensors

NOTE, CONFIG, LEVELS = "fit.json", "config.json", "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def learnt(folder: Path) -> str | None:
    """The hash of the weights that were learnt there; None if none were, or not yet to the end.

    Raises:
        StateError: the note cannot be read.
    """
    return read_note(folder).get("model")


def read_note(folder: Path) -> dict[str, Any]:
    """What `fit.json` says, `settings` and `model`; nothing if there is none.

    Raises:
        StateError: it cannot be read.
    """
    path = folder / NOTE
    if not path.exists():
        return {}
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(note["settings"], dict) and isinstance(note["model"], str | None):
            return dict(note)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # told below
    raise StateError(f"this does not tell what was learnt here; remove {folder} to learn anew", file=path)


def check(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether something was begun there.

    Raises:
        StateError: it was, with other settings.
    """
    note = read_note(folder)
    if not note:
        return False
    there, here = flat(note["settings"]), flat(settings)
    for name in here | there:
        if here.get(name) != there.get(name):
            raise StateError(
                f"this model was learnt with {name} {there.get(name)}, not {here.get(name)}; go on with its own"
                " settings or choose another folder with --out",
                file=folder,
            )
    return True


def begin(folder: Path, settings: dict[str, Any]) -> None:
    """Note what is going to be learnt, and remove what a kill or a full disk left half written.

    One process at a time; raises like `check`.
    """
    for half in folder.glob("*.part"):
        half.unlink(missing_ok=True)
    if not check(folder, settings):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / NOTE, {"settings": settings, "model": None})


def finish(folder: Path, settings: dict[str, Any], training: Training) -> None:
    """Write what was learnt, and remove the checkpoint."""
    from safetensors.torch import save

    weights = bytes(save(training.averaged(), {"format": "pt"}))
    write(folder / WEIGHTS, weights)
    write(folder / CONFIG, training.model.to_json_string())
    write(folder / LEVELS, schedule().to_json_string())
    write_json(folder / NOTE, {"settings": settings, "model": hashlib.sha256(weights).hexdigest()})
    (folder / CHECKPOINT).unlink(missing_ok=True)


def load(folder: Path, shape: Shape, device: torch.device) -> Network:
    """The network that was learnt, ready to sample.

    Raises:
        StateError: its file is missing or damaged, or not the one that was learnt.
    """
    path, advice = folder / WEIGHTS, f"remove {folder} to learn anew"
    tensors, _ = read_tensors(path, advice)
    if hashlib.sha256(path.read_bytes()).hexdigest() != learnt(folder):
        raise StateError(f"these are not the weights that {NOTE} tells of; {advice}", file=path)
    with torch.random.fork_rng([]):
        model = network(shape)
    model.load_state_dict(tensors)
    model = model.to(device).eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last) if device.type == "cuda" else model
