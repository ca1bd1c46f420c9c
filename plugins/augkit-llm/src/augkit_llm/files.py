"""Strategy documents as files that people read: YAML with a comment above, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from augkit.errors import AugkitError, DocumentError
from augkit.lab.folder import write
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.strategy.model import Strategy
from augkit.strategy.reading import read_text, resolve

DOCUMENTS = "documents"
"""Where a search keeps its documents."""
FIRST = ("augkit", "name", "title", "source", "params", "palette", "image", "state", "pipeline", "views", "update")
WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """Text stays text for a reader of YAML 1.2, and lists stand below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = value.isprintable() and isinstance(resolve(value), str)  # what ends a line only in YAML 1.1 is escaped
    style = None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def yaml_text(document: Mapping[str, Any], header: Sequence[str] = ()) -> str:
    """A document as YAML, under comment lines; what goes wrong in a comment is mended, since it must end no line."""
    ordered = {key: document[key] for key in FIRST if key in document}
    ordered |= {key: value for key, value in document.items() if key not in ordered}
    body = yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=WIDTH, allow_unicode=True)
    return "".join(f"# {_line(line)}\n" for line in header) + body


def write_document(path: Path, document: Mapping[str, Any], registry: Registry, header: Sequence[str] = ()) -> Strategy:
    """Write a valid document; returns the strategy, as it is read from the file's text.

    Raises:
        DocumentError: it is not valid.
        AugkitError: the folder cannot be written to.
    """
    expected = load_strategy(document, registry)
    text = yaml_text(document, header)
    found = load_strategy(_mapping(text), registry)
    if found.hash != expected.hash:
        raise DocumentError("the document would mean something else as YAML", file=path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, text)
    except OSError as error:
        raise AugkitError(f"cannot write the strategy: {error.strerror or error}", file=path) from error
    return found


def _mapping(text: str) -> Mapping[str, Any]:
    data: Mapping[str, Any] = read_text(text).data
    return data


def _line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
