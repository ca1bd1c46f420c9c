"""An image and its facts in one PNG file: the facts are JSON in an iTXt chunk called `augkit`."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEY = "augkit"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"


def encode(image: np.ndarray, facts: Mapping[str, Any]) -> bytes:
    """A PNG file of an image [H, W, 3] uint8; the same bytes for the same image and facts."""
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(dict(facts), allow_nan=False))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def whole(path: Path) -> bool:
    """Whether a file begins and ends as a PNG does; one that a crash of the machine cut off does not."""
    with path.open("rb") as file:
        begins = file.read(len(_SIGNATURE)) == _SIGNATURE
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - len(_END)))
        return begins and file.read() == _END


def facts_of(path: Path) -> dict[str, Any] | None:
    """The facts in a PNG file; None if it holds none. The pixels are not decoded."""
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return None
        content = _chunk(file)
    if content is None:
        return None
    try:
        _, _, rest = content.partition(b"\0")
        compressed, _, rest = rest[:1] == b"\1", rest[1:2], rest[2:]
        _, _, rest = rest.partition(b"\0")  # language
        _, _, text = rest.partition(b"\0")  # translated keyword
        found = json.loads(zlib.decompress(text) if compressed else text)
    except (ValueError, zlib.error):
        return None
    return found if isinstance(found, dict) else None


def _chunk(file: BinaryIO) -> bytes | None:
    """The content of our chunk, which stands before the pixels."""
    while True:
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind in (b"IDAT", b"IEND"):
            return None
        if kind == b"iTXt":
            content = file.read(length)
            if content.startswith(KEY.encode() + b"\0"):
                return content
            file.seek(4, io.SEEK_CUR)
        else:
            file.seek(length + 4, io.SEEK_CUR)
