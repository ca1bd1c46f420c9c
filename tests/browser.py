"""Pages in a real browser, where a console error or a request off the machine fails the test.

    def test_the_page(browser: Browser, tmp_path: Path) -> None:
        with browser.opened(tmp_path / "report.html") as page:  # a playwright.sync_api.Page
            page.get_by_role("button", name="Copy table").first.click()

Use the fixture by `from browser import Browser` and the argument `browser`; it is skipped where there is no Chromium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page


LOCAL = ("file:", "data:", "blob:")


def executable() -> str | None:
    """A Chromium of this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A Chromium that opens files."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextmanager
    def opened(self, path: Path, *, dark: bool = False, width: int = 1100, height: int = 800) -> Iterator[Page]:
        """A page from disk; on leaving, it must have complained of nothing and asked no other machine for anything."""
        context = self._chromium.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}, offline=True
        )
        page = context.new_page()
        page.set_default_timeout(10_000)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(LOCAL) else complaints.append(asked.url),
        )
        page.on("requestfailed", lambda asked: complaints.append(f"{asked.url}: {asked.failure}"))
        try:
            page.goto(path.resolve().as_uri())
            yield page
            assert not complaints, complaints
        finally:
            context.close()


@contextmanager
def started() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # root has no sandbox in a container, and the pages are ours
        chromium = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()
