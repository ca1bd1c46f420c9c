"""`data.correlation`: training images whose classes and groups go together as often as a recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_parts import write_npz

from augkit.errors import DataError, DocumentError
from augkit.lab.data import load
from augkit.lab.recipe import load_recipe
from augkit.lab.recipe_parts import DataRecipe
from augkit.lab.subsets import correlated, correlated_counts
from augkit.registry import Registry

SHARES = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0]), st.floats(0, 1))


@st.composite
def classes(draw: Any) -> tuple[list[int], int]:
    available = draw(st.lists(st.integers(1, 60), min_size=2, max_size=5))
    return available, draw(st.integers(0, len(available) - 1))


def fits(total: int, available: list[int], own: int, share: float) -> bool:
    """Whether `total` images can be kept, by trying every way to give the other groups their rest alike."""
    mine = int(np.floor(share * total + 0.5))
    others = sorted((n for group, n in enumerate(available) if group != own), reverse=True)
    each, extra = divmod(total - mine, len(others))
    return mine <= available[own] and all(each + (i < extra) <= n for i, n in enumerate(others))


@settings(deadline=None, max_examples=300)
@given(classes(), SHARES)
def test_shares_hold_and_no_more_images_could_be_kept(made: tuple[list[int], int], share: float) -> None:
    available, own = made
    kept = correlated_counts(available, own, share)
    total, others = sum(kept), [n for group, n in enumerate(kept) if group != own]
    assert all(0 <= n <= there for n, there in zip(kept, available, strict=True)) and total >= 1
    assert abs(kept[own] - share * total) <= 0.5 + 1e-9 and max(others) - min(others) <= 1
    assert not any(fits(more, available, own, share) for more in range(total + 1, sum(available) + 1))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31 - 1), st.integers(2, 4), st.integers(2, 4), SHARES)
def test_a_subset_is_a_function_of_the_seed(seed: int, number: int, groups: int, share: float) -> None:
    random = np.random.RandomState(seed % 1000)
    cells = np.concatenate([np.arange(number * groups), random.randint(0, number * groups, 200)])
    labels, of_group = cells // groups, cells % groups
    rows = np.flatnonzero(random.rand(len(cells)) < 0.8)
    rows = np.union1d(rows, np.arange(number * groups))
    names = tuple(map(str, range(9)))
    told = (rows, labels, of_group, share, names[:number], names[:groups])
    chosen = correlated(*told, seed)
    assert (chosen == correlated(*told, seed)).all() and (np.diff(chosen) > 0).all() and np.isin(chosen, rows).all()
    for label in range(number):
        there = np.bincount(of_group[rows[labels[rows] == label]], minlength=groups).tolist()
        kept = np.bincount(of_group[chosen[labels[chosen] == label]], minlength=groups).tolist()
        assert kept == correlated_counts(there, label % groups, share)


def write_cells(path: Path, **changes: Any) -> Path:
    """Two classes in two groups, 40 training images each, and 8 of each cell to test."""
    images = np.random.RandomState(1).randint(0, 256, (192, 16, 16, 3), np.uint8)
    cells = np.repeat(np.arange(4), 48)
    order = np.argsort(np.arange(192) % 48, kind="stable")
    images, cells = images[order], cells[order]
    arrays = {"train_images": images[:160], "train_labels": cells[:160] // 2, "train_groups": cells[:160] % 2}
    arrays |= {"test_images": images[160:], "test_labels": cells[160:] // 2, "test_groups": cells[160:] % 2}
    return write_npz(path, **(arrays | changes))


def shares(split: Any) -> list[list[int]]:
    cells = split.labels * 2 + split.groups
    return np.bincount(cells.numpy(), minlength=4).reshape(2, 2).tolist()  # type: ignore[no-any-return]


def test_training_images_alone_are_correlated(tmp_path: Path) -> None:
    source = str(write_cells(tmp_path / "a.npz"))
    plain = load(DataRecipe(source=source, validation=0.25))
    data = load(DataRecipe(source=source, validation=0.25, correlation=0.9))
    assert plain.val is not None and data.val is not None
    assert (data.val.rows == plain.val.rows).all() and (data.test.rows == plain.test.rows).all()
    assert not np.intersect1d(data.train.rows, data.val.rows).size
    for own, kept in enumerate(shares(data.train)):
        assert kept[own] == round(0.9 * sum(kept)) and sum(kept) > 28
    other = load(DataRecipe(source=source, validation=0.25, correlation=0.9, subset_seed=1))
    assert len({plain.subset_sha256, data.subset_sha256, other.subset_sha256}) == 3
    again = load(DataRecipe(source=source, validation=0.25, correlation=0.9))
    assert again.subset_sha256 == data.subset_sha256 and (again.train.rows == data.train.rows).all()


def test_all_of_one_group(tmp_path: Path) -> None:
    source = str(write_cells(tmp_path / "a.npz"))
    assert shares(load(DataRecipe(source=source, correlation=1.0)).train) == [[40, 0], [0, 40]]
    assert shares(load(DataRecipe(source=source, correlation=0.0)).train) == [[0, 40], [40, 0]]
    assert shares(load(DataRecipe(source=source, correlation=0.5)).train) == [[40, 40], [40, 40]]


def test_what_cannot_be_correlated(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(DataError, match=r"data\.correlation is one of classes and groups, and the groups of the"):
        load(DataRecipe(source="digits", correlation=0.9, image_size=8))
    groups = np.repeat([0, 1], 80)
    one_sided = write_cells(tmp_path / "a.npz", train_labels=groups, train_groups=groups)
    with pytest.raises(DataError, match=r'class "0" has no training image of group "1", so that no share of 0\.9'):
        load(DataRecipe(source=str(one_sided), correlation=0.9))
    alone = write_cells(tmp_path / "b.npz", train_groups=np.zeros(160, int), test_groups=np.zeros(32, int))
    with pytest.raises(DataError, match=r"wants two groups or more"):
        load(DataRecipe(source=str(alone), correlation=0.9))
    with pytest.raises(DocumentError, match="correlation and imbalance each choose how many"):
        load_recipe("demo", registry, ["data.correlation=0.9"])


@pytest.mark.slow
def test_groups_made_up_for_data_that_have_none(tmp_path: Path) -> None:
    told = {"source": "digits", "image_size": 16, "groups": "border", "validation": 0.2}
    data = load(DataRecipe(**told, correlation=0.9))
    assert data.group_names == ("red", "blue") and data.val is not None
    for split in (data.train, data.val, data.test):
        assert split.held is not None and split.groups is not None
        red, blue = split.held[:, 0, 0, 0].int(), split.held[:, 2, 0, 0].int()
        assert ((red > blue) == (split.groups == 0)).all() and (split.held[:, :, 0] == split.held[:, :, -1]).all()
    for label in range(10):
        train, test = (
            split.groups[split.labels == label] for split in (data.train, data.test) if split.groups is not None
        )
        assert (train == label % 2).float().mean() == pytest.approx(0.9, abs=0.01)
        assert 0.3 < test.float().mean() < 0.7
    plain = load(DataRecipe(source="digits", image_size=16, validation=0.2))
    assert plain.test.held is not None and data.test.held is not None and (plain.test.rows == data.test.rows).all()
    assert (
        plain.test.held[:, :, 4:-4, 4:-4] == data.test.held[:, :, 4:-4, 4:-4]
    ).all()  # where resizing sees no border
    again, other = (load(DataRecipe(**told, subset_seed=seed)) for seed in (0, 1))
    assert again.labels_sha256 != other.labels_sha256
    with pytest.raises(DataError, match="is for data without groups, and these have some"):
        load(DataRecipe(source=str(write_cells(tmp_path / "a.npz")), groups="border"))
