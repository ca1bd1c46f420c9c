"""A store: where images lie, what they say of themselves, and that filters can be undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augkit_diffusion import png
from augkit_diffusion.sources import Wish
from augkit_diffusion.store import Store

from augkit.errors import AugkitError, DataError, StateError

NAMES = ("dog", "T-shirt/top", "..", "grün blau")


def settings(names: tuple[str, ...] = NAMES, groups: tuple[str, ...] = (), seed: int = 0) -> dict[str, Any]:
    data = {"class_names": list(names), "group_names": list(groups)}
    return {"source": "test", "seed": seed, "groups": bool(groups), "data": data, "told": {}}


def image(wish: Wish) -> np.ndarray:
    return np.random.default_rng(wish.seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)


def filled(folder: Path, count: int = 3) -> Store:
    store = Store.create(folder, settings())
    for label in range(len(NAMES)):
        for number in range(count):
            wish = store.wish(label, None, number)
            store.write(wish, image(wish), {"steps": 20, "model": "abc"})
    store.rebuild()
    return store


def test_images_lie_in_class_folders_and_none_leads_out(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    assert {path.name for path in (tmp_path / "store/train").iterdir()} == {
        "dog",
        "T-shirt%2Ftop",
        "%2E%2E",
        "grün blau",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert len(list((tmp_path / "store/train").rglob("*.png"))) == 12


def test_an_image_holds_its_own_facts(tmp_path: Path) -> None:
    store = filled(tmp_path)
    wish = store.wish(1, None, 2)
    path = tmp_path / "train" / store.name(1, None, 2)
    assert png.facts_of(path) == {"class": "T-shirt/top", "number": 2, "seed": wish.seed, "steps": 20, "model": "abc"}


def test_filters_can_be_undone(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.set_scores("cosine", {"dog/000000.png": 0.1, "dog/000001.png": 0.9})
    store.reject("cosine", ["dog/000000.png"])
    assert (tmp_path / "rejected/dog/000000.png").is_file() and not (tmp_path / "train/dog/000000.png").exists()
    assert len(store.images()) == 11 and store.numbers(0, None) == {0, 1, 2}
    store.restore("cosine")
    first, second, third = Store.open(tmp_path).images()[:3]
    assert store.path(first).is_file() and first["score_cosine"] == 0.1 and second["score_cosine"] == 0.9
    assert third["score_cosine"] is None


def test_another_seed_or_class_is_another_store(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(StateError, match=r"begun with seed: 0, not 1; .*\(differing: seed\)$"):
        Store.create(tmp_path, settings(seed=1))
    with pytest.raises(StateError, match=r"begun with other data; .*\(differing: data.class_names\)$"):
        Store.create(tmp_path, settings(names=(*NAMES, "cat")))


def test_a_name_that_can_name_no_folder_is_refused(tmp_path: Path) -> None:
    for name, reason in (("", "is empty"), ("x" * 300, "is longer than 200 bytes"), ("\udc80", "is no valid text")):
        with pytest.raises(DataError, match=reason):
            Store.create(tmp_path / "store", settings(names=("dog", name)))
    with pytest.raises(DataError, match='"a/b" and "a%2Fb" would share'):
        Store.create(tmp_path / "store", settings(names=("a/b", "a%2Fb")))
    assert not list(tmp_path.iterdir())


def test_a_filter_has_a_name_of_its_own(tmp_path: Path) -> None:
    store = filled(tmp_path)
    for name in ("refused", "unknown", "Cosine", "a b", ""):
        with pytest.raises(AugkitError, match="is no name for a filter"):
            store.set_scores(name, {})
