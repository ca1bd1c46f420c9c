"""`augkit synth make` with pipelines by path: what the store tells, and that shards and kills change no image."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augkit_diffusion import png
from augkit_diffusion.store import Store
from PIL import Image
from safetensors.torch import load_file, save_file
from sd_parts import COUNTS, opened, recipe, save_pipeline, wishes
from synth_parts import begin, synth, tree
from synth_parts import recipe as grouped

TARGET = 11


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("model") / "pipeline")


def words(folder: Path, model: Path, out: str = "synth", source: str = "sd") -> list[str | Path | int]:
    prompts = folder / "prompts.yaml"
    prompts.write_text(
        "negative: blurry\nvalues: {modifier: {red_fox: [wet], cat: [shy, old], dog: [big, small, wet]}}\n"
    )
    asked = ["make", recipe(folder), "--target", TARGET, "--source", source, "--model", model, "--steps", 2]
    return [*asked, "--batch", 4, "--prompts", prompts, "--out", folder / out]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done = synth(*words(folder, model))
    assert done.exit_code == 0, done.output
    return folder / "synth"


def test_each_image_tells_where_it_is_from(whole: Path) -> None:
    rows = Store.open(whole).images()
    assert [sum(row["class"] == name for row in rows) for name in COUNTS] == [TARGET - n for n in COUNTS.values()]
    for row in rows:
        modifier = row["prompt"].removeprefix("a photo of ").removesuffix(row["class"].replace("_", " ")).strip()
        assert modifier in {"red_fox": ["wet"], "cat": ["shy", "old"], "dog": ["big", "small", "wet"]}[row["class"]]
        assert row["negative"] == "blurry" and row["steps"] == 2 and row["guidance"] == 7.5
        assert row["safety_checker"] == "on" and row["precision"] == "float32" and len(row["model"]) == 64
        path = whole / "train" / row["file"]
        facts = png.facts_of(path)
        assert facts is not None and facts["prompt"] == row["prompt"] and facts["model"] == row["model"]
        assert np.asarray(Image.open(path)).shape == (16, 16, 3)
    assert len({row["prompt"] for row in rows if row["class"] == "dog"}) == 3


@pytest.mark.slow
def test_shards_make_the_same_images(tmp_path: Path, model: Path, whole: Path) -> None:
    for shard in ("2/2", "1/2"):
        done = synth(*words(tmp_path, model), "--shard", shard)
        assert done.exit_code == 0, done.output
    assert tree(tmp_path / "synth") == tree(whole)


@pytest.mark.slow
def test_another_precision_or_prompt_is_another_store(whole: Path, model: Path) -> None:
    folder, before = whole.parent, tree(whole)
    for more, told in (
        (["--precision", "bf16"], 'begun with precision: "float32", not "bf16"'),
        (["--option", "template=a {class}"], "begun with prompts:"),
        (["--option", "safety_checker=false"], "safety_checker)"),
        (["--guidance", 3], "begun with guidance: 7.5, not 3.0"),
    ):
        done = synth(*words(folder, model), *more)
        assert done.exit_code == 2 and told in done.output, done.output
    assert tree(whole) == before


@pytest.mark.slow
def test_what_the_safety_checker_flags_is_refused_once(tmp_path: Path, model: Path) -> None:
    strict = shutil.copytree(model, tmp_path / "strict")
    weights = load_file(strict / "safety_checker/model.safetensors")
    weights["concept_embeds_weights"][:] = -2.0
    save_file(weights, strict / "safety_checker/model.safetensors", {"format": "pt"})
    count = sum(TARGET - n for n in COUNTS.values())
    done = synth(*words(tmp_path, strict))
    assert done.exit_code == 0 and f"{count} refused by the model's safety checker" in done.output
    store = Store.open(tmp_path / "synth")
    assert not store.images() and store.manifest().column("prompt").null_count == 0
    assert "0 images made" in synth(*words(tmp_path, strict)).output
    done = synth(*words(tmp_path, strict, "off"), "--option", "safety_checker=false")
    rows = Store.open(tmp_path / "off").images()
    assert len(rows) == count and {row["safety_checker"] for row in rows} == {"off"}


@pytest.mark.slow
def test_translated_images_tell_what_they_begin_with(tmp_path: Path, model: Path) -> None:
    done = synth(*words(tmp_path, model, source="translate"), "--strength", 0.5, "--option", "begin=inter")
    assert done.exit_code == 0, done.output
    source = opened("translate", tmp_path, model, begin="inter")
    for row in Store.open(tmp_path / "synth").images():
        label = list(COUNTS).index(row["class"])
        (wish,) = wishes(source, label, range(row["number"], row["number"] + 1))
        assert row["source_image"] == f"row {wish.row}" and row["begin"] == "inter" and row["strength"] == 0.5


def test_groups_stand_in_prompts(tmp_path: Path, model: Path) -> None:
    asked = ["make", grouped(tmp_path, groups=True), "--target", 2, "--source", "sd", "--model", model, "--steps", 1]
    asked += ["--out", tmp_path / "synth", "--option", "template=a {class} {group}"]
    done = synth(*asked)
    assert done.exit_code == 2 and "but these images are of no group; say --groups" in done.output
    assert not (tmp_path / "synth").exists()
    done = synth(*asked, "--groups")
    assert done.exit_code == 0, done.output
    prompts = {row["prompt"] for row in Store.open(tmp_path / "synth").images()}
    assert prompts == {"a .. on water", "a grün blau on/land", "a grün blau on water"}


def test_a_plan_times_a_few_images_and_writes_nothing(tmp_path: Path, model: Path) -> None:
    asked = words(tmp_path, model)[1:-2]
    before = sorted(tmp_path.rglob("*"))
    done = synth("plan", *asked)
    assert done.exit_code == 0 and "4 images made by sd in" in done.output and sorted(tmp_path.rglob("*")) == before
    done = synth("plan", *asked[:-2], "--option", "template=a {modifier} {class}")
    assert done.exit_code == 2 and "nothing is known of {modifier}" in done.output


def test_a_pipeline_by_path_asks_no_network(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        reached.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **more: refuse(None, address))  # type: ignore[arg-type]
    assert synth(*words(tmp_path, model)).exit_code == 0
    assert reached == []


@pytest.mark.slow
def test_a_kill_changes_no_image(tmp_path: Path, model: Path, whole: Path) -> None:
    asked = words(tmp_path, model)
    first = begin(tmp_path / "first", "synth", *asked)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "synth/train").rglob("*.png")):
        assert time.monotonic() < deadline and first.process.exitcode is None, first.paths[1].read_text()
        time.sleep(0.01)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.join()
    there = tree(tmp_path / "synth")
    status, out, errors = begin(tmp_path / "second", "synth", *asked).wait()
    assert status == 0, errors
    after = tree(tmp_path / "synth")
    assert after == tree(whole) and there.items() < after.items()
    assert f"{len(after) - len(there)} images made" in out
