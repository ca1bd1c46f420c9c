"""Diffusers pipelines: loaded from a folder, without network or code of their own, and asked for a batch of images."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from augkit.errors import AugkitError, DataError
from augkit_diffusion.pipeline_folder import PipelineFolder

if TYPE_CHECKING:
    import torch
    from PIL import Image

Precision = Literal["auto", "float16", "bf16", "float32"]
Memory = Literal["auto", "low"]
Task = Literal["text", "image"]
SHORT = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "_status_alloc_failed")
"""What torch says of memory, besides errors of a kind of their own: CUDA, CPUs, C++, and CUDA's libraries."""
LOADERS: Mapping[Task, str] = {"text": "AutoPipelineForText2Image", "image": "AutoPipelineForImage2Image"}


@dataclass(frozen=True)
class Request:
    """A batch of images to make."""

    prompts: Sequence[str]
    negatives: Sequence[str]
    seeds: Sequence[int]
    images: Sequence[Image.Image] | None = None
    """What each begins with, for pipelines of images."""


class Pipeline:
    """A pipeline that is loaded when it is first asked for."""

    def __init__(
        self,
        folder: PipelineFolder,
        device: torch.device,
        *,
        task: Task = "text",
        precision: Precision = "auto",
        memory: Memory = "auto",
    ) -> None:
        """Raises AugkitError if the device has no such precision."""
        self.folder, self.device, self.task, self.memory = folder, device, task, memory
        self.precision = pick_precision(precision, device)
        self.low = memory == "low"

    @cached_property
    def pipe(self) -> Any:
        """The diffusers pipeline, on the device.

        Raises:
            DataError: the folder's files are damaged, or diffusers has no pipeline of this task for them.
        """
        pipe = self._load()
        if self.folder.checked and getattr(pipe, "safety_checker", None) is None:
            raise DataError("the pipeline's safety checker was not loaded; get the folder anew", file=self.folder.path)
        pipe.set_progress_bar_config(disable=True)
        if self.low:
            spare_memory(pipe)
        return pipe

    def _load(self) -> Any:
        path = self.folder.path
        more: dict[str, Any] = {}
        if self.folder.safety_checker == "off":
            more = {"safety_checker": None, "requires_safety_checker": False}
        with quiet() as diffusers:
            try:
                pipe = getattr(diffusers, LOADERS[self.task]).from_pretrained(
                    str(path),
                    torch_dtype=kinds()[self.precision],
                    use_safetensors=True,
                    local_files_only=True,
                    variant=self.folder.variant,
                    **more,
                )
                return pipe.to(self.device)
            except Exception as error:  # diffusers, transformers and safetensors each raise their own
                if is_out_of_memory(error):
                    raise DataError("the model does not fit into the memory of this device", file=path) from error
                reason = " ".join(str(error).split())[:200].rstrip(".")
                raise DataError(
                    f"this {self.folder.kind} cannot be loaded for {self.task}-to-image ({type(error).__name__}:"
                    f" {reason}); name another pipeline",
                    file=path,
                ) from error

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What the pipeline can be asked."""
        return inspect.signature(type(self.pipe).__call__).parameters

    def guidance(self, wanted: float | None) -> float | None:
        """The guidance that is used: as wanted, or the pipeline's own; None if it knows none.

        Raises:
            AugkitError: one is wanted of a pipeline that knows none.
        """
        known = self.parameters.get("guidance_scale")
        if known is None:
            if wanted is not None:
                raise AugkitError(f"{self.folder.kind} knows no guidance; leave out --guidance")
            return None
        return float(known.default) if wanted is None else wanted

    @cached_property
    def size(self) -> int:
        """Pixels of a side of the images that the model was made for.

        Raises:
            AugkitError: it does not tell.
        """
        pipe = self.pipe
        net = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
        found = getattr(pipe, "default_sample_size", None) or getattr(getattr(net, "config", None), "sample_size", None)
        found = found[0] if isinstance(found, (list, tuple)) else found
        if not isinstance(found, int):
            raise AugkitError(f"{self.folder.kind} does not tell its images' size; say --option made_at=512")
        scale: int = getattr(pipe, "vae_scale_factor", 0) or getattr(pipe, "movq_scale_factor", 1)
        return found * scale

    def draw(
        self, request: Request, *, steps: int, guidance: float | None, size: int, strength: float | None = None
    ) -> list[np.ndarray | None]:
        """Images uint8 [size, size, 3]; None where the safety checker flags one.

        Each is drawn from the noise of its own seed, made on the CPU. Out of memory, it tries once more with less.

        Raises:
            AugkitError: the pipeline cannot make these, memory is short even so, or numbers overflow.
        """
        if not self.low:
            try:
                return self._drawn(request, steps, guidance, size, strength)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            from augkit.cli.output import note

            note("out of memory: going on with --option memory=low, which may change images a little")
            self.low = True
            self._settle()
            _free(self.device)
            spare_memory(self.pipe)
        with enough_memory("make fewer images at once (--batch 1)"):
            return self._drawn(request, steps, guidance, size, strength)

    def _drawn(
        self, request: Request, steps: int, guidance: float | None, size: int, strength: float | None
    ) -> list[np.ndarray | None]:
        import torch

        arguments: dict[str, Any] = {
            "prompt": list(request.prompts),
            "num_inference_steps": steps,
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in request.seeds],
            "output_type": "np",
        }
        if guidance is not None:
            arguments["guidance_scale"] = guidance
        if any(request.negatives):
            if "negative_prompt" not in self.parameters:
                raise AugkitError(f"{self.folder.kind} knows no negative prompt; leave it out")
            arguments["negative_prompt"] = list(request.negatives)
        if request.images is not None:
            arguments |= {"image": list(request.images), "strength": strength}
        elif "height" in self.parameters:
            arguments |= {"height": size, "width": size}
        try:
            with torch.inference_mode(), quiet():
                made = self.pipe(**arguments)
        except ValueError as error:  # diffusers checks what it is asked
            raise AugkitError(f"{self.folder.kind} refuses this: {' '.join(str(error).split())[:200]}") from error
        flags = getattr(made, "nsfw_content_detected", None) or [False] * len(request.prompts)
        return [None if flag else self._pixels(image) for image, flag in zip(made.images, flags, strict=True)]

    def _settle(self) -> None:
        """Give the autoencoder its precision back: some pipelines run it in float32, and an error leaves it there."""
        import torch

        vae, wanted = getattr(self.pipe, "vae", None), kinds()[self.precision]
        if vae is not None and vae.dtype != wanted:
            with torch.inference_mode(), quiet():  # in inference mode its weights were changed, too
                vae.to(dtype=wanted)

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        if not np.isfinite(image).all():
            raise AugkitError(
                f"the model's numbers overflow in {self.precision}; say --precision bf16 or --precision float32"
            )
        return np.asarray((image * 255).round().clip(0, 255), dtype=np.uint8)


def pick_precision(wanted: Precision, device: torch.device) -> str:
    """The precision for a device: float16 on accelerators and float32 on a CPU, unless one is said.

    Raises:
        AugkitError: float16 on a CPU.
    """
    if wanted == "float16" and device.type == "cpu":
        raise AugkitError("a CPU does not compute in float16; say --precision float32, or bf16")
    if wanted == "auto":
        return "float32" if device.type == "cpu" else "float16"
    return wanted


def kinds() -> Mapping[str, torch.dtype]:
    """torch's types of the precisions."""
    import torch

    return {"float16": torch.float16, "bf16": torch.bfloat16, "float32": torch.float32}


def spare_memory(pipe: Any) -> None:
    """The decoder one image and one tile at a time; attention in slices only where torch holds all of it at once.

    On CPUs and on GPUs of CUDA torch's own attention holds no such matrix, so that slices would take more memory.
    """
    if pipe.device.type == "mps":
        pipe.enable_attention_slicing()
    for way in ("enable_slicing", "enable_tiling"):
        if hasattr(getattr(pipe, "vae", None), way):
            getattr(pipe.vae, way)()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of any device's memory."""
    import torch

    told = str(error).lower()
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in told for words in SHORT)
    )


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Turn what is raised where memory is short into a sentence.

    Raises:
        AugkitError: it was.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise AugkitError(f"out of memory; {advice}") from error


def _free(device: torch.device) -> None:
    import gc

    import torch

    gc.collect()
    module: Any = getattr(torch, device.type, None)  # torch.cuda, torch.xpu, torch.mps; torch.cpu keeps nothing back
    if hasattr(module, "empty_cache"):
        module.empty_cache()


@contextmanager
def quiet() -> Iterator[Any]:
    """The module diffusers, imported where its torchvision cannot be, and meanwhile no bars and only errors."""
    from augkit.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import diffusers
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = [module.utils.logging for module in (diffusers, transformers)]
        levels = [log.get_verbosity() for log in logs]
        for log in logs:
            log.set_verbosity(logging.ERROR)
            log.disable_progress_bar()
        try:
            yield diffusers
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.set_verbosity(level)
                log.enable_progress_bar()
