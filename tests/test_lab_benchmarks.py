"""The lab's benchmarks run on small inputs, and measure what they say. No timings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest

ROOT = Path(__file__).parents[1]
BARE = """
import sys
from importlib.machinery import PathFinder

absent = {"typer", "rich", "albumentations", "cv2", "sklearn", "pandas", "matplotlib"}
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *given: None if name.split(".")[0] in absent else find(name, *given))
sys.path.insert(0, "benchmarks")
sys.argv = ["lab.py", "--smoke", "--out", sys.argv[1]]
import lab

lab.main()
assert not absent & sys.modules.keys()
"""


def made(command: list[str], out: Path) -> tuple[dict[str, Any], str]:
    done = subprocess.run([sys.executable, *command, str(out)], capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text()), done.stdout


@pytest.mark.slow
def test_an_epoch_is_split_and_runs_go_together_on_a_bare_machine(tmp_path: Path) -> None:
    found, said = made(["-c", BARE], tmp_path / "lab.json")
    assert [row["setting"] for row in found["epochs"]] == ["float32", "bf16, channels_last", "the same compiled"]
    for row in found["epochs"]:
        assert row["epoch_seconds"] == pytest.approx(sum(row["parts"].values())) and min(row["parts"].values()) > 0
        assert row["setting"] in said
    assert found["data"] == "random images" and "random images" in said and found["images"] > 1000
    assert [(one["jobs"], len(one["seconds_of_each"])) for one in found["together"]] == [(1, 1), (2, 2)]


@pytest.mark.slow
def test_probes_are_asked_alike_before_and_after(tmp_path: Path, server: None) -> None:
    out = tmp_path / "probes.json"
    done = processes.run_script(ROOT / "benchmarks/probes.py", ["--smoke", "--out", str(out)], ROOT, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found, said = json.loads(out.read_text()), done.stdout
    assert found["images_asked"] == 66_000 and found["classes_measured"] == 1
    names = [row["name"] for row in found["rows"]]
    assert len(names) == 4 and names[0].startswith("before: Pillow") and names[2].startswith("after: augkit")
    epoch = found["epoch_seconds_without_probe"]
    for row in found["rows"]:
        assert row["share_of_epoch"] == pytest.approx(row["seconds"] / (row["seconds"] + epoch)) and row["name"] in said
