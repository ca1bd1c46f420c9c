"""The strategy: frozen models of what a document says, after it was read, resolved and checked.

Documents are read by `document.load_strategy`. Field descriptions also make the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, PrivateAttr
from pydantic_core import PydanticCustomError, core_schema

from augkit.errors import ExpressionError
from augkit.operators.base import Choice as Choice_
from augkit.strategy.expression import Node, Number, parse, substitute, text
from augkit.strategy.folding import fold
from augkit.strategy.typing import Typed

STATE_AXES = ("samples", "groups", "classes", "ops")


@dataclass(frozen=True)
class Expr:
    """An expression of a document: its text and its tree."""

    text: str
    node: Node

    @classmethod
    def of(cls, source: Any) -> Expr:
        """Read a number, a truth value or text.

        Raises:
            ExpressionError: it is no expression.
        """
        node = parse(source)
        fold(node)  # a constant that is out of bounds is an error wherever it stands
        return cls(source if isinstance(source, str) else text(node), node)

    def canonical(self, constants: Mapping[str, float]) -> str | float:
        """The same for all expressions that differ by spelling only: constants put in and worked out."""
        node = fold(substitute(self.node, constants))
        return node.value if isinstance(node, Number) else text(node)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def validate(value: Any) -> Expr:
            if isinstance(value, Expr):
                return value
            try:
                return cls.of(value)
            except ExpressionError as error:
                raise PydanticCustomError("expression", "{reason}", {"reason": located(error, value)}) from error

        return core_schema.no_info_plain_validator_function(validate)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": ["number", "string", "boolean"]}


def located(error: ExpressionError, source: Any) -> str:
    """The message of an expression's error with its column and the text around it."""
    if error.column is None or not isinstance(source, str):
        return error.message
    start = max(error.column - 20, 0)
    around = source[start : error.column + 40]
    return f"{error.message} (column {error.column + 1} of `{around}`)"


def _expr(source: str | int | float) -> Expr:
    return Expr.of(source)


class Model(BaseModel):
    """Frozen; unknown fields are errors; nothing is converted silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class _Choice:
    """Lets pydantic hold a `Choice` as it is."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(Choice_)


Choice = Annotated[Choice_, _Choice]


class Image(Model):
    """How pixels are treated."""

    resample: Literal["nearest", "bilinear"] = Field("bilinear", description="how warps read between pixels")
    fill: Literal["black", "mean", "reflect"] = Field("black", description="what warps show beyond the image's edge")
    exact: bool = Field(False, description="one pass an operator, rounded after each, as Pillow would")


class State(Model):
    """A learned value with named axes."""

    axes: tuple[Literal["samples", "groups", "classes", "ops"], ...] = Field(
        (), description="one number for each element of these axes; [] is a single number"
    )
    init: Expr = Field(_expr(0), description="value before the first epoch")
    clamp: tuple[Expr | None, Expr | None] | None = Field(
        None, description="[low, high] that no value leaves; null for an open end"
    )
    dtype: Literal["float", "int"] = Field("float", description="`int` rounds every value")


class OperatorStep(Model):
    """One operator by name."""

    choice: Choice
    p: Expr = Field(_expr(1), description="probability for each image")
    strength: Expr | None = Field(None, description="0..1, mapped to the operator's range; uniform() by default")
    value: Expr | None = Field(None, description="the value in the operator's own unit, instead of a strength")


class PickStep(Model):
    """Draws operators from the palette for each image."""

    p: Expr = Field(_expr(1), description="probability of the whole pick, for each image")
    count: Expr = Field(_expr(1), description="how many operators to draw, at most 64")
    each_p: Expr = Field(_expr(1), description="probability of each operator that was drawn")
    weights: Expr | None = Field(None, description="relative weight of each operator; alike by default")
    replace: bool = Field(False, description="whether an operator may be drawn twice for an image")
    order: Literal["drawn", "palette"] = Field("drawn", description="in which order the drawn operators run")
    strength: Expr = Field(_expr("uniform()"), description="0..1, for each operator that was drawn")


class BranchesStep(Model):
    """Draws several chains of operators for each image, and blends their results and the image (AugMix)."""

    p: Expr = Field(_expr(1), description="probability for each image")
    width: Expr = Field(_expr(3), description="how many chains, one whole number from 1 to 16")
    depth: Expr = Field(_expr("randint(1, 4)"), description="how many operators to draw for each chain")
    replace: bool = Field(True, description="whether an operator may be drawn twice for a chain")
    strength: Expr = Field(_expr("uniform()"), description="0..1, for each operator that was drawn")
    weights: Expr = Field(
        _expr("dirichlet(1)"), description="relative weight of each chain in the blend; `dirichlet` runs over branches"
    )
    blend: Expr = Field(
        _expr("beta(1, 1)"),
        description="0..1, the share of the blended chains; the rest is the image itself. It is m in timm and in the"
        " authors' code; in the paper's text m is the image's share",
    )


class Alternative(Model):
    """One way a `one_of` can go."""

    weight: Expr = Field(_expr(1), description="relative weight of this alternative")
    steps: tuple[Step, ...] = Field((), description="what runs, in order")


class OneOfStep(Model):
    """Draws one of several lists of steps for each image."""

    alternatives: tuple[Alternative, ...]


class UseStep(Model):
    """Runs another strategy, with its own palette and state. Image settings are those of the outermost document."""

    strategy: Strategy
    p: Expr = Field(_expr(1), description="probability for each image")


class MixStep(Model):
    """Mixes each image with a partner."""

    kind: Literal["mixup", "cutmix", "resizemix", "fmix", "mosaic"]
    p: Expr = Field(_expr(1), description="probability for each image")
    alpha: Expr = Field(_expr(1), description="both parameters of the beta distribution of the image's share; 0 is off")
    share: Expr | None = Field(None, description="the image's own share, 0..1, instead of one drawn by alpha")
    label: Expr | None = Field(
        None, description="0..1, the weight of the image's own label; `kept`, what shows of the image, unless said"
    )
    partner: Literal["batch", "pool"] = Field("batch", description="where partners come from")
    across: Literal["synthetic", "group"] | None = Field(
        None,
        description="partners only from the other side: `synthetic` pairs synthetic images with real ones, `group`"
        " images of different groups; an image without such a partner in its batch stays as it is",
    )
    weights: Expr | None = Field(
        None, description="relative weight of an image of each class as a partner; alike by default"
    )


class MixAlternative(Model):
    """One way a mixing `one_of` can go."""

    weight: Expr = Field(_expr(1), description="relative weight of this alternative")
    mix: MixStep


class OneOfMix(Model):
    """Draws one of several mixing steps for each image."""

    alternatives: tuple[MixAlternative, ...]


class BatchStep(Model):
    """Mixing steps, which come last."""

    mixes: tuple[MixStep | OneOfMix, ...]


Step = OperatorStep | PickStep | OneOfStep | BranchesStep | UseStep | BatchStep


class View(Model):
    """One of several results for each image, which goes on from what the pipeline left."""

    times: int = Field(1, description="how many views of this kind, each with its own draws")
    steps: tuple[Step, ...] = Field((), description="what happens to the image in this view, in order")


class Probe(Model):
    """Counts right answers by class and level: to images made for it, or to training images (then `level` is said)."""

    upto: Expr = Field(description="the highest level of each class; levels begin at 0")
    samples: Expr | None = Field(None, description="images for each class and `level`, drawn with replacement")
    level: Expr | None = Field(
        None, description="counts training answers instead of asking the model: the level of each training image"
    )
    steps: tuple[Step, ...] = Field(
        (), description="what happens to a probe's image instead of the pipeline; `level` is its level"
    )


class Rule(Model):
    """Changes state at an epoch's start or end. All `set` entries read the old values."""

    at: Literal["epoch_start", "epoch_end"] = Field(description="when the rule runs")
    when: Expr | None = Field(None, description="the rule runs only if this is not 0")
    let: dict[str, Expr] = Field({}, description="names for this rule alone, in order")
    set: dict[str, Expr] = Field({}, description="new values of state, by name")


class Strategy(Model):
    """A document that was read, resolved and checked. Made by `load_strategy`."""

    augkit: Literal[1] = Field(1, description="version of the document format")
    name: str = Field(description="what others call it")
    title: str = Field("", description="one line for people")
    source: str = Field("", description="paper and year, or where it comes from")
    params: dict[str, bool | int | float] = Field(
        {}, description="numbers that expressions may name and a user may override"
    )
    palette: str | tuple[Any, ...] | None = Field(None, description="the operators a pick draws from, in order")
    image: Image = Field(Image(), description="how pixels are treated")
    state: dict[str, State] = Field(
        {}, description="learned values, in an order in which each `init` finds what it reads"
    )
    pipeline: tuple[Step, ...] = Field((), description="what happens to each image, in order")
    update: tuple[Rule, ...] = Field((), description="how state changes between epochs")
    probes: dict[str, Probe] = Field({}, description="what asks how well the model knows each class, by name")
    max_probe_images: int = Field(100_000, description="the most images that all probes may show the model in an epoch")
    views: dict[str, View] = Field({}, description="several results for each image, by name; each goes on from there")

    _facts: Facts = PrivateAttr()

    @property
    def choices(self) -> tuple[Choice_, ...]:
        """The palette: operators with their ranges and options, in the order of the `ops` axis."""
        return self._facts.choices

    @property
    def typed(self) -> Mapping[str, Typed]:
        """Every checked expression by its path: `pipeline[0].pick.p`, `state.weight.init`, `update[1].set.weight`.

        Positions are those of `pipeline` here, where macros stand expanded; an alternative's steps are
        `pipeline[0].one_of[2].steps[0]`, an operator's value `pipeline[0].rotate.value`, a mix
        `pipeline[1].batch[0].mixup.p`, a view's step `views.strong[0].rotate.p`, a clamp `state.weight.clamp.low`, a
        probe's `probes.answers.upto` and its steps `probes.answers[0].pick.count`.
        """
        return self._facts.typed

    @property
    def needs(self) -> frozenset[str]:
        """What must be given to run it, out of class_counts, epochs, index, group, is_synthetic, pool, model, observe,
        val."""
        return self._facts.needs

    @property
    def reads(self) -> frozenset[str]:
        """Every name its expressions and those of the strategies it uses read: signals, state, `y`, `index`, `group`,
        `is_synthetic`."""
        return self._facts.reads

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal: equal for documents that do the same for the same reason."""
        return self._facts.hash

    @property
    def file(self) -> str | None:
        """Where it was read from."""
        return self._facts.file

    @property
    def document(self) -> dict[str, Any]:
        """The document as plain data, with params and image settings as they are in force; paths that it uses are
        relative to the folder of `file`."""
        return {**self._facts.document, "params": dict(self.params), "image": self.image.model_dump()}

    @property
    def mixes(self) -> bool:
        """Whether it mixes images, so that targets become dense."""
        return any(isinstance(s, BatchStep) or (isinstance(s, UseStep) and s.strategy.mixes) for s in self.pipeline)

    @property
    def lists(self) -> dict[str, tuple[Step, ...]]:
        """Every list of steps by its path: `pipeline`, `views.NAME` for each view, `probes.NAME` for each probe."""
        return step_lists(self.pipeline, self.views, self.probes)

    @property
    def view_names(self) -> tuple[str, ...]:
        """Names of the results for each image, in order, those of a strategy in use included; none without views."""
        own = [(name, number, view.times) for name, view in self.views.items() for number in range(view.times)]
        used = [name for s in self.pipeline if isinstance(s, UseStep) for name in s.strategy.view_names]
        return (*used, *(name if times == 1 else f"{name} {number + 1}" for name, number, times in own))


def step_lists(
    pipeline: tuple[Step, ...], views: Mapping[str, View], probes: Mapping[str, Probe]
) -> dict[str, tuple[Step, ...]]:
    """See `Strategy.lists`."""
    beside = {f"views.{name}": view.steps for name, view in views.items()}
    beside |= {f"probes.{name}": probe.steps for name, probe in probes.items() if probe.level is None}
    return {"pipeline": pipeline, **beside}


@dataclass(frozen=True)
class Facts:
    """What is known of a strategy beyond what its document says."""

    choices: tuple[Choice_, ...]
    typed: Mapping[str, Typed]
    needs: frozenset[str]
    reads: frozenset[str]
    hash: str
    file: str | None
    document: Mapping[str, Any]


Probe.model_rebuild()
Alternative.model_rebuild()
OneOfStep.model_rebuild()
UseStep.model_rebuild()
Strategy.model_rebuild()
