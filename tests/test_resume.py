"""A run that is killed at any moment and resumed ends with the very bits of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import torch

from augkit.lab import folder as files
from augkit.lab.run import train

RECIPE = (
    "policy=uniform_class_choice",  # state by class that changes after every epoch
    "model.options={drop_rate: 0.2}",  # the model draws from torch's own generator
    "data.validation=0.2",
    "data.imbalance=10",
    "data.image_size=8",
    "data.test_share=0.6",
    "epochs=2",
)
STAGED = (
    "policy=cmo",  # draws from a pool, and knows the epoch
    "loss={name: ldam_drw, from: 0.5}",
    "sampler=square_root",
    "data.imbalance=10",
    "data.image_size=8",
    "data.test_share=0.6",
    "epochs=2",
    "stages=[train, {finetune_head: {epochs: 2, lr: 0.2, sampler: class_balanced, balance: classes}},"
    " {retrain_head: {epochs: 1, mixing: false}}, {train: {epochs: 1, schedule: constant, sampler: inverse}}]",
)


class Killed(BaseException):
    """Stands for SIGKILL where a process of its own would cost too much: nothing catches it."""


def same(a: Any, b: Any, place: str = "") -> None:
    """Equal to the last bit, whatever is inside."""
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), place
    elif isinstance(a, dict):
        assert list(a) == list(b), place
        for key in a:
            if not str(key).startswith("seconds"):
                same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{place}[{number}]")
    else:
        assert a == b, place


def assert_same_run(a: Path, b: Path) -> None:
    one, other = files.load_checkpoint(a), files.load_checkpoint(b)
    assert one is not None and len(one["model"]) > 20 and one["policy"] and one["optimizer"]["state"]
    same(one, other)
    for name in (files.RECIPE, files.PER_CLASS, files.OPERATORS):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for name in (files.SUMMARY, files.METRICS):
        lines = [(folder / name).read_text() for folder in (a, b)]
        if name == files.METRICS:
            same(*([json.loads(line) for line in text.splitlines()] for text in lines))
        else:
            same(*(json.loads(text) for text in lines))
    for folder in (a, b):
        assert (folder / "accuracy_by_class.png").exists() and not list(folder.glob("*.part"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("demo", RECIPE, tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("demo", STAGED, tmp_path_factory.mktemp("staged") / "run")


@pytest.mark.parametrize("epochs", [3, *(pytest.param(epochs, marks=pytest.mark.slow) for epochs in (1, 2, 4, 5))])
def test_stages_are_resumed_after_every_epoch(
    epochs: int, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a stage and between two, with losses, samplers and heads that change from stage to stage."""
    real, saved = files.save_checkpoint, 0

    def save(folder: Path, state: Any) -> None:
        nonlocal saved
        real(folder, state)
        saved += 1
        if saved == epochs:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_checkpoint", save)
        with pytest.raises(Killed):
            train("demo", STAGED, tmp_path / "run")
    torch.manual_seed(999)  # another process would have other numbers there
    train("demo", STAGED, tmp_path / "run", resume=True)
    assert_same_run(staged, tmp_path / "run")
    stages = json.loads((staged / files.SUMMARY).read_text())["stages"]
    assert len({json.dumps(stage["test"]) for stage in stages}) > 1


@pytest.mark.slow
def test_two_runs_are_equal_and_the_comparison_can_fail(undisturbed: Path, tmp_path: Path) -> None:
    assert_same_run(undisturbed, train("demo", RECIPE, tmp_path / "again"))
    other = train("demo", [*RECIPE, "seed=1"], tmp_path / "other")
    with pytest.raises(AssertionError):
        same(files.load_checkpoint(undisturbed), files.load_checkpoint(other))


def dying_write(real: Callable[..., None], moment: int) -> Callable[..., None]:
    """`folder.write` that dies in the middle of its `moment`-th file; all before it are whole."""
    calls = 0

    def write(path: Path, content: str | bytes) -> None:
        nonlocal calls
        calls += 1
        if calls < moment:
            real(path, content)
        else:
            path.with_name(path.name + ".part").write_bytes(b"half a fi")
            raise Killed

    return write


@pytest.mark.slow(10)
@pytest.mark.parametrize("told", [RECIPE, STAGED], ids=["one", "staged"])
def test_death_in_the_middle_of_every_file(
    told: tuple[str, ...], undisturbed: Path, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = deaths = 0
    while deaths == moment:
        moment += 1
        out = tmp_path / str(moment)
        with monkeypatch.context() as patch:
            patch.setattr(files, "write", dying_write(files.write, moment))
            try:
                train("demo", told, out)
            except Killed:
                deaths += 1
                patch.undo()
                train("demo", told, out, resume=True)
        assert_same_run(undisturbed if told is RECIPE else staged, out)
    assert deaths >= 10  # recipe, environment, metrics; checkpoint and metrics of 2 epochs; two tables; summary


@pytest.mark.slow(10)
@pytest.mark.parametrize(
    "told", [(*RECIPE, "epochs=12", "batch_size=8"), (*STAGED, "epochs=8", "batch_size=8")], ids=["one", "staged"]
)
def test_sigkill_at_random_moments(told: tuple[str, ...], tmp_path: Path, server: None) -> None:
    reference = train("demo", told, tmp_path / "reference")
    out = tmp_path / "killed"
    words = ["train", "demo", "--out", str(out), "--resume"]
    words += [argument for setting in told for argument in ("--set", setting)]
    generator, reached = random.Random(0), []
    for beyond in (0, 1, 3):  # epochs to let pass in this life
        running = processes.Command(words, tmp_path, os.environ, tmp_path)
        goal = len(lines(out)) + beyond
        deadline = time.monotonic() + 240  # the machine may be busy with other things
        while (not (out / files.RECIPE).exists() or len(lines(out)) < goal) and running.process.is_alive():
            assert time.monotonic() < deadline, "the run is stuck"
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.15))
        running.process.kill()
        ended = running.end()
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        reached.append(len(lines(out)))
    assert reached[-1] >= 4 and not (out / files.SUMMARY).exists()
    assert processes.Command(words, tmp_path, os.environ, tmp_path).end(240).returncode == 0
    assert_same_run(reference, out)


def lines(folder: Path) -> list[str]:
    path = folder / files.METRICS
    return path.read_text().splitlines() if path.exists() else []
