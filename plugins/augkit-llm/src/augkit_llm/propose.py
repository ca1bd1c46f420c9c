"""Strategies without a model: drawn at random, changed and crossed. A search of its own, and the control of one.

Everything is a function of the generator, the registry and the parents, keeps to the limits that a model's documents
keep to, and is a valid document that differs from its parents in what it does.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from augkit.errors import AugkitError, DocumentError
from augkit.registry import Registry
from augkit_llm.grammar import Document, Grammar, parts
from augkit_llm.limits import admit

TRIES = 40
"""Changes that are tried before another way is taken; nearly all first ones are valid."""
UNLIKE = 6
"""Random documents of which the one that is least like the parents is taken."""
_LITERAL = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_NUMBERS = ("params", "palette", "state", "pipeline", "update")


class ProposeError(AugkitError):
    """No document can be made."""


def random_document(rng: np.random.Generator, registry: Registry) -> Document:
    """A random strategy: a palette, steps, and in most of them state that follows the model's answers by class.

    Raises:
        ProposeError: the registry has too little to make one of.
    """
    grammar = Grammar(rng, registry)
    for _ in range(TRIES if len(grammar.operators) > 1 else 0):
        document = grammar.document(_name("random", rng))
        if _hash(document, registry) is not None:
            return document
    raise ProposeError("no valid strategy can be made of the operators that are registered")


def mutated(parent: Mapping[str, Any], rng: np.random.Generator, registry: Registry, operator: str) -> Document:
    """A parent with a change: `m1` in its structure, `m2` in its numbers, `m3` simpler than it was.

    Where there is nothing to change in that way (a strategy of one step cannot be simpler) it is changed in another.
    """
    ways: dict[str, Callable[[Document], Document | None]] = {
        "m1": lambda document: _restructured(document, rng, registry),
        "m2": lambda document: _renumbered(document, rng),
        "m3": lambda document: _simpler(document, rng, registry),
    }
    if operator not in ways:
        raise ProposeError(f'there is no mutation "{operator}"; there are m1, m2 and m3')
    return _changed([parent], rng, registry, operator, ways[operator], ways["m1"])


def crossed(
    parents: Sequence[Mapping[str, Any]], rng: np.random.Generator, registry: Registry, operator: str
) -> Document:
    """A strategy of several parents: `e1` unlike all of them, `e2` the idea of one in the form of another."""
    if operator not in ("e1", "e2"):
        raise ProposeError(f'there is no crossing "{operator}"; there are e1 and e2')
    ways = {"e1": lambda _: _unlike(parents, rng, registry), "e2": lambda _: _reformed(parents, rng, registry)}
    return _changed(parents, rng, registry, operator, ways[operator], ways["e1"])


def _changed(
    parents: Sequence[Mapping[str, Any]],
    rng: np.random.Generator,
    registry: Registry,
    operator: str,
    *ways: Callable[[Document], Document | None],
) -> Document:
    """The first valid result of the first way that does something other than every parent."""
    known = {_hash(parent, registry) for parent in parents}
    for way in ways:
        for _ in range(TRIES):
            document = way(_copy(parents[0])) if parents else way({})
            if document is None:
                break
            document = _labelled(document, parents, rng, operator)
            if _hash(document, registry) not in (None, *known):
                return document
    for _ in range(TRIES):
        document = random_document(rng, registry)
        if _hash(document, registry) not in known:
            return _labelled(document, parents, rng, operator)
    raise ProposeError("no strategy can be made that differs from its parents")


def _hash(document: Mapping[str, Any], registry: Registry) -> str | None:
    try:
        return admit(document, registry).hash
    except DocumentError:
        return None


def _copy(document: Mapping[str, Any]) -> Document:
    plain: Document = json.loads(json.dumps(document))
    return plain


def _labelled(
    document: Document, parents: Sequence[Mapping[str, Any]], rng: np.random.Generator, operator: str
) -> Document:
    """With a name and a title of its own: its parent's told of something else."""
    title = f"{operator} of {' and '.join(str(parent['name']) for parent in parents)}" if parents else operator
    rest = {key: value for key, value in document.items() if key not in ("augkit", "name", "title", "source")}
    return {"augkit": 1, "name": _name(operator, rng), "title": title, **rest}


def _name(operator: str, rng: np.random.Generator) -> str:
    return f"{operator}_{int(rng.integers(16**6)):06x}"


# -- other numbers ----------------------------------------------------------------------------------------------


def _renumbered(document: Document, rng: np.random.Generator) -> Document | None:
    """Some of the document's numbers, in expressions too, made a little larger or smaller."""
    places = [place for key in _NUMBERS for place in _numbers(document.get(key), (key,))]
    if not places:
        return None
    number = min(len(places), int(rng.integers(1, 4)))
    for index in rng.permutation(len(places))[:number]:
        place = places[int(index)]
        holder: Any = document
        for step in place[:-1]:
            holder = holder[step]
        value = holder[place[-1]]
        holder[place[-1]] = _text_moved(value, rng) if isinstance(value, str) else _moved(value, rng)
    return document


def _numbers(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Where numbers stand, alone or in expressions."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(inner, (*place, index))
    elif (isinstance(value, (int, float)) and not isinstance(value, bool)) or (
        isinstance(value, str) and _LITERAL.search(value)
    ):
        yield place


def _moved(value: float, rng: np.random.Generator) -> float:
    """A number near another one: whole numbers stay whole, shares stay shares."""
    if isinstance(value, int) and value != 0 and abs(value) < 1000 and (abs(value) > 1 or rng.random() < 0.5):
        return int(value + rng.choice([-1, 1]) * max(1, round(abs(value) * rng.uniform(0, 0.3))))
    near = value * float(rng.lognormal(0, 0.4)) if value else float(rng.choice([0.1, 0.2]))
    return round(min(near, 1.0), 4) if 0 <= value <= 1 else float(f"{near:.4g}")


def _text_moved(text: str, rng: np.random.Generator) -> str:
    found = list(_LITERAL.finditer(text))
    chosen = found[int(rng.integers(len(found)))]
    value = float(chosen[0]) if "." in chosen[0] else int(chosen[0])
    return f"{text[: chosen.start()]}{max(0, _moved(value, rng))}{text[chosen.end() :]}"


# -- another structure ------------------------------------------------------------------------------------------


def _restructured(document: Document, rng: np.random.Generator, registry: Registry) -> Document:
    """One part replaced, added or taken out; new ones come from a random document."""
    grammar = Grammar(rng, registry)
    donor = grammar.document("donor")
    change = grammar.one(("palette", "entry", "extra", "drop", "learn", "mix", "image"))
    pipeline = document.setdefault("pipeline", None) or []
    if change == "palette":
        document["palette"] = donor["palette"]
    elif change == "entry" and isinstance(document.get("palette"), list):
        entries = document["palette"]
        index = int(rng.integers(len(entries) + 1))
        entries[index : index + 1] = [grammar.entry(grammar.one(grammar.operators))]
    elif change == "drop" and len(pipeline) > 1:
        del pipeline[int(rng.integers(len(pipeline)))]
    elif change == "learn":
        return _grafted(document, donor)
    elif change == "mix":
        without = [step for step in pipeline if not _is(step, "batch")]
        pipeline = without if len(without) < len(pipeline) and grammar.happens(0.5) else [*without, grammar.batch({})]
    elif change == "image":
        document["image"] = grammar.image()
    else:
        made: Document = {"state": {}}
        pipeline.insert(0, grammar.extra(made))
        document["state"] = {**(document.get("state") or {}), **made["state"]}
    document["pipeline"] = pipeline
    return _tidy(document)


def _grafted(document: Document, donor: Document) -> Document:
    """The steps of a document around the pick, the state and the rules of another one."""
    kept = [step for step in document["pipeline"] or [] if not _is(step, "pick", "branches")]
    after = [step for step in kept if _is(step, "batch")]
    drawn = [step for step in donor["pipeline"] if _is(step, "pick", "branches")]
    return _tidy(
        {
            **document,
            "palette": document.get("palette") or donor["palette"],
            "params": {**(document.get("params") or {}), **donor.get("params", {})},
            "state": {**(document.get("state") or {}), **donor.get("state", {})},
            "pipeline": [step for step in kept if step not in after] + drawn + after,
            "update": donor.get("update", []),
        }
    )


def _is(step: Any, *kinds: str) -> bool:
    return step in kinds or (isinstance(step, Mapping) and next(iter(step), None) in kinds)


# -- simpler ----------------------------------------------------------------------------------------------------


def _simpler(document: Document, rng: np.random.Generator, registry: Registry) -> Document | None:
    """A document with one part less, of those that leave it valid and doing something."""
    known = _hash(document, registry)
    without = list(_deletions(document))
    for index in rng.permutation(len(without)):
        made = _tidy(without[int(index)]())
        if made.get("pipeline") and _hash(made, registry) not in (None, known):
            return made
    return None


def _deletions(document: Document) -> Iterator[Callable[[], Document]]:
    """Every document that lacks one step, rule, alternative, field of a step, clamp, operator or setting."""
    fields = {
        "p",
        "each_p",
        "weights",
        "order",
        "replace",
        "strength",
        "count",
        "clamp",
        "when",
        "dtype",
        "low",
        "high",
    }

    def walk(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        if isinstance(value, list):
            yield from ((*place, index) for index in range(len(value)) if len(value) > 1 or place == ("update",))
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            if key in fields:
                yield (*place, key)
            yield from walk(inner, (*place, key))

    def lacking(place: tuple[Any, ...]) -> Document:
        made = copy.deepcopy(document)
        holder: Any = made
        for step in place[:-1]:
            holder = holder[step]
        del holder[place[-1]]
        return made

    places = [place for key in ("palette", "state", "pipeline", "update") for place in walk(document.get(key), (key,))]
    places += [("image",)] if document.get("image") else []
    for place in places:
        yield lambda place=place: lacking(place)  # type: ignore[misc]


def _tidy(document: Document) -> Document:
    """The same without params and state that nothing reads any more, and without empty parts."""
    made = {key: value for key, value in document.items() if value not in (None, {}, []) or key == "pipeline"}
    for _ in range(len(made.get("state") or {}) + 1):
        read = parts({**made, "state": list((made.get("state") or {}).values()), "update": _expressions(made)})
        state = {name: spec for name, spec in (made.get("state") or {}).items() if name in read}
        if state == (made.get("state") or {}):
            break
        made["state"] = state
        made["update"] = [_still(rule, state) for rule in made.get("update") or [] if _still(rule, state)["set"]]
    read = parts(made)
    made["params"] = {name: value for name, value in (made.get("params") or {}).items() if name in read}
    return {key: value for key, value in made.items() if value not in ({}, []) or key == "pipeline"}


def _expressions(document: Document) -> list[Any]:
    """What rules read: not the names that they set, so a state that only feeds itself counts as read."""
    rules = document.get("update") or []
    return [[rule.get("when"), *(rule.get("let") or {}).values(), *rule["set"].values()] for rule in rules]


def _still(rule: Document, state: Mapping[str, Any]) -> Document:
    return {**rule, "set": {name: value for name, value in rule["set"].items() if name in state}}


# -- of several parents -----------------------------------------------------------------------------------------


def _unlike(parents: Sequence[Mapping[str, Any]], rng: np.random.Generator, registry: Registry) -> Document:
    """Of several random documents the one that shares the fewest words with any parent."""
    known = [parts(parent) for parent in parents]

    def likeness(document: Document) -> float:
        own = parts(document)
        return max((len(own & other) / len(own | other) for other in known), default=0.0)

    return min((random_document(rng, registry) for _ in range(UNLIKE)), key=likeness)


def _reformed(parents: Sequence[Mapping[str, Any]], rng: np.random.Generator, registry: Registry) -> Document:
    """What one parent learns and how it picks, with the palette, the settings and the other steps of another one."""
    order = [_copy(parents[int(index)]) for index in rng.permutation(len(parents))]
    idea = order[0] if order else random_document(rng, registry)
    form = order[1] if len(order) > 1 else random_document(rng, registry)
    if "palette" not in idea and not any(_is(step, "pick", "branches") for step in idea["pipeline"] or []):
        idea, form = form, idea
    made = _grafted({**form, "pipeline": list(form.get("pipeline") or [])}, _whole(idea))
    made["palette"] = form.get("palette") or idea.get("palette") or Grammar(rng, registry).palette()
    return _renumbered(_tidy(made), rng) or made


def _whole(document: Document) -> Document:
    """A parent as a donor: with every part that a graft looks for."""
    palette = document.get("palette") or ["identity"]
    return {"params": {}, "state": {}, "update": [], **_tidy(document), "palette": palette}
