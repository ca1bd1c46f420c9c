"""How a search begins or goes on: everything is checked before anything is written or paid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import DataError, DocumentError, StateError
from augkit_llm.archive import ELSEWHERE, FILE, Archive
from augkit_llm.budget import OPTIONS, TOKENS, USD, Budget, cost
from augkit_llm.cascade import RECIPE, Cascade, Place
from augkit_llm.controls import CONTROLS
from augkit_llm.evaluate import ENOUGH, Stage, check_recipe, stages
from augkit_llm.models import Message, Model, Options, Question, open_model, parse_shares
from augkit_llm.proposing import Proposer
from augkit_llm.request import DataFacts
from augkit_llm.search import Search, Settings
from augkit_llm.selection import NONE
from augkit_llm.standing import Standing
from augkit_llm.telling import Teller

if TYPE_CHECKING:
    from rich.console import Console

    from augkit.lab.recipe import Recipe
    from augkit.registry import Registry

SEARCHED = ("policy", "seed", "test")
"""Parts of a recipe that the search itself sets."""


def settle(
    recipe: str | Path,
    overrides: Sequence[str],
    models: Sequence[str],
    *,
    population: int = 8,
    seed: int = 0,
    seeds: int = 2,
    prompts: Path | None = None,
    names: bool = False,
    sheet: bool = False,
    repairs: int = 2,
    cascade: Sequence[Stage] | None = None,
    registry: Registry | None = None,
) -> Settings:
    """The settings of a new search, checked.

    Runs compute on one CPU thread unless the recipe says `threads`, so that rewards do not depend on how many run at
    once.

    Raises:
        AugkitError: the recipe cannot be searched on, or a share is wrong.
    """
    from augkit.lab.recipe import load_recipe
    from augkit.plugins import registry as default_registry

    for override in overrides:
        part = override.partition("=")[0].partition(".")[0].strip()
        if part in SEARCHED:
            raise DocumentError(f"--set {override}: a search sets {part} itself")
    found = load_recipe(recipe, registry or default_registry(), overrides)
    check_recipe(found)
    resolved = found.model_dump(mode="json")
    resolved["epochs"], resolved["stages"][0]["epochs"] = found.stage_epochs[0], None  # one place that says it
    resolved["threads"] = resolved["threads"] or 1
    return Settings(
        recipe=resolved,
        models=tuple(_absolute(parse_shares(models)).items()),
        stages=tuple(cascade) if cascade is not None else stages(found.stage_epochs[0], seeds),
        population=population,
        seed=seed,
        prompts=None if prompts is None else str(prompts.absolute()),
        names=names,
        sheet=sheet,
        repairs=repairs,
    )


def _absolute(models: dict[str, float]) -> dict[str, float]:
    """With transcripts that are found from anywhere."""
    kind = "transcript:"
    return {
        f"{kind}{Path(name.removeprefix(kind)).absolute()}" if name.startswith(kind) else name: share
        for name, share in models.items()
    }


@contextmanager
def begun(
    folder: Path,
    settings: Settings,
    budget: Budget,
    place: Place = Place(),  # noqa: B008  it is frozen
    options: Options = Options(),  # noqa: B008
    *,
    registry: Registry | None = None,
    console: Console | None = None,
) -> Iterator[Search]:
    """A new search in an empty folder.

    Raises:
        AugkitError: something in it cannot be used, a budget is too little for one strategy, or the folder is taken.
    """
    from augkit.lab import folder as files

    if budget.evaluations is None and budget.hours is None:
        raise DataError("a search needs an end: give --evaluations or --budget-hours")
    parts = _prepare(settings, budget, options, registry)
    _check_place(folder, place)
    _check_budget(settings, budget, parts)
    with files.claim(folder):
        meta = {"budget": asdict(budget), "place": asdict(place), "options": asdict(options)}
        archive = Archive.create(folder / FILE, {"settings": settings.as_json(), **meta})
        with closing(archive), _search(folder, archive, settings, budget, place, parts, console) as search:
            yield search


@contextmanager
def resumed(
    folder: Path,
    more: Budget = Budget(),  # noqa: B008  it is frozen
    *,
    jobs: int | None = None,
    on: str | None = None,
    minutes: float | None = None,
    memory: float | None = None,
    registry: Registry | None = None,
    console: Console | None = None,
) -> Iterator[Search]:
    """The search in a folder, to go on with; its budgets may be raised, and its place and limits be others.

    Raises:
        AugkitError: there is none, another process is at it, or a budget is below what it was.
    """
    from augkit.lab import folder as files

    if not (folder / FILE).exists():
        raise StateError(f"there is no search here to go on with; {ELSEWHERE}, or begin one with --out", file=folder)
    with files.claim(folder), closing(Archive.open(folder / FILE)) as archive:
        settings = archive.settled("settings", Settings.from_json)
        budget = archive.settled("budget", lambda found: Budget(**found)).raised(more)
        place = archive.settled("place", lambda found: Place(**found))
        said: dict[str, Any] = {"jobs": jobs, "on": on, "minutes": minutes, "memory": memory}
        place = replace(place, **{name: value for name, value in said.items() if value is not None})
        options = archive.settled("options", _options)
        parts = _prepare(settings, budget, options, registry)
        archive.set_meta("budget", asdict(budget))
        archive.set_meta("place", asdict(place))
        archive.go_on()
        with _search(folder, archive, settings, budget, place, parts, console) as search:
            yield search


def _options(found: dict[str, Any]) -> Options:
    price = found.get("usd_per_mtok")
    return Options(**{**found, "usd_per_mtok": None if price is None else (price[0], price[1])})


@dataclass(frozen=True)
class _Parts:
    """What a search needs of the world."""

    recipe: Recipe
    registry: Registry
    models: dict[str, Model]
    data: DataFacts


def _prepare(settings: Settings, budget: Budget, options: Options, registry: Registry | None) -> _Parts:
    """Recipe, models and data, ready for use.

    Raises:
        AugkitError: one of them cannot be used, or a model costs money and no budget says how much it may.
    """
    from augkit.lab.recipe import load_recipe
    from augkit.plugins import registry as default_registry

    registry = registry or default_registry()
    recipe = load_recipe(settings.recipe, registry)
    options = replace(options, priced=options.priced or budget.usd is not None)
    models = {name: open_model(name, options) for name, _ in settings.models if name != NONE}
    for name, model in models.items():
        if budget.usd is None and model.estimate(Question((Message("user", "?"),)))[1] > 0:
            raise DataError(f"{name} costs money: say how much it may with --budget-usd")
        if getattr(model, "keyless", False):
            raise DataError(f"{name}: a search asks again where it was stopped, so each reply needs its key (g0.s0.a0)")
    return _Parts(recipe, registry, models, _facts(recipe, settings))


def _facts(recipe: Recipe, settings: Settings) -> DataFacts:
    """What models are told of the data.

    Raises:
        DocumentError: a class has too few images to reward by.
    """
    from augkit.lab import data as lab_data
    from augkit_llm.data_facts import contact_sheet

    counted = recipe.data.model_copy(update={"memory": 0})  # counts are wanted, and no image
    data = lab_data.load(counted, sources=recipe.sources)
    if data.val is None:
        raise DocumentError(
            f"there are no images to reward by: say data.validation_per_class: {ENOUGH} or more", path="data"
        )
    held_out = data.val.labels.bincount(minlength=data.num_classes)
    if int(held_out.min()) < ENOUGH:
        fewest = data.class_names[int(held_out.argmin())]
        raise DocumentError(
            f'class "{fewest}" has {int(held_out.min())} images to reward by, and {ENOUGH} are needed to rank'
            f" strategies: hold more out with data.validation_per_class",
            path="data",
        )
    return DataFacts(
        counts=tuple(data.class_counts.tolist()),
        image_size=data.train.size,
        names=data.class_names if settings.names else None,
        sheet=contact_sheet(data, names=settings.names) if settings.sheet else None,
        title=recipe.title,
    )


def _check_place(folder: Path, place: Place) -> None:
    """Raise unless a search may be made here."""
    from augkit.lab import folder as files
    from augkit.lab import jobs

    jobs.check([], place.on, place.jobs)
    if folder.exists() and not folder.is_dir():
        raise DataError("the search's place is taken by a file; choose another with --out", file=folder)
    if (folder / FILE).exists() and not Archive.empty(folder / FILE):
        raise DataError("there is a search here already; go on with --resume, or choose another --out", file=folder)
    if any(not path.name.startswith(FILE) for path in files.contents(folder)):
        raise DataError("the folder is not empty; choose another with --out", file=folder)


def _check_budget(settings: Settings, budget: Budget, parts: _Parts) -> None:
    """Raise unless there is enough of everything for one strategy."""
    controls = sum(stage.seeds * (len(CONTROLS) + stage.warm) for stage in settings.stages)
    one = cost(1, settings.stages)
    if budget.evaluations is not None and budget.evaluations < controls + one:
        raise DataError(
            f"{budget.evaluations} evaluations are too few: the controls take {controls} and one strategy {one};"
            f" give --evaluations {controls + one} or more"
        )
    if len(parts.models) < len(settings.models):
        return  # chance costs nothing
    with closing(Archive.create(Path(":memory:"), {})) as nothing:
        prices = _proposer(nothing, settings, budget, parts).first_prices()
    tokens, usd = (min(price[part] for price in prices) for part in (0, 1))
    if budget.tokens is not None and budget.tokens < tokens:
        words = f"{budget.tokens} tokens are too few: the first question may take {tokens}"
        raise DataError(f"{words}; raise {OPTIONS[TOKENS]}")
    if budget.usd is not None and budget.usd < usd:
        words = f"{budget.usd:g} USD are too little: the first question may cost {usd:.4f}"
        raise DataError(f"{words}; raise {OPTIONS[USD]}")


def _proposer(archive: Archive, settings: Settings, budget: Budget, parts: _Parts) -> Proposer:
    return Proposer(
        archive,
        budget,
        parts.registry,
        settings.models,
        parts.models,
        parts.data,
        parts.recipe,
        settings.seed,
        settings.repairs,
        prompts=None if settings.prompts is None else Path(settings.prompts),
    )


@contextmanager
def _search(
    folder: Path,
    archive: Archive,
    settings: Settings,
    budget: Budget,
    place: Place,
    parts: _Parts,
    console: Console | None,
) -> Iterator[Search]:
    from augkit.lab import folder as files

    files.write_yaml(folder / RECIPE, settings.recipe)
    with Teller(archive, budget, place.jobs, console) as teller:
        proposer = _proposer(archive, settings, budget, parts)
        epochs = parts.recipe.epochs
        cascade = Cascade(archive, budget, folder, settings.stages, epochs, place, teller.evaluation)
        yield Search(archive, settings, budget, proposer, cascade, Standing(archive, folder, settings.stages), teller)
