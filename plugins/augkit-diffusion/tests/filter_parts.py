"""A store of digits in which it is known what is wrong with each image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from augkit_diffusion import making, png
from augkit_diffusion.store import Store

from augkit.lab import data as lab_data
from augkit.lab.recipe import Recipe
from augkit.lab.recipe_parts import DataRecipe

GOOD = 12
"""Images of each class that nothing is wrong with: real ones that nobody trained on. Their numbers are 0 to 11."""
PLANTED = ("blank", "copy", "mirrored copy", "repeat", "noise", "other class", "broken")
"""What is wrong with numbers 12, 13, ... of each class."""
DIGITS = DataRecipe(source="digits", imbalance=20)


def number(what: str) -> int:
    """Of the image of a class that this was planted in."""
    return GOOD + PLANTED.index(what)


def digits_store(
    folder: Path, planted: tuple[str, ...] = PLANTED, good: int = GOOD, real: DataRecipe = DIGITS
) -> Store:
    """A store made for long-tailed digits; the same content each time."""
    data = lab_data.load(real)
    recipe = Recipe(augkit=1, name="digits", data=real)
    order = making.Order(recipe.model_dump(mode="json"), "test", {}, str(folder))
    work = making.Work(order, data, source=None)  # type: ignore[arg-type]  nothing is made by it
    store = Store.create(folder, work.settings)
    store.settle(lambda: {"batch": 1})
    test, train = (_by_class(split) for split in (data.test, data.train))
    for label in range(10):
        own, other = test[label], test[(label + 1) % 10]
        for k in range(good):
            store.write(store.wish(label, None, k), own[k], {"source": "test"})
        for what in planted:
            random = np.random.default_rng([label, PLANTED.index(what)])
            image = _PLANT[what](random, own, other, train[label])
            store.write(store.wish(label, None, number(what)), image, {"source": "test"})
            if what == "broken":
                _break(store.folder / "train" / store.name(label, None, number(what)))
    store.rebuild()
    return store


def named(store: Store, what: str) -> set[str]:
    """The files in which it was planted, one a class."""
    return {store.name(label, None, number(what)) for label in range(10)}


def _by_class(split: lab_data.Split) -> list[np.ndarray]:
    assert split.held is not None
    images = split.held.permute(0, 2, 3, 1).numpy()
    return [images[split.labels.numpy() == label] for label in range(10)]


def _rough(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """With a little noise."""
    return np.clip(image.astype(int) + random.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)


Plant = Callable[[np.random.Generator, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_PLANT: dict[str, Plant] = {
    "blank": lambda random, own, other, train: 100 + random.integers(0, 3, own[0].shape, dtype=np.uint8),
    "copy": lambda random, own, other, train: _rough(random, train[2]),
    "mirrored copy": lambda random, own, other, train: _rough(random, train[1][:, ::-1]),
    "repeat": lambda random, own, other, train: _rough(random, own[3]),
    "noise": lambda random, own, other, train: random.integers(0, 256, own[0].shape, dtype=np.uint8),
    "other class": lambda random, own, other, train: other[-1],
    "broken": lambda random, own, other, train: own[0],
}


def _break(path: Path) -> None:
    """Spoil the pixels; the file begins and ends as it did, and still says what it is of."""
    facts, content = png.facts_of(path), bytearray(path.read_bytes())
    begin = content.index(b"IDAT") + 4
    content[begin : begin + 40] = bytes(40)
    path.write_bytes(content)
    assert png.facts_of(path) == facts is not None and png.whole(path)
