"""Synthetic images in a recipe: how they join the training images, how an epoch mixes them in, what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare
from torch import Tensor

from augkit.errors import DataError, DocumentError, StateError
from augkit.lab import epochs, samplers
from augkit.lab.course import counts_of
from augkit.lab.data import Data, load
from augkit.lab.epochs import Part, Sampler
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.ratios import ratio
from augkit.lab.recipe import Recipe, load_recipe, read_recipe
from augkit.lab.recipe_parts import DataRecipe, SourcesRecipe
from augkit.lab.run import train
from augkit.registry import Registry

GREY = 200
"""Every image of a store here has this blue, which no real one has."""
TOLD = ("epochs=2", "data.image_size=16", "threads=1", "base={}", "data.imbalance=null")


def write_store(root: Path, counts: dict[str, int], *, within: str = "train", prefix: str = "") -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (root / within / name).mkdir(parents=True)
        for i in range(count):
            path = root / within / name / f"{prefix}{i:06d}.png"
            Image.new("RGB", (20, 20), (40 * number, i, GREY)).save(path)
    return root


def write_npz(path: Path, **changes: Any) -> Path:
    """60 real images of three classes a, b, c; 30, 12 and 6 of them to train on, 4 each to test on."""
    random = np.random.RandomState(0)
    arrays: dict[str, Any] = {
        "train_images": random.randint(0, GREY, (48, 16, 16, 3), np.uint8),
        "train_labels": np.repeat(np.arange(3), [30, 12, 6]),
        "test_images": random.randint(0, GREY, (12, 16, 16, 3), np.uint8),
        "test_labels": np.arange(12) % 3,
        "class_names": np.array(["a", "b", "c"]),
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "data.npz")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = write_store(tmp_path / "synth", {"b": 18, "c": 24})
    (root / "rejected" / "a").mkdir(parents=True)
    (root / "rejected" / "a" / "000000.png").write_bytes(b"no image")
    return root


def recipe_of(registry: Registry, npz: Path, *told: str) -> Recipe:
    return load_recipe("demo", registry, [*TOLD, f"data.source={npz}", *told])


def begun(registry: Registry, npz: Path, *told: str) -> Training:
    recipe = recipe_of(registry, npz, *told)
    return prepare(recipe, load(recipe.data, sources=recipe.sources), registry, torch.device("cpu"))


def is_made(data: Data) -> list[bool]:
    """What the images themselves say."""
    assert data.train.held is not None
    return (data.train.held[:, 2] == GREY).all(dim=(1, 2)).tolist()


# -- joining --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [4096, 0])
def test_images_of_a_store_join_the_training_images(npz: Path, store: Path, memory: int) -> None:
    plain = load(DataRecipe(source=str(npz)))
    data = load(DataRecipe(source=str(npz), memory=memory), sources=SourcesRecipe(folder=str(store)))
    assert data.class_counts.tolist() == [30, 30, 30] and data.real_counts.tolist() == [30, 12, 6]
    assert data.synthetic.tolist() == [False] * 48 + [True] * 42
    images = torch.cat(list(data.train.batches([torch.arange(90)])))
    assert plain.train.held is not None and torch.equal(images[:48], plain.train.held)
    assert (images[48:, 2] == GREY).all()
    assert images[48:, 1, 0, 0].tolist() == [*range(18), *range(24)]
    assert data.train.labels.tolist() == [*np.repeat(np.arange(3), [30, 12, 6]), *[1] * 18, *[2] * 24]
    assert len(data.test) == len(plain.test) and data.subset_sha256 == plain.subset_sha256
    assert data.labels_sha256 != plain.labels_sha256


def test_any_class_folders_will_do(npz: Path, tmp_path: Path) -> None:
    root = write_store(tmp_path / "crawled", {"c": 3}, within=".")
    (root / ".cache").mkdir()
    data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(root)))
    assert data.class_counts.tolist() == [30, 12, 9] and is_made(data) == data.synthetic.tolist()


def test_a_class_whose_name_is_no_folders(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "a.npz", class_names=np.array(["a/b", "..", "c"]))
    root = write_store(tmp_path / "synth", {"a%2Fb": 2, "%2E%2E": 3})
    data = load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(root)))
    assert data.class_counts.tolist() == [32, 15, 6]


@pytest.mark.parametrize("told", [{"validation": 0.3}, {"validation_per_class": 3}, {}])
@pytest.mark.parametrize("split", ["test", None])
def test_held_out_images_are_real(
    npz: Path, store: Path, tmp_path: Path, told: dict[str, Any], split: str | None
) -> None:
    marks = np.arange(48) % 3 == 0
    images = np.random.RandomState(0).randint(0, GREY, (48, 16, 16, 3), np.uint8)
    images[marks, :, :, 2] = GREY
    changes: dict[str, Any] = {"train_synthetic": marks, "train_images": images, "train_labels": np.arange(48) // 2 % 3}
    if split is None:
        changes |= {"test_images": None, "test_labels": None}
    source = write_npz(tmp_path / "marked.npz", **changes)
    data = load(DataRecipe(source=str(source), **told), sources=SourcesRecipe(folder=str(store)))
    assert is_made(data) == data.synthetic.tolist() and data.synthetic.sum() == 16 + 42
    for held in (data.val, data.test):
        assert held is None or (held.held is not None and not (held.held[:, 2] == GREY).all(dim=(1, 2)).any())


def test_imbalance_counts_real_images_only(store: Path, tmp_path: Path) -> None:
    marks = np.repeat([False, True], [40, 8])
    source = write_npz(tmp_path / "a.npz", train_labels=np.arange(48) % 3, train_synthetic=marks)
    data = load(DataRecipe(source=str(source), imbalance=4), sources=SourcesRecipe(folder=str(store)))
    assert data.real_counts.tolist() == [14, 7, 3]
    assert (data.class_counts - data.real_counts).tolist() == [2, 3 + 18, 3 + 24]


def test_folders_that_cannot_join(npz: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "train").mkdir(parents=True)
    for folder, says in (
        (write_store(tmp_path / "x", {"a": 1, "zebra": 1}), r'x/train: class folder "zebra" is not among .*: a, b, c'),
        (tmp_path / "empty", r"empty/train: no image file"),
        (tmp_path / "gone", r"gone: the folder of sources is not there"),
    ):
        with pytest.raises(DataError, match=says):
            load(DataRecipe(source=str(npz)), sources=SourcesRecipe(folder=str(folder)))


def test_groups_of_a_stores_images(store: Path, tmp_path: Path) -> None:
    groups: dict[str, Any] = {"train_groups": np.arange(48) % 2, "group_names": np.array(["x/y", "z"])}
    source = DataRecipe(source=str(write_npz(tmp_path / "a.npz", **groups)))
    with pytest.raises(DataError, match=r"000000\.png: the data have groups \(x/y, z\) and this image has no group"):
        load(source, sources=SourcesRecipe(folder=str(store)))
    named = write_store(tmp_path / "named", {"c": 4}, prefix="x%2Fy-")
    data = load(source, sources=SourcesRecipe(folder=str(named)))
    assert data.train.groups is not None and data.train.groups.tolist() == [0, 1] * 24 + [0] * 4
    (named / "groups.csv").write_text("file,group\n" + "".join(f"train/c/x%2Fy-00000{i}.png,z\n" for i in range(4)))
    other = load(source, sources=SourcesRecipe(folder=str(named)))
    assert other.train.groups is not None and other.train.groups[48:].tolist() == [1] * 4
    assert other.labels_sha256 != data.labels_sha256
    (named / "groups.csv").write_text("file,group\n" + "".join(f"train/c/x%2Fy-00000{i}.png,w\n" for i in range(4)))
    with pytest.raises(DataError, match=r'groups\.csv: .* has the group "w"'):
        load(source, sources=SourcesRecipe(folder=str(named)))


# -- ratios ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "values"),
    [
        (0.25, [0.25] * 5),
        ("epoch / epochs", [0, 0.2, 0.4, 0.6, 0.8]),
        ("linear(1, 0, epoch / (epochs - 1))", [1, 0.75, 0.5, 0.25, 0]),
        ("where(epoch < 2, 0, 3)", [0, 0, 1, 1, 1]),
        ("1 / epoch", [0, 1, 1 / 2, 1 / 3, 1 / 4]),
    ],
)
def test_values_of_ratios(said: float | str, values: list[float]) -> None:
    assert [ratio(said, epoch, 5) for epoch in range(5)] == pytest.approx(values)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("share=1.5", r"^sources\.share: `1\.5` is 1\.5, not within 0\.\.1"),
        ("replace=-1", r"^sources\.replace: `-1` is -1, not within"),
        ("share=epok", r'^sources\.share: there is no name "epok"\. Did you mean "epoch"'),
        ("share=uniform()", r"^sources\.share: `uniform` is random, and nothing random is allowed here"),
        ("share=class_count", r'^sources\.share: there is no name "class_count"'),
        ("share=[1]", r"^sources\.share: expected a number in 0\.\.1 or an expression"),
        ("share=true", r"^sources\.share: expected a number in 0\.\.1 or an expression"),
        ("shar=0.5", r'^sources\.shar: there is no "shar" here\. Did you mean "share"'),
    ],
)
def test_wrong_ratios_are_one_sentence(told: str, says: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=says) as caught:
        load_recipe({"augkit": 1, "name": "plain"}, registry, [f"sources.{told}"])
    assert "\n" not in str(caught.value) and f"(from --set sources.{told})" in str(caught.value)


def test_share_and_replace_exclude_each_other(registry: Registry) -> None:
    with pytest.raises(DocumentError, match=r"^sources: share and replace are two ways"):
        load_recipe({"augkit": 1, "name": "plain"}, registry, ["sources={share: 0.5, replace: 0.5}"])


def test_recipes_with_and_without_sources(registry: Registry, store: Path, tmp_path: Path) -> None:
    plain, short = load_recipe("demo", registry), load_recipe("demo", registry, [f"sources={store}"])
    assert "sources" not in plain.model_dump()
    assert short.sources == SourcesRecipe(folder=str(store)) and short.hash != plain.hash
    (store / "recipe.yaml").write_text("augkit: 1\nname: mine\nsources: {folder: train, share: 1 / epochs}\n")
    mine = load_recipe(store / "recipe.yaml", registry)
    assert mine.sources is not None and mine.sources.folder == str(store / "train")
    (tmp_path / "resolved.yaml").write_text(json.dumps(mine.model_dump(mode="json")))
    assert read_recipe(tmp_path / "resolved.yaml").hash == mine.hash


# -- epochs ---------------------------------------------------------------------------------------------------------

counts_ = st.lists(st.integers(0, 12), min_size=4, max_size=4)


def part(counts: list[int], first: int = 0, grouped: bool = False) -> Part:
    """Two classes in two groups, or four classes."""
    cells = np.repeat(np.arange(4), counts)
    rows = np.arange(first, first + len(cells))
    return Part(rows, cells // 2, cells % 2, 2, 2) if grouped else Part(rows, cells, None, 4)


def sampler(name: str, seed: int, begin: int) -> Sampler:
    def draw(counts: Tensor, *, group_counts: Tensor | None, epoch: int) -> Tensor:
        return samplers.SAMPLERS[name](counts)

    return Sampler(name, draw, seed, begin)


@settings(max_examples=60, deadline=None)
@given(
    counts_.filter(any),
    counts_.filter(any),
    st.sampled_from(["uniform", "class_balanced", "square_root"]),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
    st.integers(0, 2**62),
    st.integers(0, 50),
)
def test_laws_of_shares(
    real: list[int], made: list[int], name: str, shares: list[float], seed: int, begin: int
) -> None:
    ours, theirs = part(real), part(made, first=100)
    size, drawn = len(ours) + len(theirs), sampler(name, seed, begin)
    met = np.zeros(200, np.int64)
    for local, share in enumerate(shares):
        rows = epochs.blended(ours, theirs, drawn, shares.__getitem__, begin + local)
        assert len(rows) == size and (rows >= 100).sum() == round(share * size)  # exact, to the image
        again = epochs.blended(ours, theirs, drawn, shares.__getitem__, begin + local)
        assert rows.tolist() == again.tolist()
        met += np.bincount(rows, minlength=200)
        for one in (ours, theirs):  # no image comes again before all of its class have come
            for label in np.unique(one.labels):
                own = met[one.rows[one.labels == label]]
                assert own.max() - own.min() <= 1


@given(counts_.filter(any), counts_, st.floats(0, 1), st.booleans(), st.integers(0, 2**62), st.integers(0, 500))
def test_laws_of_replacing(
    real: list[int], made: list[int], chance: float, grouped: bool, seed: int, epoch: int
) -> None:
    ours, theirs = part(real, 0, grouped), part(made, 100, grouped)
    rows = np.random.default_rng(seed % 1000).permutation(ours.rows)
    found = epochs.replaced(rows, ours, theirs, chance, seed, epoch)
    assert len(found) == len(rows)
    there = {
        row: cell for one in (ours, theirs) for row, cell in zip(one.rows.tolist(), one.cells.tolist(), strict=True)
    }
    assert [there[row] for row in found] == [there[row] for row in rows]
    kept = found < 100
    assert (found[kept] == rows[kept]).all()
    if chance == 0:
        assert kept.all()
    if chance == 1:
        assert {there[row] for row in found[kept]} <= {cell for cell in range(4) if not made[cell]}


def test_replacements_are_uniform_over_the_class() -> None:
    ours, theirs = part([40, 30, 20, 0]), part([7, 3, 0, 5], first=100)
    times, met = 400, np.zeros(115, np.int64)
    for epoch in range(times):
        met += np.bincount(epochs.replaced(ours.rows, ours, theirs, 0.4, 11, epoch), minlength=115)
    for first, last, real in ((100, 107, 40), (107, 110, 30)):
        rate = met[first:last].sum() / (times * real)
        assert rate == pytest.approx(0.4, abs=4 * np.sqrt(0.24 / (times * real)))
        assert chisquare(met[first:last]).pvalue > 1e-3
    assert (met[70:90] == times).all() and not met[110:].any()


def test_a_share_of_nothing_but_one_kind() -> None:
    real, made = part([3, 2, 0, 1]), part([0, 9, 4, 0], first=100)
    for share, low, high in ((0.0, 0, 100), (1.0, 100, 200)):
        rows = epochs.blended(real, made, sampler("uniform", 1, 0), ([share] * 8).__getitem__, 7)
        assert len(rows) == 19 and ((rows >= low) & (rows < high)).all()


# -- training -------------------------------------------------------------------------------------------------------


def test_stages_know_the_counts_of_their_images(npz: Path, store: Path, registry: Registry) -> None:
    stages = "stages=[train, {finetune_head: {data: real}}, {finetune_head: {data: real, balance: classes}}]"
    run = begun(registry, npz, f"sources={store}", stages)
    assert [stage.class_counts.tolist() for stage in run.stages] == [[30, 30, 30], [30, 12, 6], [6, 6, 6]]
    replacing = begun(registry, npz, f"sources={{folder: {store}, replace: 0.5}}", stages)
    assert [stage.class_counts.tolist() for stage in replacing.stages] == [[30, 12, 6], [30, 12, 6], [6, 6, 6]]
    assert [len(stage.spare) for stage in replacing.stages] == [42, 0, 0]
    assert counts_of(replacing.recipe, replacing.data).tolist() == [30, 12, 6]


def test_a_policy_knows_the_counts_of_the_stages_images(npz: Path, store: Path, registry: Registry) -> None:
    stages = "stages=[{train: {epochs: 1}}, {finetune_head: {data: real, epochs: 1}}]"
    run = begun(registry, npz, f"sources={store}", stages, "policy=cmo")
    seen = []
    for _ in range(2):
        train_epoch(run)
        seen.append({path: values["class_count"].tolist() for path, values in run.policy.memory.values.items()})
    assert [set(map(tuple, of_epoch.values())) for of_epoch in seen] == [{(30, 30, 30)}, {(30, 12, 6)}]
    resumed = begun(registry, npz, f"sources={store}", stages, "policy=cmo")
    resumed.load_state_dict(run.state_dict())
    assert all(values["class_rank"].tolist() == [0, 1, 2] for values in resumed.policy.memory.values.values())


def test_what_an_epoch_took_is_told(npz: Path, store: Path, registry: Registry) -> None:
    for said, wanted, size in (
        (f"sources={store}", [42 / 90] * 3, 90),
        (f"sources={{folder: {store}, share: epoch / 2}}", [0, 0.5, 1], 90),
    ):
        run = begun(registry, npz, said, "epochs=3", "stages=[train, {finetune_head: {data: real, epochs: 1}}]")
        told = [train_epoch(run) for _ in range(4)]
        assert [record["synthetic"] for record in told] == pytest.approx([*wanted, 0])
        assert [int(torch.as_tensor(e["seen"]).sum()) for e in run.policy.history] == [size] * 3 + [48]
    run = begun(registry, npz, f"sources={{folder: {store}, replace: 1}}")
    assert train_epoch(run)["synthetic"] == pytest.approx(18 / 48)  # those of b and c
    assert "synthetic" not in train_epoch(begun(registry, npz))


def test_sources_without_an_image_to_mix_in(npz: Path, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^sources\.share: there is no synthetic image among the training images"):
        begun(registry, npz, "sources={share: 0.5}")
    marked = write_npz(tmp_path / "marked.npz", train_synthetic=np.arange(48) % 4 == 0)
    assert train_epoch(begun(registry, marked, "sources={share: 0.5}"))["synthetic"] == 0.5


@pytest.mark.parametrize("said", ["share: 0.2 + epoch / 10", "replace: 0.5"])
def test_a_resumed_run_takes_the_same_images(said: str, npz: Path, store: Path, registry: Registry) -> None:
    told = (f"sources={{folder: {store}, {said}}}", "epochs=4")
    run = begun(registry, npz, *told)
    batches = [[where.tolist() for where in run.stage.batches(epoch)] for epoch in range(4)]
    again = begun(registry, npz, *told)
    assert [where.tolist() for where in again.stage.batches(3)] == batches[3]
    assert len({json.dumps(of_epoch) for of_epoch in batches}) == 4


@pytest.mark.slow
def test_whole_runs_on_a_store(npz: Path, store: Path, tmp_path: Path) -> None:
    told = ["epochs=2", f"data.source={npz}", "data.imbalance=null", "data.image_size=16", "threads=1", "policy=cmo"]
    told += ["stages=[train, {finetune_head: {data: real, balance: classes, epochs: 1}}]", f"sources={store}"]
    folder = train("demo", told, tmp_path / "run")
    rows = [line.split(",") for line in (folder / "per_class.csv").read_text().splitlines()]
    assert [(row[2], row[3], row[-1]) for row in rows[1:]] == [
        ("30", "medium", "0"),
        ("12", "few", "18"),
        ("6", "few", "24"),
    ]
    summary = json.loads((folder / "summary.json").read_text())
    assert [stage["images"] for stage in summary["stages"]] == [90, 18]
    assert json.loads((folder / "environment.json").read_text())["images"]["synthetic"] == 42
    (folder / "summary.json").unlink()
    train("demo", told, folder, resume=True)
    (store / "train" / "c" / "000000.png").unlink()
    (folder / "summary.json").unlink()
    with pytest.raises(StateError, match=r"begun with other data .*labels_sha256"):
        train("demo", told, folder, resume=True)
    with pytest.raises(StateError, match=r"begun with sources"):
        train("demo", [*told, "sources=null"], folder, resume=True)
