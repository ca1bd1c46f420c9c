"""The index of a store as a Parquet file: a row an image, ordered by class, group and number."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkit.errors import StateError
from augkit.lab.folder import write

if TYPE_CHECKING:
    import pyarrow

FILE = "manifest.parquet"
SCORE = "score_"
"""Before the name of a filter: its column of scores."""
FIRST = ("class", "group", "number", "file", "rejected_by", "source", "seed", "prompt", "negative", "source_image")
_TEXT = {"class", "group", "file", "rejected_by", "source", "prompt", "negative", "source_image"}
Row = dict[str, Any]


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, whole or not at all. Columns that all rows leave empty are kept if they are of `FIRST`."""
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table(rows), buffer, compression="zstd")
    write(path, buffer.getvalue())


def table(rows: Sequence[Row]) -> pyarrow.Table:
    """Rows as a table: text, whole numbers, numbers or true and false; anything else as JSON."""
    import pyarrow

    names = list(dict.fromkeys([*FIRST, *sorted({name for row in rows for name in row})]))
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names}
    return pyarrow.table(columns)


def _column(name: str, values: list[Any]) -> pyarrow.Array:
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if name in _TEXT or (kinds == {str}):
        return pyarrow.array(values, pyarrow.string())
    if name.startswith(SCORE) or kinds == {float} or kinds == {int, float}:
        return pyarrow.array([None if value is None else float(value) for value in values], pyarrow.float64())
    if kinds == {bool}:
        return pyarrow.array(values, pyarrow.bool_())
    if kinds <= {int}:
        return pyarrow.array(values, pyarrow.int64())
    return pyarrow.array([None if value is None else json.dumps(value) for value in values], pyarrow.string())


def load(path: Path) -> list[Row]:
    """The rows of a manifest; none if there is no file.

    Raises:
        StateError: the file cannot be read.
    """
    import pyarrow.parquet

    if not path.exists():
        return []
    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        first = str(error).partition("\n")[0]
        raise StateError(
            f"not a readable manifest ({first}); remove it, and the next verb makes it anew without scores", file=path
        ) from error
    return rows


def scores_of(row: Mapping[str, Any]) -> Row:
    """What filters have said of an image; all else stands in the image itself."""
    kept = {name: value for name, value in row.items() if name.startswith(SCORE) and value is not None}
    return kept | {"rejected_by": row.get("rejected_by")}
