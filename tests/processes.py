"""Processes of their own that share one import: what training needs takes a fresh process seconds of a core."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads do not outlive a fork

import importlib
import multiprocessing
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
HEAVY = ["augkit.cli.app", "augkit.lab.run", "augkit.report.preview", "sklearn.datasets", "matplotlib.pyplot"]


def start() -> None:
    """Start the process that imports once; every command is a fork of it, which has run nothing yet."""
    SERVER.set_forkserver_preload(HEAVY)
    forkserver.ensure_running()


class Forked:
    """What `augkit.lab.worker` asks of `subprocess.Popen`, by a fork of this process instead of a new interpreter."""

    def __init__(self, command: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str], **_: Any) -> None:
        assert command[1:] == ["-m", "augkit.lab.worker", str(pass_fds[0])]
        self.returncode: int | None = None
        mine, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become_worker(pass_fds[0], env)
            finally:
                os._exit(1)
        os.close(theirs)  # ours; the other one closes as it begins
        os.read(mine, 1)  # it leads a group of its own from here on, and can be killed with it
        os.close(mine)

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 0)
            else:
                time.sleep(0.01)
        return self.returncode


def _become_worker(connection: int, environment: Mapping[str, str]) -> None:
    """Keep nothing open but the connection, as a new interpreter would, and do tasks from it."""
    from augkit.lab import worker

    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number not in (connection, nothing):
            os.dup2(nothing, number)  # not closed: objects that hold the number may still close it
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    worker.main(connection)


@contextmanager
def forked_workers() -> Iterator[None]:
    """Workers of `augkit.lab.jobs` that are forks of this process: for tests of what they do, not of how they start."""
    import torch

    from augkit.lab import worker

    for name in HEAVY:  # once here, not in every fork
        importlib.import_module(name)
    torch.set_num_threads(1)
    real: Any = worker.subprocess
    worker.subprocess = SimpleNamespace(**{**vars(real), "Popen": Forked})  # type: ignore[assignment]
    try:
        yield
    finally:
        worker.subprocess = real


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], logs: Path, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """`augkit ARGUMENTS` in `folder`: its exit status and what it wrote."""
    return Command(arguments, folder, environment, logs).end(timeout)


def run_script(path: Path, arguments: Sequence[str], folder: Path, logs: Path) -> subprocess.CompletedProcess[str]:
    """`python PATH ARGUMENTS` in `folder`, in a process that has imported what most scripts do."""
    return Command(arguments, folder, os.environ, logs, script=path).end(300)


class Command:
    """`augkit ARGUMENTS` in `folder`, under way; with `forks` its workers are forks of it.

    With `script` it is `python SCRIPT ARGUMENTS` instead.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        logs: Path,
        forks: bool = False,
        script: Path | None = None,
    ) -> None:
        self.arguments, self.logs = list(arguments), (logs / "stdout", logs / "stderr")
        given = self.arguments, folder, dict(environment), self.logs, forks, script
        self.process = SERVER.Process(target=_command, args=given)
        self.process.start()

    def end(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for it."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout)
        wrote = [path.read_text(encoding="utf-8") for path in self.logs]
        return subprocess.CompletedProcess(self.arguments, self.process.exitcode, *wrote)


def _command(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    paths: tuple[Path, Path],
    forks: bool,
    script: Path | None,
) -> None:
    for number, path in enumerate(paths, 1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what begins in the background ignores it
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(script or "augkit"), *arguments]
    if script is not None:
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")
        return
    from augkit.cli import main

    with forked_workers() if forks else nullcontext():
        main()
