"""What the fixtures of conftest.py give, for those who say so in a type, and where the repository is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
Install = Callable[..., None]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
