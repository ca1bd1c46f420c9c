"""Code blocks of README and docs run, documents in them load, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml  # the documents here are plain enough for it
from PIL import Image

from augkit.lab.recipe import DataRecipe, Recipe
from augkit.plugins import load_registry, registry
from augkit.strategy.document import load_strategy
from augkit.strategy.functions import FUNCTIONS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "plugins/README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


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


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_runs_from_top_to_bottom(page: Path, workplace: Path) -> None:
    namespace: dict[str, object] = {}
    for body in blocks(page, "python"):
        exec(compile(body, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_strategies_load(page: Path) -> None:
    for body in blocks(page, "yaml"):
        document = yaml.safe_load(body)
        if isinstance(document, dict) and "pipeline" in document:
            assert load_strategy(document, registry()).hash


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_function_is_documented() -> None:
    text = (ROOT / "docs/documents.md").read_text()
    for function in FUNCTIONS.values():
        assert f"| `{function.signature}` | {function.meaning} |" in text


def test_every_palette_and_recipe_field_is_documented() -> None:
    documents, recipes = ((ROOT / "docs" / name).read_text() for name in ("documents.md", "recipes.md"))
    for palette in load_registry(plugins=False).palettes:
        assert f"`{palette}`" in documents
    for field in ("data", "base", *Recipe.model_fields):
        if field not in ("augkit", "name", "title", "source"):
            assert f"`{field}" in recipes, field
    for field in DataRecipe.model_fields:
        assert f"`data.{field}`" in recipes, field
