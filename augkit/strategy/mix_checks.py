"""The static check of mixing steps: what may be read there is more than elsewhere, as each image has a partner."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from augkit.strategy.labels import KEPT, PARTNER, PARTNERS_ARE, reads_kept
from augkit.strategy.model import BatchStep, MixStep
from augkit.strategy.problems import Place
from augkit.strategy.typing import Axes, Scope

if TYPE_CHECKING:
    from augkit.strategy.checks import Checker

BATCH: Axes = ("batch",)


def check_mixing(checker: Checker, step: BatchStep, path: str, scope: Scope) -> None:
    """Check every mixing step of a `batch:`, alternatives included."""
    for number, item in enumerate(step.mixes):
        at = f"{path}[{number}]"
        if isinstance(item, MixStep):
            _mix(checker, item, f"{at}.{item.kind}", scope)
            continue
        for inner, way in enumerate(item.alternatives):
            inside = f"{at}.one_of[{inner}]"
            place: Place = (*checker.draft.places[inside], "weight")
            checker.weight(way.weight, scope, BATCH, f"{inside}.weight", place)
            _mix(checker, way.mix, f"{inside}.{way.mix.kind}", scope)


def _mix(checker: Checker, step: MixStep, path: str, scope: Scope) -> None:
    place = checker.draft.places[path]
    if step.weights is not None:  # they choose the partner
        checker.weight(step.weights, scope, ("batch", "classes"), f"{path}.weights", (*place, "weights"))
    if step.kind == "mosaic":
        scope = replace(scope, hidden={**scope.hidden, PARTNER: PARTNERS_ARE})
    else:
        scope = replace(scope, hidden={name: why for name, why in scope.hidden.items() if name != PARTNER})
    checker.share(step.p, scope, BATCH, f"{path}.p", (*place, "p"))
    checker.weight(step.alpha, scope, BATCH, f"{path}.alpha", (*place, "alpha"))
    if step.share is not None:
        checker.share(step.share, scope, BATCH, f"{path}.share", (*place, "share"))
    if step.label is not None and step.kind != "mosaic":  # a mosaic's is refused where it is read
        _label(checker, step, path, scope)


def _label(checker: Checker, step: MixStep, path: str, scope: Scope) -> None:
    """The weight of the image's own label: elementwise in what shows, since that is known only with the pixels."""
    assert step.label is not None
    place: Place = (*checker.draft.places[path], "label")
    ranges = {**scope.ranges, KEPT: (0.0, 1.0)}
    scope = replace(scope, names={**scope.names, KEPT: BATCH}, ranges=ranges, random=False)
    checker.share(step.label, scope, BATCH, f"{path}.label", place)
    typed = checker.typed.get(f"{path}.label")
    inside = next((part for part in typed.parts if part.axis and reads_kept(part)), None) if typed else None
    if inside is not None:
        message = f"`{KEPT}` cannot stand inside {inside.name}(..., over={inside.axis}); combine it with the result"
        checker.problems.add(place, message)
