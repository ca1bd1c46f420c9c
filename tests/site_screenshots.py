"""Make docs/screenshots/site-*.webp anew, from the site that `make docs` built: python tests/site_screenshots.py"""

from __future__ import annotations

import io
from pathlib import Path

from browser import started
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SITE, PLACE = ROOT / "site", ROOT / "docs" / "screenshots"


def keep(png: bytes, name: str) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB").resize((1024, 640), Image.Resampling.LANCZOS)
    picture.save(PLACE / f"{name}.webp", quality=80, method=6)


def main() -> None:
    with started() as browser:
        with browser.opened(SITE / "index.html", width=1280) as page:
            page.locator(".md-search__input").click()
            page.keyboard.type("trivialaugment")
            page.locator(".md-search-result__link[href*='h=trivialaugment']").first.wait_for()
            page.wait_for_timeout(500)  # the list of results unfolds
            keep(page.screenshot(), "site-search")
        with browser.opened(SITE / "concepts.html", dark=True, width=1280) as page:
            page.locator("body[data-md-color-scheme='slate']").wait_for()
            page.wait_for_timeout(500)  # colours fade in
            keep(page.screenshot(), "site-dark")


if __name__ == "__main__":
    main()
