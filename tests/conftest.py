"""For every test: one thread, no network, and distributions to plug in."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the workers of pytest-xdist share the cores

import ipaddress
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from browser import Browser, executable, started
from fixtures import Command, Install

from augkit.plugins import default_host, load_registry
from augkit.registry import Registry

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton, if it is there


def seconds(item: pytest.Item) -> float:
    """About how many a test that is marked as slow takes: what its mark says, or one; 0 for the others."""
    mark = item.get_closest_marker("slow")
    return 0 if mark is None else float(mark.args[0] if mark.args else 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each of two workers, which begin with half of the tests each, do the slowest files first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    slow = {path: sum(map(seconds, tests)) for path, tests in files.items()}
    heavy = sorted((path for path in files if slow[path]), key=lambda path: -slow[path])
    halves = [[item for path in part for item in files[path]] for part in (heavy[::2], heavy[1::2])]
    for path in files:
        if not slow[path]:
            halves[len(halves[0]) >= len(items) / 2].extend(files[path])
    items[:] = [*halves[0], *halves[1]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def is_local(address: Any) -> bool:
        if not isinstance(address, tuple):
            return True  # a socket file
        try:
            return address[0] in ("", "localhost") or ipaddress.ip_address(address[0]).is_loopback
        except ValueError:
            return False

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if not is_local(address):
                raise RuntimeError(f"a test tried to reach {address}")
            return original(self, address)

        return call

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))


@pytest.fixture(scope="session")
def registry() -> Registry:
    """What augkit itself brings."""
    return load_registry(plugins=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution for one test: `install("augkit-fog", code)` makes its module and its metadata."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    modules: list[str] = []

    def make(name: str, code: str, *, version: str = "1.0", target: str = "", entry: str = "") -> None:
        module = name.replace("-", "_")
        modules.append(module)
        (site / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[augkit]\n{entry or module} = {module}{target}\n")
        default_host.cache_clear()

    yield make
    for module in modules:
        sys.modules.pop(module, None)
    default_host.cache_clear()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium (tests/browser.py)."""
    if executable() is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with started() as chromium:
        yield chromium


@pytest.fixture(scope="session")
def server() -> None:
    """What the processes of `augkit` fork from, for as long as the tests run."""
    processes.start()


@pytest.fixture
def augkit(tmp_path: Path, server: None) -> Command:
    """Run the command line in a process of its own, in an empty folder."""
    folder, logs = tmp_path / "here", tmp_path / "logs"
    folder.mkdir()
    logs.mkdir()

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return processes.run([*map(str, arguments)], folder, {**os.environ, **environment}, logs)

    return run
