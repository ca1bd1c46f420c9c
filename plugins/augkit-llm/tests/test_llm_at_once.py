"""Several questions under way: they come in order, and nobody waits for them who is interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.at_once import at_once
from augkit_llm.budget import Budget
from augkit_llm.models import Question, Reply
from llm_search_parts import flat, many_replies, new, settings, transcript


def test_results_come_in_order_and_so_many_run_at_once() -> None:
    meet = threading.Barrier(3, timeout=20)

    def double(number: int) -> int:
        meet.wait()
        time.sleep(0.01 * (3 - number % 3))
        return 2 * number

    assert list(at_once(3, double, range(6))) == [0, 2, 4, 6, 8, 10]
    assert list(at_once(3, double, [])) == []


def test_an_item_that_fails_raises_in_its_place_and_none_is_begun_after_it() -> None:
    begun: list[int] = []

    def third(number: int) -> int:
        begun.append(number)
        return 1 // (number - 2)

    results = at_once(1, third, range(9))
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert begun == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("population", [1, 3])
@pytest.mark.parametrize("how", ["interrupted", "hours"])
def test_a_search_ends_while_questions_are_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, population: int, how: str
) -> None:
    """They are asked, count at their price, and are lost when the search goes on."""
    flat(monkeypatch)
    name = transcript(tmp_path / "t.jsonl", many_replies(1, population))
    asked, never = threading.Semaphore(0), threading.Event()

    def silent(question: Question) -> Reply:
        asked.release()
        never.wait()
        raise AssertionError("nobody listens any more")

    def interrupt() -> None:
        for _ in range(population):
            asked.acquire()
        os.kill(os.getpid(), signal.SIGINT)

    hours = 8 / 3600 if how == "hours" else 9.0  # seconds enough to ask on a machine that has other work
    with new(tmp_path / "found", settings(tmp_path, [name], population), Budget(90, usd=3.0, hours=hours)) as search:
        search.proposer.opened[name].ask = silent
        if how == "hours":
            assert search.run().reason == "hours"
        else:
            threading.Thread(target=interrupt, daemon=True).start()
            with pytest.raises(KeyboardInterrupt):
                search.run()
    for state in ("asked", "lost"):
        with closing((Archive.read if state == "asked" else Archive.open)(tmp_path / "found" / FILE)) as archive:
            assert [row["state"] for row in archive.rows("SELECT state FROM calls")] == [state] * population
            assert archive.spent().usd > 0
    never.set()
