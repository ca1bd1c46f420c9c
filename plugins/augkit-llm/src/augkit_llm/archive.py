"""The archive of a search: one SQLite file with every question, reply, candidate, evaluation and stop.

What a search does is a function of its settings and of what stands here, so a search that was killed at any moment goes
on as if it had not been. A row is written before anything is begun that costs money or time, and its outcome before it
is used. One process writes (`augkit.lab.folder.claim` sees to that), in any of its threads; others may read meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from augkit.errors import StateError
from augkit_llm.damage import damaged, told
from augkit_llm.models import Question, Reply
from augkit_llm.records import TABLES, VERSION, Candidate, Closing, Evaluation, Spent

FILE = "search.sqlite"
ELSEWHERE = "give the folder that --out named when the search was begun"
WENT_ON = "went on"
"""Among the reasons of stops: the search was gone on with."""
T = TypeVar("T")


class Archive:
    """An open archive; `create`, `open` and `read` make one."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self.path = connection, path
        self._lock = threading.RLock()
        self._session: int | None = None
        self._begin = time.monotonic()

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, Any]) -> Archive:
        """A new archive that holds `meta` (JSON values); it is there whole or not at all.

        Raises:
            StateError: it cannot be written, now or later.
        """
        archive = cls._connect(path)
        with archive.writing() as db:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in TABLES.split(";\n"):
                    db.execute(statement)
                rows = {"version": VERSION, **meta}.items()
                db.executemany("INSERT INTO meta VALUES (?, ?)", [(name, json.dumps(value)) for name, value in rows])
        return archive._begun()

    @classmethod
    def open(cls, path: Path) -> Archive:
        """An archive to go on with. Calls that were under way when its writer ended are lost, at their price.

        Raises:
            StateError: there is none, it is damaged, or it is of another version.
        """
        if not path.exists():
            raise StateError(f"there is no search here to go on with; {ELSEWHERE}", file=path.parent)
        return cls._connect(path)._checked()._begun()

    @classmethod
    def read(cls, path: Path) -> Archive:
        """An archive to look at, while a search may be running.

        Raises:
            StateError: there is none, it is damaged, or it is of another version.
        """
        if not path.exists():
            raise StateError(f"there is no search here (no {FILE}); {ELSEWHERE}", file=path.parent)
        with told(path):
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)
        connection.row_factory = sqlite3.Row
        return cls(connection, path)._checked()

    @classmethod
    def empty(cls, path: Path) -> bool:
        """Whether a file was made and nothing written into it yet."""
        with told(path), closing(sqlite3.connect(path, timeout=60)) as connection:
            return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]

    @classmethod
    def _connect(cls, path: Path) -> Archive:
        with told(path):
            connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a power cut loses no paid reply either
        return cls(connection, path)

    def _checked(self) -> Archive:
        try:
            (found,) = self.rows("PRAGMA quick_check(1)")  # damage is told before anything is asked or trained
            if found[0] != "ok":
                raise damaged(self.path, found[0].splitlines()[-1])
            version = self.meta("version")
        except KeyError as error:
            raise damaged(self.path, "it says no version") from error
        if version != VERSION:
            raise StateError(
                f"this archive is of version {version}, and this augkit-llm reads version {VERSION};"
                " use the augkit-llm that made it",
                file=self.path,
            )
        return self

    def _begun(self) -> Archive:
        """With a session of its own, and what an earlier one left under way settled."""
        with self.writing() as db:
            self._session = db.execute("INSERT INTO sessions (begun, seconds) VALUES (?, 0)", (time.time(),)).lastrowid
            db.execute("UPDATE calls SET state = 'lost' WHERE state = 'asked'")
        return self

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; the time used so far is noted with it."""
        with self._lock, told(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                if self._session is not None:
                    used = (time.monotonic() - self._begin, self._session)
                    self._connection.execute("UPDATE sessions SET seconds = ? WHERE id = ?", used)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk ends it by itself
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """What a SELECT gives."""
        with self._lock, told(self.path):
            return self._connection.execute(query, values).fetchall()

    def _value(self, text: str) -> Any:
        """A JSON value that stands in a table."""
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise damaged(self.path, str(error)) from error

    def meta(self, name: str) -> Any:
        """A value of the table `meta`.

        Raises:
            KeyError: there is none by that name.
        """
        found = self.rows("SELECT value FROM meta WHERE name = ?", (name,))
        if not found:
            raise KeyError(name)
        return self._value(found[0]["value"])

    def settled(self, name: str, read: Callable[[Any], T]) -> T:
        """What `read` makes of a value of the table `meta`.

        Raises:
            StateError: it is not what was written there.
        """
        try:
            return read(self.meta(name))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self.path, f"its {name} cannot be read") from error

    def set_meta(self, name: str, value: Any) -> None:
        """Replace a value of the table `meta`."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    # questions and replies

    def reply(self, key: str) -> Reply | None:
        """The stored reply to a question."""
        found = self.rows("SELECT * FROM calls WHERE key = ? AND state = 'answered'", (key,))
        if not found:
            return None
        row = found[0]
        tokens = row["prompt_tokens"], row["completion_tokens"]
        return Reply(row["reply"], row["model"], *tokens, row["usd"], row["seconds"], bool(row["cut"]))

    def begin_call(
        self, question: Question, model: str, price: tuple[int, float], allow: Callable[[Spent], None]
    ) -> int:
        """Note a call that is about to be made, at the most it can cost; returns its number.

        `allow` is given what is spent without it and raises if that leaves too little.
        """
        with self.writing() as db:
            allow(self.spent())
            row = db.execute(
                "INSERT INTO calls (key, model, prompt, state, tokens, usd) VALUES (?, ?, ?, 'asked', ?, ?)",
                (question.key, model, prompt_of(question), *price),
            ).lastrowid
        assert row is not None
        return row

    def answer_call(self, call: int, reply: Reply) -> None:
        """Store a reply and what it did cost."""
        tokens = reply.prompt_tokens, reply.completion_tokens, reply.prompt_tokens + reply.completion_tokens
        with self.writing() as db:
            db.execute(
                "UPDATE calls SET state = 'answered', reply = ?, prompt_tokens = ?, completion_tokens = ?, tokens = ?,"
                " usd = ?, seconds = ?, cut = ? WHERE id = ?",
                (reply.text, *tokens, reply.usd, reply.seconds, reply.cut, call),
            )

    def fail_call(self, call: int, error: str) -> None:
        """Note that a call got no reply; it may have been billed, so its reserved price stays."""
        with self.writing() as db:
            db.execute("UPDATE calls SET state = 'failed', error = ? WHERE id = ?", (error, call))

    # generations and candidates

    def slots(self, generation: int) -> int | None:
        """How many candidates a generation has or will have; None if it is not begun."""
        found = self.rows("SELECT slots FROM generations WHERE number = ?", (generation,))
        return found[0]["slots"] if found else None

    def cut(self, generation: int) -> tuple[int, float] | None:
        """Most tokens and USD of the call for which the budget left too little in a generation."""
        found = self.rows("SELECT cut FROM generations WHERE number = ? AND cut IS NOT NULL", (generation,))
        return tuple(self._value(found[0]["cut"])) if found else None

    def set_slots(self, generation: int, slots: int, cut: tuple[int, float] | None = None) -> None:
        """Begin a generation, or make one smaller."""
        row = (generation, slots, None if cut is None else json.dumps(cut))
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO generations VALUES (?, ?, ?)", row)

    def drop_generation(self, generation: int) -> None:
        """Forget a generation and its candidates; what was asked for it stays."""
        with self.writing() as db:
            db.execute("DELETE FROM candidates WHERE generation = ?", (generation,))
            db.execute("DELETE FROM generations WHERE number = ?", (generation,))

    def add_candidate(self, one: Candidate) -> None:
        """Store a candidate as it came out of the screening."""
        row = (
            *(one.generation, one.slot, one.operator, one.model, one.origin, json.dumps(one.parents), one.fate),
            *(one.stage, one.hash, one.signature, None if one.document is None else json.dumps(one.document)),
            *(one.idea, one.problem, one.attempts, json.dumps(one.facts)),
        )
        with self.writing() as db:
            db.execute(f"INSERT INTO candidates VALUES ({', '.join('?' * len(row))})", row)

    def candidates(self, before: int | None = None) -> list[Candidate]:
        """All candidates in the order of generation and slot; only those of generations `before` one."""
        last = -1 if before is None else before
        return [
            Candidate(
                **{
                    **dict(row),
                    "parents": tuple(self._value(row["parents"])),
                    "document": None if row["document"] is None else self._value(row["document"]),
                    "facts": self._value(row["facts"]),
                }
            )
            for row in self.rows(
                "SELECT * FROM candidates WHERE ? = -1 OR generation < ? ORDER BY generation, slot", (last, last)
            )
        ]

    def set_fates(self, generation: int, fates: Mapping[int, tuple[str, str, str | None]]) -> None:
        """Fate, last stage and problem of some slots of a generation."""
        with self.writing() as db:
            db.executemany(
                "UPDATE candidates SET fate = ?, stage = ?, problem = ? WHERE generation = ? AND slot = ?",
                [(*fate, generation, slot) for slot, fate in fates.items()],
            )

    # evaluations

    def begin_evaluations(self, stage: str, runs: Sequence[tuple[str, int]]) -> None:
        """Note training runs, each a subject and a seed, that are about to be made; those noted before stay."""
        with self.writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO evaluations (stage, subject, seed, state) VALUES (?, ?, ?, 'begun')",
                [(stage, *run) for run in runs],
            )

    def finish_evaluation(self, one: Evaluation) -> None:
        """Store what a training run gave."""
        value = None if one.value is None else json.dumps(one.value)
        outcome = one.state, one.reward, one.standard_error, value, one.reason, one.seconds
        with self.writing() as db:
            db.execute(
                "UPDATE evaluations SET state = ?, reward = ?, standard_error = ?, value = ?, reason = ?, seconds = ?"
                " WHERE stage = ? AND subject = ? AND seed = ?",
                (*outcome, one.stage, one.subject, one.seed),
            )

    def drop_evaluation(self, stage: str, subject: str, seed: int) -> None:
        """Forget a training run that is to be made again."""
        with self.writing() as db:
            run = (stage, subject, seed)
            db.execute("DELETE FROM evaluations WHERE stage = ? AND subject = ? AND seed = ?", run)

    def evaluations(self, stage: str | None = None) -> list[Evaluation]:
        """All training runs, or those of a stage, in the order of subject and seed."""
        query = "SELECT * FROM evaluations WHERE ? IS NULL OR stage = ? ORDER BY stage, subject, seed"
        return [
            Evaluation(**{**dict(row), "value": None if row["value"] is None else self._value(row["value"])})
            for row in self.rows(query, (stage, stage))
        ]

    # what follows a stop

    def finish_closing(self, one: Closing) -> None:
        """Store what a part of the finale gave; a failure may be replaced."""
        value = None if one.value is None else json.dumps(one.value)
        row = one.kind, one.stage, one.subject, one.seed, one.state, value, one.reason, one.seconds
        with self.writing() as db:
            db.execute(f"INSERT OR REPLACE INTO finale VALUES ({', '.join('?' * len(row))})", row)

    def closings(self, kind: str, stage: str | None = None) -> list[Closing]:
        """Training runs of twins, or readings of the test set, all or those of a stage."""
        query = "SELECT * FROM finale WHERE kind = ? AND (? IS NULL OR stage = ?) ORDER BY stage, subject, seed"
        return [
            Closing(**{**dict(row), "value": None if row["value"] is None else self._value(row["value"])})
            for row in self.rows(query, (kind, stage, stage))
        ]

    # what was spent, and why it stopped

    def spent(self) -> Spent:
        """What is used up so far. Training runs count when they have ended: others may never begin."""
        (calls,) = self.rows("SELECT total(tokens) AS tokens, total(usd) AS usd FROM calls")
        (runs,) = self.rows("SELECT count(*) AS number FROM evaluations WHERE state != 'begun'")
        (time_,) = self.rows("SELECT total(seconds) AS seconds FROM sessions WHERE id IS NOT ?", (self._session,))
        own = time.monotonic() - self._begin if self._session is not None else 0.0
        return Spent(runs["number"], int(calls["tokens"]), calls["usd"], time_["seconds"] + own)

    def stop(self, reason: str, words: str) -> None:
        """Note why the search stops; the same stop once only."""
        spent = self.spent()
        last = self.stopped()
        if last is not None and (last["reason"], last["evaluations"]) == (reason, spent.evaluations):
            return
        with self.writing() as db:
            db.execute(
                "INSERT INTO stops (reason, words, evaluations, tokens, usd, seconds) VALUES (?, ?, ?, ?, ?, ?)",
                (reason, words, spent.evaluations, spent.tokens, spent.usd, spent.seconds),
            )

    def go_on(self) -> None:
        """Note that the search goes on after its last stop, if it had stopped."""
        if self.stopped() is not None:
            self.stop(WENT_ON, "")

    def stopped(self) -> dict[str, Any] | None:
        """The last stop; None for a search that never stopped or went on since."""
        found = self.rows("SELECT * FROM stops ORDER BY id DESC LIMIT 1")
        return dict(found[0]) if found and found[0]["reason"] != WENT_ON else None

    def dump(self) -> dict[str, Any]:
        """All that a search's settings, seed and replies decide: the archive without times, costs and places."""
        calls = "SELECT key, model, prompt, reply FROM calls WHERE state = 'answered' ORDER BY key"
        runs = "SELECT stage, subject, seed, state, reward, standard_error, reason FROM evaluations ORDER BY 1, 2, 3"
        finale = "SELECT kind, stage, subject, seed, state FROM finale ORDER BY 1, 2, 3, 4"
        last = self.stopped()
        return {
            "settings": self.meta("settings"),
            "generations": [tuple(row) for row in self.rows("SELECT number, slots FROM generations ORDER BY 1")],
            "calls": [tuple(row) for row in self.rows(calls)],
            "candidates": [
                {name: value for name, value in vars(one).items() if name != "facts"} for one in self.candidates()
            ],
            "evaluations": [tuple(row) for row in self.rows(runs)],
            "stop": last and (last["reason"], last["evaluations"]),
            "finale": [tuple(row) for row in self.rows(finale)],
        }


def prompt_of(question: Question) -> str:
    """A question as JSON; of an image its size and hash."""
    import hashlib

    messages = [
        {"role": message.role, "text": message.text}
        | (
            {"images": [{"bytes": len(one), "sha256": hashlib.sha256(one).hexdigest()} for one in message.images]}
            if message.images
            else {}
        )
        for message in question.messages
    ]
    return json.dumps(messages)
