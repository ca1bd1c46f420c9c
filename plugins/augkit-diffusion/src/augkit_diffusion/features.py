"""What a network makes of images, real and synthetic alike: features and, if it knows the classes, logits.

Who looks is said by a `Viewer`: the network of a finished run, a timm encoder with weights from a file, or nobody but
the pixels themselves. Nothing is cached: the images of a store take seconds to minutes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from augkit.errors import AugkitError, DataError, StateError
from augkit_diffusion.pipeline_folder import file_sha256

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from augkit.lab.data import Data
    from augkit.lab.recipe import Recipe

SIDE = 16
"""Pixels that an image is reduced to a side before many are compared with many."""
FINE = 32
"""The same before it is compared with a few."""
BATCH = 256


class Viewer(Protocol):
    """What looks at images."""

    @property
    def words(self) -> str:
        """What it is, for tables and pages."""
        ...

    @property
    def told(self) -> dict[str, Any]:
        """What it is, as JSON: enough to open it again, and a hash."""
        ...

    def look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features [B, D] float32 and logits [B, C] float32, or None, of images [B, 3, H, W] uint8."""
        ...


@dataclass(frozen=True)
class Looks:
    """What was seen of images."""

    features: np.ndarray
    """[N, D] float32."""
    logits: np.ndarray | None
    """[N, C] float32, if the viewer knows the classes."""
    small: np.ndarray
    """[N, 3, S, S] uint8: the images, reduced to `FINE` pixels a side."""
    spread: np.ndarray
    """[N] float32: standard deviation of the grey values 0..255, that of the channel where it is largest."""

    def __len__(self) -> int:
        return len(self.spread)

    @cached_property
    def pixels(self) -> np.ndarray:
        """[N, P] float32 of `vectors`."""
        return vectors(self.small)


@dataclass(frozen=True)
class Pixels:
    """Nobody looks: features are reduced pixels, as of `vectors`."""

    words: str = "plain pixels"

    @property
    def told(self) -> dict[str, Any]:
        return {"pixels": SIDE}

    def look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return reduced(images), None


@dataclass(frozen=True)
class Network:
    """A network that looks."""

    model: nn.Module
    prepare: Any
    """From uint8 images [B, 3, H, W] to what the model takes."""
    autocast: Any
    words: str
    told: dict[str, Any]
    device: torch.device
    classes: int | None
    """Of its logits; None for an encoder."""

    def look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        import torch

        from augkit.lab.experts import joint
        from augkit.lab.heads import classifier

        caught: list[Tensor] = []
        head = classifier(self.model) if self.classes is not None else None
        hook = None
        if isinstance(head, torch.nn.Module):
            hook = head.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0].detach()))
        try:
            with torch.no_grad(), self.autocast():
                output = self.model(self.prepare(images.to(self.device)))
        finally:
            if hook is not None:
                hook.remove()
        if self.classes is None:
            return output.float().flatten(1).cpu(), None
        logits = joint(output).float().cpu()
        # a model of several heads has no one layer before the last: there the logits are its features
        features = caught[0].float().flatten(1).cpu() if len(caught) == 1 else logits
        return features, logits


def reduced(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] uint8 as vectors [B, P] float32 whose products are correlations of pixels at `SIDE`."""
    import torch
    from torch.nn import functional

    side = min(SIDE, images.shape[-1])
    small = functional.adaptive_avg_pool2d(images.float(), side).flatten(1)
    return torch.from_numpy(standardised(small.cpu().numpy()))


def vectors(small: np.ndarray) -> np.ndarray:
    """`reduced` of images [N, 3, S, S] uint8."""
    import torch

    parts = [reduced(torch.from_numpy(small[i : i + BATCH])).numpy() for i in range(0, len(small), BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def standardised(values: np.ndarray) -> np.ndarray:
    """Vectors [..., P] of pixels less their mean and of length 1, so that products are correlations; 0 where an image
    is constant."""
    centred = values - values.mean(-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    seen = length > 1e-3 * values.shape[-1] ** 0.5
    return np.where(seen, centred / np.maximum(length, 1e-12), 0).astype(np.float32)


def looks(viewer: Viewer, batches: Iterable[Tensor]) -> Looks:
    """What a viewer sees of batches of images [B, 3, H, W] uint8."""
    parts: list[list[np.ndarray]] = [[], [], [], []]
    known = True
    for images in batches:
        features, logits = viewer.look(images)
        spread = images.float().flatten(2).std(2, correction=0).amax(1)
        known = logits is not None
        row = (features, logits if logits is not None else features[:, :0], _fine(images), spread)
        for part, found in zip(parts, row, strict=True):
            part.append(found.cpu().numpy())
    if not parts[0]:
        empty = np.zeros((0, 1), np.float32)
        return Looks(empty, None, np.zeros((0, 3, 1, 1), np.uint8), np.zeros(0, np.float32))
    whole = [np.concatenate(part) for part in parts]
    return Looks(whole[0], whole[1] if known else None, whole[2], whole[3])


def _fine(images: Tensor) -> Tensor:
    from torch.nn import functional

    if images.shape[-1] <= FINE:
        return images
    return functional.adaptive_avg_pool2d(images.float(), FINE).round().byte()


def of_files(viewer: Viewer, paths: Sequence[Path], size: int, done: Any = None) -> tuple[Looks, np.ndarray]:
    """What a viewer sees of image files, fitted to `size` as training images are; and [N] bool: which are whole.

    What is seen of a broken file is nothing: the rows of `Looks` are those of the whole ones.
    """
    whole = np.ones(len(paths), bool)

    def batches() -> Iterator[Tensor]:
        import torch

        for begin in range(0, len(paths), BATCH):
            there: list[Tensor] = []
            for number, path in enumerate(paths[begin : begin + BATCH], begin):
                image = read(path, size)
                if image is None:
                    whole[number] = False
                else:
                    there.append(image)
            if there:
                yield torch.stack(there)
            if done is not None:
                done(min(begin + BATCH, len(paths)), len(paths))

    return looks(viewer, batches()), whole


def read(path: Path, size: int) -> Tensor | None:
    """[3, size, size] uint8 of a file, its shorter side fitted and the middle square taken; None if it is broken."""
    from PIL import Image

    from augkit.lab.data import fit
    from augkit.lab.readers import UNREADABLE

    try:
        with Image.open(path) as image:
            return fit(np.asarray(image.convert("RGB")), size)
    except FileNotFoundError:
        raise
    except UNREADABLE:
        return None


def of_training(viewer: Viewer, data: Data, rows: np.ndarray, done: Any = None) -> Looks:
    """What a viewer sees of training images, at sorted positions [N] in `Data.train`."""
    import torch

    where = torch.from_numpy(rows).to(data.train.labels.device)
    positions = list(torch.split(where, BATCH))

    def batches() -> Iterator[Tensor]:
        for number, images in enumerate(data.train.batches(positions), 1):
            yield images
            if done is not None:
                done(min(number * BATCH, len(rows)), len(rows))

    return looks(viewer, batches())


def open_viewer(
    data: Data, recipe: Recipe | None, run: Path | None = None, model: str | None = None, weights: Path | None = None
) -> Viewer:
    """A run's network, a timm encoder, or the pixels.

    Args:
        data: the store's real images; a run's network must know their classes and take their size.
        recipe: the run's, from `recipe_of_run`.
        run: a folder of `augkit train`.
        model: a timm model by name.
        weights: its weights, a .safetensors file or one of `torch.save`.

    Raises:
        AugkitError: one of them cannot be read or used.
    """
    if run is not None and recipe is not None:
        return _run(data, recipe, run)
    if model is not None and weights is not None:
        return _encoder(model, weights)
    return Pixels()


def recipe_of_run(run: Path) -> Recipe:
    """The recipe of a finished run, without synthetic images.

    Raises:
        DataError: this is no run, or it is not finished.
    """
    from augkit.lab import folder as files
    from augkit.lab.recipe import read_recipe
    from augkit_diffusion.making import real_only

    if not (run / files.RECIPE).is_file():
        raise DataError("this is no run folder (no recipe.yaml in it); give one of augkit train with --run", file=run)
    if not (run / files.SUMMARY).is_file():
        raise DataError("this run is not finished; finish it with augkit train --resume", file=run)
    return real_only(read_recipe(run / files.RECIPE))


def _run(data: Data, recipe: Recipe, folder: Path) -> Network:
    from augkit.lab import folder as files
    from augkit.lab.finished import enter_stages, prepare_finished
    from augkit.lab.run import pick_device
    from augkit.plugins import registry

    _same_classes(data, folder)
    state = files.load_checkpoint(folder, "model", "stage")
    if state is None:
        raise DataError("this run has no checkpoint.pt", file=folder)
    device = pick_device(recipe.device)
    run = prepare_finished(recipe, data, registry(), device)
    enter_stages(run, state["stage"])
    try:
        run.model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise StateError("the model of this run does not fit the store's classes", file=folder) from error
    run.model.eval()
    told = {"run": str(folder.absolute()), "sha256": file_sha256(folder / files.CHECKPOINT)}
    words = f"{recipe.model.name} of the run {folder.name}"

    def ready(images: Tensor) -> Tensor:
        return run.layout(run.normalise(images))

    return Network(run.model, ready, run.autocast, words, told, device, data.num_classes)


def _same_classes(data: Data, folder: Path) -> None:
    """Raise unless a run knows the store's classes by the same names in the same order: logits have no names."""
    from augkit.lab import folder as files

    path = folder / files.PER_CLASS
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names = [row["name"] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError("this does not tell which classes the run knows; give another --run", file=path) from error
    for theirs, ours in zip_longest(names, data.class_names):
        if theirs != ours:
            there, here = ("nothing" if name is None else f'"{name}"' for name in (theirs, ours))
            raise DataError(
                f"this run knows other classes than the store ({there} where the store has {here}); give another --run",
                file=folder,
            )


def _encoder(name: str, path: Path) -> Network:
    import torch
    from torch.nn import functional

    from augkit.lab import models
    from augkit.lab.run import pick_device

    models.check(name)
    model = models.create(name, 0, {}, 0)
    missing = model.load_state_dict(_weights(path), strict=False).missing_keys
    if missing:
        raise DataError(
            f'these are not weights of the timm model "{name}": {len(missing)} of its own are missing, such as'
            f" {missing[0]}",
            file=path,
        )
    device = pick_device("auto")
    model = model.to(device).eval()
    config: Any = getattr(model, "pretrained_cfg", {})
    size = config.get("input_size", (3, 224, 224))[-1]
    mean, std = (torch.tensor(config[part], device=device).view(1, 3, 1, 1) for part in ("mean", "std"))

    def ready(images: Tensor) -> Tensor:
        scaled = images.float() / 255
        if images.shape[-1] != size:
            scaled = functional.interpolate(scaled, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return (scaled - mean) / std

    told = {"model": name, "weights": str(path.absolute()), "sha256": file_sha256(path)}
    context = torch.autocast(device.type, torch.bfloat16, enabled=False)
    return Network(model, ready, lambda: context, f"{name} with weights of {path.name}", told, device, None)


def _weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name. Files of torch.save are read as plain tensors: nothing in them is run."""
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damaged bytes make the two stumble over; torch's advice is to read unsafely
        raise DataError(
            f"these weights cannot be read safely ({type(error).__name__}); save plain tensors by name, best as"
            " .safetensors",
            file=path,
        ) from error
    for part in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(part), dict):
            state = state[part]
    if not isinstance(state, dict):
        raise DataError("there are no weights by name in this file", file=path)
    return state


def check_viewer(run: Path | None, model: str | None, weights: Path | None) -> None:
    """Raise unless this names one viewer, or none."""
    if run is not None and (model is not None or weights is not None):
        raise AugkitError("--run and --model are two ways to say which network looks at the images: say one")
    if (model is None) != (weights is None):
        raise AugkitError("--model takes a timm model's name and --weights its file: say both")
    if weights is not None and not weights.is_file():
        raise DataError("there is no such file of weights; give a .safetensors file with --weights", file=weights)
