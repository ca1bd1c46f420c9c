"""RIDE: experts behind shared stages, the loss that drives them apart, and learning from a finished run."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run_parts import QUICK, small
from torch import Tensor, nn

from augkit.errors import DocumentError, StateError
from augkit.lab import folder as files
from augkit.lab import models, optimise
from augkit.lab.data import load
from augkit.lab.expert_models import Experts
from augkit.lab.heads import last_layer
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.lab.ride import Ride
from augkit.lab.run import train
from augkit.lab.training import Training
from augkit.registry import Registry

RIDE = ("model={name: resnet8_cifar, experts: 3}", "loss=ride", "policy=none")


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def begun(registry: Registry, *overrides: str) -> Training:
    recipe = small(registry, *overrides)
    return prepare(recipe, load(recipe.data), registry, torch.device("cpu"))


def cifar_block(before: int, width: int) -> int:
    return 9 * before * width + 9 * width * width + 4 * width


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.sampled_from([0.25, 0.5, 0.75, 1.0]), st.integers(2, 12))
def test_experts_of_a_cifar_network_have_the_weights_that_they_should(experts: int, width: float, classes: int) -> None:
    model = models.create("resnet8_cifar", classes, {}, 0, experts=experts, expert_width=width)
    second, third = round(32 * width), round(64 * width)
    shared = 3 * 16 * 9 + 2 * 16 + cifar_block(16, 16)
    own = cifar_block(16, second) + cifar_block(second, third) + third * classes + classes
    assert count(model) == shared + experts * own
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, experts, classes)


def bottlenecks(before: int, planes: int, blocks: int, cardinality: int, base_width: int) -> int:
    """Weights of a stage: each block with three convolutions and norms, the first with a shortcut of its own."""
    width, out, total = planes * base_width // 64 * cardinality, 4 * planes, 0
    for block in range(blocks):
        given = before if block == 0 else out
        total += given * width + 9 * width * width // cardinality + width * out + 2 * (width + width + out)
        total += given * out + 2 * out if block == 0 else 0
    return total


@pytest.mark.parametrize(("name", "cardinality", "base_width"), [("resnet50", 1, 64), ("resnext50_32x4d", 32, 4)])
def test_experts_of_a_timm_resnet_have_the_published_widths(name: str, cardinality: int, base_width: int) -> None:
    with torch.device("meta"):
        model = models.create(name, 1000, {}, 0, experts=3)
    shared = 3 * 64 * 49 + 2 * 64 + bottlenecks(64, 64, 3, cardinality, base_width)
    shared += bottlenecks(256, 128, 4, cardinality, base_width)
    own = bottlenecks(512, 192, 6, cardinality, base_width) + bottlenecks(768, 384, 3, cardinality, base_width)
    assert count(model) == shared + 3 * (own + 1536 * 1000 + 1000)


@pytest.mark.parametrize("name", ["resnet8_cifar", "resnet10t", "test_resnet"])
def test_one_expert_of_full_width_is_the_network_itself(name: str) -> None:
    plain = models.create(name, 5, {}, 0).eval()
    model = models.create(name, 5, {}, 1, experts=1, expert_width=1.0).eval()
    model.load_state_dict({k: plain.state_dict()[k.removeprefix("trunk.").removeprefix("experts.0.")]
                           for k in model.state_dict()})  # fmt: skip
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(model(images)[:, 0], plain(images))


def test_the_trunk_runs_once_and_every_expert_learns() -> None:
    model = models.create("resnet10t", 5, {}, 0, experts=4)
    assert isinstance(model, Experts)
    calls: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    answers = model(torch.randn(2, 3, 32, 32))
    assert len(calls) == len(set(calls)) == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert len({tuple(one.flatten().tolist()) for one in answers.unbind(1)}) == 4  # each has weights of its own


def test_every_expert_and_the_trunk_get_gradients() -> None:
    model = models.create("resnet8_cifar", 5, {}, 0, experts=4)
    answers = model(torch.randn(8, 3, 16, 16))
    loss = Ride(class_counts=torch.tensor([9.0, 5, 4, 3, 1]), epochs=10, base="ce")
    reckoned(loss, answers, torch.arange(8) % 5, 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_each_expert_has_a_last_layer_that_may_be_replaced() -> None:
    model = models.create("resnet8_cifar", 5, {}, 0, experts=3)
    models.give_cosines(model)
    assert isinstance(model, Experts)
    assert [type(head) for head in model.get_classifier()] == [models.CosineHead] * 3
    assert len(list(last_layer(model).parameters())) == 3
    assert model(torch.randn(2, 3, 16, 16)).abs().max() <= 1.0001
    model.reset_classifier(0)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 3, model.num_features) == (2, 3, 48)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("{name: vit_tiny_patch16_224, experts: 3}", r"model\.experts: VisionTransformer cannot be divided"),
        ("{name: resnet10t, experts: 3, options: {pretrained: true}}", r"model\.expert_width: pretrained weights fit"),
        ("{name: resnet32_cifar, experts: 0}", r"model\.experts: .*greater than or equal to 1"),
        ("{name: resnet32_cifar, experts: 2, expert_width: 0}", r"model\.expert_width: .*greater than 0"),
    ],
)
def test_what_cannot_have_experts_is_refused(told: str, says: str, registry: Registry) -> None:
    with pytest.raises(DocumentError, match=says):
        begun(registry, f"model={told}")


# The loss, written out in float64.


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def of_an_expert(base: str, z: np.ndarray, labels: np.ndarray, counts: np.ndarray, late: bool) -> float:
    rows, weights = np.arange(len(labels)), np.ones(len(counts))
    if late and base in ("ldam_drw", "ce_drw"):
        weights = (1 - 0.9999) / (1 - 0.9999**counts)
        weights = weights / weights.sum() * len(counts)
    z = z.copy()
    if base == "ldam_drw":
        margins = counts**-0.25
        z[rows, labels] -= 30 * 0.5 * (margins / margins.max())[labels]
    if base == "balanced_softmax":
        z = z + np.log(counts / counts.sum())
    losses = -np.log(softmax(z)[rows, labels])
    return float((losses * weights[labels]).sum() / weights[labels].sum())


def temperatures(counts: np.ndarray, temperature: float, factor: float, late: bool) -> np.ndarray:
    each = factor * len(counts) * counts / counts.sum() + 1 - factor
    return np.asarray(temperature * each / each.max()) if late else np.full(len(counts), temperature)


def written_out(
    given: np.ndarray, labels: np.ndarray, counts: np.ndarray, late: bool, base: str, told: dict[str, float]
) -> float:
    z = given * (30 if base == "ldam_drw" else 1)
    t = temperatures(counts, told["temperature"], told["reweight_factor"], late)
    mean, total = softmax(z.mean(1) / t), 0.0
    for e in range(z.shape[1]):
        apart = (mean * np.log(mean / softmax(z[:, e] / t))).sum() / len(z)
        total += of_an_expert(base, z[:, e], labels, counts, late) + told["diversity_factor"] * t.mean() ** 2 * apart
    return float(total)


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What experts gave [B, E, C], as cosines; labels [B]; class counts [C]."""
    images, experts, classes = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(2, 6))
    random = np.random.RandomState(draw(st.integers(0, 10_000)))
    counts = np.sort(random.randint(1, 600, classes))[::-1].astype(float)
    return random.uniform(-1, 1, (images, experts, classes)), random.randint(0, classes, images), counts


OPTIONS = st.fixed_dictionaries(
    {
        "diversity_factor": st.sampled_from([-0.45, -0.2, 0.0, 0.3]),
        "temperature": st.sampled_from([0.5, 1.0, 2.0]),
        "reweight_factor": st.sampled_from([0.0, 0.02, 0.05, 0.5]),
    }
)


def reckoned(loss: Ride, given: Tensor, targets: Tensor, epoch: int) -> Tensor:
    return loss(given.mean(1), targets, experts=given, epoch=epoch, inputs=torch.zeros(0))


@settings(max_examples=80, deadline=None)
@given(batches(), st.sampled_from(["ldam_drw", "ce", "ce_drw", "balanced_softmax"]), OPTIONS, st.booleans())
def test_the_loss_is_the_authors(batch: Any, base: Any, told: dict[str, float], late: bool) -> None:
    given, labels, counts = batch
    loss = Ride(class_counts=torch.from_numpy(counts), epochs=200, base=base, **told)  # type: ignore[arg-type]
    found = reckoned(loss, torch.from_numpy(given), torch.from_numpy(labels), 160 if late else 159)
    # priors and weights of the losses beneath are float32
    assert float(found) == pytest.approx(written_out(given, labels, counts, late, base, told), rel=1e-5, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(batches(), st.booleans(), st.randoms(use_true_random=False))
def test_experts_are_rewarded_for_being_apart_and_none_is_special(batch: Any, late: bool, random: Any) -> None:
    given, labels, counts = (torch.from_numpy(part.copy()) for part in batch)
    loss, epoch = Ride(class_counts=counts, epochs=10), 9 if late else 0
    assert float(loss.diversity(given, epoch)) >= -1e-9
    alike = given[:, :1].expand_as(given)
    assert float(loss.diversity(alike, epoch)) == pytest.approx(0, abs=1e-9)
    order = random.sample(range(given.shape[1]), given.shape[1])
    assert torch.allclose(reckoned(loss, given[:, order], labels, epoch), reckoned(loss, given, labels, epoch))
    shares = nn.functional.one_hot(labels, len(counts)).double()
    assert torch.allclose(reckoned(loss, given, shares, epoch), reckoned(loss, given, labels, epoch))


@settings(max_examples=20, deadline=None)
@given(batches(), OPTIONS, st.booleans())
def test_the_mean_is_a_mark_that_does_not_move(batch: Any, told: dict[str, float], late: bool) -> None:
    """So the slope of each expert's part is (its softmax - the mean's) / temperature, and nothing else."""
    given, _, counts = batch
    loss = Ride(class_counts=torch.from_numpy(counts), epochs=10, base="ce", **told)  # type: ignore[arg-type]
    z = torch.from_numpy(given).requires_grad_()
    loss.diversity(z, 9 if late else 0).backward()
    t = temperatures(counts, told["temperature"], told["reweight_factor"], late)
    expected = t.mean() ** 2 * (softmax(given / t) - softmax(given.mean(1, keepdims=True) / t)) / t / len(given)
    assert z.grad is not None and np.allclose(z.grad.numpy(), expected, atol=1e-9)


def test_the_published_recipe_is_what_was_published(registry: Registry) -> None:
    recipe = load_recipe("cifar100-lt-ride", registry)
    model = models.made(recipe, 100, registry)
    assert isinstance(model, Experts) and len(model.experts) == 3
    shared = 3 * 16 * 9 + 2 * 16 + 5 * cifar_block(16, 16)
    own = cifar_block(16, 24) + 4 * cifar_block(24, 24) + cifar_block(24, 48) + 4 * cifar_block(48, 48)
    assert count(model) == shared + 3 * (own + 48 * 100)  # last layers of cosines have no bias
    (group,) = optimise.optimizer(recipe.optimizer, model).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.9, 5e-4, True)
    loss = Ride(class_counts=torch.full((100,), 9.0), epochs=recipe.epochs)
    assert (recipe.loss.options, loss.diversity_factor, loss.scale) == ({}, -0.45, 30)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "base"), [("resnet8_cifar", "ldam_drw"), ("test_resnet", "balanced_softmax")])
def test_any_resnet_learns_with_experts(model: str, base: str, registry: Registry) -> None:
    told = (f"model={{name: {model}, experts: 3}}", f"loss={{name: ride, base: {base}}}", "data.test_share=0.5")
    run = begun(registry, *told, "policy=none", "epochs=4", "stages=[train, {retrain_head: {epochs: 1}}]")
    cosines = [isinstance(module, models.CosineHead) for module in run.model.modules()]
    assert sum(cosines) == (3 if base == "ldam_drw" else 0)
    losses = [train_epoch(run)["loss"] for _ in range(4)]
    assert losses[2] < losses[0] and run.evaluate(run.data.test)[0].accuracy > 0.3  # chance is a tenth
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    train_epoch(run)
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(".fc." in name for name in moved)


@pytest.mark.slow
def test_a_loss_says_by_its_options_whether_it_is_for_cosines(registry: Registry) -> None:
    stages = "stages=[train, {finetune_head: {loss: ce}}]"
    with pytest.raises(DocumentError, match=r'"ride" is made for a last layer of cosines and "ce" is not'):
        begun(registry, *RIDE, stages)
    begun(registry, *RIDE, "loss={name: ride, base: ce_drw}", stages)


# Learning from a finished run.


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """A run of five experts."""
    told = [*QUICK, *RIDE, "model.experts=5", "epochs=1"]
    return train("demo", told, tmp_path_factory.mktemp("teacher") / "run", registry=registry)


def test_a_student_learns_from_its_teacher_and_the_teacher_does_not(teacher: Path, registry: Registry) -> None:
    run = begun(registry, *RIDE, f"loss={{name: ride, teacher: {teacher}, distill_factor: 0.5}}")
    loss = run.stage.loss.function
    assert isinstance(loss, Ride) and loss.teacher is not None
    stored = files.load_checkpoint(teacher)
    assert stored is not None
    inputs = run.normalise(next(run.data.train.batches([torch.arange(6)])))
    targets, given = run.data.train.labels[:6], torch.rand(6, 3, 10) * 2 - 1
    plain = Ride(class_counts=run.stage.class_counts, epochs=2)
    with torch.no_grad():
        taught = softmax(loss.teacher(inputs).double().mean(1).numpy() * 30 / 1.5)
    student = softmax(given.double().mean(1).numpy() * 30 / 1.5)
    apart = 1.5**2 * float((taught * np.log(taught / student)).sum()) / 6
    expected = 3 * (float(reckoned(plain, given, targets, 0)) + 0.5 * apart)
    found = loss(given.mean(1), targets, experts=given, epoch=0, inputs=inputs)
    assert float(found) == pytest.approx(expected, rel=1e-4)

    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    train_epoch(run)
    assert all(torch.equal(value, stored["model"][name]) for name, value in loss.teacher.state_dict().items())
    assert not any(torch.equal(value, before[name]) for name, value in run.model.state_dict().items() if "conv" in name)
    assert run.state_dict()["model"].keys() == before.keys()
    assert [len(value) for value in run.state_dict()["loss"].values()] == [64]  # of the teacher no more than its hash
    learning = sum(p.numel() for group in run.optimizer.param_groups for p in group["params"])
    assert learning == count(run.model)


@pytest.mark.slow
def test_a_student_is_resumed_to_the_last_bit(teacher: Path, registry: Registry) -> None:
    told = (*RIDE, f"loss={{name: ride, teacher: {teacher}}}", "policy=mixup")
    whole = begun(registry, *told)
    train_epoch(whole)
    buffer = io.BytesIO()
    torch.save(whole.state_dict(), buffer)
    train_epoch(whole)
    torch.manual_seed(999)
    resumed = begun(registry, *told)
    resumed.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert train_epoch(resumed)["loss"] == whole.records[1]["loss"]
    there = resumed.model.state_dict()
    assert all(torch.equal(value, there[name]) for name, value in whole.model.state_dict().items())


@pytest.mark.slow
def test_another_teacher_in_the_same_folder_is_refused(teacher: Path, tmp_path: Path, registry: Registry) -> None:
    folder = shutil.copytree(teacher, tmp_path / "T")
    told = (*RIDE, f"loss={{name: ride, teacher: {folder}}}")
    state = begun(registry, *told).state_dict()
    begun(registry, *told).load_state_dict(state)
    other = torch.load(folder / files.CHECKPOINT, weights_only=True)
    next(iter(other["model"].values())).mul_(2)
    torch.save(other, folder / files.CHECKPOINT)
    with pytest.raises(StateError, match=r"T: the model in this folder is another than the one that taught the run"):
        begun(registry, *told).load_state_dict(state)


@pytest.mark.slow
def test_a_teacher_answers_in_the_precision_that_the_student_has(teacher: Path, registry: Registry) -> None:
    for precision, kind in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        run = begun(registry, *RIDE, f"loss={{name: ride, teacher: {teacher}}}", f"precision={precision}")
        found: list[torch.dtype] = []
        first = next(part for part in run.stage.loss.function.teacher.modules() if isinstance(part, nn.Conv2d))
        first.register_forward_hook(lambda *said, to=found: to.append(said[2].dtype))
        inputs, where = run.normalise(next(run.data.train.batches([torch.arange(6)]))), torch.arange(6)
        assert run.answer(inputs, run.data.train.labels[:6], where)[1].isfinite()
        assert found == [kind]


@pytest.mark.slow
def test_a_single_expert_is_not_driven_apart(teacher: Path, registry: Registry) -> None:
    single = ("model=resnet8_cifar", "policy=none")
    with pytest.raises(DocumentError, match=r'^loss: "ride" drives experts apart, and this model has a single one'):
        begun(registry, *single, "loss=ride")
    with pytest.raises(DocumentError, match=r'^stages\[1\]\.loss: "ride" drives'):
        begun(registry, *single, "stages=[train, {train: {loss: {name: ride, base: ce}}}]")
    begun(registry, *single, f"loss={{name: ride, diversity_factor: 0, teacher: {teacher}}}")


@pytest.mark.slow
def test_a_teacher_that_cannot_teach_is_refused(teacher: Path, tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / files.RECIPE).write_bytes((teacher / files.RECIPE).read_bytes())
    for path in (tmp_path / "nothing", tmp_path / "begun"):
        with pytest.raises(DocumentError, match=r"loss\.teacher: .* is no finished run"):
            begun(registry, *RIDE, f"loss={{name: ride, teacher: {path}}}")
    arrays = {"train_images": np.zeros((8, 16, 16, 3), np.uint8), "train_labels": np.arange(8) % 3}
    arrays |= {"test_images": arrays["train_images"], "test_labels": arrays["train_labels"]}
    np.savez(tmp_path / "three.npz", **arrays)  # type: ignore[arg-type]
    other = f"data={{source: {tmp_path / 'three.npz'}}}"
    with pytest.raises(DocumentError, match=r"loss\.teacher: the model of .* is another one: 5 of its weights"):
        begun(registry, *RIDE, f"loss={{name: ride, teacher: {teacher}}}", other)
    late = f"stages=[train, {{train: {{loss: {{name: ride, teacher: {tmp_path / 'nothing'}}}}}}}]"
    with pytest.raises(DocumentError, match=r"^stages\[1\]\.loss\.teacher: .* is no finished run"):
        begun(registry, *RIDE, late)


def test_a_teacher_is_found_beside_the_recipe(teacher: Path, registry: Registry) -> None:
    recipe = teacher.parent / "student.yaml"
    recipe.write_text(f"augkit: 1\nname: student\nloss: {{name: ride, teacher: {teacher.name}}}\n")
    assert Path(load_recipe(recipe, registry).loss.options["teacher"]) == teacher
    later = f"stages: [train, {{train: {{epochs: 1, loss: {{name: ride, teacher: {teacher.name}}}}}}}]\n"
    recipe.write_text(f"augkit: 1\nname: student\n{later}")
    loss = load_recipe(recipe, registry).stages[1].loss
    assert loss is not None and Path(loss.options["teacher"]) == teacher
