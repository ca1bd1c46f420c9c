"""The Policy: clear refusals of wrong input, and what a document asks of its loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from policy_parts import COUNTS, LEARNER, PICK, answers, batch

from augkit import AugkitError, Output, Policy
from augkit.errors import DocumentError, InputError, StateError


def test_a_document_that_learns_refuses_to_run_unwatched() -> None:
    policy = Policy.load(LEARNER, class_counts=COUNTS)
    images, targets, _ = batch(8)
    policy(images, targets)
    with pytest.raises(StateError, match="saw none in epoch 0"):
        policy.end_epoch()


def test_val_answers_are_required_and_counted() -> None:
    document = {
        "augkit": 1,
        "name": "val",
        "state": {"s": {"axes": ["classes"], "clamp": [0, 1]}},
        "pipeline": [{"hflip": {"p": "s[y]"}}],
        "update": [{"at": "epoch_end", "set": {"s": "where(val_seen > 0, val_correct / val_seen, 0)"}}],
    }
    policy = Policy.load(document, class_counts=COUNTS)
    images, targets, _ = batch(8)
    policy(images, targets)
    with pytest.raises(StateError, match="val answers"):
        policy.end_epoch()
    labels = torch.tensor([0, 0, 1, 2])
    policy.observe(answers(labels, torch.tensor([True, False, True, False])), labels, split="val")
    policy.end_epoch()
    assert policy.state["s"].tolist() == [0.5, 1.0, 0.0]
    assert not policy.warnings, "a division that is guarded by where is no reason to warn"


def test_wrong_arguments_of_load_and_observe() -> None:
    for counts in ("abc", [1.5, 2.0], [0, 0], [-1, 3], {0: 1, 2: 3}):
        with pytest.raises(InputError, match="class_counts"):
            Policy.load("none", class_counts=counts)
    assert Policy.load("none", class_counts={1: 4, 0: 3}).facts.counts.tolist() == [3, 4]
    with pytest.raises(InputError, match="seed"):
        Policy.load("none", seed=1.5)
    for device in ("gpu", "cuda:99"):
        with pytest.raises(InputError, match="device"):
            Policy.load("none", device=device)
    with pytest.raises(InputError, match="label_smoothing"):
        Policy.load("mixup", class_counts=COUNTS, label_smoothing=2)
    policy = Policy.load("randaugment", class_counts=COUNTS)
    with pytest.raises(StateError, match="no stored state"):
        policy.load_state_dict(5)
    images, targets, _ = batch(4)
    policy(images, targets)
    with pytest.raises(InputError, match="needs targets="):
        policy.observe(torch.zeros(4, 3), split="val")
    with pytest.raises(InputError, match="must be a tensor"):
        policy(images.numpy(), targets)
    with pytest.raises(InputError, match="no image 4"):
        policy.last_plan.describe(4)


@pytest.mark.parametrize("plan", [3, None, {"choice": 1}])
def test_what_is_no_plan_is_refused(plan: Any) -> None:
    with pytest.raises(InputError, match=r"expected a plan, as policy\.plan"):
        Policy.load("none").apply(torch.zeros(2, 3, 4, 4), plan)


def test_what_is_no_output_is_refused() -> None:
    out: Any = torch.float32
    with pytest.raises(InputError, match=r"out must be an Output, .* not torch\.float32"):
        Policy.load("none", out=out)


@pytest.mark.parametrize("document", ["randaugment", "none"])
def test_a_batch_with_channels_last_is_told_so_whatever_the_output(document: str) -> None:
    policy = Policy.load(document, class_counts=COUNTS, out=Output(mean=(0.5,) * 3, std=(0.5,) * 3))
    targets = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match=r"3 means but images have 64 channels; .*looks like \[B, H, W, C\]: permute"):
        policy(torch.zeros(2, 64, 64, 3), targets)
    assert policy.batch == 0  # refused before anything was drawn or counted
    with pytest.raises(InputError, match="but images have 5 channels; give a mean and a deviation for each channel"):
        policy.apply(torch.zeros(2, 5, 64, 64), policy.plan(targets))


WRONG: list[tuple[Any, dict[str, Any], type[AugkitError], str]] = [
    (torch.zeros(2, 3, 4, 4) + 7, {}, InputError, "0..1"),
    (torch.full((2, 3, 4, 4), float("nan")), {}, InputError, "0..1"),
    (torch.zeros(2, 5, 4, 4), {}, InputError, "red, green and blue but these have 5 channels"),
    (torch.zeros(2, 4, 4), {}, InputError, r"\[B, C, H, W\]"),
    (torch.zeros(3, 4, 4), {}, InputError, r"\(3, 4, 4\); images\[None\] makes a batch"),
    (torch.zeros(2, 8, 9, 3), {}, InputError, r"\[2, 8, 9, 3\] looks like \[B, H, W, C\]"),
    (torch.zeros(2, 3, 4, 4, dtype=torch.int32), {}, InputError, "uint8"),
    (torch.zeros(2, 3, 4, 4), {"targets": torch.tensor([0, 3])}, InputError, "class 3"),
    (torch.zeros(2, 3, 4, 4), {"targets": torch.tensor([0, -1])}, InputError, "class -1"),
    (torch.zeros(2, 3, 4, 4), {"targets": torch.zeros(2, 3)}, InputError, "dense"),
    (torch.zeros(3, 3, 4, 4), {}, InputError, "3 entries"),
    (torch.zeros(2, 3, 4, 4, device="meta"), {}, InputError, "meta"),
    (torch.zeros(2, 3, 4, 4), {"index": torch.tensor([0.0, 1.0])}, InputError, "int64"),
    (torch.zeros(2, 3, 4, 4), {"index": torch.tensor([[0], [1]])}, InputError, "int64"),
    (torch.zeros(2, 3, 4, 4), {"index": torch.tensor([0, 2 * 10**9])}, InputError, "outside"),
    (torch.zeros(2, 3, 4, 4), {"index": torch.tensor([0])}, InputError, "1 entries"),
]


@pytest.mark.parametrize(("images", "extra", "error", "match"), WRONG)
def test_wrong_input_is_one_clear_sentence(
    images: torch.Tensor, extra: dict[str, Any], error: type[AugkitError], match: str
) -> None:
    policy = Policy.load("randaugment", class_counts=COUNTS)
    with pytest.raises(error, match=match) as caught:
        policy(images, extra.get("targets", torch.zeros(2, dtype=torch.int64)), index=extra.get("index"))
    assert "\n" not in str(caught.value)


def test_what_a_document_needs_is_asked_for_at_load() -> None:
    needs = {**PICK, "pipeline": [{"pick": {"p": "epoch / epochs"}}]}
    with pytest.raises(DocumentError, match="epochs="):
        Policy.load(needs)
    with pytest.raises(DocumentError, match="class_counts="):
        Policy.load(LEARNER)
    with pytest.raises(DocumentError, match="class_counts="):
        Policy.load("mixup")
    with pytest.raises(InputError, match="2 classes but class_names has 3"):
        Policy.load("randaugment", class_counts=[1, 2], class_names=["a", "b", "c"])


def test_state_of_another_document_is_refused() -> None:
    policy = Policy.load(LEARNER, class_counts=COUNTS)
    with pytest.raises(StateError, match="another document"):
        Policy.load(PICK, class_counts=COUNTS).load_state_dict(policy.state_dict())
    for counts in ([1, 2, 3, 4], COUNTS[::-1]):
        with pytest.raises(StateError, match="another data set"):
            Policy.load(LEARNER, class_counts=counts).load_state_dict(policy.state_dict())


def test_state_with_other_columns_of_operators_is_refused() -> None:
    policy = Policy.load(LEARNER, class_counts=COUNTS)
    state = policy.state_dict()
    state["statistics"]["sums"]["used"] = state["statistics"]["sums"]["used"][:, 1:]
    with pytest.raises(StateError, match="another version of augkit"):
        policy.load_state_dict(state)


def test_state_that_becomes_infinite_stops_with_the_rule() -> None:
    runaway = {**LEARNER, "update": [{"at": "epoch_end", "set": {"previous": "exp(1000 + epoch) * class_count"}}]}
    policy = Policy.load(runaway, class_counts=COUNTS)
    with pytest.raises(StateError, match=r"update\[0\].set.previous"):
        policy.end_epoch()
