"""The training of `fit`: what is drawn how often, the mean of the weights, and going on after a kill bit by bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augkit_diffusion import fit_folder, fit_training, learning, learnt
from augkit_diffusion.fit_model import Shape
from augkit_diffusion.fit_training import Training, ema_share, learning_rate
from augkit_diffusion.learning import Material, Plan, label_shares
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from augkit.errors import AugkitError, StateError
from augkit.integrations.keyed import Keyed
from augkit.lab.data import Split
from augkit.lab.sources import Arrays

FORK = multiprocessing.get_context("fork")
COUNTS = (60, 20, 0, 4)
SHAPE = Shape(8, len(COUNTS), 16, 2)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # threads do not outlive a fork


def material(augmented: bool = False) -> Material:
    """Colours of four labels with some noise, one label without an image."""
    labels = torch.from_numpy(np.random.RandomState(0).permutation(np.repeat(np.arange(4), COUNTS)))
    random = np.random.RandomState(1)
    colours = random.randint(40, 216, (4, 1, 1, 3))
    images = (colours[labels] + random.randint(-4, 5, (len(labels), 8, 8, 3))).astype(np.uint8)
    held = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    split = Split(labels, held, Arrays(images, labels.numpy()), np.arange(len(labels)), 8)
    crop = {"augkit": 1, "name": "fit", "image": {"fill": "reflect"}, "pipeline": [{"random_crop": {"padding": 1}}]}
    return Material(split, torch.arange(len(labels)), labels, torch.tensor(COUNTS), Keyed(crop) if augmented else None)


def plan(**changed: Any) -> Plan:
    return Plan(**{"steps": 12, "batch": 4, "lr": 1e-3, "exponent": 0.5, "seed": 3, "precision": "float32"} | changed)


def training(**changed: Any) -> Training:
    return Training(SHAPE, plan(**changed), material(augmented=True), torch.device("cpu"))


@given(
    counts=st.lists(st.integers(0, 5000), min_size=2, max_size=20).filter(any),
    exponent=st.floats(0, 1, allow_nan=False),
)
def test_labels_lie_between_as_they_come_and_all_alike(counts: list[int], exponent: float) -> None:
    shares = label_shares(torch.tensor(counts), exponent)
    n = np.array(counts)
    assert shares.sum() == pytest.approx(1) and (shares[n == 0] == 0).all() and (shares[n > 0] > 0).all()
    assert label_shares(torch.tensor(counts), 1.0) == pytest.approx(n / n.sum())
    alike = label_shares(torch.tensor(counts), 0.0)
    assert alike[n > 0] == pytest.approx(1 / (n > 0).sum())
    largest = int(n.argmax())
    assert alike[largest] <= shares[largest] + 1e-9 <= n[largest] / n.sum() + 2e-9


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_images_are_drawn_as_often_as_their_labels_shares_say(exponent: float) -> None:
    source, settings = material(), plan(batch=50, exponent=exponent)
    drawn = [source.draw(settings, step) for step in range(400)]
    positions = torch.cat([positions for positions, _, _ in drawn])
    labels = torch.cat([labels for _, labels, _ in drawn])
    assert torch.equal(source.split.labels[positions], labels)
    shares = label_shares(torch.tensor(COUNTS), exponent)
    found = labels.bincount(minlength=4).numpy()
    assert found[2] == 0 and chisquare(found[shares > 0], shares[shares > 0] * len(labels)).pvalue > 1e-4
    expected = shares[source.split.labels.numpy()] / np.array(COUNTS)[source.split.labels.numpy()]
    by_image = positions.bincount(minlength=sum(COUNTS)).numpy()
    assert chisquare(by_image, expected / expected.sum() * len(positions)).pvalue > 1e-4


def test_what_a_step_draws_depends_on_seed_and_step_alone() -> None:
    first, again, later, other = (
        material().draw(plan(seed=seed), step) for seed, step in ((3, 5), (3, 5), (3, 6), (4, 5))
    )
    assert torch.equal(first[0], again[0]) and first[2] == again[2]
    assert first[2] != later[2] and first[2] != other[2]


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    settings = plan(steps=200)
    rates = [learning_rate(settings, step) for step in range(200)]
    peak = int(np.argmax(rates))
    assert 0 < rates[0] < rates[peak] and rates[peak] == pytest.approx(1e-3) and rates[-1] < 1e-6
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_mean_is_the_exponential_mean_of_all_weights_so_far() -> None:
    run = training()
    expected = [weight.detach().clone() for weight in run.weights.values()]
    for step in range(6):
        run.advance()
        keep = ema_share(step)
        expected = [
            keep * mean + (1 - keep) * weight.detach()
            for mean, weight in zip(expected, run.weights.values(), strict=True)
        ]
    for name, mean in zip(run.weights, expected, strict=True):
        torch.testing.assert_close(run.averaged()[name], mean)
    assert ema_share(0) == 0.1 and ema_share(10**6) == fit_training.EMA_DECAY


def test_noise_levels_of_a_batch_are_spread_evenly_and_a_tenth_of_the_labels_is_hidden() -> None:
    run, hidden = training(), 0
    for step in range(200):
        run.step = step
        times, _, without = run._random(torch.Size((20, 12, 4, 4)))
        assert torch.equal((times // 50).sort().values, torch.arange(20))
        hidden += int(without.sum())
    assert 300 < hidden < 500


@pytest.mark.slow
def test_it_learns() -> None:
    run = training(steps=60, batch=8, lr=5e-3)
    losses = []
    for _ in range(6):
        for _ in range(10):
            run.advance()
        losses.append(run.told())
    assert losses[-1] < 0.85 * losses[0]


def test_a_loss_that_is_no_number_is_told() -> None:
    run = training(steps=10)
    with torch.no_grad():
        next(iter(run.weights.values())).fill_(float("nan"))
    run.advance()
    with pytest.raises(AugkitError, match=r"the loss of fit is nan at step 1: give a lower lr"):
        run.told()


def work(folder: Path, dies: int | None) -> None:
    """Learn with a checkpoint after every step; with `dies`, until so many moments of its steps and files are over."""
    torch.set_num_threads(1)
    if dies is not None:
        _die_after(dies)
    learnt.begin(folder, {"a": 1})
    run = training(steps=8)
    learning.run(run, folder, "mark", 0.0, lambda step, loss: None)
    fit_folder.finish(folder, {"a": 1}, run)


def _die_after(moments: int) -> None:
    """Kill this process before or after a step, or where a file is whole, half or not yet written."""
    advance, replace, fsync, left = Training.advance, Path.replace, os.fsync, moments

    def moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepped(self: Training) -> None:
        advance(self)
        moment()

    def replaced(self: Path, target: Any) -> Any:
        moment()
        result = replace(self, target)
        moment()
        return result

    def synced(number: int) -> None:
        os.ftruncate(number, os.fstat(number).st_size // 2) if left == 1 else None
        moment()
        fsync(number)

    Training.advance, Path.replace, os.fsync = stepped, replaced, synced  # type: ignore[method-assign,assignment]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    once, killed = tmp_path / "once", tmp_path / "killed"
    process = FORK.Process(target=work, args=(once, None))
    process.start()
    process.join()
    chance, kills = random.Random(5), 0
    while learnt.learnt(killed) is None:
        process = FORK.Process(target=work, args=(killed, chance.randint(1, 9) if kills < 12 else None))
        process.start()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
    assert kills >= 4
    assert (once / fit_folder.WEIGHTS).read_bytes() == (killed / fit_folder.WEIGHTS).read_bytes()
    assert learnt.read_note(once) == learnt.read_note(killed)
    (killed / "config.json.part").write_text("half")
    learnt.begin(killed, {"a": 1})
    assert {path.name for path in killed.iterdir()} == {path.name for path in once.iterdir()}


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    run = training(steps=2)
    learning.run(run, tmp_path, "mark", 0.0, lambda step, loss: None)
    path = tmp_path / learning.CHECKPOINT
    whole = path.read_bytes()
    with pytest.raises(StateError, match="of a training with other settings; remove it to train anew"):
        training(steps=2).load(tmp_path, "another")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StateError, match=r"not a readable safetensors file .*; remove it to train anew"):
        training(steps=2).load(tmp_path, "mark")
    path.write_bytes(b"")
    with pytest.raises(StateError, match="not a readable safetensors file"):
        training(steps=2).load(tmp_path, "mark")
    path.write_bytes(whole)
    with pytest.raises(StateError, match="lacks parts of what is learnt"):
        Training(Shape(8, 4, 32, 2), plan(steps=2), material(), torch.device("cpu")).load(tmp_path, "mark")
