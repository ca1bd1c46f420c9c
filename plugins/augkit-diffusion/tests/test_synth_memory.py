"""Memory that runs out, for real: what is asked for is more than a process may have."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augkit_diffusion.pipelines import is_out_of_memory
from augkit_diffusion.sources import Context, open_source
from sd_parts import made, opened, recipe, save_pipeline, save_xl, wishes
from synth_parts import SERVER

from augkit.errors import AugkitError
from augkit.lab.data import load
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry

BATCH, SIDE = 16, 128
LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells how much a process has")


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own, which may be left without memory."""
    with SERVER.Pool(1, give_back) as pool:
        return pool.apply(function, arguments)


def give_back() -> None:
    """Let glibc keep no freed memory, which would go beside any limit."""
    ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD


def leave(megabytes: int) -> None:
    """Let this process have no more than so much memory besides what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def drawn(folder: Path) -> list[tuple[np.ndarray | str, bool]]:
    """Images of a pipeline, or what is told instead, and whether it came to spare memory: with enough of it, with
    enough for that, and with too little."""
    model, found = save_pipeline(folder / "pipeline", checker=False), []
    how = {"batch": BATCH, "made_at": SIDE, "size": "model", "steps": 1, "guidance": 1.0}
    for memory, megabytes in (("low", 10_000), ("auto", 70), ("auto", 10)):
        source = opened("sd", folder, model, memory=memory, **how)
        wished = wishes(source, 0, range(BATCH))
        _ = source.pipeline.pipe
        leave(megabytes)
        try:
            found.append((made(source, wished), source.pipeline.low))
        except AugkitError as error:
            found.append((str(error), source.pipeline.low))
        leave(10_000)
    return found


def learnt(folder: Path) -> list[str]:
    """What the source `fit` tells with little memory: of much at once in neither, sampling, or learning."""
    found = []
    for place, (train_batch, batch, megabytes) in enumerate(((2, 2, 10_000), (2, 8000, 200), (8000, 2, 200))):
        read = load_recipe(recipe(folder), registry())
        context = Context(load(read.data), read, folder / str(place), torch.device("cpu"))
        more = {"train_steps": 1, "width": 16, "train_batch": train_batch, "batch": batch, "steps": 1}
        source: Any = open_source("fit", more, context, registry())
        leave(megabytes)
        try:
            source.identity()
            source.make(wishes(source, 0, range(1)))
            found.append("enough")
        except AugkitError as error:
            found.append(str(error))
        leave(10_000)
    return found


@LINUX
@pytest.mark.slow
def test_a_pipeline_goes_on_with_less_and_gives_up_with_a_sentence(tmp_path: Path) -> None:
    (expected, _), (images, low), told = apart(drawn, tmp_path)
    assert low and np.array_equal(images, expected)
    assert told == ("out of memory; make fewer images at once (--batch 1)", True)


@LINUX
@pytest.mark.slow
def test_what_learns_says_what_takes_too_much(tmp_path: Path) -> None:
    assert apart(learnt, tmp_path) == [
        "enough",
        "out of memory; make fewer images at once (--batch 8)",
        "out of memory; say a --option train_batch smaller than 8000",
    ]


@pytest.mark.slow
def test_half_precision_is_whole_again_after_memory_ran_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """XL's pipeline decodes in float32, and an error there leaves its decoder so. A CPU computes in float16, too."""
    source = opened("sd", tmp_path, save_xl(tmp_path / "xl"))
    source.pipeline.precision = "float16"
    wished, vae = wishes(source, 0, range(3)), source.pipeline.pipe.vae
    images = made(source, wished)
    assert vae.dtype == torch.float16
    decode, fails = vae.decode, [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")]

    def short(*arguments: Any, **more: Any) -> Any:
        if fails:
            raise fails.pop()
        return decode(*arguments, **more)

    monkeypatch.setattr(vae, "decode", short)
    capsys.readouterr()
    near = made(source, wished).astype(int)
    assert source.pipeline.low and vae.dtype == torch.float16 and np.abs(near - images).max() <= 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("warning: out of memory: going on")


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_known(error: Exception, short: bool) -> None:
    assert is_out_of_memory(error) is short
