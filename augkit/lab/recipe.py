"""A recipe: a document that describes a whole training run, and its reading, overriding and hashing.

Base and policy run as one plan under one set of `image` settings, those of the policy's document. Of these `fill`
reaches into the base, where a `random_crop` shows it along the border. So that recipes which differ in `policy` differ
in nothing else, a policy with another fill than black is refused beside a base that has a warp other than a flip.
`resample` leaves alone what moves whole pixels (`random_crop`, flips, `cutout`); a warp of the base that reads between
pixels, such as `random_resized_crop`, reads as the policy's document says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from augkit.errors import DocumentError, nearest
from augkit.lab import named
from augkit.lab.datasets import DATA_SETS
from augkit.lab.recipe_parts import (
    AnswerRecipe,
    BaseRecipe,
    DataRecipe,
    LossRecipe,
    ModelRecipe,
    Named,
    OptimizerRecipe,
    Part,
    PolicyRecipe,
    SamplerRecipe,
    ScheduleRecipe,
    SourcesRecipe,
    StageRecipe,
    SubsetRecipe,
)
from augkit.registry import Registry
from augkit.strategy.document import is_path
from augkit.strategy.problems import Place, Problems, path_text, shown
from augkit.strategy.reading import Source, read_file, read_mapping, read_text

ENDINGS = (".yaml", ".yml", ".json")
SHORT = {
    "policy": "load",
    "sources": "folder",
    **dict.fromkeys(("model", "loss", "optimizer", "schedule", "sampler", "answer"), "name"),
}
"""Parts that a document may write as a single word, and the field that the word stands for."""
UNFITTED = ("lr", "weight_decay", "loss", "schedule", "sampler", "balance")
"""What a stage that is fitted has no use for."""
LATER_EPOCHS = 10
"""Of a stage after the first, unless it says."""


class Recipe(Part):
    """A whole training run. Everything that changes its result stands here."""

    later = ("answer", "compile", "executor", "sources", "subset")

    augkit: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = ""
    source: str = ""
    data: DataRecipe = DataRecipe()
    sources: SourcesRecipe | None = None
    base: BaseRecipe = BaseRecipe()
    model: ModelRecipe = ModelRecipe()
    loss: LossRecipe = LossRecipe()
    sampler: SamplerRecipe = SamplerRecipe()
    subset: SubsetRecipe | None = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    policy: PolicyRecipe = PolicyRecipe()
    answer: AnswerRecipe = AnswerRecipe()
    executor: Literal["auto", "batched", "opencv", "compiled"] = "auto"
    """What the policy's plans run on, see `Policy.load`."""
    stages: tuple[StageRecipe, ...] = Field((StageRecipe(),), min_length=1)
    epochs: int = Field(200, ge=1)
    """Of the first stage, and what the policy takes for the training's length."""
    batch_size: int = Field(128, ge=2)
    seed: int = Field(0, ge=0, lt=2**63)
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    """Whether training passes go through `torch.compile`, with CUDA graphs on a GPU; probes and tests never do."""
    device: str = "auto"
    """`auto` takes an accelerator if there is one."""
    threads: int | None = Field(None, ge=1)
    """Of the CPU; None leaves it to torch. Small networks are quickest on one; the last bit of sums depends on it."""
    tensorboard: bool = False
    test: bool = True
    """Whether the test set is read, at the end; a search that chooses by validation images leaves it alone."""

    @property
    def policy_name(self) -> str:
        """The policy's name, or the name of its file."""
        return Path(self.policy.load).stem if is_path(self.policy.load) else self.policy.load

    @property
    def stage_epochs(self) -> tuple[int, ...]:
        """How long each stage is."""
        said = [stage.epochs for stage in self.stages]
        return (said[0] or self.epochs, *(epochs or LATER_EPOCHS for epochs in said[1:]))

    @property
    def all_epochs(self) -> int:
        """Of all stages together."""
        return sum(self.stage_epochs)

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form: two recipes with one hash describe one run."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def load_recipe(source: str | Path | Mapping[str, Any], registry: Registry, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, put overrides in, and check it; operators, policy and model are checked where they are made.

    Args:
        source: a registered name, a path (it has a separator or ends in .yaml, .yml or .json), or a mapping.
        overrides: `"a.b=value"`, the value read as YAML; later ones win.

    Raises:
        DocumentError: with every fault found, its file, line and path.
    """
    read, folder = _find(source, registry)
    data = _checked_mapping(read)
    if folder is not None:
        _anchor(data, folder)
    given: dict[Place, str] = {}
    for override in overrides:
        given[_override(data, override)] = override
    data = _written_out(data)
    _anchor(data, Path.cwd())
    recipe = _validate(read, data, given)
    _check_named(recipe, registry, _Faults(read.file, read.lines, given=given))
    return _with_fitted(recipe, registry, _Faults(read.file, read.lines, given=given))


@dataclass
class _Faults(Problems):
    """What is wrong with a recipe; of what an override said it names the override, and no file."""

    given: Mapping[Place, str] = field(default_factory=dict)

    def add(self, place: Place, message: str, line: int | None = None) -> None:
        overridden = max((p for p in self.given if p == place[: len(p)]), key=len, default=None)  # what says most
        super().add(place, message, line)
        if overridden:
            where = "" if place == overridden else f"{path_text(place)}: "
            self.found[-1] = DocumentError(f"--set {self.given[overridden]}: {where}{message}")


def _check_named(recipe: Recipe, registry: Registry, problems: Problems) -> None:
    """Raise unless every loss, sampler, stage and kind of answer exists and takes the options it was given."""
    parts: list[tuple[Place, Named, Mapping[str, Any], str, Sequence[str]]] = [
        (("loss",), recipe.loss, registry.losses, "loss", named.LOSS_FACTS),
        (("sampler",), recipe.sampler, registry.samplers, "sampler", named.SAMPLER_FACTS),
        (("answer",), recipe.answer, registry.answers, "answer", named.ANSWER_FACTS),
    ]
    if recipe.subset is not None:
        parts.append((("subset",), recipe.subset, registry.subsets, "chooser", named.SUBSET_FACTS))
    for number, stage in enumerate(recipe.stages):
        place: Place = ("stages", number)
        parts.append((place, stage, registry.stages, "stage", named.STAGE_FACTS))
        if stage.loss is not None:
            parts.append(((*place, "loss"), stage.loss, registry.losses, "loss", named.LOSS_FACTS))
        if stage.sampler is not None:
            inner = (*place, "sampler")
            parts.append((inner, stage.sampler, registry.samplers, "sampler", named.SAMPLER_FACTS))
    for place, part, known, what, facts in parts:
        if part.name not in known:
            problems.unknown(place, part.name, known, what)
            continue
        fields = [name for name in type(part).model_fields if name != "name"]
        for option, message in named.faults(known[part.name], part.options, facts, fields):
            problems.add((*place, option), message)
    if problems.found:
        raise problems.error()


def _with_fitted(recipe: Recipe, registry: Registry, problems: Problems) -> Recipe:
    """The recipe with one epoch for a stage that is fitted, see `augkit.lab.stages`.

    Raises:
        DocumentError: something else than its options and `data` is said of it, or another stage follows.
    """
    stages = list(recipe.stages)
    for number, stage in enumerate(stages):
        if "embeddings" not in named.bind(registry.stages[stage.name], stage.options, named.STAGE_FACTS).wanted:
            continue
        unused = [name for name in UNFITTED if getattr(stage, name) is not None]
        unused += ["epochs"] * (stage.epochs not in (None, 1)) + ["mixing"] * (not stage.mixing)
        for name in unused:
            problems.add(("stages", number, name), f'"{stage.name}" is fitted and not trained: leave this out')
        if number + 1 < len(stages):
            problems.add(("stages", number), f'"{stage.name}" fits the last layer: no stage comes after it')
        stages[number] = stage.model_copy(update={"epochs": 1})
    if problems.found:
        raise problems.error()
    return recipe.model_copy(update={"stages": tuple(stages)})


def read_recipe(path: Path) -> Recipe:
    """A resolved recipe, as a run folder holds it."""
    read = read_file(path)
    return _validate(read, _checked_mapping(read), {})


def _find(source: str | Path | Mapping[str, Any], registry: Registry) -> tuple[Source, Path | None]:
    """The document, and the folder that its relative paths are meant from (None for a registered one)."""
    if isinstance(source, Mapping):
        return read_mapping(source), None
    name = str(source)
    if isinstance(source, Path) or "/" in name or "\\" in name or name.endswith(ENDINGS):
        return read_file(Path(name)), Path(name).parent.absolute()
    if name not in registry.recipes:
        raise DocumentError(f'there is no recipe "{name}".{nearest(name, registry.recipes)} A path ends in .yaml.')
    return read_file(registry.recipes[name]), None


def _checked_mapping(read: Source) -> dict[str, Any]:
    """The document's data with its single words written out."""
    if not isinstance(read.data, dict):
        raise DocumentError(f"a recipe is a mapping, not {shown(read.data)}", file=read.file, line=1)
    return _written_out(read.data)


def _written_out(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe, or a stage of it, with its single words as mappings; a stage as `{name: finetune_head, epochs: 10}`."""
    short: dict[str, Any] = {part: {key: data[part]} for part, key in SHORT.items() if isinstance(data.get(part), str)}
    if isinstance(data.get("stages"), list):
        short["stages"] = [_stage(item) for item in data["stages"]]
    return {**data, **short}


def _stage(item: Any) -> Any:
    """`train` or `{finetune_head: {epochs: 10}}` with its name as a field; what is wrong stays as it is."""
    if isinstance(item, str):
        return {"name": item}
    if isinstance(item, dict) and len(item) == 1 and "name" not in item:
        ((name, body),) = item.items()
        item = {"name": name, **body} if isinstance(body, dict) else {"name": name} if body is None else item
    return _written_out(item) if isinstance(item, dict) else item


def _override(data: dict[str, Any], override: str) -> Place:
    """Put one `a.b=value` into the document; returns its place."""
    path, equals, written = override.partition("=")
    place = tuple(path.strip().split("."))
    if not equals or not all(place):
        raise DocumentError(f'--set takes path=value, such as data.source=DIR, not "{override}"')
    try:
        value = read_text(written).data if written.strip() else ""
    except DocumentError as error:
        raise DocumentError(f"--set {override}: {error.message}") from error
    if len(place) == 1 and place[0] in SHORT and isinstance(value, str):
        value = {SHORT[place[0]]: value}
    part = data
    for key in place[:-1]:
        inner = part.setdefault(key, {})
        if not isinstance(inner, dict):
            raise DocumentError(f"--set {override}: {key} is {shown(inner)} and has no parts")
        part[key] = part = dict(inner)
    part[place[-1]] = value
    return place


def _anchor(data: dict[str, Any], folder: Path) -> None:
    """Make relative paths of a recipe, or of a stage of it, absolute where the folder holds what they name."""
    for stage in data["stages"] if isinstance(data.get("stages"), list) else ():
        if isinstance(stage, dict):
            _anchor(stage, folder)
    for part, key in (
        ("data", "source"),
        ("data", "root"),
        ("policy", "load"),
        ("model", "weights"),
        ("loss", "teacher"),
        ("sources", "folder"),
    ):
        value = data.get(part, {}).get(key) if isinstance(data.get(part), dict) else None
        if not isinstance(value, str) or value == "digits" or (key == "source" and value in DATA_SETS):
            continue
        is_name = part == "policy" and "/" not in value and not value.endswith(ENDINGS)
        if not is_name and (folder / Path(value).expanduser()).exists():
            data[part] = data[part] | {key: str(folder / Path(value).expanduser())}


def _validate(read: Source, data: dict[str, Any], given: Mapping[Place, str]) -> Recipe:
    try:
        return Recipe.model_validate_json(json.dumps(data))  # lists are tuples in JSON, and nothing else is converted
    except ValidationError as error:
        problems = _Faults(read.file, read.lines, given=given)
        for fault in error.errors():
            problems.add(fault["loc"], _sentence(fault, fault["loc"]))
        raise problems.error() from error


def _sentence(fault: Mapping[str, Any], place: Place) -> str:
    if fault["type"] == "extra_forbidden":
        name = str(place[-1])
        return f'there is no "{name}" here.{nearest(name, _fields(place[:-1]))}'
    if fault["type"] == "missing":
        return "this is missing"
    message = str(fault["msg"]).removeprefix("Value error, ").replace("Input should", "this should")
    message = message.replace("be an object", "be a mapping")
    return f"{message}, not {shown(fault['input'])}" if message.startswith("this") else message


def _fields(place: Place) -> list[str]:
    """What may stand at a place of a recipe."""
    model: Any = Recipe
    for part in place:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            inner = [kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")]
            model = inner[0] if inner else model
    return list(model.model_fields)
