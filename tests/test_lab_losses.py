"""The lab's losses against their published formulas, worked out in float64 by numpy, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lab_parts import recipe as recipe_of
from timm.loss.jsd import JsdCrossEntropy
from torch import Tensor, nn

from augkit.errors import DocumentError
from augkit.lab import losses, models
from augkit.lab.data import load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.registry import Registry

CIFAR = np.array([int(500 * 100 ** (-c / 99)) for c in range(100)])
QUICK = ("epochs=2", "data.test_share=0.8", "data.image_size=16", "data.imbalance=10", "threads=1")
Reference = Callable[[np.ndarray, int, np.ndarray], tuple[float, float]]
"""(logits [C] of an image, its label, counts [C]) to (loss, weight in the mean)."""


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def effective(counts: np.ndarray, beta: float) -> np.ndarray:
    """As the long-tailed repositories have it: (1 - beta) over the effective number, times C over the sum."""
    weights = (1 - beta) / (1 - np.power(beta, counts.astype(np.float64)))
    return np.asarray(weights / weights.sum() * len(counts))


def plain(z: np.ndarray, y: int, counts: np.ndarray) -> tuple[float, float]:
    return -math.log(softmax(z)[y]), 1.0


def weighted(z: np.ndarray, y: int, counts: np.ndarray) -> tuple[float, float]:
    return -math.log(softmax(z)[y]), effective(counts, 0.9999)[y]


def adjusted(tau: float, z: np.ndarray, y: int, counts: np.ndarray) -> tuple[float, float]:
    return -math.log(softmax(z + tau * np.log(counts / counts.sum()))[y]), 1.0


def focal(gamma: float, weigh: bool, z: np.ndarray, y: int, counts: np.ndarray) -> tuple[float, float]:
    p = softmax(z)[y]
    return -((1 - p) ** gamma) * math.log(p), effective(counts, 0.9999)[y] if weigh else 1.0


def ldam(late: bool, z: np.ndarray, y: int, counts: np.ndarray) -> tuple[float, float]:
    margins = 1 / np.sqrt(np.sqrt(counts))
    z = z.copy()
    z[y] -= (margins * (0.5 / margins.max()))[y]
    return -math.log(softmax(30 * z)[y]), effective(counts, 0.9999)[y] if late else 1.0


EARLY: dict[str, Any] = {"epoch": 159, "epochs": 200}
LATE: dict[str, Any] = {"epoch": 160, "epochs": 200}
CASES: dict[str, tuple[Callable[..., Tensor], dict[str, Any], Reference]] = {
    "ce": (losses.ce, {}, plain),
    "ce_drw early": (losses.ce_drw, EARLY, plain),
    "ce_drw late": (losses.ce_drw, LATE, weighted),
    "class_balanced": (losses.class_balanced, {}, weighted),
    "class_balanced focal": (losses.class_balanced, {"gamma": 2.0}, partial(focal, 2.0, True)),
    "focal": (losses.focal, {"gamma": 0.5}, partial(focal, 0.5, False)),
    "balanced_softmax": (losses.balanced_softmax, {}, partial(adjusted, 1.0)),
    "logit_adjustment": (losses.logit_adjustment, {"tau": 1.5}, partial(adjusted, 1.5)),
    "ldam_drw early": (losses.ldam_drw, EARLY, partial(ldam, False)),
    "ldam_drw late": (losses.ldam_drw, LATE, partial(ldam, True)),
}


def called(name: str, logits: Tensor, targets: Tensor, counts: np.ndarray) -> Tensor:
    function, options, _ = CASES[name]
    facts = {"class_counts": torch.from_numpy(counts).float()} if name not in ("ce", "focal") else {}
    return function(logits, targets, **facts, **options)


def batch(name: str, size: int = 40, classes: int = 100, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(size, classes, generator=source, dtype=torch.float64) * 3
    logits = logits.div(6).clamp(-1, 1) if name.startswith("ldam") else logits
    return logits.to(dtype), torch.randint(0, classes, (size,), generator=source)


@pytest.mark.parametrize("name", CASES)
def test_losses_are_their_formulas(name: str) -> None:
    logits, labels = batch(name)
    pairs = [CASES[name][2](z, y, CIFAR) for z, y in zip(logits.double().numpy(), labels.tolist(), strict=True)]
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    expected = (values * weights).sum() / weights.sum()
    assert called(name, logits, labels, CIFAR).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_dense_targets_are_shares_of_labels(name: str) -> None:
    logits, labels = batch(name, dtype=torch.float64)
    onehot = nn.functional.one_hot(labels, 100).double()
    assert called(name, logits, onehot, CIFAR).item() == pytest.approx(called(name, logits, labels, CIFAR).item())
    shares = torch.rand(1, 100, dtype=torch.float64).softmax(1)
    reference = [CASES[name][2](logits[0].numpy(), y, CIFAR) for y in range(100)]
    values, weights = (np.array(column) for column in zip(*reference, strict=True))
    by_hand = (values * weights * shares[0].numpy()).sum() / (weights * shares[0].numpy()).sum()
    assert called(name, logits[:1], shares, CIFAR).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dense", [False, True])
def test_gradients_are_finite_at_the_edges(name: str, dense: bool) -> None:
    counts = np.array([500, 20, 1, 0])
    sure = torch.eye(4)[[0, 1, 2, 0, 3]] * 2 - 1  # certain of the right answer, of a wrong one, and of nothing
    for size in (1.0,) if name.startswith("ldam") else (1.0, 30.0, 1e4):
        logits = torch.cat((sure * size, torch.zeros(1, 4))).requires_grad_()
        targets = torch.tensor([0, 1, 0, 2, 1, 2])
        given = nn.functional.one_hot(targets, 4).float() * 0.9 + 0.025 if dense else targets
        loss = called(name, logits, given, counts)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and loss >= 0
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_formula(name: str) -> None:
    logits, labels = batch(name, 5, 6, torch.float64)
    dense = torch.rand(5, 6, dtype=torch.float64).softmax(1)
    for targets in (labels, dense):
        assert torch.autograd.gradcheck(lambda z, t=targets: called(name, z, t, CIFAR[::17]), logits.requires_grad_())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 100_000), min_size=2, max_size=30), st.sampled_from([0.0, 0.9, 0.999, 0.9999]))
def test_weights_sum_to_the_number_of_classes(counts: list[int], beta: float) -> None:
    weights = losses.effective_weights(torch.tensor(counts).float(), beta)
    assert weights.sum().item() == pytest.approx(len(counts), rel=1e-5)
    assert weights.numpy() == pytest.approx(effective(np.array(counts), beta), rel=1e-3)  # beta ** n loses digits there
    order = np.argsort(counts)
    assert (np.diff(weights.numpy()[order]) <= 1e-6).all(), "rarer classes never weigh less"


@pytest.mark.parametrize(("epochs", "start", "first"), [(200, 0.8, 160), (15, 0.8, 12), (10, 0.0, 0), (7, 1.0, 7)])
def test_deferred_weights_begin_at_their_epoch(epochs: int, start: float, first: int) -> None:
    logits, labels = batch("ldam")
    counts = torch.from_numpy(CIFAR).float()
    for loss in (losses.ce_drw, losses.ldam_drw):
        told = [
            loss(logits, labels, class_counts=counts, epoch=e, epochs=epochs, from_=start).item() for e in range(epochs)
        ]
        assert len(set(told[:first])) <= 1 and len(set(told[first:])) <= 1
        assert not set(told[:first]) & set(told[first:])


def test_margins_are_the_published_ones() -> None:
    """With cosines alike everywhere, the loss of class c is log(1 + (C - 1) e^(s m_c))."""
    found = [
        losses.ldam_drw(torch.zeros(1, 100), torch.tensor([c]), class_counts=torch.from_numpy(CIFAR), **EARLY).item()
        for c in (0, 50, 99)
    ]
    margins = [0.5 * (5 / CIFAR[c]) ** 0.25 for c in (0, 50, 99)]
    assert found == pytest.approx([math.log(1 + 99 * math.exp(30 * m)) for m in margins], rel=1e-6)
    assert margins[-1] == 0.5


def test_uniform_counts_leave_cross_entropy() -> None:
    logits, labels = batch("ce")
    uniform = np.full(100, 7)
    plain_loss = called("ce", logits, labels, uniform).item()
    for name in ("class_balanced", "ce_drw late", "balanced_softmax", "logit_adjustment"):
        assert called(name, logits, labels, uniform).item() == pytest.approx(plain_loss, rel=1e-6), name
    assert losses.focal(logits, labels, gamma=0.0).item() == pytest.approx(plain_loss, rel=1e-6)


def test_jsd_takes_mixed_views() -> None:
    logits = torch.randn(12, 5)
    dense = torch.rand(4, 5).softmax(1).repeat(3, 1)
    assert torch.equal(losses.jsd(logits, dense, views=3), JsdCrossEntropy(3, 12, 0)(logits, dense))


# -- in a run ------------------------------------------------------------------------------------------------------


def test_cosine_head_is_the_published_one() -> None:
    model = models.create("resnet8_cifar", 5, {}, 0)
    models.give_cosines(model)
    images = torch.randn(6, 3, 32, 32)
    answers, features = model(images), model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    weight = model.fc.weight  # type: ignore[union-attr]
    assert torch.allclose(weight.norm(dim=1), torch.ones(5))  # type: ignore[operator]
    by_hand = features @ weight.T / features.norm(dim=1, keepdim=True)
    assert torch.allclose(answers, by_hand, atol=1e-6) and answers.abs().max() <= 1
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.float32
    with pytest.raises(DocumentError, match=r"^loss: .* not one linear layer"):
        models.give_cosines(nn.Sequential(nn.Linear(3, 2)))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto"])
def test_timm_models_take_a_cosine_head(name: str) -> None:
    model = models.create(name, 4, {}, 0)
    models.give_cosines(model)
    answers = model(torch.randn(2, 3, 224, 224) * 9)
    assert answers.shape == (2, 4) and answers.abs().max() <= 1.0001


@pytest.mark.parametrize("policy", [pytest.param("none", marks=pytest.mark.slow), "mixup"])
@pytest.mark.parametrize("loss", sorted(set(losses.LOSSES) - {"jsd", "group_dro", "invariance"}))
def test_every_loss_trains_on_labels_and_on_mixtures(policy: str, loss: str, registry: Registry) -> None:
    recipe = load_recipe("demo", registry, [*QUICK, f"policy={policy}", f"loss={loss}"])
    run = prepare(recipe, load(recipe.data), registry, torch.device("cpu"))
    assert all(math.isfinite(train_epoch(run)["loss"]) for _ in range(2))
    assert isinstance(run.model.get_classifier(), models.CosineHead) is (loss == "ldam_drw")  # type: ignore[operator]


def test_the_prior_is_that_of_the_training_images(registry: Registry) -> None:
    seen: list[tuple[Tensor, int, int]] = []

    def spy(logits: Tensor, targets: Tensor, *, class_counts: Tensor, epoch: int, epochs: int) -> Tensor:
        seen.append((class_counts, epoch, epochs))
        return logits.sum() * 0

    mine = Registry(**{**vars(registry), "losses": {"spy": spy}})
    recipe = load_recipe("demo", mine, [*QUICK, "loss=spy", "data.validation=0.3"])
    data = load(recipe.data)
    run = prepare(recipe, data, mine, torch.device("cpu"))
    for _ in range(2):
        train_epoch(run)
    own = torch.bincount(data.train.labels, minlength=10)
    assert data.val is not None and len(data.val) > 5
    assert all(torch.equal(counts, own.float()) for counts, _, _ in seen)
    assert {(epoch, epochs) for _, epoch, epochs in seen} == {(0, 2), (1, 2)}


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (["loss={name: ldam_drw, margin: 0.5}"], r'^--set .*: loss\.margin: there is no option "margin" here\.'),
        (["loss={name: ldam_drw, max_margim: 0.5}"], r'Did you mean "max_margin"\?'),
        (["loss=focal", "loss.gamma=-1"], r"^--set loss\.gamma=-1: .*greater than or equal to 0, not -1$"),
        (["loss.beta=0.9"], r'^--set loss\.beta=0\.9: there is no option "beta"'),
        (["loss=ce_drw", "loss.from=late"], r'^--set loss\.from=late: .* valid number, not "late"'),
        (["loss=ce_drw", "loss.epoch=3"], r'^--set loss\.epoch=3: there is no option "epoch"'),
    ],
)
def test_wrong_options_are_told(told: list[str], says: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=says):
        load_recipe({"augkit": 1, "name": "plain"}, registry, told)


def test_options_reach_the_loss(registry: Registry) -> None:
    told = [*QUICK, "loss={name: ldam_drw, from: 0.5, scale: 10}", "loss.max_margin=0.25"]
    recipe = load_recipe("demo", registry, told)
    run = prepare(recipe, load(recipe.data), registry, torch.device("cpu"))
    assert dict(run.stage.loss.options) == {"from_": 0.5, "scale": 10.0, "max_margin": 0.25}
    assert recipe.hash != load_recipe("demo", registry, told[:-1]).hash
    assert recipe_of(loss={"name": "focal", "gamma": 3}).loss.options == {"gamma": 3}
