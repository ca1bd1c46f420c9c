"""The command line: `augkit --help`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from augkit.cli import completion


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status: 0, 1 for a fault of ours, 2 for the user's, 130 stopped."""
    try:
        shell = os.environ.get(completion.VARIABLE)
        if shell in completion.SHELLS:
            raise SystemExit(completion.answer(shell))
        with _stopped_at_once():
            from augkit.cli.app import build

            app = build()
        app(args=list(arguments) if arguments is not None else None, prog_name="augkit")
    except KeyboardInterrupt:  # before a verb, or behind it
        raise SystemExit(130) from None


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """While modules are imported, which may catch a KeyboardInterrupt, or go on half imported after one."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
