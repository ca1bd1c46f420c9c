"""Work spread over processes of this machine or over a ray cluster: `map(tasks)`, results in the tasks' order.

A task is data: the name of a function and JSON arguments, so that it means the same in every process, and so that its
result can be written down and found again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from augkit.errors import AugkitError, StateError
from augkit.lab import folder as files
from augkit.lab.worker import GLANCE, Answer, Limits, Worker, perform, search_path, watched

PLACES = ("local", "ray")
Finished = Generator[tuple["Task", "Result"], None, None]


@dataclass(frozen=True)
class Task:
    """One call of `function`, named as `package.module:function`, with `arguments` that JSON can hold."""

    name: str
    """Names the files of its record and log."""
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """Arguments that say where things are: a record stays good when they change."""

    @property
    def identity(self) -> list[Any]:
        """What a record is of, as JSON gives it back."""
        return json.loads(json.dumps([self.function, self.arguments]))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Result:
    """What a task returned, which is JSON, or why it failed."""

    name: str
    value: Any = None
    reason: str | None = None
    """One line; None for a task that returned."""
    seconds: float = 0.0
    """Of the call that returned or failed."""

    @property
    def failed(self) -> bool:
        return self.reason is not None


def map(  # noqa: A001  what it is
    tasks: Sequence[Task],
    on: str = "local",
    jobs: int = 1,
    *,
    record: Path | None = None,
    logs: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008  it is frozen
    retry: bool = False,
    done: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Do all tasks, at most `jobs` at once.

    Args:
        tasks: their names differ.
        on: `local` for processes of this machine, `ray` for a cluster (the one of RAY_ADDRESS, or one made here), which
            shares this machine's file system.
        jobs: processes. Each gets its share of the cores as CPU threads, unless OMP_NUM_THREADS says otherwise.
        record: a folder where each result is written. A task whose result is there is not repeated.
        logs: a folder for what each task prints; without one it is thrown away.
        limits: of time and memory, for each task. What goes beyond is killed with all that it started, and has failed.
        retry: repeat recorded failures.
        done: called in this process with each new result as it comes in.

    Returns:
        A result for each task, in the order of `tasks`. A task that raises, or whose process dies, is a result too.

    Raises:
        StateError: a record belongs to another task.
        AugkitError: there is no such place, or ray is not installed.
    """
    check(tasks, on, jobs)
    results = {task.name: result for task in tasks if (result := _recorded(task, record)) is not None}
    if retry:
        results = {name: result for name, result in results.items() if not result.failed}
    missing = [task for task in tasks if task.name not in results]
    for place in (record, logs):
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
    with closing((_local if on == "local" else _ray)(missing, jobs, logs, limits)) as finished:
        for task, result in finished:
            if record is not None:
                files.write_json(record / f"{task.name}.json", {"task": task.identity, "result": asdict(result)})
            results[task.name] = result
            if done is not None:
                done(result)
    return [results[task.name] for task in tasks]


def check(tasks: Sequence[Task], on: str, jobs: int) -> None:
    """Raise if these tasks cannot be done there."""
    if on not in PLACES:
        raise AugkitError(f'tasks are done on {" or ".join(PLACES)}, not on "{on}"')
    if on == "ray" and find_spec("ray") is None:
        raise AugkitError("ray is not installed; pip install 'augkit[ray]', or leave out --on ray")
    if jobs < 1:
        raise AugkitError(f"at least one process must work, not {jobs}")
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AugkitError(f'two tasks are called "{twice}"; give each a name of its own')


def recorded(tasks: Sequence[Task], record: Path) -> list[Result]:
    """The results that are there already."""
    return [result for task in tasks if (result := _recorded(task, record)) is not None]


def _recorded(task: Task, record: Path | None) -> Result | None:
    """The result of a task that was done before.

    Raises:
        StateError: the record is of a task with other arguments.
    """
    path = record / f"{task.name}.json" if record is not None else None
    if path is None or not path.exists():
        return None
    noted: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if noted["task"] != task.identity:
        raise StateError("this is the result of another task than the one asked for; choose another folder", file=path)
    return Result(**noted["result"])


def _result(task: Task, answer: Answer, begin: float) -> Result:
    return Result(task.name, answer["value"], answer["reason"], round(time.monotonic() - begin, 3))


def _local(tasks: Sequence[Task], jobs: int, logs: Path | None, limits: Limits) -> Finished:
    """Each task and its result as it comes in. All processes end with this iterator, however it ends."""
    waiting = deque(tasks)
    jobs = min(jobs, len(tasks))
    threads = max(1, (os.cpu_count() or 1) // max(1, jobs))
    busy: dict[Worker, Task] = {}
    idle: list[Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else Worker(threads)
                task = waiting.popleft()
                worker.send(asdict(task), logs)
                busy[worker] = task
            ready = wait([worker.connection for worker in busy], GLANCE if limits else None)
            for worker in list(busy):
                reason = None if worker.connection in ready else worker.beyond(limits)
                if worker.connection not in ready and reason is None:
                    continue
                task = busy.pop(worker)
                answer: Answer = {"value": None, "reason": reason} if reason else worker.answer()
                if worker.alive:
                    idle.append(worker)
                yield task, _result(task, answer, worker.begin)
    finally:
        for worker in (*busy, *idle):
            worker.kill()


def _ray(tasks: Sequence[Task], jobs: int, logs: Path | None, limits: Limits) -> Finished:
    """The same on a ray cluster."""
    import ray

    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False, "num_cpus": jobs}
        here["runtime_env"] = {"env_vars": {"PYTHONPATH": search_path()}}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
    share = min(1.0, ray.cluster_resources().get("GPU", 0) / jobs)
    remote = ray.remote(watched if limits else perform).options(num_cpus=1, num_gpus=share, max_retries=0)
    more = (limits,) if limits else ()
    waiting = deque(tasks)
    busy: dict[Any, tuple[Task, float]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                task = waiting.popleft()
                busy[remote.remote(asdict(task), str(logs) if logs else None, *more)] = task, time.monotonic()
            for future in ray.wait(list(busy))[0]:
                task, begin = busy.pop(future)
                try:
                    answer: Answer = ray.get(future)
                except ray.exceptions.RayError as error:
                    answer = {"value": None, "reason": f"its process ended ({type(error).__name__})"}
                yield task, _result(task, answer, begin)
    finally:
        for future in busy:
            ray.cancel(future, force=True)
        if started:
            ray.shutdown()
