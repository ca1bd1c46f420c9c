"""What augkit raises. One base class, so that a caller can catch everything that is the user's to mend.

Every message is one sentence saying what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class AugkitError(Exception):
    """Base of everything augkit raises on purpose; the command line turns it into one line and exit status 2."""

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None) -> None:
        self.message = message
        self.file = str(file) if file is not None else None
        self.line = line
        super().__init__(message)

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return f"{where}: {self.message}" if where else self.message


class DocumentError(AugkitError):
    """A strategy or recipe document is wrong. `problems` holds every fault found, each with its place."""

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        path: str = "",
        problems: Iterable[DocumentError] = (),
    ) -> None:
        self.path = path
        self.problems = tuple(problems) or (self,)
        super().__init__(message, file=file, line=line)

    def __str__(self) -> str:
        if self.problems != (self,):
            return "\n".join(str(problem) for problem in self.problems)
        text = f"{self.path}: {self.message}" if self.path else self.message
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return f"{where}: {text}" if where else text


class ExpressionError(AugkitError):
    """An expression cannot be read, or means nothing. `column` is 0-based in the expression's text."""

    def __init__(self, message: str, *, column: int | None = None) -> None:
        self.column = column
        super().__init__(message)


class OperatorError(AugkitError):
    """An operator was declared or called wrongly."""


class PluginError(AugkitError):
    """A plugin cannot be used; the message names its distribution."""


class InputError(AugkitError):
    """Images, targets or logits do not fit: shape, dtype, range, device."""


class StateError(AugkitError):
    """A policy's learned state is wrong, missing, or does not belong to this policy."""


class DataError(AugkitError):
    """A data set cannot be read or does not hold what was asked of it."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean "x"?' for the valid name closest to `name`, or the list of valid names when none is close."""
    names = sorted(valid)
    close = closest(name, names)
    if close:
        return f' Did you mean "{close}"?'
    return f" Valid: {', '.join(names)}." if names else ""


def closest(name: str, valid: Iterable[str]) -> str:
    """The valid name closest to `name`: spelt as elsewhere, with a slip, or only begun; "" if none is close."""
    names, own = sorted(valid), _plain(name)
    plain = {_plain(known): known for known in names}  # ShearX is shear_x
    if own in plain:
        return plain[own]
    slips = get_close_matches(name, names, n=1, cutoff=0.6)
    begun = [known for known in names if len(own) >= _BEGUN and _plain(known).startswith(own)]
    return slips[0] if slips else min(begun, key=len, default="")


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are: "a, b, c, d, e and 7 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


_BEGUN = 3


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
