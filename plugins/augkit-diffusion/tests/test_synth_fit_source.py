"""The source `fit`: what it learns from, what it writes, and what it refuses; a tiny network on real digits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augkit_diffusion.chunks import image_seed
from augkit_diffusion.fit_folder import WEIGHTS
from augkit_diffusion.fit_source import augmentation_of
from augkit_diffusion.learning import CHECKPOINT
from augkit_diffusion.learnt import NOTE
from augkit_diffusion.sources import Context, Source, Wish, open_source
from PIL import Image

from augkit.errors import AugkitError, DataError, StateError
from augkit.lab import seen
from augkit.lab.data import load
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry

QUICK = {"train_steps": 6, "train_batch": 4, "width": 16, "batch": 4, "steps": 3}
DIGITS = ("data.image_size=8",)
FEW = ("data.imbalance=null",)
SYNTHETIC = 5
"""Of the training images of `grouped`."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def context(folder: Path, overrides: tuple[str, ...] = DIGITS, seed: int = 0) -> Context:
    recipe = load_recipe("demo", registry(), overrides)
    return Context(load(recipe.data), recipe, folder, torch.device("cpu"), seed=seed)


def opened(folder: Path, overrides: tuple[str, ...] = DIGITS, seed: int = 0, **options: Any) -> Any:
    return open_source("fit", QUICK | options, context(folder, overrides, seed), registry())


def wishes(label: int, numbers: range, group: int | None = None) -> list[Wish]:
    of_group = None if group is None else f"place {group}"
    return [
        Wish(label, str(label), k, image_seed(0, str(label), of_group, k), group=group, group_name=of_group)
        for k in numbers
    ]


def made(source: Source, wished: list[Wish]) -> np.ndarray:
    images = source.make(wished)
    assert all(image is not None for image in images)
    return np.stack([image for image in images if image is not None])


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's folder in which a source has learnt."""
    folder = tmp_path_factory.mktemp("store")
    opened(folder).identity()
    return folder


@pytest.fixture
def store(learnt: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    shutil.copytree(learnt, tmp_path / "store")
    return tmp_path / "store"


def grouped(path: Path) -> tuple[str, ...]:
    """Two classes in three groups, with no image of class 1 in group 2; the last training images are generated."""
    random = np.random.RandomState(0)
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1] + [0] * SYNTHETIC)
    groups = np.array([0, 0, 0, 1, 1, 2, 0, 0, 1] + [2] * SYNTHETIC)
    images = random.randint(0, 256, (len(labels), 8, 8, 3)).astype(np.uint8)
    parts: dict[str, Any] = {"train_synthetic": np.arange(len(labels)) >= len(labels) - SYNTHETIC}
    for split in ("train", "test"):
        parts |= {f"{split}_images": images, f"{split}_labels": labels, f"{split}_groups": groups}
    np.savez(path, **parts, class_names=["0", "1"], group_names=["place 0", "place 1", "place 2"])
    return (f"data.source={path}", "data.imbalance=null", "data.image_size=8")


def test_it_learns_once_and_says_of_what_pixels_depend(learnt: Path) -> None:
    told: list[tuple[str, int, int]] = []
    here = replace(context(learnt), progress=lambda *what: told.append(what))
    source: Any = open_source("fit", QUICK, here, registry())
    identity = source.identity()
    assert not told  # it was learnt before
    assert json.loads(json.dumps(identity)) == identity and len(identity["model"]) == 64
    assert identity | {"model": ""} == {
        "model": "",
        "size": 8,
        "steps": 3,
        "guidance": 1.5,
        "precision": "float32",
        "batch": 4,
    }
    assert source.ready and not (learnt / "model" / CHECKPOINT).exists()


def test_images_have_the_datas_size_and_their_own_seed(learnt: Path) -> None:
    source = opened(learnt)
    images = made(source, wishes(3, range(4)))
    assert images.shape == (4, 8, 8, 3) and images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 4
    assert np.array_equal(images, made(opened(learnt), wishes(3, range(4))))
    assert np.array_equal(images[:3], made(source, wishes(3, range(3))))  # filled up to a whole batch
    assert np.array_equal(images[:1], made(source, wishes(3, range(1)) + wishes(5, range(7, 10)))[:1])
    assert np.array_equal(made(source, wishes(3, range(8)))[:4], images)


@pytest.mark.slow
def test_what_was_learnt_is_a_function_of_data_options_and_seed(learnt: Path, tmp_path: Path) -> None:
    model = opened(learnt).identity()["model"]
    assert opened(tmp_path / "again", checkpoint_seconds=1e-3).identity()["model"] == model
    assert opened(tmp_path / "seed", seed=1).identity()["model"] != model
    assert opened(tmp_path / "data", (*DIGITS, "data.subset_seed=1")).identity()["model"] != model


def test_how_it_samples_may_change_and_what_it_learnt_may_not(learnt: Path) -> None:
    assert opened(learnt, steps=5, guidance=1.0, batch=2, checkpoint_seconds=5.0).ready
    with pytest.raises(StateError, match=r"learnt with network\.width 16, not 32; go on with its own settings"):
        opened(learnt, width=32)
    with pytest.raises(StateError, match=r"learnt with training\.exponent 0\.5, not 0\.0"):
        opened(learnt, exponent=0.0)
    with pytest.raises(StateError, match=r"learnt from other real images, .* sources\.tuning"):
        opened(learnt, (*DIGITS, "data.subset_seed=1"))
    with pytest.raises(StateError, match=r"learnt with augmentation"):
        opened(learnt, shift=3)


def test_another_store_can_take_over_what_was_learnt(learnt: Path, tmp_path: Path) -> None:
    """The network is trained once; the weights, and so the images, are the same."""
    told: list[str] = []
    here = replace(context(tmp_path / "other"), progress=lambda what, done, of: told.append(what))
    source: Any = open_source("fit", QUICK | {"learnt": str(learnt), "steps": 5}, here, registry())
    assert source.ready and not (tmp_path / "other").exists()
    made(source, wishes(3, range(4)))
    assert not (tmp_path / "other").exists()  # a plan only reads
    assert source.identity() == opened(learnt, steps=5).identity() and not told
    assert np.array_equal(
        made(opened(tmp_path / "other"), wishes(3, range(4))), made(opened(learnt), wishes(3, range(4)))
    )
    with pytest.raises(StateError, match=r"learnt with network\.width 16, not 32; .* or leave out the option learnt"):
        opened(tmp_path / "third", learnt=str(learnt), width=32)
    with pytest.raises(DataError, match="nothing was learnt here to its end; give a store whose source has learnt"):
        opened(tmp_path / "third", learnt=str(tmp_path / "nowhere"))
    assert not (tmp_path / "third").exists()


def test_a_model_of_other_images_is_not_taken_over(tmp_path: Path) -> None:
    """Of files, too, which are not in memory; and what was taken over stays, even without the other store."""
    for name, split, label in product(("one", "two"), ("train", "test"), "ab"):
        folder = tmp_path / name / split / label
        folder.mkdir(parents=True)
        Image.effect_noise((9, 9), 50 if name == "one" else 0).save(folder / "0.png")
    one, two = ((*DIGITS, f"data.source={tmp_path / name}", "data.memory=0", *FEW) for name in ("one", "two"))
    model = opened(tmp_path / "first", one).identity()["model"]
    with pytest.raises(StateError, match="learnt from other real images"):
        opened(tmp_path / "other", two, learnt=str(tmp_path / "first"))
    again = opened(tmp_path / "second", one, learnt=str(tmp_path / "first"))
    assert again.identity()["model"] == model
    (tmp_path / "first").rename(tmp_path / "moved")
    assert opened(tmp_path / "second", one, learnt=str(tmp_path / "first")).identity()["model"] == model


def test_a_store_notes_all_images_that_a_model_it_takes_over_was_learnt_from(tmp_path: Path) -> None:
    """Known by their pixels; a model of others is refused, even if their files are as large."""
    for name, overrides in (("one", DIGITS), ("two", (*DIGITS, "data.subset_seed=1"))):
        (tmp_path / name).mkdir()
        seen.write(tmp_path / name, context(tmp_path, overrides).data)
    with pytest.raises(DataError, match=r"\d+ of 328 real images .* its model is of other images; leave out"):
        seen.add(tmp_path / "one", tmp_path / "two")
    both = [np.load(tmp_path / name / seen.NOTE) for name in ("one", "two")]
    np.save(tmp_path / "two" / seen.NOTE, np.union1d(*both))
    seen.add(tmp_path / "one", tmp_path / "two")
    assert np.array_equal(np.load(tmp_path / "one" / seen.NOTE), np.union1d(*both))
    seen.add(tmp_path / "one", tmp_path / "gone")


def test_a_note_without_the_images_serves_its_own_store_alone(store: Path, tmp_path: Path) -> None:
    """So earlier versions wrote them."""
    note = json.loads((store / "model" / NOTE).read_text())
    del note["settings"]["data"]["images"]
    (store / "model" / NOTE).write_text(json.dumps(note))
    assert opened(store).ready and opened(store).identity()["model"]
    with pytest.raises(DataError, match="an earlier version learnt this, and did not note from which images"):
        opened(tmp_path / "other", learnt=str(store))


def test_what_was_learnt_before_the_note_had_its_name_is_known(store: Path) -> None:
    (store / "model" / NOTE).rename(store / "model/fit.json")
    assert opened(store).ready and opened(store).identity()["model"]


def test_a_rehearsal_times_steps_and_writes_nothing(tmp_path: Path) -> None:
    source = opened(tmp_path / "store", train_steps=50)
    lesson = source.rehearse()
    assert (lesson.steps, lesson.left) == (50, 50) and 0 < lesson.seconds < 5
    assert made(source, wishes(3, range(2))).shape == (2, 8, 8, 3)
    assert not (tmp_path / "store").exists()


def test_diffusers_reads_the_folder(learnt: Path) -> None:
    source = opened(learnt)
    from diffusers import DDIMScheduler, UNet2DModel

    model = UNet2DModel.from_pretrained(learnt / "model", local_files_only=True, use_safetensors=True)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, source.model.get_parameter(name))
    assert DDIMScheduler.from_pretrained(learnt / "model").config["prediction_type"] == "v_prediction"
    assert not [p for p in (learnt / "model").iterdir() if p.suffix not in (".json", ".safetensors")]


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "missing"])
def test_damaged_weights_are_one_sentence(store: Path, damage: str) -> None:
    path = store / "model" / WEIGHTS
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[:-100], "empty": b"", "changed": whole[:-1] + bytes([whole[-1] ^ 1])}[damage])
    expected = "not the weights that learnt.json tells of" if damage == "changed" else "not a readable safetensors file"
    with pytest.raises(StateError, match=rf"{expected}.*; remove .*model to learn anew$"):
        opened(store).identity()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"settings": 1, "model": null}', '{"settings": {}, "model": 3}'])
def test_a_damaged_note_is_one_sentence(store: Path, text: str) -> None:
    (store / "model" / NOTE).write_text(text)
    with pytest.raises(StateError, match=r"does not tell what was learnt here; remove .*model to learn anew$"):
        opened(store)


@pytest.mark.slow
def test_a_learnt_model_survives_a_kill_before_its_note(store: Path) -> None:
    """Weights without the hash in the note are not trusted: it learns again, and finds the same."""
    note = store / "model" / NOTE
    before = json.loads(note.read_text())
    note.write_text(json.dumps(before | {"model": None}))
    (store / "model" / WEIGHTS).write_bytes(b"half")
    source = opened(store)
    assert not source.ready and source.identity()["model"] == before["model"]


def test_groups_are_labels_of_their_own_and_synthetic_images_are_not_learnt(tmp_path: Path) -> None:
    source = opened(tmp_path, grouped(tmp_path / "data.npz"))
    assert source.counts.tolist() == [3, 2, 1, 2, 1, 0] and source.shape.labels == 6
    assert [source.label(wish) for wish in wishes(1, range(1), group=1)] == [4]
    drawn = [source.label(wish) for wish in wishes(0, range(600))]
    shares = np.bincount(drawn, minlength=6) / len(drawn)
    assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0, 0, 0], abs=0.06)
    assert made(source, wishes(0, range(2), group=2)).shape == (2, 8, 8, 3)
    with pytest.raises(DataError, match=r'no real training image shows class "1" in group "place 2", so fit cannot'):
        source.make(wishes(1, range(1), group=2))
    with pytest.raises(DataError, match="fit cannot learn it"):
        source.complete(wishes(1, range(1), group=2)[0])  # told before anything is learnt


def test_only_flips_and_half_the_shift_of_the_base_are_learnt_from() -> None:
    def steps(*before: Any, after: tuple[Any, ...] = (), shift: int | None = None) -> list[Any]:
        recipe = load_recipe({"augkit": 1, "name": "x", "base": {"before": before, "after": after}}, registry())
        return augmentation_of(recipe, shift)

    erased = {"cutout": {"length": 16}}
    assert steps({"random_crop": {"padding": 4}}, "hflip", after=(erased,)) == [
        {"hflip": {"p": 0.5}},
        {"random_crop": {"padding": 2}},
    ]
    assert steps({"random_crop": {"padding": 1}}) == [{"random_crop": {"padding": 1}}]
    assert steps("random_crop", shift=0) == [] and steps(after=(erased,)) == []
    assert steps(after=(erased,), shift=3) == [{"random_crop": {"padding": 3}}]


def test_wrong_options_are_told_with_the_nearest_one(tmp_path: Path) -> None:
    for options, sentence in (
        ({"train_step": 10}, r'"train_step" here\. Did you mean "train_steps"\?'),
        ({"width": 20}, r"multiple of 16"),
        ({"guidance": -1.0}, "greater than or equal to 0"),
        ({"precision": "fp8"}, "'auto', 'float32' or 'bf16'"),
    ):
        with pytest.raises(AugkitError, match=sentence):
            opened(tmp_path, **options)
    assert not (tmp_path / "model").exists()
