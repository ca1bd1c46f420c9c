"""Plain data to models: every part of a document is read even when another is wrong, so that all faults are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from augkit.registry import Registry
from augkit.strategy.draft import Context, Draft, fill
from augkit.strategy.expression import AXES, OF_AN_IMAGE, RESULTS, WORDS
from augkit.strategy.functions import FUNCTIONS
from augkit.strategy.labels import KEPT
from augkit.strategy.model import STATE_AXES, Image, Rule, State
from augkit.strategy.probes import LEVEL, read_cap, read_probe
from augkit.strategy.problems import Place, Problems, hint, shown
from augkit.strategy.steps import Steps

TOP = (
    "augkit",
    "name",
    "title",
    "source",
    "params",
    "palette",
    "image",
    "state",
    "pipeline",
    "update",
    "probes",
    "max_probe_images",
    "views",
)
MOST = {"params": 64, "state": 64, "pipeline": 512, "update": 64, "views": 16, "probes": 8}
MAX_CHARACTERS = 40_000
SIGNALS: dict[str, tuple[str, ...]] = {
    "epoch": (),
    "epochs": (),
    "step": (),
    "class_count": ("classes",),
    "class_rank": ("classes",),
    "correct": ("classes",),
    "seen": ("classes",),
    "loss": ("classes",),
    "val_correct": ("classes",),
    "val_seen": ("classes",),
    "used": ("classes", "ops"),
    "strength_used": ("classes", "ops"),
}
"""Read-only names and their axes; plugins add more, each with the axis classes."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")
_NAME_RULE = "a name has 1 to 60 ASCII letters A-Z a-z, digits 0-9 and _, and begins with a letter"
_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TITLE_RULE = "a name has 1 to 100 ASCII letters A-Z a-z, digits 0-9, _ - and ., and begins with a letter or digit"


def reserved(registry: Registry) -> set[str]:
    """Names that no document may give to something of its own."""
    return {*AXES, *OF_AN_IMAGE, KEPT, *WORDS, *SIGNALS, *FUNCTIONS, *registry.signals}


class Builder:
    """Reads the parts of one document into a `Draft`."""

    def __init__(self, context: Context, params: Mapping[str, Any], image: Mapping[str, Any]) -> None:
        self.context, self.problems = context, context.problems
        self.overrides, self.image_overrides = params, image
        self.reserved = reserved(context.registry)
        self.draft = Draft()

    def build(self, data: Any) -> Draft:
        """Read a whole document."""
        if not isinstance(data, dict):
            self.problems.add((), f"a strategy document is a mapping with augkit, name and pipeline, not {shown(data)}")
            return self.draft
        self.head(data)
        if not self.within_limits(data):
            return self.draft
        self.reserved |= {LEVEL} if data.get("probes") else set()
        self.params(data.get("params"))
        steps = Steps(self.context, self.draft)
        steps.choices.palette(data.get("palette"))
        self.image(data.get("image"))
        self.state(data.get("state"))
        steps.read(data.get("pipeline"), data.get("views"))
        self.probes(data, steps)
        self.update(data.get("update"))
        return self.draft

    def within_limits(self, data: dict[str, Any]) -> bool:
        """Bound what reading and checking can cost, before either begins."""
        before = len(self.problems.found)
        for key, most in MOST.items():
            if isinstance(data.get(key), (dict, list)) and len(data[key]) > most:
                what = {"state": "states", "update": "rules", "pipeline": "steps"}.get(key, key)
                self.problems.add((key,), f"a document has at most {most} {what}, this has {len(data[key])}")
        length = sum(
            text_length(data.get(key)) for key in ("state", "palette", "pipeline", "update", "views", "probes")
        )
        if length > MAX_CHARACTERS:
            self.problems.add((), f"the expressions of a document have at most {MAX_CHARACTERS} characters together")
        return len(self.problems.found) == before

    def head(self, data: dict[str, Any]) -> None:
        draft, problems = self.draft, self.problems
        for key in data:
            if key not in TOP:
                problems.unknown((key,), key, TOP)
        for key in ("augkit", "name", "pipeline"):
            if key not in data:
                problems.add((), f'"{key}" is missing{": write augkit: 1" if key == "augkit" else ""}')
        if "augkit" in data and (data["augkit"] != 1 or isinstance(data["augkit"], bool)):
            problems.add(
                ("augkit",), f"this version of augkit reads documents of version 1, not {shown(data['augkit'])}"
            )
        for key in ("name", "title", "source"):
            value = data.get(key, "")
            if value is not None and not isinstance(value, str):
                problems.add((key,), f"expected text, found {shown(value)}; put it in quotes")
            else:
                setattr(draft, key, value or "")
        if "name" in data and isinstance(data["name"], str) and not _TITLE.fullmatch(data["name"]):
            problems.add(("name",), f"{_TITLE_RULE}, unlike {shown(data['name'])}")

    def mapping(self, value: Any, place: Place) -> dict[str, Any]:
        if value is not None and not isinstance(value, dict):
            self.problems.add(place, f"expected a mapping, found {shown(value)}")
        return value if isinstance(value, dict) else {}

    def new_name(self, name: str, place: Place, taken: Mapping[str, Any]) -> None:
        """Note what is wrong with the name of a param, state or let."""
        if not _NAME.fullmatch(name):
            self.problems.add(place, f"{_NAME_RULE}, unlike {shown(name)}")
        elif name in self.reserved:
            self.problems.add(place, f'"{name}" is reserved; choose another name')
        elif name in taken:
            self.problems.add(place, f'"{name}" names something else in this document already')

    def params(self, value: Any) -> None:
        params = self.mapping(value, ("params",))
        for name, number in params.items():
            place = ("params", name)
            self.new_name(name, place, {})
            fault = _number_fault(number)
            if fault:
                self.problems.add(place, fault)
                self.draft.broken.add(name)
            else:
                self.draft.params[name] = number
        for name, number in self.overrides.items():
            self.override(name, number, params)

    def override(self, name: str, number: Any, params: Mapping[str, Any]) -> None:
        if name not in params:
            self.problems.add(("params",), f"there is no param {shown(name)}.{hint(str(name), params)}")
            return
        fault = _number_fault(number)
        if fault is None and isinstance(params[name], bool) and not isinstance(number, bool):
            fault = f"expected true or false, found {shown(number)}"
        if fault:
            self.problems.add(("params", name), fault)
        else:
            self.draft.params[name] = number

    def image(self, value: Any) -> None:
        read = self.mapping(value, ("image",))
        fill(Image, read, ("image",), self.problems)
        merged = (
            fill(Image, {**read, **self.image_overrides}, ("image",), self.problems) if self.image_overrides else None
        )
        made = merged or (fill(Image, read, ("image",), Problems()) if not self.image_overrides else None)
        self.draft.image = made or Image()

    def state(self, value: Any) -> None:
        for name, spec in self.mapping(value, ("state",)).items():
            place = ("state", name)
            self.new_name(name, place, self.draft.params)
            made = self.one_state(spec, place)
            if made is None:
                self.draft.broken.add(name)
            else:
                self.draft.state[name] = made

    def one_state(self, spec: Any, place: Place) -> State | None:
        if not isinstance(spec, dict):
            self.problems.add(place, f"expected a mapping with axes and init, found {shown(spec)}")
            return None
        axes = self.axes(spec.get("axes", []), (*place, "axes"))
        clamp = spec.get("clamp")
        if clamp is not None and not (isinstance(clamp, list) and len(clamp) == 2):
            self.problems.add((*place, "clamp"), f"expected [low, high], null for an open end, found {shown(clamp)}")
            clamp, axes = None, None
        spec = {**spec, **({"clamp": tuple(clamp)} if isinstance(clamp, list) else {"clamp": None})}
        made = fill(State, {**spec, "axes": axes or ()}, place, self.problems)
        return made if axes is not None else None

    def axes(self, value: Any, place: Place) -> tuple[str, ...] | None:
        if not isinstance(value, list):
            self.problems.add(place, f"expected a list of axes, found {shown(value)}")
            return None
        good = True
        for number, axis in enumerate(value):
            if axis not in STATE_AXES:
                good = False
                self.problems.unknown((*place, number), str(axis), STATE_AXES, "axis")
            elif axis in value[:number]:
                good = False
                self.problems.add((*place, number), f"the axis {axis} was given before")
        if good and "samples" in value and len(value) > 1:
            good = False
            self.problems.add(place, "a state with the axis samples has no other axis: it would grow too large")
        return tuple(axis for axis in AXES if axis in value) if good else None

    def probes(self, data: dict[str, Any], steps: Steps) -> None:
        for name, spec in self.mapping(data.get("probes"), ("probes",)).items():
            self.new_name(name, ("probes", name), {**self.draft.params, **self.draft.state})
            made = read_probe(spec, name, steps)
            if made is None:
                self.draft.broken |= {f"{name}.{result}" for result in RESULTS}
            else:
                self.draft.probes[name] = made
        if data.get("max_probe_images") is not None:
            read_cap(data["max_probe_images"], steps)

    def update(self, value: Any) -> None:
        if value is not None and not isinstance(value, list):
            self.problems.add(("update",), f"expected a list of rules, found {shown(value)}")
            value = []
        self.draft.update = tuple(self.rule(rule, ("update", number)) for number, rule in enumerate(value or []))

    def rule(self, data: Any, place: Place) -> Rule | None:
        made = fill(Rule, data, place, self.problems)
        if not isinstance(data, dict):
            return None
        for name in self.mapping(data.get("let"), (*place, "let")) if isinstance(data.get("let"), dict) else ():
            self.new_name(name, (*place, "let", name), {**self.draft.params, **self.draft.state})
        if made is not None and not made.set:
            self.problems.add(place, "a rule sets something: write set: {name: expression}")
            return None
        known = {*self.draft.state, *self.draft.broken}
        for name in made.set if made else ():
            if name not in known:
                self.problems.unknown((*place, "set", name), name, self.draft.state, "state")
        return made


def text_length(value: Any) -> int:
    """Characters of a part of a document, what is no text counted as one."""
    if isinstance(value, dict):
        return sum(text_length(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(text_length(inner) for inner in value)
    return len(value) if isinstance(value, str) else 1


def _number_fault(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if not isinstance(value, (int, float)):
        return f"a param is a number, true or false, not {shown(value)}"
    return None if abs(value) <= 1e30 else f"a number may be at most 1e30 in size, unlike {shown(value)}"
