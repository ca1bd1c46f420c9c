"""`augkit synth allocate`: what it makes, trains and judges."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allocation_parts import COUNTS, asked, written
from augkit_diffusion.allocating import CONTROL, RUNS, Allocation
from augkit_diffusion.candidates import RESULTS, Candidate
from augkit_diffusion.evidence import real_data
from augkit_diffusion.store import Store
from augkit_diffusion.taking import Taken
from augkit_diffusion.trainings import train_one
from PIL import Image
from synth_parts import NAMES, begin, crawled, plugged, synth

from augkit.errors import AugkitError
from augkit.lab import folder as files
from augkit.lab import seen
from augkit.lab.data import load
from augkit.lab.jobs import Result
from augkit.lab.recipe import load_recipe
from augkit.lab.run import train
from augkit.plugins import registry

VALIDATION = "data.validation_per_class=2"
STAMPS = ("--source", "stamps")


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with plugged(tmp_path_factory.mktemp("plugged") / "site"):
        yield


# -- images that only sources learn from ----------------------------------------------------------------------------


def test_make_begins_with_images_that_are_set_apart(tmp_path: Path) -> None:
    path, out = written(tmp_path), tmp_path / "synth"
    words = ("make", path, "--target", 24, *STAMPS, "--out", out, "--set", "sources={tuning: 0.5}")
    done = synth(*words)
    assert done.exit_code == 0, done.output
    store = Store.open(out)
    read = load_recipe(path, registry(), [f"sources={{folder: {out}, tuning: 0.5}}"])
    data = load(read.data, sources=read.sources)
    assert data.real_counts.tolist() == [20, 4, 2, 1] and data.class_counts.tolist() == [24] * 4
    assert data.tuning is not None
    learnt = data.tuning.rows.tolist()  # stamps says which image of its data each begins with, and it knows of twenty
    begun = {row["source_image"] for row in store.images()}
    assert begun <= {f"row {row}" for row in learnt[:20]} and len(begun) > 10
    noted = set(np.load(out / seen.NOTE).tolist())
    assert noted == set(seen.fingerprints(data.tuning.reader, data.tuning.rows).tolist())
    assert real_data(store).train.rows.tolist() == learnt  # what filters and the look compare with
    planned = synth("plan", path, "--target", 24, "--out", out, "--set", "sources={tuning: 0.5}", "--json")
    assert json.loads(planned.stdout)["images"] == 0, planned.output
    other = synth(*words[:-1], "sources={tuning: 0.25}")
    assert other.exit_code == 2 and "this store was begun with other data" in other.stderr


# -- planning -------------------------------------------------------------------------------------------------------


def test_candidates_share_out_as_many_images_as_their_ratio_says(tmp_path: Path) -> None:
    allocation = asked(written(tmp_path), ratios=(0.5, 1, 2), weights=("1", "class_count", "1 / class_count"))
    assert len(allocation.wanted) == 2 * 3 * 3 and allocation.real == sum(COUNTS)
    for candidate, wanted in allocation.wanted.items():
        assert sum(wanted.values()) == round(candidate.ratio * sum(COUNTS))
    assert list(allocation.wanted[Candidate(0.5, "class_count", 2)].values()) == [2 * count for count in COUNTS]
    greediest = allocation.greediest(0.5)
    assert greediest[0, None] == 80 and greediest[3, None] == max(w[3, None] for w in allocation.wanted.values()) > 20


def test_each_split_has_a_store_and_each_candidate_takes_of_it(tmp_path: Path) -> None:
    allocation = asked(written(tmp_path))
    allocation.try_out()
    assert allocation.kept == {0.0: 55, 0.5: 27}
    assert not (tmp_path / "out").exists()
    allocation.make(1, "local")
    taken = allocation.taken()
    for candidate, images in taken.items():
        assert list(images.take) == list(NAMES) and not images.gaps
        assert list(images.take.values()) == list(allocation.wanted[candidate].values())
    stores = {split: Store.open(allocation.store(split)) for split in (0.0, 0.5)}
    assert [len(store.images()) for store in stores.values()] == [sum(allocation.greediest(0.0).values())] * 2
    rows = {split: {row["source_image"] for row in store.images()} for split, store in stores.items()}
    assert rows[0.0] != rows[0.5]

    tasks = {task.name: task for task in allocation.tasks(taken)}
    assert len(tasks) == (len(taken) + 2) * 2 and all(not task.arguments["recipe"]["test"] for task in tasks.values())
    assert "sources" not in tasks[f"{CONTROL}-seed1"].arguments["recipe"]
    assert tasks[f"{CONTROL}-6-epochs-seed1"].arguments["recipe"]["epochs"] == 6 == 2 * (55 + 110) / 55
    one = tasks["split0.5-ratio2-1-seed1"]
    sources = {"folder": None, "tuning": 0.5, "take": taken[Candidate(0.5, "1", 2)].take}
    assert one.arguments["recipe"]["sources"] == sources and one.arguments["recipe"]["seed"] == 1
    assert one.places == {"folder": str(allocation.out / RUNS / one.name), "store": str(allocation.store(0.5))}

    more = asked(tmp_path / "recipe.yaml", ratios=(1, 2, 3), weights=("1 / class_count", "1"), seeds=(1, 0, 2))
    more.try_out()
    more.make(1, "local")
    again = {task.name: task for task in more.tasks(more.taken())}
    assert tasks.keys() - again.keys() == {f"{CONTROL}-6-epochs-seed{seed}" for seed in (0, 1)}
    assert all(again[name] == task for name, task in tasks.items() if name in again)


def test_images_that_a_store_lacks_are_not_taken(tmp_path: Path) -> None:
    allocation = asked(written(tmp_path), options={"refused": 3}, splits=[0.0], weights=("1",))
    allocation.try_out()
    allocation.make(1, "local")
    taken = allocation.taken()
    for candidate, images in taken.items():
        wanted = allocation.wanted[candidate].values()
        assert list(images.take.values()) == [number - number // 3 for number in wanted]
    store = Store.open(allocation.store(0.0))
    store.reject("mine", ["dog/000000.png"])  # then it is another training
    fewer = allocation.taken()
    assert all(images.images == taken[candidate].images - 1 for candidate, images in fewer.items())
    store.restore("mine")
    store.reject("mine", ["dog/000001.png"])  # as many, and yet others
    others = allocation.taken()
    assert all(images.take == fewer[candidate].take for candidate, images in others.items())
    every = [
        {task.name for task in allocation.tasks(one) if CONTROL not in task.name} for one in (taken, fewer, others)
    ]
    assert len(set.union(*every)) == sum(map(len, every)) == 12


def test_groups_are_filled_up_each_for_itself(tmp_path: Path) -> None:
    allocation = asked(written(tmp_path, groups=True), splits=[0.0], ratios=(1,), weights=("1",))
    allocation.try_out()
    allocation.make(1, "local")
    ((candidate, images),) = allocation.taken().items()
    take = images.take
    assert [sum(of.values()) for of in take.values()] == [14, 14, 14, 13] and set(take["dog"]) == {
        "on/land",
        "on water",
    }
    said = allocation.question.recipe_of(candidate, take, str(allocation.store(0.0)))
    read = load_recipe(said, registry())
    data = load(read.data, sources=read.sources)
    assert int(data.synthetic.sum()) == sum(COUNTS)


def test_a_source_that_learns_from_no_image_has_nothing_set_apart(tmp_path: Path) -> None:
    path, options = written(tmp_path), {"path": str(crawled(tmp_path / "crawled"))}
    question = asked(path, source="folder", options=options, splits=[0.0]).question
    assert Allocation(replace(question, splits=None), tmp_path / "out", print).splits == [0.0]
    assert Allocation(replace(asked(path).question, splits=None), tmp_path / "out", print).splits == [0.0, 0.3, 0.5]
    with pytest.raises(AugkitError, match='"folder" learns from no real image, so none need be set apart'):
        asked(path, source="folder", options=options, splits=[0.0, 0.5])


def test_what_the_recipe_says_of_mixing_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path)
    allocation = asked(path, "sources={replace: 0.5, tuning: 0.9}")
    said = allocation.question.recipe_of(next(iter(allocation.wanted)), {}, "x")["sources"]
    assert said == {"replace": 0.5, "folder": "x", "tuning": 0.0, "take": {}}
    assert list(allocation.controls()) == [CONTROL]  # its epochs are as long as those of the real images
    assert "sources" not in allocation.question.recipe_of(None)


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--set", "data.validation_per_class=0"),
            "data: validation images choose, and none are held out: say data.val",
        ),
        (("--set", "data={source: DATA, validation: 0.05}"), 'class "T-shirt/top" has no validation image'),
        (("--splits", "0,1"), '--splits takes different numbers from 0 and below 1, as 1,2, not "0,1"'),
        (("--ratios", "0"), "--ratios takes different numbers above 0"),
        (("--ratios", "1,1"), "--ratios takes different numbers"),
        (("--splits", "0", "--ratios", "0.000001"), "--ratios 1e-06: of 55 real images that is no synthetic image"),
        (("--seeds", "0.5"), '--seeds takes how many, such as 3, or which, such as 0,5,7, not "0.5"'),
        (("--weights", "nothing"), '--weights "nothing":'),
        (("--weights", "0 * class_count"), '--weights "0 * class_count": weights are 0 or more and not all 0'),
        (("--option", "sizes=3"), 'source "stamps": there is no option "sizes"'),
        (("--set", "model=resnet9_cifar"), "resnet9_cifar"),
        (("--set", "loss=jsd"), "compares views"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(words: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    told = [word.replace("DATA", str(tmp_path / "data.npz")) for word in words]
    done = synth("allocate", path, *STAMPS, "--out", tmp_path / "out", *told)
    assert done.exit_code == 2 and message in done.stderr, done.output
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    done = synth("allocate", path, *STAMPS, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "this folder holds something else" in done.stderr
    (tmp_path / "out" / "notes.txt").rename(tmp_path / "out" / "settings.json")
    (tmp_path / "out" / "settings.json").write_text("{}")
    done = synth("allocate", path, *STAMPS, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "this choice was begun with another recipe" in done.stderr
    for name, damage in (
        ("settings.json", '{"recipe": '),
        ("settings.json", "[]"),
        ("allocation.json", "\0"),
        ("allocation.json", '{"candidates": [1]}'),
    ):
        (tmp_path / "out" / name).write_text(damage)
        done = synth("allocate", path, *STAMPS, "--out", tmp_path / "out")
        assert done.exit_code == 2 and f"{name}: damaged" in done.stderr and len(done.stderr.splitlines()) == 1


def given_values(
    folder: Path,
    allocation: Allocation,
    values: Mapping[str, float],
    taken: Mapping[Candidate, Taken] | None = None,
    stale: Collection[Candidate] = (),
) -> dict[str, Any]:
    """The results of an allocation whose finished runs had these accuracies (by the beginning of their names), as
    `allocate` leaves them in its folder; without `taken` no store is there."""
    fully = {candidate: Taken({"dog": sum(wanted.values())}) for candidate, wanted in allocation.wanted.items()}
    taken = taken or fully

    def value(name: str) -> float:
        return next(value for begin, value in values.items() if name.startswith(begin)) + int(name[-1]) / 10

    tasks = allocation.tasks(taken)
    done = {task.name: Result(task.name, {"balanced": value(task.name)}) for task in tasks}
    found = allocation._choice(taken, done, stale).results()
    (folder / "out").mkdir(exist_ok=True)
    files.write_json(folder / "out" / RESULTS, found)
    return found


def test_candidates_of_earlier_calls_are_judged_as_well(tmp_path: Path) -> None:
    """A narrower call neither gets rid of the correction nor of the longest control."""
    path = written(tmp_path)
    values = {"split0-ratio1": 82.0, "split0-ratio2": 80.0, "control-": 81.0, "control": 60.0}
    whole = given_values(tmp_path, asked(path, splits=[0.0], seeds=(0, 1, 2)), values)
    assert len(whole["candidates"]) == 4 and "control-6-epochs" in whole["controls"]
    narrow = asked(path, splits=[0.0], ratios=(1,), weights=("1",), seeds=(2, 0, 1, 4))
    assert "judged with 3 candidates of earlier calls, by the seeds that all have: 2, 0, 1" in narrow.words()
    again = given_values(tmp_path, narrow, values)
    assert len(narrow.wanted) == 1 and len(again["candidates"]) == 4 and list(again["controls"]) == [*whole["controls"]]
    for found in (whole, again):
        assert "looking at 4" in found["verdict"][-1] and found["better"] and sorted(found["seeds"]) == [0, 1, 2]
    assert again["candidates"][again["chosen"]]["accuracy"] == whole["candidates"][whole["chosen"]]["accuracy"]
    assert [*again["candidates"][0]["values"]] == ["0", "1", "2", "4"]  # there for a call that all have it in
    fresh = asked(path, splits=[0.0], ratios=(3,), weights=("1",), seeds=(4,))
    with pytest.raises(AugkitError, match=r"do not all have one of these --seeds.* some of theirs \(0, 1, 2\)"):
        fresh.try_out()
    more = asked(path, splits=[0.0], ratios=(0.5, 1, 2, 3), seeds=(0, 1, 2))
    assert not more.others and more.seeds == [0, 1, 2] and "control-8-epochs" in more.controls()


def test_figures_of_images_that_a_filter_changed_since_are_stale(tmp_path: Path) -> None:
    path, values = written(tmp_path), {"split0-ratio1": 82.0, "control": 60.0}
    whole, other = asked(path, splits=[0.0], ratios=(1,)), Candidate(0.0, "1 / class_count", 1)
    whole.make(1, "local")
    given_values(tmp_path, whole, values, whole.taken())
    store = Store.open(whole.store(0.0))
    narrow = asked(path, splits=[0.0], ratios=(1,), weights=("1",))
    assert [row["weights"] for row in narrow.others] == [other.weights] and narrow.stale() == set()
    store.reject("mine", ["dog/000000.png"])
    assert narrow.stale() == {other}
    found = given_values(tmp_path, narrow, values, narrow.taken(), narrow.stale())
    assert [row["stale"] for row in found["candidates"]] == [False, True] and found["chosen"] == 0
    assert "stale, so not chosen" in found["verdict"][-1]
    again = asked(path, splits=[0.0], ratios=(1,), weights=("1",))  # the figures are still those of the whole store
    store.restore("mine")
    store.reject("mine", ["dog/000039.png"])  # none of the few dogs that it takes
    assert again.stale() == set()
    shutil.rmtree(store.folder)
    assert again.stale() == {other}


def test_a_run_is_measured_on_validation_images(tmp_path: Path) -> None:
    said = load_recipe(written(tmp_path), registry(), ["epochs=1"]).model_dump(mode="json") | {"test": False}
    found = train_one(said, str(tmp_path / "run"))
    assert 0 <= found["balanced"] <= 100 and found == train_one(said, str(tmp_path / "run"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    with (tmp_path / "run" / files.PER_CLASS).open() as table:
        by_class = [float(row["accuracy"]) for row in csv.DictReader(table)]
    assert found["balanced"] == pytest.approx(100 * sum(by_class) / len(by_class), abs=0.01)
    assert summary["test"] is None and "the test set was not read" in summary["reported"]


def finished(out: Path) -> int:
    return len(list((out / "done").glob("*.json")))


@pytest.mark.slow
def test_a_killed_choice_goes_on_and_its_best_recipe_trains(tmp_path: Path) -> None:
    path, out = written(tmp_path), tmp_path / "out"
    more = ("--splits", "0,0.5", "--ratios", 1, "--weights", "1 / class_count", "--seeds", "0,1", "--json")
    words = ("synth", "allocate", path, *STAMPS, *more, "--out", out)
    for way, runs in ((signal.SIGKILL, 1), (signal.SIGINT, 3)):
        process = begin(tmp_path / f"logs{runs}", *words)
        deadline = time.monotonic() + 180
        while finished(out) < runs and process.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.process.is_alive(), process.wait()
        os.kill(process.process.pid, way)
        status, _, errors = process.wait()
        assert status == {signal.SIGKILL: -9, signal.SIGINT: 130}[way], errors
    assert "interrupted; the same command goes on" in errors
    status, printed, errors = begin(tmp_path / "logs", *words).wait()
    assert status == 0, errors
    found = json.loads(printed)
    assert found == json.loads((out / "allocation.json").read_text()) and finished(out) == 8
    assert "2 candidates (splits 0, 0.5; ratios 1; weights 1 / class_count) and 2 without synthetic images" in errors
    assert "with 2 seeds: 8 runs; 110 images to be made, 55 and 55 for each split" in errors
    assert [row["images"] for row in found["candidates"]] == [55, 55] and found["failed"] == {}
    with Image.open(out / "accuracy.png") as picture:
        assert picture.width > 400
    status, printed, errors = begin(tmp_path / "logs-again", *words, "--splits", "0").wait()
    assert status == 0 and len(json.loads(printed)["candidates"]) == 2 and finished(out) == 8, errors
    Store.open(out / "stores" / "split-0.5").reject("mine", ["dog/000000.png"])
    status, printed, errors = begin(tmp_path / "logs-filtered", *words, "--splits", "0").wait()
    assert status == 0 and [row["stale"] for row in json.loads(printed)["candidates"]] == [False, True], errors
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere")
    folder = train(moved / "best.yaml", ["epochs=1"], tmp_path / "run")
    images = json.loads((folder / "environment.json").read_text())["images"]
    assert images["synthetic"] == 55 and images.get("tuning", 0) in (0, 28)


@pytest.mark.slow
def test_good_images_are_told_from_noise(tmp_path: Path) -> None:
    """Real images that nobody trained on, made to stand for synthetic ones, beat none; noise does not."""
    said: dict[str, Any] = {"augkit": 1, "name": "digits", "model": "resnet8_cifar", "epochs": 5, "batch_size": 32}
    said |= {"data": {"source": "digits", "imbalance": 50, "validation_per_class": 20, "test_share": 0.33}}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(said))
    tested = load(load_recipe(path, registry()).data).test
    images = tested.held.permute(0, 2, 3, 1).numpy()  # type: ignore[union-attr]
    verdicts = {}
    for kind in ("good", "noise"):
        for i, label in enumerate(tested.labels.tolist()):
            noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            (tmp_path / kind / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i] if kind == "good" else noise).save(tmp_path / kind / str(label) / f"{i:04d}.png")
        words = ("--source", "folder", "--option", f"path={tmp_path / kind}", "--ratios", 0.5, "--seeds", 3)
        done = synth(
            "allocate", path, *words, "--weights", "1 / class_count", "--out", tmp_path / f"{kind}-out", "--json"
        )
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        verdicts[kind] = found["better"], found["candidates"][0]["differences"]["control"]["mean"]
    assert verdicts["good"][0] and verdicts["good"][1] > 5 and not verdicts["noise"][0]
