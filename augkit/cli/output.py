"""What the command line prints: tables, JSON, notes and errors; in colour on terminals only."""

from __future__ import annotations

import errno
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from augkit.errors import AugkitError

Row = Mapping[str, Any]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
"""The option of every verb that a script may want to read."""
NEXT = {
    errno.ENOENT: "; check how it is written, or choose another place",
    errno.EACCES: "; ask for the right to it, or choose another place",
    errno.EROFS: "; choose another place",
    errno.ENOSPC: "; make room and give the same command again",
    errno.ENOTDIR: "; a part of this path is a file: choose another place",
}
"""What to do about an error of the operating system."""
WRAP = 44  # a column wider than this may be wrapped on a terminal


def show_rows(rows: Sequence[Row], *, as_json: bool, empty: str = "none", spare: Sequence[str] = ()) -> None:
    """Rows with the same keys, as a table or as JSON.

    On a terminal that is too narrow the `spare` columns are left out, the first one first, and named below the table.
    """
    if as_json:
        show_json(list(rows))
    elif not rows:
        print(empty)
    elif sys.stdout.isatty():
        _show_table(Console(), [{key: _text(cell) for key, cell in row.items()} for row in rows], list(spare))
    else:
        cells = [list(rows[0]), *([_text(cell) for cell in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_table(console: Console, rows: list[dict[str, str]], spare: list[str]) -> None:
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) + 2 for key in rows[0]}
    hidden = []
    while spare and sum(min(width, WRAP) for width in widths.values()) > console.width:
        hidden.append(spare.pop(0))
        del widths[hidden[-1]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, key in enumerate(widths):
        table.add_column(key, no_wrap=widths[key] <= WRAP, style="cyan" if i == 0 else None)
    for row in rows:
        table.add_row(*(escape(row[key]) for key in widths))
    console.print(table)
    if hidden:
        console.print(f"[dim]no room for: {', '.join(hidden)}; a wider terminal, a pipe and --json show all[/]")


def show_json(value: Any) -> None:
    """Indented JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def note(sentence: str) -> None:
    """One line on stderr that stops nothing."""
    _complain("warning", "yellow", sentence)


def fail(error: AugkitError | OSError | str) -> None:
    """Say what is wrong on stderr: one line, or for a document one for each fault."""
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        todo = NEXT.get(error.errno or 0, "")
        error = f"{error.filename}: {what[:1].lower()}{what[1:]}{todo}" if error.filename else what
    for line in str(error).splitlines():
        _complain("error", "red", line)


@contextmanager
def resumable(how: str = "") -> Iterator[None]:
    """Around what takes long: Ctrl-C ends with a sentence that says how to go on, and status 130.

    Args:
        how: what to do; by default give the same command again.
    """
    try:
        yield
    except KeyboardInterrupt:
        fail(f"interrupted; {how or f'the same command goes on: {command(sys.argv[1:])}'}")
        raise typer.Exit(130) from None


def command(arguments: Sequence[str]) -> str:
    """A call of augkit as it is typed."""
    return f"augkit {shlex.join(arguments)}"


def _complain(kind: str, colour: str, sentence: str) -> None:
    if sys.stderr.isatty():
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold {colour}]{kind}:[/] {escape(sentence)}")
    else:
        print(f"{kind}: {sentence}", file=sys.stderr)


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, (list, tuple)):
        return ", ".join(map(str, cell))
    return f"{cell:g}" if isinstance(cell, float) else str(cell)
