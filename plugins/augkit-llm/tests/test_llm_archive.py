"""The archive: what is stored before it is used, what a kill leaves, and that nothing is paid twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.models import Message, Question, Reply
from augkit_llm.records import DUPLICATE, FINISHED, READY, Candidate, Evaluation, Spent
from augkit_llm.search import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augkit.errors import StateError

META = {"settings": {"seed": 0}}
REPLY = Reply("text", "m", 10, 5, 0.25, 1.5)


def question(key: str, text: str = "write") -> Question:
    return Question((Message("user", text),), None, key)


def yes(spent: Spent) -> None:
    """Every call is allowed."""


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / FILE, META)


def test_a_call_counts_at_its_reserved_price_until_its_reply_is_there(archive: Archive) -> None:
    call = archive.begin_call(question("g0.s0.a0"), "m", (100, 0.5), yes)
    assert (archive.spent().tokens, archive.spent().usd) == (100, 0.5)
    assert archive.reply("g0.s0.a0") is None
    archive.answer_call(call, REPLY)
    assert (archive.spent().tokens, archive.spent().usd) == (15, 0.25)
    assert archive.reply("g0.s0.a0") == REPLY


def test_a_failed_call_keeps_its_price_and_may_be_made_again(archive: Archive) -> None:
    archive.fail_call(archive.begin_call(question("k"), "m", (100, 0.5), yes), "time-out")
    archive.answer_call(archive.begin_call(question("k"), "m", (100, 0.5), yes), REPLY)
    assert archive.spent().usd == 0.75
    assert archive.reply("k") == REPLY


def test_no_question_is_asked_twice(archive: Archive) -> None:
    archive.answer_call(archive.begin_call(question("k"), "m", (1, 0.0), yes), REPLY)
    with pytest.raises(sqlite3.IntegrityError):
        archive.begin_call(question("k"), "m", (1, 0.0), yes)


def test_a_call_that_was_under_way_when_its_process_ended_is_lost_at_its_price(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / FILE, META)
    archive.begin_call(question("k"), "m", (100, 0.5), yes)
    archive.close()
    again = Archive.open(tmp_path / FILE)
    assert again.reply("k") is None and again.spent().usd == 0.5
    again.answer_call(again.begin_call(question("k"), "m", (100, 0.5), yes), REPLY)
    assert again.spent().usd == 0.75
    assert len(again.dump()["calls"]) == 1


def test_the_prompt_is_stored_without_the_bytes_of_its_images(archive: Archive) -> None:
    archive.begin_call(Question((Message("user", "look", (b"\x89PNG" * 1000,)),), None, "k"), "m", (1, 0.0), yes)
    (row,) = archive.rows("SELECT prompt FROM calls")
    (message,) = json.loads(row["prompt"])
    assert message["text"] == "look" and message["images"][0]["bytes"] == 4000
    assert len(row["prompt"]) < 300


CANDIDATE = Candidate(
    0, 1, "e1", "m", "model", ("aa", "bb"), READY, None, "cc", "dd", {"name": "x"}, "an idea", None, 2
)


def test_candidates_and_evaluations_come_back_as_they_were(archive: Archive) -> None:
    archive.add_candidate(CANDIDATE)
    archive.add_candidate(replace(CANDIDATE, slot=0, fate=DUPLICATE, document=None, facts={"cost": 1.5}))
    assert archive.candidates() == [
        replace(CANDIDATE, slot=0, fate=DUPLICATE, document=None, facts={"cost": 1.5}),
        CANDIDATE,
    ]
    assert archive.candidates(before=0) == []
    archive.begin_evaluations("full", [("cc", 0), ("none", 1)])
    done = Evaluation("full", "cc", 0, "done", 0.5, 0.02, {"reward": 0.5}, None, 3.0)
    archive.finish_evaluation(done)
    archive.begin_evaluations("full", [("cc", 0)])  # what is finished stays
    assert archive.evaluations("full") == [done, Evaluation("full", "none", 1, "begun")]
    assert archive.spent().evaluations == 1  # the other one may never begin
    archive.set_fates(0, {1: (FINISHED, "full", None)})
    assert archive.candidates()[1] == replace(CANDIDATE, fate=FINISHED, stage="full")


def test_a_slot_is_filled_once(archive: Archive) -> None:
    archive.add_candidate(CANDIDATE)
    with pytest.raises(sqlite3.IntegrityError):
        archive.add_candidate(CANDIDATE)


def test_time_is_that_of_all_sessions(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / FILE, META)
    archive.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("UPDATE sessions SET seconds = 100")
    assert 100 <= Archive.open(tmp_path / FILE).spent().seconds < 130


def test_the_same_stop_is_noted_once(archive: Archive) -> None:
    archive.stop("usd", "too dear")
    archive.stop("usd", "too dear")
    assert len(archive.rows("SELECT * FROM stops")) == 1
    archive.begin_evaluations("full", [("none", 0)])
    archive.finish_evaluation(Evaluation("full", "none", 0, "done", 0.5, 0.02))
    archive.stop("usd", "too dear")
    assert archive.stopped()["evaluations"] == 1  # type: ignore[index]
    assert len(archive.rows("SELECT * FROM stops")) == 2


def test_a_search_that_goes_on_has_not_stopped(archive: Archive) -> None:
    archive.go_on()
    assert archive.stopped() is None
    archive.stop("usd", "too dear")
    archive.go_on()
    assert archive.stopped() is None
    archive.stop("usd", "too dear")
    assert archive.stopped()["reason"] == "usd"  # type: ignore[index]


def _shorter(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


@pytest.mark.parametrize(
    "damage",
    [
        _shorter,
        lambda raw: random.Random(0).randbytes(len(raw)),
        lambda raw: raw[:4096] + b"\xa5" * 4096 + raw[8192:],
        lambda raw: b"",
    ],
)
def test_a_damaged_archive_is_told_in_a_sentence(
    tmp_path: Path, archive: Archive, damage: Callable[[bytes], bytes]
) -> None:
    for slot in range(20):
        archive.add_candidate(replace(CANDIDATE, slot=slot))
    archive.close()
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))
    for way in (Archive.open, Archive.read):
        with pytest.raises(StateError, match="no search archive, or a damaged one") as told:
            way(path)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["{", "5", "{}", '{"models": 3}', "null"])
def test_a_damaged_value_is_told_in_a_sentence(archive: Archive, text: str) -> None:
    with archive.writing() as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'settings'", (text,))
    with pytest.raises(StateError, match="a damaged one"):
        archive.settled("settings", Settings.from_json)
    archive.add_candidate(CANDIDATE)
    with archive.writing() as db:
        db.execute("UPDATE candidates SET facts = '{'")
    with pytest.raises(StateError, match="a damaged one"):
        archive.candidates()


def test_a_full_disk_is_told_in_a_sentence_and_leaves_what_was_there(archive: Archive) -> None:
    (pages,) = archive.rows("PRAGMA page_count")
    archive.rows(f"PRAGMA max_page_count = {pages[0] + 2}")
    with pytest.raises(StateError, match=r"database or disk is full\); see to its disk"):
        for slot in range(1000):
            archive.add_candidate(replace(CANDIDATE, slot=slot, idea="x" * 900))
    archive.rows("PRAGMA max_page_count = 100000")
    archive.add_candidate(replace(CANDIDATE, slot=len(archive.candidates())))


def test_where_there_is_no_archive_it_is_told_in_a_sentence(tmp_path: Path) -> None:
    for way in (Archive.open, Archive.read):
        with pytest.raises(StateError, match="there is no search here"):
            way(tmp_path / FILE)
    (tmp_path / FILE).write_text("not a database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(StateError, match="no search archive"):
        Archive.read(tmp_path / FILE)


def test_another_version_is_refused(tmp_path: Path) -> None:
    archive = Archive.create(tmp_path / FILE, META)
    archive.set_meta("version", 99)
    archive.close()
    with pytest.raises(StateError, match="version 99"):
        Archive.open(tmp_path / FILE)


def test_an_archive_can_be_read_while_it_is_written(tmp_path: Path, archive: Archive) -> None:
    reader = Archive.read(tmp_path / FILE)
    archive.add_candidate(CANDIDATE)
    assert reader.candidates() == [CANDIDATE]
    with pytest.raises(StateError, match="readonly"):
        reader.add_candidate(CANDIDATE)


def test_threads_reserve_one_after_another(archive: Archive) -> None:
    """However many ask at once, together they never take more than there is."""

    class FullError(Exception):
        pass

    def allow(spent: Spent) -> None:
        if spent.tokens + 10 > 100:
            raise FullError

    refused: list[str] = []

    def ask(number: int) -> None:
        try:
            archive.begin_call(question(f"k{number}"), "m", (10, 0.0), allow)
        except FullError:
            refused.append(f"k{number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert archive.spent().tokens == 100 and len(refused) == 15


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), idea=st.text(st.characters(blacklist_categories=["Cs"])), usd=st.floats(0, 1e9))
def test_whatever_a_model_writes_comes_back(tmp_path: Path, text: str, idea: str, usd: float) -> None:
    text = text.encode("utf-8", "replace").decode()
    path = tmp_path / FILE
    for old in tmp_path.glob(f"{FILE}*"):
        old.unlink()
    archive = Archive.create(path, META)
    archive.answer_call(archive.begin_call(question("k", text), "m", (1, usd), yes), replace(REPLY, text=text, usd=usd))
    archive.add_candidate(replace(CANDIDATE, idea=idea, document={"name": text}))
    archive.close()
    again = Archive.read(path)
    assert again.reply("k") == replace(REPLY, text=text, usd=usd)
    assert again.candidates()[0].idea == idea and again.candidates()[0].document == {"name": text}
    again.close()


def _write_until_killed(path: Path, number: int) -> None:
    archive = Archive.create(path, META) if number == 0 else Archive.open(path)
    for key in range(10_000):
        if archive.reply(f"k{key}") is None:
            archive.answer_call(archive.begin_call(question(f"k{key}"), "m", (1, 1.0), yes), replace(REPLY, usd=1.0))


@pytest.mark.slow
def test_what_was_stored_survives_kill_9(tmp_path: Path) -> None:
    """Every call is stored, under way or lost; the sum of prices is that of the rows; no reply is asked for twice."""
    path, stored = tmp_path / FILE, 0
    for number in range(6):
        process = multiprocessing.get_context("fork").Process(target=_write_until_killed, args=(path, number))
        process.start()
        process.join(0.4)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        reader = Archive.read(path)
        answered = [row["key"] for row in reader.rows("SELECT key FROM calls WHERE state = 'answered'")]
        assert len(set(answered)) == len(answered) > stored
        assert reader.spent().usd == len(reader.rows("SELECT id FROM calls"))
        stored = len(answered)
        reader.close()
    assert len(Archive.open(path).rows("SELECT id FROM calls WHERE state = 'asked'")) == 0
