"""Searches and their budgets: none is exceeded, one too little is refused, and what was not used is not spent."""

from __future__ import annotations

from pathlib import Path

import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget, StopError
from augkit_llm.opening import resumed
from augkit_llm.records import Evaluation
from llm_search_parts import CONTROLS, document, dump, flat, go_on, many_replies, quiet, searched, transcript

from augkit.errors import DataError


@pytest.fixture(autouse=True)
def landscape(monkeypatch: pytest.MonkeyPatch) -> None:
    flat(monkeypatch)


@pytest.mark.parametrize("usd", [0.01, 0.055, 0.2])
def test_money_is_never_exceeded_and_what_was_paid_is_trained(tmp_path: Path, usd: float) -> None:
    model = transcript(tmp_path / "t.jsonl", many_replies(12, 3))
    searched(tmp_path, model, Budget(evaluations=500, usd=usd), 3)
    archive = Archive.read(tmp_path / "found" / FILE)
    assert archive.spent().usd <= usd + 1e-9
    stopped = archive.stopped()
    assert stopped is not None and stopped["reason"] == "usd"
    assert not [one for one in archive.candidates() if one.fate == "ready"]
    assert len(archive.candidates()) >= int(usd / 0.03)
    archive.close()


@pytest.mark.slow
def test_tokens_are_never_exceeded(tmp_path: Path) -> None:
    searched(tmp_path, transcript(tmp_path / "t.jsonl", many_replies(5, 3)), Budget(evaluations=200, tokens=30_000), 3)
    archive = Archive.read(tmp_path / "found" / FILE)
    assert archive.spent().tokens <= 30_000 and len(archive.candidates()) >= 1
    archive.close()


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", [CONTROLS + 6, 40, 61])
def test_evaluations_are_never_exceeded(tmp_path: Path, evaluations: int) -> None:
    search = searched(tmp_path, transcript(tmp_path / "t.jsonl", many_replies(9, 4)), Budget(evaluations=evaluations))
    found = dump(tmp_path / "found")
    assert len(found["evaluations"]) <= evaluations
    assert found["stop"] == ("evaluations", len(found["evaluations"]))
    assert found["evaluations"]
    assert search.budget == Budget(evaluations=evaluations)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(evaluations=CONTROLS + 5), "25 evaluations are too few: the controls take 20 and one strategy 6; give"),
        (Budget(evaluations=60, usd=0.005), "0.005 USD are too little: the first question may cost 0.0100; raise"),
        (Budget(evaluations=60, tokens=100), "100 tokens are too few: the first question may take"),
    ],
)
def test_a_budget_that_is_too_little_for_one_strategy_is_refused(tmp_path: Path, budget: Budget, words: str) -> None:
    with pytest.raises(DataError, match=words):
        searched(tmp_path, transcript(tmp_path / "t.jsonl", many_replies(3, 4)), budget)
    assert not (tmp_path / "found").exists()


def test_after_its_hours_a_search_begins_nothing(tmp_path: Path) -> None:
    model = transcript(tmp_path / "t.jsonl", many_replies(9, 4))
    searched(tmp_path, model, Budget(hours=0.0))
    assert dump(tmp_path / "found")["evaluations"] == [] and dump(tmp_path / "found")["calls"] == []
    assert dump(tmp_path / "found")["stop"] == ("hours", 0)
    go_on(tmp_path / "found", Budget(hours=10.0, evaluations=60))
    assert dump(tmp_path / "found")["stop"][0] == "evaluations"


def test_a_search_without_an_end_or_a_price_is_refused(tmp_path: Path) -> None:
    model = transcript(tmp_path / "t.jsonl", [{"text": document(0.5), "usd": 1.0}])
    for name, budget, words in (
        ("none", Budget(usd=5), "give --evaluations or --budget-hours"),
        (model, Budget(evaluations=50), "costs money: say how much it may with --budget-usd"),
        (model, Budget(evaluations=50, usd=5), "each reply needs its key"),
    ):
        with pytest.raises(DataError, match=words):
            searched(tmp_path, name, budget)
        assert not (tmp_path / "found").exists()


@pytest.mark.slow
def test_what_the_end_of_the_hours_kept_from_beginning_is_not_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a search that goes on plans for the rest of its generation."""
    plain, left = Archive.finish_evaluation, 9

    def finish(archive: Archive, one: Evaluation) -> None:
        nonlocal left
        plain(archive, one)
        left -= 1
        if not left:
            raise StopError("hours", "they are over")

    model = transcript(tmp_path / "t.jsonl", many_replies(9, 4))
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "finish_evaluation", finish)
        search = searched(tmp_path, model, Budget(evaluations=60))
    assert len(dump(tmp_path / "found")["evaluations"]) == 14
    with resumed(tmp_path / "found", console=quiet()) as search:
        assert search.archive.spent().evaluations == 9 and search.archive.stopped() is None
        rest = search.estimate()
        assert rest is not None and rest.strategies == 7 and 9 + sum(rest.runs) == 60
        search.run()
        assert search.archive.spent().evaluations <= 60
