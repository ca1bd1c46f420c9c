"""Invariance-constrained learning: its chains, its dual variable, what it costs, and what is counted of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_parts import write_npz
from scipy.stats import chisquare
from torch import Tensor
from torch.nn import functional

from augkit.engine.streams import fold, key_of, site_constants, uniforms
from augkit.errors import DocumentError
from augkit.lab.data import load
from augkit.lab.folder import load_checkpoint, save_checkpoint
from augkit.lab.intensity import measure
from augkit.lab.invariance import _ACCEPT, InvarianceConstrained
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.lab.run import train
from augkit.policy import Policy
from augkit.registry import Registry

OPTIONS = ("loss=invariance", "loss.epsilon=0.9", "loss.dual_lr=0.01", "policy=invariance_proposals")
SMALL = ("model=resnet8_cifar", "epochs=4", "batch_size=10", "optimizer.lr=0.05", "threads=1", "base={}")


def begun(registry: Registry, source: Path, *told: str) -> Training:
    recipe = load_recipe("demo", registry, ["data={}", f"data.source={source}", *SMALL, *told])
    return prepare(recipe, load(recipe.data), registry, torch.device("cpu"))


def loss_of(run: Training) -> InvarianceConstrained:
    loss = run.stage.loss.function
    assert isinstance(loss, InvarianceConstrained)
    return loss


def scripted(losses: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A model whose cross-entropy on proposal v of image i is `losses` [V, B], its inputs and targets."""
    number, size = losses.shape
    inputs = torch.arange((number + 1) * size, dtype=torch.float32).view(-1, 1, 1, 1)

    def ask(images: Tensor) -> Tensor:
        wanted = losses.flatten()[images.flatten().long() - size]  # log(1 + exp(-z)) is the loss of the right class
        return torch.stack([-torch.log(torch.expm1(wanted)), torch.zeros_like(wanted)], 1)

    return ask, inputs, torch.zeros(len(inputs), dtype=torch.int64)


def keys_of(size: int, seed: int = 0) -> Tensor:
    return fold(torch.full((), key_of(seed, "test")), torch.arange(size))


def distribution(losses: list[float]) -> list[float]:
    """Where the chain ends: every way through it with its probability, in float64."""
    ends = [1.0] + [0.0] * (len(losses) - 1)
    for proposal in range(1, len(losses)):
        moved = [p * min(1.0, losses[proposal] / losses[state]) for state, p in enumerate(ends)]
        ends = [p - m for p, m in zip(ends, moved, strict=True)]
        ends[proposal] += sum(moved)
    return ends


@pytest.mark.parametrize("losses", [[1.0, 0.4], [0.5, 1.5, 0.3, 0.2], [2.0, 0.5, 0.4, 0.3, 0.25]])
def test_chains_end_where_metropolis_and_hastings_say(losses: list[float]) -> None:
    size = 4000
    ask, inputs, targets = scripted(torch.tensor(losses)[:, None].expand(-1, size))
    rows = InvarianceConstrained().choose(ask, inputs, targets, keys_of(size))
    assert rows.shape == (2, size) and torch.equal(rows[0], torch.arange(size))
    assert torch.equal(rows[1] % size, torch.arange(size))
    ends = torch.bincount(rows[1] // size - 1, minlength=len(losses)).numpy()
    expected = size * np.array(distribution(losses))
    there = expected > 0  # a state that a sure proposal follows is nobody's end
    assert expected[there].min() > 5 and not ends[~there].any()
    assert chisquare(ends[there], expected[there]).pvalue > 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 6), st.integers(1, 9))
def test_chains_are_those_of_a_loop_over_images(seed: int, number: int, size: int) -> None:
    losses = torch.from_numpy(np.random.RandomState(seed).uniform(0.05, 4, (number, size))).float()
    ask, inputs, targets = scripted(losses)
    keys = keys_of(size, seed)
    rows = InvarianceConstrained().choose(ask, inputs, targets, keys)
    drawn = uniforms(keys, site_constants(_ACCEPT, max(1, number - 1), keys.device))
    exact = functional.cross_entropy(ask(inputs[size:]), targets[size:], reduction="none").view(number, size)
    for image in range(size):
        state = 0
        for proposal in range(1, number):
            if float(drawn[image, proposal - 1]) < float(exact[proposal, image]) / float(exact[state, image]):
                state = proposal
        assert rows[1, image] == (1 + state) * size + image


def test_draws_are_an_image_s_own_whatever_the_batch() -> None:
    losses = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)) + 0.1
    keys = keys_of(40)

    def ends(part: slice) -> Tensor:
        ask, inputs, targets = scripted(losses[:, part])
        found = InvarianceConstrained().choose(ask, inputs, targets, keys[part])
        return found[1] // found.shape[1]

    assert torch.equal(ends(slice(0, 40)), torch.cat([ends(slice(0, 13)), ends(slice(13, 40))]))


def test_a_loss_of_zero_is_left_and_never_gone_to() -> None:
    _, inputs, targets = scripted(torch.full((2, 200), 1.0))
    losses = torch.tensor([0.0, 1.0]).repeat_interleave(100).repeat(2).view(2, 200)
    losses[1] = 1 - losses[1]  # first half from 0 to 1, second from 1 to 0
    logits = torch.where(losses.flatten() > 0, 0.0, 200.0)  # exactly 0 at 200
    rows = InvarianceConstrained().choose(
        lambda images: torch.stack([logits, torch.zeros_like(logits)], 1), inputs, targets, keys_of(200)
    )
    assert torch.equal(rows[1] // 200 - 1, (torch.arange(200) < 100).long())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0, 3), st.floats(0, 0.5), st.integers(1, 3))
def test_mu_and_loss_are_those_of_a_written_out_loop(seed: int, epsilon: float, rate: float, experts: int) -> None:
    random = np.random.RandomState(seed)
    loss, mu, slacks = InvarianceConstrained(epsilon=epsilon, dual_lr=rate), 0.0, []
    for _ in range(12):
        size = random.randint(1, 6)
        logits, targets = random.randn(2 * size, experts, 4) * 2, np.tile(random.randint(0, 4, size), 2)
        each = [
            [-z[y] + math.log(sum(math.exp(v) for v in z)) for z in zs] for zs, y in zip(logits, targets, strict=True)
        ]
        clean, augmented = (sum(map(sum, half)) / size for half in (each[:size], each[size:]))
        given = torch.from_numpy(logits).float()
        found = loss(given.mean(1), torch.from_numpy(targets), experts=given)
        assert float(found) == pytest.approx(clean + mu * augmented, rel=1e-4, abs=1e-5)
        mu = max(0.0, mu + rate * (augmented / experts - epsilon))
        assert float(loss.mu) == pytest.approx(mu, rel=1e-4, abs=1e-5)
        slacks.append((size, epsilon - augmented / experts))
    told = loss.tell()
    assert told["slack"] == pytest.approx(sum(n * s for n, s in slacks) / sum(n for n, _ in slacks), abs=1e-4)
    assert told["mu"] == float(loss.mu) and loss.images == 0 and float(loss.sums.abs().sum()) == 0


def test_a_step_waits_for_no_device() -> None:
    loss = InvarianceConstrained().to("meta")  # where reading a number is an error
    labels, keys = torch.zeros(24, dtype=torch.int64, device="meta"), torch.zeros(8, dtype=torch.int64, device="meta")
    inputs = torch.zeros(24, 3, 4, 4, device="meta")
    rows = loss.choose(lambda images: images.mean((2, 3)), inputs, labels, keys)
    assert rows.shape == (2, 8)
    logits = torch.zeros(16, 3, device="meta", requires_grad=True)
    loss(logits, labels[:16], experts=logits[:, None]).backward()
    assert logits.grad is not None and loss.mu.device.type == "meta"


def test_gradients_flow_through_what_was_chosen_alone(registry: Registry, tmp_path: Path) -> None:
    run = begun(registry, write_npz(tmp_path / "a.npz"), *OPTIONS, "policy.params.steps=3")
    loss_of(run).mu.fill_(0.5)
    where, before = torch.arange(10), {n: b.clone() for n, b in run.model.named_buffers()}
    inputs, targets = run.policy(run.data.train.held[where], run.data.train.labels[where], index=where)  # type: ignore[index]
    inputs.requires_grad_()
    run.model.train()
    chosen, plain = [], run.views_kept
    run.views_kept = lambda *given: chosen.append(plain(*given)) or chosen[0]  # type: ignore[method-assign]
    logits, loss = run.answer(inputs, targets, where)
    loss.backward()
    (kept,) = chosen
    assert kept is not None and logits.shape == (20, 3) and inputs.grad is not None
    met = inputs.grad.flatten(1).abs().sum(1) > 0
    assert torch.equal(met.nonzero()[:, 0], kept.flatten().sort().values)
    alone = begun(registry, tmp_path / "a.npz", *OPTIONS)
    alone.model.load_state_dict(alone.model.state_dict() | before)
    alone.model.train()
    for rows in kept:  # running statistics as if no other proposal had been there
        alone.model(inputs.detach()[rows])
    for name, buffer in alone.model.named_buffers():
        assert torch.allclose(buffer, dict(run.model.named_buffers())[name], atol=1e-6), name


@contextmanager
def counted(run: Training) -> Iterator[dict[str, int]]:
    """Images that go through the model, and those whose gradients come back."""
    passes = {"forward": 0, "backward": 0}

    def back(*_: object) -> None:
        passes["backward"] += sizes.pop()

    def forth(_module: object, given: tuple[Tensor, ...], output: Tensor) -> None:
        passes["forward"] += len(given[0])
        if output.requires_grad:
            sizes.append(len(given[0]))
            output.register_hook(back)

    sizes: list[int] = []
    hook = run.model.register_forward_hook(forth)
    try:
        yield passes
    finally:
        hook.remove()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_price_declared_is_the_price_paid(registry: Registry, tmp_path: Path, steps: int) -> None:
    run = begun(registry, write_npz(tmp_path / "a.npz"), *OPTIONS, f"policy.params.steps={steps}")
    with counted(run) as passes:
        record = train_epoch(run)
    images = len(run.data.train)
    assert {name: count / images for name, count in passes.items()} == record["passes"]
    assert record["passes"] == {"forward": {1: 2, 2: 4, 4: 6}[steps], "backward": 2}


def test_what_was_accepted_is_what_is_counted(registry: Registry, tmp_path: Path) -> None:
    run = begun(registry, write_npz(tmp_path / "a.npz"), *OPTIONS, "policy.params.steps=3")
    ops = len(run.policy.program.choices)
    used, strength = np.zeros((3, ops)), np.zeros((3, ops))
    plain = run.views_kept

    def watched(inputs: Tensor, targets: Tensor) -> Tensor | None:
        kept, plan = plain(inputs, targets), run.policy.last_plan
        assert kept is not None and plan is not None
        for image in range(len(plan)):
            view = plan.views[int(kept[1, image]) // len(plan)][1]
            choice, label = int(view.choice[image, 0]), int(plan.targets[image])
            used[label, choice] += 1
            strength[label, choice] += np.nan_to_num(float(view.strength[image, 0]))
        return kept

    run.views_kept = watched  # type: ignore[method-assign]
    record = train_epoch(run)
    ended = run.policy.history[-1]
    assert np.array_equal(ended["used"].numpy(), used) and used.sum() == len(run.data.train)
    assert np.allclose(ended["strength_used"].numpy(), strength, atol=1e-4)
    assert float(ended["seen"].sum()) == len(run.data.train)  # the clean images' answers
    assert 0 < record["constraint"]["accepted"] <= 1


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz")
    run = begun(registry, source, *OPTIONS)
    for _ in range(2):
        train_epoch(run)
    assert float(loss_of(run).mu) > 0
    save_checkpoint(tmp_path, run.state_dict())
    resumed = begun(registry, source, *OPTIONS)
    state = load_checkpoint(tmp_path, "loss")
    assert state is not None
    resumed.load_state_dict(state)
    timed = {"seconds", "seconds_input"}
    for _ in range(2):
        there, here = train_epoch(run), train_epoch(resumed)
        assert {n: v for n, v in there.items() if n not in timed} == {n: v for n, v in here.items() if n not in timed}
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    assert torch.equal(run.policy.history[-1]["used"], resumed.policy.history[-1]["used"])


def test_any_views_can_be_chosen_among(registry: Registry, tmp_path: Path) -> None:
    run = begun(registry, write_npz(tmp_path / "a.npz"), "loss=invariance", "policy=augmix", "epochs=1")
    record, used = train_epoch(run), run.policy.history[-1]["used"]
    assert math.isfinite(record["loss"]) and 48 * 3 <= float(used.sum()) <= 48 * 9  # three chains of one to three


def test_proposals_are_even_over_operators_and_strengths() -> None:
    policy = Policy.load("invariance_proposals", class_counts=[1])
    plan = policy.plan(torch.zeros(6000, dtype=torch.int64))
    (_, clean), (_, first), (_, second) = plan.views
    assert clean.choice.numel() == 0 and not torch.equal(first.choice, second.choice)
    for view in (first, second):
        assert chisquare(torch.bincount(view.choice[:, 0], minlength=13).numpy()).pvalue > 1e-3
        levels = (view.strength[~view.strength.isnan()] * 30).round().long()
        assert chisquare(torch.bincount(levels, minlength=31)[1:].numpy()).pvalue > 1e-3
        assert levels.min() == 1 and levels.max() == 30


def test_what_it_cannot_work_with_is_one_sentence(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz")
    for policy in ("trivialaugment", "mixup"):
        with pytest.raises(
            DocumentError, match=f'"invariance" chooses among views .* "{policy}" makes none: take a po'
        ):
            begun(registry, source, "loss=invariance", f"policy={policy}")
    with pytest.raises(DocumentError, match=r"loss\.epsilon=-1: this should be greater than or equal to 0, not -1"):
        begun(registry, source, "loss=invariance", "loss.epsilon=-1")
    with pytest.raises(DocumentError, match=r'loss\.steps=2: there is no option "steps" here'):
        begun(registry, source, "loss=invariance", "loss.steps=2")
    with pytest.raises(DocumentError, match="steps"):
        begun(registry, source, *OPTIONS, "policy.params.steps=0")


@pytest.mark.slow
def test_a_run_s_folder_tells_what_was_accepted(registry: Registry, tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz")
    told = ["data={}", f"data.source={source}", *SMALL, *OPTIONS, "epochs=2"]
    folder = train("demo", told, tmp_path / "run", registry=registry)
    use = json.loads((folder / "operators.json").read_text())
    assert np.array(use["used"]).sum((1, 2)).tolist() == [48, 48] and len(use["operators"]) == 13
    assert 0 < np.array(use["strength_used"]).sum() < 96
    found = measure(folder, registry)["all"]
    assert found is not None and found["operators"] == 1.0 and 0 < found["changed"] < 0.5
    assert json.loads((folder / "summary.json").read_text())["passes"] == {"forward": 4.0, "backward": 2.0}
    assert (folder / "constraint.png").stat().st_size > 10_000


def test_the_recipe_for_cifar_is_there(registry: Registry) -> None:
    recipe = load_recipe("cifar100-lt-invariance", registry)
    assert recipe.loss.options == {"epsilon": 2.1, "dual_lr": 1e-4} and recipe.policy.params == {"steps": 2}
    other = load_recipe("cifar100-lt", registry)
    for part in ("data", "base", "model", "optimizer", "schedule", "epochs", "batch_size"):
        assert getattr(recipe, part) == getattr(other, part)
