"""A grid of runs: every policy with every loss and every seed, planned and checked before anything is trained."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from augkit.errors import DataError, DocumentError, StateError
from augkit.lab import data as lab_data
from augkit.lab import folder as files
from augkit.lab import models, optimise
from augkit.lab.augmentation import strategy_of
from augkit.lab.intensity import measure
from augkit.lab.jobs import Task
from augkit.lab.loop import prepare
from augkit.lab.recipe import Recipe, load_recipe
from augkit.lab.run import flat, pick_device, same_data, train
from augkit.plugins import registry as default_registry
from augkit.registry import Registry

GRID, RUNS, DONE, LOGS = "grid.json", "runs", "done", "logs"
OWN = ("policy", "loss", "seed")
SHORTENED, FEWEST_EPOCHS = 5, 5


class Cell(NamedTuple):
    """One run of a grid."""

    policy: str
    loss: str
    seed: int

    @property
    def name(self) -> str:
        """What its folder is called."""
        return re.sub(r"[^A-Za-z0-9._+-]", "_", f"{self.policy}-{self.loss}-seed{self.seed}")


@dataclass(frozen=True)
class Grid:
    """What a comparison is of. Two grids with the same fields are the same comparison."""

    recipe: str
    """As it was given."""
    overrides: list[str]
    policies: dict[str, str]
    """Name or path of each, by the name that tables show."""
    losses: list[str]
    seeds: list[int]
    control: str
    fast: bool
    base: dict[str, Any]
    """The recipe that the runs share, resolved."""
    epochs: int
    """Of each run, all stages together."""
    whole_epochs: int
    """The same before `fast` shortened the recipe."""
    documents: dict[str, str]
    """The hash of base and policy as one document, by policy."""

    @property
    def cells(self) -> list[Cell]:
        """Seeds outermost, so that after a third of the time there is one seed of everything."""
        return [Cell(policy, loss, seed) for seed in self.seeds for loss in self.losses for policy in self.policies]

    @property
    def shortened(self) -> str:
        """'10 of 50 epochs' for a fast grid, else ""."""
        return f"{self.epochs} of {self.whole_epochs} epochs" if self.fast else ""

    def recipe_of(self, cell: Cell, registry: Registry) -> Recipe:
        """The recipe of one run. Policy and loss keep what the recipe says of them, if it is these that it names."""
        policy, loss = {"load": self.policies[cell.policy]}, {"name": cell.loss}
        own = {
            "policy": self.base["policy"] if self.base["policy"]["load"] == policy["load"] else policy,
            "loss": self.base["loss"] if self.base["loss"]["name"] == cell.loss else loss,
            "seed": cell.seed,
        }
        return load_recipe(self.base | own, registry)

    def command(self, out: Path) -> str:
        """The command that makes this comparison."""
        given = [("--policy", ",".join(self.policies.values())), ("--loss", ",".join(self.losses))]
        given += [("--seeds", str(len(self.seeds)) if self.seeds == [*range(len(self.seeds))] else _listed(self.seeds))]
        given += [("--set", override) for override in self.overrides]
        given += [("--control", self.control), ("--out", str(out))]
        words = [word for option in given for word in option] + ["--fast"] * self.fast
        return shlex.join(["augkit", "compare", self.recipe, *words])


def _listed(seeds: Sequence[int]) -> str:
    """'0,2,5', and '4,' for a single one: '4' alone would be four seeds."""
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def plan(
    recipe: str | Path,
    policies: Sequence[str],
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    overrides: Sequence[str] = (),
    fast: bool = False,
    control: str = "none",
    registry: Registry | None = None,
) -> Grid:
    """Lay out a grid and check every document in it; nothing is read or written.

    Without `losses` it is the recipe's own. Runs compute on one CPU thread unless the recipe says `threads`, so that
    the numbers depend neither on how many run at once nor on the machine's cores.

    Raises:
        AugkitError: the recipe, a policy, a loss or the control is wrong.
    """
    registry = registry or default_registry()
    for override in overrides:
        part = override.partition("=")[0].partition(".")[0].strip()
        if part in OWN:
            raise DocumentError(f"--set {override}: a comparison takes --policy, --loss and --seeds instead")
    whole = load_recipe(recipe, registry, overrides)
    if not whole.test:
        raise DocumentError("a comparison is of test accuracies: leave test at true", path="test")
    shared = shorten(whole) if fast else whole
    base = shared.model_dump(mode="json")
    base["threads"] = base["threads"] or 1
    named = _named(policies, base, registry)
    if control not in named:
        raise DocumentError(
            f'the control "{control}" is not among the policies; add it to --policy, or name one of'
            f" {', '.join(named)} with --control"
        )
    losses = list(dict.fromkeys(losses)) or [whole.loss.name]
    _check_seeds(seeds)
    lengths = shared.all_epochs, whole.all_epochs
    grid = Grid(str(recipe), list(overrides), named, losses, list(seeds), control, fast, base, *lengths, documents={})
    hashes = {
        cell.policy: strategy_of(grid.recipe_of(cell, registry), registry).hash
        for cell in grid.cells
        if cell.seed == grid.seeds[0]
    }
    return replace(grid, documents=hashes)


def _named(policies: Sequence[str], base: Mapping[str, Any], registry: Registry) -> dict[str, str]:
    """Each policy's place by its name."""
    named: dict[str, str] = {}
    for policy in dict.fromkeys(policies):
        recipe = load_recipe(dict(base), registry, [f"policy={json.dumps(policy)}"])
        if recipe.policy_name in named:
            raise DocumentError(f'two policies are called "{recipe.policy_name}"; rename one of the files')
        named[recipe.policy_name] = recipe.policy.load
    return named


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise DocumentError("seeds are different whole numbers from 0, at least one", path="seeds")


def shorten(recipe: Recipe, epochs: int | None = None) -> Recipe:
    """So many epochs, or a fifth and at least five; what schedules, stages and subset count in epochs scaled alike."""
    document = recipe.model_dump(mode="json")
    epochs = epochs or min(recipe.epochs, max(FEWEST_EPOCHS, round(recipe.epochs / SHORTENED)))

    def scaled(number: float) -> int:
        return max(1, round(number * epochs / recipe.epochs)) if number else 0

    for stage, length in zip(document["stages"], recipe.stage_epochs, strict=True):
        stage["epochs"] = scaled(length) if stage is not document["stages"][0] or stage["epochs"] else None
    if recipe.subset is not None:
        document["subset"]["every"] = scaled(recipe.subset.every)
    for part in (document, *document["stages"]):
        options = part["schedule"]["options"] if part["schedule"] else {}
        for name, value in options.items():
            if name.endswith("_epochs"):
                options[name] = scaled(value)
            elif name == "decay_milestones":
                options[name] = [scaled(number) for number in value]
    return Recipe.model_validate_json(json.dumps(document | {"epochs": epochs}))


def try_out(grid: Grid, out: Path, registry: Registry) -> None:
    """Build what each policy and loss trains with, and read the data, so that a mistake shows before a run begins.

    Raises:
        AugkitError: naming the policy and the loss, or the run in the folder that had other data.
    """
    base = load_recipe(grid.base, registry)
    pick_device(base.device)
    models.check(base.model.name)
    optimise.check(base.optimizer.name, base.schedule.name)
    data = lab_data.load(base.data, sources=base.sources)
    for there in sorted((out / RUNS).glob("*")):
        same_data(there, data)
    for cell in grid.cells[: len(grid.policies) * len(grid.losses)]:
        prepare(grid.recipe_of(cell, registry), data, registry, torch.device("cpu"))


def settled(grid: Grid, out: Path) -> bool:
    """Whether the folder holds this very grid; False for an empty one, or one that holds a part of this grid.

    Raises:
        StateError: the folder holds another comparison.
    """
    path = out / GRID
    if not path.exists():
        return False
    here, there = _identity(asdict(grid)), _identity(json.loads(path.read_text(encoding="utf-8")))
    for name in {**here, **there}:
        if here.get(name) != there.get(name) and not _more(name, here.get(name), there.get(name)):
            raise StateError(
                f"this comparison was begun with {name}: {_short(there.get(name))}, not {_short(here.get(name))}; call"
                " it with the same options (policies, losses and seeds may be added to those it has) or choose another"
                " folder with --out",
                file=out,
            )
    return here == there


def _more(name: str, here: Any, there: Any) -> bool:
    """Whether a grid has only grown where it differs: further losses, seeds or policies beside those it had."""
    if name in ("losses", "seeds"):
        return set(there) <= set(here)
    return there is None and name.partition(".")[0] in ("policies", "documents")


def settle(grid: Grid, out: Path) -> None:
    """Write the grid into its folder, unless it is there.

    Raises:
        StateError: the folder holds another comparison.
    """
    if not settled(grid, out):
        files.write_json(out / GRID, asdict(grid))


def _identity(grid: Mapping[str, Any]) -> dict[str, Any]:
    """What makes it this comparison, by dotted names; the recipe's path does not, for what it holds is in `base`."""
    kept = {name: value for name, value in grid.items() if name not in ("recipe", "overrides", "base")}
    return json.loads(json.dumps(flat(grid["base"]) | flat(kept)))  # type: ignore[no-any-return]


def check_folder(out: Path) -> None:
    """Raise unless a comparison may be written or continued there; nothing is written.

    Raises:
        DataError: something else is there.
    """
    if out.exists() and not out.is_dir():
        raise DataError("the comparison's place is taken by a file; choose another with --out", file=out)
    if files.contents(out) and not (out / GRID).exists():
        raise DataError("this folder holds something else than a comparison; choose another with --out", file=out)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def tasks(grid: Grid, out: Path, registry: Registry) -> Iterator[Task]:
    """A task for each run."""
    for cell in grid.cells:
        recipe = grid.recipe_of(cell, registry).model_dump(mode="json")
        where = str((out / RUNS / cell.name).absolute())
        yield Task(cell.name, "augkit.lab.grid:run_one", {"recipe": recipe}, {"folder": where})


def run_one(recipe: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Begin or go on with one run, and measure what its policy did; its summary."""
    place = Path(folder)
    train(recipe, (), place, resume=bool(files.contents(place)))
    measure(place, default_registry())
    summary: dict[str, Any] = json.loads((place / files.SUMMARY).read_text(encoding="utf-8"))
    return summary
