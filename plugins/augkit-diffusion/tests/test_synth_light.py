"""Whoever makes no images pays nothing for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"diffusers", "accelerate", "transformers", "peft", "pyarrow", "timm", "torchvision", "matplotlib", "sklearn"}


@pytest.mark.slow
def test_the_command_line_imports_nothing_heavy() -> None:
    code = """
import sys
from typer.testing import CliRunner
from augkit.cli.app import build
app = build()
for words in (["--help"], ["synth", "--help"], ["synth", "sources"], ["policies"]):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "augkit_diffusion.make_command" in loaded and loaded.isdisjoint(HEAVY)
