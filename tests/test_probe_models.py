"""Probes ask the model as the loop would, and leave it, its pool and its loop alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from probe_parts import (
    CLASSES,
    CURRICULUM,
    MIXED,
    SHIFTS,
    Oracle,
    asked,
    epochs,
    images,
    load,
)
from torch import Tensor, nn

from augkit.errors import InputError, StateError
from augkit.integrations.watch import Watch
from augkit.learning.probe_pool import ProbePool, rows_within


def test_modes_gradients_statistics_and_hooks_are_left_alone() -> None:
    oracle = Oracle(MIXED)
    policy = asked(SHIFTS, oracle)
    watch = Watch(policy, oracle)
    watch.expect(torch.zeros(500, dtype=torch.int64))
    before = {name: value.clone() for name, value in oracle.state_dict().items()}
    random = torch.get_rng_state()
    oracle.train()
    oracle.frozen.eval()
    policy.begin_epoch()
    assert oracle.training and oracle.norm.training and not oracle.frozen.training
    assert all(torch.equal(before[name], value) for name, value in oracle.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert watch.answers == 0 and policy.statistics.seen.sum() == 0 and policy.statistics.used.sum() == 0
    assert torch.is_grad_enabled() and oracle.norm.weight.grad is None


def test_modes_come_back_when_the_model_fails_and_the_epoch_can_begin_again() -> None:
    class Fails(Oracle):
        fails = True

        def forward(self, x: Tensor) -> Tensor:
            if self.fails and len(self.sizes) == 1:
                raise RuntimeError("out of memory")
            return super().forward(x)

    model = Fails(torch.ones(CLASSES, 11))
    policy = asked(SHIFTS, model, batch=16)
    with pytest.raises(RuntimeError, match="out of memory"):
        policy.begin_epoch()
    assert model.training and not model.frozen.training and torch.is_grad_enabled() and not policy.began
    model.fails = False
    assert epochs(policy, 2)[-1] == [2] * CLASSES


def test_the_model_is_asked_as_the_loop_would() -> None:
    seen: list[Tensor] = []

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), CLASSES)

    contexts = []

    class Context:
        def __enter__(self) -> None:
            contexts.append("in")

        def __exit__(self, *error: object) -> None:
            contexts.append("out")

    policy = load(SHIFTS)
    policy.attach_model(Looks(), ProbePool(*images()), lambda x: x.double() + 1000, autocast=Context)
    policy.begin_epoch()
    assert seen[0].dtype == torch.float64 and seen[0].min() >= 1000 and contexts == ["in", "out"]
    policy = load(SHIFTS)
    policy.attach_model(nn.Identity(), ProbePool(*images()))
    with pytest.raises(InputError, match=r"the model must answer \[40, C\] logits"):
        policy.begin_epoch()


def test_a_plain_loop_is_told_in_one_sentence() -> None:
    policy = load(CURRICULUM)
    batch = images()
    with pytest.raises(StateError, match=r'strategy "curriculum" asks the model at each epoch.*attach_model') as caught:
        policy(*batch)
    assert "\n" not in str(caught.value)
    with pytest.raises(StateError):
        policy.begin_epoch()
    policy.attach_model(Oracle(torch.ones(CLASSES, 11)), ProbePool(*batch), answer=lambda o, t: t >= 0)
    policy(*batch)
    assert policy.state["depth"].tolist() == [1] * CLASSES and policy.asked is not None


def test_pools() -> None:
    made, labels = images()
    with pytest.raises(InputError, match="uint8"):
        ProbePool(made.float(), labels)
    with pytest.raises(InputError, match="labels must be class numbers"):
        ProbePool(made, labels[:-1])
    with pytest.raises(InputError, match="holds class 3, but the policy was loaded with 3 classes"):
        load(CURRICULUM, class_counts=[20] * 3).attach_model(nn.Identity(), ProbePool(made, labels))
    policy = load(SHIFTS, class_counts=[20, 20, 20, 20, 0])
    policy.attach_model(nn.Identity(), ProbePool(made, labels, of=200), answer=lambda output, targets: targets >= 0)
    assert policy.warnings[0].startswith("probes draw from 80 of the 200 training images")
    policy.begin_epoch()
    assert policy.memory.asked()["answers.drawn"][:, 0].tolist() == [10, 10, 10, 10, 0]


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(1, 60))
def test_a_pool_with_too_little_room_holds_alike_of_each_class(labels: list[int], most: int) -> None:
    given_labels = torch.tensor(labels)
    counts = torch.bincount(given_labels)
    if len(labels) > most and most < int((counts > 0).sum()):
        with pytest.raises(InputError, match="there is room for"):
            rows_within(given_labels, most)
        return
    rows = rows_within(given_labels, most)
    held = torch.bincount(given_labels[rows], minlength=len(counts))
    assert len(rows) <= most and len(rows.unique()) == len(rows)
    if len(labels) > most:
        quota = int(held.max())
        assert torch.equal(held, counts.clamp(max=quota)) and int(counts.clamp(max=quota + 1).sum()) > most
