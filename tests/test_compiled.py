"""The compiled executor: equal to the eager one, and one graph whatever is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from operator_references import choice, photos, random_plan
from torch import Tensor
from torch._dynamo.utils import counters

from augkit import Output, Policy
from augkit.engine import batched, compiled
from augkit.engine.plan import Plan
from augkit.errors import InputError

IMAGENET = Output(torch.float32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Output(torch.bfloat16, (0.5,), (0.25,))
LABELS = torch.zeros(16, dtype=torch.int64)
FEW = ("rotate", "color", "sharpness", "equalize", "cutout")  # a pass of each kind
SMALL = ("hflip", "rotate", "translate_x", "color", "sharpness", "gaussian_blur", "equalize", "solarize", "cutout")


def drawing(palette: str | list[str], count: int, **pick: Any) -> dict[str, Any]:
    """A document that draws so many operators of a palette."""
    step = {"pick": {"count": count, "strength": "uniform(0, 1)", **pick}}
    return {"augkit": 1, "name": "drawing", "palette": palette, "pipeline": [step]}


@pytest.fixture
def one_graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No graphs from before, and an error wherever torch would compile a second time."""
    torch._dynamo.reset()
    compiled._graphs.clear()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    compiled._graphs.clear()


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch, one_graph: None) -> None:
    """Graphs that are not turned into machine code, which takes a minute."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, one_graph: None) -> None:
    """Graphs as the lists of operations that a compiler is given."""
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)


def agree(images: Tensor, plan: Plan, out: Output | None = IMAGENET, limit: float = 0.001, **how: Any) -> Tensor:
    """The compiled result, of which at most a share `limit` of the numbers may differ from the eager one."""
    result = compiled.execute(images, plan, out=out, **how)
    eager = batched.execute(images, plan, out=out, masked=True)
    assert result.dtype == eager.dtype and result.stride() == eager.stride()
    apart = (result.double() - eager.double()).abs()
    assert (apart > 1e-5).double().mean() <= limit
    return result


def batches(policy: Policy, images: Tensor, number: int) -> Iterator[tuple[Tensor, Plan]]:
    """Full batches and odd last ones, of as many plans."""
    for last in range(number):
        yield images, policy.plan(LABELS)
        odd = images[: len(images) - 1 - last]
        yield odd, policy.plan(LABELS[: len(odd)])


@pytest.mark.slow(10)
@pytest.mark.parametrize(
    ("source", "image"),
    [
        (drawing([*FEW], 2), {"resample": "bilinear"}),
        ("randaugment", {"resample": "bilinear"}),
        ("randaugment", {"resample": "nearest", "fill": "mean"}),
        (drawing("cuda22", 5), {"resample": "bilinear"}),
        (drawing("timm15", 2), {"fill": "reflect"}),
    ],
    ids=["few", "randaugment", "nearest", "cuda22", "timm15"],
)
def test_one_graph_for_every_plan_and_the_odd_last_batch(guarded: None, source: Any, image: dict[str, str]) -> None:
    policy = Policy.load(source, image=image, out=IMAGENET)
    for images, plan in batches(policy, photos(24, 16), 4):
        agree(images, plan)
    assert counters["stats"]["unique_graphs"] == 2  # the steps, and the output
    assert not counters["graph_break"] and len(compiled._graphs._kept) == 1


@pytest.mark.slow(15)
def test_machine_code_gives_the_same(one_graph: None) -> None:
    policy = Policy.load("randaugment", image={"resample": "bilinear"}, out=IMAGENET)
    with torch._inductor.config.patch({"cpp.simdlen": 1, "compile_threads": 1}):  # the least to compile
        for images, plan in batches(policy, photos(24, 16), 3):
            agree(images, plan)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]


@pytest.mark.slow
def test_a_size_compiles_once(traced: None) -> None:
    policy = Policy.load(drawing(["hflip", "solarize"], 1), out=IMAGENET)
    for _ in range(2):
        for size in (16, 20):
            agree(photos(size, 16), policy.plan(LABELS))
    assert len(compiled._graphs._kept) == 2


def test_shorter_plans_and_numbers_in_any_layout_take_the_same_graph(guarded: None) -> None:
    choices = tuple(map(choice, FEW[::2]))
    plan = random_plan(choices, 8, 2, seed=1)
    agree(photos(16, 8), plan)
    for slots in (1, 2):
        columns = plan.u.repeat(1, 1, 2)[:, :slots, : plan.u.shape[2]]
        assert not columns.is_contiguous()
        cut = replace(plan, choice=plan.choice[:, :slots], value=plan.value[:, :slots], u=columns)
        agree(photos(16, 8), cut)
    assert len(compiled._graphs._kept) == 1 and counters["stats"]["unique_graphs"] == 2


def test_no_more_graphs_are_kept_than_said(traced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST", 2)
    plan = random_plan((choice("invert"),), 2, 1, seed=1)
    for size in (4, 5, 6):
        agree(photos(size, 2), plan)
    assert len(compiled._graphs._kept) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "out"),
    [
        ("bytes", HALF),
        ("floats", IMAGENET),
        ("channels_last", HALF),
        ("grey", HALF),
        ("four", None),
        ("bytes", None),
        ("floats", None),
        ("channels_last", None),
    ],
)
def test_every_kind_of_image(traced: None, kind: str, out: Output | None) -> None:
    images = photos(16, 8)
    names: tuple[str, ...] = FEW
    if kind == "floats":
        images = images.float() / 255 + 1e-4
    elif kind == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    elif kind == "grey":
        images = images[:, :1].contiguous()
    elif kind == "four":
        images, names = torch.cat([images, images[:, :1]], 1), tuple(name for name in FEW if name != "color")
    before = images.clone()
    result = agree(images, random_plan(tuple(map(choice, names)), 8, 2, seed=3, empty=0.4), out, 0.002)
    assert torch.equal(images, before) and result.untyped_storage().data_ptr() != images.untyped_storage().data_ptr()


@pytest.mark.slow
def test_results_that_are_kept_stay_as_they_are(traced: None) -> None:
    images = photos(16, 8)
    plans = [random_plan(tuple(map(choice, FEW)), 8, 2, seed=seed) for seed in range(3)]
    plans = [plans[0], *(Plan(plans[0].choices, *list(vars(plan).values())[1:]) for plan in plans[1:])]
    for out in (None, IMAGENET):
        kept = [(compiled.execute(images, plan, out=out), plan) for plan in plans]
        for result, plan in kept:
            assert torch.equal(result, batched.execute(images, plan, out=out, masked=True))


@pytest.mark.slow
def test_by_name_and_with_mixing_branches_and_views(traced: None) -> None:
    chains = [{"branches": {"weights": "dirichlet(1)", "depth": "randint(1, 3)"}}]
    document = {
        "augkit": 1,
        "name": "views",
        "palette": "doda10",
        "pipeline": ["hflip"],
        "views": {"a": [], "b": chains},
    }
    for source in (document, "mixup_cutmix"):
        results = []
        for executor in ("compiled", "batched"):
            policy = Policy.load(source, class_counts=[16], num_samples=16, executor=executor, out=IMAGENET)
            results.append(policy(photos(16, 16), LABELS, index=torch.arange(16))[0])
            assert policy.last_executor == executor
        assert ((results[0] - results[1]).abs() > 1e-5).double().mean() < 0.002


def test_opaque_operators_run_eagerly(traced: None) -> None:
    plan = random_plan((choice("invert"), choice("jpeg")), 4, 2, seed=0)
    assert torch.equal(compiled.execute(photos(16, 4), plan), batched.execute(photos(16, 4), plan, masked=True))
    assert not compiled._graphs._kept


def test_what_cannot_be_compiled_is_refused(one_graph: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no compiler\nof any kind")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    with pytest.raises(InputError, match=r'executor "compiled" cannot compile .* use "batched"'):
        compiled.execute(photos(16, 2), random_plan((choice("invert"),), 2, 1))
