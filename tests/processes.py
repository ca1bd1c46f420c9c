"""The command line in processes of their own that share one import: torch alone takes longer than most commands do."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
HEAVY = ["augkit.cli.app", "augkit.lab.run", "augkit.report.preview", "sklearn.datasets", "matplotlib.pyplot"]


def start() -> None:
    """Start the process that imports once; every command is a fork of it, which has run nothing yet."""
    SERVER.set_forkserver_preload(HEAVY)
    forkserver.ensure_running()


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], logs: Path, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """`augkit ARGUMENTS` in `folder`: its exit status and what it wrote."""
    paths = logs / "stdout", logs / "stderr"
    process = SERVER.Process(target=_command, args=(arguments, folder, dict(environment), paths))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(list(arguments), timeout)
    wrote = [path.read_text(encoding="utf-8") for path in paths]
    return subprocess.CompletedProcess(list(arguments), process.exitcode, *wrote)


def _command(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], paths: tuple[Path, Path]) -> None:
    for number, path in enumerate(paths, 1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["augkit", *arguments]
    from augkit.cli import main

    main()
