"""Prompts of text-to-image models: templates, values for their placeholders, and which prompt an image gets.

A prompts file is YAML or JSON, and every part of it may be left out:

    templates: a photo of {modifier} {class}      # one, or a list of them
    negative: blurry, drawing                     # what images shall not show; may hold placeholders too
    names: {n02124075: Egyptian cat}              # what a class or group is called in prompts
    values:                                       # what stands for a placeholder: a list to draw from,
      age: [20, 30, 40]
      modifier: {cat: [sleeping, wet], dog: [...]}     # or a list for each class or group
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from augkit.errors import DataError, nearest
from augkit_diffusion.sources import Wish

PLAIN, MODIFIED = "a photo of {class}", "a photo of {modifier} {class}"
CLASS, GROUP, MODIFIER = "class", "group", "modifier"
MOST_BYTES = 1 << 24
FIELDS = ("templates", "negative", "names", "values")
_HOLE = re.compile(r"\{([^{}]*)\}")
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""Reads every scalar as the text that it is: no, 010 and 1e3 are words of a prompt."""
Values = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Prompts:
    """What prompts are made from."""

    templates: tuple[str, ...] = (PLAIN,)
    negative: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Values] = field(default_factory=dict)
    file: str | None = None

    def fill(self, wish: Wish) -> tuple[str, str]:
        """The prompt of an image and its negative prompt: by its class, its group and its seed alone.

        Raises:
            DataError: nothing is known of a placeholder.
        """
        filled = [self._filled(template, wish) for template in self.templates]  # all, so that faults come up at once
        return filled[_draw(wish.seed, "template", len(filled))], self._filled(self.negative, wish)

    def _filled(self, template: str, wish: Wish) -> str:
        return " ".join(_HOLE.sub(lambda hole: self._value(hole[1].strip(), wish), template).split())

    def _value(self, name: str, wish: Wish) -> str:
        if name == CLASS:
            return self.called(wish.class_name)
        if name == GROUP:
            if wish.group_name is None:
                raise DataError(
                    "{group} stands in a template, but these images are of no group; say --groups", file=self.file
                )
            return self.called(wish.group_name)
        choice = self._choice(name, wish)
        return choice[_draw(wish.seed, f"value {name}", len(choice))]

    def _choice(self, name: str, wish: Wish) -> Sequence[str]:
        values = self.values.get(name, ())
        if not isinstance(values, Mapping):
            return values
        for key in (wish.group_name, wish.class_name):
            if key is not None and key in values:
                return values[key]
        raise DataError(f'values.{name} has nothing for class "{wish.class_name}"; add a list for it', file=self.file)

    def called(self, name: str) -> str:
        """What a class or group is called in prompts: as `names` says, or its own name with spaces for underscores."""
        return self.names.get(name) or name.replace("_", " ").strip()

    def check(self) -> None:
        """Raise a DataError if something stands in a template that nothing is known of."""
        known = [CLASS, GROUP, *self.values]
        for template in (*self.templates, self.negative):
            for name in (hole.strip() for hole in _HOLE.findall(template)):
                if name not in known:
                    raise DataError(
                        f'nothing is known of {{{name}}} in "{template}"; list its values in a prompts file, under'
                        f" values.{name}.{nearest(name, known)}",
                        file=self.file,
                    )

    def sha256(self) -> str:
        """Of all that prompts depend on."""
        told = [self.templates, self.negative, dict(self.names), {key: _plain(one) for key, one in self.values.items()}]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def open_prompts(file: Path | None, template: str | None = None, negative: str | None = None) -> Prompts:
    """Prompts of a file, of which a template or negative prompt that is given takes the place.

    Without a template images are of `a photo of {class}`, or `a photo of {modifier} {class}` if there are modifiers.

    Raises:
        DataError: the file cannot be read or holds something else, or nothing is known of a placeholder.
    """
    found = read_fields(file) if file is not None else {}
    place = None if file is None else str(file)
    values = {name: _values(f"values.{name}", one, place) for name, one in _mapping("values", found, place).items()}
    names = {key: _text(f"names.{key}", one, place) for key, one in _mapping("names", found, place).items()}
    templates: tuple[str, ...] = (MODIFIED if MODIFIER in values else PLAIN,)
    if template is not None:
        templates = (template,)
    elif "templates" in found:
        templates = tuple(_list("templates", found["templates"], place))
    if negative is None:
        negative = _text("negative", found["negative"], place) if found.get("negative") else ""
    if CLASS in values or GROUP in values:
        raise DataError("{class} and {group} are known already; say under names what one is called", file=place)
    prompts = Prompts(templates, negative, names, values, place)
    prompts.check()
    return prompts


def read_fields(file: Path) -> dict[str, Any]:
    """The fields of a prompts file as they are written, every scalar as text.

    Raises:
        DataError: it cannot be read, or has other fields.
    """
    try:
        raw = file.expanduser().read_bytes()
        if len(raw) > MOST_BYTES:
            raise DataError(f"a prompts file has at most {MOST_BYTES >> 20} MiB", file=file)
        found = yaml.load(raw.decode("utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise DataError(f"cannot read the prompts ({error.strerror}); name a file with --prompts", file=file) from error
    except UnicodeDecodeError as error:
        raise DataError("the prompts are not UTF-8 text; save the file as UTF-8", file=file) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        line = mark.line + 1 if mark else None
        raise DataError(f"this is not YAML ({reason}); mend the file", file=file, line=line) from error
    if not isinstance(found, dict):
        raise DataError(f"a prompts file has the fields {', '.join(FIELDS)}; this has none", file=file)
    for name in found:
        if name not in FIELDS:
            raise DataError(f'a prompts file has no field "{name}".{nearest(str(name), FIELDS)}', file=file)
    return found


def _mapping(name: str, found: Mapping[str, Any], file: str | None) -> Mapping[str, Any]:
    part = found.get(name) or {}
    if not isinstance(part, Mapping) or not all(isinstance(key, str) for key in part):
        raise DataError(f"{name} must be names with what stands for each, not {str(part)[:60]}", file=file)
    return part


def _values(name: str, given: Any, file: str | None) -> Values:
    if isinstance(given, Mapping):
        return {str(key): _list(f"{name}.{key}", one, file) for key, one in given.items()}
    return _list(name, given, file)


def _list(name: str, given: Any, file: str | None) -> list[str]:
    found = [_text(name, one, file) for one in (given if isinstance(given, list) else [given])]
    if not found:
        raise DataError(f"{name} is empty; list at least one", file=file)
    return found


def _text(name: str, given: Any, file: str | None) -> str:
    if not isinstance(given, str) or not given.strip():
        raise DataError(f"{name} must be text, not {json.dumps(given)[:60]}", file=file)
    return given.strip()


def _plain(values: Values) -> Any:
    return {key: list(one) for key, one in values.items()} if isinstance(values, Mapping) else list(values)


def _draw(seed: int, what: str, count: int) -> int:
    """A number below `count` by seed and purpose, so that another placeholder changes no draw of those there were."""
    digest = hashlib.sha256(f"{seed} {what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * count >> 64
