"""The examples run as a reader would run them, and what they print is what they are said to do."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TIMM = ROOT / "examples" / "timm_train.py"


def run(name: str, *arguments: str) -> str:
    """What it prints in a fresh process, as a reader would run it: each example once."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def run_again(path: Path, folder: Path, *arguments: str) -> str:
    """The same in a process that has its imports already; `folder` is where it runs."""
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    done = processes.run_script(path, arguments, folder, logs)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def top1(output: str) -> list[float]:
    return [float(found) for found in re.findall(r"top-1 ([\d.]+) %", output)]


@pytest.mark.slow
def test_the_timm_loop_learns_the_digits_within_a_minute() -> None:
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = run("timm_train.py")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    # what it computes, since a busy machine makes anything take longer
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < 60
    assert len(top1(output)) == 5 and top1(output)[-1] > 85
    assert "random transforms of the loader: RandomResizedCropAndInterpolation; kept" in output


@pytest.mark.slow
def test_the_timm_loop_goes_on_where_it_stopped(tmp_path: Path, server: None) -> None:
    folder = str(tmp_path / "run")
    options = (
        "--output",
        folder,
        "--grad-accum-steps",
        "2",
        "--amp",
        "--policy",
        "mixup_cutmix",
        "--mixup-off-epoch",
        "2",
    )
    assert "epoch 0" in run_again(TIMM, tmp_path, *options, "--epochs", "1")
    output = run_again(TIMM, tmp_path, *options, "--epochs", "3", "--torchcompile", "eager", "--workers", "2")
    assert "policy state of epoch 0 loaded" in output
    assert re.findall(r"epoch (\d):", output) == ["1", "2"]


@pytest.mark.slow
def test_the_timm_loop_trains_on_folders(tmp_path: Path, server: None) -> None:
    for split in ("train", "val"):
        for name, colour in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(8):
                Image.new("RGB", (40 + k, 40), colour).save(tmp_path / split / name / f"{k}.png")
    words = ("--data", str(tmp_path), "--batch-size", "4", "--epochs", "1", "--policy", "none")
    output = run_again(TIMM, tmp_path, *words)
    assert len(top1(output)) == 1


@pytest.mark.slow
def test_the_plain_loop_learns_and_its_strategy_moves() -> None:
    output = run("plain_pytorch.py")
    assert len(top1(output)) == 8 and top1(output)[-1] > 90
    levels = [tuple(map(float, line.split(", "))) for line in re.findall(r"strength by class (.*)", output)]
    assert all(len(row) == 10 for row in levels) and len(set(levels)) > 3
    assert max(levels[-1]) > 0.1


@pytest.mark.slow
def test_the_blocks_of_the_timm_page_run(tmp_path: Path) -> None:
    for number, name in enumerate(("ash", "birch", "cedar")):
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (70, 64), (number * 90, k, 0)).save(tmp_path / "data" / "train" / name / f"{k}.png")
    page = (ROOT / "docs" / "timm.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    after = "\nassert len(loader.policy.history) == 1 and loader.policy.epoch == 1, 'the second epoch is still open'"
    shown = "\nassert targets.shape == (5, 3) and images.dtype == torch.float32"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for code in (blocks[0] + after, blocks[1] + shown):  # each as somebody copies it: alone
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_seam_itself_imports_neither_timm_nor_torchvision() -> None:
    code = "import sys, augkit.integrations.timm; print(*sorted({'timm', 'torchvision'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_there_is_a_test_for_every_example() -> None:
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    tested = set(re.findall(r'run\(\s*"(\w+\.py)"', Path(__file__).read_text()))
    assert tested >= {"timm_train.py", "plain_pytorch.py"} and names >= tested
