"""The expression `label` of a mixing step, apart from what shows of the image, which only its pixels decide.

A plan is drawn before anybody knows how large its images are, and what a box leaves of an image depends on that. So all
of a label that does not read `kept` is worked out when the plan is drawn, and the rest when labels are mixed.
"""

from __future__ import annotations

from dataclasses import replace

from augkit.strategy.typing import Typed

KEPT, PARTNER = "kept", "partner"
KEPT_IS = "it is how much shows of an image that was mixed, and is read by `label` of a mixing step alone"
PARTNER_IS = "it is the class of the image that is mixed in, and is read by p, alpha, share and label of a mixing step"
PARTNERS_ARE = "a mosaic has three partners"


def reads_kept(typed: Typed) -> bool:
    """Whether an expression waits for what shows."""
    return KEPT in typed.reads


def rest_of(typed: Typed) -> tuple[Typed, tuple[Typed, ...]]:
    """What is left of a label once everything is known but `kept`, and what must be known for that.

    Returns:
        The expression with a name, `0`, `1` and so on, in place of each largest part that does not read `kept`; and
        those parts, in that order. Every part of what is left has no axis but the batch.
    """
    parts: list[Typed] = []

    def left(part: Typed) -> Typed:
        if part.kind == "number" or (part.kind == "name" and part.name == KEPT):
            return part
        if reads_kept(part):
            return replace(part, arguments=tuple(map(left, part.arguments)))
        parts.append(part)
        return Typed("name", str(len(parts) - 1), ("batch",), part.low, part.high)

    return left(typed), tuple(parts)
