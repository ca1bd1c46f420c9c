"""A page of previews in a real browser: the slider by keyboard, words on hover and focus, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from browser import Browser

from augkit.plugins import registry
from augkit.policy import Policy
from augkit.report.preview import Samples
from augkit.report.preview_page import page as page_of
from augkit.strategy.document import load_strategy

COUNTS, NAMES = (40, 9), ("newts", "<i>toads")
DOCUMENT = {
    "augkit": 1,
    "name": "both",
    "palette": ["invert", {"rotate": {"low": 5, "high": 45}}],
    "state": {"level": {"axes": ["classes"], "init": 0, "clamp": [0, 1]}},
    "pipeline": [
        {"pick": {"p": "level[y] > 0", "count": 2, "strength": "level[y]"}},
        {"posterize": {"p": "epoch > 50", "bits": 2}},
    ],
    "update": [{"at": "epoch_end", "set": {"level": "level + 0.1"}}],
}
PICTURES = "[...document.querySelectorAll('img[data-at]')].map((image) => [image.currentSrc, image.naturalWidth])"


def write(path: Path, side: int) -> Path:
    ramp = torch.linspace(0, 250, side)
    plane = ramp.expand(side, side)
    images = torch.stack([torch.stack([plane, plane.T, 0.2 * plane + 20 * i]) for i in range(6)]).to(torch.uint8)
    samples = Samples(images, torch.tensor([0, 0, 0, 1, 1, 1]), torch.arange(6), NAMES, COUNTS)
    strategy, found = load_strategy(DOCUMENT, registry()), registry()
    make = lambda: Policy(strategy, class_counts=COUNTS, class_names=NAMES, epochs=100, registry=found)  # noqa: E731
    path.write_text(page_of(make, samples, data="pond", command="augkit preview both"), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_slider_shows_other_pictures(browser: Browser, tmp_path: Path) -> None:
    with browser.opened(write(tmp_path / "preview.html", 16)) as page:
        slider = page.get_by_role("slider", name="level")
        assert page.locator("#now").inner_text() == "0.6" and page.locator(".same").count() == 0
        assert "begins at 0, where images stay as they are" in page.locator("#what").inner_text()
        slider.press("Home")
        first = page.evaluate(PICTURES)
        assert {width for _, width in first} == {16}
        assert page.locator("#changed").inner_text() == "0 of 12 pictures changed"
        assert page.locator(".same").count() == 12
        slider.focus()
        page.keyboard.press("ArrowRight")
        second = page.evaluate(PICTURES)
        assert slider.get_attribute("aria-valuetext") == f"level {page.locator('#now').inner_text()}" == "level 0.2"
        assert all(a != b for a, b in zip(first, second, strict=True)) and {width for _, width in second} == {16}
        assert page.locator(".same").count() == 0
        page.keyboard.press("End")
        assert page.locator("#now").inner_text() == "1" and page.evaluate(PICTURES) != second
        assert "invert" in (page.locator("img[data-at]").first.get_attribute("alt") or "")
        page.keyboard.press("Home")
        assert page.evaluate(PICTURES) == first
        page.get_by_label("What changes").select_option("epoch")
        page.get_by_role("slider", name="epoch").press("End")
        assert page.locator("#now").inner_text() == "99"
        assert "posterize 2 bits" in (page.locator("img[data-at]").first.get_attribute("alt") or "")
        assert page.get_by_role("heading", name="<i>toads").count() == 1


@pytest.mark.slow
def test_words_come_by_hover_focus_and_for_all(browser: Browser, tmp_path: Path) -> None:
    with browser.opened(write(tmp_path / "preview.html", 16), width=400) as page:
        page.get_by_role("slider").press("End")
        images, tip = page.locator("img[data-at]"), page.locator("#tip")
        images.nth(2).hover()
        assert "image 1, draw 1" in tip.inner_text() and "rotate" in tip.inner_text()
        page.mouse.move(1, 1)
        assert not tip.is_visible()
        page.get_by_label("Words under every image").focus()
        page.keyboard.press("Tab")  # one stop for all pictures
        for key, name in (("", "image 0, draw 1"), ("ArrowRight", "image 0, draw 2"), ("ArrowDown", "image 3, draw 2"),
                          ("End", "image 5, draw 2"), ("ArrowUp", "image 2, draw 2")):  # fmt: skip
            if key:
                page.keyboard.press(key)
            assert page.evaluate("document.activeElement.dataset.name") == name
            assert tip.is_visible() and name in tip.inner_text()
            box = tip.bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= 400 and box["y"] >= 0
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.dataset.name") is None
        assert not page.locator(".words").first.is_visible()
        page.get_by_label("Words under every image").check()
        assert page.locator(".words").first.is_visible() and "rotate" in page.locator(".words").first.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.slow
def test_dark_and_large_pictures(browser: Browser, tmp_path: Path) -> None:
    with browser.opened(write(tmp_path / "preview.html", 144), dark=True) as page:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 30)"
        assert {width for _, width in page.evaluate(PICTURES)} == {128}
        assert page.evaluate("getComputedStyle(document.querySelector('img')).imageRendering") == "auto"
