"""TensorBoard scalars, for those who installed the extra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from augkit.errors import AugkitError


class Board:
    """Writes a record's numbers as scalars; does nothing when it is not wanted.

    Raises:
        AugkitError: it is wanted, but TensorBoard is not installed.
    """

    def __init__(self, folder: Path, wanted: bool, next_epoch: int) -> None:
        self.writer: Any = None
        if not wanted:
            return
        check()
        from torch.utils.tensorboard import SummaryWriter

        # what a killed run wrote beyond its last checkpoint is purged
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=next_epoch)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """The scalars of one epoch."""
        if self.writer is not None:
            for name, value in scalars(record):
                self.writer.add_scalar(name, value, record["epoch"])


def check() -> None:
    """Raise unless TensorBoard is installed."""
    if find_spec("tensorboard") is None:
        raise AugkitError("tensorboard: true needs TensorBoard; pip install 'augkit[tensorboard]' or set it to false")


def scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a record with its name; those of a nested mapping as `val/all`."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name != "epoch":
            yield prefix + name, float(value)
