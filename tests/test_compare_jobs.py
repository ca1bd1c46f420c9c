"""Tasks in processes of their own: order, failures, records, and an end when the parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import processes
import pytest

from augkit.errors import AugkitError, DataError, StateError
from augkit.lab import jobs
from augkit.lab.jobs import Limits, Result, Task

HERE = "test_compare_jobs"


def square(number: int, after: float = 0.0, note: str | None = None, until: str | None = None) -> dict[str, Any]:
    """A task: waits, also until a file is there, counts its calls in a file, and returns."""
    time.sleep(after)
    while until is not None and not Path(until).exists():
        time.sleep(0.01)
    if note is not None:
        with open(note, "a") as file:
            file.write(f"{number}\n")
    print(f"the square of {number}")
    return {"square": number * number, "process": os.getpid(), "threads": int(os.environ["OMP_NUM_THREADS"])}


def fail(how: str) -> None:
    """A task that does not return."""
    if how == "raise":
        raise ValueError("no such luck\nand more")
    if how == "mistake":
        raise DataError("the data are gone", file="here")
    os.kill(os.getpid(), signal.SIGKILL) if how == "killed" else os._exit(3)


def pair_of_processes(note: str) -> None:
    """A task with a child, both of which would go on for ever."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(note).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def hoard(note: str) -> None:
    """A task whose child takes 400 MiB, and which would go on for ever."""
    code = "held = bytearray(b'x') * (400 << 20); import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code])
    Path(note).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def task(name: str, function: str = "square", **arguments: Any) -> Task:
    return Task(name, f"{HERE}:{function}", arguments)


@pytest.fixture
def forked() -> Iterator[None]:
    """Workers are forks of this process: nothing here is about how they start."""
    with processes.forked_workers():
        yield


def test_results_come_in_the_tasks_order_from_several_processes(tmp_path: Path, forked: None) -> None:
    note = str(tmp_path / "note")
    tasks = [task("t0", number=0, until=note), *(task(f"t{i}", number=i) for i in (1, 2, 3))]
    tasks.append(task("t4", number=4, note=note))  # begun when others are done
    seen: list[str] = []
    results = jobs.map(tasks, jobs=2, logs=tmp_path, done=lambda result: seen.append(result.name))
    assert [result.value["square"] for result in results] == [0, 1, 4, 9, 16]
    assert seen[0] != "t0" and sorted(seen) == [task.name for task in tasks]
    processes = {result.value["process"] for result in results}
    assert len(processes) == 2 and os.getpid() not in processes  # each does several
    assert (tmp_path / "t3.txt").read_text() == "the square of 3\n"
    assert not any(alive(process) for process in processes)


def test_failures_are_results_and_are_not_repeated_unless_asked(tmp_path: Path, forked: None) -> None:
    note = tmp_path / "note"
    tasks = [
        task("good", number=3, note=str(note)),
        task("raises", "fail", how="raise"),
        task("mistake", "fail", how="mistake"),
        task("killed", "fail", how="killed"),
        task("left", "fail", how="left"),
        Task("nowhere", f"{HERE}:no_such_function"),
        task("last", number=4, note=str(note)),
    ]
    record, logs = tmp_path / "record", tmp_path / "logs"
    results = jobs.map(tasks, record=record, logs=logs)
    assert [result.reason for result in results] == [
        None,
        "ValueError: no such luck",
        "here: the data are gone",
        "its process was killed by SIGKILL",
        "its process ended with status 3",
        f"AttributeError: module '{HERE}' has no attribute 'no_such_function'",
        None,
    ]
    assert "Traceback" in (logs / "raises.txt").read_text()
    assert jobs.map(tasks, record=record) == results
    assert note.read_text() == "3\n4\n"
    repeated: list[Result] = []
    jobs.map(tasks, record=record, retry=True, done=repeated.append)
    assert {result.name for result in repeated} == {"raises", "mistake", "killed", "left", "nowhere"}
    assert note.read_text() == "3\n4\n"


def test_a_record_is_of_one_task(tmp_path: Path, forked: None) -> None:
    jobs.map([Task("a", f"{HERE}:square", {"number": 2}, {"note": str(tmp_path / "one")})], record=tmp_path / "record")
    moved = [Task("a", f"{HERE}:square", {"number": 2}, {"note": str(tmp_path / "two")})]
    assert jobs.map(moved, record=tmp_path / "record")[0].value["square"] == 4  # only places differ
    with pytest.raises(StateError, match=r"a\.json: this is the result of another task"):
        jobs.map([task("a", number=3)], record=tmp_path / "record")
    assert not (tmp_path / "two").exists()


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AugkitError, match='on local or ray, not on "moon"'):
        jobs.map([], on="moon")
    with pytest.raises(AugkitError, match="not 0"):
        jobs.map([], jobs=0)
    with pytest.raises(AugkitError, match='two tasks are called "a"'):
        jobs.map([task("a", number=1), task("a", number=2)])
    monkeypatch.setattr(jobs, "find_spec", lambda name: None)
    with pytest.raises(AugkitError, match=r"augkit\[ray\]"):
        jobs.map([], on="ray")


def test_threads_are_shared_fairly(monkeypatch: pytest.MonkeyPatch, forked: None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    found = jobs.map([task(f"t{i}", number=i) for i in range(2)], jobs=2)
    assert [result.value["threads"] for result in found] == [3, 3]
    assert jobs.map([task("t", number=0)], jobs=2)[0].value["threads"] == 6  # one task needs one process
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert jobs.map([task("t", number=0)])[0].value["threads"] == 1


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_processes_die_with_their_parent_however_that_ends(tmp_path: Path) -> None:
    note = tmp_path / "note"
    code = f"from augkit.lab.jobs import *; map([Task('a', '{HERE}:pair_of_processes', {{'note': {str(note)!r}}})])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while not (note.exists() and " " in note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes = [int(word) for word in note.read_text().split()]
    assert len(processes) == 2 and all(map(alive, processes))
    parent.kill()
    parent.wait()
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, processes))


@pytest.mark.slow(10)
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_ray_gives_the_same_results_in_the_same_order(forked: None) -> None:
    tasks = [task(f"t{i}", number=i, after=0.5 * (i == 0)) for i in range(4)]
    tasks += [task("raises", "fail", how="raise"), task("killed", "fail", how="killed")]

    def results(on: str) -> Any:
        done = jobs.map(tasks, on=on, jobs=2)
        return [[result.name, result.value and result.value["square"], result.reason] for result in done]

    here, there = results("local"), results("ray")
    assert there[:-1] == here[:-1]
    assert here[-1][2] == "its process was killed by SIGKILL" and there[-1][2].startswith("its process ended (")


@pytest.mark.slow(20)
@pytest.mark.parametrize(
    "on",
    ["local", pytest.param("ray", marks=pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"))],
)
def test_what_goes_beyond_its_limits_is_killed_with_its_children_and_has_failed(tmp_path: Path, on: str) -> None:
    notes = [tmp_path / "late", tmp_path / "large"]
    tasks = [
        task("late", "pair_of_processes", note=str(notes[0])),
        task("large", "hoard", note=str(notes[1])),
        task("good", number=5),
    ]
    limits = Limits(seconds=20, memory=420)  # a worker alone holds some 30 MiB
    late, large, good = jobs.map(tasks, on, jobs=2, limits=limits)
    assert late.reason == "it was stopped after 20 seconds, its limit"
    assert large.reason is not None and large.reason.endswith("MiB of memory; its limit is 420")
    assert good.value["square"] == 25
    for note in notes:
        assert not any(alive(int(pid)) for pid in note.read_text().split())
