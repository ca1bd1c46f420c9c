"""Whether a language model beat random search, at as many training runs, and where that cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from augkit_llm.gaps import gap
from augkit_llm.records import Candidate
from augkit_llm.report_facts import Found, label
from augkit_llm.reward import Score
from augkit_llm.selection import NONE

BEAT, LOST, OPEN, NOTHING = "beat", "did not beat", "cannot be told", "nothing to compare"


@dataclass(frozen=True)
class Side:
    """Some strategies of a search, with their training runs in the order in which these began."""

    name: str
    found: Found
    hashes: frozenset[str]

    @property
    def trail(self) -> list[tuple[str, str]]:
        """Stage and strategy of each run."""
        return [(run.stage, run.subject) for run in self.found.runs if run.subject in self.hashes]

    def best(self, stage: str, runs: int) -> Score | None:
        """The highest reward in a stage among those that were through it after so many runs."""
        trail = self.trail[:runs]
        seeds = next(one.seeds for one in self.found.stages if one.name == stage)
        scores = self.found.scores[stage]
        through = [name for name in self.hashes if trail.count((stage, name)) == seeds and name in scores]
        return max((scores[name] for name in through), key=lambda one: one.reward, default=None)


def verdicts(searches: Sequence[Found]) -> list[dict[str, Any]]:
    """A verdict for each search that asked models, beside its own random strategies and each search without a model."""
    asked = [one for one in searches if any(name != NONE for name, _ in one.settings.models)]
    without = [one for one in searches if one not in asked]
    if not asked:
        return [
            _nothing("No language model was asked: this is random search itself, the control for searches with one.")
        ]
    result = []
    for one in asked:
        model = _side(one, "the LLM", lambda candidate: candidate.origin == "model")
        others = [_side(one, "random strategies of the same search", lambda candidate: candidate.origin == "random")]
        others += [_side(other, f"the search without a model {label(other)}", lambda _: True) for other in without]
        others = [other for other in others if other.hashes]
        result += [verdict(model, other) for other in others]
        if not others:
            result.append(
                _nothing(
                    f"Whether the LLM of {label(one)} beat random search cannot be told: no random strategy was"
                    " measured. Search the same recipe with --llm none, and name its folder with --against."
                )
            )
    return result


def _side(found: Found, name: str, belongs: Callable[[Candidate], bool]) -> Side:
    own = frozenset(key for key, one in found.strategies().items() if belongs(one))
    return Side(name, found, own)


def _nothing(words: str) -> dict[str, Any]:
    return {"outcome": NOTHING, "words": words}


def verdict(model: Side, other: Side) -> dict[str, Any]:
    """Compare the best of both after equally many runs, in the last stage that both have reached by then."""
    runs = min(len(model.trail), len(other.trail))
    for stage in reversed(model.found.stages):
        one, two = model.best(stage.name, runs), other.best(stage.name, runs)
        if one is None or two is None:
            continue
        found = gap(one, two)
        outcome = OPEN if not found.told else BEAT if found.mean > 0 else LOST
        start = {
            BEAT: "The LLM beat random search",
            LOST: "The LLM did not beat random search; it was worse",
            OPEN: "The LLM did not beat random search as far as can be told: the difference is within the error",
        }[outcome]
        words = (
            f"{start}. After {runs} training runs of strategies each, in the stage {stage.name}, the best by"
            f" {label(model.found)} has a reward of {one.reward:.3f} ± {one.standard_error:.3f}, and the best of"
            f" {other.name} {two.reward:.3f} ± {two.standard_error:.3f}: {found.mean:+.3f}"
            f" (95 % interval {found.low:+.3f} to {found.high:+.3f})."
        )
        figures = {"runs": runs, "stage": stage.name, "model": one.reward, "other": two.reward}
        return {"outcome": outcome, "words": words, **figures, "difference": asdict(found)}
    return _nothing(
        f"Whether the LLM of {label(model.found)} beat {other.name} cannot be told: after {runs} training runs of"
        " strategies each, they have no stage in common through which both came."
    )
