"""The documentation as a site: it builds without a warning, works from disk, and asks no other machine for anything."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from browser import Browser
from fixtures import REPOSITORY

import augkit
from augkit.cli.docs import INTEGRATED, examples_page, python_page

CONFIG = REPOSITORY / "mkdocs.yml"


def build(target: Path, **changes: object) -> list[str]:
    """Build the site as `make docs` does; what a strict build fails for."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    config = load_config(str(CONFIG), site_dir=str(target), **changes)
    told: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    kept = Kept(logging.WARNING)
    logging.getLogger("mkdocs").addHandler(kept)
    config.plugins.on_startup(command="build", dirty=False)
    try:
        build_site(config)
    finally:
        logging.getLogger("mkdocs").removeHandler(kept)
        config.plugins.on_shutdown()
    return told


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site."""
    target = tmp_path_factory.mktemp("site")
    assert build(target) == []
    return target


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ({"index.md": "# A\n\n[there](b.md#here)\n", "b.md": "# B\n\n## here\n"}, ""),
        ({"index.md": "# A\n\n[there](c.md)\n", "b.md": "# B\n"}, "'c.md'"),
        ({"index.md": "# A\n\n[there](b.md#gone)\n", "b.md": "# B\n"}, "#gone"),
        ({"index.md": "# A\n\n![picture](gone.png)\n", "b.md": "# B\n"}, "gone.png"),
        ({"index.md": "# A\n", "b.md": "# B\n", "lost.md": "# C\n"}, "lost.md"),
    ],
    ids=["whole", "dead link", "dead anchor", "missing picture", "orphan"],
)
def test_what_leads_nowhere_fails_the_build(pages: dict[str, str], reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in pages.items():
        (folder / name).write_text(text)
    changes = {"docs_dir": str(folder), "hooks": [], "nav": [{"A": "index.md"}, {"B": "b.md"}], "plugins": []}
    changes |= {"theme": {"name": "mkdocs"}, "extra_css": []}
    told = build(tmp_path / "site", **changes)
    assert bool(told) == bool(reason) and all(reason in line for line in told)


def test_the_python_page_has_what_is_public() -> None:
    asked = re.findall(r"^::: (\S+)$", python_page(augkit.__all__), re.MULTILINE)
    public = {f"augkit.{name}" for name in augkit.__all__ if not name.startswith("_")}
    assert set(asked) == public | {f"augkit.integrations.{name}" for name in INTEGRATED}


def test_every_example_is_on_its_page() -> None:
    page = examples_page(REPOSITORY / "examples")
    for path in (REPOSITORY / "examples").glob("*.py"):
        assert f"## {path.name}\n" in page and path.read_text().rstrip() in page


@pytest.mark.slow
def test_the_site_holds_every_page(site: Path) -> None:
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    written = {path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")}
    assert {str(path.with_suffix(".html")).replace("README", "index") for path in written} <= pages
    made = {"command-line", "documents", "python", "strategies"}
    assert {f"reference/{name}.html" for name in made} <= pages
    assert 'href="#plain_pytorchpy"' in (site / "examples.html").read_text()
    assert (site / "reference/strategy.schema.json").stat().st_size > 10_000
    assert not list(site.rglob("*.py"))
    methods = (site / "methods/index.html").read_text()
    assert 'href="../plugins/augkit-cuda/index.html"' in methods, "links out of docs/ lead to pages of the site"
    python = (site / "reference/python.html").read_text()
    assert all(f'id="augkit.{name}"' in python for name in ("Policy.load", "Policy.observe", "Output", "operator"))
    for path in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="?(https?:[^" >]+)', path.read_text())
        assert not fetched, path


@pytest.mark.slow
def test_the_site_works_from_disk(site: Path, browser: Browser) -> None:
    with browser.opened(site / "index.html") as page:
        page.locator(".md-search__input").click()
        page.keyboard.type("trivialaugment")
        found = page.locator(".md-search-result__link[href*='h=trivialaugment']")
        found.first.wait_for()
        assert "trivialaugment" in " ".join(found.all_text_contents()).lower()
        found.first.click()
        page.wait_for_url("**/*.html?h=trivialaugment*")
        assert page.locator("article mark").count()


@pytest.mark.slow
def test_pages_are_light_and_dark(site: Path, browser: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with browser.opened(site / "concepts.html") as page:
        light = page.evaluate(background)
        page.locator("label[title='Dark pages']").click()
        page.locator("body[data-md-color-scheme='slate']").wait_for()
        dark = page.evaluate(background)
        assert light == "rgb(255, 255, 255)" and sum(map(int, re.findall(r"\d+", dark)[:3])) < 150
    with browser.opened(site / "concepts.html", dark=True) as page:
        page.locator("body[data-md-color-scheme='slate']").wait_for()


@pytest.mark.slow
def test_pictures_load(site: Path, browser: Browser) -> None:
    shown = 0
    for path in site.rglob("*.html"):
        for source in re.findall(r'<img [^>]*src="([^"]+)"', path.read_text()):
            assert (path.parent / source).exists(), f"{path.name} shows {source}"
            shown += 1
    assert shown > 90
    for name, least in (("operators.html", 80), ("concepts.html", 1)):  # the kinds of files that pages show
        with browser.opened(site / name) as page:
            page.evaluate("document.querySelectorAll('img').forEach(each => each.loading = 'eager')")
            page.wait_for_function("[...document.images].every(each => each.complete)")
            loaded = page.evaluate("[...document.images].map(each => each.naturalWidth > 0)")
            assert all(loaded) and len(loaded) >= least, name
