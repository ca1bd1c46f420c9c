"""One process that does tasks for another: `python -m augkit.lab.worker CONNECTION`.

It is the leader of a process group of its own. When the process that started it ends, however that ends, a thread here
notices that the connection is closed and kills the whole group.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypedDict

from augkit.errors import AugkitError

GLANCE = 0.2
"""Seconds between two looks at what a limited task takes."""


class Answer(TypedDict):
    """What a task returned, or why it failed in one line."""

    value: Any
    reason: str | None


@dataclass(frozen=True)
class Limits:
    """What a task may take. Beyond it its process and all that it started are killed, and it has failed."""

    seconds: float | None = None
    memory: float | None = None
    """MiB that the process and those it started hold together (resident)."""

    def __bool__(self) -> bool:
        return self.seconds is not None or self.memory is not None


def search_path() -> str:
    """Where this process finds modules, for PYTHONPATH: a task may be a function of any of them."""
    return os.pathsep.join(dict.fromkeys(path for path in sys.path if path))


class Worker:
    """The other end: a process to send tasks to. `connection` is ready to read when there is an answer."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = Pipe()
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": search_path()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "augkit.lab.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
        )
        theirs.close()
        self.alive = True
        self.begin = time.monotonic()

    def send(self, task: Mapping[str, Any], logs: Path | None) -> None:
        """Begin a task."""
        self.begin = time.monotonic()
        with suppress(OSError):  # it died while it was idle; `answer` says so
            self.connection.send((task, str(logs) if logs else None))

    def answer(self) -> Answer:
        """Wait for the answer; a process that died is one."""
        try:
            answer: Answer = self.connection.recv()
            return answer
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):  # its own end says more than ours
                self.process.wait(timeout=5)
            self.kill()
            code = self.process.returncode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            return {"value": None, "reason": f"its process {how}"}

    def beyond(self, limits: Limits) -> str | None:
        """Which limit the task under way is beyond, in words; such a worker is killed."""
        reason = None
        if limits.seconds is not None and time.monotonic() - self.begin > limits.seconds:
            reason = f"it was stopped after {limits.seconds:g} seconds, its limit"
        elif limits.memory is not None and (held := _memory(self.process.pid)) > limits.memory:
            reason = f"it was stopped while it held {held:.0f} MiB of memory; its limit is {limits.memory:g}"
        if reason is not None:
            self.kill()
        return reason

    def kill(self) -> None:
        """End the process and everything that it has started."""
        self.alive = False
        self.connection.close()
        with suppress(ProcessLookupError):  # it has ended, and so have its children
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _memory(pid: int) -> float:
    """MiB of a process and of those that it started."""
    import psutil

    total = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total / 2**20


def watched(task: Mapping[str, Any], logs: str | None, limits: Limits) -> Answer:
    """Do a task in a process of its own that is killed beyond its limits; for places that start ours themselves."""
    worker = Worker(1)
    try:
        worker.send(task, Path(logs) if logs else None)
        while not worker.connection.poll(GLANCE):
            reason = worker.beyond(limits)
            if reason is not None:
                return {"value": None, "reason": reason}
        return worker.answer()
    finally:
        if worker.alive:
            worker.kill()


def perform(task: Mapping[str, Any], logs: str | None) -> Answer:
    """Do a task in this process; what it prints goes to a file `NAME.txt` in `logs`."""
    with _printing_to(Path(logs) / f"{task['name']}.txt" if logs else None):
        try:
            module, _, name = task["function"].partition(":")
            value = getattr(importlib.import_module(module), name)(**task["arguments"], **task["places"])
            return {"value": json.loads(json.dumps(value, allow_nan=False)), "reason": None}  # as a record gives it
        except AugkitError as error:
            return {"value": None, "reason": " ".join(str(error).splitlines())}
        except Exception as error:  # a task is anybody's code, and the others go on
            traceback.print_exc()
            what = str(error).partition("\n")[0]
            return {"value": None, "reason": f"{type(error).__name__}: {what}" if what else type(error).__name__}


@contextmanager
def _printing_to(path: Path | None) -> Iterator[None]:
    """Both streams of this process, those of libraries and children included, appended to a file."""
    with open(path or os.devnull, "a", encoding="utf-8") as file:
        before = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, old in zip((1, 2), before, strict=True):
                os.dup2(old, number)
                os.close(old)


def _listen(connection: Connection, inbox: queue.Queue[Any]) -> None:
    """Pass tasks on; when the other end closes, end this process and its children at once."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os.killpg(os.getpgid(0), signal.SIGKILL)


def main(number: int) -> None:
    """Do tasks from the connection until it closes."""
    connection = Connection(number)
    inbox: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    while True:
        connection.send(perform(*inbox.get()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
