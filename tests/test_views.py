"""Views: several results for each image, in the layout that losses between views expect; in timm and in the lab."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from seam_parts import LEARNS, ImageSet, Seer, epoch, learned, loader
from torch import Tensor

from augkit import Output, Policy
from augkit.errors import DocumentError, InputError
from augkit.integrations.timm import mixup_fn, wrap
from augkit.lab import losses
from augkit.lab.augmentation import build_policy, strategy_of
from augkit.lab.data import load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.recipe import load_recipe
from augkit.registry import Registry

MIX = {"branches": {"depth": "randint(1, 3)"}}
AUGMIX: dict[str, Any] = {
    "augkit": 1,
    "name": "viewed",
    "palette": ["invert", "equalize", "rotate"],
    "pipeline": [{"hflip": {"p": 0.5}}],
    "views": {"clean": [], "mix": {"times": 2, "steps": [MIX]}},
}


def photos(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 3, 20, 24), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_the_pipeline_is_shared_and_each_view_draws_for_itself() -> None:
    document = {**AUGMIX, "views": {"a": [], "b": {"times": 2, "steps": [{"invert": {"p": 0.5}}]}, "c": ["invert"]}}
    policy = Policy.load(document, class_counts=[900])
    images, targets = photos(900), torch.arange(900) % 1
    out, labels = policy(images, targets)
    assert policy.views == ("a", "b 1", "b 2", "c")
    assert out.shape == (3600, 3, 20, 24) and torch.equal(labels, targets.repeat(4))
    first, *others = out.split(900)
    flipped = (first == images.flip(3)).flatten(1).all(1)
    assert torch.equal(first, torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images))
    assert stats.binomtest(int(flipped.sum()), 900, 0.5).pvalue > 1e-3
    turned = [(view == 255 - first).flatten(1).all(1) for view in others]
    for view, which in zip(others, turned, strict=True):
        assert torch.equal(view, torch.where(which.view(-1, 1, 1, 1), 255 - first, first))
    assert turned[2].all()
    both = torch.bincount(2 * turned[0].long() + turned[1].long(), minlength=4)
    assert stats.chisquare(both.numpy()).pvalue > 1e-3, "two views of one kind draw apart"


@pytest.mark.parametrize("size", [0, 1, 5])
def test_branches_in_views_replay_and_normalise(size: int) -> None:
    images, targets = photos(size), torch.zeros(size, dtype=torch.int64)
    plain = Policy.load(AUGMIX, class_counts=[9])
    out, labels = plain(images, targets)
    plan = plain.last_plan
    assert plan is not None and len(plan) == size and out.shape == (3 * size, 3, 20, 24) and len(labels) == 3 * size
    assert torch.equal(plain.apply(images, plan.to("cpu"))[0], out)
    for view, part in zip(plan.views, out.split(size) if size else (), strict=False):
        shared = plain.apply(images, plan.operators())[0]
        assert torch.equal(plain.apply(shared, view[1])[0], part), f"view {view[0]} goes on from the shared image"
    normal = Policy.load(AUGMIX, class_counts=[9], out=Output(torch.float32))
    assert torch.allclose(normal(images, targets)[0] * 255, out.float(), atol=1e-3)
    assert (plain.apply(images / 255, plan)[0] * 255 - out).abs().max() < 1e-3 if size else True


def test_with_indices_batching_changes_nothing() -> None:
    images, targets, index = photos(6), torch.zeros(6, dtype=torch.int64), torch.arange(6)
    whole = Policy.load(AUGMIX, class_counts=[9])(images, targets, index=index)[0].unflatten(0, (3, 6))
    parts = Policy.load(AUGMIX, class_counts=[9])
    late = parts(images[4:], targets[4:], index=index[4:])[0].unflatten(0, (3, 2))
    early = parts(images[:4], targets[:4], index=index[:4])[0].unflatten(0, (3, 4))
    assert torch.equal(whole, torch.cat([early, late], 1))


def test_what_views_and_branches_do_is_part_of_the_identity() -> None:
    def hashed(views: Any) -> str:
        return Policy.load({**AUGMIX, "views": views}, class_counts=[9]).strategy.hash

    plain = hashed({"clean": [], "mix": [{"branches": {"width": 3}}]})
    alike = (
        {"clean": {"steps": []}, "mix": {"times": "2 / 2", "steps": ["branches"]}},
        {"clean": [], "mix": [{"branches": None}]},
    )
    others = [
        {"mix": [{"branches": {"width": 3}}], "clean": []},
        {"clean": [], "mix": {"times": 2, "steps": ["branches"]}},
        {"clean": [], "mixed": ["branches"]},
        {"clean": []},
        *({"clean": [], "mix": [{"branches": body}]} for body in ({"width": 4}, {"blend": 1}, {"replace": False})),
        {},
    ]
    assert all(hashed(views) == plain for views in alike)
    assert len({plain, *map(hashed, others)}) == len(others) + 1


def test_words_tell_each_result() -> None:
    policy = Policy.load({**AUGMIX, "pipeline": ["hflip"]}, class_counts=[9])
    plan = policy.plan(torch.zeros(2, dtype=torch.int64))
    assert [plan.describe(i) for i in (0, 1)] == ["hflip", "hflip"]
    assert all(plan.describe(i).startswith("hflip, then 0.") for i in range(2, 6))
    with pytest.raises(InputError, match="no image 6; it was drawn for 2 images in 3 views"):
        plan.describe(6)
    policy.enabled = False
    off, labels = policy(photos(2), torch.zeros(2, dtype=torch.int64))
    assert torch.equal(off, photos(2).repeat(3, 1, 1, 1)) and len(labels) == 6


def test_the_first_view_s_answers_count() -> None:
    policy = Policy.load(AUGMIX, class_counts=[4, 4])
    _, labels = policy(photos(4), torch.tensor([0, 0, 1, 1]))
    answers = torch.eye(2)[[0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0]]
    policy.observe(answers)
    policy.observe(answers, labels)
    assert policy.statistics.seen.tolist() == [4, 4] and policy.statistics.correct.tolist() == [2, 4]
    policy.observe(torch.eye(2), torch.tensor([0, 1]), split="val")
    assert policy.statistics.val_correct.tolist() == [1, 1], "validation has no views"
    policy.observe(answers[:8])  # of two views, where the third was not asked
    assert policy.statistics.seen.tolist() == [6, 6] and policy.statistics.correct.tolist() == [3, 6]
    with pytest.raises(InputError, match="observe got 7 answers for 4 targets"):
        policy.observe(answers[:7])
    with pytest.raises(InputError, match="observe got 4 answers for 12 targets"):
        policy.observe(answers[:4], labels)


def test_a_used_strategy_brings_its_views(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text(
        "{augkit: 1, name: inner, palette: [invert], pipeline: [vflip], views: {plain: [], dark: [{pick: {count: 1}}]}}"
    )
    outer = tmp_path / "outer.yaml"
    outer.write_text("{augkit: 1, name: outer, pipeline: [hflip, {use: inner.yaml}]}")
    policy = Policy.load(outer, class_counts=[3])
    images = photos(3)
    out, _ = policy(images, torch.zeros(3, dtype=torch.int64))
    turned = images.flip(2, 3)
    assert policy.views == ("plain", "dark") and torch.equal(out, torch.cat([turned, 255 - turned]))
    assert policy.statistics.used.sum().item() == 9
    faults = {
        "[{use: inner.yaml}, hflip]": "views come last",
        "[{use: {name: inner.yaml, p: 0.5}}]": "has views, which every image gets",
        "[{one_of: [{use: inner.yaml}]}]": "a strategy that has views cannot be one of several steps",
        "[{use: inner.yaml}, {use: inner.yaml}]": "views come last",
        "[{use: inner.yaml}, {batch: [mixup]}]": "views come last",
        "[{use: mixup}, {use: inner.yaml}]": "mixing comes last",
        "[{use: inner.yaml}], views: {a: []}": "has views already",
        "[], views: {a: [{use: inner.yaml}]}": "cannot be part of a view",
    }
    for pipeline, message in faults.items():
        outer.write_text(f"{{augkit: 1, name: outer, pipeline: {pipeline}}}")
        with pytest.raises(DocumentError, match=message):
            Policy.load(outer, class_counts=[3])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"views": ["clean"]}, "views: expected a mapping of names to lists of steps"),
        ({"views": {"a": "hflip"}}, 'views.a: expected a list of steps, or {times: 2, steps: [...]}, found "hflip"'),
        ({"views": {"a": {"times": 2}}}, "views.a: expected a list of steps"),
        ({"views": {"a": {"times": 1.5, "steps": []}}}, "views.a.times: expected a whole number of 1 or more"),
        ({"views": {"a": {"times": 17, "steps": []}}}, "an image has at most 16 views, this makes 17"),
        ({"views": {"a": {"step": []}}}, 'no key "step" here. Did you mean "steps"?'),
        ({"views": {"a b": []}}, "views.a b: a view's name has 1 to 60 ASCII letters, digits and _"),
        ({"views": {"a": ["hflap"]}}, 'views.a[0]: there is no operator or step "hflap" here'),
        ({"views": {"a": [{"hflip": {"p": "q"}}]}}, 'views.a[0].hflip.p: there is no name "q"'),
        ({"views": {"a": [MIX, "hflip"]}}, "views.a[1]: branches come last"),
        ({"views": {"a": ["hflip"]}, "pipeline": [MIX]}, "branches come last, and views go on from the pipeline"),
        ({"pipeline": [{"batch": ["mixup"]}]}, "views: views and mixing do not go together"),
        ({"views": {"a": [{"batch": ["mixup"]}]}}, "views.a: views and mixing do not go together"),
        ({"pipeline": [{"views": {}}]}, "views are no step: write views: beside pipeline:"),
    ],
)
def test_faults(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError) as found:
        Policy.load({**AUGMIX, **parts}, class_counts=[9])
    assert message in str(found.value), str(found.value)


# -- timm ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [True, False])
def test_a_loader_gives_views_and_the_first_one_s_answers_count(prefetch: bool) -> None:
    document = {**LEARNS, "views": {"clean": [], "gone": {"times": 2, "steps": [{"brightness": {"factor": 0}}]}}}
    model = Seer()
    wrapped = wrap(loader(use_prefetcher=prefetch), document, model)
    batches = epoch(wrapped, model)
    wrapped.policy.end_epoch()
    answered, right = learned(wrapped.policy)
    assert all(len(images) == len(targets) == 12 for images, targets in batches)
    assert sum(answered) == 20 and right == answered, "of the dark views, all answered 0, none counts"


def test_a_part_of_the_views_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    document = {**LEARNS, "views": {"a": [], "b": []}}
    model = Seer()
    wrapped = wrap(loader(ImageSet(8)), document, model)
    for images, _ in wrapped:
        model(images[:4])
    assert wrapped.policy.statistics.observed == 0
    assert "it answered 4 images where the batch has 2 views, 8 images in all" in caplog.text


def test_mixup_fn_gives_views() -> None:
    mix = mixup_fn(Policy.load(AUGMIX, class_counts=[9]), mean=0.5, std=0.2)
    images, targets = mix(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    assert images.shape == (12, 3, 8, 8) and targets.shape == (12,)


# -- the lab ------------------------------------------------------------------------------------------------------

QUICK = ("epochs=1", "data.test_share=0.9", "data.image_size=16", "data.imbalance=10", "loss=jsd")


def test_jsd_is_timm_s() -> None:
    from timm.loss.jsd import JsdCrossEntropy

    logits, targets = torch.randn(12, 5), torch.randint(0, 5, (4,)).repeat(3)
    loss = partial(losses.jsd, views=3)
    assert torch.equal(loss(logits, targets), JsdCrossEntropy(3, 12, 0)(logits, targets))
    same = logits[:4].repeat(3, 1)
    plain = torch.nn.functional.cross_entropy(logits[:4], targets[:4])
    assert loss(same, targets).item() == pytest.approx(plain.item(), abs=1e-5), "equal answers: no divergence"


def test_a_recipe_with_views_trains(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "viewed.yaml").write_text(
        "{augkit: 1, name: viewed, palette: [invert, rotate], pipeline: [],"
        " views: {clean: [], mix: {times: 2, steps: [branches]}}}"
    )
    policy = f"policy={tmp_path / 'viewed.yaml'}"
    recipe = load_recipe("demo", registry, [*QUICK, policy, "base.before=[random_crop]", "base.after=[cutout]"])
    order = [type(step).__name__ for step in strategy_of(recipe, registry).pipeline]
    assert order == ["OperatorStep", "OperatorStep", "UseStep"], "views come last, after the base"
    data = load(recipe.data)
    run = prepare(recipe, data, registry, torch.device("cpu"))
    assert "views" in run.stage.loss.wanted and len(run.policy.views) == 3
    record = train_epoch(run)
    assert 0 < record["loss"] < 10 and 0 <= record["train_accuracy"] <= 1
    assert float(run.policy.history[-1]["seen"].sum()) == len(data.train)
    assert len(build_policy(recipe, data, registry, torch.device("cpu")).views) == 3


def test_jsd_needs_views(registry: Registry) -> None:
    recipe = load_recipe("demo", registry, [*QUICK, "policy=randaugment"])
    with pytest.raises(DocumentError, match='"jsd" compares views of an image, and "randaugment" makes none'):
        prepare(recipe, load(recipe.data), registry, torch.device("cpu"))
