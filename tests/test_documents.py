"""Code blocks of README and docs run, documents in them load, links lead somewhere."""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import processes
import pytest
import torch
import typer
import yaml  # the documents here are plain enough for it
from PIL import Image

from augkit import hookspecs
from augkit.cli.app import build
from augkit.cli.reference import PARTS, documents_page
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
from augkit.strategy.model import MixStep, Strategy

PLAIN = {"augkit": 1, "name": "plain"}
ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "examples/README.md",
        *(ROOT / "plugins").rglob("README.md"),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
OPTIONAL = ("lightning",)
"""What pages show a loop of, and augkit does not install."""
UNREADABLE: Any = typer.BadParameter.__base__
"""What the command line raises of a call that it cannot read."""
COMMAND = re.compile(r"^augkit (?:[^'\"\n#]|'[^']*'|\"[^\"]*\"|#.*)*", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


def of_package(page: Path) -> bool:
    """Whether it is a package's own page, whose code wants files that its tests make."""
    return page.parent.parent == ROOT / "plugins"


def lacking(body: str) -> list[str]:
    """The libraries that a block imports and that are optional and not there."""
    return [name for name in OPTIONAL if f"import {name}\n" in body and importlib.util.find_spec(name) is None]


def anchors(page: Path) -> set[str]:
    """What links into a page may name: its headings as GitHub spells them."""
    titles = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", t)).strip().lower().replace(" ", "-")
        for t in titles
    }


def commands(page: Path) -> Iterator[list[str]]:
    """Every call of augkit in the indented blocks of a page, as words; `$short` stands for what the block says."""
    for block in re.findall(r"(?:^ {4}.*\n)+", page.read_text(), re.MULTILINE):
        text = dedent(block).replace("\\\n", " ")
        for name, value in re.findall(r'^(\w+)="([^"]*)"', text, re.MULTILINE):
            text = text.replace(f"${name}", " ".join(value.split()))
        for line in COMMAND.findall(text):
            words = shlex.split(line, comments=True)
            end = min((words.index(sign) for sign in (">", "|", "&&") if sign in words), default=len(words))
            yield words[1:end]


@lru_cache(maxsize=1)
def command_line() -> Any:
    return typer.main.get_command(build())


def parse(words: list[str]) -> None:
    """Let the command line read a call without doing it.

    Raises:
        UsageError: a verb, an option or an argument that is not there, is missing or does not fit.
    """
    command = command_line()
    context = command.make_context("augkit", words)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


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
    with processes.forked_workers():  # nothing here is about how they start
        for body in blocks(page, "python"):
            if not lacking(body):
                exec(compile(body, str(page), "exec"), namespace)


def test_a_preview_of_own_images_is_two_minutes_of_reading_away() -> None:
    read, found, _ = (ROOT / "docs/index.md").read_text().partition("augkit preview trivialaugment --data photos/")
    assert found and len(read.split()) < 2 * 150, "a slow reader reads 150 words a minute"


@pytest.mark.parametrize("library", OPTIONAL)
def test_blocks_of_a_library_that_is_no_dependency_are_run_where_it_is(library: str) -> None:
    shown = [body for page in PAGES for body in blocks(page, "python") if f"import {library}\n" in body]
    assert shown
    for body in shown:
        compile(body, library, "exec")
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"the block is valid Python; {library} is not installed, so it was not run")


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


def test_steps_that_tables_show_load() -> None:
    text = (ROOT / "docs/migration.md").read_text() + documents_page(registry())
    steps = [step for step in re.findall(r"`(- [^`]+)`", text) if "..." not in step and ":Name" not in step]
    assert len(steps) > 20
    for step in steps:
        assert load_strategy({**PLAIN, "palette": "timm15", "pipeline": yaml.safe_load(step)}, registry()).hash, step


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", CODE.sub("", page.read_text())):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(commands(page))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_command_line_reads_what_pages_call(page: Path) -> None:
    for words in commands(page):
        if "--install-completion" in words:
            continue  # would write into the home of whoever runs the tests
        try:
            parse(words)
        except typer.Exit:  # --help and the like
            continue
        except UNREADABLE as error:
            pytest.fail(f"augkit {' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("line", ["validat x.yaml", "train demo --no-such 1", "show", "train demo extra", "synth plan"])
def test_a_call_that_cannot_be_read_is_found(line: str) -> None:
    with pytest.raises(UNREADABLE):
        parse(line.split())


def test_every_hook_is_documented() -> None:
    text = (ROOT / "plugins/README.md").read_text()
    hooks = [(name, hook) for name, hook in vars(hookspecs).items() if name.startswith("augkit_")]
    assert len(hooks) >= 12
    for name, hook in hooks:
        assert f"| `{name}({', '.join(inspect.signature(hook).parameters)})` | " in text, name


def test_the_reference_of_documents_has_every_field_and_function() -> None:
    text = documents_page(registry())
    for name in Strategy.model_fields:
        assert f"| `{name}` | " in text.partition("## image")[0], name
    for heading, _, model in (*PARTS, ("mixing", "", MixStep)):
        part = re.split("^## ", text.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        rows = {
            name: (kind, said) for name, kind, said in re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \|", part, re.M)
        }
        assert set(model.model_fields) - {"kind"} <= set(rows), heading
        for name, field in model.model_fields.items():
            assert name == "kind" or (field.description or "") in part, name
            if field.is_required() and name in rows and name != "set":
                assert rows[name][1] == "*required*", name
    assert all(f"| `{function.signature}` | {function.meaning} |" in text for function in FUNCTIONS.values())
    assert "| `count` | expression | `1` | how many operators to draw, at most 64 |" in text


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
