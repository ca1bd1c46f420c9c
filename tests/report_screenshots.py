"""Make docs/screenshots/report-*.webp anew: real runs, their pages, and what Chromium shows of them.

    python tests/report_screenshots.py FOLDER

Trains into FOLDER what is not there yet (some minutes), so that a second call only takes the pictures.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from browser import Browser, started
from PIL import Image

from augkit.lab.compare import compare
from augkit.lab.grid import plan
from augkit.lab.reports import write
from augkit.lab.run import train

PLACE = Path(__file__).resolve().parent.parent / "docs" / "screenshots"
POLICIES = ("none", "trivialaugment", "uniform_class_choice")


def take(browser: Browser, page: Path, name: str, *, at: str | None = None, dark: bool = False) -> None:
    """The part of a page that begins at an element, or its top, as docs/screenshots/NAME.webp."""
    with browser.opened(page, dark=dark, height=1250) as opened:
        opened.wait_for_function("[...document.querySelectorAll('figure.chart')].every(one => one.dataset.drawn)")
        if at is not None:
            opened.evaluate(f"document.querySelector('{at}').scrollIntoView()")
        picture = Image.open(io.BytesIO(opened.screenshot()))
    picture.convert("RGB").save(PLACE / f"{name}.webp", quality=80, method=6)


def main(folder: Path) -> None:
    """Train, write pages, take pictures."""
    run = train("demo", ["policy=cuda", "data.validation=0.1"], folder / "cuda", resume=(folder / "cuda").exists())
    compare(plan("demo", POLICIES, seeds=(0, 1, 2), fast=True), folder / "cmp")
    pages = [write([place]) for place in (run, folder / "cmp")]
    with started() as browser:
        take(browser, pages[0], "report-run")
        take(browser, pages[0], "report-run-dark", at="#policy", dark=True)
        take(browser, pages[1], "report-comparison")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
