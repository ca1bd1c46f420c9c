"""What an archive holds: its tables, and a row of them as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VERSION = 1
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, begun REAL NOT NULL, seconds REAL NOT NULL);
CREATE TABLE generations (number INTEGER PRIMARY KEY, slots INTEGER NOT NULL, cut TEXT);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('asked', 'answered', 'failed', 'lost')),
    reply TEXT,
    error TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    tokens INTEGER NOT NULL,
    usd REAL NOT NULL,
    seconds REAL,
    cut INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX once ON calls (key) WHERE state IN ('asked', 'answered');
CREATE TABLE candidates (
    generation INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    operator TEXT NOT NULL,
    model TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('model', 'random', 'mutated')),
    parents TEXT NOT NULL,
    fate TEXT NOT NULL,
    stage TEXT,
    hash TEXT,
    signature TEXT,
    document TEXT,
    idea TEXT NOT NULL,
    problem TEXT,
    attempts INTEGER NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (generation, slot)
);
CREATE TABLE evaluations (
    stage TEXT NOT NULL,
    subject TEXT NOT NULL,
    seed INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'done', 'failed')),
    reward REAL,
    standard_error REAL,
    value TEXT,
    reason TEXT,
    seconds REAL,
    PRIMARY KEY (stage, subject, seed)
);
CREATE TABLE stops (
    id INTEGER PRIMARY KEY, reason TEXT NOT NULL, words TEXT NOT NULL, evaluations INTEGER NOT NULL,
    tokens INTEGER NOT NULL, usd REAL NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE finale (
    kind TEXT NOT NULL CHECK (kind IN ('twin', 'test')),
    stage TEXT NOT NULL,
    subject TEXT NOT NULL,
    seed INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('done', 'failed')),
    value TEXT,
    reason TEXT,
    seconds REAL NOT NULL,
    PRIMARY KEY (kind, stage, subject, seed)
);
"""

UNANSWERED, INVALID, DUPLICATE, REFUSED = "unanswered", "invalid", "duplicate", "refused"
READY, FAILED, STOPPED, PASSED_OVER, FINISHED = "ready", "failed", "stopped", "passed over", "finished"
FATES = {
    UNANSWERED: "the model did not answer",
    INVALID: "no valid document after all repairs",
    DUPLICATE: "does what an earlier one does",
    REFUSED: "screened out before training",
    READY: "waits for an evaluation",
    FAILED: "its training crashed or went beyond a limit",
    STOPPED: "worse than every control, not gone on with",
    PASSED_OVER: "others were better, not gone on with",
    FINISHED: "went through all stages",
}
"""What can become of a candidate, in words."""


@dataclass(frozen=True)
class Candidate:
    """One proposal of a search, valid or not. `document` and `hash` are None where there is no valid document."""

    generation: int
    slot: int
    operator: str
    """initial, e1, e2, m1, m2 or m3."""
    model: str
    origin: str
    """`model`, or of the model `none`: `random` (fresh) or `mutated` (made from parents)."""
    parents: tuple[str, ...] = ()
    """Hashes."""
    fate: str = READY
    """One of `FATES`."""
    stage: str | None = None
    """The last stage it was trained in."""
    hash: str | None = None
    signature: str | None = None
    document: dict[str, Any] | None = None
    idea: str = ""
    problem: str | None = None
    """Why it was not, or not further, evaluated."""
    attempts: int = 0
    """Questions asked for it, repairs included."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the screening."""

    @property
    def trainable(self) -> bool:
        """Whether it came through the screening."""
        return self.fate not in (UNANSWERED, INVALID, DUPLICATE, REFUSED)

    @property
    def key(self) -> str:
        """'g3.s1', which begins the keys of its questions."""
        return f"g{self.generation}.s{self.slot}"


@dataclass(frozen=True)
class Evaluation:
    """One training run: a candidate (by hash) or a control (by name) with one seed in one stage."""

    stage: str
    subject: str
    seed: int
    state: str
    """`begun`, `done` or `failed`."""
    reward: float | None = None
    """Balanced accuracy on the reward set, 0..1; higher is better."""
    standard_error: float | None = None
    """Of the reward over the reward set's images."""
    value: dict[str, Any] | None = None
    """All that the run returned."""
    reason: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Closing:
    """Done once a search had stopped: a training run of the best strategy's twin, or a reading of the test set.

    It stands apart from the evaluations, so that nothing which chooses can see it.
    """

    kind: str
    """`twin` or `test`."""
    stage: str
    subject: str
    """A hash, a control's name, or a hash with `-twin`."""
    seed: int
    state: str
    """`done` or `failed`."""
    value: dict[str, Any] | None = None
    """As `augkit_llm.evaluate.measure` (twin) or `read_test` (test) returned it."""
    reason: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Spent:
    """What a search has used; calls under way, cut off or failed count at their reserved price."""

    evaluations: int
    tokens: int
    usd: float
    seconds: float
