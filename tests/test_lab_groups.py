"""Groups of images: where they come from, and what is told of them, drawn by them and balanced by them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional

from augkit.errors import DataError, DocumentError
from augkit.lab import samplers
from augkit.lab.course import chosen
from augkit.lab.data import Data, load
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.lab.recipe_parts import DataRecipe, StageRecipe
from augkit.lab.run import train
from augkit.registry import Registry

DOMAINS, KINDS = ("art", "photo", "sketch"), ("cat", "dog")
PACS = os.environ.get("AUGKIT_PACS", "")


def write(root: Path, counts: dict[str, int]) -> Path:
    """`{"train/art/cat": 3}` images; red tells the domain, green the kind, blue the number."""
    for where, count in counts.items():
        folder = root / where
        folder.mkdir(parents=True)
        red, green = (sum(80 * i for i, n in enumerate(names) if n in where) for names in (DOMAINS, KINDS))
        for number in range(count):
            Image.new("RGB", (16, 16), (red, green, number)).save(folder / f"{number:03d}.png")
    return root


@pytest.fixture
def pacs(tmp_path: Path) -> Path:
    sizes = {"art": (3, 5), "photo": (9, 4), "sketch": (2, 7)}
    counts = {f"train/{d}/{k}": n for d, pair in sizes.items() for k, n in zip(KINDS, pair, strict=True)}
    return write(tmp_path / "pacs", counts | {f"test/{d}/{k}": 2 for d in DOMAINS for k in KINDS})


def write_npz(path: Path, **changes: Any) -> Path:
    """60 images of three classes in two groups, twelve of them to test on; None leaves an array out."""
    images, labels = np.random.RandomState(0).randint(0, 256, (60, 16, 16, 3), np.uint8), np.arange(60) % 3
    groups = (np.arange(60) % 5 == 0).astype(np.int64)
    arrays: dict[str, Any] = {}
    for split, part in (("train", slice(48)), ("test", slice(48, 60))):
        arrays |= {f"{split}_images": images[part], f"{split}_labels": labels[part], f"{split}_groups": groups[part]}
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def read_off(data: Data) -> None:
    """The images' own colours say that labels and groups are theirs."""
    for split in (data.train, data.val, data.test):
        if split is not None:
            assert split.held is not None and split.groups is not None
            assert (split.held[:, 0, 0, 0] // 80 == split.groups).all()
            assert (split.held[:, 1, 0, 0] // 80 == split.labels).all()


@pytest.mark.parametrize("told", [{}, {"validation": 0.3}, {"validation_per_class": 3}, {"imbalance": 2.0}])
def test_folders_of_groups(pacs: Path, told: dict[str, Any]) -> None:
    data = load(DataRecipe(image_size=16, source=str(pacs), groups="folder", **told))
    assert (data.class_names, data.group_names) == (KINDS, DOMAINS)
    read_off(data)
    if not told:
        assert data.train.groups is not None
        assert torch.bincount(data.train.groups).tolist() == [8, 13, 9]


def test_a_domain_that_is_only_tested_on_has_a_number_too(tmp_path: Path) -> None:
    root = write(tmp_path, {"train/art/cat": 2, "train/photo/dog": 3, "test/sketch/cat": 2, "test/sketch/dog": 1})
    data = load(DataRecipe(image_size=16, source=str(root), groups="folder"))
    assert data.group_names == DOMAINS and data.test.groups is not None and data.test.groups.tolist() == [2, 2, 2]
    read_off(data)


def test_folders_of_groups_without_splits_hold_out_a_test_set(tmp_path: Path) -> None:
    root = write(tmp_path, {f"{domain}/{kind}": 10 for domain in DOMAINS for kind in KINDS})
    data = load(DataRecipe(source=str(root), groups="folder", image_size=16))
    assert data.class_counts.tolist() == [24, 24] and len(data.test) == 12
    read_off(data)


def table(root: Path, lines: list[str]) -> None:
    (root / "groups.csv").write_text("\n".join(["file,group", *lines]) + "\n")


def lines_of(root: Path, split: str) -> list[str]:
    files = sorted((root / split).rglob("*.png"))
    return [f"{path.relative_to(root).as_posix()},{DOMAINS[int(path.stem) % 3]}" for path in files]


def test_a_table_of_groups(tmp_path: Path) -> None:
    root = write(tmp_path, {"train/cat": 6, "train/dog": 4, "test/cat": 3, "test/dog": 3})
    table(root, lines_of(root, "train"))
    data = load(DataRecipe(image_size=16, source=str(root), memory=0))
    assert data.train.groups is not None and data.train.groups.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert data.test.groups is None  # none of its images is listed
    table(root, [*lines_of(root, "test"), *lines_of(root, "train"), "train/gone.png,photo"])
    data = load(DataRecipe(image_size=16, source=str(root), memory=0))
    assert data.test.groups is not None and data.test.groups.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["train/cat/000.png,art"], r'groups\.csv: image "train/cat/001\.png" has no line here'),
        (["cat/000.png,art"], r'groups\.csv: no image .* write files as "train/cat/000\.png"'),
        (["train/cat/000.png,"], r'groups\.csv:2: "train/cat/000\.png" has no group'),
        (["train/cat/000.png,art", "train/cat/000.png,photo"], r'groups\.csv:3: "train/cat/000\.png" is in two groups'),
    ],
)
def test_wrong_tables_are_one_sentence(tmp_path: Path, lines: list[str], says: str) -> None:
    root = write(tmp_path, {"train/cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 1})
    table(root, lines)
    with pytest.raises(DataError, match=says):
        load(DataRecipe(image_size=16, source=str(root)))
    (root / "groups.csv").write_bytes(b"name,domain\n")
    with pytest.raises(DataError, match=r'groups\.csv:1: the first line must be "file,group"'):
        load(DataRecipe(image_size=16, source=str(root)))


def test_groups_said_where_there_are_none(pacs: Path, tmp_path: Path) -> None:
    for source in ("digits", str(write_npz(tmp_path / "a.npz"))):
        with pytest.raises(DataError, match=r"^data\.groups: folder is for a folder of GROUP/CLASS folders"):
            load(DataRecipe(source=source, groups="folder"))
    with pytest.raises(DataError, match=r"say data\.groups: folder if the outer folders are groups"):
        load(DataRecipe(image_size=16, source=str(pacs)))
    table(pacs, [])
    with pytest.raises(DataError, match=r"groups\.csv: data\.groups: folder and groups\.csv are two ways"):
        load(DataRecipe(image_size=16, source=str(pacs), groups="folder"))


def test_groups_of_an_archive(tmp_path: Path) -> None:
    data = load(DataRecipe(source=str(write_npz(tmp_path / "a.npz", group_names=np.array(["land", "water"])))))
    assert data.group_names == ("land", "water")
    assert data.train.groups is not None and data.train.groups.tolist() == [int(i % 5 == 0) for i in range(48)]
    only = load(DataRecipe(source=str(write_npz(tmp_path / "b.npz", train_groups=None)), validation=0.2))
    assert only.train.groups is None and only.val is not None and only.val.groups is None
    assert only.test.groups is not None and only.group_names == ("0", "1")
    for changes, says in (
        ({"train_groups": np.zeros(3, np.int64)}, "train_groups must be 48 whole numbers"),
        ({"train_groups": np.zeros(48)}, "train_groups must be 48 whole numbers from 0, not float64"),
        ({"group_names": np.array(["land"])}, "group_names has 1 names, but the groups reach 1"),
    ):
        with pytest.raises(DataError, match=says):
            load(DataRecipe(source=str(write_npz(tmp_path / "c.npz", **changes))))


def test_groups_are_part_of_the_datas_identity(tmp_path: Path) -> None:
    swapped = 1 - (np.arange(48) % 5 == 0).astype(np.int64)
    hashes = {
        load(DataRecipe(source=str(write_npz(tmp_path / "a.npz", **changes)))).labels_sha256
        for changes in ({}, {"train_groups": swapped}, {"train_groups": None, "test_groups": None})
    }
    assert len(hashes) == 3


def begun(registry: Registry, source: Path, *told: str) -> Training:
    given_ = ["epochs=2", "data.image_size=16", f"data.source={source}", "threads=1", "base={}", *told]
    recipe = load_recipe("demo", registry, [*given_, "data.imbalance=null"])
    return prepare(recipe, load(recipe.data), registry, torch.device("cpu"))


BY_GROUP = {"augkit": 1, "name": "by-group", "pipeline": [], "state": {"s": {"axes": ["groups"]}}}


def document(path: Path, **rest: Any) -> str:
    from augkit.lab.folder import write_yaml

    write_yaml(path, BY_GROUP | rest)
    return f"policy={path}"


def test_a_policy_is_told_the_groups(registry: Registry, tmp_path: Path) -> None:
    told = document(tmp_path / "p.yaml", pipeline=[{"invert": {"p": "group == 1"}}])
    run = begun(registry, write_npz(tmp_path / "a.npz"), told)
    train_epoch(run)
    plan, met = run.policy.last_plan, run.stage.batches(0)[-1]
    assert plan is not None and run.data.train.groups is not None
    assert torch.equal((plan.choice >= 0).any(1), run.data.train.groups[met] == 1)
    assert run.policy.facts.num_groups == 2


def by_group(logits: Tensor, targets: Tensor, *, groups: Tensor, group_names: tuple[str, ...]) -> Tensor:
    """Cross-entropy, the groups alike; it remembers what it was told."""
    MET.append((groups.clone(), group_names, len(targets)))
    each = functional.cross_entropy(logits, targets, reduction="none")
    weight = 1 / torch.bincount(groups, minlength=len(group_names))[groups]
    return (each * weight).sum() / weight.sum()


MET: list[tuple[Tensor, tuple[str, ...], int]] = []


@pytest.mark.parametrize("policy", ["none", "augmix"])
def test_a_loss_is_told_the_groups_of_its_images(policy: str, registry: Registry, tmp_path: Path) -> None:
    mine = Registry(**{**vars(registry), "losses": {"by_group": by_group}})
    run = begun(mine, write_npz(tmp_path / "a.npz"), "loss=by_group", f"policy={policy}", "batch_size=20")
    MET.clear()
    train_epoch(run)
    groups, views = run.data.train.groups, max(1, len(run.policy.views))
    assert groups is not None and len(MET) == 3
    for (told, names, size), where in zip(MET, run.stage.batches(0), strict=True):
        assert torch.equal(told, groups[where].repeat(views)) and names == ("0", "1") and size == len(told)


def test_what_needs_groups_is_refused_without_them(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz", train_groups=None)
    mine = Registry(**{**vars(registry), "losses": {**registry.losses, "by_group": by_group}})
    for told, says in (
        ("loss=by_group", '^the loss "by_group" works by group, and the groups of the training images are not known'),
        ("sampler=group_balanced", '^the sampler "group_balanced" draws by group, and the groups'),
        ("stages=[train, {finetune_head: {balance: groups}}]", r"^stages\[1\]: nothing can be balanced by group"),
        (document(tmp_path / "p.yaml"), r'^policy: "p" works by group, and the groups'),
    ):
        with pytest.raises((DataError, DocumentError), match=says):
            begun(mine, source, told)


cells = st.lists(st.integers(0, 12), min_size=6, max_size=6).filter(any)


@settings(max_examples=100, deadline=None)
@given(cells, st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_cells_come_alike_with_group_balanced(counts: list[int], seed: int, epoch: int) -> None:
    by_cell = torch.tensor(counts, dtype=torch.float64).view(3, 2)
    share = samplers.group_balanced(by_cell.sum(1), group_counts=by_cell)
    where = samplers.checked_shares(share, by_cell, "group_balanced", "sampler").reshape(-1)
    of = np.repeat(np.arange(6), counts)
    order = samplers.epoch_positions(of, where, seed, epoch).numpy()
    met = np.bincount(of[order], minlength=6)
    there = np.array(counts) > 0
    assert len(order) == len(of) and not met[~there].any()
    assert np.abs(met[there] - len(of) / there.sum()).max() < 1 + 1e-5


def test_an_epoch_of_group_balanced(registry: Registry, tmp_path: Path) -> None:
    run = begun(registry, write_npz(tmp_path / "a.npz"), "sampler=group_balanced")
    met, train_ = torch.cat(run.stage.batches(0)), run.data.train
    assert train_.groups is not None
    counts = torch.bincount(train_.labels[met] * 2 + train_.groups[met], minlength=6)
    assert counts.sum() == 48 and (counts - 8).abs().max() <= 1


def test_a_stage_balanced_by_groups(tmp_path: Path) -> None:
    data = load(DataRecipe(source=str(write_npz(tmp_path / "a.npz"))))
    assert data.train.groups is not None
    cell = (data.train.labels * 2 + data.train.groups).numpy()
    rows = chosen(StageRecipe(name="train", balance="groups"), data, 2, "stages[0]")
    assert np.bincount(cell[rows]).tolist() == [np.bincount(cell).min()] * 6
    assert (np.diff(rows) > 0).all()
    again = chosen(StageRecipe(name="train", balance="groups"), data, 3, "stages[0]")
    assert rows.tolist() != again.tolist()
    lone = load(
        DataRecipe(source=str(write_npz(tmp_path / "b.npz", train_groups=(np.arange(48) % 3 == 2).astype(int))))
    )
    with pytest.raises(DataError, match=r'^stages\[0\]: class "0" of group "1" has no such image'):
        chosen(StageRecipe(name="train", balance="groups"), lone, 2, "stages[0]")


def test_recipes_from_before_groups_keep_their_hash(registry: Registry) -> None:
    plain = {"augkit": 1, "name": "plain"}
    recipe = load_recipe(plain, registry)
    assert "groups" not in recipe.model_dump()["data"]
    assert load_recipe(plain, registry, ["data.groups=folder"]).hash != recipe.hash


@pytest.mark.skipif(not PACS, reason="AUGKIT_PACS names no folder")
def test_pacs_has_its_domains_as_groups() -> None:
    data = load(DataRecipe(source=PACS, groups="folder", memory=0, image_size=64))
    assert data.group_names == ("art_painting", "cartoon", "photo", "sketch")
    assert data.class_names == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    assert data.train.groups is not None and data.test.groups is not None
    assert torch.bincount(data.train.groups).tolist() == [1638, 1875, 1337, 3143]
    for split in (data.train, data.test):
        for i in range(0, len(split), 501):
            path = split.reader.paths[i]  # type: ignore[attr-defined]
            assert split.groups is not None
            assert path.parts[-3:-1] == (data.group_names[split.groups[i]], data.class_names[split.labels[i]])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["uniform", "group_balanced"])
def test_a_whole_run_with_groups(sampler: str, registry: Registry, pacs: Path, tmp_path: Path) -> None:
    told = ["epochs=2", f"data.source={pacs}", "data.groups=folder", "data.imbalance=null", "threads=1"]
    told += [f"sampler={sampler}", "stages=[train, {finetune_head: {epochs: 1, balance: groups}}]"]
    folder = train("demo", told, tmp_path / "run")
    assert (folder / "summary.json").exists()
    moved = next((pacs / "train/art/cat").iterdir())
    moved.rename(pacs / "train/sketch/cat/900.png")
    (folder / "summary.json").unlink()
    with pytest.raises(Exception, match="begun with other data"):
        train("demo", told, tmp_path / "run", resume=True)
