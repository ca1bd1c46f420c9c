"""Code blocks of README and docs run, documents in them load, links lead somewhere."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # the documents here are plain enough for it
from PIL import Image

from augkit.lab.data import load
from augkit.lab.loop import prepare, train_epoch
from augkit.lab.losses import LOSSES
from augkit.lab.named import LOSS_FACTS, options_of
from augkit.lab.recipe import Recipe, load_recipe
from augkit.lab.recipe_parts import DataRecipe, StageRecipe
from augkit.lab.samplers import SAMPLERS
from augkit.plugins import load_registry, registry
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.strategy.functions import FUNCTIONS

PLAIN = {"augkit": 1, "name": "plain"}
ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "plugins").rglob("README.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


def of_package(page: Path) -> bool:
    """Whether it is a package's own page, whose code wants files that its tests make."""
    return page.parent.parent == ROOT / "plugins"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small ImageFolder under data/train."""
    generator = np.random.default_rng(0)
    for label in ("cat", "dog", "owl"):
        folder = tmp_path / "data/train" / label
        folder.mkdir(parents=True)
        for number in range(6):
            Image.fromarray(generator.integers(0, 256, (70, 70, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pages_are_found() -> None:
    assert {"README.md", "design.md", "timm.md"} <= {page.name for page in PAGES}
    assert len(blocks(ROOT / "README.md", "python")) >= 3


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python") and not of_package(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_python_runs_from_top_to_bottom(page: Path, workplace: Path) -> None:
    namespace: dict[str, object] = {}
    for body in blocks(page, "python"):
        exec(compile(body, str(page), "exec"), namespace)


def test_functions_of_the_page_train() -> None:
    found, namespace = load_registry(plugins=False), dict[str, Any]()
    for body in blocks(ROOT / "docs/recipes.md", "python"):
        exec(body, namespace)
    brought = {name: hook() for name, hook in namespace.items() if name.startswith("augkit_")}
    kinds = ("losses", "samplers", "subsets", "stages", "answers")
    mine = Registry(**{**vars(found), **{kind: {**vars(found)[kind], **brought[f"augkit_{kind}"]} for kind in kinds}})
    parts = [yaml.safe_load(body) for body in blocks(ROOT / "docs/recipes.md", "yaml")]
    whole = load_recipe({**PLAIN, **{name: value for part in parts for name, value in part.items()}}, mine)
    assert [stage.name for stage in whole.stages] == ["train", "finetune_head"]
    assert whole.sources is not None and whole.sources.folder == "synth/"
    told = ["epochs=2", "model=resnet8_cifar", "data.image_size=16", "data.test_share=0.8", "policy=mixup"]
    told += ["data.imbalance=10", "threads=1"]
    told += ["loss={name: label_aware_smoothing, most: 0.3}", "sampler=progressive", "stages=[train, finetune_top]"]
    told += ["answer={name: top_k, k: 3}", "subset={name: least_sure, share: 0.5, every: 2, of: training}"]
    recipe = load_recipe("demo", mine, told)
    run = prepare(recipe, load(recipe.data), mine, torch.device("cpu"))
    assert all(math.isfinite(train_epoch(run)["loss"]) for _ in range(3))
    assert not run.model.conv1.weight.requires_grad  # type: ignore[union-attr]
    assert (
        run.policy.answer(torch.arange(10.0)[None].expand(10, -1), torch.arange(10)).tolist()
        == [False] * 7 + [True] * 3
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_strategies_load(page: Path) -> None:
    for body in blocks(page, "yaml"):
        document = yaml.safe_load(body)
        if isinstance(document, dict) and "pipeline" in document:
            assert load_strategy(document, registry()).hash


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_function_is_documented() -> None:
    text = (ROOT / "docs/documents.md").read_text()
    for function in FUNCTIONS.values():
        assert f"| `{function.signature}` | {function.meaning} |" in text


def test_every_palette_and_recipe_field_is_documented() -> None:
    documents, recipes = ((ROOT / "docs" / name).read_text() for name in ("documents.md", "recipes.md"))
    built_in = load_registry(plugins=False)
    for name in (*built_in.palettes, *built_in.strategies):
        assert f"`{name}`" in documents
    for field in ("data", "base", *Recipe.model_fields):
        if field not in ("augkit", "name", "title", "source"):
            assert f"`{field}" in recipes, field
    for field in DataRecipe.model_fields:
        assert f"`data.{field}`" in recipes, field
    for loss in LOSSES.values():
        for option, parameter in options_of(loss, LOSS_FACTS).items():
            assert f"`{option}: {parameter.default:g}`" in recipes, option
    for name in (*LOSSES, *SAMPLERS, *set(StageRecipe.model_fields) - {"name"}):
        assert f"`{name}`" in recipes, name
