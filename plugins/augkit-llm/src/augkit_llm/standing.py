"""Where a search stands: who is ahead, the best strategy as a file, and what `augkit search --status` tells."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit_llm.archive import Archive
from augkit_llm.budget import Budget
from augkit_llm.cascade import as_yaml, scores_of
from augkit_llm.controls import CONTROLS
from augkit_llm.gaps import gap
from augkit_llm.records import FATES, Candidate
from augkit_llm.request import Parent
from augkit_llm.reward import Score, ranked

if TYPE_CHECKING:
    from augkit_llm.evaluate import Stage

BEST = "best.yaml"


@dataclass(frozen=True)
class Best:
    """The best strategy so far, and the stage in which it was measured."""

    candidate: Candidate
    stage: Stage
    score: Score

    def __str__(self) -> str:
        return f"{figure(self.score)} in {self.stage.name} ({self.candidate.key}, {str(self.candidate.hash)[:12]})"


@dataclass
class Standing:
    """Reads the archive, and writes `best.yaml`."""

    archive: Archive
    folder: Path
    stages: Sequence[Stage]

    def ranked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that were trained, the best first: who came farther through the stages, and there the higher reward.

        Rewards of different stages are never compared.
        """
        order: list[Candidate] = []
        for stage in reversed(self.stages):
            scores = scores_of(self.archive, stage)
            own = [one for one in candidates if one.trainable and one.hash in scores and one not in order]
            order += ranked(own, scores, lambda one: str(one.hash))
        return order

    def measured(self, one: Candidate) -> tuple[Stage, Score]:
        """The last stage that a ranked candidate came through, and its score there."""
        for stage in reversed(self.stages):
            scores = scores_of(self.archive, stage)
            if one.hash in scores:
                return stage, scores[one.hash]
        raise KeyError(one.key)

    def parent(self, one: Candidate) -> Parent:
        """What a model is told of a ranked candidate."""
        stage, score = self.measured(one)
        values = [run.value or {} for run in self.archive.evaluations(stage.name) if run.subject == one.hash]
        groups, intensity = (mean_of([value.get(part) for value in values]) or {} for part in ("groups", "intensity"))
        return Parent(one.document or {}, score.reward, score.standard_error, groups, intensity)

    def best(self) -> Best | None:
        """The first of `ranked`, of all candidates; None before anything came through a stage.

        Every one stays in the archive, and the best is never further below the highest reward of its stage than that
        one's standard error.
        """
        order = self.ranked(self.archive.candidates())
        return Best(order[0], *self.measured(order[0])) if order else None

    def write_best(self) -> Best | None:
        """`best.yaml`, replaced whole if it is another one than before."""
        from augkit.lab import folder as files

        best = self.best()
        if best is not None:
            path = self.folder / BEST
            header = self._header(best)
            text = as_yaml(best.candidate.document or {}, header)
            known = "".join(text.splitlines(keepends=True)[: len(header) - 1])  # all but what it did cost
            if not path.exists() or not path.read_text(encoding="utf-8").startswith(known):
                files.write(path, text)
        return best

    def _header(self, best: Best) -> list[str]:
        """What stands above the best strategy; the last line is its cost, which may differ for the same best."""
        one, score, stage = best.candidate, best.score, best.stage
        spent = self.archive.spent()
        who = one.model if one.origin == "model" else f"chance ({one.origin})"
        return [
            f"found by augkit search: {one.key} (generation, slot), {one.operator} by {who}",
            f"reward: {score.reward:.4f} (higher is better: balanced accuracy on the reward images, 0..1)",
            f"standard error: {score.standard_error:.4f}, over reward images and {stage.seeds} seeds",
            f"stage: {stage.name}, {stage.epochs} epochs",
            f"sha256: {one.hash}",
            f"spent by then: {spent.evaluations} evaluations, {spent.tokens} tokens, {spent.usd:.4f} USD",
        ]

    def facts(self, budget: Budget) -> dict[str, Any]:
        """What `--status` tells, as JSON."""
        candidates, best, spent = self.archive.candidates(), self.best(), self.archive.spent()
        fates = Counter(one.fate for one in candidates)
        stopped = self.archive.stopped()
        return {
            "generations": len({one.generation for one in candidates}),
            "candidates": {fate: fates[fate] for fate in FATES if fates[fate]},
            "by_origin": dict(Counter(f"{one.model}: {one.origin}" for one in candidates)),
            "evaluations": self._evaluations(),
            "best": self._best(best) if best else None,
            "spent": asdict(spent),
            "budget": asdict(budget),
            "calls": {row[0]: row[1] for row in self.archive.rows("SELECT state, count(*) FROM calls GROUP BY 1")},
            "stopped": stopped and {"reason": stopped["reason"], "words": stopped["words"]},
        }

    def _evaluations(self) -> dict[str, dict[str, int]]:
        found: dict[str, Counter[str]] = {stage.name: Counter() for stage in self.stages}
        for one in self.archive.evaluations():
            found[one.stage][one.state] += 1
        return {stage: dict(counts) for stage, counts in found.items()}

    def _best(self, best: Best) -> dict[str, Any]:
        scores = scores_of(self.archive, best.stage)
        controls = {}
        for name in (name for name in CONTROLS if name in scores):  # all of them, but for a search that is just at it
            found = gap(best.score, scores[name])
            interval = {"above_it": found.mean, "low": found.low, "high": found.high, "told": found.told}
            controls[name] = {"reward": scores[name].reward, **interval}
        return {
            "hash": best.candidate.hash,
            "found": best.candidate.key,
            "operator": best.candidate.operator,
            "model": best.candidate.model,
            "origin": best.candidate.origin,
            "stage": best.stage.name,
            "reward": best.score.reward,
            "standard_error": best.score.standard_error,
            "controls": controls,
            "file": str(self.folder / BEST),
        }


def figure(score: Score) -> str:
    """'0.734 ± 0.012'."""
    return f"{score.reward:.3f} ± {score.standard_error:.3f}"


def mean_of(values: Sequence[Any]) -> Any:
    """The mean of numbers, leaf by leaf; what is missing in all is None."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if isinstance(known[0], Mapping):
        return {name: mean_of([value.get(name) for value in known]) for name in known[0]}
    return statistics.fmean(known)
