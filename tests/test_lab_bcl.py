"""Balanced contrastive learning against its formula, image by image in float64, and in a run."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lab_stages import begun, changed, weights
from torch import nn

from augkit.errors import DocumentError
from augkit.lab.bcl import BCL, contrast
from augkit.lab.loop import Training, train_epoch
from augkit.registry import Registry

SHORT = ("loss=bcl", "policy=bcl_views", "base={}", "model=resnet8_cifar", "epochs=2", "batch_size=48")


def written_out(features: np.ndarray, labels: np.ndarray, prototypes: np.ndarray, temperature: float) -> float:
    """The paper's sum, image by image: -log of each positive's share, over means of classes that have a prototype."""
    members: dict[int, list[np.ndarray]] = {c: [prototype] for c, prototype in enumerate(prototypes)}
    losses = []
    for i, (z, y) in enumerate(zip(features, labels, strict=True)):
        there = {c: list(own) for c, own in members.items()}
        for k, (other, label) in enumerate(zip(features, labels, strict=True)):
            if k != i:
                there[int(label)].append(other)
        total = sum(sum(math.exp(z @ other / temperature) for other in own) / len(own) for own in there.values())
        shares = [math.exp(z @ other / temperature) / total for other in there[int(y)]]
        losses.append(-sum(map(math.log, shares)) / len(shares))
    return sum(losses) / len(losses)


def on_the_sphere(random: np.random.RandomState, number: int, dimensions: int) -> np.ndarray:
    drawn = random.randn(number, dimensions)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 12), st.integers(1, 5), st.sampled_from([0.07, 0.1, 1.0]))
def test_the_contrast(seed: int, number: int, classes: int, temperature: float) -> None:
    random = np.random.RandomState(seed)
    features, prototypes = on_the_sphere(random, number, 3), on_the_sphere(random, classes, 3)
    labels = random.randint(0, classes, number)
    found = contrast(
        *(torch.from_numpy(part).float() for part in (features,)),
        torch.from_numpy(labels),
        torch.from_numpy(prototypes).float(),
        temperature,
    )
    assert float(found) == pytest.approx(written_out(features, labels, prototypes, temperature), rel=1e-4, abs=1e-5)


def test_a_batch_weighs_both_losses_and_classifies_the_first_view_alone() -> None:
    torch.manual_seed(0)
    counts, head = torch.tensor([50.0, 8.0, 1.0]), nn.Linear(6, 3)
    loss = BCL(class_counts=counts, head=head, classify=1.5, contrast=0.25, temperature=0.2, tau=0.5, hidden=7)
    targets, features = torch.tensor([0, 2, 0, 1]).repeat(3), torch.randn(12, 6)
    logits = head(features).detach()
    found = loss(logits, targets, features=features, head=head, views=3)
    z = (logits[:4].double() + 0.5 * (counts / counts.sum()).double().log()).numpy()
    first = np.mean([math.log(np.exp(row).sum()) - row[y] for row, y in zip(z, [0, 2, 0, 1], strict=True)])

    def projected(layers: nn.Sequential, x: np.ndarray) -> np.ndarray:
        """Linear, batch normalisation by the rows that come along, ReLU, linear, to length 1."""
        w = [{name: p.detach().double().numpy() for name, p in layer.named_parameters()} for layer in layers]
        x = x @ w[0]["weight"].T + w[0]["bias"]
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * w[1]["weight"] + w[1]["bias"]
        x = np.maximum(x, 0) @ w[3]["weight"].T + w[3]["bias"]
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))

    seen = projected(loss.of_features, features.double().numpy())[4:]
    prototypes = projected(loss.of_prototypes, head.weight.detach().double().numpy())
    second = written_out(seen, targets[4:].numpy(), prototypes, 0.2)
    assert found.item() == pytest.approx(1.5 * first + 0.25 * second, rel=1e-4)
    found.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (head.weight, *loss.parameters()) if p.ndim > 1)


def test_a_step_waits_for_no_device() -> None:
    labels = torch.zeros(8, dtype=torch.int64, device="meta")  # where reading a number is an error
    features = torch.zeros(8, 4, device="meta", requires_grad=True)
    contrast(features, labels, torch.zeros(3, 4, device="meta"), 0.1).backward()
    assert features.grad is not None


def projections(run: Training) -> dict[str, torch.Tensor]:
    loss = run.stage.loss.function
    assert isinstance(loss, BCL)
    return {name: value.clone() for name, value in loss.state_dict().items()}


def test_a_run_learns_goes_on_to_the_bit_and_keeps_projections_out_of_the_model(registry: Registry) -> None:
    run = begun(registry, *SHORT)
    before, own = projections(run), set(run.model.state_dict())
    first = train_epoch(run)["loss"]
    after = projections(run)
    assert all(not torch.equal(after[name], before[name]) for name in before)
    state = copy.deepcopy(run.state_dict())
    last = train_epoch(run)["loss"]
    resumed = begun(registry, *SHORT)
    resumed.load_state_dict(state)
    assert last == train_epoch(resumed)["loss"] < first
    assert not changed(resumed, weights(run)) and set(run.model.state_dict()) == own
    assert all(torch.equal(value, projections(run)[name]) for name, value in projections(resumed).items())
    seen = torch.as_tensor(run.policy.history[-1]["seen"])
    assert torch.equal(seen.long(), run.data.class_counts.long()), "answers to the first view count"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["policy=none"], '^loss: "bcl" takes 3 views of each image, and "none" makes none: take a policy that makes'),
        (["policy=mixup"], '^loss: "bcl" takes 3 views of each image, and "mixup" makes none'),
        (["stages=[{train: {loss: ce}}, finetune_head]", "policy=none"], r'^stages\[1\]\.loss: "bcl" takes 3 views'),
        (["compile=true"], '^compile: "bcl" looks at what the last layer is given'),
        (["model=deit_tiny_distilled_patch16_224", "model.options={img_size: 16, patch_size: 4}"], "one last layer"),
        (["loss.hidden=0"], r"loss\.hidden=0: this should be greater than or equal to 1, not 0"),
    ],
)
def test_what_it_cannot_work_with_is_one_sentence(told: list[str], message: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=message):
        begun(registry, *SHORT, *told)


def test_views_count_in_their_order_and_one_called_classify_is_the_first(registry: Registry, tmp_path: Path) -> None:
    twice = "{times: 2, steps: [invert]}"
    for name, views in (("turned", f"contrast: {twice}, classify: []"), ("unnamed", f"one: [], two: {twice}")):
        (tmp_path / f"{name}.yaml").write_text(f"{{augkit: 1, name: {name}, pipeline: [], views: {{{views}}}}}")
    with pytest.raises(
        DocumentError, match=r'^loss: .* in "turned" another comes before it, "contrast 1": write "classify"'
    ):
        begun(registry, *SHORT, f"policy={tmp_path}/turned.yaml")
    assert begun(registry, *SHORT, f"policy={tmp_path}/unnamed.yaml").policy.views == ("one", "two 1", "two 2")


def test_a_last_layer_without_vectors_is_refused() -> None:
    with pytest.raises(DocumentError, match=r"weight vectors, one for each class, and a Conv2d has none"):
        BCL(class_counts=torch.ones(3), head=nn.Conv2d(4, 3, 1))
