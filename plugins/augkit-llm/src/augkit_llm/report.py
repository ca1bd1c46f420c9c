"""The report of a search: one page that explains itself, and the same figures as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import DataError
from augkit_llm.report_facts import Found, facts, read

if TYPE_CHECKING:
    from augkit.registry import Registry

REPORT, PAGE, RESULTS = "report", "index.html", "results.json"


def write(folder: Path, against: Sequence[Path] = (), registry: Registry | None = None) -> Path:
    """Write `report/index.html` and `report/results.json` into a search's folder; returns the page.

    A search that is running is told as far as it is. Nothing but the report is written.

    Args:
        folder: of the search.
        against: folders of other searches on the same recipe.
        registry: of operators; those that are installed if it is not given.

    Raises:
        StateError: there is no search.
        DataError: another search is on another recipe or has other stages, or the report cannot be written.
    """
    from augkit.lab import folder as files
    from augkit.plugins import registry as default_registry

    results = collect(folder, against, registry or default_registry())
    place = folder / REPORT
    try:
        place.mkdir(exist_ok=True)
        files.write_json(place / RESULTS, results)
        files.write(place / PAGE, page(results))
    except OSError as error:
        raise DataError(f"the report cannot be written ({error.strerror or error})", file=place) from error
    return place / PAGE


def collect(folder: Path, against: Sequence[Path], registry: Registry) -> dict[str, Any]:
    """All figures of a report, as JSON values."""
    from augkit_llm.verdict import verdicts

    places = [path.resolve() for path in (folder, *against)]
    twice = next((path for path in places if places.count(path) > 1), None)
    if twice is not None:
        raise DataError("a search cannot be told against itself, nor twice; leave it out of --against", file=twice)
    with ExitStack() as stack:
        searches = [read(path) for path in (folder, *against)]
        for one in searches:
            stack.enter_context(closing(one.archive))
        hashes = [_recipe(one, registry) for one in searches]
        for one, name in zip(searches[1:], hashes[1:], strict=True):
            _check_same(searches[0], hashes[0], one, name)
        told = [facts(one, registry, name) for one, name in zip(searches, hashes, strict=True)]
        return {"augkit_report": 1, "verdicts": verdicts(searches), "searches": told}


def _recipe(found: Found, registry: Registry) -> str:
    from augkit.lab.recipe import load_recipe

    return load_recipe(found.settings.recipe, registry).hash


def _check_same(first: Found, name: str, other: Found, other_name: str) -> None:
    """Raise if rewards of two searches cannot be compared."""
    if other_name != name:
        raise DataError(
            f"this search is on another recipe ({other_name[:12]}) than {first.folder} ({name[:12]}), so their rewards"
            " cannot be compared; leave it out of --against",
            file=other.folder,
        )
    if other.stages != first.stages:
        raise DataError(
            f"this search has other stages or seeds than {first.folder}, so their rewards cannot be compared; leave it"
            " out of --against",
            file=other.folder,
        )


def page(results: dict[str, Any]) -> str:
    """The page of these figures. All that a model wrote is text there, whatever it says."""
    from augkit.report.page import render
    from augkit_llm import report_pictures as pictures

    main = results["searches"][0]
    facts = {
        "results": results,
        "main": main,
        "curves": pictures.curves(main),
        "use": pictures.use(main["use"]) if main["use"] else [],
        "best_so_far": pictures.searches(results["searches"]) if len(results["searches"]) > 1 else [],
        "reward": _reward,
        "signed": _signed,
        "share": _share,
    }
    return render("search.html.j2", facts, package="augkit_llm")


def _reward(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "0 of 0"
