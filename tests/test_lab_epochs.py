"""Epochs of real and synthetic images: which they take, what is told of them, and that they are the same again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from synthetic_parts import begun, write_archive_and_store, write_npz
from torch import Tensor

from augkit.errors import DataError, StateError
from augkit.lab import epochs, samplers
from augkit.lab.course import counts_of
from augkit.lab.epochs import Part, Sampler
from augkit.lab.folder import write_yaml
from augkit.lab.loop import train_epoch
from augkit.lab.run import train
from augkit.registry import Registry


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return write_archive_and_store(tmp_path)[0]


@pytest.fixture
def store(npz: Path) -> Path:
    return npz.parent / "synth"


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
    with (folder / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["train_images"], row["group"], row["synthetic_images"]) for row in rows] == [
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


def meeting(path: Path) -> str:
    write_yaml(
        path, {"augkit": 1, "name": "meet", "pipeline": [{"batch": [{"mixup": {"p": 1, "across": "synthetic"}}]}]}
    )
    return f"policy={path}"


def test_a_policy_is_told_which_images_are_synthetic(
    npz: Path, store: Path, registry: Registry, tmp_path: Path
) -> None:
    run = begun(registry, npz, f"sources={store}", meeting(tmp_path / "meet.yaml"))
    train_epoch(run)
    plan, where = run.policy.last_plan, run.stage.batches(0)[-1]
    assert plan is not None
    (step,), made = plan.mixes, torch.from_numpy(run.data.synthetic)[where]
    assert (step.kind != 0).all() and (made[step.partner] != made).all()
    train_epoch(begun(registry, npz, meeting(tmp_path / "meet.yaml")))  # all images are real: told, and none is mixed


def test_a_probe_is_told_too(npz: Path, store: Path, registry: Registry, tmp_path: Path) -> None:
    asking = {"ask": {"upto": 1, "samples": 3, "steps": [{"invert": {"p": "is_synthetic"}}]}}
    write_yaml(tmp_path / "ask.yaml", {"augkit": 1, "name": "ask", "pipeline": [], "probes": asking})
    for memory in (4096, 0):
        run = begun(registry, npz, f"sources={store}", f"policy={tmp_path}/ask.yaml", f"data.memory={memory}")
        train_epoch(run)
        assert run.policy.probe_images == 3 * 2 * 3
        assert run.policy.asked is not None and run.policy.asked.pool.is_synthetic is not None
        assert run.policy.asked.pool.is_synthetic.bool().tolist() == run.data.synthetic.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("said", ['share: "linear(0.2, 0.8, epoch / epochs)"', "replace: 0.5"])
def test_a_run_that_is_interrupted_ends_as_one_that_is_not(
    said: str, npz: Path, store: Path, registry: Registry, tmp_path: Path
) -> None:
    stages = "stages=[{train: {epochs: 4}}, {finetune_head: {data: real, balance: classes, epochs: 2}}]"
    told = (f"sources={{folder: {store}, {said}}}", stages, meeting(tmp_path / "meet.yaml"), "batch_size=16")
    whole = begun(registry, npz, *told)
    records = [train_epoch(whole) for _ in range(6)]
    for stop in (1, 3, 4, 5):
        first = begun(registry, npz, *told)
        for _ in range(stop):
            train_epoch(first)
        second = begun(registry, npz, *told)
        second.load_state_dict(first.state_dict())
        later = [train_epoch(second) for _ in range(6 - stop)]
        assert [r["loss"] for r in later] == [r["loss"] for r in records[stop:]]
        assert [r["synthetic"] for r in later] == [r["synthetic"] for r in records[stop:]]
        for name, value in second.model.state_dict().items():
            assert torch.equal(value, whole.model.state_dict()[name])
