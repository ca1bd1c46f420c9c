"""The lab's models, losses, schedules, scores and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from augkit.errors import DocumentError, StateError
from augkit.lab import folder as files
from augkit.lab import metrics, models, optimise
from augkit.lab.data import Split
from augkit.lab.recipe import Recipe
from augkit.lab.recipe_parts import OptimizerRecipe, ScheduleRecipe
from augkit.lab.sources import Arrays
from augkit.report import pictures


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate({"augkit": 1, "name": "test", **changes})


def test_resnet32_is_the_published_network() -> None:
    model = models.create("resnet32_cifar", 100, {}, 0)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 31  # and one linear layer; option-A shortcuts have no weights
    assert sum(p.numel() for p in convolutions[0].parameters()) == 432
    assert sum(p.numel() for p in model.parameters()) == 470_004
    features = model.forward_features(torch.zeros(2, 3, 32, 32))  # type: ignore[operator]
    assert features.shape == (2, 64, 8, 8)
    model.reset_classifier(0)  # type: ignore[operator]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 64)


def test_option_a_shortcut_slices_and_pads_with_zeros() -> None:
    block = models.Block(16, 32, 2).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 16, 4, 4)
    y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].abs().sum() == 0
    assert y[:, 24:].abs().sum() == 0


def test_models_depend_on_the_seed_alone() -> None:
    weights = [models.create("resnet8_cifar", 5, {}, seed).state_dict()["fc.weight"] for seed in (3, 3, 4)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_any_timm_model_and_clear_errors() -> None:
    assert models.create("test_resnet", 7, {"drop_rate": 0.1}, 0).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(DocumentError, match='Did you mean "resnet32_cifar"'):
        models.create("resnet32_cifer", 7, {}, 0)
    with pytest.raises(DocumentError, match=r"model\.options: .*nothing"):
        models.create("resnet8_cifar", 7, {"nothing": 1}, 0)


def rates(epochs: int, **schedule: object) -> list[float]:
    document = recipe(epochs=epochs, schedule=ScheduleRecipe.model_validate(schedule))
    optimizer = optimise.optimizer(document.optimizer, nn.Linear(2, 2))
    steps = optimise.schedule(document, optimizer)
    found = []
    for epoch in range(epochs):
        steps.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_published_schedule() -> None:
    lr = rates(200)
    assert lr[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert [lr[159], lr[160], lr[179], lr[180], lr[199]] == pytest.approx([0.1, 1e-3, 1e-3, 1e-5, 1e-5])
    short = rates(40)
    assert [short[0], short[31], short[32], short[35], short[36]] == pytest.approx([0.1, 0.1, 1e-3, 1e-3, 1e-5])


def test_timm_schedules_and_clear_errors() -> None:
    lr = rates(10, name="cosine", options={"warmup_epochs": 2, "warmup_lr": 0.01})
    assert lr[0] == pytest.approx(0.01)
    assert lr[2:] == sorted(lr[2:], reverse=True)
    with pytest.raises(DocumentError, match='Did you mean "cosine"'):
        rates(10, name="cosin")
    with pytest.raises(DocumentError, match=r'schedule\.options: "warmup" is not an option'):
        rates(10, name="cosine", options={"warmup": 2})


def test_published_optimiser_decays_everything_and_has_no_nesterov() -> None:
    optimizer = optimise.optimizer(OptimizerRecipe(), models.create("resnet8_cifar", 5, {}, 0))
    assert isinstance(optimizer, torch.optim.SGD)
    assert [(g["weight_decay"], g["momentum"], g["nesterov"]) for g in optimizer.param_groups] == [(2e-4, 0.9, False)]
    assert isinstance(optimise.optimizer(OptimizerRecipe(name="adamw"), nn.Linear(2, 2)), torch.optim.AdamW)
    with pytest.raises(DocumentError, match='Did you mean "momentum"'):
        optimise.optimizer(OptimizerRecipe(name="momentun"), nn.Linear(2, 2))
    with pytest.raises(DocumentError, match=r"optimizer\.options"):
        optimise.optimizer(OptimizerRecipe(options={"nothing_like_it": 1}), nn.Linear(2, 2))


class Echo(nn.Module):
    """Answers what the first pixel says."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(images[:, 0, 0, 0].long(), 4).float()


def test_scores_by_group_and_class() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    said = np.array([0, 0, 1, 0, 1, 2, 3])
    images = np.broadcast_to(said[:, None, None, None], (7, 2, 2, 3)).astype(np.uint8)
    held = torch.from_numpy(images).permute(0, 3, 1, 2)
    split = Split(torch.from_numpy(labels), held, Arrays(images, labels), np.arange(7), 2)
    scores, logits = metrics.evaluate(Echo(), split, 4, torch.Tensor.float, torch.autocast("cpu", enabled=False), 3)
    assert logits.argmax(1).tolist() == said.tolist()
    assert scores.by_class() == [1.0, pytest.approx(2 / 3), 0.5, None]
    summary = scores.summary(torch.tensor([101, 100, 20, 101]))
    assert summary == {
        "all": pytest.approx(5 / 7),
        "many": 1.0,
        "medium": pytest.approx((2 / 3 + 0.5) / 2),
        "few": None,
    }


def test_groups_have_the_published_borders() -> None:
    assert metrics.group_of(torch.tensor([101, 100, 20, 19])) == ["many", "medium", "medium", "few"]


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    files.save_checkpoint(tmp_path, {"w": torch.ones(2)})
    whole = (tmp_path / files.CHECKPOINT).read_bytes()
    (tmp_path / files.CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StateError, match="not a readable checkpoint"):
        files.load_checkpoint(tmp_path)


@pytest.mark.parametrize("classes", [10, 100])
def test_pictures_are_drawn_from_the_tables(tmp_path: Path, classes: int) -> None:
    counts = [max(2, int(500 * 100 ** (-c / (classes - 1)))) for c in range(classes)]
    groups = metrics.group_of(torch.tensor(counts))
    rows = [(c, f"class {c}", counts[c], groups[c], 10, 5, 0.5 if c else None) for c in range(classes)]
    header = ("class", "name", "train_images", "group", "test_images", "correct", "accuracy")
    files.write_table(tmp_path / files.PER_CLASS, header, rows)
    used = np.random.RandomState(0).randint(0, 40, (6, classes, 4)).tolist()
    use = {"operators": ["rotate", "invert", "rotate", "color"], "used": used, "seen": [counts] * 6}
    files.write_json(tmp_path / files.OPERATORS, use)
    (tmp_path / files.METRICS).touch()
    drawn = pictures.draw_run(tmp_path)
    assert [path.name for path in drawn] == ["accuracy_by_class.png", "operators_by_class.png"]
    for path in drawn:
        with Image.open(path) as image:
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 50
    files.write_json(tmp_path / files.OPERATORS, {"operators": [], "used": [], "seen": []})
    assert [path.name for path in pictures.draw_run(tmp_path)] == ["accuracy_by_class.png"]


@pytest.mark.parametrize(
    ("classes", "most", "least"),
    [(2, 60, 60), (2, 1_281_167, 3), (10, 95, 60), (10, 500, 5), (100, 12, 1), (100, 95, 60), (100, 1_281_167, 3)],
)
def test_everything_that_a_picture_says_is_inside_it(classes: int, most: int, least: int) -> None:
    counts = np.geomspace(most, least, classes).round().astype(int)
    groups = metrics.group_of(torch.tensor(counts))
    rows = [
        {"name": f"class {c}", "train_images": str(n), "test_images": "10", "accuracy": "0.5", "group": groups[c]}
        for c, n in enumerate(counts)
    ]
    figure = pictures.accuracy_by_class(rows, "cifar100-lt-ride-autoaugment_cifar10-seed0-0123abcd")
    figure.canvas.draw()
    box = figure.bbox
    for axes in figure.axes:
        found = axes.get_tightbbox()
        assert found is not None and box.x0 <= found.x0 and found.x1 <= box.x1
        assert box.y0 <= found.y0 and found.y1 <= box.y1
    images = figure.axes[1]
    low, high = images.get_ylim()
    ticks = [label.get_text() for label in images.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert ticks and all(tick.isdigit() for tick in ticks)
    pictures.plt.close(figure)
