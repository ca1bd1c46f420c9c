"""The format for weak and local models: one flat object of short choices, out of which a whole strategy is made.

The grammars of local servers hold enumerations but not the ranges of numbers, and a small model loses its way in a deep
schema or a long list. So numbers are enumerations, one question names a few operators, and state and rules are written
here. Every reply that follows the schema gives a valid document; most give one that learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from augkit.registry import Registry
from augkit_llm.rendering import RenderingError

OPERATORS = 8
"""How many operators a schema names unless told otherwise."""
LEAST, MOST = 2, 4
"""Operators of a reply."""
CHOICES: Mapping[str, tuple[Any, ...]] = {
    "count": (1, 2, 3),
    "probability": (0.25, 0.5, 0.75, 1),
    "strength": (0.1, 0.3, 0.5, 0.7, 0.9),
    "draw": ("fixed", "random"),
    "many": (0.2, 0.5, 0.8, 1),
    "medium": (0.2, 0.5, 0.8, 1),
    "few": (0.2, 0.5, 0.8, 1),
    "over_time": ("constant", "grows", "falls"),
    "learn": ("nothing", "levels", "operators"),
    "goal": (0.4, 0.6, 0.8),
    "mixing": ("none", "mixup", "cutmix"),
}
"""What each field but `operators` may be."""
_MEANINGS = {
    "operators": "the operators to draw from",
    "count": "how many operators an image gets",
    "probability": "share of images that get any",
    "strength": "how strong they are, 1 is the most",
    "draw": "fixed: always that strength; random: up to that strength",
    "many": "share of the probability for the classes with the most images",
    "medium": "the same for classes in the middle",
    "few": "the same for classes with the fewest images",
    "over_time": "whether the strength grows or falls during the training",
    "learn": "levels: a class gets stronger images while the model knows it; operators: helpful ones are drawn more",
    "goal": "share of right answers above which a level rises",
    "mixing": "whether images are mixed with each other afterwards",
}


def schema(registry: Registry, seed: int = 0, operators: int = OPERATORS) -> dict[str, Any]:
    """The JSON Schema of replies; `seed` chooses which operators it names.

    Raises:
        RenderingError: there are not enough operators.
    """
    names = sample(registry, seed, operators)
    fields: dict[str, Any] = {
        "operators": {
            "type": "array",
            "items": {"type": "string", "enum": list(names)},
            "minItems": LEAST,
            "maxItems": min(MOST, len(names)),
        }
    }
    for name, valid in CHOICES.items():
        fields[name] = {"type": "string" if isinstance(valid[0], str) else "number", "enum": list(valid)}
    described = {name: {**field, "description": _MEANINGS[name]} for name, field in fields.items()}
    return {
        "type": "object",
        "properties": described,
        "required": list(described),
        "additionalProperties": False,
    }


def sample(registry: Registry, seed: int, number: int = OPERATORS) -> tuple[str, ...]:
    """Some operators, in alphabetical order: the same for the same seed and registry."""
    names = sorted(set(registry.operators) - {"identity"})
    if min(number, len(names)) < LEAST:
        raise RenderingError(f"a reply names {LEAST} operators or more, and there are {min(number, len(names))}")
    chosen = np.random.default_rng(seed).choice(len(names), size=min(number, len(names)), replace=False)
    return tuple(names[index] for index in sorted(chosen))


def to_document(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy document that a reply stands for. An operator that is named twice counts once.

    Raises:
        RenderingError: the reply does not follow the schema, whichever operators that names.
    """
    chosen = {name: _choice(reply, name) for name in CHOICES}
    names = _operators(reply)
    document: dict[str, Any] = {
        "augkit": 1,
        "name": "-".join((*names, chosen["learn"]))[:100].rstrip("-"),
        "title": _title(names, chosen),
        "params": {name: chosen[name] for name in ("probability", "strength", "many", "medium", "few")},
        "palette": list(names),
        "state": {
            "place": {"axes": ["classes"], "init": "class_rank / max(1, max(class_rank, over=classes))"},
            "share": {"axes": ["classes"], "init": "where(place < 1/3, many, where(place < 2/3, medium, few))"},
        },
        "pipeline": [{"pick": _pick(chosen)}],
    }
    _learn(document, chosen)
    if chosen["mixing"] != "none":
        document["pipeline"].append({"batch": [{chosen["mixing"]: {"p": 0.5}}]})
    return document


def _pick(chosen: Mapping[str, Any]) -> dict[str, Any]:
    strength = {"fixed": "strength", "random": "uniform(0, strength)"}[chosen["draw"]]
    strength += {
        "constant": "",
        "grows": " * linear(0.2, 1, epoch / epochs)",
        "falls": " * linear(1, 0.2, epoch / epochs)",
    }[chosen["over_time"]]
    strength += " * level[y]" if chosen["learn"] == "levels" else ""
    pick: dict[str, Any] = {"p": "probability * share[y]", "count": chosen["count"], "replace": True}
    weights = {"weights": "weight[y]"} if chosen["learn"] == "operators" else {}
    return {**pick, **weights, "strength": strength}


def _learn(document: dict[str, Any], chosen: Mapping[str, Any]) -> None:
    """Add the state that learns, and its rules."""
    if chosen["learn"] == "levels":
        document["params"]["goal"] = chosen["goal"]
        document["state"]["level"] = {"axes": ["classes"], "init": 0.3, "clamp": [0.1, 1]}
        rise = "where(correct > goal * seen, level + 0.05, level - 0.05)"
        document["update"] = [{"at": "epoch_end", "set": {"level": rise}}]
    elif chosen["learn"] == "operators":
        document["state"]["weight"] = {"axes": ["classes", "ops"], "init": 1, "clamp": [0.1, 10]}
        document["state"]["before"] = {"axes": ["classes"], "init": 0}
        let = {"now": "correct / max(1, seen)", "blame": "used / max(1, sum(used, over=ops))"}
        better = "weight + blame * sign(now - before)"
        document["update"] = [{"at": "epoch_end", "let": let, "set": {"weight": better, "before": "now"}}]


def _title(names: tuple[str, ...], chosen: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{group} {chosen[group]:g}" for group in ("many", "medium", "few"))
    learned = {"nothing": "", "levels": "; levels follow the answers", "operators": "; weights follow the answers"}
    mixed = f"; then {chosen['mixing']}" if chosen["mixing"] != "none" else ""
    return (
        f"{chosen['count']} of {', '.join(names)}; share of classes by count: {shares}{learned[chosen['learn']]}{mixed}"
    )


def _operators(reply: Mapping[str, Any]) -> tuple[str, ...]:
    names = reply.get("operators")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RenderingError("expected a list of operators", path="operators")
    if not LEAST <= len(names) <= MOST:
        raise RenderingError(f"expected {LEAST} to {MOST} operators, found {len(names)}", path="operators")
    return tuple(dict.fromkeys(names))


def _choice(reply: Mapping[str, Any], name: str) -> Any:
    if not isinstance(reply, Mapping):
        raise RenderingError("expected an object")
    valid, value = CHOICES[name], reply.get(name)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and value in valid:
        return value
    raise RenderingError(f"expected one of {', '.join(map(str, valid))}", path=name)
