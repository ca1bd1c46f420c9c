"""Stages: what learns in each, on which images, and what a run tells of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from augkit.errors import DataError, DocumentError
from augkit.lab import stages
from augkit.lab.course import chosen
from augkit.lab.data import Split, load
from augkit.lab.folder import write_yaml
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.progress import by_stage
from augkit.lab.recipe import load_recipe, read_recipe
from augkit.lab.recipe_parts import DataRecipe, StageRecipe
from augkit.lab.run import train
from augkit.registry import Registry

QUICK = ("epochs=2", "data.test_share=0.8", "data.image_size=16", "data.imbalance=10", "threads=1")
HEAD = "stages=[train, {finetune_head: {epochs: 2, lr: 0.5, sampler: class_balanced}}]"
PLAIN = {"augkit": 1, "name": "plain"}


def begun(registry: Registry, *told: str) -> Training:
    recipe = load_recipe("demo", registry, [*QUICK, *told])
    return prepare(recipe, load(recipe.data), registry, torch.device("cpu"))


def weights(run: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def changed(run: Training, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}


def write_npz(path: Path, **changes: Any) -> Path:
    """60 images of three classes, 12 of them to test on; of class 0 the first ten are synthetic, of class 1 four."""
    random = np.random.RandomState(0)
    labels = np.arange(48) % 3
    marks = np.zeros(48, bool)
    marks[np.flatnonzero(labels == 0)[:10]] = marks[np.flatnonzero(labels == 1)[:4]] = True
    arrays = {
        "train_images": random.randint(0, 256, (48, 16, 16, 3), np.uint8),
        "train_labels": labels,
        "train_synthetic": marks,
        "test_images": random.randint(0, 256, (12, 16, 16, 3), np.uint8),
        "test_labels": np.arange(12) % 3,
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


@pytest.mark.parametrize(
    "option",
    [
        "loss=ldam_drw",
        *(pytest.param(told, marks=pytest.mark.slow) for told in ("", "model.options={drop_rate: 0.3}")),
        *(pytest.param(told, marks=pytest.mark.slow) for told in ("policy=cmo", "sampler=inverse")),
    ],
)
def test_the_first_stage_does_not_know_of_a_second(option: str, registry: Registry) -> None:
    told = [option] if option else []
    both = begun(registry, *told, HEAD)
    others = [train_epoch(both) for _ in range(2)]
    alone = begun(registry, *told)
    ones = [train_epoch(alone) for _ in range(2)]
    assert [(one["loss"], one["lr"]) for one in ones] == [(other["loss"], other["lr"]) for other in others]
    assert not changed(alone, weights(both))
    assert ["test" in record for record in (*ones, *others)] == [False, False, False, True]


def test_the_policy_is_told_the_length_of_the_first_stage(registry: Registry) -> None:
    assert begun(registry, "policy=cmo", "stages=[{train: {epochs: 7}}, finetune_head]").policy.facts.epochs == 7


@pytest.mark.parametrize("stage", ["finetune_head", "retrain_head"])
def test_only_the_last_layer_learns(stage: str, registry: Registry) -> None:
    run = begun(registry, f"stages=[train, {{{stage}: {{epochs: 2, lr: 0.5}}}}]", "model=resnet8_cifar")
    assert [parameter.requires_grad for parameter in run.model.parameters()].count(False) == 0
    for _ in range(2):
        train_epoch(run)
    before = weights(run)
    for _ in range(2):
        train_epoch(run)
        assert changed(run, before) == {"fc.weight", "fc.bias"}, "batch statistics included"
    assert {name for name, p in run.model.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    assert not run.model.training
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == 2


def test_what_stays_frozen_behaves_as_when_it_is_tested(registry: Registry) -> None:
    run = begun(registry, "stages=[finetune_head]", "model.options={drop_rate: 0.2}")
    modes: list[tuple[bool, bool]] = []
    run.model.register_forward_hook(lambda *_: modes.append((run.model.training, run.part.training)))
    train_epoch(run)
    assert set(modes) == {(False, True)}


@pytest.mark.slow
def test_new_heads_depend_on_the_seed_and_the_stage_alone(registry: Registry) -> None:
    heads = []
    for told in (["seed=0"], ["seed=0", "loss=focal"], ["seed=1"], ["seed=0", "stages=[train, train, retrain_head]"]):
        run = begun(registry, "stages=[train, retrain_head]", *told)
        state = torch.get_rng_state()
        for number in range(1, len(run.stages)):
            run.enter(number)
        assert torch.equal(torch.get_rng_state(), state)
        heads.append(next(iter(run.part.parameters())).clone())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2]) and not torch.equal(heads[0], heads[3])
    tuned = begun(registry, "stages=[train, finetune_head]")
    before = weights(tuned)
    tuned.enter(1)
    assert not changed(tuned, before)


def test_parameters_that_a_model_keeps_fixed_stay_fixed(registry: Registry) -> None:
    run = begun(registry, "stages=[train, finetune_head, train]", "model=resnet8_cifar")
    first = dict(run.model.named_parameters())["conv1.weight"].requires_grad_(False)
    again = Training(run.recipe, run.data, run.device, run.model, run.policy, run.stages, run.normalise, run.judge)
    for number in (1, 2):
        again.enter(number)
    assert not first.requires_grad
    assert sum(not parameter.requires_grad for parameter in again.model.parameters()) == 1


def test_a_stage_has_its_own_rate_schedule_and_sampler(registry: Registry) -> None:
    run = begun(
        registry, "schedule=published", "epochs=20", "stages=[train, {train: {epochs: 4, lr: 0.2, schedule: constant}}]"
    )
    assert [(stage.begin, stage.end) for stage in run.stages] == [(0, 20), (20, 24)]
    assert run.stages[1].recipe.schedule.name == "constant" and run.stages[0].recipe.schedule.name == "published"
    balanced = begun(registry, "epochs=1", HEAD)
    lr = [train_epoch(balanced)["lr"] for _ in range(3)]
    assert lr[0] == pytest.approx(0.01) and lr[1] == pytest.approx(0.01) and lr[2] > 0.2, "each warms up by itself"
    seen = [torch.as_tensor(entry["seen"]) for entry in balanced.policy.history]
    assert torch.equal(seen[0].long(), balanced.data.class_counts.long())
    assert seen[1].max() - seen[1].min() <= 1 and seen[1].sum() == len(balanced.data.train)


def test_mixing_can_be_left_out(registry: Registry) -> None:
    run = begun(registry, "epochs=1", "policy=mixup", "stages=[train, {finetune_head: {epochs: 1, mixing: false}}]")
    dense: list[bool] = []
    real = run.policy.apply

    def spy(images: Tensor, plan: Any) -> tuple[Tensor, Tensor]:
        result, targets = real(images, plan)
        dense.append(bool((targets.max(1).values < 1).any()))
        return result, targets

    run.policy.apply = spy  # type: ignore[method-assign]
    for _ in range(2):
        train_epoch(run)
    assert dense[0] and not any(dense[len(dense) // 2 :])


# -- which images --------------------------------------------------------------------------------------------------


def test_real_images_and_balanced_ones(tmp_path: Path) -> None:
    data = load(DataRecipe(source=str(write_npz(tmp_path / "a.npz"))))
    labels = data.train.labels.numpy()
    assert data.synthetic.sum() == 14
    assert chosen(StageRecipe(), data, 0, "stages[0]").tolist() == list(range(48))
    real = chosen(StageRecipe(data="real"), data, 0, "stages[0]")
    assert real.tolist() == np.flatnonzero(~data.synthetic).tolist()
    assert np.bincount(labels[real]).tolist() == [6, 12, 16]
    told = StageRecipe(data="real", balance="classes")
    subset = chosen(told, data, 0, "stages[0]")
    assert np.bincount(labels[subset]).tolist() == [6, 6, 6]
    assert set(subset) <= set(real) and (np.diff(subset) > 0).all()
    assert subset.tolist() == chosen(told, data, 0, "stages[0]").tolist() != chosen(told, data, 1, "x").tolist()
    assert np.bincount(labels[chosen(StageRecipe(balance="classes"), data, 0, "x")]).tolist() == [16, 16, 16]


def test_a_stage_meets_its_images_alone(tmp_path: Path, registry: Registry) -> None:
    source = write_npz(tmp_path / "a.npz")
    told = [f"data.source={source}", "data.imbalance=null", "epochs=1", "loss=balanced_softmax"]
    run = begun(registry, *told, "stages=[train, {finetune_head: {epochs: 2, data: real, sampler: class_balanced}}]")
    met: list[int] = []
    batches = run.stages[1].batches
    for epoch in (1, 2):
        met += torch.cat(batches(epoch)).tolist()
    assert set(met) <= set(np.flatnonzero(~run.data.synthetic)) and len(met) == 2 * 34
    assert run.stages[0].class_counts.tolist() == [16, 16, 16]
    assert run.stages[1].class_counts.tolist() == [6, 12, 16]
    for _ in range(2):
        train_epoch(run)
    assert torch.as_tensor(run.policy.history[1]["seen"]).sum() == 34


def test_marks_follow_their_images(tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz", train_labels=np.sort(np.arange(48) % 3))
    plain = load(DataRecipe(source=str(source)))
    held = load(DataRecipe(source=str(source), validation=0.25, imbalance=2))
    kept = [plain.train.held[i] for i in range(48) if plain.synthetic[i]]  # type: ignore[index]
    assert held.train.held is not None and 0 < held.synthetic.sum() < len(held.synthetic) < 48
    for image, mark in zip(held.train.held, held.synthetic, strict=True):
        assert any(torch.equal(image, other) for other in kept) is bool(mark)
    none = load(DataRecipe(source=str(write_npz(tmp_path / "b.npz", train_synthetic=None))))
    assert not none.synthetic.any() and len(none.synthetic) == 48
    real = load(DataRecipe(source=str(write_npz(tmp_path / "c.npz", train_synthetic=np.zeros(48, bool)))))
    assert real.labels_sha256 == none.labels_sha256
    some = load(DataRecipe(source=str(write_npz(tmp_path / "d.npz"))))
    assert some.labels_sha256 != none.labels_sha256


def test_images_that_are_not_there(tmp_path: Path) -> None:
    for marks in (np.ones(47, bool), np.ones(48, np.int64)):
        with pytest.raises(DataError, match=r"a\.npz: train_synthetic must be true or false for each training image"):
            load(DataRecipe(source=str(write_npz(tmp_path / "a.npz", train_synthetic=marks))))
    data = load(DataRecipe(source=str(write_npz(tmp_path / "a.npz", train_synthetic=np.ones(48, bool)))))
    with pytest.raises(DataError, match=r"^stages\[1\]: no real training image"):
        chosen(StageRecipe(data="real"), data, 0, "stages[1]")
    data = load(DataRecipe(source=str(write_npz(tmp_path / "a.npz", train_synthetic=np.arange(48) % 3 == 2))))
    with pytest.raises(DataError, match=r'^stages\[1\]: class "2" has no such image'):
        chosen(StageRecipe(data="real", balance="classes"), data, 0, "stages[1]")


# -- what a run tells ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_accuracy_after_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate, evaluated = Training.evaluate, []

    def spy(run: Training, split: Split) -> Any:
        scores = evaluate(run, split)
        evaluated.append((split is run.data.test, run.number, scores[0].summary(run.data.class_counts)))
        return scores

    monkeypatch.setattr(Training, "evaluate", spy)
    out = train("demo", [*QUICK, HEAD, "data.validation=0.2"], tmp_path / "run")
    assert [(test, number) for test, number, _ in evaluated] == [
        (False, 0),
        (False, 0),
        (True, 0),
        (False, 1),
        (False, 1),
        (True, 1),
    ]
    summary = json.loads((out / "summary.json").read_text())
    tests = [scores for test, _, scores in evaluated if test]
    assert [row["test"] for row in summary["stages"]] == tests and summary["test"] == tests[-1]
    assert [(row["stage"], row["epochs"]) for row in summary["stages"]] == [("train", 2), ("finetune_head", 2)]
    assert summary["epochs"] == 4
    told = by_stage(summary["stages"])
    assert [line.partition(":")[0] for line in told] == ["after train (2 epochs)", "after finetune_head (2 epochs)"]
    assert f"all {tests[0]['all']:.1%}" in told[0] and by_stage(summary["stages"][:1]) == []
    assert "epoch 4/4" in capsys.readouterr().err


# -- as documents --------------------------------------------------------------------------------------------------


def test_ways_to_write_stages(registry: Registry, tmp_path: Path) -> None:
    short = ["train", {"finetune_head": {"epochs": 3, "sampler": "inverse", "schedule": "constant"}}]
    long = [
        {"name": "train"},
        {"name": "finetune_head", "epochs": 3, "sampler": {"name": "inverse"}, "schedule": {"name": "constant"}},
    ]
    recipe = load_recipe(PLAIN | {"stages": short}, registry)
    assert recipe == load_recipe(PLAIN | {"stages": long}, registry)
    assert recipe == load_recipe(PLAIN, registry, [f"stages={json.dumps(short)}"])
    assert recipe.stage_epochs == (200, 3) and recipe.all_epochs == 203
    assert load_recipe(PLAIN, registry) == load_recipe(PLAIN | {"stages": [{"train": None}]}, registry)
    assert load_recipe(PLAIN, registry, ["stages=[train, retrain_head]"]).stage_epochs == (200, 10)
    write_yaml(tmp_path / "recipe.yaml", recipe.model_dump(mode="json"))
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("stages=[trian]", r': stages\[0\]: there is no stage "trian" here\. Did you mean "train"\?'),
        ("stages=[]", r"^--set stages=\[\]: .*at least 1"),
        ("stages=[3]", r": stages\[0\]: this should be a mapping, not 3"),
        ("stages=[train, {finetune_head: {epoch: 3}}]", r': stages\[1\]\.epoch: .*no option "epoch".*"epochs"'),
        ("stages=[train, {finetune_head: {epochs: 0}}]", r": stages\[1\]\.epochs: .*greater than or equal to 1, not 0"),
        ("stages=[train, {finetune_head: {data: fake}}]", r": stages\[1\]\.data: this should be 'all' or 'real'"),
        ("stages=[{train: {schedule: {nme: step}}}]", r': stages\[0\]\.schedule\.nme: .*Did you mean "name"'),
    ],
)
def test_wrong_stages(told: str, says: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=says):
        load_recipe(PLAIN, registry, [told])


def test_faults_of_a_stage_have_its_line(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("augkit: 1\nname: x\nloss: {name: focal, gama: 1}\nstages:\n  - train\n  - tune\n")
    with pytest.raises(DocumentError) as caught:
        load_recipe(path, registry)
    assert [str(problem).replace(str(path), "") for problem in caught.value.problems] == [
        ':3: loss.gama: there is no option "gama" here. Did you mean "gamma"?',
        ':6: stages[1]: there is no stage "tune" here. Valid: dfr, finetune_head, max_norm_head, retrain_head, train.',
    ]


def test_stages_that_have_nothing_to_train(registry: Registry) -> None:
    with pytest.raises(DocumentError, match=r"^stages: Sequential has no last layer of its own"):
        stages.last_layer(nn.Sequential(nn.Linear(2, 2)))
    for wrong in (lambda model: None, lambda model: nn.ReLU(), lambda model: nn.Linear(2, 2)):
        mine = Registry(**{**vars(registry), "stages": {"mine": wrong}})
        with pytest.raises(DocumentError, match=r'^stages\[0\]: "mine" must return a part of the model with weights'):
            begun(mine, "stages=[mine]")


@pytest.mark.slow
def test_a_stage_may_have_options_and_change_the_model(registry: Registry) -> None:
    def widen(model: nn.Module, *, slope: float = 0.5) -> nn.Module:
        """The last layer goes on behind a leaky unit."""
        head: Any = stages.last_layer(model)
        model.fc = nn.Sequential(nn.LeakyReLU(slope), head)
        return head

    mine = Registry(**{**vars(registry), "stages": {**registry.stages, "widen": widen}})
    run = begun(mine, "epochs=1", "model=resnet8_cifar", "stages=[train, {widen: {epochs: 2, slope: 0.1}}]")
    for _ in range(2):
        train_epoch(run)
    state = copy.deepcopy(run.state_dict())
    resumed = begun(mine, "epochs=1", "model=resnet8_cifar", "stages=[train, {widen: {epochs: 2, slope: 0.1}}]")
    resumed.load_state_dict(state)
    assert resumed.model.fc[0].negative_slope == 0.1  # type: ignore[index, union-attr]
    assert train_epoch(run)["loss"] == train_epoch(resumed)["loss"]
