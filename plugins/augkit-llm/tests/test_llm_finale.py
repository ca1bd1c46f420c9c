"""The end of a search: the best strategy's twin is trained and the test set read once, and neither chooses anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.controls import CONTROLS
from augkit_llm.evaluate import Stage, read_test
from augkit_llm.finale import ALIKE, PLAYED, TEST, TWIN, close, finales
from augkit_llm.opening import resumed
from augkit_llm.records import Closing
from augkit_llm.report import write
from llm_search_parts import document, flat, new, quiet, recipe, reply, settings, transcript

from augkit.errors import StateError
from augkit.lab import jobs
from augkit.lab.run import train

STAGES = (Stage("only", 1, 2),)
BY_CLASS = {
    "augkit": 1,
    "name": "told",
    "title": "more of it for frequent classes",
    "pipeline": [{"rotate": {"p": "class_count[y] / max(class_count, over=classes)"}}],
}


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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_end_of_a_real_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real training and readings; a kill between two readings repeats none of those that are stored."""
    done, limit = jobs.map, 3

    def cut_short(tasks: Any, *places: Any, **more: Any) -> Any:
        """Interrupted after so many readings."""
        left, store = limit, more["done"]

        def counted(result: jobs.Result) -> None:
            nonlocal left
            store(result)
            left -= 1
            if left == 0 and tasks[0].name.startswith(TEST):
                raise KeyboardInterrupt

        return done(tasks, *places, **{**more, "done": counted})

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "map", cut_short)
        with pytest.raises(KeyboardInterrupt):
            begun(tmp_path, [BY_CLASS], 8)
    folder = tmp_path / "found"
    before, twins, half, _ = read(folder)
    assert len(half) == limit and [one.state for one in twins] == ["done", "done"]
    with monkeypatch.context() as patch:
        asked: list[str] = []
        patch.setattr(jobs, "map", lambda tasks, *a, **k: (asked.extend(t.name for t in tasks), done(tasks, *a, **k)))
        gone_on(folder)
        assert len(asked) == 2 * (2 + len(CONTROLS)) - limit
        gone_on(folder)
        assert len(asked) == 2 * (2 + len(CONTROLS)) - limit
    after, twins, tests, (one,) = read(folder)
    assert {key: value for key, value in after.items() if key != "finale"} == {
        key: value for key, value in before.items() if key != "finale"
    }
    assert {run.subject for run in tests} == {one["hash"], one["twin"], *CONTROLS}
    assert all(run.state == "done" and 0 <= (run.value or {})["balanced"] <= 1 for run in tests)
    again = read_test(str(folder / "runs" / f"only-{one['hash']}-seed0"))
    assert again == next(run.value for run in tests if (run.subject, run.seed) == (one["hash"], 0))
    results = write(folder).parent / "results.json"
    rows = json.loads(results.read_text())["searches"][0]["finales"][0]["rows"]
    assert [row["name"] for row in rows] == ["best", "twin", *CONTROLS]


@pytest.mark.slow
def test_a_reading_is_what_training_with_the_test_set_would_have_told(tmp_path: Path) -> None:
    blind = train(recipe(tmp_path), ["test=false"], tmp_path / "blind")
    told = train(recipe(tmp_path), [], tmp_path / "told")
    found = read_test(str(blind))
    expected = json.loads((told / "summary.json").read_text())["test"]
    assert {name: found[name] for name in expected} == expected
    with pytest.raises(StateError, match="no finished run"):
        read_test(str(tmp_path / "nowhere"))


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
