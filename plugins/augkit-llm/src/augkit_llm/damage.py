"""What can be wrong with an archive's file, in a sentence."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from augkit.errors import StateError


def damaged(path: Path, why: str) -> StateError:
    """The error for a file that is not what a search wrote."""
    return StateError(
        f"this is no search archive, or a damaged one ({why}); put a copy in its place, or search anew elsewhere",
        file=path,
    )


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What SQLite complains of as a `StateError`; what would be a mistake of this package is left as it is."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise damaged(path, str(error)) from error
        raise StateError(
            f"the archive cannot be read or written ({error}); see to its disk and its permissions, then go on with"
            " --resume",
            file=path,
        ) from error
    except sqlite3.Error as error:
        raise damaged(path, str(error)) from error
