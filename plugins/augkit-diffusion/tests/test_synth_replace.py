"""Replacement tests put synthetic images in real ones' places, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from augkit_diffusion.making import real_only
from augkit_diffusion.replacing import Images, Variant, opened, variants
from augkit_diffusion.request import read_seeds
from augkit_diffusion.store import Store
from filter_parts import DIGITS, digits_store
from synth_parts import synth

from augkit.errors import AugkitError, DataError
from augkit.lab import seen
from augkit.lab.recipe import Recipe

RECIPE = Recipe(augkit=1, name="digits", data=DIGITS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """12 synthetic images of each class; of class 9 they are noise."""
    store = digits_store(tmp_path_factory.mktemp("store") / "synth", planted=())
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        store.write(store.wish(9, None, number), noise, {"source": "test"})
    store.rebuild()
    seen.write(store.folder, None)  # what stands for made images here are real ones that nothing trains on
    return store


@pytest.fixture(scope="module")
def images(store: Store) -> Images:
    return opened(store, RECIPE)


def test_only_the_share_of_these_classes_is_replaced(images: Images) -> None:
    real = images.of(None)
    labels = real["train_labels"]
    before: set[int] = set()
    for share in (0.25, 0.5, 1.0):
        found = images.of(Variant("x", (8, 9), share))
        assert all(np.array_equal(real[name], found[name]) for name in real if name != "train_images")
        changed = np.flatnonzero((real["train_images"] != found["train_images"]).any((1, 2, 3)))
        by_class = {c: int((labels[changed] == c).sum()) for c in range(10)}
        assert by_class == {c: round(share * int((labels == c).sum())) if c in (8, 9) else 0 for c in range(10)}
        assert before <= set(changed.tolist())
        before = set(changed.tolist())


def test_what_is_put_in_is_the_stores(store: Store, images: Images) -> None:
    found = images.of(Variant("x", (9,), 1.0))
    put = {image.tobytes() for image in found["train_images"][found["train_labels"] == 9]}
    made = {np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8).tobytes() for k in range(12)}
    assert len(put) == 7 and put <= made


def test_left_out_is_left_out(images: Images) -> None:
    real, found = images.of(None), images.of(Variant("x", (7,), 0.5, drop=True))
    assert len(found["train_labels"]) == len(real["train_labels"]) - round(0.5 * 13)
    assert {image.tobytes() for image in found["train_images"]} <= {image.tobytes() for image in real["train_images"]}


def test_variants_are_classes_by_shares(images: Images) -> None:
    found = variants(["few", "0,1", "all"], [0.5, 1.0], True, images.data)
    assert [v.name for v in found][:3] == ["few 50%", "few 50% left out", "few 100%"] and len(found) == 9
    assert found[0].labels == (6, 7, 8, 9) and found[3].labels == (0, 1) and found[-1].labels == tuple(range(10))
    assert [v.name for v in variants([], [1.0], False, images.data)] == ["many 100%", "medium 100%", "few 100%"]
    with pytest.raises(AugkitError, match=r'there is no class "ten"'):
        variants(["ten"], [1.0], False, images.data)
    with pytest.raises(AugkitError, match="asked for twice"):
        variants(["0", "0"], [1.0], False, images.data)


def test_too_few_synthetic_images_are_told(images: Images) -> None:
    with pytest.raises(DataError, match=r'class "0" has 12 synthetic images for 142 real ones .* make more'):
        images.of(Variant("x", (0,), 1.0))


@pytest.mark.slow
def test_good_images_can_stand_in_and_noise_cannot(store: Store, tmp_path: Path) -> None:
    recipe = {"augkit": 1, "name": "digits", "model": "resnet8_cifar", "epochs": 8, "batch_size": 32, "threads": 1}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe | {"data": {"source": "digits", "imbalance": 20}, "loss": "balanced_softmax"}))
    words = [
        "replace",
        path,
        store.folder,
        "--out",
        tmp_path / "out",
        "--classes",
        "8",
        "--classes",
        "9",
        "--seeds",
        "1,0",
    ]
    with processes.forked_workers():
        result = synth(*words, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    rows = {row["variant"]: row for row in found["rows"]}
    assert list(rows) == ["real", "8 100%", "9 100%"] and not found["failed"]
    assert rows["9 100%"]["in_replaced"]["mean"] < -30 < rows["8 100%"]["in_replaced"]["mean"]
    assert rows["9 100%"]["replaced_images"] == 7 and abs(rows["9 100%"]["in_others"]["mean"]) < 10
    assert {path.name for path in (tmp_path / "out/data").iterdir()} == {"real.npz", "8-100.npz", "9-100.npz"}
    lines = result.stderr.count("\n")
    again = synth(*words, "--json")
    assert again.exit_code == 0 and again.stdout == result.stdout and lines == 6 and again.stderr == ""
    record = tmp_path / "out/done/9-100-seed1.json"
    noted = json.loads(record.read_text())
    record.write_text(json.dumps(noted | {"result": noted["result"] | {"value": None, "reason": "the disk was full"}}))
    third = synth(*words, "--json")
    assert third.stdout == result.stdout and third.stderr.count("9-100-seed1") == 1  # what failed is tried again
    other = synth(*words, "--set", "epochs=9")
    assert other.exit_code == 2 and "this test was begun with other recipe" in other.stderr
    assert "which means" in synth(*words).stdout


@pytest.mark.parametrize(
    ("seeds", "says"), [("0.5", 'not "0.5"'), ("0", "--seeds 0: say how many, 1 to 1000"), ("a,b", "not")]
)
def test_seeds_are_said_as_in_a_comparison(store: Store, tmp_path: Path, seeds: str, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("augkit: 1\nname: digits\ndata: {source: digits, imbalance: 20}\n")
    told = synth("replace", path, store.folder, "--out", tmp_path / "out", "--seeds", seeds)
    assert told.exit_code == 2 and "--seeds" in told.stderr and says in told.stderr, told.output
    assert read_seeds("2") == [0, 1] and read_seeds("5,0,5") == [5, 0] and read_seeds("4,") == [4]


def test_sources_of_a_recipe_are_not_real(store: Store) -> None:
    from augkit.lab.recipe_parts import SourcesRecipe

    recipe = RECIPE.model_copy(update={"sources": SourcesRecipe(folder=str(store.folder))})
    assert len(opened(store, real_only(recipe)).of(None)["train_labels"]) == 478
