"""Make docs/screenshots/preview-page.webp anew: python tests/preview_screenshot.py FOLDER

Cuts scikit-learn's two photos into the images of two classes in FOLDER, previews the README's strategy on them, and
takes what Chromium shows.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
from browser import started
from PIL import Image
from sklearn.datasets import load_sample_image

from augkit.cli.previews import write_preview

ROOT = Path(__file__).resolve().parent.parent


def crops(folder: Path, name: str, photo: str, count: int, at: tuple[int, int], side: int) -> None:
    """`count` squares of a photo, each a little aside of the one before."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    picture, generator = Image.fromarray(load_sample_image(photo)), np.random.default_rng(0)
    for number in range(count):
        left, top = (int(place + generator.integers(-15, 15)) for place in at)
        picture.crop((left, top, left + side, top + side)).save(folder / name / f"{name}{number:02}.jpg", quality=95)


def main(folder: Path) -> None:
    photos = folder / "pictures"
    crops(photos, "temple", "china.jpg", 60, (150, 30), 330)
    crops(photos, "flower", "flower.jpg", 9, (190, 60), 260)
    document = next(body for body in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S))
    (folder / "as-strong-as-learned.yaml").write_text(document, encoding="utf-8")
    out = folder / "preview.html"
    write_preview(str(folder / "as-strong-as-learned.yaml"), str(photos), out, images=8, seed=0, epoch=0, size=128)
    with started() as browser, browser.opened(out, width=1000, height=900) as page:
        page.get_by_role("slider").press("End")
        page.locator("img[data-at]").nth(3).hover()
        page.wait_for_timeout(300)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(ROOT / "docs" / "screenshots" / "preview-page.webp", quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
