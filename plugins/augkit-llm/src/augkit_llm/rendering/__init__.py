"""The format as models can follow it, and back: closed schemas without free keys, and mappings dug out of text."""

from __future__ import annotations

from augkit.errors import AugkitError


class RenderingError(AugkitError):
    """A reply, or a document, does not fit a rendering; the message begins with the path where there is one."""

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)
