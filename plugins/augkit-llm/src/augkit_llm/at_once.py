"""Several things at once, which nobody has to wait for who is interrupted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def at_once(
    number: int, function: Callable[[T], R], items: Sequence[T], left: Callable[[], float | None] = lambda: None
) -> Iterator[R]:
    """What a function gives for each item, in their order.

    It runs in threads that end with the process, unlike those of an executor: whoever stops taking results, such as by
    Ctrl-C, waits for none that is under way, and no further item is begun. Nor is one after an item has failed.

    Args:
        number: of threads.
        function: may raise; what it raises comes in its item's place.
        items: given to `function` in order.
        left: seconds that may still be waited, None for any; it raises when there are none.
    """
    waiting: queue.SimpleQueue[tuple[T, Future[R]]] = queue.SimpleQueue()
    results: list[Future[R]] = [Future() for _ in items]
    for pair in zip(items, results, strict=True):
        waiting.put(pair)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                item, result = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                result.set_result(function(item))
            except BaseException as error:
                over.set()
                result.set_exception(error)

    for _ in range(number):
        threading.Thread(target=work, daemon=True, name="augkit-llm-slot").start()
    try:
        for result in results:
            while not result.done():
                wait([result], left())
            yield result.result()
    finally:
        over.set()
