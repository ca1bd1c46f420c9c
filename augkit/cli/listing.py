"""What there is: operators, palettes, policies, losses, samplers, choosers of images, stages, answers, recipes,
data sets, plugins."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from augkit.cli.output import Json, show_rows
from augkit.errors import AugkitError
from augkit.lab.named import ANSWER_FACTS, LOSS_FACTS, SAMPLER_FACTS, STAGE_FACTS, SUBSET_FACTS, options_of
from augkit.operators.base import Operator
from augkit.plugins import KINDS, registry
from augkit.registry import Registry


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    for verb in (operators, palettes, policies, losses, samplers, subsets, stages, answers, recipes, datasets, plugins):
        app.command()(verb)


def operators(as_json: Json = False) -> None:
    """List the operators with their ranges.

    A range goes from strength 0 to strength 1; +- means each image draws a random sign.

    \b
        augkit operators
        augkit operators --json | jq '.[] | select(.kind == "warp") | .name'
    """
    found = registry()
    if as_json:
        rows = [_operator_facts(item, found) for item in found.operators.values()]
    else:
        rows = [operator_row(item, found) for item in found.operators.values()]
    show_rows(rows, as_json=as_json, spare=("source", "options", "from", "kind"))


def operator_row(item: Operator, found: Registry) -> dict[str, Any]:
    """An operator as a person reads it."""
    return {
        "operator": item.name,
        "kind": item.kind,
        "range": range_words(item),
        "options": list(item.options),
        "what it does": item.summary,
        "source": item.source,
        "from": found.origins["operators", item.name],
    }


def range_words(item: Operator) -> str:
    """'+-0..30 degrees', '8..4 bits', or nothing."""
    if item.low is None or item.high is None:
        return ""
    return f"{'+-' if item.signed else ''}{item.low:g}..{item.high:g} {item.unit}".rstrip()


def _operator_facts(item: Operator, found: Registry) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind,
        "low": item.low,
        "high": item.high,
        "unit": item.unit,
        "signed": item.signed,
        "identity": item.identity,
        "value": item.value_name or None,
        "options": {name: option.default for name, option in item.options.items()},
        "summary": item.summary,
        "source": item.source,
        "from": found.origins["operators", item.name],
    }


def palettes(as_json: Json = False) -> None:
    """List the palettes, the named tables of operators that picks draw from, with their ranges.

    \b
        augkit palettes
        augkit palettes --json | jq '.[] | select(.palette == "timm15") | .operators'
    """
    found = registry()
    rows = [
        {
            "palette": name,
            "operators": list(entries) if as_json else "; ".join(map(_entry_words, entries)),
            "from": found.origins["palettes", name],
        }
        for name, entries in sorted(found.palettes.items())
    ]
    show_rows(rows, as_json=as_json, spare=("from",))


def _entry_words(entry: Any) -> str:
    """'hflip', or 'rotate +-0..30 (fill mean)'."""
    if isinstance(entry, str):
        return entry
    ((name, body),) = entry.items()
    options = dict(body or {})
    low, high, signed = (options.pop(key, None) for key in ("low", "high", "signed"))
    ends = "" if low is None or high is None else f" {'+-' if signed else ''}{low:.4g}..{high:.4g}"
    return f"{name}{ends}" + (f" ({', '.join(f'{key} {value}' for key, value in options.items())})" if options else "")


def policies(as_json: Json = False) -> None:
    """List the strategies that have a name.

    timm's strings, such as rand-m9-mstd0.5-inc1, stand for strategies too.

    \b
        augkit policies
        python -c "from augkit import Policy; print(Policy.load('trivialaugment'))"
    """
    from augkit.strategy.document import load_strategy

    found = registry()
    rows = []
    for name in sorted(found.strategies):
        row = {"policy": name, "title": "", "source": "", "needs": [], "from": found.origins["strategies", name]}
        try:
            strategy = load_strategy(name, found)
            row |= {"title": strategy.title, "source": strategy.source, "needs": sorted(strategy.needs)}
        except AugkitError as error:  # a plugin's document may be wrong; the others are still worth a list
            row["title"] = f"cannot be used: {str(error).splitlines()[0]}"
        rows.append(row)
    show_rows(rows, as_json=as_json, spare=("source", "from"))


def losses(as_json: Json = False) -> None:
    """List the losses a recipe can train with.

    \b
        augkit losses
        augkit train demo --set loss=balanced_softmax
    """
    show_rows(_functions("loss", "losses", LOSS_FACTS, as_json), as_json=as_json, spare=("from",))


def samplers(as_json: Json = False) -> None:
    """List the samplers: which share of an epoch each class gets.

    \b
        augkit samplers
        augkit train demo --set sampler=class_balanced
    """
    show_rows(_functions("sampler", "samplers", SAMPLER_FACTS, as_json), as_json=as_json, spare=("from",))


def subsets(as_json: Json = False) -> None:
    """List the choosers: which images of each class are trained on, or meet the policy.

    \b
        augkit subsets
        augkit train demo --set policy=trivialaugment --set 'subset={name: facility_location, share: 0.3}'
    """
    show_rows(_functions("chooser", "subsets", SUBSET_FACTS, as_json), as_json=as_json, spare=("from",))


def stages(as_json: Json = False) -> None:
    """List the stages that a recipe's training can have.

    \b
        augkit stages
        augkit train demo --set 'stages=[train, {finetune_head: {epochs: 5}}]'
    """
    show_rows(_functions("stage", "stages", STAGE_FACTS, as_json), as_json=as_json, spare=("from",))


def answers(as_json: Json = False) -> None:
    """List what may count as a right answer of the model, for policies that ask it.

    \b
        augkit answers
        augkit train cifar100-lt --set policy=cuda --set answer=prior_corrected
    """
    show_rows(_functions("answer", "answers", ANSWER_FACTS, as_json), as_json=as_json, spare=("from",))


def _functions(what: str, kind: str, facts: Sequence[str], as_json: bool) -> list[dict[str, Any]]:
    """A row for each function of a kind, with its options and their defaults."""
    found = registry()
    rows = []
    for name, thing in sorted(getattr(found, kind).items()):
        options = {option: _default(parameter) for option, parameter in options_of(thing, facts).items()}
        told = options if as_json else ", ".join(f"{option}: {default}" for option, default in options.items())
        row = {what: name, "what it does": first_line(thing), "options": told, "from": found.origins[kind, name]}
        rows.append(row)
    return rows


def _default(parameter: inspect.Parameter) -> Any:
    """An option's default as JSON can hold it; None for an option that must be given."""
    default = parameter.default
    if default is inspect.Parameter.empty:
        return None
    return default if isinstance(default, (bool, int, float, str, type(None))) else str(default)


def recipes(as_json: Json = False) -> None:
    """List the recipes: documents of whole training runs.

    \b
        augkit recipes
        augkit train cifar100-lt --set seed=1
    """
    found = registry()
    rows = [
        {"recipe": name, "file": _short(path), "from": found.origins["recipes", name]}
        for name, path in sorted(found.recipes.items())
    ]
    show_rows(rows, as_json=as_json)


def datasets(as_json: Json = False) -> None:
    """List the data sets that have a name, with what their folders hold.

    augkit fetches none of them; --json has the commands that do, called in that folder. Other sources, such as digits,
    a folder or a list of images, need no name.

    \b
        augkit datasets
        augkit datasets --json | jq -r '.[] | select(.dataset == "waterbirds") | .first, .fetch[]'
        augkit train imagefolder --set data.source=waterbirds --set data.root=DIR
    """
    from augkit.lab.datasets import DATA_SETS

    rows: list[dict[str, Any]] = []
    for name, known in sorted(DATA_SETS.items()):
        label, group = known.chooses or (None, None)
        row = {"dataset": name, "what it is": known.title, "data.root holds": list(known.needs)}
        told = {"first": known.first, "fetch": list(known.fetch)} if as_json else {}
        rows.append(row | {"label": label, "group": group} | told)
    show_rows(rows, as_json=as_json, spare=("group", "label", "data.root holds"))


def plugins(as_json: Json = False) -> None:
    """List who brings what, augkit itself included.

    A plugin that cannot be used is named with the reason.

    \b
        augkit plugins
        augkit plugin new augkit-haze
    """
    found = registry()
    rows: list[dict[str, Any]] = []
    for origin in dict.fromkeys(found.origins.values()):
        brings = {
            kind: sorted(name for k, name in found.origins if (k, found.origins[k, name]) == (kind, origin))
            for kind in KINDS
        }
        told = brings if as_json else [f"{len(brought)} {kind}" for kind, brought in brings.items() if brought]
        rows.append({"distribution": origin, "brings": told})
    if as_json:
        rows += [{"broken": sentence} for sentence in found.broken]
    show_rows(rows, as_json=as_json)


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (getattr(thing, "__doc__", None) or "").strip().partition("\n")[0]


def _short(path: Path) -> str:
    """Relative to here where that is shorter to read."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
