"""A store: where images lie, what they say of themselves, and that filters can be undone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from augkit_diffusion import manifest, png
from augkit_diffusion.sources import Wish
from augkit_diffusion.store import Store
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

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
    with pytest.raises(StateError, match=r"begun with other data \(class_names\); .*\(differing: data.class_names\)$"):
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


def test_a_kill_between_manifest_and_files_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is written first, and then decides where a file lies."""
    store = filled(tmp_path)
    chosen = ["dog/000000.png", "dog/000002.png", "grün blau/000001.png"]
    for change, kept in ((lambda: store.reject("dull", chosen), 9), (lambda: store.restore("dull"), 12)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", _once(Path.replace))
            with pytest.raises(KeyboardInterrupt):
                change()
        assert len(Store.open(tmp_path).images()) == kept
        assert len(list((tmp_path / "train").rglob("*.png"))) == kept
        assert len(list((tmp_path / "rejected").rglob("*.png"))) == 12 - kept


def _once(replace: Any) -> Any:
    """Works for the manifest and for one image, and then no more."""
    left = [2]

    def limited(self: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        moved: Path = replace(self, target)
        return moved

    return limited


def test_processes_of_one_number_on_two_machines_do_not_mix_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer with the same process number writes while an image is half written."""
    one = Store.create(tmp_path, settings())
    other = Store.create(tmp_path, settings())
    first, second = one.wish(0, None, 0), other.wish(1, None, 0)
    replace, waiting = Path.replace, [second]

    def slow(self: Path, target: Path) -> Path:
        if waiting:
            other.write(waiting[0], image(waiting.pop()), {})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", slow)
    one.write(first, image(first), {})
    for label, wish in enumerate((first, second)):
        with Image.open(tmp_path / "train" / one.name(label, None, 0)) as there:
            assert np.array_equal(np.asarray(there), image(wish))


def test_scores_are_replaced_and_outlive_images_that_come_later(tmp_path: Path) -> None:
    store = filled(tmp_path, count=2)
    store.set_scores("cosine", {"dog/000000.png": 0.5, "dog/000001.png": 0.7})
    store.set_scores("cosine", {"dog/000001.png": 0.9})
    wish = store.wish(0, None, 2)
    store.write(wish, image(wish), {})
    store.rebuild()
    assert [row.get("score_cosine") for row in store.images()[:3]] == [None, 0.9, None]


def test_images_of_another_store_are_strangers(tmp_path: Path) -> None:
    here = filled(tmp_path / "here")
    other = Store.create(tmp_path / "there", settings(seed=5))
    wish = other.wish(0, None, 7)
    other.write(wish, image(wish), {})
    copied = tmp_path / "here" / "train" / "dog" / "000007.png"
    copied.write_bytes((tmp_path / "there" / "train" / "dog" / "000007.png").read_bytes())
    assert here.rebuild() == [copied] and len(here.images()) == 12
    for content in (b"", b"no image", png.encode(image(wish), {})):
        copied.write_bytes(content)
        assert here.rebuild() == [copied]


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    )
)
def test_facts_come_back_as_they_were(facts: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        path.write_bytes(png.encode(np.zeros((2, 3, 3), np.uint8), facts))
        assert png.facts_of(path) == facts and png.whole(path)
        with Image.open(path) as opened:
            assert opened.size == (3, 2) and json.loads(opened.text["augkit"]) == facts  # type: ignore[attr-defined]
        path.write_bytes(path.read_bytes()[:-1])
        assert not png.whole(path)


def test_a_manifest_has_columns_of_one_kind(tmp_path: Path) -> None:
    rows = [
        {
            "class": "a",
            "file": "a/1.png",
            "rejected_by": None,
            "steps": 20,
            "guidance": 2,
            "more": {"x": 1},
            "on": True,
        },
        {"class": "b", "file": "b/1.png", "rejected_by": "dull", "guidance": 1.5, "score_dull": 1, "more": [3]},
    ]
    manifest.save(tmp_path / "m.parquet", rows)
    first, second = manifest.load(tmp_path / "m.parquet")
    assert (first["steps"], first["guidance"], first["more"], first["on"]) == (20, 2.0, '{"x": 1}', True)
    assert (second["steps"], second["guidance"], second["score_dull"], second["more"]) == (None, 1.5, 1.0, "[3]")
    assert first["group"] is None and list(first)[:5] == ["class", "group", "number", "file", "rejected_by"]
    assert manifest.load(tmp_path / "none.parquet") == []
