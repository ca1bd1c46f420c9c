"""Whole runs: the run folder, what it says, and the demonstration."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from run_parts import QUICK, read, records, small, write_npz

from augkit.errors import AugkitError
from augkit.lab import board, demo, run
from augkit.lab.data import Split, load
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.run import train
from augkit.policy import Policy
from augkit.registry import Registry


def test_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = train(
        "demo", [*QUICK, "policy=uniform_class_choice", "policy.params.p=1", "data.validation=0.2"], tmp_path / "run"
    )
    assert out == tmp_path / "run"
    assert yaml.safe_load((out / "recipe.yaml").read_text())["policy"] == {
        "load": "uniform_class_choice",
        "params": {"p": 1},
    }
    lines = records(out)
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(0 <= line["seconds_input"] < line["seconds"] and math.isfinite(line["loss"]) for line in lines)
    assert set(lines[0]["val"]) == {"all", "many", "medium", "few"}
    with (out / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [str(n) for n in range(10)]
    summary = read(out, "summary.json")
    tested = sum(int(row["correct"]) for row in rows) / sum(int(row["test_images"]) for row in rows)
    assert summary["test"]["all"] == pytest.approx(tested)
    assert summary["test"]["many"] is None  # 30 images of the largest class
    environment = read(out, "environment.json")
    assert environment["subset_sha256"] == summary["subset_sha256"]
    assert environment["class_counts"] == [int(row["train_images"]) for row in rows]
    use = read(out, "operators.json")
    assert sum(map(sum, use["used"][0])) == sum(use["seen"][0]) == environment["images"]["train"]
    assert all(sum(count > 0 for count in counts) == 1 for counts in use["used"][0])  # one operator a class
    assert (out / "accuracy_by_class.png").stat().st_size > 5000
    assert (out / "operators_by_class.png").stat().st_size > 5000
    assert not list(out.glob("*.part"))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "epoch 2/2" in told[1]


@pytest.mark.parametrize("policy", ["mixup", "cutmix", "randaugment", "autoaugment_cifar10"])
@pytest.mark.parametrize("loss", ["ce", pytest.param("balanced_softmax", marks=pytest.mark.slow)])
def test_every_kind_of_policy_and_loss_trains(policy: str, loss: str, registry: Registry) -> None:
    recipe = small(registry, f"policy={policy}", f"loss={loss}", "base.after=[{cutout: {length: 4}}]", "precision=bf16")
    training = prepare(recipe, load(recipe.data), registry, torch.device("cpu"))
    first = train_epoch(training)["loss"]
    assert math.isfinite(first)
    assert training.epoch == 1


def test_training_learns(registry: Registry) -> None:
    recipe = small(registry, "epochs=12", "policy=none")
    training = prepare(recipe, load(recipe.data), registry, torch.device("cpu"))
    losses = [train_epoch(training)["loss"] for _ in range(12)]
    assert losses[-1] < 0.5 * losses[0]
    assert training.evaluate(training.data.test)[0].accuracy > 0.5


def test_every_recipe_has_a_default_folder_of_its_own(registry: Registry) -> None:
    told = ([], ["seed=1"], ["epochs=3"], ["model.options={drop_rate: 0.2}"], ["data.imbalance=20"])
    folders = [run.default_folder(small(registry, *overrides)) for overrides in told]
    assert len(set(folders)) == len(told)
    assert re.fullmatch(r"runs/demo-none-seed0-[0-9a-f]{8}", folders[0].as_posix())
    assert folders[0] == run.default_folder(small(registry))


def test_the_test_split_is_read_once_after_the_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[tuple[str, int]] = []
    tests: list[Split] = []
    read: list[Split] = []
    evaluate, batches = Training.evaluate, Split.batches

    def spy(training: Training, split: Split) -> Any:
        tests.append(training.data.test)
        evaluated.append(("test" if split is training.data.test else "val", training.epoch))
        return evaluate(training, split)

    def reading(split: Split, positions: Any) -> Any:
        read.append(split)
        return batches(split, positions)

    monkeypatch.setattr(Training, "evaluate", spy)
    monkeypatch.setattr(Split, "batches", reading)
    train("demo", [*QUICK, "data.validation=0.2"], tmp_path / "run")
    assert evaluated == [("val", 0), ("val", 1), ("test", 2)]
    assert [any(split is test for test in tests) for split in read] == [False, False, False, False, True]


@pytest.mark.slow
def test_nothing_is_chosen_by_the_test_split(tmp_path: Path) -> None:
    """Other answers of the test split change its own scores, and nothing of what was trained."""
    trained, scores = [], []
    for name, labels in (("right", np.arange(48, 60) % 3), ("wrong", np.arange(49, 61) % 3)):
        source = write_npz(tmp_path / f"{name}.npz", test_labels=labels)
        told = [f"data.source={source}", "data.imbalance=null", "data.image_size=16", "data.validation=0.2", "epochs=3"]
        out = train("demo", [*told, "policy=uniform_class_choice"], tmp_path / name)
        state = torch.load(out / "checkpoint.pt", weights_only=True)
        kept = [{key: value for key, value in line.items() if "seconds" not in key} for line in records(out)]
        trained.append((state["model"], kept, read(out, "operators.json")))
        scores.append([row.split(",")[5] for row in (out / "per_class.csv").read_text().splitlines()])
    assert scores[0] != scores[1]
    assert trained[0][1:] == trained[1][1:]
    assert all(torch.equal(value, trained[1][0][name]) for name, value in trained[0][0].items())


@pytest.mark.slow
def test_history_of_lists_and_of_tensors_is_written_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end_epoch = Policy.end_epoch
    written = []
    for name, form in {"lists": lambda x: x.tolist(), "tensors": lambda x: x.to(torch.float32)}.items():

        def ended(policy: Policy, form: Any = form) -> None:
            end_epoch(policy)
            entry = policy.history[-1]
            policy.history[-1] = {k: v if k == "epoch" else form(torch.as_tensor(v)) for k, v in entry.items()}

        monkeypatch.setattr(Policy, "end_epoch", ended)
        out = train("demo", [*QUICK, "policy=uniform_class_choice"], tmp_path / name)
        written.append((read(out, "operators.json"), [line["train_accuracy"] for line in records(out)]))
    assert written[0] == written[1]
    assert all(isinstance(count, int) for count in written[0][0]["used"][0][0])
    assert 0 < written[0][1][-1] <= 1


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(AugkitError, match=r"training loss is (nan|inf) after epoch 0; try a lower optimizer\.lr"):
        train("demo", [*QUICK, "optimizer.lr=1e30", "schedule=constant"], tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.slow
def test_tensorboard_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    out = train("demo", [*QUICK, "tensorboard=true", "data.validation=0.2"], tmp_path / "run")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    written = [event.value for event in events.Scalars("loss")]
    assert written == pytest.approx([line["loss"] for line in records(out)])
    assert "val/all" in events.Tags()["scalars"]
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    with pytest.raises(AugkitError, match=r"augkit\[tensorboard\]"):
        train("demo", [*QUICK, "tensorboard=true"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_bars_on_a_terminal_lines_elsewhere() -> None:
    from rich.console import Console

    from augkit.lab.progress import Reporter

    record = {"epoch": 0, "lr": 0.1, "loss": 2.0, "train_accuracy": 0.25, "seconds": 3.0, "seconds_input": 0.5}
    for terminal in (True, False):
        console = Console(force_terminal=terminal, record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
        with Reporter("mine", 2, 0, console) as reporter:
            reporter.step(1, 5)
            reporter.epoch(record)
            assert (reporter.bar is not None) is terminal
        assert "mine  epoch 1/2  lr 0.1  loss 2.0000  train 25.0%  3.0 s (input 0.50 s)" in console.export_text()


@pytest.mark.slow
def test_demo_is_written_kept_and_honest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.main(tmp_path, seeds=(0, 1), overrides=QUICK)
    printed = " ".join(capsys.readouterr().out.split())
    assert all(policy in printed for policy in demo.POLICIES)
    assert "absent" in printed and "not which policy is better elsewhere" in printed
    assert "\x1b" not in printed
    result = read(tmp_path, "demo.json")
    assert [row["policy"] for row in result["rows"]] == list(demo.POLICIES)
    assert result["rows"][0]["gain"] == [0.0, 0.0]
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.pt")}
    assert len(trained) == 6
    demo.main(tmp_path, seeds=(0, 1), overrides=QUICK)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.pt")} == trained


@pytest.mark.parametrize(
    ("gains", "says"),
    [
        ([1.0, 2.0, 1.5], "helper is 1.5 points above none with every seed"),
        ([-1.0, -2.0, -1.5], "helper is 1.5 points below none with every seed"),
        ([-1.0, 2.0, 0.5], "helper cannot be told from none"),
    ],
)
def test_the_sentence_says_what_the_seeds_allow(gains: list[float], says: str) -> None:
    rows = [demo.Row("none", {}, [0.0] * 3), demo.Row("helper", {}, gains)]
    assert says in demo.sentence(rows, 592)
