"""Between strategy documents and replies that follow `strict_schema.py`: the same content, without free keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augkit.plugins import registry as installed
from augkit.registry import Registry
from augkit_llm.rendering.strict_reading import Reader
from augkit_llm.rendering.strict_schema import schema
from augkit_llm.rendering.strict_writing import Writer

__all__ = ["from_document", "schema", "to_document"]


def to_document(reply: Mapping[str, Any], registry: Registry | None = None) -> dict[str, Any]:
    """The strategy document that a reply stands for; whether it is a valid one is for `load_strategy` to say.

    The name is made one that a document may have. Everything else is taken as it is.

    Raises:
        RenderingError: the reply does not follow the schema; the message has the path.
    """
    return Reader(registry or installed()).document(reply)


def from_document(document: Mapping[str, Any], registry: Registry | None = None) -> dict[str, Any]:
    """A valid document as a reply would give it, to show it to a model: `to_document` of the result has its hash.

    Raises:
        RenderingError: it has something that this rendering leaves out: views, probes, a `one_of` inside another,
            transforms of other libraries, strategies by path or as timm's strings.
    """
    return Writer(registry or installed()).reply(document)
