"""Answers judged by a recipe's word in real runs of the lab: the levels of a scripted model move as they must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augkit_cuda.levels import read_levels
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from augkit.cli.app import build
from augkit.errors import DocumentError
from augkit.lab import models
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry

COUNTS = (40, 10, 4)


class Scripted(nn.Module):
    """Reads the class from an image's brightness; what it says of it is the script's, operators change nothing."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self.script, self.certainty = script, nn.Parameter(torch.ones(()))
        self.register_buffer("prior", (torch.tensor(COUNTS) / sum(COUNTS)).log(), persistent=False)

    def forward(self, images: Tensor) -> Any:
        truth = (images.mean((1, 2, 3)) * 255 / 20).round().long()
        right = functional.one_hot(truth, len(COUNTS)).float()
        if self.script == "biased":  # the prior, and a little of the truth
            return self.prior + 0.5 * self.certainty * right
        wrong = right.roll(1, 1)
        second = torch.where(truth[:, None] == 2, wrong, right)  # this expert knows nothing of class 2
        return tuple(self.certainty * logits for logits in (right, second, right))


@models.register_model
def scripted_by_brightness(pretrained: bool = False, script: str = "", num_classes: int = 3, **_: Any) -> nn.Module:
    return Scripted(script)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose policy is the curriculum with an operator that changes nothing."""
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    images = np.broadcast_to((20 * labels).astype(np.uint8)[:, None, None, None], (len(labels), 8, 8, 3))
    np.savez(tmp_path / "bright.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    for name in ("cuda", "cuda_online"):
        text = Path(registry().strategies[name]).read_text(encoding="utf-8")
        assert "palette: cuda22\n" in text
        (tmp_path / f"still_{name}.yaml").write_text(text.replace("palette: cuda22\n", "palette: [identity]\n"))
    path = tmp_path / "scripted.yaml"
    path.write_text(
        "augkit: 1\nname: scripted\ndata: {source: bright.npz, mean: [0, 0, 0], std: [1, 1, 1]}\n"
        "model: {name: scripted_by_brightness, options: {script: experts}}\nepochs: 3\nbatch_size: 16\nthreads: 1\n"
        "optimizer: {name: momentum, lr: 1.e-5}\n"
    )
    return path


CASES = {
    "the mean of the experts": ("experts", "top1", [3, 3, 3]),
    "every expert": ("experts", "every_expert", [3, 3, 0]),
    "the prior left in": ("biased", "top1", [3, 0, 0]),
    "the prior taken off": ("biased", "prior_corrected", [3, 3, 3]),
    "a fifth of the prior taken off": ("biased", "{name: prior_corrected, tau: 0.2}", [3, 0, 0]),
}


@pytest.mark.parametrize("policy", ["cuda", "cuda_online"])
@pytest.mark.parametrize("case", CASES)
def test_levels_of_a_run_follow_the_answers_that_its_recipe_counts(
    case: str, policy: str, recipe: Path, tmp_path: Path
) -> None:
    script, answer, levels = CASES[case]
    told = [f"model.options.script={script}", f"answer={answer}", f"policy={tmp_path / f'still_{policy}.yaml'}"]
    words = [word for one in told for word in ("--set", one)]
    done = CliRunner().invoke(build(), ["train", str(recipe), *words, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    moves = 3 if policy == "cuda" else 2  # before an epoch's images or after them
    assert read_levels(tmp_path / "run").values[-1].tolist() == [min(level, moves) for level in levels]
    test = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]["all"]
    assert test == (40 / 54 if script == "biased" else 1)


def test_the_names_are_listed_and_a_wrong_one_is_told() -> None:
    listed = CliRunner().invoke(build(), ["answers"]).stdout
    assert all(name in listed for name in ("top1", "every_expert", "prior_corrected", "tau: 1.0"))
    with pytest.raises(DocumentError, match='Did you mean "prior_corrected"'):
        load_recipe("demo", registry(), ["answer=prior_corected"])
    with pytest.raises(DocumentError, match=r"answer\.tau: this should be greater than or equal to 0"):
        load_recipe("demo", registry(), ["answer={name: prior_corrected, tau: -1}"])
