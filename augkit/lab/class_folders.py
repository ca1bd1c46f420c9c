"""The folder that a class's, or a group's, images are written into: its own name wherever that can name a folder.

A name with `/` or `\\` in it, with control characters, or one of `.` and `..`, could lead out of the folder that it
stands in or into a deeper one. What is dangerous of such a name is written as `%` and two hexadecimal digits:
`T-shirt/top` goes to `T-shirt%2Ftop`. Folders of class folders never have such names, so theirs stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from augkit.errors import DataError

LONGEST = 200
"""Bytes of a folder's name in UTF-8; file systems allow 255, and files add a number."""
_DANGEROUS = re.compile(r"[/\\\x00-\x1f\x7f]")


def folder_name(name: str) -> str:
    """The folder of a class or group.

    Raises:
        DataError: the name is empty, too long, or no text that UTF-8 can hold.
    """
    if name in (".", ".."):
        return name.replace(".", "%2E")
    folder = _DANGEROUS.sub(lambda found: f"%{ord(found[0]):02X}", name)
    try:
        size = len(folder.encode())
    except UnicodeEncodeError as error:
        raise DataError(f"the class name {name!a} is no valid text; rename the class") from error
    if not name or size > LONGEST:
        told = f"is longer than {LONGEST} bytes" if name else "is empty"
        raise DataError(f'the class name "{name[:40]}" {told} and can name no folder; rename the class')
    return folder


def folder_names(names: Sequence[str]) -> tuple[str, ...]:
    """The folder of each of several classes or groups.

    Raises:
        DataError: two of them would share one, or one can have none.
    """
    folders = tuple(folder_name(name) for name in names)
    owner: dict[str, str] = {}
    for name, folder in zip(names, folders, strict=True):
        if folder in owner and owner[folder] == name:
            raise DataError(f'two classes are called "{name}"; rename one')
        if owner.setdefault(folder, name) != name:
            raise DataError(f'classes "{owner[folder]}" and "{name}" would share the folder "{folder}"; rename one')
    return folders
