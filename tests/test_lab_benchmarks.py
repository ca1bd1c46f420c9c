"""The lab's benchmarks run on small inputs, and measure what they say. No timings."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
from run_parts import write_npz

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


@pytest.mark.slow(30)
def test_an_epoch_is_split_and_runs_go_together_on_a_bare_machine(tmp_path: Path) -> None:
    found, said = made(["-c", BARE], tmp_path / "lab.json")
    assert [row["setting"] for row in found["epochs"]] == ["float32", "bf16, channels_last", "the same compiled"]
    for row in found["epochs"]:
        assert row["epoch_seconds"] == pytest.approx(sum(row["parts"].values())) and min(row["parts"].values()) > 0
        assert row["setting"] in said
    assert found["data"] == "random images" and "random images" in said and found["images"] > 1000
    assert [(one["jobs"], len(one["seconds_of_each"])) for one in found["together"]] == [(1, 1), (2, 2)]


@pytest.mark.slow(15)
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


@pytest.mark.slow
def test_coresets_and_their_controls_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    coresets = importlib.import_module("coresets")
    out, source = tmp_path / "rows.jsonl", write_npz(tmp_path / "a.npz")
    small = ("model=resnet8_cifar", f"data.source={source}", "data.imbalance=null", "batch_size=16", "base={}")
    told = ["--epochs", "2", "--every", "1", "--shares", "0.5", "--choosers", "max_loss", "--seeds", "0"]
    told += ["--out", str(out), *(part for setting in small for part in ("--set", setting))]
    turns: list[tuple[str, int]] = []
    one_epoch = coresets.Run.epoch

    def watched(run: Any) -> None:
        turns.append((run.case[0], run.training.epoch))
        one_epoch(run)

    monkeypatch.setattr(coresets.Run, "epoch", watched)
    monkeypatch.setattr(sys, "argv", ["coresets.py", *told])
    coresets.main()
    rows = {row["chooser"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert turns[1:5] == [(name, 0) for name in rows] and sorted(turns[5:]) == sorted((name, 1) for name in rows)
    assert {name: row["images"] for name, row in rows.items()} == {
        "none": 2 * 48,
        "all": 4 * 48,
        "repeated": 4 * 48,
        "max_loss": 3 * 48,
    }
    assert all(0 <= row["choosing"] < row["wall"] and row["processor"] > 0 for row in rows.values())
    assert rows["repeated"]["policy"] == "none" and rows["max_loss"]["asked"] == 2 * 48 > rows["all"]["asked"]
    coresets.main()
    assert len(turns) == 9, "a seed that is there is not trained again"
