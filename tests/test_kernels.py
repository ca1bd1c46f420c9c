"""The Triton kernels: run by its interpreter where there is no GPU (`conftest.py` says so), and compiled for one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from operator_references import choice, photos, random_plan
from test_compiled import SMALL, guarded, one_graph  # noqa: F401  fixtures
from torch import Tensor
from torch.library import opcheck

from augkit import Output
from augkit.engine import batched, compiled
from augkit.engine.finish import layout
from augkit.engine.lowering import KINDS, LATE
from augkit.engine.plan import ImageSettings, Plan
from augkit.operators import ALL

pytest.importorskip("triton", reason="Triton is not installed; on a GPU PyTorch brings it")
ON_GPU = torch.cuda.is_available()
OUT = Output(torch.float32, (0.5,), (0.25,))


def on_device(images: Tensor, plan: Plan) -> tuple[Tensor, Plan]:
    """On a GPU where there is one."""
    return (images.cuda(), plan.to("cuda")) if ON_GPU else (images, plan)


def agree(images: Tensor, plan: Plan, out: Output | None = None, channels: int = 3) -> None:
    """Kernels against the masked passes; a compiled graph runs these very functions.

    A sum in another order may be rounded to the other side, and what follows may widen that.
    """
    images, plan = on_device(images, plan)
    drawn = (plan.choice, plan.value, plan.u)
    made = compiled._fused(plan, channels, out is not None, images, *drawn)
    result = compiled._fused_finish(out, layout(images), images, *made)
    eager = batched.execute(images, plan, out=out, masked=True)
    assert result.dtype == eager.dtype and result.stride() == eager.stride()
    apart = ((result.double() - eager.double()).abs() > 1e-5).double().mean()
    assert apart <= 0.01, f"{apart:.2%} of the numbers differ"


@pytest.mark.slow
@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", ["black", "mean", "reflect"])
def test_kernels_do_what_the_passes_do(resample: str, fill: str) -> None:
    names = [one.name for one in ALL if KINDS.index(one.kind) not in LATE]
    settings = ImageSettings(resample, fill)
    plan = random_plan(tuple(map(choice, names)), len(names) // 2, 2, seed=4, image=settings)
    every = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))[: plan.choice.numel()]
    agree(photos(16, len(plan)), replace(plan, choice=every.view_as(plan.choice)))


@pytest.mark.parametrize("kind", ["floats", "channels_last", "grey"])
def test_kernels_take_every_kind_of_image(kind: str) -> None:
    images = photos(16, 8)
    if kind == "floats":
        images = images.float() / 255 + 1e-4
    elif kind == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    else:
        images = images[:, :1].contiguous()
    plan = random_plan(tuple(map(choice, SMALL)), 8, 2, seed=3, empty=0.4)
    for out in (None, OUT):
        agree(images, plan, out)


@pytest.mark.slow(15)
def test_kernels_are_operators_that_compile(guarded: None) -> None:  # noqa: F811
    plan = random_plan(tuple(map(choice, SMALL)), 4, 2, seed=3)
    images, plan = on_device(photos(12, 4), plan)
    whole = compiled.execute(images, plan, out=OUT, fused=True)
    part = compiled.execute(images[:3], plan.select(torch.arange(3, device=images.device)), out=OUT, fused=True)
    assert torch.equal(part, whole[:3]) and len(compiled._graphs._kept) == 1
    assert ((whole - batched.execute(images, plan, out=OUT, masked=True)).abs() > 1e-5).double().mean() <= 0.01
    opcheck(torch.ops.augkit.histogram.default, (images, torch.ones(4, dtype=torch.bool, device=images.device)))


def test_kernels_count() -> None:
    from augkit.engine import fused

    images, _ = on_device(photos(20, 3), random_plan((choice("invert"),), 3, 1))
    wanted = torch.tensor([True, False, True], device=images.device)
    counts = fused.histogram(images, wanted).cpu()
    for image in range(3):
        for channel in range(3):
            expected = torch.bincount(images[image, channel].flatten().cpu().long(), minlength=256)
            assert torch.equal(counts[image, channel], expected.float() * wanted[image].item())


COMPILING = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from augkit.engine import kernels

NUMBERS = ("height", "width", "stride_b", "stride_c", "stride_y", "stride_x")
FLOATS = ("matrices", "colours", "weights", "blends", "boxes", "scale", "shift")
TYPES = {"kinds": "*i32", "sides": "*i32", **dict.fromkeys(FLOATS, "*fp32"), **dict.fromkeys(NUMBERS, "i32")}

def compiles(kernel, target, **constants):
    names = kernel.arg_names
    types = {name: "constexpr" if name in constants else TYPES.get(name, "*u8") for name in names}
    types["target"] = target
    made = triton.compile(ASTSource(fn=kernel, signature=types, constexprs=constants), target=GPUTarget("cuda", 90, 32))
    assert len(made.asm["cubin"]) > 1000

for nearest in (True, False):
    for fill in range(3):
        compiles(kernels.step_kernel, "*u8", C=3, LEVELS=2, NEAREST=nearest, FILL=fill, COLOURS=True, AREA=169,
                 TABLES=True, BOXES=2, BLOCK=1024)
compiles(kernels.step_kernel, "*u8", C=1, LEVELS=0, NEAREST=True, FILL=0, COLOURS=False, AREA=0, TABLES=True, BOXES=0,
         BLOCK=1024)
compiles(kernels.histogram_kernel, "*fp32", C=3, SIZE=50176, BLOCK=4096)
for dtype in ("*bf16", "*fp16", "*fp32", "*u8"):
    compiles(kernels.finish_kernel, dtype, C=3, TABLES=True, BLOCK=1024, CHANNELS=3)
print("compiled")
"""


@pytest.mark.slow(10)
def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    script = tmp_path / "compile.py"  # Triton reads the source of what it compiles
    script.write_text(COMPILING)
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]
