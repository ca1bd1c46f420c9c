"""The page about a store says what is true of it, and shows it."""

from __future__ import annotations

import html.parser
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augkit_diffusion import telling_apart
from augkit_diffusion.evidence import Evidence
from augkit_diffusion.look import Seen, facts
from augkit_diffusion.store import Store
from filter_parts import DIGITS, GOOD, digits_store, named
from PIL import Image
from synth_parts import synth, tree

UNSEEN = "are not seen to be told apart: the interval holds 50 %"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with copies of training images, noise and blank images; the blank ones are filtered out."""
    folder = tmp_path_factory.mktemp("store") / "a <b> & c"
    digits_store(folder, ("blank", "copy", "noise", "broken"))
    assert synth("filter", folder, "--blank").exit_code == 0
    result = synth("look", folder)
    assert result.exit_code == 0 and result.stdout.replace("\n", "") == str(folder / "look/index.html")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "look/results.json").read_text())
    return found


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_the_page_needs_nothing_but_its_folder(folder: Path) -> None:
    page = Page((folder / "look/index.html").read_text())
    assert not {tag for tag, _ in page.tags} & {"iframe", "b>"}
    asked = [named[name] for tag, named in page.tags for name in ("src", "href") if name in named and tag != "img"]
    assert set(asked) == {"data:,", "#content"}
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 5 + 10 * 3 + 12 and len(set(pictures)) == len(pictures)
    there = {path.name for path in (folder / "look").iterdir()}
    assert there == {*pictures, "index.html", "results.json"}
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert "a <b> & c" in page.text and "http" not in (folder / "look/index.html").read_text()


@pytest.mark.slow
def test_it_counts(results: dict[str, Any]) -> None:
    assert results["total"] == {"real": 478, "kept": 10 * (GOOD + 2), "rejected": 20, "refused": 0}
    assert [row["real"] for row in results["classes"]] == sorted((r["real"] for r in results["classes"]), reverse=True)
    assert all(row["kept"] == GOOD + 2 and row["rejected"] == 2 for row in results["classes"])
    assert all(row["copies"] == pytest.approx(1 / (GOOD + 2)) for row in results["classes"])
    assert {one["name"]: one["rejected"] for one in results["filters"]} == {"broken": 10, "blank": 10}


@pytest.mark.slow
def test_copies_are_shown_beside_what_they_copy(folder: Path, results: dict[str, Any]) -> None:
    store = Store.open(folder)
    first = results["pairs"][:10]
    assert {pair["file"] for pair in first} == named(store, "copy") and all(p["correlation"] > 0.99 for p in first)
    assert all(pair["class"] == pair["file"][0] for pair in first)
    by_limit = {row["at_least"]: row for row in results["near"]["shares"]}
    assert by_limit[0.99]["synthetic"] == pytest.approx(10 / 140)
    with Image.open(folder / "look/pair-00.png") as image:
        one, other = np.asarray(image)[:, :64].astype(int), np.asarray(image)[:, 67:].astype(int)
        assert np.abs(one - other).mean() < 6


@pytest.mark.slow
def test_a_look_changes_nothing_else_and_is_the_same_again(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    before = tree(copy)
    manifest = (copy / "manifest.parquet").read_bytes()
    shutil.rmtree(copy / "look")
    (copy / "look").mkdir()
    (copy / "look/old.png").write_bytes(b"of an earlier look")
    assert synth("look", copy).exit_code == 0
    assert tree(copy) == before and (copy / "manifest.parquet").read_bytes() == manifest
    for path in (folder / "look").iterdir():
        if path.suffix != ".html":
            ours = path.read_bytes().replace(str(folder).encode(), str(copy).encode())
            assert (copy / "look" / path.name).read_bytes() == ours, path.name
    assert not (copy / "look/old.png").exists()


@pytest.mark.slow
def test_there_must_be_something_to_look_at(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    store = Store.open(copy)
    store.reject("mine", [row["file"] for row in store.images()])
    result = synth("look", copy)
    assert result.exit_code == 2 and "no image of this store is kept" in result.stderr
    assert "--map is tsne or pca" in synth("look", copy, "--map", "umap").stderr


@pytest.mark.slow
def test_real_images_held_out_show_what_the_viewer_alone_tells_apart(tmp_path: Path) -> None:
    store = digits_store(tmp_path / "synth", (), real=DIGITS.model_copy(update={"validation_per_class": 5}))
    found = facts(Seen(store, Evidence(store, store.images(rejected=True))))
    assert found["control"]["images"] == 2 * 10 * 5 and found["control"]["words"] == UNSEEN
    assert found["domain"]["words"] == UNSEEN  # the store's images are real ones here


# telling apart


def sides(gap: float, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two sides of normal points in 3 classes, one of them moved by `gap` standard deviations."""
    random = np.random.default_rng(5)
    labels, others = random.integers(0, 3, (2, count))
    one, other = random.normal(size=(2, count, 8)) + np.stack([labels, others])[..., None] * 3
    return one, labels, other + np.eye(8)[0] * gap, others


@pytest.mark.slow
def test_what_is_alike_is_told_apart_half_of_the_time() -> None:
    found = telling_apart.tell_apart(*sides(0.0))
    assert found is not None
    told = telling_apart.told(found[0], found[2])
    assert told.low < 0.5 < told.high and told.words == UNSEEN


@pytest.mark.slow
def test_what_differs_is_told_apart_as_well_as_can_be() -> None:
    found = telling_apart.tell_apart(*sides(2.0))
    assert found is not None
    told = telling_apart.told(found[0], found[2])  # no one can do better than Phi(1) = 0.841
    assert abs(told.accuracy - 0.841) < 0.04 and told.words == "can be told apart"
    assert (
        told.error == pytest.approx(found[2] * np.sqrt(told.accuracy * (1 - told.accuracy) / told.images))
        and found[2] < 2.5
    )


@pytest.mark.slow
def test_intervals_hold_what_they_promise() -> None:
    """Nothing differs, so the interval should leave 50 % out one time in twenty."""
    outside = 0
    for seed in range(24):
        random = np.random.default_rng(seed)
        one, other = random.normal(size=(2, 60, 20))
        labels = np.arange(60) % 3
        found = telling_apart.tell_apart(one, labels, other, labels)
        assert found is not None
        told = telling_apart.told(found[0], found[2])
        outside += not told.low <= 0.5 <= told.high
    assert outside <= 4  # more come in 1 of 300 such tests


@pytest.mark.slow
def test_classes_say_nothing_about_the_side() -> None:
    """One side has mostly class 0, the other mostly class 1, and nothing else differs."""
    random = np.random.default_rng(2)
    labels, others = np.repeat([0, 1], [180, 20]), np.repeat([0, 1], [20, 180])
    one, other = (random.normal(size=(200, 4)) + 9 * part[:, None] for part in (labels, others))
    found = telling_apart.tell_apart(one, labels, other, others)
    assert found is not None and len(found[0]) == 80
    assert telling_apart.told(found[0], found[2]).low < 0.5 < telling_apart.told(found[0], found[2]).high


def test_too_few_images_say_nothing() -> None:
    one, labels, other, others = sides(2.0, 12)
    assert telling_apart.tell_apart(one[:9], labels[:9], other, others) is None


def test_a_map_is_the_same_again_and_keeps_groups_apart() -> None:
    random = np.random.default_rng(0)
    points = np.concatenate([random.normal(size=(40, 6)), random.normal(size=(40, 6)) + 20])
    for method in ("pca", "tsne"):
        found = telling_apart.plane(points, method)
        assert np.array_equal(found, telling_apart.plane(points, method))
        inside = np.linalg.norm(found[:40] - found[:40].mean(0), axis=1).mean()
        assert np.linalg.norm(found[:40].mean(0) - found[40:].mean(0)) > 2 * inside
