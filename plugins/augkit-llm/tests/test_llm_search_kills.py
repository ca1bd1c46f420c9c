"""A search that is killed again and again is the search that was not."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.evaluate import Stage
from augkit_llm.models import Options
from augkit_llm.opening import _prepare
from llm_kill_parts import FORK, calls, killed, quick, work
from llm_search_parts import dump, many_replies, settings, transcript

from augkit import Policy

KILLS = int(os.environ.get("AUGKIT_KILLS", "8"))
"""At random moments, over as many searches as it takes; 50 take a minute or two."""
STAGES = (Stage("short", 1, 2, keep=2), Stage("full", 3, 2))
BUDGET = Budget(evaluations=12 + 2 * 10, usd=5.0)


@pytest.mark.slow(30)
@pytest.mark.timeout(1800)
def test_kills_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same archive but for times and costs, no reply asked for twice, the same best strategy, and none lost before.

    Searches are begun until all kills have hit them; each is gone on with until its end.
    """
    quick(monkeypatch)
    chosen = settings(tmp_path, [transcript(tmp_path / "t.jsonl", many_replies(4, 3))], 3, STAGES)
    _prepare(chosen, BUDGET, Options(), None)  # what every process needs is imported once, before they fork
    whole, begin = tmp_path / "whole" / "found", time.monotonic()
    process = FORK.Process(target=work, args=(whole, chosen, BUDGET, None, tmp_path / "errors.txt"))
    process.start()
    process.join()
    took = time.monotonic() - begin
    assert process.exitcode == 0
    expected, best = dump(whole), _best(whole)
    assert len(expected["generations"]) >= 2 and expected["stop"][0] == "evaluations"

    chance, kills, searches = random.Random(0), 0, 0
    while kills < KILLS:
        searches, before = searches + 1, kills
        folder, rewards = tmp_path / f"search{searches}" / "found", [0.0]
        folder.parent.mkdir()
        while killed(folder, chosen, BUDGET, chance, took / 5) or not _stopped(folder):
            kills += 1
            assert calls(folder)[1] <= 3 * (kills - before)  # at most what was asked at once
            _loses_no_best(folder, rewards)
        assert dump(folder) == expected
        assert _best(folder) == best
        assert calls(folder)[0] == len(expected["calls"])


def _stopped(folder: Path) -> bool:
    archive = Archive.read(folder / FILE)
    stop = archive.stopped()
    archive.close()
    return stop is not None


def _best(folder: Path) -> list[str]:
    """`best.yaml` without what it did cost."""
    return [line for line in (folder / "best.yaml").read_text().splitlines() if not line.startswith("# spent by then")]


def _loses_no_best(folder: Path, rewards: list[float]) -> None:
    """After a kill there is the best that was there before, or a better one, and it can be loaded."""
    path = folder / "best.yaml"
    if not path.exists():
        assert rewards[-1] == 0.0
        return
    Policy.load(path, class_counts=[8] * 10)
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("# reward: "))
    rewards.append(float(line.split()[2]))
    assert rewards[-1] >= rewards[-2]
