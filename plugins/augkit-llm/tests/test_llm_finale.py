"""The end of a search: the best strategy's twin is trained and the test set read once, and neither chooses anything."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.controls import CONTROLS
from augkit_llm.evaluate import Stage, read_test
from augkit_llm.finale import ALIKE, PLAYED, TEST, TWIN, close, finales
from augkit_llm.opening import resumed
from augkit_llm.records import Closing
from augkit_llm.report import write
from llm_kill_parts import FORK
from llm_search_parts import document, flat, new, quiet, recipe, reply, settings, transcript

from augkit.errors import StateError
from augkit.lab.run import train

STAGES = (Stage("only", 1, 2),)
STORES = (0, 1, 2)
"""What each of the first killed processes may store of the finale; the one after is killed by the clock."""
BY_CLASS = {
    "augkit": 1,
    "name": "told",
    "title": "more of it for frequent classes",
    "pipeline": [{"rotate": {"p": "class_count[y] / max(class_count, over=classes)"}}],
}


@pytest.fixture(autouse=True)
def forks() -> Iterator[None]:
    with processes.forked_workers():
        yield


def begun(folder: Path, documents: list[dict[str, Any]], evaluations: int, name: str = "found") -> Path:
    """A search with its finale, a strategy a generation."""
    lines = [reply(f"g{k}.s0.a0", one) for k, one in enumerate(documents)]
    chosen = settings(folder, [transcript(folder / "t.jsonl", lines)], 1, STAGES)
    with new(folder / name, chosen, Budget(evaluations, usd=3.0)) as search:
        search.run()
        close(search)
    return folder / name


def gone_on(folder: Path, evaluations: int | None = None) -> None:
    with resumed(folder, Budget(evaluations), console=quiet()) as search:
        search.run()
        close(search)


def read(folder: Path) -> tuple[dict[str, Any], list[Closing], list[Closing], list[dict[str, Any]]]:
    archive = Archive.read(folder / FILE)
    try:
        return archive.dump(), archive.closings(TWIN), archive.closings(TEST), finales(archive)
    finally:
        archive.close()


def finish(folder: Path, stores: int | None) -> None:
    """The end of a search, in a process of its own that dies when it is about to store more of it than it may."""
    storing, done = Archive.finish_closing, 0

    def counted(self: Archive, one: Closing) -> None:
        nonlocal done
        if done == stores:
            os.kill(os.getpid(), signal.SIGKILL)
        storing(self, one)
        done += 1

    if stores is not None:
        Archive.finish_closing = counted  # type: ignore[method-assign]  # of a process that is about to die
    gone_on(folder)


def stored(folder: Path) -> dict[tuple[Any, ...], tuple[int, str]]:
    """What the finale gave so far, times aside, with the numbers of its rows: what is done again gets another."""
    archive = Archive.read(folder / FILE)
    rows = archive.rows("SELECT rowid, * FROM finale")
    archive.close()
    values = [{k: v for k, v in json.loads(row["value"]).items() if k != "seconds"} for row in rows]
    keys = [(row["kind"], row["stage"], row["subject"], row["seed"]) for row in rows]
    return {key: (row["rowid"], json.dumps(value)) for key, row, value in zip(keys, rows, values, strict=True)}


def report_of(folder: Path) -> dict[str, Any]:
    """The figures of a search's report that are no time."""
    (results,) = json.loads((write(folder).parent / "results.json").read_text())["searches"]
    timed = ("folder", "label", "command", "spent", "training", "stopped")
    return {name: value for name, value in results.items() if name not in timed}


@pytest.mark.slow(20)
@pytest.mark.timeout(900)
def test_kills_in_the_finale_change_nothing(tmp_path: Path) -> None:
    """Killed while the twin is trained, while the test set is read and around what is stored, again and again."""
    torch.set_num_threads(1)  # threads do not outlive a fork
    chosen = settings(tmp_path, [transcript(tmp_path / "t.jsonl", [reply("g0.s0.a0", BY_CLASS)])], 1, STAGES)
    with new(tmp_path / "whole", chosen, Budget(8, usd=3.0)) as search:
        search.run()
    shutil.copytree(tmp_path / "whole", tmp_path / "found")
    took = time.monotonic()
    finish(tmp_path / "whole", None)
    took = time.monotonic() - took
    folder, left = tmp_path / "found", list[int]()
    while True:
        before = stored(folder)
        stores = STORES[len(left)] if len(left) < len(STORES) else None
        process = FORK.Process(target=finish, args=(folder, stores))
        process.start()
        if len(left) == len(STORES):
            process.join(random.Random(0).uniform(0, took))
            process.kill()
        process.join()
        after = stored(folder)
        assert {key: after[key] for key in before} == before  # nothing that is stored is trained or read again
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        left.append(len(after))
    assert left[:3] == [0, 1, 3]  # before a twin was stored, between two, and between two readings
    whole = tmp_path / "whole"
    expected, told = stored(whole), report_of(whole)
    assert {key: value for key, (_, value) in after.items()} == {key: value for key, (_, value) in expected.items()}
    assert read(folder)[0] == read(whole)[0] and report_of(folder) == told
    gone_on(whole)
    assert stored(whole) == expected
    _, twins, tests, (one,) = read(whole)
    assert [run.state for run in twins] == ["done"] * 2 and len(tests) == 2 * (2 + len(CONTROLS))
    assert {run.subject for run in tests} == {one["hash"], one["twin"], *CONTROLS}
    assert all(run.state == "done" and 0 <= (run.value or {})["balanced"] <= 1 for run in tests)
    again = read_test(str(whole / "runs" / f"only-{one['hash']}-seed0"))
    assert again == next(run.value for run in tests if (run.subject, run.seed) == (one["hash"], 0))
    assert [row["name"] for row in told["finales"][0]["rows"]] == ["best", "twin", *CONTROLS]


@pytest.mark.slow
def test_a_reading_is_what_training_with_the_test_set_would_have_told(tmp_path: Path) -> None:
    blind = train(recipe(tmp_path), ["test=false"], tmp_path / "blind")
    told = train(recipe(tmp_path), [], tmp_path / "told")
    found = read_test(str(blind))
    expected = json.loads((told / "summary.json").read_text())["test"]
    assert {name: found[name] for name in expected} == expected
    with pytest.raises(StateError, match="no finished run"):
        read_test(str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_a_raised_budget_reads_the_test_for_a_new_best_and_tells_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search itself is the one that had all the budget from the start."""
    flat(monkeypatch)
    readings: list[str] = []

    def reading(run: str) -> dict[str, Any]:  # the landscape leaves no models behind
        readings.append(Path(run).name)
        figure = 0.9 if "none" in run else 0.1  # as if the test set contradicted the reward
        return {"balanced": figure, "standard_error": 0.01} | dict.fromkeys(("all", "many", "medium", "few"), figure)

    monkeypatch.setattr("augkit_llm.evaluate.read_test", reading)
    documents = [document(0.3), document(0.9)]
    folder = begun(tmp_path, documents, 8)
    assert len(readings) == 8
    gone_on(folder, 10)
    assert len(readings) == 10 and len(set(readings)) == 10
    whole, _, tests, both = read(folder)
    assert len(both) == 2 and both[0]["hash"] != both[1]["hash"] and both[0]["why"] == ALIKE
    assert len(tests) == 10
    once, *_ = read(begun(tmp_path, documents, 10, "at_once"))
    for part in ("generations", "calls", "candidates", "evaluations", "stop"):
        assert once[part] == whole[part], part
    assert f"# sha256: {both[1]['hash']}" in (folder / "best.yaml").read_text()
    page = write(folder).read_text()
    assert "An earlier best" in page and "Latest best" in page and "It chose nothing" in page


@pytest.mark.slow
def test_a_twin_that_would_do_the_same_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values by class that are the same for all: the twin's document differs, and what it does to images does not."""
    flat(monkeypatch)
    one = document(0.5)
    one |= {"state": {"share": {"axes": ["classes"], "init": "where(class_rank > 3, 0.5, 0.5)"}}}
    one["pipeline"] = [{"rotate": {"p": 0.9}}, {"solarize": {"p": "share[y]"}}]
    folder = begun(tmp_path, [one], 8)
    _, twins, tests, (noted,) = read(folder)
    assert not twins and noted["twin"] is None and noted["why"] == PLAYED
    assert {run.subject for run in tests} == {noted["hash"], *CONTROLS}
    assert f"It has no twin: {PLAYED}." in write(folder).read_text()


def test_what_cannot_be_read_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(monkeypatch)
    folder = begun(tmp_path, [document(0.3)], 8)
    _, _, tests, _ = read(folder)
    assert {one.state for one in tests} == {"failed"} and "no finished run here" in (tests[0].reason or "")
    assert "no figure: " in write(folder).read_text()
    figures = dict.fromkeys(("balanced", "standard_error", "all", "many", "medium", "few"), 0.5)
    monkeypatch.setattr("augkit_llm.evaluate.read_test", lambda run: figures)
    gone_on(folder)
    assert {one.state for one in read(folder)[2]} == {"done"}
