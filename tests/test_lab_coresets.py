"""A chosen part of the images: what choosers promise, who meets the policy, what weights do, and what it costs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_parts import small
from torch import Tensor, nn
from torch.nn import functional

from augkit.errors import DocumentError
from augkit.lab import coreset_epochs, coresets, intensity, losses
from augkit.lab.augmentation import own_operators
from augkit.lab.data import load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.progress import Reporter, describe
from augkit.lab.recipe import load_recipe
from augkit.lab.training import Training
from augkit.registry import Registry

NAMES = sorted(coresets.SUBSETS)
PLAIN = ("model=resnet8_cifar", "epochs=4", "threads=1")


def begun(registry: Registry, subset: str, *told: str) -> Training:
    recipe = small(registry, *PLAIN, f"subset={subset}", *told)
    return prepare(recipe, load(recipe.data), registry, torch.device("cpu"))


def gain(points: Tensor, chosen: tuple[int, ...]) -> float:
    """What a set saves of the distances, from a point farther than any other."""
    far = 2 * float(points.norm(dim=1).max())
    return float((far - torch.cdist(points, points[list(chosen)]).min(1).values).sum())


@st.composite
def clouds(draw: st.DrawFn) -> tuple[Tensor, int]:
    count = draw(st.integers(1, 9))
    seed, rounded = draw(st.integers(0, 2**31)), draw(st.booleans())
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return points.round() if rounded else points, draw(st.integers(1, count))


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_greedy_gains_nearly_what_the_best_set_does(cloud: tuple[Tensor, int]) -> None:
    points, budget = cloud
    picked, sizes = coresets.medoids(points, budget)
    best = max(gain(points, chosen) for chosen in combinations(range(len(points)), budget))
    assert gain(points, tuple(picked.tolist())) >= (1 - 1 / math.e) * best - 1e-4
    assert len(set(picked.tolist())) == budget
    assert float(sizes.sum()) == len(points) and float(sizes.min()) >= 1


def test_lazy_picks_what_plain_greedy_picks_and_weighs_by_the_nearest() -> None:
    points = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    picked, sizes = coresets.medoids(points, 40)
    apart, nearest, expected = torch.cdist(points.double(), points.double()), torch.full((300,), 1e9).double(), []
    for _ in range(40):
        gains = (nearest[:, None] - apart).clamp(min=0).sum(0)
        expected.append(int(gains.argmax()))
        nearest = torch.minimum(nearest, apart[:, expected[-1]])
    assert picked.tolist() == expected
    assert sizes.tolist() == torch.bincount(apart[:, picked].argmin(1), minlength=40).tolist()


def facts(count: int, classes: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=drawn)
    logits = torch.randn(count, classes, generator=drawn)
    gradients = logits.softmax(1) - functional.one_hot(labels, classes)
    asked = {"gradients": gradients, "losses": functional.cross_entropy(logits, labels, reduction="none"), "seed": seed}
    return labels, asked


def chosen_by(name: str, labels: Tensor, budgets: Tensor, asked: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    function = coresets.SUBSETS[name]
    wanted = {key: value for key, value in asked.items() if key in inspect.signature(function).parameters}
    return coresets.checked(function(labels, budgets, **wanted), labels, budgets, name)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 60), st.integers(1, 5), st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_budgets_are_exact_and_weights_have_a_mean_of_one(
    name: str, count: int, classes: int, share: float, seed: int
) -> None:
    labels, asked = facts(count, classes, seed)
    counts = torch.bincount(labels, minlength=classes)
    budgets = coreset_epochs.budgets_of(share, counts.float(), 0, 1)
    where, weights = chosen_by(name, labels, budgets, asked)
    assert torch.equal(torch.bincount(labels[where], minlength=classes), budgets)
    assert torch.equal(where, where.unique()) and float(weights.mean()) == pytest.approx(1)
    again, weights_again = chosen_by(name, labels, budgets, asked)
    assert torch.equal(where, again) and torch.equal(weights, weights_again)
    if share == 1:
        assert len(where) == count and torch.equal(weights, torch.ones(count))


def test_controls_take_the_largest_losses_or_any_images() -> None:
    labels, asked = facts(400, 4, 0)
    budgets = torch.tensor([10, 0, 20, 5])
    where, _ = chosen_by("max_loss", labels, budgets, asked)
    for label, budget in enumerate(budgets.tolist()):
        own = asked["losses"][labels == label]
        assert sorted(asked["losses"][where[labels[where] == label]]) == sorted(own.sort().values[len(own) - budget :])
    met = torch.zeros(400)
    for seed in range(600):
        met[chosen_by("random", labels, budgets, {"seed": seed})[0]] += 1
    expected = (600 * budgets / torch.bincount(labels))[labels]
    assert torch.equal(met == 0, expected == 0)
    some = expected > 0
    assert float(((met - expected)[some] ** 2 / expected[some]).mean()) == pytest.approx(1, abs=0.25)


def test_what_breaks_its_promise_is_told() -> None:
    labels, budgets, ones = torch.tensor([0, 0, 1]), torch.tensor([1, 1]), torch.ones(2)
    for where in ([0, 1], [0, 0], [2]):
        with pytest.raises(DocumentError, match='"mine" must choose 2 different images'):
            coresets.checked((torch.tensor(where), ones[: len(where)]), labels, budgets, "mine")
    for weights in (ones[:1], -ones, ones * 0, ones * math.nan, ones * math.inf):
        with pytest.raises(DocumentError, match="weight that is finite"):
            coresets.checked((torch.tensor([0, 2]), weights), labels, budgets, "mine")


def test_budgets_follow_expressions() -> None:
    counts = torch.tensor([500.0, 60.0, 1.0, 0.0])
    assert coreset_epochs.budgets_of(0.3, counts, 0, 10).tolist() == [150, 18, 1, 0]
    assert coreset_epochs.budgets_of("min(1, 50 / class_count)", counts, 0, 10).tolist() == [50, 50, 1, 0]
    assert coreset_epochs.budgets_of("linear(0.1, 0.5, epoch / epochs)", counts, 5, 10).tolist() == [150, 18, 1, 0]
    assert coreset_epochs.budgets_of(0, counts, 0, 10).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("of", ["appended", "augmentation", "training"])
def test_only_chosen_images_meet_the_policy_and_every_count_is_right(
    of: str, registry: Registry, tmp_path: Any
) -> None:
    (tmp_path / "inverted.yaml").write_text("{augkit: 1, name: inverted, pipeline: [invert]}")
    told = [f"policy={tmp_path}/inverted.yaml", "base.before=[]"]
    run = begun(registry, f"{{name: facility_location, share: 0.3, of: {of}}}", *told)
    met: list[tuple[Tensor, Tensor, Tensor | None]] = []
    inner = run.answer

    def watched(inputs: Tensor, targets: Tensor, where: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        met.append((inputs, where, weights))
        return inner(inputs, targets, where, weights)

    run.answer = watched  # type: ignore[method-assign]
    record, train = train_epoch(run), run.data.train
    inputs, where = (torch.cat(part) for part in list(zip(*met, strict=True))[:2])
    weights = torch.cat([part for *_, part in met if part is not None])
    assert run.chosen is not None and train.held is not None
    mine = torch.isin(where, run.chosen.rows)
    plain, other = run.normalise(train.held[where]), run.normalise(255 - train.held[where])
    inverted = (inputs - other).flatten(1).abs().amax(1) < 1e-4
    assert ((inputs - plain).flatten(1).abs().amax(1) < 1e-4).logical_xor(inverted).all()
    times = torch.bincount(where, minlength=len(train))
    extra = torch.zeros_like(times).index_fill(0, run.chosen.rows, 1)
    expected = {"appended": 1 + extra, "augmentation": torch.ones_like(times), "training": extra}[of]
    assert torch.equal(times, expected)
    assert torch.equal(inverted[mine].sum(), extra.sum()) and not inverted[~mine].any()
    assert torch.equal(weights[~inverted], torch.ones(int((~inverted).sum())))
    assert float(weights[inverted].mean()) == pytest.approx(1) and float(weights.max()) > 1
    counted = run.policy.history[-1]
    chosen = torch.bincount(train.labels[run.chosen.rows], minlength=10).float()
    assert torch.equal(counted["used"][:, own_operators(run.policy)].sum(1), chosen)
    assert torch.equal(counted["seen"], torch.bincount(train.labels[where], minlength=10).float())
    assert torch.equal(run.stage.class_counts, run.data.class_counts.float())
    assert record["subset"]["images"] == len(run.chosen.rows) == int(chosen.sum())


@pytest.mark.parametrize("of", ["appended", "augmentation"])
def test_operators_and_changed_pixels_of_a_run_count_the_same_images(
    of: str, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "inverted.yaml").write_text("{augkit: 1, name: inverted, pipeline: [invert]}")
    told = [f"policy={tmp_path}/inverted.yaml", "base.before=[]"]
    run = begun(registry, f"{{name: max_loss, share: 0.3, of: {of}}}", *told)
    train_epoch(run)
    assert len(run.data.train) <= intensity.SAMPLE, "so all images are in the sample"
    appended = of == "appended"
    for group in intensity._by_group(run.policy, run.data, 1, appended=appended).values():
        share = {"appended": 0.3 / 1.3, "augmentation": 0.3}[of]
        assert group is None or group["changed"] == pytest.approx(group["operators"]) == pytest.approx(share, abs=0.15)


class _Asked:
    """How many images a model is shown in evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self.images, self.hook = 0, model.register_forward_pre_hook(self._count)

    def _count(self, model: nn.Module, given: Any) -> None:
        self.images += 0 if model.training else len(given[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_price_is_one_pass_over_the_images_at_each_choice(name: str, registry: Registry) -> None:
    run = begun(registry, f"{{name: {name}, share: 0.3, every: 2}}")
    asked, size, rows = _Asked(run.model), len(run.data.train), []
    for epoch in range(4):
        before = asked.images
        record = train_epoch(run)
        due = 0 if name == "random" or epoch % 2 else size
        assert asked.images - before == record["subset"]["asked"] == due
        assert bool(epoch % 2) == (record["subset"]["seconds"] == 0)
        assert record["subset"]["seconds"] <= record["seconds"]
        assert run.chosen is not None
        rows.append(run.chosen.rows)
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[2], rows[3]) and not torch.equal(rows[1], rows[2])


@pytest.mark.slow
def test_each_stage_chooses_anew(registry: Registry) -> None:
    run = begun(registry, "{name: random, share: 0.2, every: 9}", "stages=[train, {finetune_head: {epochs: 2}}]")
    rows = []
    for _ in range(6):
        train_epoch(run)
        assert run.chosen is not None
        rows.append(run.chosen.rows.tolist())
    assert rows[0] == rows[3] != rows[4] == rows[5]


@pytest.mark.parametrize("loss", ["ce", "balanced_softmax", "class_balanced", "focal"])
def test_weights_multiply_each_image_s_part_of_the_gradient(loss: str) -> None:
    counts = torch.tensor([50.0, 10.0, 5.0])
    asked = {} if loss in ("ce", "focal") else {"class_counts": counts}
    labels, weights = torch.tensor([0, 1, 2, 0]), torch.tensor([0.5, 2.0, 1.0, 0.0])

    def gradient(weights: Tensor | None) -> Tensor:
        logits = torch.arange(12.0).view(4, 3).sin().requires_grad_()
        losses.LOSSES[loss](coreset_epochs.weighed(logits, weights, 1), labels, **asked).backward()
        assert logits.grad is not None
        return logits.grad

    assert torch.allclose(gradient(weights), gradient(None) * weights[:, None])
    twice = torch.ones(8, 3, requires_grad=True)
    coreset_epochs.weighed(twice, weights, 2).sum().backward()
    assert torch.equal(twice.grad, weights.repeat(2)[:, None].expand(8, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "of", ["training", *(pytest.param(of, marks=pytest.mark.slow) for of in ("appended", "augmentation"))]
)
def test_a_run_goes_on_to_the_last_bit_between_two_choices(of: str, registry: Registry) -> None:
    told = f"{{name: facility_location, share: 0.3, every: 2, of: {of}}}", "policy=trivialaugment"
    whole, first, second = (begun(registry, *told) for _ in range(3))
    for _ in range(4):
        train_epoch(whole)
    for _ in range(3):
        train_epoch(first)
    second.load_state_dict(first.state_dict())
    train_epoch(second)
    assert whole.records[-1]["loss"] == second.records[-1]["loss"]
    pairs = zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def looking(logits: Tensor, targets: Tensor, *, features: Tensor) -> Tensor:
    return functional.cross_entropy(logits, targets) + 0 * features.sum()


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (["policy=mixup"], '^subset: "mixup" mixes images and so cannot leave single images alone: say of: training'),
        (["policy=augmix"], '^subset: "augmix" has views, which every image gets, .* say of: training'),
        (["subset.share=1.5"], "not within 0..1"),
        (["subset.share=class_coun"], 'Did you mean "class_count"'),
        (["subset.name=facility"], 'Did you mean "facility_location"'),
        (["subset.weigthed=false"], 'Did you mean "weighted"'),
        (["subset.every=0"], "greater than or equal to 1"),
        (["subset.of=all"], "'appended', 'augmentation' or 'training'"),
    ],
)
def test_refusals_are_told_before_training(told: list[str], sentence: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=sentence):
        begun(registry, "{name: facility_location, share: 0.3}", *told)


@pytest.mark.parametrize("asked", ["share", "replace"])
def test_two_that_say_which_images_an_epoch_takes_are_refused(asked: str, registry: Registry) -> None:
    recipe = small(registry, "subset={name: random, share: 0.3}", f"sources={{{asked}: 0.5}}")
    with pytest.raises(DocumentError, match=f"sources.{asked} says which .* leave one of them out"):
        coreset_epochs.prepare(recipe, 10, registry, torch.device("cpu"))


@pytest.mark.slow
def test_a_loss_that_looks_past_the_logits_takes_no_weights(registry: Registry) -> None:
    mine = Registry(**{**vars(registry), "losses": {**registry.losses, "looking": looking}})
    run = begun(mine, "{name: facility_location, share: 0.3}", "loss=looking")
    with pytest.raises(DocumentError, match='"looking" looks at features too'):
        train_epoch(run)
    for subset in ("{name: facility_location, share: 0.3, weighted: false}", "{name: random, share: 0.3}"):
        assert math.isfinite(train_epoch(begun(mine, subset, "loss=looking"))["loss"])


def test_a_share_is_needed_and_recipes_without_a_subset_keep_their_hash(registry: Registry) -> None:
    with pytest.raises(DocumentError, match="share: this is missing"):
        load_recipe("demo", registry, ["subset={name: random}"])
    assert "subset" not in load_recipe("demo", registry).model_dump(mode="json")


def test_progress_tells_of_choosing(registry: Registry) -> None:
    run, told = begun(registry, "{name: max_loss, share: 0.3, every: 2}"), []
    first = train_epoch(run, lambda done, of, what: told.append((done, of, what)))
    size = len(run.data.train)
    assert told[0] == (1, math.ceil(size / coreset_epochs.BATCH), "choosing") and told[-1][2] == "epoch"
    assert f"chose {first['subset']['images']:,} in " in describe(first, 4)
    with Reporter("run", 2, 0) as reporter:
        reporter.step(*told[0])
