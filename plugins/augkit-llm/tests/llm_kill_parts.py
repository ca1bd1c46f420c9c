"""A search in a process of its own that is killed, and a real training that takes a moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import processes
import pytest
from augkit_llm import cascade
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.evaluate import BASELINE, Stage
from augkit_llm.search import Settings
from llm_search_parts import go_on, new

from augkit.lab.jobs import Task

FORK = multiprocessing.get_context("fork")


def train(policy: str, seed: int, epochs: int) -> dict[str, Any]:
    """A training that takes milliseconds: digits through the policy, a linear model, so many steps; real rewards."""
    import torch
    from llm_kill_parts import digits

    from augkit import Policy

    torch.set_num_threads(1)
    images, labels = digits(seed)
    augment = Policy.load(policy, class_counts=labels.bincount(minlength=10).tolist(), seed=seed)
    torch.manual_seed(seed)
    model = torch.nn.Linear(192, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(5 * epochs):
        seen, targets = augment(images, labels)
        loss = torch.nn.functional.cross_entropy(model(seen.flatten(1).float() / 255), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (model(images.flatten(1).float() / 255).argmax(1) == labels).float().mean()
    groups = {"many": float(right), "medium": None, "few": None}
    return {"reward": float(right), "standard_error": 0.01, "groups": groups, "intensity": {}, "seconds": 0.0}


def digits(seed: int) -> tuple[Any, Any]:
    """Patterns of ten classes with noise, [80, 3, 8, 8] uint8, and their labels; nothing is read for them."""
    import torch

    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(80) % 10
    patterns = torch.randint(0, 256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(99))
    noise = torch.randint(-60, 60, (80, 3, 8, 8), generator=source)
    return (patterns[labels] + noise).clamp(0, 255).to(torch.uint8), labels


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches train as `train` does, in worker processes as always."""
    import torch

    torch.set_num_threads(1)  # threads do not outlive a fork

    def tasks(stage: Stage, _: str, documents: Mapping[str, str], folder: Path, *, seeds: Sequence[int]) -> list[Task]:
        return [
            Task(
                f"{stage.name}-{name}-seed{seed}",
                "llm_kill_parts:train",
                {"policy": path, "seed": seed, "epochs": stage.epochs},
            )
            for name, path in documents.items()
            for seed in seeds
        ]

    def baselines(stage: Stage, path: str, _: int, folder: Path, *, seeds: Sequence[int]) -> list[Task]:
        return [
            Task(f"{BASELINE}-seed{seed}", "llm_kill_parts:train", {"policy": "none", "seed": seed, "epochs": 1})
            for seed in (seeds if stage.warm else ())
        ]

    monkeypatch.setattr(cascade, "tasks", tasks)
    monkeypatch.setattr(cascade, "baselines", baselines)


def work(folder: Path, settings: Settings, budget: Budget, dies: int | None, errors: Path) -> None:
    """Begin the search or go on with it; with `dies`, until so many transactions have begun or ended."""
    if dies is not None:
        _die_after(dies)
    try:
        with processes.forked_workers():
            if (folder / FILE).exists() and not Archive.empty(folder / FILE):
                go_on(folder)
            else:
                with new(folder, settings, budget) as search:
                    search.run()
    except BaseException as error:
        errors.write_text(repr(error))
        raise


def _die_after(moments: int) -> None:
    writing, left = Archive.writing, moments

    def moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def watched(self: Archive) -> Any:
        moment()
        with writing(self) as db:
            yield db
            moment()
        moment()

    Archive.writing = watched  # type: ignore[method-assign]  # in a process that is about to die


def killed(folder: Path, settings: Settings, budget: Budget, chance: random.Random, longest: float) -> bool:
    """Let the search run and kill it at a random moment; whether that came before its end.

    Every other time the moment is one just before, in or after a transaction, which a clock would hardly ever hit.
    """
    by_clock = chance.random() < 0.5
    errors = folder.parent / "errors.txt"
    dies = None if by_clock else chance.randint(1, 60)
    process = FORK.Process(target=work, args=(folder, settings, budget, dies, errors))
    process.start()
    process.join(chance.uniform(0, longest) if by_clock else None)
    early = process.is_alive() or process.exitcode == -signal.SIGKILL
    process.kill()
    process.join()
    assert not errors.exists(), errors.read_text()
    return early


def calls(folder: Path) -> tuple[int, int]:
    """Calls that were answered, and those that were lost."""
    if not (folder / FILE).exists() or Archive.empty(folder / FILE):
        return 0, 0
    archive = Archive.read(folder / FILE)
    states = [row["state"] for row in archive.rows("SELECT state FROM calls")]
    archive.close()
    return states.count("answered"), len(states) - states.count("answered")
