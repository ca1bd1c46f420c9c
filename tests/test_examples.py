"""The examples run as a reader would run them, and what they print is what they are said to do."""

from __future__ import annotations

import json
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
EXAMPLES = ROOT / "examples"
TIMM = EXAMPLES / "timm_train.py"


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


@pytest.mark.slow(20)
def test_the_timm_loop_learns_the_digits_within_a_minute() -> None:
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = run("timm_train.py")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    # what it computes, since a busy machine makes anything take longer
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < 60
    assert len(top1(output)) == 5 and top1(output)[-1] > 85
    assert "random transforms of the loader: RandomResizedCropAndInterpolation; kept" in output


@pytest.mark.slow(20)
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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of twelve pictures each, of different sizes: what `--data` is for."""
    for name, colour in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(12):
            image = Image.new("RGB", (40 + k, 40), colour)
            image.paste((255, 255, 255), (k, 5, k + 12, 25))
            image.save(tmp_path / "photos" / name / f"{k}.png")
    return tmp_path / "photos"


@pytest.mark.slow
def test_the_plain_loop_learns(tmp_path: Path, server: None) -> None:
    output = run_again(EXAMPLES / "plain_pytorch.py", tmp_path, "--epochs", "4")
    assert len(top1(output)) == 4 and top1(output)[-1] > 85
    assert "the last batch's first image: " in output


@pytest.mark.slow
def test_the_plain_loop_trains_on_a_folder(tmp_path: Path, photos: Path, server: None) -> None:
    words = ("--data", str(photos), "--policy", "randaugment", "--epochs", "3")
    assert len(top1(run_again(EXAMPLES / "plain_pytorch.py", tmp_path, *words))) == 3


def test_a_strategy_of_ones_own_moves_and_tells_what_it_did(tmp_path: Path, photos: Path, server: None) -> None:
    output = run_again(EXAMPLES / "own_strategy.py", tmp_path, "--epochs", "4")
    levels = [tuple(map(float, line.split())) for line in re.findall(r"level by class (.*)", output)]
    assert [len(row) for row in levels] == [10] * 4 and len(set(levels)) > 2
    table = re.findall(r"^ +(\d)  +(\d+)  ([\d.]+)  ([\d.]+)$", output, re.MULTILINE)
    assert [int(row[1]) for row in table] == sorted((int(row[1]) for row in table), reverse=True) and len(table) == 10
    assert float(table[0][3]) > float(table[0][2]) > 0, "the most frequent class is learnt, and augmented more"
    output = run_again(EXAMPLES / "own_strategy.py", tmp_path, "--data", str(photos), "--epochs", "2")
    assert re.search(r"blue +12 .*\n +red +12 ", output)


@pytest.mark.slow
def test_a_plugin_is_built_into_a_wheel_and_used(tmp_path: Path, photos: Path, server: None) -> None:
    words = ("--folder", str(tmp_path / "built"), "--data", str(photos))
    output = run_again(EXAMPLES / "plugin_wheel.py", tmp_path, *words)
    assert "augkit_haze-0.1.0-py3-none-any.whl" in output and "haze 0 to 0.5 share of white" in output
    with Image.open(tmp_path / "built" / "haze.png") as picture:
        assert picture.width > 500


@pytest.mark.slow
def test_a_file_that_a_model_wrote_is_checked_told_and_shown(tmp_path: Path, photos: Path, server: None) -> None:
    script, out = EXAMPLES / "llm_file.py", tmp_path / "shown.png"
    output = run_again(script, tmp_path, "--data", str(photos), "--out", str(out))
    assert "gentle_on_rare: Frequent classes" in output and "epoch 99:" in output and out.stat().st_size > 1000
    reply = {"key": "write.a0", "text": '{"augkit": 1, "name": "x", "pipeline": ["hflip"]}'}
    (tmp_path / "replies.jsonl").write_text(json.dumps(reply))
    words = ("--llm", f"transcript:{tmp_path / 'replies.jsonl'}", "--file", str(tmp_path / "x.yaml"))
    output = run_again(script, tmp_path, *words, "--data", str(photos), "--out", str(out))
    assert "hflip" in output and "written by transcript" in (tmp_path / "x.yaml").read_text()
    (tmp_path / "slip.yaml").write_text("augkit: 1\nname: x\npipeline: [hflop]\n")
    done = processes.run_script(script, ["--file", str(tmp_path / "slip.yaml")], tmp_path, tmp_path / "logs")
    assert done.returncode == 1 and "refused: " in done.stderr and 'Did you mean "hflip"?' in done.stderr


@pytest.mark.slow
def test_synthetic_images_are_made_and_trained_on(tmp_path: Path, photos: Path, server: None) -> None:
    script = EXAMPLES / "synthetic_data.py"
    learnt = ("--data", str(photos), "--source", "fit", "--target", "8", "--train-steps", "4")
    for words in ((), learnt):
        output = run_again(script, tmp_path, *words, "--epochs", "1")
        assert re.search(r"(\d+) images made.*\1 kept in the store", output)
        told = re.findall(r"^(real images alone|with synthetic images): test accuracy all", output, re.MULTILINE)
        assert told == ["real images alone", "with synthetic images"]


def test_albumentations_and_a_policy_work_together(tmp_path: Path, photos: Path, server: None) -> None:
    script = EXAMPLES / "albumentations_interop.py"
    for words in ((), ("--data", str(photos), "--policy", "randaugment")):
        output = run_again(script, tmp_path, *words)
        assert "a batch of (8, 64, 64, 3), torch.uint8" in output and "albumentations:" in output
        with Image.open(tmp_path / "interop.png") as picture:
            assert picture.size == (512, 128)


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
    names = {path.name for path in EXAMPLES.glob("*.py")}
    tested = set(re.findall(r'EXAMPLES / "(\w+\.py)"', Path(__file__).read_text()))
    listed = set(re.findall(r"^\| \[(\w+\.py)\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert len(names) >= 7 and names == tested == listed
