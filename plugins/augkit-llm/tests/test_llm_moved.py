"""A search's folder that was moved, or is named in another way, is the same search."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.cascade import RECIPE
from augkit_llm.evaluate import RUNS, Stage, measure, read_test
from augkit_llm.finale import TEST, TWIN, close
from augkit_llm.opening import resumed
from augkit_llm.report import write
from llm_kill_parts import FORK
from llm_search_parts import document, dump, new, quiet, recipe, reply, settings, transcript

from augkit.lab import jobs

STAGES = (Stage("warm", 1, 1, warm=True),)
BY_CLASS = {**document(0.5), "pipeline": [{"rotate": {"p": "class_count[y] / max(class_count, over=classes)"}}]}


@pytest.fixture(autouse=True)
def forks() -> Iterator[None]:
    with processes.forked_workers():
        yield


def begin(folder: Path, name: str) -> Path:
    lines = [reply("g0.s0.a0", BY_CLASS)]
    chosen = settings(folder, [transcript(folder / "t.jsonl", lines)], 1, STAGES)
    with new(folder / name, chosen, Budget(5, usd=3.0)) as search:
        search.run()
        close(search)
    return folder / name


def go_on(folder: Path) -> None:
    with resumed(folder, console=quiet()) as search:
        search.run()
        close(search)


def stopped_after(patch: pytest.MonkeyPatch, kind: str, number: int) -> None:
    """Let the search be interrupted as soon as so many tasks whose names begin with `kind` are done."""
    plain, left = jobs.map, number

    def cut_short(tasks: Any, *places: Any, **more: Any) -> Any:
        store = more.pop("done")

        def counted(result: jobs.Result) -> None:
            nonlocal left
            store(result)
            left -= result.name.startswith(kind)
            if not left:
                raise KeyboardInterrupt

        return plain(tasks, *places, **more, done=counted)

    patch.setattr(jobs, "map", cut_short)


def found(folder: Path) -> tuple[dict[str, Any], dict[tuple[str, str, str, int], Any]]:
    """The archive without times and costs, and what the finale gave."""
    archive = Archive.read(folder / FILE)
    rows = [*archive.closings(TWIN), *archive.closings(TEST)]
    archive.close()
    timed = ("seconds", "intensity")
    return dump(folder), {
        (one.kind, one.stage, one.subject, one.seed): {k: v for k, v in (one.value or {}).items() if k not in timed}
        for one in rows
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_goes_on_wherever_its_folder_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved in the midst of a stage and of the readings of the test set, and named by a path from elsewhere."""
    whole = begin(tmp_path, "whole")
    with monkeypatch.context() as patch:
        stopped_after(patch, "warm-", 2)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path, "first")
    places = [tmp_path / "first", tmp_path / "deep" / "second", tmp_path / "third"]
    places[1].parent.mkdir()
    places[0].rename(places[1])
    with monkeypatch.context() as patch:
        stopped_after(patch, TEST, 2)
        with pytest.raises(KeyboardInterrupt):
            go_on(places[1])
    places[1].rename(places[2])
    monkeypatch.chdir(places[1].parent)
    go_on(Path("..") / "third")
    assert found(places[2]) == found(whole)
    before, after = (json.loads((write(one).parent / "results.json").read_text()) for one in (whole, places[2]))
    for part in ("winners", "against", "fates", "curves", "finales", "use"):
        assert after["searches"][0][part] == before["searches"][0][part], part


@pytest.mark.slow
def test_a_training_run_that_was_killed_goes_on_after_a_move(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def task(folder: Path) -> dict[str, Any]:
        (folder / "documents").mkdir(parents=True, exist_ok=True)
        (folder / RUNS).mkdir(exist_ok=True)
        policy = folder / "documents" / "abc.yaml"
        policy.write_text(json.dumps(BY_CLASS))
        (folder / RECIPE).write_text(recipe(tmp_path).read_text())
        said = {"recipe": str(folder / RECIPE), "policy": str(policy), "seed": 0, "epochs": 6, "weights": None}
        return {**said, "out": str(folder / RUNS / "full-abc-seed0")}

    expected = measure(**task(tmp_path / "whole"))
    said = task(tmp_path / "old")
    run = Path(said["out"])
    process = FORK.Process(target=measure, kwargs=said)
    process.start()
    while not (run / "checkpoint.pt").exists():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not (run / "summary.json").exists()
    (tmp_path / "old").rename(tmp_path / "new")
    said = task(tmp_path / "new")
    capsys.readouterr()
    got = measure(**said)
    assert {**got, "seconds": 0} == {**expected, "seconds": 0}
    assert "epoch 1/6" not in capsys.readouterr().err  # it was not begun anew
    told = read_test(said["out"])
    (tmp_path / "new").rename(tmp_path / "newest")
    assert read_test(str(tmp_path / "newest" / RUNS / "full-abc-seed0")) == told
