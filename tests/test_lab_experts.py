"""Models of several experts in the lab, and answers that a recipe judges in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Install
from torch import Tensor, nn
from torch.nn import functional

from augkit.errors import DocumentError, InputError
from augkit.lab import experts, models
from augkit.lab.data import load
from augkit.lab.loop import Training, prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.plugins import load_registry
from augkit.registry import Registry

CLASSES = 3


class Knowing(nn.Module):
    """Reads each image's class from its brightness; expert e says it of the classes in `known[e]` and else 0."""

    def __init__(self, known: list[list[int]], form: str) -> None:
        super().__init__()
        self.known, self.form = known, form
        self.certainty = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Any:
        truth = (images.mean((1, 2, 3)) * 255 / 20).round().long()
        said = [truth * torch.isin(truth, torch.tensor(known)) for known in self.known]
        logits = [self.certainty * functional.one_hot(one, CLASSES).float() for one in said]
        return {"tuple": tuple(logits), "stacked": torch.stack(logits, 1), "single": logits[0], "none": {}}[self.form]


@models.register_model
def knowing_experts(
    pretrained: bool = False, known: Any = None, form: str = "tuple", num_classes: int = CLASSES, **_: Any
) -> nn.Module:
    return Knowing(known or [[1, 2], [1], [1, 2]], form)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Images of 20 times their class."""
    labels = np.repeat(np.arange(CLASSES), [12, 8, 6])
    images = np.broadcast_to((20 * labels).astype(np.uint8)[:, None, None, None], (len(labels), 8, 8, 3))
    path = tmp_path / "bright.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return path


COUNTED = """augkit: 1
name: counted
state: {right: {axes: [classes], init: 0}}
probes: {answers: {upto: 0, level: 0}}
pipeline: []
update: [{at: epoch_end, set: {right: "sum(answers.correct, over=levels) / sum(answers.drawn, over=levels)"}}]
"""


def made(source: Path, found: Registry, policy: str = "none", **more: Any) -> Training:
    """A run of the knowing model on those images, before its first step."""
    recipe: dict[str, Any] = {
        "augkit": 1,
        "name": "experts",
        "data": {"source": str(source), "mean": [0, 0, 0], "std": [1, 1, 1]},
        "model": {"name": "knowing_experts", "options": more.pop("model", {})},
        "optimizer": {"name": "momentum", "lr": 1e-4},
        "policy": policy,
        "epochs": 3,
        "batch_size": 8,
        **more,
    }
    read = load_recipe(recipe, found)
    return prepare(read, load(read.data), found, torch.device("cpu"))


def state(run: Training, name: str) -> list[float]:
    (found,) = [values[name] for values in run.policy.memory.values.values() if name in values]
    return found.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", ["tuple", "stacked"])
def test_experts_train_on_the_sum_of_their_losses_and_answer_by_their_mean(form: str, source: Path) -> None:
    run = made(source, load_registry(plugins=False), model={"form": form})
    images = next(run.data.train.batches([torch.arange(26)]))
    output = experts.stacked(run.model(run.normalise(images)))
    assert output.shape == (26, 3, CLASSES)
    targets = run.data.train.labels
    alone = [functional.cross_entropy(one, targets) for one in output.unbind(1)]
    assert torch.allclose(run.loss(output, targets, torch.arange(26)), sum(alone, torch.zeros(())))
    assert run.evaluate(run.data.test)[0].by_class() == [1, 1, 1]  # two of three know class 2
    record = train_epoch(run)
    assert record["train_accuracy"] == 1 and record["loss"] == pytest.approx(
        float(torch.stack(alone).sum().detach()), rel=0.2
    )
    assert run.model.certainty.grad is not None  # type: ignore[union-attr]


def test_a_single_expert_is_an_ordinary_model(source: Path) -> None:
    run = made(source, load_registry(plugins=False), model={"form": "single"})
    assert train_epoch(run)["train_accuracy"] == 1
    assert run.evaluate(run.data.test)[0].by_class() == [1, 1, 1]


def test_a_loss_may_ask_for_all_experts(source: Path) -> None:
    met: list[tuple[int, ...]] = []

    def diverse(logits: Tensor, targets: Tensor, *, experts: Tensor, factor: float = 0.2) -> Tensor:
        met.extend([tuple(logits.shape[1:]), tuple(experts.shape[1:])])
        return functional.cross_entropy(logits, targets) - factor * experts.var(1, correction=0).mean()

    found = load_registry(plugins=False)
    found = replace(found, losses={**found.losses, "diverse": diverse})
    train_epoch(made(source, found, loss={"name": "diverse", "factor": 0.1}))
    assert set(met) == {(CLASSES,), (3, CLASSES)}
    met.clear()
    train_epoch(made(source, found, loss="diverse", model={"form": "single"}))
    assert set(met) == {(CLASSES,), (1, CLASSES)}


def test_other_outputs_are_refused_by_name(source: Path) -> None:
    with pytest.raises(DocumentError, match=r"gives no \[images, 3\] logits"):
        made(source, load_registry(plugins=False), model={"form": "none"})
    with pytest.raises(InputError, match=r"not with \(4, 3\), \(4, 5\)"):
        experts.stacked((torch.zeros(4, 3), torch.zeros(4, 5)))


def test_what_is_right_is_a_function_that_anybody_brings(source: Path, install: Install, tmp_path: Path) -> None:
    install(
        "augkit-stern",
        """
        import augkit

        def stern(output, targets, *, class_counts, rarest: bool = True):
            "Right in the rarest class alone, or in all others."
            return (targets == class_counts.argmin()) == rarest

        @augkit.hookimpl
        def augkit_answers():
            return {"stern": stern}
        """,
    )
    found = load_registry()
    document = tmp_path / "counted.yaml"
    document.write_text(COUNTED)
    expected: Mapping[Any, list[float]] = {
        "top1": [1, 1, 1],
        "stern": [0, 0, 1],
        ("stern", False): [1, 1, 0],
    }
    for name, right in expected.items():
        answer = name if isinstance(name, str) else {"name": name[0], "rarest": name[1]}
        run = made(source, found, str(document), answer=answer)
        train_epoch(run)
        assert state(run, "right") == right


SAYS = {
    "prior_corected": (["answer=prior_corected"], r'there is no answer "prior_corected" here\..*top1'),
    "an option": (["answer={name: top1, tau: 1}"], r"answer\.tau: there is no option"),
}


@pytest.mark.parametrize("case", SAYS)
def test_an_unknown_answer_is_an_error_that_names_those_there_are(case: str) -> None:
    overrides, says = SAYS[case]
    with pytest.raises(DocumentError, match=says):
        load_recipe("demo", load_registry(plugins=False), overrides)


def test_a_recipe_without_the_later_fields_is_what_it_was_before_there_were_such() -> None:
    found = load_registry(plugins=False)
    plain = load_recipe("demo", found)
    assert not {"answer", "compile", "executor"} & plain.model_dump(mode="json").keys()
    assert load_recipe("demo", found, ["answer=top1", "compile=false", "executor=auto"]).hash == plain.hash
    for override in ("compile=true", "executor=batched"):
        other = load_recipe("demo", found, [override])
        assert other.hash != plain.hash and override.partition("=")[0] in other.model_dump(mode="json")
