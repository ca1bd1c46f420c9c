"""What the command line prints: tables, JSON, notes and errors; in colour on terminals only."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from augkit.errors import AugkitError

Row = Mapping[str, Any]


def show_rows(rows: Sequence[Row], *, as_json: bool, empty: str = "none") -> None:
    """Rows with the same keys, as a table or as JSON."""
    if as_json:
        show_json(list(rows))
    elif not rows:
        print(empty)
    elif sys.stdout.isatty():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, column in enumerate(rows[0]):
            table.add_column(column, no_wrap=i == 0, style="cyan" if i == 0 else None, overflow="fold")
        for row in rows:
            table.add_row(*(escape(_text(cell)) for cell in row.values()))
        Console().print(table)
    else:
        cells = [list(rows[0]), *([_text(cell) for cell in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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
        error = f"{error.filename}: {what[:1].lower()}{what[1:]}" if error.filename else what
    for line in str(error).splitlines():
        _complain("error", "red", line)


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
