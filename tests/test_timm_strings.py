"""timm's strings as documents: the same operators at the same values as timm's own objects draw, and pixels alike."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats
from strategy_parts import Plain
from torch import Tensor

from augkit import Policy
from augkit.cli.documents import show
from augkit.engine.plan import Plan
from augkit.errors import DocumentError
from augkit.lab.augmentation import strategy_of
from augkit.lab.recipe import load_recipe
from augkit.operators.base import Choice
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.strategy.schema import json_schema
from augkit.strategy.timm_strings import is_timm, timm_document
from augkit.strategy.timm_tables import FOUND, LEVELS
from augkit.torchvision_compat import ensure_torchvision

ensure_torchvision()

from timm.data import auto_augment  # noqa: E402

MANY = 4000
Record = list[tuple[str, float]]
"""What one image met: operators and values, in order."""

RAND = [
    "rand-m9-mstd0.5-inc1",
    "rand-m9-mstd0.5",
    "rand-m9-n2-mstd0.5-p1.0",
    "rand",
    "rand-n3-p0.3-m5-inc1",
    "rand-m7-mstd101-inc1",
    "rand-m4-mstd2-mmax5",
    "rand-m15-mmax20-mstd3-inc1-p1.0",
    "rand-m30-mmax25-n1",
    "rand-mstd1-tweights",
    "rand-m9-n3-t3aw-p1.0",
    "rand-m6-mstd1-t3a-n1-p1.0",
]
FIXED = ["original", "originalr-mstd0.5", "v0", "v0r-mstd0.5", "v0-mstd2", "3a", "3a-mstd1"]
AUGMIX = ["augmix-m9-mstd0.5-w1-d3", "augmix-m3-mstd0-b1"]
WIDE = ["augmix-m5-w4-d2", "augmix-m3"]


def timm_records(name: str, count: int) -> tuple[list[Record], Any]:
    """What timm draws, by its own objects whose pixel functions only note what they are given."""
    make = {"rand": auto_augment.rand_augment_transform, "augmix": auto_augment.augment_and_mix_transform}
    transform = make.get(name.split("-")[0], auto_augment.auto_augment_transform)(name)
    record: Record = []

    def noting(operator: Any) -> Any:
        def apply(image: Any, *values: float, **_: Any) -> Any:
            record.append((LEVELS[operator.name][0], _seen(operator.name, *values)))
            return image

        return apply

    ops = getattr(transform, "ops", None) or [op for row in transform.policy for op in row]
    for operator in ops:
        operator.aug_fn = noting(operator)
    random.seed(name)
    np.random.seed(len(name))
    image, records = Image.new("RGB", (1, 1)), []
    for _ in range(count):
        record.clear()
        transform(image)
        records.append(list(record))
    return records, transform


def _seen(name: str, *values: float) -> float:
    """timm's value as pixels show it: 1 bit is the least that our operator keeps, and beyond the edge is beyond it."""
    value = values[0] if values else 0.0
    if name == "Desaturate":
        return 1 - value
    if name == "GaussianBlurRand":
        return random.uniform(0.1, 2 * value)  # timm draws it when it blurs
    if name.startswith("Posterize"):
        return min(8.0, max(1.0, value))
    return min(1.0, max(-1.0, value)) if name.startswith("Translate") else value


def our_records(plan: Plan) -> Iterator[Record]:
    for i in range(len(plan)):
        drawn = zip(plan.choice[i].tolist(), plan.value[i].tolist(), strict=True)
        yield [(plan.choices[k].operator.name, _shown(plan.choices[k], value)) for k, value in drawn if k >= 0]


def _shown(choice: Choice, value: float) -> float:
    """Our value as pixels show it, a whole number where timm has one: read off the operator's own table."""
    name = choice.operator.name
    if name not in ("posterize", "solarize", "solarize_add"):
        return value
    table = choice.operator.function(torch.tensor([value]), **choice.options)[0, 0]
    if name == "posterize":
        return float(np.log2(len(table.unique())))
    if name == "solarize_add":
        return float(table[0])
    return float((table == torch.arange(256)).sum())  # none stays itself once it is inverted


def same_distribution(ours: Counter[Any], theirs: Counter[Any], least: float = 1e-4) -> None:
    """A chi-squared test of two samples; what is rare goes together."""
    keys = sorted({*ours, *theirs}, key=str)
    table = np.array([[ours[key], theirs[key]] for key in keys], dtype=float)
    rare = table.sum(1) < 12
    table = np.vstack([table[~rare], table[rare].sum(0)]) if table[rare].sum() >= 12 else table[~rare]
    assert table.sum() >= 0.9 * (sum(ours.values()) + sum(theirs.values()))
    if len(table) > 1:
        assert stats.chi2_contingency(table).pvalue > least, dict(zip(keys, table.tolist(), strict=False))


def compare(ours: list[Record], theirs: list[Record]) -> None:
    assert len(ours) == len(theirs)
    same_distribution(Counter(len(row) for row in ours), Counter(len(row) for row in theirs))
    same_distribution(*(Counter(name for row in rows for name, _ in row) for rows in (ours, theirs)))
    same_distribution(*(Counter(tuple(name for name, _ in row)[:2] for row in rows) for rows in (ours, theirs)))
    values: dict[str, list[list[float]]] = defaultdict(lambda: [[], []])
    for side, rows in enumerate((ours, theirs)):
        for row in rows:
            for name, value in row:
                values[name][side].append(round(value, 4))
    compared = 0
    for name, (mine, its) in values.items():
        if min(len(mine), len(its)) < 15:
            continue
        compared += 1
        assert stats.ks_2samp(mine, its).pvalue > 1e-4, (name, np.mean(mine), np.mean(its))
    assert compared >= 2


@pytest.mark.parametrize("name", [*RAND, *FIXED])
def test_operators_and_values_are_distributed_as_timm_draws_them(name: str) -> None:
    theirs, _ = timm_records(name, MANY)
    plan = Policy.load(name, seed=3).plan(torch.zeros(MANY, dtype=torch.int64))
    compare(list(our_records(plan)), theirs)


@pytest.mark.parametrize("name", [*AUGMIX, *(pytest.param(name, marks=pytest.mark.slow) for name in WIDE)])
def test_augmix_is_distributed_as_timm_draws_it(name: str) -> None:
    theirs, transform = timm_records(name, MANY)
    plan = Policy.load(name, seed=5).plan(torch.zeros(MANY, dtype=torch.int64))
    assert plan.branches is not None and plan.branches.weights.shape[1] == transform.width
    rows = list(our_records(plan.branches.plan))
    joined = [list(chain(*rows[i : i + transform.width])) for i in range(0, len(rows), transform.width)]
    compare(joined, theirs)
    assert stats.kstest(plan.branches.blend.numpy(), "uniform").pvalue > 1e-3
    if transform.width > 1:
        share = stats.beta(1, transform.width - 1)
        assert stats.kstest(plan.branches.weights[:, 0].numpy(), share.cdf).pvalue > 1e-3


@pytest.mark.parametrize("increasing", [0, 1])
def test_every_operator_of_a_fixed_magnitude_has_timm_s_value(increasing: int) -> None:
    names = auto_augment.rand_augment_choices("", increasing=bool(increasing))
    leveled = [name for name in names if auto_augment.LEVEL_TO_ARG[name] is not None]
    assert len(names) == 15 and len(leveled) == 12
    for magnitude in range(11):
        plan = Policy.load(f"rand-m{magnitude}-n1-p1.0-inc{increasing}").plan(torch.zeros(600, dtype=torch.int64))
        drawn = [one for row in our_records(plan) for one in row]
        for name in leveled:
            level = auto_augment.LEVEL_TO_ARG[name]
            wanted = {_seen(name, *level(magnitude, {})) for _ in range(40)}
            values = {value for operator, value in drawn if operator == LEVELS[name][0]}
            assert sorted(values) == pytest.approx(sorted(wanted), abs=1e-4), (name, magnitude)


def photos(count: int, size: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    small = torch.rand(count, 3, 6, 6, generator=generator)
    return (torch.nn.functional.interpolate(small, size=size, mode="bilinear") * 255).to(torch.uint8)


@pytest.mark.parametrize("name", ["rand-m9-n1-p1.0-inc1", "rand-m7-mstd1-n1-p1.0", "rand-m10-n1-p1.0-t3a"])
def test_pixels_are_timm_s(name: str) -> None:
    """timm's own functions at the values that we drew, one operator an image."""
    names = {"t3a": "3a", "inc1": "inc"}
    listed = auto_augment.rand_augment_choices(next((n for k, n in names.items() if k in name), ""), "inc1" in name)
    functions = {LEVELS[n][0]: (auto_augment.NAME_TO_OP[n], n) for n in listed}
    images = photos(90)
    policy = Policy.load(name, seed=2)
    out, _ = policy(images, torch.zeros(90, dtype=torch.int64))
    plan, errors = policy.last_plan, []
    assert plan is not None
    for i, row in enumerate(our_records(plan)):
        ((operator, value),) = row
        function, timm_name = functions[operator]
        arguments = () if LEVELS[timm_name][2] == "" else (_argument(timm_name, value),)
        picture = Image.fromarray(images[i].permute(1, 2, 0).numpy())
        wanted = function(picture, *arguments, fillcolor=(0, 0, 0), resample=Image.Resampling.BILINEAR)
        error = (torch.from_numpy(np.array(wanted)).permute(2, 0, 1).float() - out[i].float()).abs().mean().item()
        errors.append(error)
        assert error < 1.5, (operator, value, error)
    assert len(errors) == 90 and np.mean(errors) < 0.4


@pytest.mark.parametrize("increasing", [0, 1])
@pytest.mark.parametrize("magnitude", [1, 2, 3, 7, 9])
def test_levels_cut_to_whole_numbers_are_timm_s_to_the_pixel(magnitude: int, increasing: int) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(200, 3, 16, 16).contiguous()
    policy = Policy.load(f"rand-m{magnitude}-n1-p1.0-inc{increasing}", seed=1)
    out, _ = policy(ramp, torch.zeros(200, dtype=torch.int64))
    picture, plan, met = Image.fromarray(ramp[0].permute(1, 2, 0).numpy()), policy.last_plan, Counter[str]()
    assert plan is not None
    for i, choice in enumerate(plan.choices[k] for k in plan.choice[:, 0].tolist()):
        named = {"posterize": "Posterize", "solarize": "Solarize", "solarize_add": "SolarizeAdd"}.get(
            choice.operator.name, ""
        )
        if named:
            name = named if named == "SolarizeAdd" or not increasing else f"{named}Increasing"
            level = auto_augment.LEVEL_TO_ARG[name](magnitude, {})[0]
            wanted = auto_augment.NAME_TO_OP[name](picture, max(1, level) if named == "Posterize" else level)
            assert torch.equal(out[i], torch.from_numpy(np.array(wanted)).permute(2, 0, 1)), (name, level)
            met[named] += 1
    assert len(met) == 3 and min(met.values()) > 2


def _argument(name: str, value: float) -> float | int:
    if name == "Desaturate":
        return 1 - value
    return int(value) if name.startswith(("Posterize", "Solarize")) else value


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RAND, *FIXED, *AUGMIX, *WIDE, "augmix-a0.5-d0", "rand-n0"])
def test_a_string_is_a_document_that_may_be_written_down(name: str, registry: Registry, tmp_path: Any) -> None:
    assert is_timm(name)
    strategy = load_strategy(name, registry)
    assert strategy.name == name and strategy.file is None and not strategy.needs
    file = tmp_path / "written.yaml"
    file.write_text(yaml.dump(timm_document(name), Dumper=Plain, sort_keys=False))
    assert load_strategy(file, registry).hash == strategy.hash


def test_the_tables_are_timm_s() -> None:
    for name, rows in FOUND.items():
        theirs = auto_augment.auto_augment_policy(name)
        assert [[(op.name, op.prob, op.magnitude) for op in row] for row in theirs] == [list(row) for row in rows]
    assert set(LEVELS) == set(auto_augment.NAME_TO_OP) - {"TranslateX", "TranslateY"}


def test_a_registered_name_goes_first_and_strings_may_be_used(registry: Registry) -> None:
    inner = {"augkit": 1, "name": "outer", "pipeline": ["hflip", {"use": {"name": "rand-m9-mstd0.5-inc1", "p": 0.5}}]}
    strategy = load_strategy(inner, registry)
    used = strategy.pipeline[1].strategy  # type: ignore[union-attr]
    assert used.hash == load_strategy("rand-m9-mstd0.5-inc1", registry).hash
    validator = jsonschema.Draft202012Validator(json_schema(registry))
    validator.validate(inner)
    for name in RAND:
        validator.validate(timm_document(name))
    assert not is_timm("randaugment") and not is_timm("autoaugment_imagenet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rand-m9-x7", 'there is no part "x7"; rand takes m (magnitude, 10 unless said); n (operators an image'),
        ("rand-m9-msdt0.5", 'there is no part "msdt0.5"; rand takes m'),
        ("rand-", 'there is no part ""'),
        ("rand-m", 'there is no part "m"; rand takes m'),
        ("rand-m9-w0", '"w0" is a part that timm no longer takes; write tweights to draw operators by weight'),
        ("rand-m" + "9" * 400, "has more than 6 digits"),
        ("rand-mstd0." + "9" * 400, "has more than 6 digits"),
        ("rand-m\u0663", "there is no part"),
        ("rand-" + "x" * 30_000, "there is no part"),
        ("rand-m9.5", '"m9.5" must be a whole number'),
        ("rand-inc2", '"inc2" goes beyond 1'),
        ("rand-p1.5", '"p1.5" goes beyond 1'),
        ("rand-m9-m8", '"m" is given twice'),
        ("rand-tfoo", 'no set of operators "foo"; take tweights, t3a or t3aw'),
        ("rand-m20-mmax20-tweights", "a magnitude above 10 and operators by weight do not go together"),
        ("augmix-n3", 'there is no part "n3"; augmix takes m (magnitude, 3 unless said); w (chains'),
        ("original-m9", 'there is no part "m9"; original takes mstd'),
        ("v0-mstd", 'there is no part "mstd"'),
        ("rand-n65", '"rand-n65" cannot be a document: "n65" is more than the 64 operators that a pick draws at most'),
        ("rand-n100-tweights", '"n100" is more than the 64 operators'),
        ("rand-m15-mmax20-n20000", '"n20000" is more than the 64 operators'),
        ("rand-m15-mmax20-n35", '"n35" is more than the 34 operators that fit with a magnitude above 10'),
        ("rand-n16-tweights", '"n16" is more than the 15 operators, which are drawn without replacement'),
        ("augmix-w17", '"w17" is no number of chains from 1 to 16'),
        ("augmix-w99", '"w99" is no number of chains from 1 to 16'),
        ("augmix-w0", '"w0" is no number of chains from 1 to 16'),
        ("augmix-w4-d17", '"d17" is more than the 16 operators that a chain has at most with 4 chains'),
        ("augmix-d999999", '"d999999" is more than the 21 operators'),
        ("rands-m9", 'there is no strategy "rands-m9"'),
    ],
)
def test_what_timm_does_not_know_is_an_error(name: str, message: str, registry: Registry) -> None:
    with pytest.raises(DocumentError) as found:
        load_strategy(name, registry)
    assert message in str(found.value), str(found.value)
    assert len(str(found.value)) < 900 and "pipeline[" not in str(found.value)
    with pytest.raises(DocumentError, match="use") as found:
        load_strategy({"augkit": 1, "name": "outer", "pipeline": [{"use": name}]}, registry)
    assert message in str(found.value), str(found.value)


def test_the_most_that_a_string_may_ask_for_loads(registry: Registry) -> None:
    for name in ("rand-n64", "augmix-w16-d4", "augmix-w1-d64", "rand-m15-mmax20-n34", "rand-m999999"):
        assert load_strategy(name, registry).name == name


def test_show_prints_the_document(registry: Registry, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    show("rand-m9-n3-tweights")
    words, _, document = capsys.readouterr().out.partition("as a document:\n")
    assert "draws 3 operators from the palette" in words
    file = tmp_path / "shown.yaml"
    file.write_text(document)
    assert load_strategy(file, registry).hash == load_strategy("rand-m9-n3-tweights", registry).hash


def test_a_recipe_takes_a_string(registry: Registry) -> None:
    recipe = load_recipe("demo", registry, ["policy=rand-m9-mstd0.5-inc1", "base.before=[random_crop]"])
    assert recipe.policy_name == "rand-m9-mstd0.5-inc1"
    assert strategy_of(recipe, registry).name == "demo-rand-m9-mstd0.5-inc1"
