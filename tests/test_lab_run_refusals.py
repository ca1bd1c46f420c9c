"""What a run refuses before it trains, and what it does not write over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from run_parts import QUICK, small, write_npz

from augkit.errors import DataError, DocumentError, StateError
from augkit.lab import loop, run
from augkit.lab.data import load
from augkit.lab.loop import prepare
from augkit.lab.run import train
from augkit.registry import Registry


@pytest.mark.slow
def test_a_policy_that_learns_from_validation_needs_a_split(tmp_path: Path) -> None:
    document = tmp_path / "mine.yaml"
    document.write_text(
        "augkit: 1\nname: mine\nstate: {depth: {axes: [classes], init: 0.5, clamp: [0, 1]}}\n"
        "pipeline: [{rotate: {strength: 'depth[y]'}}]\n"
        "update: [{at: epoch_end, set: {depth: 'val_correct / max(1, val_seen)'}}]\n"
    )
    told = [*QUICK, f"policy={document}", "epochs=1"]
    with pytest.raises(DocumentError, match=r'^policy: "mine" .* no validation split: set data\.validation'):
        train("demo", told, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert (train("demo", [*told, "data.validation=0.2"], tmp_path / "run") / "summary.json").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["base.before=[hflop]"], r'base\.before\[0\].*Did you mean "hflip"'),
        (["base.after=[cutout, {cutout: {lenght: 4}}]"], r'base\.after\[1\].*Did you mean "length"'),
        (["policy=trivialaugmnt"], 'Did you mean "trivialaugment"'),
        (["policy.params.none=3"], "none"),
        (["model=no_such_net"], r"model\.name"),
        (["device=abacus"], "device: .*abacus"),
    ],
)
def test_wrong_recipes_stop_before_training(tmp_path: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        train("demo", [*QUICK, *overrides], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert train("demo", [*QUICK, "epochs=1"], tmp_path / "run", resume=True)


def test_a_model_is_tried_before_anything_is_written(tmp_path: Path, registry: Registry) -> None:
    for told, says in (
        ("model=vit_tiny_patch16_224", r'^model: "vit_tiny_patch16_224" .* 16 x 16 pixels .*data\.image_size to 224'),
        ("model.options={features_only: true}", r"^model\.options: .*no \[images, 10\] logits"),
    ):
        with pytest.raises(DocumentError, match=says):
            train("demo", [*QUICK, told], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trying_a_model_changes_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, seen = small(registry, "model.options={drop_rate: 0.2}"), []
    data = load(recipe.data)
    for tried in (True, False):
        with monkeypatch.context() as patch:
            if not tried:
                patch.setattr(loop, "_try", lambda run: None)
            training = prepare(recipe, data, registry, torch.device("cpu"))
        seen.append((torch.get_rng_state(), training.model.state_dict(), training.model.training))
    assert torch.equal(seen[0][0], seen[1][0]) and seen[0][2] is seen[1][2] is True
    assert all(torch.equal(value, seen[1][1][name]) for name, value in seen[0][1].items())


def test_a_kept_folder_is_complained_of_last(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for wrong in ("model=no_such_net", "optimizer=no_such_way", "schedule=no_such_steps", "device=abacus"):
        with pytest.raises(DocumentError, match=rf"^{wrong.partition('=')[0]}"):
            train("demo", [*QUICK, wrong], tmp_path)
    with pytest.raises(DataError, match="not empty"):
        train("demo", QUICK, tmp_path)


def test_resuming_nothing_says_that_it_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [*QUICK, "epochs=1"]
    for anew in (True, False):
        train("demo", told, tmp_path / "run", resume=True)
        assert (f"{tmp_path / 'run'}: there is no run to resume; it starts anew" in capsys.readouterr().err) is anew


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = train("demo", QUICK, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError, match=r"not empty; go on with --resume"):
        train("demo", QUICK, out)
    with pytest.raises(StateError, match=r"begun with seed: 0, not 1"):
        train("demo", [*QUICK, "seed=1"], out, resume=True)
    assert train("demo", QUICK, out, resume=True) == out  # finished: nothing is done
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"no run folder"):
        train("demo", QUICK, tmp_path / "other", resume=True)


@pytest.mark.slow
def test_a_changed_policy_document_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "mine.yaml"
    document.write_text("augkit: 1\nname: mine\npipeline: [{invert: {p: 0.5}}]\n")
    told = [*QUICK, f"policy={document}"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "finish", lambda *_: None)  # as if it had been killed after the last checkpoint
        train("demo", told, tmp_path / "run")
    train("demo", told, tmp_path / "finished")
    document.write_text("augkit: 1\nname: mine\npipeline: [{invert: {p: 0.6}}]\n")
    with pytest.raises(StateError, match="another document"):
        train("demo", told, tmp_path / "finished", resume=True)
    with pytest.raises(StateError, match=rf'{tmp_path / "run"}: .*another document than "{document}"'):
        train("demo", told, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"train_labels": np.arange(48)[::-1] % 3}, "labels_sha256"),
        ({"test_labels": np.zeros(12, np.int64)}, "labels_sha256"),
        ({"train_labels": np.repeat([0, 1, 2], [10, 18, 20])}, "labels_sha256, class_counts"),
        (
            {"train_images": np.zeros((45, 16, 16, 3), np.uint8), "train_labels": np.arange(45) % 3},
            "subset_sha256, labels_sha256, class_counts",
        ),
    ],
)
def test_changed_data_are_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, np.ndarray], differing: str
) -> None:
    source = write_npz(tmp_path / "a.npz")
    told = [f"data.source={source}", "data.imbalance=null", "data.image_size=16", "epochs=1"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "finish", lambda *_: None)  # as if it had been killed after the last checkpoint
        out = train("demo", told, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write_npz(source, **changes)
    with pytest.raises(StateError, match=rf"environment\.json: .*other data.*\(differing: {differing}\)"):
        train("demo", told, out, resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    write_npz(source)
    assert (train("demo", told, out, resume=True) / "summary.json").exists()
