"""Filters find what was planted, say so in scores, and can be undone."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from augkit_diffusion import filters
from augkit_diffusion.evidence import Evidence
from augkit_diffusion.features import vectors
from augkit_diffusion.filters import FILTERS, Plan
from augkit_diffusion.near_copies import likest, nearest
from augkit_diffusion.store import Store
from filter_parts import GOOD, PLANTED, digits_store, named
from hypothesis import given
from hypothesis import strategies as st
from synth_parts import begin, synth, tree

from augkit.errors import DataError
from augkit.lab.recipe import read_recipe
from augkit.lab.run import train

# what is decided, as a function of scores

CELLS = st.dictionaries(st.integers(0, 30).map(lambda n: f"{n:02d}.png"), st.sampled_from("abc"), min_size=1)
OPTIONS = {None: st.just({}), "limit": st.fixed_dictionaries({"limit": st.floats(0, 1)})}
OPTIONS["keep"] = st.fixed_dictionaries({"keep": st.floats(0, 1)})
PLANS = st.fixed_dictionaries({}, optional={name: OPTIONS[one.option] for name, one in FILTERS.items()})


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, str], Plan, dict[str, dict[str, float]]]:
    cells = draw(CELLS)
    plan = draw(PLANS)
    coarse = st.integers(0, 8).map(lambda n: n / 4 - 0.5)  # ties are common
    return cells, plan, {name: {file: draw(coarse) for file in cells} for name in plan}


@given(cases(), st.randoms())
def test_neither_the_images_order_nor_the_filters_decides(
    case: tuple[dict[str, str], Plan, dict[str, dict[str, float]]], random: object
) -> None:
    cells, plan, scores = case

    def shuffled(mapping: dict) -> dict:  # type: ignore[type-arg]
        items = list(mapping.items())
        random.shuffle(items)  # type: ignore[attr-defined]
        return dict(items)

    other = {name: shuffled(found) for name, found in scores.items()}
    assert filters.decide(shuffled(plan), shuffled(other), shuffled(cells)) == filters.decide(plan, scores, cells)


@given(cases(), st.floats(0, 1))
def test_a_share_of_each_class_is_kept_to_the_image(
    case: tuple[dict[str, str], Plan, dict[str, dict[str, float]]], share: float
) -> None:
    cells, plan, scores = case
    plan = {name: options for name, options in plan.items() if name not in ("cosine", "entropy")}
    before = filters.decide(plan, scores, cells)
    scores = scores | {"cosine": {file: float(i % 4) for i, file in enumerate(cells)}}
    after = filters.decide(plan | {"cosine": {"keep": share}}, scores, cells)
    for cell in "abc":
        standing = [file for file in cells if cells[file] == cell and before[file] is None]
        left = [file for file in standing if after[file] is None]
        assert len(left) == math.ceil(share * len(standing) - 1e-9) and (left or not standing or share < 1e-9)
        worst, best = (
            [scores["cosine"][file] for file in standing if (after[file] is None) is kept] for kept in (True, False)
        )
        assert not worst or not best or min(worst) >= max(best)
    assert all(after[file] == name for file, name in before.items() if name is not None)


@given(cases(), st.sampled_from(sorted(FILTERS)))
def test_a_filter_taken_away_leaves_what_the_others_do(
    case: tuple[dict[str, str], Plan, dict[str, dict[str, float]]], gone: str
) -> None:
    cells, plan, scores = case
    rest = {name: options for name, options in plan.items() if name != gone}
    found = filters.decide(rest, scores, cells)
    assert gone not in found.values()
    assert found == filters.decide(rest, {name: scores[name] for name in rest}, cells)


def test_nearest_is_what_comparing_all_gives() -> None:
    random = np.random.default_rng(0)
    these, those = random.normal(size=(30, 4)).astype(np.float32), random.normal(size=(50, 4)).astype(np.float32)
    values, places = nearest(these, those, 3)
    for row, value, place in zip(these, values, places, strict=True):
        order = np.argsort(-(those @ row))[:3]
        assert place.tolist() == order.tolist() and np.allclose(value, (those @ row)[order])
    values, places = nearest(those, those, 1, own=np.arange(50))
    assert (places[:, 0] != np.arange(50)).all()
    assert nearest(these, those[:0])[1].tolist() == [[-1]] * 30


def natural(count: int) -> np.ndarray:
    """[count, 3, 36, 36] uint8 smooth pictures."""
    random = np.random.default_rng(3)
    coarse = torch.from_numpy(random.integers(0, 256, (count, 3, 9, 9)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, (36, 36), mode="bilinear").byte().numpy()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shift", [(0, 0), (1, 2), (4, 0), (3, 4)])
def test_copies_are_found_though_moved_and_mirrored(shift: tuple[int, int], mirror: bool) -> None:
    whole, random = natural(40), np.random.default_rng(4)
    those = whole[:, :, 2:34, 2:34]
    these = whole[:20, :, shift[0] : shift[0] + 32, shift[1] : shift[1] + 32]
    rough = np.clip(these.astype(int) + random.integers(-4, 5, these.shape), 0, 255).astype(np.uint8)
    these = rough[..., ::-1] if mirror else rough
    values, places = likest(these, those, vectors(these.copy()), vectors(those))
    assert places.tolist() == list(range(20)) and values.min() > 0.98
    others, there = likest(those, those, vectors(those), vectors(those), own=np.arange(40))
    assert others.max() < 0.9 and (there != np.arange(40)).all()
    none, nowhere = likest(these, those[:0], vectors(these.copy()), vectors(those[:0]))
    assert np.isneginf(none).all() and set(nowhere.tolist()) == {-1}


# on a store in which it is known what is wrong


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "synth"
    digits_store(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "synth"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt the real digits."""
    recipe = {"augkit": 1, "name": "digits", "model": "resnet8_cifar", "epochs": 10, "batch_size": 32, "threads": 1}
    data = {"source": "digits", "imbalance": 20, "validation": 0.1}
    return train(recipe | {"data": data, "loss": "balanced_softmax"}, (), tmp_path_factory.mktemp("run") / "run")


def rejected(store: Store) -> dict[str, str]:
    return {row["file"]: row["rejected_by"] for row in store.images(rejected=True) if row["rejected_by"] is not None}


@pytest.mark.parametrize(
    ("option", "by", "what"),
    [
        (["--blank"], "blank", {"blank"}),
        (["--near-duplicate", 0.99], "near_duplicate", {"copy", "mirrored copy"}),
        (["--repeat", 0.99], "repeat", {"repeat"}),
    ],
)
def test_each_filter_finds_what_was_planted_and_nothing_else(
    folder: Path, option: list[str | float], by: str, what: set[str]
) -> None:
    result = synth("filter", folder, *option)
    assert result.exit_code == 0, result.output
    store = Store.open(folder)
    wrong = set().union(*(named(store, one) for one in what))
    broken = named(store, "broken")
    assert rejected(store) == dict.fromkeys(wrong, by) | dict.fromkeys(broken, "broken")
    assert all((folder / "rejected" / file).is_file() and not (folder / "train" / file).exists() for file in wrong)
    scored = {row["file"] for row in store.images(rejected=True) if row[f"score_{by}"] is not None}
    first = {store.name(label, None, 0) for label in range(10)}
    assert scored == {row["file"] for row in store.images(rejected=True)} - broken - (
        first if by == "repeat" else set()
    )


@pytest.mark.slow
def test_a_classifier_finds_other_classes(folder: Path, run: Path) -> None:
    assert synth("filter", folder, "--agree", "--run", run).exit_code == 0
    store = Store.open(folder)
    by_number = Counter(int(file[2:8]) for file, name in rejected(store).items() if name == "agree")
    assert by_number[GOOD + PLANTED.index("other class")] >= 9
    assert sum(by_number[k] for k in range(GOOD)) <= 30  # of 120; what the network itself gets wrong
    noted = filters.read(folder)
    assert noted.plan == {"broken": {}, "agree": {}} and noted.viewer["run"] == str(run)
    evidence = Evidence(store, store.images(rejected=True), run=run)
    assert np.allclose(evidence.chances.sum(1), 1) and evidence.made.features.shape == (180, 64)


def test_a_run_judges_when_its_teacher_is_gone(folder: Path, run: Path, tmp_path: Path) -> None:
    teacher = Path(shutil.copytree(run, tmp_path / "teacher"))
    loss = {"name": "ride", "base": "balanced_softmax", "diversity_factor": 0, "teacher": str(teacher)}
    student = train(
        read_recipe(run / "recipe.yaml").model_dump(mode="json") | {"loss": loss}, ("epochs=1",), tmp_path / "run"
    )
    shutil.rmtree(teacher)
    result = synth("filter", folder, "--agree", "--run", student)
    assert result.exit_code == 0, result.output
    assert filters.read(folder).viewer["run"] == str(student)


@pytest.mark.parametrize("change", ["swapped", "fewer", "gone"])
def test_a_run_that_knows_other_classes_is_no_judge(folder: Path, run: Path, tmp_path: Path, change: str) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    table = other / "per_class.csv"
    head, *rows = table.read_text().splitlines(keepends=True)
    assert rows[3].startswith("3,3,") and rows[5].startswith("5,5,")
    rows[3], rows[5] = rows[3].replace("3,3,", "3,5,", 1), rows[5].replace("5,5,", "5,3,", 1)
    table.unlink() if change == "gone" else table.write_text("".join([head, *rows[: 3 if change == "fewer" else 10]]))
    before = tree(folder)
    told = {
        "swapped": '"5" where the store has "3"',
        "fewer": 'nothing where the store has "3"',
        "gone": "which classes",
    }
    for verb in (("filter", folder, "--agree"), ("look", folder)):
        result = synth(*verb, "--run", other)
        assert result.exit_code == 2 and told[change] in result.stderr and "give another --run" in result.stderr
    assert tree(folder) == before


def test_cosine_and_entropy_prefer_good_images(folder: Path, run: Path) -> None:
    assert synth("filter", folder, "--run", run, "--keep-cosine", 0.8, "--keep-entropy", 0.5).exit_code == 0
    store = Store.open(folder)
    gone = rejected(store)
    per_class = len(PLANTED) - 1 + GOOD
    for label in range(10):
        left = [file for file in store.images() if file["class"] == str(label)]
        assert len(left) == math.ceil(0.5 * math.ceil(0.8 * per_class))
    by = {what: sum(file in gone for file in named(store, what)) for what in ("noise", "other class", "copy")}
    assert by["noise"] >= 8 and by["other class"] >= 8 and by["copy"] <= 5


def test_the_line_of_the_manual_works_without_any_network(folder: Path) -> None:
    result = synth("filter", folder, "--keep-cosine", 0.8, "--keep-entropy", 0.3)
    assert result.exit_code == 0 and "linear classifier on plain pixels" in result.stderr
    store = Store.open(folder)
    assert named(store, "noise") <= rejected(store).keys()


@pytest.mark.slow
def test_one_by_one_or_together_once_or_twice_is_the_same(original: Path, tmp_path: Path) -> None:
    together, apart, twice = (Path(shutil.copytree(original, tmp_path / name)) for name in "abc")
    every = [["--blank"], ["--keep-entropy", 0.5], ["--keep-cosine", 0.7], ["--repeat", 0.99]]
    synth("filter", together, *[word for words in every for word in words])
    for words in every:
        assert synth("filter", apart, *words).exit_code == 0
        assert synth("filter", twice, *[word for words in every for word in words]).exit_code == 0
    assert tree(together) == tree(apart) == tree(twice)
    assert Store.open(apart).manifest().equals(Store.open(together).manifest())
    assert synth("filter", apart).exit_code == 0
    assert tree(apart) == tree(together)


def test_undo_brings_back_every_bit(folder: Path) -> None:
    before = tree(folder)
    synth("filter", folder, "--blank", "--near-duplicate", 0.99)
    middle = tree(folder)
    assert middle != before
    synth("filter", folder, "--keep-cosine", 0.5, "--agree")
    assert synth("filter", folder, "--undo", "cosine", "--undo", "agree").exit_code == 0
    assert tree(folder) == middle
    assert synth("filter", folder, "--undo", "all").exit_code == 0
    assert tree(folder) == before
    assert {row["rejected_by"] for row in Store.open(folder).images(rejected=True)} == {None}
    assert synth("filter", folder, "--undo", "all").exit_code == 0 and tree(folder) == before


def test_a_dry_run_changes_nothing(folder: Path) -> None:
    before, manifest = tree(folder), (folder / "manifest.parquet").read_bytes()
    result = synth("filter", folder, "--blank", "--keep-cosine", 0.5, "--dry-run", "--json")
    said = json.loads(result.stdout)
    assert said["dry_run"] and said["changed"] == 100 and said["kept"] == 90
    assert tree(folder) == before and (folder / "manifest.parquet").read_bytes() == manifest
    assert not (folder / "filters.yaml").exists()
    applied = json.loads(synth("filter", folder, "--blank", "--keep-cosine", 0.5, "--json").stdout)
    assert applied == said | {"dry_run": False} and len(Store.open(folder).images()) == 90


def test_images_made_since_are_filtered_by_a_call_without_options(folder: Path) -> None:
    synth("filter", folder, "--blank")
    store = Store.open(folder)
    wish = store.wish(3, None, 40)
    store.write(wish, np.full((8, 8, 3), 7, np.uint8), {})
    assert synth("filter", folder).exit_code == 0
    assert rejected(Store.open(folder))[store.name(3, None, 40)] == "blank"


def test_what_others_rejected_stays_theirs(folder: Path) -> None:
    store = Store.open(folder)
    store.reject("mine", ["3/000001.png"])
    synth("filter", folder, "--keep-cosine", 0.5)
    assert rejected(Store.open(folder))["3/000001.png"] == "mine"
    assert synth("filter", folder, "--undo", "mine", "--undo", "cosine").exit_code == 0
    assert "3/000001.png" not in rejected(Store.open(folder))


def test_a_lost_manifest_is_mended_by_filtering_again(folder: Path) -> None:
    synth("filter", folder, "--blank", "--keep-cosine", 0.5)
    before, manifest = tree(folder), Store.open(folder).manifest()
    (folder / "manifest.parquet").unlink()
    assert synth("filter", folder).exit_code == 0
    assert tree(folder) == before and Store.open(folder).manifest().equals(manifest)


def test_a_kill_between_moves_heals_when_the_store_is_opened(folder: Path) -> None:
    synth("filter", folder, "--blank", "--keep-cosine", 0.5)
    after = tree(folder)
    for path in sorted((folder / "rejected").rglob("*.png"))[::2]:  # as if they had not been moved yet
        path.rename(folder / "train" / path.parent.name / path.name)
    Store.open(folder)
    assert tree(folder) == after


@pytest.mark.slow
def test_kills_of_a_process_lose_nothing(original: Path, tmp_path: Path) -> None:
    words = ["--blank", "--keep-cosine", 0.3]
    reference = Path(shutil.copytree(original, tmp_path / "reference"))
    assert synth("filter", reference, *words).exit_code == 0
    for kill, awaited in enumerate(["filters.yaml", "rejected", "rejected/7"]):
        folder = Path(shutil.copytree(original, tmp_path / f"store{kill}"))
        process = begin(tmp_path / f"logs{kill}", "synth", "filter", folder, *words)
        deadline = time.monotonic() + 120
        while not (folder / awaited).exists() and process.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.0005)
        os.kill(process.process.pid, signal.SIGKILL)
        process.process.join()
        there = sorted(hash_ for hash_ in tree(folder).values())
        assert there == sorted(tree(original).values())  # none lost, none twice
        store = Store.open(folder)
        assert all(store.path(row).is_file() for row in store.images(rejected=True))
        assert synth("filter", folder).exit_code == 0
        assert tree(folder) == tree(reference)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say which filters: --keep-cosine 0.8"),
        (["--undo", "cosin"], 'there is no filter "cosin" to undo. Did you mean "cosine"?'),
        (["--run", "nowhere", "--agree"], "nowhere: this is no run folder"),
        (["--model", "resnet18"], "--weights its file: say both"),
        (["--nearest", "3"], "--nearest says how --keep-cosine compares"),
        (["--run", "a", "--model", "b", "--agree"], "say one"),
    ],
)
def test_faults_are_told_in_a_sentence_and_change_nothing(folder: Path, words: list[str], message: str) -> None:
    before = tree(folder)
    result = synth("filter", folder, *words)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert tree(folder) == before and not (folder / "filters.yaml").exists()


def test_other_real_images_than_the_store_was_made_for_are_refused(folder: Path) -> None:
    text = (folder / "store.yaml").read_text()
    (folder / "store.yaml").write_text(text.replace("subset_seed: 0", "subset_seed: 1"))
    store = Store.open(folder)
    with pytest.raises(DataError, match="are others now"):
        _ = Evidence(store, store.images()).data


def test_an_encoder_with_weights_from_a_file_looks(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from augkit.lab import models

    network = models.create("resnet8_cifar", 7, {}, 3)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    seen = []
    for weights in ("w.safetensors", "w.pth"):
        store = Store.open(folder)
        evidence = Evidence(store, store.images()[:5], model="resnet8_cifar", weights=tmp_path / weights)
        assert evidence.made.logits is None
        seen.append(evidence.made.features)
    assert seen[0].shape == (5, 64) and np.array_equal(*seen) and np.ptp(seen[0]) > 0
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    torch.save({"state_dict": Plan}, tmp_path / "code.pth")
    for weights in ("bad.pth", "code.pth"):
        with pytest.raises(DataError, match=r"cannot be read safely \(UnpicklingError\); save plain tensors") as caught:
            _ = Evidence(store, store.images()[:5], model="resnet8_cifar", weights=tmp_path / weights).made
        assert "weights_only" not in str(caught.value)  # torch's own words advise to turn it off
    with pytest.raises(DataError, match="are not weights of the timm model"):
        _ = Evidence(store, store.images()[:5], model="resnet20_cifar", weights=tmp_path / "w.pth").made
