"""The source `adapt`: what it learns, that a kill changes nothing of it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augkit_diffusion import adapt_training
from augkit_diffusion.adapt_training import WEIGHTS, Training
from augkit_diffusion.learning import CHECKPOINT
from augkit_diffusion.learnt import NOTE
from augkit_diffusion.sources import Context, open_source
from PIL import Image
from safetensors.numpy import load_file, save_file
from sd_parts import made, opened, recipe, save_pipeline, wishes
from synth_parts import synth

from augkit.errors import AugkitError, StateError
from augkit.lab import seen
from augkit.lab.data import load
from augkit.lab.folder import write_json
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry

QUICK = {"train_steps": 6, "train_batch": 2, "lr": 1e-2, "rank": 2, "checkpoint_seconds": 1e-6}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("model") / "pipeline", checker=False)


def adapt(folder: Path, model: Path, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return opened("adapt", folder, model, **QUICK | options)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("learnt")
    adapt(folder, model).identity()
    return folder


@pytest.mark.slow
def test_what_is_learnt_changes_images_and_is_small(tmp_path: Path, model: Path, learnt: Path) -> None:
    source, plain = adapt(learnt, model), opened("sd", tmp_path, model)
    wished = wishes(source, 1, range(3))
    assert source.ready and wished == wishes(plain, 1, range(3))
    assert not np.array_equal(made(source, wished), made(plain, wished))
    weights = load_file(learnt / "synth/model" / WEIGHTS)
    assert all(name.startswith("unet.") and "lora" in name for name in weights)
    assert all(np.abs(value).max() > 0 for value in weights.values()), "some layer was not trained"
    assert (learnt / "synth/model" / WEIGHTS).stat().st_size < 0.2 * sum(
        path.stat().st_size for path in model.rglob("*.safetensors")
    )
    identity = source.identity()
    assert identity["adapted_from"] == plain.identity()["model"] != identity["model"]
    assert not (learnt / "synth/model" / CHECKPOINT).exists()


@pytest.mark.slow
def test_diffusers_reads_what_was_learnt(tmp_path: Path, model: Path, learnt: Path) -> None:
    """With its own two calls, and no help of ours."""
    from diffusers import StableDiffusionPipeline

    source = adapt(learnt, model, size="model")
    images = made(source, wishes(source, 0, range(3)))
    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipe.load_lora_weights(learnt / "synth/model")
    pipe.set_progress_bar_config(disable=True)
    other = opened("sd", tmp_path, model, size="model")
    other.pipeline.pipe = pipe
    assert np.array_equal(images, made(other, wishes(other, 0, range(3))))


@pytest.mark.slow
def test_the_loss_of_what_is_learnt_falls(tmp_path: Path, model: Path) -> None:
    """Over the same steps before and after, on networks with random weights."""
    source = adapt(tmp_path, model, train_steps=25, train_batch=4)
    training = Training(source._pipeline(), source.plan, source._material(None), source._captions())

    def loss() -> float:
        weights = {name: weight.detach().clone() for name, weight in training.weights.items()}
        optimizer, step = training.optimizer.state_dict(), training.step
        training.optimizer.param_groups[0]["lr"] = 0.0
        training.step = 0
        training.told()
        for _ in range(4):
            training.advance()
        found = training.told()
        for name, weight in training.weights.items():
            assert np.allclose(weight.detach(), weights[name], atol=1e-6)
        training.optimizer.load_state_dict(optimizer)
        training.optimizer.param_groups[0]["lr"] = source.plan.lr
        training.step = step
        return found

    before = loss()
    for _ in range(25):
        training.advance()
    after = loss()
    assert after < 0.97 * before, after / before


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"text_encoder": True, "token": "sks", "prior": 1.0}, {"each": "class", "train_steps": 3}]
)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    whole = adapt(tmp_path / "whole", model, **options).identity()
    advance, seen = Training.advance, [0]

    def stopping(training: Training) -> None:
        seen[0] += 1
        if seen[0] in (2, 5, 12):
            raise KeyboardInterrupt
        advance(training)

    monkeypatch.setattr(adapt_training.Training, "advance", stopping)
    stops = 0
    while True:
        source = adapt(tmp_path / "stopped", model, **options)
        assert not source.ready
        try:
            found = source.identity()
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2 and found == whole and source.ready
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob(WEIGHTS))
    assert len(files) == (3 if options.get("each") else 1)
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "stopped" / file).read_bytes()


@pytest.mark.slow
def test_a_stop_before_the_note_is_written_loses_no_training(
    tmp_path: Path, model: Path, learnt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(path: Path, content: Any) -> None:
        if path.name == NOTE and content["model"] is not None:
            raise KeyboardInterrupt
        write_json(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("augkit.lab.folder.write_json", stopping)
        with pytest.raises(KeyboardInterrupt):
            adapt(tmp_path, model).identity()

    def training(training: Training) -> None:
        raise AssertionError("it trains again")

    monkeypatch.setattr(Training, "advance", training)
    source = adapt(tmp_path, model)
    assert not source.ready and source.identity() == adapt(learnt, model).identity()
    assert not (tmp_path / "synth/model" / CHECKPOINT).exists()


@pytest.mark.slow
def test_weights_of_another_training_are_not_used(tmp_path: Path, model: Path, learnt: Path) -> None:
    copy = shutil.copytree(learnt, tmp_path / "copy")
    file = copy / "synth/model" / WEIGHTS
    save_file({name: 2 * value for name, value in load_file(file).items()}, file)
    source = adapt(copy, model)
    with pytest.raises(StateError, match=r"not the weights that were learnt; remove .*model to learn anew"):
        source.make(wishes(source, 0, range(3)))


@pytest.mark.slow
def test_each_class_can_have_weights_of_its_own(tmp_path: Path, model: Path) -> None:
    source = adapt(tmp_path, model, each="class", train_steps=1, lr=0.1)
    source.identity()
    folders = sorted(path.parent.name for path in (tmp_path / "synth/model").rglob(WEIGHTS))
    assert folders == ["cat", "dog", "red_fox"]
    mixed = [
        wish for pair in zip(wishes(source, 0, range(3)), wishes(source, 1, range(3)), strict=True) for wish in pair
    ]
    apart = {label: made(source, wishes(source, label, range(3))) for label in (0, 1)}
    again = made(source, mixed)
    for label in (0, 1):
        near = np.abs(again[label::2].astype(int) - apart[label])
        assert near.max() <= 2, "another class's weights were used"


@pytest.mark.slow
@pytest.mark.parametrize("each", ["all", "class"])
def test_another_store_can_take_over_what_was_learnt(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, each: str
) -> None:
    options: dict[str, Any] = {"each": each, "train_steps": 2}
    first = adapt(tmp_path / "first", model, **options)
    lesson = first.rehearse()
    assert lesson.steps == lesson.left == (2 if each == "all" else 6) and made(first, wishes(first, 0, range(2))).any()
    assert not (tmp_path / "first/synth").exists()
    first = adapt(tmp_path / "first", model, **options)
    identity = first.identity()

    def training(training: Training) -> None:
        raise AssertionError("it trains again")

    monkeypatch.setattr(Training, "advance", training)
    options["learnt"] = str(tmp_path / "first/synth")
    second = adapt(tmp_path / "second", model, **options)
    assert second.ready and np.array_equal(
        made(first, wishes(first, 1, range(3))), made(second, wishes(second, 1, range(3)))
    )
    assert not (tmp_path / "second/synth").exists()
    assert second.identity() == identity and len(list((tmp_path / "second").rglob(NOTE))) == (1 if each == "all" else 3)
    with pytest.raises(StateError, match=r"training.rank 2, not 3; .* or leave out the option learnt"):
        adapt(tmp_path / "third", model, **options | {"rank": 3})


@pytest.mark.slow
def test_a_model_that_learnt_from_what_now_validates_is_not_taken_over(tmp_path: Path, model: Path) -> None:
    """Class folders give the same labels and the same subset, whatever images of it are held out."""
    random = np.random.default_rng(0)
    for split, name, number in product(("train", "test"), ("a", "b"), range(6)):
        (tmp_path / "data" / split / name).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image.save(tmp_path / "data" / split / name / f"{number}.png")
    words: list[str | Path | int] = ["make", "demo", "--source", "adapt", "--model", model, "--steps", 1, "--target", 1]
    for one in ("train_steps=1", "train_batch=2"):
        words += ["--option", one]
    held_out = "data.validation_per_class=3"
    for one in (f"data.source={tmp_path / 'data'}", "data.image_size=16", "data.imbalance=null", held_out):
        words += ["--set", one]
    done = synth(*words, "--out", tmp_path / "one")
    assert done.exit_code == 0, done.output
    taught = ("--option", f"learnt={tmp_path / 'one'}")
    other = synth(*words, *taught, "--set", "data.subset_seed=1", "--out", tmp_path / "other")
    assert other.exit_code == 2 and "learnt from other real images" in other.stderr, other.output
    noted = np.load(tmp_path / "one" / seen.NOTE)
    np.save(tmp_path / "one" / seen.NOTE, np.append(noted, np.uint64(7)))
    done = synth(*words, *taught, "--out", tmp_path / "two")
    assert done.exit_code == 0, done.output
    assert set(np.load(tmp_path / "two" / seen.NOTE).tolist()) == {7, *noted.tolist()}
    own = json.loads((tmp_path / "one/model" / NOTE).read_text())["settings"]["data"]["images"]
    (tmp_path / "one").rename(tmp_path / "moved")
    done = synth(*words, *taught, "--out", tmp_path / "two")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "two/model" / NOTE).read_text())["settings"]["data"]["images"] == own


def test_only_what_a_model_learns_from_decides_whether_it_is_taken_over(tmp_path: Path, model: Path) -> None:
    """Held-out images do not, and flips of training images do."""

    def context(name: str, tested: int, base: dict[str, Any]) -> Context:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        path = recipe(folder)
        kept = dict(np.load(folder / "data.npz"))
        np.savez(folder / "data.npz", **kept | {part: kept[part][:tested] for part in ("test_images", "test_labels")})
        read = load_recipe(path, registry(), [f"base={json.dumps(base)}"])
        return Context(load(read.data), read, folder / "synth", torch.device("cpu"))

    def other(name: str, tested: int, base: dict[str, Any], **options: Any) -> Any:
        told = {"model": str(model), "steps": 2, "batch": 3, **QUICK, "train_steps": 1}
        return open_source("adapt", told | options, context(name, tested, base), registry())

    flips = {"before": ["hflip"]}
    identity = other("first", 16, flips).identity()
    taught = {"learnt": str(tmp_path / "first/synth")}
    assert other("second", 9, flips, **taught).identity() == identity
    with pytest.raises(StateError, match="this model was learnt with augmentation"):
        other("third", 16, {"before": []}, **taught)
    note = tmp_path / "first/synth/model" / NOTE  # as an earlier version wrote it
    told = json.loads(note.read_text())
    del told["settings"]["augmentation"], told["settings"]["data"]["sha256"]
    told["settings"]["data"] |= {"subset": "a", "labels": "b"}
    note.write_text(json.dumps(told))
    assert other("fourth", 9, flips, **taught).identity() == identity


@pytest.mark.slow
def test_training_and_sampling_work_in_half_precision(tmp_path: Path, model: Path) -> None:
    source = adapt(tmp_path, model, precision="bf16", train_steps=2)
    assert source.identity()["precision"] == "bf16"
    assert {str(value.dtype) for value in load_file(tmp_path / "synth/model" / WEIGHTS).values()} == {"float32"}
    assert made(source, wishes(source, 0, range(3))).std() > 1


def test_a_token_stands_before_the_class_in_captions_and_prompts(tmp_path: Path, model: Path) -> None:
    source = adapt(tmp_path, model, token="sks", learnt_as="{class}, a photo", template="a {class}!")
    assert [wish.prompt for wish in wishes(source, 0, range(1))] == ["a sks red fox!"]
    captions = source._captions()
    assert captions.learnt[0] == "sks red fox, a photo" and captions.before[0] == "red fox, a photo"


@pytest.mark.slow
def test_what_was_learnt_otherwise_or_is_damaged_is_told(tmp_path: Path, model: Path, learnt: Path) -> None:
    with pytest.raises(StateError, match=r"learnt with training.rank 2, not 3; go on with its own settings"):
        adapt(learnt, model, rank=3)
    copy = shutil.copytree(learnt, tmp_path / "copy")
    file = copy / "synth/model" / WEIGHTS
    file.write_bytes(file.read_bytes()[:100])
    source = adapt(copy, model)
    with pytest.raises(StateError, match=r"not the weights that were learnt; remove .*model to learn anew"):
        source.make(wishes(source, 0, range(3)))
    note = json.loads((copy / "synth/model" / NOTE).read_text())
    (copy / "synth/model" / NOTE).write_text(json.dumps(note | {"model": None}))
    save_file({"x": np.zeros(1)}, copy / "synth/model" / CHECKPOINT, {"step": "3", "mark": "another"})
    with pytest.raises(StateError, match="of a training with other settings; remove it to train anew"):
        adapt(copy, model).identity()


def test_what_it_cannot_adapt_is_told_before_anything_is_written(tmp_path: Path, model: Path) -> None:
    with pytest.raises(AugkitError, match="say --option token=WORD"):
        adapt(tmp_path, model, prior=1.0)
    with pytest.raises(AugkitError, match=r"nothing is known of \{modifier\}"):
        adapt(tmp_path, model, learnt_as="a {modifier} {class}")
    other = shutil.copytree(model, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(index | {"text_encoder_2": index["text_encoder"]}))
    shutil.copytree(other / "text_encoder", other / "text_encoder_2")
    with pytest.raises(AugkitError, match="knows pipelines built as Stable Diffusion 1 and 2 are"):
        adapt(tmp_path, other)
    assert not (tmp_path / "synth").exists()
