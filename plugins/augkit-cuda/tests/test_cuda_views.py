"""The curriculum in one of the views of balanced contrastive learning."""

from __future__ import annotations

import torch

from augkit.lab.data import load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry


def test_the_curriculum_stands_in_the_first_view_alone() -> None:
    told = ["data.test_share=0.8", "data.image_size=16", "model=resnet8_cifar", "epochs=3", "base={}", "loss=bcl"]
    recipe = load_recipe("demo", registry(), [*told, "policy=bcl_views_cuda", "data.imbalance=10"])
    run = prepare(recipe, load(recipe.data), registry(), torch.device("cpu"))
    train_epoch(run)
    assert "model" in run.policy.needs and run.policy.probe_images == 10 * 10
    (path,) = [path for path, held in run.policy.memory.values.items() if "depth" in held]
    run.policy.memory.values[path]["depth"] = torch.full((10,), 5.0)
    run.policy.epoch = 1
    images, labels = torch.randint(0, 256, (90, 3, 16, 16), dtype=torch.uint8), torch.arange(90) % 10
    plan = run.policy.plan(labels)
    words = [plan.describe(i) for i in range(270)]
    of_sim = ("random_resized_crop", "gaussian_blur 0", "grayscale")
    assert sum(len(said.split(", then ")) >= 5 for said in words[:90]) > 20, "five operators for half of them"
    assert not any(name in said for said in words[:90] for name in of_sim[:1])
    assert all(said.startswith(of_sim[0]) for said in words[90:])
    assert run.policy(images, labels)[0].shape == (270, 3, 16, 16)
