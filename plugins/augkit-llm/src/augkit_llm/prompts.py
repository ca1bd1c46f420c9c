"""Prompts, made from Jinja templates that a user may override: the format, the palette, the data, what was measured.

A template of the user's folder stands in for the one of the same name in `augkit_llm/prompts/`; so do its examples,
`example_*.yaml`. Templates run in a sandbox, and all that comes from data goes through the filter `quoted`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import DocumentError
from augkit.operators.base import Operator
from augkit.operators.external import is_external
from augkit.registry import Registry
from augkit.strategy.build import SIGNALS
from augkit.strategy.document import load_strategy
from augkit.strategy.functions import FUNCTIONS
from augkit.strategy.reading import read_file
from augkit_llm.limits import limit_broken
from augkit_llm.models import Message, ModelError, Rendering
from augkit_llm.rendering import RenderingError, small, strict
from augkit_llm.request import DataFacts, Parent, Request

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "prompts"
OPERATORS = ("initial", "e1", "e2", "m1", "m2", "m3")
TEMPLATES = (*OPERATORS, "system", "format", "format_short", "task", "repair")
MOST_CLASSES = 60
"""Classes that a prompt names; of more, the largest and the smallest half of so many."""
NAME_LENGTH = 60
_MARK = re.compile(r"<(?=[\s/]*data)", re.IGNORECASE)
_GROUPS = (("many", 101, math.inf), ("medium", 20, 100), ("few", 0, 19))
_MEANINGS = {
    "epoch": "the epoch under way, from 0",
    "epochs": "how many there will be",
    "step": "batches so far",
    "class_count": "training images of the class",
    "class_rank": "its place by count, 0 the most frequent",
    "correct": "right answers to training images in the last epoch",
    "seen": "training images answered in the last epoch",
    "loss": "sum of their losses",
    "val_correct": "right answers to held-out images",
    "val_seen": "held-out images answered",
    "used": "how often an operator was applied in the last epoch",
    "strength_used": "the sum of its strengths",
}


def question(
    request: Request, rendering: Rendering, registry: Registry, *, sees: bool = False, folder: Path | None = None
) -> tuple[Message, ...]:
    """What a model is asked first.

    Args:
        request: what is wanted.
        rendering: the form that the reply is to have.
        registry: what the strategy may use, see `narrowed`.
        sees: whether the model takes images; the contact sheet is sent then.
        folder: templates that stand in for those of the package.

    Raises:
        ModelError: there is no such operator, or a template cannot be used.
    """
    if request.operator not in OPERATORS:
        raise ModelError(f'there is no prompt "{request.operator}"; valid: {", ".join(OPERATORS)}')
    if request.operator != "initial" and not request.parents:
        raise ModelError(f"the prompt {request.operator} is about strategies that were measured, and none is given")
    sheet = request.data.sheet if request.data is not None and sees else None
    words = {
        "rendering": rendering,
        "wish": request.wish,
        "operator": request.operator,
        "data": facts(request.data) if request.data is not None else None,
        "sheet": sheet is not None,
        "sees": sees,
        "parents": [_parent(parent, rendering) for parent in request.parents],
        "failures": list(request.failures),
        "operators": _operators(registry, request, rendering),
    }
    if rendering != "small":
        words |= _format(registry, request, rendering, folder)
    environment = _environment(folder)
    system = _render(environment, "system", words)
    task = _render(environment, request.operator, words)
    return Message("system", system), Message("user", task, (sheet,) if sheet else ())


def repair(errors: Sequence[str], rendering: Rendering, folder: Path | None = None) -> Message:
    """What a model is told of a document that cannot be used."""
    return Message("user", _render(_environment(folder), "repair", {"errors": list(errors), "rendering": rendering}))


def narrowed(registry: Registry, allowed: Sequence[str]) -> Registry:
    """With the allowed operators alone, and the palettes made of them, where any operator is named among the allowed.

    Other strategies then go too, since what they use is not looked into.
    """
    operators = {name: one for name, one in registry.operators.items() if name in allowed}
    if not operators:
        return registry
    palettes = {name: found for name, found in registry.palettes.items() if set(map(_named, found)) <= set(operators)}
    return replace(registry, operators=operators, palettes=palettes, strategies={})


def admitted(registry: Registry) -> Registry:
    """With what a search trains alone, so that no model is offered what would be refused (see `limits`)."""
    operators = {name: one for name, one in registry.operators.items() if not is_external(name)}
    strategies = {name: path for name, path in registry.strategies.items() if _admits(name, registry)}
    return replace(registry, operators=operators, strategies=strategies)


def _admits(name: str, registry: Registry) -> bool:
    try:
        return limit_broken(load_strategy(name, registry)) is None
    except DocumentError:  # a plugin's, which uses what is not installed
        return False


def menu(request: Request, registry: Registry) -> Registry:
    """With the few operators that a small schema names: those of the parents first, unless it is to be unlike them."""
    parents = [name for parent in request.parents for name in _names(parent.document)]
    own = [name for name in dict.fromkeys(parents) if name in registry.operators and name != "identity"]
    if request.operator == "e1":
        others = {name: one for name, one in registry.operators.items() if name not in own}
        registry, own = replace(registry, operators=others) if len(others) > small.OPERATORS else registry, []
    chosen = dict.fromkeys([*own, *small.sample(registry, request.seed)])
    few = list(chosen)[: small.OPERATORS]
    return replace(registry, operators={name: registry.operators[name] for name in few})


def signals(registry: Registry, allowed: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The signals that a strategy may read, with their axes: all of them where none is named among the allowed."""
    known = {**SIGNALS, **dict.fromkeys(registry.signals, ("classes",))}
    return {name: axes for name, axes in known.items() if name in allowed} or known


def facts(data: DataFacts) -> dict[str, Any]:
    """What a prompt says of a data set, as plain values; names are cut short."""
    counts = data.counts
    order = sorted(range(len(counts)), key=lambda label: -counts[label])
    told = order if len(order) <= MOST_CLASSES else [*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]]
    names = [data.names[label][:NAME_LENGTH] for label in told] if data.names is not None else None
    found: dict[str, Any] = {"title": data.title[:200]} if data.title else {}
    found |= {
        "classes": len(counts),
        "training images": sum(counts),
        "image size": f"{data.image_size} x {data.image_size} pixels",
        "largest class": max(counts),
        "smallest class": min(counts),
        "imbalance": round(max(counts) / max(1, min(counts)), 1),
        "classes by group": {group: sum(low <= n <= high for n in counts) for group, low, high in _GROUPS},
    }
    each = [counts[label] for label in told]
    said = "images by class" if len(told) == len(counts) else "images by class, the largest and the smallest"
    found[said] = [list(pair) for pair in zip(names, each, strict=True)] if names is not None else each
    return found


def quoted(value: Any) -> str:
    """JSON in which nothing ends a block of data: what begins like its marks is escaped, and what is not printed."""
    text = json.dumps(_rounded(value), ensure_ascii=False)
    escaped = _MARK.sub("\\\\u003c", text)
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in escaped)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    return value


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _parent(parent: Parent, rendering: Rendering) -> dict[str, Any]:
    if rendering == "small":
        shown = quoted({"operators": _names(parent.document), "what it does": parent.document.get("title", "")})
    else:
        shown = _in_form(parent.document, rendering)
    return {
        "shown": shown,
        "reward": parent.reward,
        "standard_error": parent.standard_error,
        "groups": dict(parent.groups),
        "intensity": dict(parent.intensity),
        "document": dict(parent.document),
    }


def _in_form(document: Mapping[str, Any], rendering: Rendering) -> str:
    """A document as a reply would give it; what the strict form leaves out is shown as it stands."""
    if rendering == "strict":
        try:
            return quoted(strict.from_document(document))
        except RenderingError:
            pass
    return quoted(document)


def _names(document: Mapping[str, Any]) -> list[str]:
    """The operators of a document's own palette; none of a table by name."""
    palette = document.get("palette")
    return [_named(entry) for entry in palette] if isinstance(palette, list) else []


def _named(entry: Any) -> str:
    return str(entry if isinstance(entry, str) else next(iter(entry)))


def _operators(registry: Registry, request: Request, rendering: Rendering) -> list[dict[str, str]]:
    found = menu(request, registry) if rendering == "small" else registry
    return [_operator(one) for _, one in sorted(found.operators.items())]


def _operator(one: Operator) -> dict[str, str]:
    return {"name": one.name, "range": _range(one), "summary": one.summary, "options": ", ".join(one.options)}


def _range(one: Operator) -> str:
    if one.low is None or one.high is None:
        return ""
    return f"{'+-' if one.signed else ''}{one.low:g}..{one.high:g} {one.unit}".rstrip()


def _format(registry: Registry, request: Request, rendering: Rendering, folder: Path | None) -> dict[str, Any]:
    """What only the long description of the format needs."""
    found = [read_file(path).data for path in _examples(folder)]
    told = signals(registry, request.allowed).items()
    return {
        "palettes": [{"name": name, "operators": list(map(_named, one))} for name, one in registry.palettes.items()],
        "strategies": [_strategy(path) for path in registry.strategies.values()],
        "signals": [
            {"name": name, "axes": axes, "meaning": _MEANINGS.get(name, "counted by a plugin")} for name, axes in told
        ],
        "functions": [{"signature": one.signature, "meaning": one.meaning} for one in FUNCTIONS.values()],
        "examples": [_in_form(one, rendering) for one in found],
    }


@lru_cache(maxsize=256)
def _strategy(path: Path) -> dict[str, str]:
    return {"name": path.stem, "title": str(read_file(path).data.get("title", ""))}


def _examples(folder: Path | None) -> list[Path]:
    own = sorted(folder.glob("example_*.yaml")) if folder is not None else []
    return own or sorted(FOLDER.glob("example_*.yaml"))


def _environment(folder: Path | None) -> Environment:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    if folder is not None and not folder.is_dir():
        raise ModelError(f"there is no folder {folder} with prompts; the package's own are in {FOLDER}")
    names = [f"{name}.j2" for name in TEMPLATES]
    if folder is not None and not any(path.name in names or path.match("example_*.yaml") for path in folder.iterdir()):
        raise ModelError(f"{folder} has no prompt; valid names: {', '.join(names)}, example_*.yaml")
    folders = [FOLDER] if folder is None else [folder, FOLDER]
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(folders), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"quoted": quoted, "figure": _figure}
    return environment


def _render(environment: Environment, name: str, words: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        text = environment.get_template(f"{name}.j2").render(words)
    except TemplateError as error:
        where = f"{getattr(error, 'filename', None) or name + '.j2'}"
        line = getattr(error, "lineno", None)
        raise ModelError(f"{where}{f':{line}' if line else ''}: the prompt cannot be made: {error}") from error
    lines = [line.rstrip() for line in text.strip().splitlines()]
    kept = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    return "\n".join(kept) + "\n"
