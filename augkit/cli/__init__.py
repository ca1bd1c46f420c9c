"""The command line: `augkit --help`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from augkit.cli import completion


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status: 0, 1 for a fault of ours, 2 for the user's, 130 stopped."""
    try:
        shell = os.environ.get(completion.VARIABLE)
        if shell in completion.SHELLS:
            raise SystemExit(completion.answer(shell))
        from augkit.cli.app import build

        build()(args=list(arguments) if arguments is not None else None, prog_name="augkit")
    except KeyboardInterrupt:  # while importing; the verbs catch their own
        raise SystemExit(130) from None
