"""The masked executor compiled: one graph for a palette and a shape of batch, whatever the plan says.

A plan is four tensors to it, so nothing is compiled again from batch to batch: an odd last batch is filled up to a full
one and cut off again, and each size of images compiles once (half a minute, kept for the last `MOST`). On a GPU the
steps run as kernels of our own where they can (`kernels.py`) and all of it but the output, which needs memory of its
own, as one CUDA graph. Plans with opaque operators go to the eager executor.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from augkit.engine import batched
from augkit.engine.batched import check
from augkit.engine.finish import layout
from augkit.engine.fixed import Fixed
from augkit.engine.lowering import KERNEL, KINDS, LATE, WARP, check_channels, lower
from augkit.engine.masked import Masked, finished, to_work
from augkit.engine.mix_pixels import mix_images
from augkit.engine.output import Output
from augkit.engine.plan import Plan
from augkit.errors import AugkitError, InputError

MOST = 16
"""Graphs that are kept."""
BACKEND = "inductor"
"""What compiles them."""

Numbers = tuple[Tensor, Tensor, Tensor]
"""What a graph needs of a plan: `choice`, `value`, `u`."""


def execute(
    images: Tensor,
    plan: Plan,
    *,
    out: Output | None = None,
    partners: tuple[Tensor | None, ...] | None = None,
    fused: bool | None = None,
    kept: Graphs | None = None,
) -> Tensor:
    """Do to each image what the plan says; as `batched.execute`, but for the rounding of float32.

    Args:
        images: [B, C, H, W], uint8 or floating point in 0..1; never written to.
        plan: for B images, on the same device.
        out: a normalised output; without it the result has the images' dtype.
        partners: for each mix of the plan, pool images, or None where partners are in the batch.
        fused: run steps as Triton kernels; by default on CUDA where they can do the plan.
        kept: where graphs are looked for and kept; those of this process without it.

    Raises:
        InputError: images and plan do not fit each other, or nothing here can compile.
    """
    check(images, plan)
    opaque = any(choice.operator.kind == "opaque" for choice in plan.choices)
    if opaque or not images.numel() or not plan.choice.shape[1]:
        return batched.execute(images, plan, out=out, partners=partners, masked=True)
    shape = layout(images)
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        result = (_graphs if kept is None else kept).run(images.contiguous(memory_format=shape), plan, out, fused)
        return mix_images(result, plan, partners, out).contiguous(memory_format=shape)


class Graph:
    """What runs one palette's plans on batches of one shape."""

    def __init__(self, images: Tensor, plan: Plan, out: Output | None, fused: bool | None, cuda_graph: bool) -> None:
        self.choices, self.batch, self.slots, self.out = plan.choices, *plan.choice.shape, out
        self.fused = can_fuse(images, plan) if fused is None else fused
        self.shape = layout(images)
        channels = 3 if check_channels(plan.choices, images) else images.shape[1]
        passes = _fused if self.fused else _passes
        self.passes = _compiled(
            partial(passes, plan, channels, out is not None), images, *_numbers(plan), cuda_graph=cuda_graph
        )
        self.finish: Callable[..., Tensor] | None = None

    def __call__(self, images: Tensor, plan: Plan) -> Tensor:
        """[N, C, H, W] and a plan for them, N at most the graph's batch, to the result."""
        count, (images, plan) = len(images), self._filled(images, plan)
        torch.compiler.cudagraph_mark_step_begin()
        made = self.passes(images, *_numbers(plan))
        return self._finished(images, *made)[:count]

    def _filled(self, images: Tensor, plan: Plan) -> tuple[Tensor, Plan]:
        """Up to the graph's batch and slots, with images that meet no operator."""
        more, slots = self.batch - len(images), self.slots - plan.choice.shape[1]
        if more:
            rest = images.new_zeros(more, *images.shape[1:])
            images = torch.cat([images, rest]).contiguous(memory_format=self.shape)
        if more or slots:
            pad = torch.nn.functional.pad
            choice, value = pad(plan.choice, (0, slots, 0, more), value=-1), pad(plan.value, (0, slots, 0, more))
            plan = replace(plan, choice=choice, value=value, u=pad(plan.u, (0, 0, 0, slots, 0, more)))
        return images, plan

    def _finished(self, images: Tensor, work: Tensor, touched: Tensor, pending: Tensor | None = None) -> Tensor:
        if self.fused:
            return _fused_finish(self.out, self.shape, images, work, touched, pending)
        given = (images, work, touched) if pending is None else (images, work, touched, pending)
        if self.finish is None:
            self.finish = _compiled(partial(_finish, self.out, self.shape), *given)
        return self.finish(*given)


class Graphs:
    """Those used last, by palette, settings and shape; each a CUDA graph, unless said, on a GPU."""

    def __init__(self, *, cuda_graphs: bool = True) -> None:
        self.cuda_graphs = cuda_graphs
        self._kept: OrderedDict[tuple[Any, ...], Graph] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget them all."""
        self._kept.clear()

    def run(self, images: Tensor, plan: Plan, out: Output | None, fused: bool | None) -> Tensor:
        """The result of the smallest graph that holds the batch, which is made if there is none."""
        about = (id(plan.choices), plan.image, images.shape[1:], images.dtype, images.device, layout(images))
        kind = (*about, plan.u.shape[2], out, fused)
        batch, slots = plan.choice.shape
        with self._lock:
            holds = [key for key in self._kept if key[2:] == kind and key[0] >= batch and key[1] >= slots]
            key = min(holds, default=(batch, slots, *kind))
            if key not in self._kept:
                self._kept[key] = Graph(images, plan, out, fused, self.cuda_graphs)
                if len(self._kept) > MOST:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key](images, plan)


_graphs = Graphs()


def can_fuse(images: Tensor, plan: Plan) -> bool:
    """Whether the Triton kernels are there and can do this plan."""
    if images.device.type != "cuda" or find_spec("triton") is None:
        return False
    from augkit.engine.fused import fits

    kinds = {KINDS.index(choice.operator.kind) for choice in plan.choices}
    sides: list[int] = []
    if KERNEL in kinds:
        found = lower(plan, (images.shape[2], images.shape[3]), masked=True).kernels
        sides = [kernel.weights.shape[-1] for kernel in found.values()]
    return not kinds & set(LATE) and fits(sides, max(3, images.shape[1]))


def _numbers(plan: Plan) -> Numbers:
    """In the one layout that a graph is made for; drawn numbers may be columns of a larger table."""
    choice, value, u = (t.contiguous().view(-1).view(t.shape) for t in (plan.choice, plan.value, plan.u))
    return choice, value, u


def _compiled(function: Callable[..., Any], *given: Tensor, cuda_graph: bool = False) -> Callable[..., Any]:
    """A function of tensors alone, traced to a list of torch's operations and compiled.

    Raises:
        InputError: it cannot be.
    """
    mode = "reduce-overhead" if cuda_graph and given[0].device.type == "cuda" else None
    function(*given)  # fills what is cached, so that the graph has it as a constant and sends nothing to the device
    try:
        traced = make_fx(function)(*given)
        compiled: Callable[..., Any] = torch.compile(traced, fullgraph=True, dynamic=False, mode=mode, backend=BACKEND)
        compiled(*given)
        return compiled
    except AugkitError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(f'executor "compiled" cannot compile this policy here; use "batched" ({reason})') from error


def _planned(plan: Plan, choice: Tensor, value: Tensor, u: Tensor) -> Plan:
    return Plan(plan.choices, choice, value, value, u, choice[:, 0], image=plan.image)


def _passes(
    plan: Plan, channels: int, defer: bool, images: Tensor, choice: Tensor, value: Tensor, u: Tensor
) -> tuple[Tensor, ...]:
    """Images to bytes, the mask of those touched, and the tables that wait, if any can."""
    masked = Masked(_planned(plan, choice, value, u), to_work(images, channels), defer=defer, traced=True)
    work, fixed = masked.run(), masked.fixed
    return (work, fixed.touched) if fixed.pending is None else (work, fixed.touched, fixed.pending)


def _finish(
    out: Output | None,
    shape: torch.memory_format,
    images: Tensor,
    work: Tensor,
    touched: Tensor,
    pending: Tensor | None = None,
) -> Tensor:
    """A tensor of its own."""
    if out is None and images.dtype == torch.uint8:
        return work[:, : images.shape[1]].clone(memory_format=shape)
    return finished(images, work, pending, touched, out).contiguous(memory_format=shape)


def _fused(
    plan: Plan, channels: int, defer: bool, images: Tensor, choice: Tensor, value: Tensor, u: Tensor
) -> tuple[Tensor, ...]:
    """The same as `_passes`, by kernels."""
    from augkit.engine import fused

    work = images.expand(-1, channels, -1, -1) if images.dtype == torch.uint8 else to_work(images, channels)
    size = (images.shape[2], images.shape[3])
    fixed = Fixed(_planned(plan, choice, value, u), size, channels, defer=defer)
    for number in range(fixed.steps):
        step = fixed.step(number, partial(fused.histogram, work))
        counts = None
        if plan.image.fill == "mean" and step.matrices is not None:
            counts = fused.histogram(work, step.kind == WARP)
        work = fused.run(work, step, plan.image, counts)
    return (work, fixed.touched) if fixed.pending is None else (work, fixed.touched, fixed.pending)


def _fused_finish(
    out: Output | None,
    shape: torch.memory_format,
    images: Tensor,
    work: Tensor,
    touched: Tensor,
    pending: Tensor | None = None,
) -> Tensor:
    """The same as `_finish`, by a kernel."""
    from augkit.engine import fused

    dtype = images.dtype if out is None else out.dtype
    neutral = Output(mean=(0.0,), std=(1 / 255 if dtype == torch.uint8 else 1.0,))
    scale, shift = (out or neutral).scale_and_shift(images.shape[1], images.device)
    result = fused.finish(work, pending, scale, shift, dtype, shape)
    if images.dtype == torch.uint8:
        return result
    exact = images if out is None else (images.float() * (255 * scale).view(-1, 1, 1) + shift.view(-1, 1, 1)).to(dtype)
    return torch.where(touched.view(-1, 1, 1, 1), result, exact)
