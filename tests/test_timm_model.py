"""Watching a model: which answers count, copies of the model, torch.compile, loops that do unusual things."""

from __future__ import annotations

import copy
import gc
import io
import logging
import pickle
import weakref
from typing import Any

import pytest
import torch
from seam_parts import CLASSES, LEARNS, ImageSet, Net, Seer, epoch, learned, loader
from timm.task import ClassificationTask
from timm.utils import ModelEmaV3
from torch import nn

from augkit.errors import InputError, StateError
from augkit.integrations.timm import wrap
from augkit.integrations.watch import Watch, classes_of, first_answer


def seen(wrapped: Any) -> float:
    return float(wrapped.policy.statistics.seen.sum())


@pytest.mark.parametrize("shape", ["tensor", "tuple", "dict"])
def test_tuples_and_dicts_of_outputs_count_by_their_first_table(shape: str) -> None:
    model = Seer(shape=shape)
    wrapped = wrap(loader(), LEARNS, model)
    epoch(wrapped, model)
    wrapped.policy.end_epoch()
    answered, right = learned(wrapped.policy)
    assert sum(answered) == 20 and answered == right


def test_first_answer_looks_for_a_table() -> None:
    table = torch.zeros(2, 3)
    assert first_answer({"loss": torch.zeros(()), "output": (torch.zeros(2), table)}) is table
    assert first_answer([torch.zeros(1, 2, 3)]) is None and first_answer("text") is None


def test_answers_in_eval_mode_do_not_count() -> None:
    model = Seer()
    wrapped = wrap(loader(), LEARNS, model)
    for number, (images, _) in enumerate(wrapped):
        model.eval()
        model(images)
        assert seen(wrapped) == 4 * number
        model.train()
        model(images)


def test_a_second_pass_over_a_batch_does_not_count_and_parts_of_a_batch_do() -> None:
    model = Seer()
    wrapped = wrap(loader(), LEARNS, model)
    model.train()
    for images, _ in wrapped:
        model(images[:1])
        model(images[1:])
        model(images)
    assert seen(wrapped) == 20
    assert torch.equal(wrapped.policy.statistics.correct, wrapped.policy.statistics.seen)


def test_gradient_accumulation_counts_every_small_batch() -> None:
    model = Net()
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    wrapped = wrap(loader(), LEARNS, model)
    model.train()
    for number, (images, targets) in enumerate(wrapped):
        (nn.functional.cross_entropy(model(images), targets) / 2).backward()
        if number % 2 or number == len(wrapped) - 1:
            optimiser.step()
            optimiser.zero_grad()
    assert seen(wrapped) == 20


def test_an_average_of_the_model_carries_no_working_hook() -> None:
    model = Net()
    wrapped = wrap(loader(), LEARNS, model)
    average = ModelEmaV3(model, decay=0.9)
    average.module.train()
    model.train()
    for images, _ in wrapped:
        average.module(images)
        copy.deepcopy(model)(images)
        model(images)
        average.update(model)
    assert seen(wrapped) == 20


def test_a_whole_model_can_be_saved_and_its_copy_is_not_watched() -> None:
    model = Net()
    wrapped = wrap(loader(), LEARNS, model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    model.train()
    for images, _ in wrapped:
        twin.train()(images)
    assert seen(wrapped) == 0
    assert pickle.loads(pickle.dumps(model)) is not None


@pytest.mark.slow
def test_model_and_loader_do_not_keep_each_other_alive() -> None:
    model = Net()
    wrapped = wrap(loader(), LEARNS, model)
    hooks = model._forward_hooks
    assert len(hooks) == 1
    held = weakref.ref(wrapped)
    gc.disable()  # the loader must go without a collection: workers hang for ten seconds when a cycle ends them
    try:
        del wrapped
        gone_at_once = held() is None
    finally:
        gc.enable()
    assert gone_at_once and held() is None and len(hooks) == 0
    wrapped, gone = wrap(loader(), LEARNS, model), weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and len(wrapped) == 5


@pytest.mark.parametrize("order", ["compile then wrap", "wrap then compile", "in place"])
def test_torch_compile_does_not_trace_the_hook(order: str) -> None:
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    net = Net()
    model: Any = net
    if order == "compile then wrap":
        model = torch.compile(net, backend=backend, fullgraph=True)
        wrapped = wrap(loader(), LEARNS, model)
    else:
        wrapped = wrap(loader(), LEARNS, model)
        if order == "in place":
            model.compile(backend=backend)
        else:
            model = torch.compile(net, backend=backend)
    epoch(wrapped, model)
    epoch(wrapped, model)
    assert seen(wrapped) == 20 and len(wrapped.policy.history) == 1
    assert len(graphs) == 1, "one graph for all batches: nothing of the watch may be a reason to compile again"
    names = [str(node.target) for node in graphs[0].graph.nodes]
    assert not any("scatter" in name for name in names)


def test_timms_own_task_may_be_watched() -> None:
    task = ClassificationTask(Net(), nn.CrossEntropyLoss(), verbose=False)
    wrapped = wrap(loader(), LEARNS, task)
    assert wrapped.policy.num_classes == CLASSES
    for images, targets in wrapped:
        task(images, targets)["loss"].backward()
    assert seen(wrapped) == 20


def test_classes_of_looks_through_wrappers() -> None:
    assert classes_of(nn.ModuleDict({"module": Net(7)})["module"]) == 7
    assert classes_of(torch.compile(Net(7), backend="eager")) == 7
    assert classes_of(nn.Linear(2, 3)) is None and classes_of(None) is None


def test_an_epoch_without_answers_is_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    model, other = Seer(), Seer()
    wrapped = wrap(loader(), LEARNS, model)
    with caplog.at_level(logging.WARNING, logger="augkit"):
        epoch(wrapped, other)
    assert "hook never fired" in caplog.text
    with pytest.raises(StateError, match=r"epoch 0 .*never fired.*the very module that the loop calls"):
        epoch(wrapped, other)
    with pytest.raises(StateError, match="learns from the model's answers but saw none"):
        wrapped.policy.end_epoch()


def test_answers_of_another_size_are_named_in_the_complaint() -> None:
    model = Seer()
    wrapped = wrap(loader(), LEARNS, model)
    model.train()
    for images, _ in wrapped:
        model(torch.cat([images, images]))
    with pytest.raises(StateError, match="answered 8 images where the loader's batch has 4"):
        next(iter(wrapped))


def test_answers_for_other_classes_are_refused_at_once() -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(len(x), 3)

    model = Plain()
    wrapped = wrap(loader(), LEARNS, model)
    with pytest.raises(InputError, match=r"\[B, 5\]"):
        epoch(wrapped, model)


def test_a_loop_that_watches_for_itself_gets_the_labels_in_hand() -> None:
    dataset, model = ImageSet(40), Seer()
    wrapped = wrap(loader(dataset), LEARNS, None)
    for images, targets in wrapped:
        assert torch.equal(wrapped.labels, targets)
        wrapped.policy.observe(model(images), wrapped.labels)
    assert wrapped.labels is None
    wrapped.policy.end_epoch()
    answered, right = learned(wrapped.policy)
    assert sum(answered) == 40 and answered == right


def test_a_watch_without_a_batch_counts_nothing() -> None:
    model = Net()
    wrapped = wrap(loader(), LEARNS, model)
    watch = Watch(wrapped.policy, model)
    model.train()(torch.zeros(4, 3, 8, 8))
    assert watch.answers == 0 and seen(wrapped) == 0
