"""What may follow what: steps of one image first, then branches, then mixing or views."""

from __future__ import annotations

from collections.abc import Iterable

from augkit.strategy.draft import Draft
from augkit.strategy.model import BatchStep, BranchesStep, Expr, Step, Strategy, UseStep
from augkit.strategy.problems import Place, Problems

NOT_BOTH = "views and mixing do not go together: leave out one of them"


def kinds(steps: Iterable[Step]) -> set[str]:
    """What steps do, those of strategies in use included: `image`, `branches`, `mixing`, `views`,
    and `probes` where one of those strategies has some, `counting` where it counts training answers."""
    found: set[str] = set()
    for step in steps:
        if isinstance(step, UseStep):
            found |= kinds(step.strategy.pipeline)
            found |= {"views"} if step.strategy.view_names else set()
            found |= _probes_of(step.strategy)
        else:
            found.add({BatchStep: "mixing", BranchesStep: "branches"}.get(type(step), "image"))
    return found


def has_probes(strategy: Strategy) -> bool:
    """Whether a strategy has probes, or one that it uses in its pipeline or its views."""
    return bool(_probes_of(strategy))


def _probes_of(strategy: Strategy) -> set[str]:
    """`probes` where a strategy has some, or one that it uses, and `counting` where one counts training answers."""
    found = {"probes"} if strategy.probes else set()
    found |= {"counting"} if any(probe.level is not None for probe in strategy.probes.values()) else set()
    steps = [*strategy.pipeline, *(step for view in strategy.views.values() for step in view.steps)]
    return found.union(*(_probes_of(step.strategy) for step in steps if isinstance(step, UseStep)))


def check_order(draft: Draft, problems: Problems) -> None:
    """Note every step that stands where it cannot be meant."""
    _check_list(draft.pipeline, "pipeline", ("pipeline",), draft, problems)
    for name, view in draft.views.items():
        place: Place = ("views", name)
        _check_list(view.steps, f"views.{name}", place, draft, problems)
        inside = kinds(view.steps)
        if "mixing" in inside:
            problems.add(place, NOT_BOTH)
        if "views" in inside:
            problems.add(place, "a strategy that has views itself cannot be part of a view")
        if "counting" in inside:
            problems.add(place, "a strategy that counts training answers belongs into the pipeline, not into a view")
    whole = kinds(draft.pipeline)
    if not draft.views:
        return
    if "mixing" in whole:
        problems.add(("views",), NOT_BOTH)
    if "branches" in whole:
        problems.add(("views",), "branches come last, and views go on from the pipeline: move the branches into them")
    if "views" in whole:
        problems.add(("views",), "a strategy in the pipeline has views already; have them in one place")


def _check_list(steps: tuple[Step, ...], path: str, place: Place, draft: Draft, problems: Problems) -> None:
    before: set[str] = set()
    for number, step in enumerate(steps):
        own, here = kinds([step]), draft.places.get(f"{path}[{number}]", place)
        if "views" in before and own:
            problems.add(here, "views come last: move this step before the strategy that has them")
        elif "mixing" in before and "mixing" not in own:
            problems.add(here, "mixing comes last: move this step before the one that mixes images")
        elif "branches" in before and own & {"image", "branches"}:
            problems.add(here, "branches come last among an image's steps: move this step before them")
        if "mixing" in before | own and "views" in own:
            problems.add(here, NOT_BOTH)
        before |= own


def check_probe(steps: tuple[Step, ...], path: str, place: Place, draft: Draft, problems: Problems) -> None:
    """Note what a probe cannot do to an image."""
    _check_list(steps, path, place, draft, problems)
    for kind, told in (("mixing", "steps that mix"), ("views", "a strategy with views"), ("probes", "other probes")):
        if kind in kinds(steps):
            problems.add(place, f"a probe treats single images: it cannot have {told}")


def check_alternative(steps: tuple[Step, ...], place: Place, problems: Problems) -> None:
    """Note what cannot be one of several alternatives."""
    inside = kinds(steps)  # those of a one_of inside it were checked on their own
    if "mixing" in inside:
        problems.add(place, "mixing cannot be one of several steps; write the choice inside batch")
    if "branches" in inside:
        problems.add(place, "branches cannot be one of several steps; say how often with p in the branches")
    if "views" in inside:
        problems.add(place, "a strategy that has views cannot be one of several steps")
    if "probes" in inside:
        problems.add(
            place, "a strategy that has probes cannot be one of several steps, since they ask about each image"
        )


def check_use(step: UseStep, name: str, place: Place, problems: Problems) -> None:
    """Note a strategy whose steps cannot be left out for single images."""
    if step.p == Expr.of(1):
        return
    if step.strategy.mixes:
        problems.add((*place, "p"), f'"{name}" mixes images; say how often with p in its own mixing steps')
    if step.strategy.view_names:
        problems.add(
            (*place, "p"), f'"{name}" has views, which every image gets; say how often with p in its own steps'
        )
