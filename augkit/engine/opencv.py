"""The OpenCV executor: one image at a time over a thread pool, for large images without a GPU.

The threads share the one Plan that the caller drew: no worker process holds a policy, whose copy would go stale.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from augkit.engine import batched
from augkit.engine.buffers import Recycler, recycler
from augkit.engine.cvmoves import Array
from augkit.engine.cvpasses import Canvas, Scratch, compose
from augkit.engine.finish import layout
from augkit.engine.lowering import (
    COLOR,
    ERASE,
    KERNEL,
    KINDS,
    TONE,
    WARP,
    check_channels,
    facts,
    lower,
    maps,
    tables,
)
from augkit.engine.mix_pixels import mix_images
from augkit.engine.output import Output
from augkit.engine.passes import schedule
from augkit.engine.pixels import push, statistic_of
from augkit.engine.plan import Plan
from augkit.operators.host import HOST

LONGEST = 32_000
"""Pixels a side up to which OpenCV works."""
THREADED = 200 * 200
"""Pixels an image from which a second thread gains: below, it waits for Python's lock longer than it works."""
MOST_THREADS = 4
"""A fifth to a quarter of an image's time is spent under that lock, so more cannot gain."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def execute(
    images: Tensor,
    plan: Plan,
    *,
    out: Output | None = None,
    partners: tuple[Tensor | None, ...] | None = None,
    buffers: Recycler | None = None,
) -> Tensor:
    """Do to each image what the plan says, as `augkit.engine.batched.execute` does, on the CPU.

    Images that drew an opaque operator that is not in `HOST`, and images of more than 4 channels, go the batched way.
    Images of `THREADED` pixels or more run on torch's number of threads, `MOST_THREADS` at most.
    Results differ from the batched executor's by rounding and at the border of interpolating warps; the catalogue of
    operators states by how much.
    """
    batched.check(images, plan)
    rgb = check_channels(plan.choices, images)
    recycled = recycler() if buffers is None else buffers
    kinds = facts(plan.choices, plan.choice.device).kind[plan.choice]
    alone = [one.operator.kind == "opaque" and one.operator.function not in HOST for one in plan.choices]
    apart = torch.tensor([*alone, False])[plan.choice].any(1)
    if images.shape[1] > 4 or max(images.shape[2:]) >= LONGEST or not images.numel() or bool(apart.all()):
        return batched.execute(images, plan, out=out, partners=partners, buffers=recycled)
    result = recycled.empty(tuple(images.shape), images.dtype if out is None else out.dtype, images.device)
    if images.dtype != torch.uint8:
        apart = apart | (kinds < 0).all(1)  # untouched floats stay exact
    work = images.expand(-1, 3, -1, -1) if rgb else images
    work = work if work.dtype == torch.uint8 else batched.to_work(work, recycled)
    large = images.shape[2] * images.shape[3] >= THREADED
    threads = min(torch.get_num_threads(), MOST_THREADS) if large else 1
    with _single_threaded():
        [run] = _each(threads, lambda out: _Run(plan, work, result, out), [out])
        run.run((~apart).nonzero()[:, 0].tolist(), threads)
    rows = apart.nonzero()[:, 0]
    if len(rows):
        result[rows] = batched.execute(images[rows], plan.select(rows), out=out)
    result = mix_images(result, plan, partners, out)
    return result.contiguous(memory_format=layout(images))


class _Image:
    """How far one image has come."""

    __slots__ = ("asked", "canvas", "fresh", "steps", "table")

    def __init__(self, canvas: Canvas, steps: Iterator[tuple[int, int]]) -> None:
        self.canvas, self.steps = canvas, steps
        self.table: Array | None = None
        """Tables [C, 256] that wait for the pass after them."""
        self.asked: tuple[int, int, Array] = (-1, -1, np.empty(0))
        """Operator and slot of the table that the image waits for, and the statistic of its pixels."""
        self.fresh: Array | None = None


class _Run:
    """One plan over one batch. Each image runs until it needs a table that depends on its statistics; those are made
    for all images together, and then they go on."""

    def __init__(self, plan: Plan, work: Tensor, result: Tensor, out: Output | None) -> None:
        self.plan, self.settings = plan, plan.image
        self.size = (work.shape[2], work.shape[3])
        self.known = facts(plan.choices, plan.choice.device)
        self.lowered = lower(plan, self.size, masked=False)
        self.planar = layout(work) == torch.contiguous_format
        self.work = (work.contiguous() if self.planar else work.permute(0, 2, 3, 1)).numpy()
        self.rows = {kind: rows.numpy() for kind, rows in self.lowered.rows.items()}
        self.place = self.lowered.place.tolist()
        self.choice = plan.choice.tolist()
        stage = schedule(plan, self.lowered, self.size).stage.numpy()
        order = stage.argsort(1, kind="stable")
        kinds = np.where(stage < 0, -1, stage % len(KINDS))
        self.order, self.kinds = order.tolist(), np.take_along_axis(kinds, order, 1).tolist()
        self.kernels = {k: (w.numpy(), b.tolist(), border) for k, (w, b, border) in self.lowered.kernels.items()}
        self.into = _bits(result).numpy()
        self.numbers, self.line = _numbers(result.dtype, out, result.shape[1])
        self.images: dict[int, _Image] = {}
        """Those that wait for a table."""
        self.scratch = Scratch()

    def run(self, rows: list[int], threads: int) -> None:
        """Bring these images to their end."""
        while rows:
            left = deque(rows)
            waiting = _each(threads, self._advance, [left] * min(threads, len(rows)))
            rows = [row for part in waiting for row in part]
            groups: dict[int, list[int]] = {}
            for row in rows:
                groups.setdefault(self.images[row].asked[0], []).append(row)
            _each(threads, self._settle, groups.values())

    def _image(self, row: int) -> _Image:
        """The image with its slots in the order of their stages."""
        steps = [step for step in zip(self.kinds[row], self.order[row], strict=True) if step[0] >= 0]
        return _Image(Canvas(self.work[row], self.scratch, planar=self.planar), iter(steps))

    def _advance(self, left: deque[int]) -> list[int]:
        """Run images as far as they go, until none is left; those that wait for a table."""
        waiting: list[int] = []
        while True:
            try:
                row = left.popleft()  # one step for the interpreter
            except IndexError:
                return waiting
            image = self.images.get(row) or self._image(row)
            if not self._finish(row, image):
                self.images[row] = image
                waiting.append(row)

    def _finish(self, row: int, image: _Image) -> bool:
        """Whether the image came to its end."""
        if image.fresh is not None:
            image.table = compose(image.table, image.fresh)
            image.fresh = None
        for kind, slot in image.steps:
            k = self.choice[row][slot]
            if kind != TONE:
                self._pass(row, slot, k, kind, image)
            elif k in self.known.statistics:
                name = "histogram" if image.table is not None else self.known.statistics[k]
                image.asked = (k, slot, image.canvas.statistic(name))
                return False
            else:
                image.table = compose(image.table, self.rows[TONE][self.place[row][slot]])
        table = image.table
        if self.numbers is not None and (table is not None or not self.line):
            table = compose(table, self.numbers)
        image.canvas.leave(self.into[row], table, self.line)
        self.images.pop(row, None)
        return True

    def _pass(self, row: int, slot: int, k: int, kind: int, image: _Image) -> None:
        canvas, place = image.canvas, self.place[row][slot]
        if image.table is not None:
            canvas.look_up(image.table)
            image.table = None
        if kind == WARP:
            canvas.warp(self.rows[WARP][place], self.settings)
        elif kind == COLOR:
            canvas.colour(self.rows[COLOR][place])
        elif kind == ERASE:
            canvas.erase(self.rows[ERASE][place])
        elif kind == KERNEL:
            weights, blend, border = self.kernels[k]
            canvas.kernel(weights[place if len(weights) > 1 else 0], blend[place if len(blend) > 1 else 0], border)
        elif (choice := self.plan.choices[k]).operator.function in HOST:
            drawn = {"u": self.plan.u[row, slot]} if choice.operator.draws else {}
            value = self.plan.value[row, slot].item()
            canvas.opaque(HOST[choice.operator.function], value, {**drawn, **choice.options})
        else:
            at = slice(slot, slot + 1)
            source = maps(choice, self.plan.value[row, at], self.plan.u[row, at], self.size)
            canvas.remap(source[0].numpy(), self.settings)

    def _settle(self, members: list[int]) -> None:
        """Make the tables that these images wait for, all of one operator."""
        k = self.images[members[0]].asked[0]
        slots = torch.tensor([self.images[row].asked[1] for row in members])
        at, seen = torch.tensor(members), self._seen(k, members)
        made = tables(self.plan.choices[k], self.plan.value[at, slots], self.plan.u[at, slots], self.size, seen)
        for row, table in zip(members, made.numpy(), strict=True):
            self.images[row].fresh = table

    def _seen(self, k: int, members: list[int]) -> Tensor:
        """The statistic that operator k asks for, of these images as the tables that wait would leave them."""
        name = self.known.statistics[k]
        later = [row for row in members if self.images[row].table is not None]
        found = {row: self.images[row].asked[2] for row in members}
        if later:
            counts = torch.from_numpy(np.stack([found[row] for row in later]))
            waiting = [table for row in later if (table := self.images[row].table) is not None]
            before = np.stack([np.broadcast_to(table, counts.shape[1:]) for table in waiting])
            pushed = statistic_of(name, push(counts, torch.from_numpy(before)))
            found.update(zip(later, pushed.numpy(), strict=True))
        return torch.from_numpy(np.stack([found[row] for row in members]))


def _bits(result: Tensor) -> Tensor:
    """The result as something that numpy knows: 16-bit floats as their bits."""
    return result.view(torch.int16) if result.dtype in (torch.bfloat16, torch.float16) else result


def _numbers(dtype: torch.dtype, out: Output | None, channels: int) -> tuple[Array | None, list[tuple[float, float]]]:
    """What each byte becomes [C, 256], and the same as scale and shift of each channel where OpenCV can work with them;
    neither where bytes stay bytes."""
    if dtype == torch.uint8:
        return None, []
    scale, shift = (out or Output()).scale_and_shift(channels, torch.device("cpu"))
    table = _bits((torch.arange(256.0) * scale[:, None] + shift[:, None]).to(dtype)).numpy()
    straight = dtype == torch.float32
    return table, list(zip(scale.tolist(), shift.tolist(), strict=True)) if straight else []


def _each(threads: int, function: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """What the function makes of each item, on so many threads."""
    return list(map(function, items) if threads == 1 else _pool(threads).map(function, items))


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch works alone.

    Where it has two threads, even a small operation wakes the other, which then spins for 3 ms in wait of the next one:
    with several a batch that took as much time from our threads as they had gained.
    """
    before, ready = torch.get_num_threads(), Barrier(threads + 1)

    def alone() -> None:
        torch.get_num_threads()  # or the first operation would undo what comes next
        torch.set_num_threads(1)  # of this thread, and of those that begin before it is set again below
        ready.wait()

    pool = ThreadPoolExecutor(threads, "augkit", initializer=alone)
    for _ in range(threads):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)
    return pool


if hasattr(os, "register_at_fork"):  # threads do not live on in a forked process
    os.register_at_fork(after_in_child=_pool.cache_clear)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """OpenCV's own threads would compete with ours."""
    before = cv2.getNumThreads()
    if before == 1:
        yield
        return
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
