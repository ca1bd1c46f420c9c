"""Pictures of levels, and answers that count as right in another way."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from augkit_cuda import every_expert, prior_corrected
from augkit_cuda.levels import Levels, draw_levels, read_levels
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from augkit import Policy
from augkit.cli.app import build
from augkit.errors import DataError, InputError, StateError
from augkit.lab.folder import save_checkpoint
from augkit.learning.probe_pool import ProbePool

COUNTS = [150, 60, 30, 5]


def run_folder(folder: Path, name: str, epochs: int = 5, classes: int = 4) -> Policy:
    """What `augkit train` leaves of a policy, for a model that knows all classes but the last from epoch 0 on."""
    folder.mkdir()
    policy = Policy.load(name, class_counts=COUNTS[:classes], seed=1, **({"trials": 1} if name == "cuda" else {}))
    labels = torch.arange(classes).repeat(3)
    answer = lambda output, targets: targets < classes - 1  # noqa: E731
    policy.attach_model(
        nn.Flatten(), ProbePool(torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8), labels), answer=answer
    )
    for _ in range(epochs):
        policy.plan(labels)
        policy.observe(nn.functional.one_hot(labels, classes).float())
        policy.end_epoch()
    save_checkpoint(folder, {"policy": policy.state_dict()})
    return policy


def test_levels_are_those_that_each_epochs_images_met(tmp_path: Path) -> None:
    policy = run_folder(tmp_path / "run", "cuda")
    levels = read_levels(tmp_path / "run")
    assert levels.values.tolist() == [[epoch] * 3 + [0] for epoch in (1, 2, 3, 4, 5)]
    assert levels.counts == COUNTS and policy.state["depth"].tolist() == [5, 5, 5, 0]
    assert not levels.shared


def test_the_picture_has_the_most_frequent_class_on_top_and_a_line_for_each_group(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", "cuda")
    top, below, _ = draw_levels(read_levels(tmp_path / "run")).axes
    (image,) = top.get_images()
    assert image.get_array().tolist() == [[1, 2, 3, 4, 5]] * 3 + [[0] * 5]
    lines = {line.get_label(): line.get_ydata().tolist() for line in below.get_lines()}
    assert lines == {
        "many (1 class)": [1, 2, 3, 4, 5],
        "medium (2 classes)": [1, 2, 3, 4, 5],
        "few (1 class)": [0] * 5,
    }


def test_numbers_below_zero_are_in_the_picture() -> None:
    top, below, _ = draw_levels(Levels("dual", np.array([[-2.0, 0.5, 1.0], [-3.0, 0.0, 1.0]]), [9, 5, 2], "run")).axes
    (image,) = top.get_images()
    assert image.get_clim() == (-3, 1) and below.get_ylim()[0] < -3


def test_the_control_has_one_line(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", "cuda_agnostic", epochs=2)
    levels = read_levels(tmp_path / "run")
    assert levels.shared and levels.values.tolist() == [[1], [2]]  # three of four classes are more than 0.6
    (line,) = draw_levels(levels).axes[1].get_lines()
    assert line.get_label() == "all classes"


def test_the_verb_writes_the_picture_and_names_what_is_wrong(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", "cuda")
    runner = CliRunner()
    done = runner.invoke(build(), ["levels", str(tmp_path / "run")])
    assert done.exit_code == 0 and "depth in epoch 4: mean 3.75, from 0 to 5" in done.stdout
    with Image.open(tmp_path / "run" / "levels.png") as picture:
        assert picture.width > 600
    assert runner.invoke(build(), ["levels", str(tmp_path)]).exit_code == 2
    with pytest.raises(DataError, match=r'no state "weight" by class\. Valid: depth\.'):
        read_levels(tmp_path / "run", "weight")
    with pytest.raises(DataError, match=r"no run folder with a checkpoint\.pt"):
        read_levels(tmp_path / "nowhere")
    save_checkpoint(tmp_path, {"weights": torch.ones(1)})
    with pytest.raises(StateError, match="not a checkpoint of augkit train"):
        read_levels(tmp_path)


def test_a_run_without_levels_says_so(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", "trivialaugment", epochs=1)
    with pytest.raises(DataError, match="Its policy learns nothing by class"):
        read_levels(tmp_path / "run")
    run_folder(tmp_path / "new", "cuda", epochs=0)
    with pytest.raises(DataError, match="no epoch of this run has ended yet"):
        read_levels(tmp_path / "new")


class Biased(nn.Module):
    """Answers for every image what the prior alone would make of it, and a little of the truth (in pixel 0)."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.prior = (torch.tensor(counts) / sum(counts)).log()

    def forward(self, images: Tensor) -> Tensor:
        truth = (images[:, 0, 0, 0] * 255).round().long()
        return self.prior + 0.5 * nn.functional.one_hot(truth, len(self.prior))


@pytest.mark.parametrize(("corrected", "levels"), [(True, [1, 1, 1]), (False, [1, 0, 0])])
def test_the_prior_is_taken_off_before_answers_are_counted(corrected: bool, levels: list[int]) -> None:
    counts = [100, 20, 4]
    policy = Policy.load("cuda", class_counts=counts)
    labels = torch.arange(3).repeat(4)
    images = labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous()
    policy.attach_model(
        Biased(counts),
        ProbePool(images, labels),
        answer=partial(prior_corrected, class_counts=torch.tensor(counts)) if corrected else None,
    )
    policy.begin_epoch()
    assert policy.state["depth"].tolist() == levels


def test_prior_correction_is_the_formula() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(200, 4), torch.randint(0, 4, (200,))
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    expected = (logits.exp() / prior).argmax(1) == targets
    counts = torch.tensor(COUNTS)
    assert torch.equal(prior_corrected(logits, targets, class_counts=counts), expected)
    experts = torch.stack([logits - 1, logits * 2 + 1], 1) / 1.5
    assert torch.equal(prior_corrected(experts, targets, class_counts=counts), expected)
    as_it_is = logits.argmax(1) == targets
    assert torch.equal(prior_corrected((logits, "features"), targets, class_counts=counts, tau=0), as_it_is)
    assert not torch.equal(expected, as_it_is)
    with pytest.raises(InputError, match="4 classes, but the model answered with"):
        prior_corrected(logits[:, :3], targets, class_counts=counts)


def test_every_expert_must_be_right() -> None:
    torch.manual_seed(0)
    experts = [torch.randn(300, 3) for _ in range(3)]
    targets = torch.randint(0, 3, (300,))
    rows = zip(*(e.argmax(1).tolist() for e in experts), targets.tolist(), strict=True)
    expected = torch.tensor([len(set(row)) == 1 for row in rows])
    assert 5 < int(expected.sum()) < 40
    features = torch.randn(300, 8, 4, 4)
    for output in (torch.stack(experts, 1), tuple(experts), {"logits": experts, "features": features}):
        assert torch.equal(every_expert(output, targets), expected)
    assert torch.equal(every_expert(experts[0], targets), experts[0].argmax(1) == targets)
    with pytest.raises(InputError, match=r"every_expert needs \[300, experts, C\] logits"):
        every_expert(features, targets)
    with pytest.raises(InputError, match="these have 3 and 64 columns: give it the logits alone"):
        every_expert({"logits": experts, "features": torch.randn(300, 64)}, targets)
