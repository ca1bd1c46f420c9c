"""Base augmentation and policy in one document: what a recipe makes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from run_parts import QUICK, small

from augkit.engine.plan import ImageSettings
from augkit.errors import DocumentError
from augkit.lab.augmentation import Normalise, build_policy, own_operators, strategy_of
from augkit.lab.data import load
from augkit.lab.recipe import load_recipe
from augkit.lab.run import train
from augkit.registry import Registry


def test_none_and_a_policy_differ_by_the_policy_alone(registry: Registry) -> None:
    plain = small(registry, "policy=none", "base.before=[random_crop]", "base.after=[{cutout: {length: 4}}]")
    with_policy = plain.model_copy(update={"policy": small(registry, "policy=trivialaugment").policy})
    data = load(plain.data)
    where = torch.arange(40)
    images, labels = next(data.train.batches([where])), data.train.labels[where]
    base = build_policy(plain, data, registry, torch.device("cpu"))
    both = build_policy(with_policy, data, registry, torch.device("cpu"))
    base_plan, plan = base.plan(labels, index=where), both.plan(labels, index=where)

    def words(policy: Any, drawn: Any, i: int) -> list[str]:
        return [policy.program.choices[k].operator.name for k in drawn.choice[i].tolist() if k >= 0]

    for i in range(40):
        before, *_, after = words(both, plan, i)
        assert [before, after] == words(base, base_plan, i) == ["random_crop", "cutout"]
    result, same = base(images, labels, index=where)
    assert result.dtype == torch.float32 and result.shape == images.shape
    assert torch.equal(same, labels)


def test_normalising_in_training_and_testing_is_the_same(registry: Registry) -> None:
    recipe = small(registry, "policy=none", "base.before=[]")
    data = load(recipe.data)
    policy = build_policy(recipe, data, registry, torch.device("cpu"))
    images = next(data.train.batches([torch.arange(8)]))
    trained, _ = policy(images, data.train.labels[:8], index=torch.arange(8))
    tested = Normalise(recipe.data.mean, recipe.data.std)(images)
    assert torch.allclose(trained, tested, atol=1e-5)


def test_a_policy_by_path_and_its_params(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "inner.yaml").write_text("augkit: 1\nname: inner\npipeline: [invert]\n")
    (tmp_path / "mine.yaml").write_text(
        "augkit: 1\nname: mine\nparams: {turn: 3}\nimage: {resample: nearest}\n"
        "pipeline: [{rotate: {degrees: turn}}, {use: {name: inner.yaml}}]\n"
    )
    (tmp_path / "recipe.yaml").write_text("augkit: 1\nname: x\npolicy: {load: mine.yaml, params: {turn: 7}}\n")
    recipe = load_recipe(tmp_path / "recipe.yaml", registry)
    strategy = strategy_of(recipe, registry)
    assert strategy.image.resample == "nearest"
    assert recipe.policy_name == "mine"
    (used,) = strategy.pipeline
    assert dict(used.strategy.params) == {"turn": 7}


def test_a_fill_that_would_show_in_the_base_is_refused(tmp_path: Path, registry: Registry) -> None:
    for fill in ("reflect", "mean"):
        document = tmp_path / f"{fill}.yaml"
        document.write_text(f"augkit: 1\nname: mine\nimage: {{fill: {fill}}}\npipeline: [rotate]\n")
        told = [f"policy={document}", "base.before=[hflip, cutout]", "base.after=[vflip]"]
        assert strategy_of(small(registry, *told), registry).image.fill == fill
        with pytest.raises(DocumentError, match=rf'^base\.before\[1\]: "random_crop".*"mine".*\({fill}\)'):
            strategy_of(small(registry, *told, "base.before=[hflip, random_crop]"), registry)
        with pytest.raises(DocumentError, match=r'^base\.after\[0\]: "rotate".*without rotate'):
            strategy_of(small(registry, *told, "base.after=[{one_of: [cutout, [hflip, rotate]]}]"), registry)
        with pytest.raises(DocumentError, match=r"^base\.after\[0\]: "):
            strategy_of(small(registry, *told, "base.after=[{use: randaugment}]"), registry)
        with pytest.raises(DocumentError, match="random_crop"):
            train("demo", [*QUICK, f"policy={document}"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resampling_leaves_the_usual_base_alone(registry: Registry) -> None:
    recipe = small(registry, "policy=none", "base.before=[random_crop, hflip]", "base.after=[{cutout: {length: 4}}]")
    data, where = load(recipe.data), torch.arange(40)
    policy = build_policy(recipe, data, registry, torch.device("cpu"))
    plan = policy.plan(data.train.labels[where], index=where)
    images = next(data.train.batches([where]))
    results = {
        settings: policy.apply(images, dataclasses.replace(plan, image=ImageSettings(*settings)))[0]
        for settings in (("bilinear", "black"), ("nearest", "black"), ("bilinear", "mean"))
    }
    plain, nearest, filled = results.values()
    assert torch.equal(plain, nearest)
    assert not torch.equal(plain, filled)  # which is why another fill is refused


def test_an_operator_of_the_base_is_counted_apart_from_the_same_one_of_the_policy(
    tmp_path: Path, registry: Registry
) -> None:
    crop = "{random_crop: {padding: 2}}"
    file = tmp_path / "crop.yaml"
    file.write_text(f"augkit: 1\nname: crop\npipeline: [{crop}]\n", encoding="utf-8")
    recipe = small(registry, f"policy={file}", f"base.before=[{crop}]")
    data = load(recipe.data)
    policy = build_policy(recipe, data, registry, torch.device("cpu"))
    where = torch.arange(40)
    policy(next(data.train.batches([where])), data.train.labels[where], index=where)
    policy.end_epoch()
    used = policy.history[-1]["used"]
    assert used[:, own_operators(policy)].sum() == 40
    assert used.sum() == 80
