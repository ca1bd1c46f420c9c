"""What may be said of differences to a control: one by one, and in the sentence on top of a comparison's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ABOVE, BELOW, ALONE, NOT, FEW = "above", "below", "by its interval alone", "cannot be told", "too few seeds"
SHOWN = 4
"""Differences, or reasons, that the sentence names one by one."""


def sign(low: float | None, high: float | None) -> int:
    """1 if the whole interval lies above zero, -1 if below, 0 if it contains zero or is not known."""
    if low is None or high is None or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def holds(found: Mapping[str, Any], level: float = 0.95) -> bool:
    """Whether the difference can be told after Holm's correction for all that were looked at."""
    return bool(found.get("p_holm", 1) < 1 - level)


def said(found: Mapping[str, Any], level: float = 0.95) -> str:
    """`ABOVE` or `BELOW` if it holds after Holm's correction, `ALONE` if only its own interval leaves out zero.

    Args:
        found: `low` and `high` (None with too few seeds), and `p_holm` where there is one.
        level: of confidence.
    """
    if found["low"] is None:
        return FEW
    side = sign(found["low"], found["high"])
    if not side:
        return NOT
    return (ABOVE if side > 0 else BELOW) if holds(found, level) else ALONE


def answer(results: Mapping[str, Any]) -> str:
    """Which differences can be told and which cannot, in one sentence.

    Args:
        results: as `results.json` has them, each of the rows with a `name` that no other has.
    """
    control, known = results["control"], [row for row in results["rows"] if row["difference"]]
    if not known:
        return _no_difference(results)
    states = [(said(row["difference"], results["confidence"]), row) for row in known]
    of = {state: [row for own, row in states if own == state] for state in (ABOVE, BELOW, ALONE, NOT, FEW)}
    looked_at, parts = results["differences_looked_at"], []
    for state in (ABOVE, BELOW):
        amounts = [f"{row['name']} by {abs(row['difference']['mean']):.1f} points" for row in of[state]]
        parts += [f"{state} {control} on test images: {listed(amounts)}"] if amounts else []
    if alone := [f"{row['name']} ({row['difference']['mean']:+.1f} points)" for row in of[ALONE]]:
        which = "differs from {} by its own interval" if len(alone) == 1 else "differ from {} by their own intervals"
        correction = f"not after Holm's correction for the {looked_at} looked at"
        parts.append(f"{which.format(control)} alone, {correction}: {listed(alone)}")
    if of[NOT]:
        parts.append(f"cannot be told from {control}: {listed([row['name'] for row in of[NOT]])}")
    if of[FEW]:
        amounts = [
            f"{row['name']} ({row['all']['mean']:.1f} % right, {row['difference']['mean']:+.1f} points)"
            for row in of[FEW]
        ]
        parts.append(f"too few seeds to tell from {control}: {listed(amounts)}")
    how = [_count(len(results["seeds"]), "seed"), *["95 % intervals"] * (len(of[FEW]) < len(known))]
    if looked_at > 1 and (of[ABOVE] or of[BELOW]) and not alone:
        how.append(f"Holm's correction for the {looked_at} looked at")
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]} ({', '.join(how)})."


def _no_difference(results: Mapping[str, Any]) -> str:
    """Why there is none: all failed, or nothing stands beside the control."""
    right = [
        f"{row['name']} {row['all']['mean']:.1f} % ({_count(len(row['seeds']), 'seed')})"
        for row in results["rows"]
        if row["all"]
    ]
    if right:
        return (
            "There is no difference to tell, because nothing else here has recipe, loss and seed in common with a"
            f" finished run of {results['control']}; right on test images: {listed(right)}."
        )
    reasons: dict[str, int] = {}
    for reason in results["failed"].values():
        reason = reason.strip().rstrip(".")
        reasons[reason] = reasons.get(reason, 0) + 1
    if not reasons:
        return "No run of this comparison has ended, so there is nothing to compare."
    own = [f"{reason} ({_count(many, 'run')})" for reason, many in reasons.items()]
    return f"Every run failed, so there is nothing to compare: {listed(own, '; ')}."


def _count(many: int, what: str) -> str:
    return f"{many} {what}{'s' * (many != 1)}"


def listed(names: Sequence[str], between: str = ", ") -> str:
    """'a, b and c'; of more than five the first four and how many are left."""
    more = len(names) - SHOWN
    shown = [*names[:SHOWN], f"{more} more"] if more > 1 else list(names)
    return shown[0] if len(shown) == 1 else f"{between.join(shown[:-1])} and {shown[-1]}"
