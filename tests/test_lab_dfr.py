"""DFR: a last layer fitted on group-balanced subsets, beside a fit written out, and as the last stage of a run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_lab_groups import PACS, begun, write_npz
from torch import nn

from augkit.errors import DataError, DocumentError
from augkit.lab import dfr as dfr_module
from augkit.lab.data import Split
from augkit.lab.dfr import dfr
from augkit.lab.embeddings import Embeddings
from augkit.lab.loop import Training, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.lab.run import train
from augkit.registry import Registry

GROUPS = ("land", "water")
HELD = ("data.validation=0.4", "epochs=1", "model=resnet8_cifar")


class Headed(nn.Module):
    """A model that is its last layer."""

    def __init__(self, features: int, classes: int, bias: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(features, classes, bias)

    def get_classifier(self) -> nn.Module:
        return self.fc


def spurious(seed: int, counts: dict[tuple[int, int], int]) -> Embeddings:
    """Eight features: a faint one tells the class, a loud one on another scale the group; the rest is noise."""
    random = np.random.RandomState(seed)
    cells = np.repeat(np.array(list(counts)), list(counts.values()), axis=0)
    labels, groups = cells[:, 0], cells[:, 1]
    values = random.randn(len(labels), 8)
    values[:, 0] = 2.0 * labels + 0.8 * values[:, 0]
    values[:, 1] = 500 + 300 * groups + 20 * values[:, 1]
    return Embeddings(values.astype(np.float32), labels, groups)


UNEQUAL = {(0, 0): 300, (0, 1): 20, (1, 0): 20, (1, 1): 300}
EVEN = dict.fromkeys(UNEQUAL, 200)


def fitted(counts: dict[tuple[int, int], int], seed: int = 0, **options: Any) -> tuple[Headed, set[str]]:
    model, asked, classes = Headed(8, 1 + max(y for y, _ in counts)), set(), {"val": 1, "train": 2}

    def embeddings(which: str) -> Embeddings:
        asked.add(which)
        return spurious(classes[which], counts)

    assert dfr(model, embeddings=embeddings, group_names=GROUPS, seed=seed, **options) is model.fc
    return model, asked


@torch.no_grad()
def by_cell(model: Headed, found: Embeddings) -> dict[tuple[int, int], float]:
    right = (model.fc(torch.from_numpy(found.values)).argmax(1).numpy() == found.labels).astype(float)
    return {(y, a): right[(found.labels == y) & (found.groups == a)].mean() for y in (0, 1) for a in (0, 1)}


def test_it_looks_at_the_class_where_an_ordinary_fit_looks_at_the_group() -> None:
    from sklearn.linear_model import LogisticRegression

    fresh, seen = spurious(7, EVEN), spurious(1, UNEQUAL)
    plain, scale = LogisticRegression(max_iter=2000), seen.values.std(0)
    plain.fit(seen.values / scale, seen.labels)
    right = plain.predict(fresh.values / scale) == fresh.labels
    ordinary = min(right[(fresh.labels == y) & (fresh.groups == a)].mean() for y in (0, 1) for a in (0, 1))
    for options in ({}, {"fit_on": "training"}):
        model, _ = fitted(UNEQUAL, **options)
        assert min(by_cell(model, fresh).values()) > 0.8 > ordinary + 0.05
        weight = model.fc.weight.detach() * torch.from_numpy(seen.values.std(0))
        assert weight[0].abs().argmax() == 0  # of standardised features the class's own weighs most


def test_one_subset_of_equal_cells_is_one_logistic_regression() -> None:
    """Nothing is left to draw then, but for the solver's order: its optimum is another solver's."""
    from sklearn.linear_model import LogisticRegression

    counts = {(y, a): 40 for y in (0, 1) for a in (0, 1)}
    model, _ = fitted(counts, c=(0.2,), subsets=1)
    seen = spurious(1, counts)
    low, scale = seen.values.mean(0), seen.values.std(0)
    try:
        reference = LogisticRegression(C=0.2, l1_ratio=1.0, solver="saga", max_iter=20000, tol=1e-9)
        reference.fit((seen.values - low) / scale, seen.labels)
    except TypeError:
        pytest.skip("an old scikit-learn")
    with torch.no_grad():
        logits = model.fc(torch.from_numpy(seen.values)).numpy()
    expected = reference.decision_function((seen.values - low) / scale)
    assert np.abs((logits[:, 1] - logits[:, 0]) - expected).max() < 0.05


def test_coefficients_are_the_mean_over_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[tuple[np.ndarray, Any]] = []
    real = dfr_module._fit

    def spy(table: Any, rows: np.ndarray, c: float, random: np.random.RandomState) -> Any:
        found = real(table, rows, c, random)
        met.append((rows, (table, c, found)))
        return found

    monkeypatch.setattr(dfr_module, "_fit", spy)
    counts = {(0, 0): 9, (0, 1): 30, (1, 0): 14, (2, 1): 25}  # two cells are empty, and are left out
    model, asked = fitted(counts, c=(0.1, 1.0), subsets=5)
    assert asked == {"val"} and len(met) == 2 + 5
    halved, whole = met[0][1][0], met[-1][1][0]
    assert [len(np.unique(halved.cells)), len(halved.cells)] == [4, 5 + 15 + 7 + 13] and len(whole.cells) == 78
    for rows, (table, _, _) in met:
        _, each = np.unique(table.cells[rows], return_counts=True)
        assert set(each) == {5 if table is halved else 9} and len(each) == 4 and (np.diff(rows) > 0).all()
    assert len({tuple(rows) for rows, _ in met[2:]}) == 5 and len({c for _, (_, c, _) in met[2:]}) == 1
    seen = spurious(1, counts)
    low, scale = seen.values.mean(0, np.float64), seen.values.std(0, np.float64)
    weight = np.mean([found[0] for _, (_, _, found) in met[2:]], 0)
    bias = np.mean([found[1] for _, (_, _, found) in met[2:]], 0)
    with torch.no_grad():
        logits = model.fc(torch.from_numpy(seen.values)).numpy()
    assert np.allclose(logits, (seen.values - low) / scale @ weight.T + bias, atol=1e-3)


def test_the_strength_is_the_one_that_serves_the_worst_cell_best(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []

    def fit(table: Any, rows: np.ndarray, c: float, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        used.append(c)  # only c = 0.3 looks at the class
        return np.outer([-1, 1], np.eye(8)[0] if c == 0.3 else np.eye(8)[1]), np.zeros(2)

    monkeypatch.setattr(dfr_module, "_fit", fit)
    for fit_on in ("validation", "training"):
        used.clear()
        _, asked = fitted(UNEQUAL, c=(1.0, 0.3, 0.1), subsets=3, fit_on=fit_on)
        assert sorted(used[:3]) == [0.1, 0.3, 1.0] and used[3:] == [0.3] * 3
        assert asked == ({"val"} if fit_on == "validation" else {"val", "train"})
    _, asked = fitted(UNEQUAL, c=(1.0,), fit_on="training")
    assert asked == {"train"}


def test_the_same_seed_gives_the_same_layer() -> None:
    first, again, other = (fitted(UNEQUAL, seed)[0].fc.weight for seed in (3, 3, 2**62 + 5))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_what_it_cannot_fit_is_one_sentence() -> None:
    def none(which: str) -> Embeddings:
        return spurious(0, {(0, 0): 9, (0, 1): 9, (2, 0): 9})

    with pytest.raises(DataError, match=r"^dfr needs validation images of every class, and class 1 has none"):
        dfr(Headed(8, 3), embeddings=none, group_names=GROUPS, seed=0)
    with pytest.raises(DocumentError, match=r"^stages: .* needs one linear layer with a bias, and Headed has"):
        dfr(Headed(8, 3, bias=False), embeddings=none, group_names=GROUPS, seed=0)


# -- as a stage ----------------------------------------------------------------------------------------------------


def whole(source: Path, registry: Registry, *told: str) -> Training:
    return begun(registry, source, "stages=[train, {dfr: {subsets: 3, c: [0.3, 1.0]}}]", *HELD, *told)


def test_only_the_last_layer_changes_and_the_test_images_are_not_asked(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = whole(write_npz(tmp_path / "a.npz"), registry, "policy=trivialaugment")
    train_epoch(run)
    before, asked = copy.deepcopy(run.model.state_dict()), []
    evaluate = Training.evaluate

    def spy(self: Training, split: Split) -> Any:
        asked.append(split)
        return evaluate(self, split)

    monkeypatch.setattr(Training, "evaluate", spy)
    record = train_epoch(run)
    assert asked and all(split is not run.data.test for split in asked)
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert (record["stage"], record["epoch"], record["lr"], run.epoch) == ("dfr", 1, 0.0, 2)
    scores, logits = evaluate(run, run.data.train)
    assert record["train_accuracy"] == scores.accuracy
    assert record["loss"] == float(nn.functional.cross_entropy(logits, run.data.train.labels))


def test_images_that_it_was_fitted_to_measure_nothing(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz")
    for fit_on, told in (("validation", ()), ("training", ("test=false",))):
        stages = f"stages=[train, {{dfr: {{subsets: 2, c: [0.3], fit_on: {fit_on}}}}}]"
        run = begun(registry, source, stages, *HELD, *told)
        before, after = train_epoch(run), train_epoch(run)
        assert "val" in before and ("val" in after) == (fit_on == "training")
    with pytest.raises(DocumentError, match=r'^test: nothing measures this run, since "dfr" is fitted on the valid'):
        whole(source, registry, "test=false")


def test_embeddings_are_what_the_last_layer_is_given(registry: Registry, tmp_path: Path) -> None:
    run = whole(write_npz(tmp_path / "a.npz"), registry)
    for which, split in (("val", run.data.val), ("train", run.data.train)):
        found = run.embeddings(which)
        assert split is not None and split.held is not None and split.groups is not None and found.groups is not None
        with torch.no_grad():
            logits = run.model.fc(torch.from_numpy(found.values))  # type: ignore[operator]
        assert torch.allclose(logits, run.evaluate(split)[1], atol=1e-5)
        assert found.labels.tolist() == split.labels.tolist() and found.groups.tolist() == split.groups.tolist()


def test_a_run_is_gone_on_with_before_and_after_the_fit(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz")
    run, states = whole(source, registry), []
    for _ in range(2):
        train_epoch(run)
        states.append(copy.deepcopy(run.state_dict()))
    for number, state in enumerate(states):
        again = whole(source, registry)
        again.load_state_dict(state)
        if number == 0:
            assert train_epoch(again)["loss"] == run.records[1]["loss"]
        for name, value in run.model.state_dict().items():
            assert torch.equal(value, again.model.state_dict()[name])


@pytest.mark.slow
def test_a_run_may_be_the_fit_alone_of_what_another_run_trained(tmp_path: Path) -> None:
    told = ["epochs=1", f"data.source={write_npz(tmp_path / 'a.npz')}", "data.imbalance=null", "base={}", "threads=1"]
    told += ["data.image_size=16", "data.validation=0.4"]
    first = train("demo", told, tmp_path / "first")
    alone = train("demo", [*told, f"model.weights={first}", "stages=[dfr]"], tmp_path / "alone")
    both = train("demo", [*told, "stages=[train, dfr]"], tmp_path / "both")
    found = [json.loads((folder / "summary.json").read_text()) for folder in (first, alone, both)]
    assert found[2]["stages"][0]["test"] == found[0]["test"] and found[1]["stages"][0]["epochs"] == 1
    assert found[2]["stages"][0]["groups"] == found[0]["groups"] != found[2]["groups"]
    assert train("demo", [*told, "stages=[train, dfr]"], tmp_path / "both", resume=True) == both


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ("[dfr, train]", r'stages\[0\]: "dfr" fits the last layer: no stage comes after it'),
        ("[train, {dfr: {epochs: 5}}]", r'stages\[1\]\.epochs: "dfr" is fitted and not trained: leave this out'),
        ("[train, {dfr: {sampler: inverse}}]", r'stages\[1\]\.sampler: "dfr" is fitted and not trained'),
        ("[train, {dfr: {mixing: false}}]", r'stages\[1\]\.mixing: "dfr" is fitted'),
        ("[train, {dfr: {c: []}}]", r"stages\[1\]\.c: .*at least 1"),
        ("[train, {dfr: {c: [0]}}]", r"stages\[1\]\.c: .*greater than 0"),
        ("[train, {dfr: {fit_on: test}}]", r"stages\[1\]\.fit_on: this should be 'validation' or 'training'"),
    ],
)
def test_wrong_stages_are_one_sentence(stages: str, says: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=says):
        load_recipe({"augkit": 1, "name": "plain"}, registry, [f"stages={stages}"])


def test_data_that_do_not_suffice_are_refused_before_anything_is_trained(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r'^stages\[1\]: "dfr" needs images that were held out: set data\.validation'):
        begun(registry, source, "stages=[train, dfr]")
    lone = write_npz(tmp_path / "b.npz", train_groups=None)
    with pytest.raises(DataError, match=r'^stages\[1\]: "dfr" works by group, and the groups'):
        whole(lone, registry)
    with pytest.raises(DocumentError, match="needs one linear layer with a bias, and ResNetCifar has another one"):
        begun(registry, source, "stages=[train, dfr]", *HELD, "loss=ldam_drw")


@pytest.mark.slow
@pytest.mark.skipif(not PACS, reason="AUGKIT_PACS names no folder")
def test_the_recipe_pacs_trains_with_group_dro_and_dfr(tmp_path: Path) -> None:
    told = [f"data.source={PACS}", "data.image_size=32", "base={}", "model=test_resnet", "epochs=1", "threads=1"]
    told += ["loss=group_dro", "sampler=group_balanced", "stages=[train, {dfr: {subsets: 2, c: [0.1]}}]"]
    folder = train("pacs", told, tmp_path / "run")
    found = json.loads((folder / "summary.json").read_text())
    assert [stage["groups"]["worst_cell"] for stage in found["stages"]]
    assert found["groups"]["mean_cell"] > 1.5 / 7  # better than chance by far
    assert len((folder / "per_group.csv").read_text().splitlines()) == 1 + 7 * 4
