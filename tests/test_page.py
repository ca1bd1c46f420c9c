"""The base of every HTML page: in a real browser, from disk, without a network."""

from __future__ import annotations

import re
from pathlib import Path

import altair
import jinja2
import pytest
from browser import Browser
from PIL import Image

from augkit.report import page as pages

TEMPLATE = """{% extends "page.html.j2" %}{% block title %}A {{ name }}{% endblock %}{% block body %}<h1>{{ name }}</h1>
<div class="table"><div class="bar"></div>
<table class="sortable"><thead><tr><th>class</th><th class="n">gain</th><th class="n">test</th><th>it</th></tr></thead>
<tbody><tr><td>b</td><td>+2.5</td><td>9.5</td><td>1st</td></tr><tr><td>a</td><td>−10.0</td><td>failed</td><td>d</td></tr>
<tr><td>c</td><td>–</td><td>10.1</td><td>z</td></tr></tbody></table></div>
{{ chart }}{{ picture }}{% endblock %}"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        jinja2, "ChoiceLoader", lambda given: jinja2.loaders.ChoiceLoader([jinja2.DictLoader({"t": TEMPLATE}), *given])
    )
    rows = [{"epoch": e, "accuracy": e / 10, "name": "</script><b>"} for e in range(5)]
    drawn = altair.Chart(altair.Data(values=rows)).mark_line(point=True).encode(x="epoch:Q", y="accuracy:Q")
    facts = {
        "name": "<i>run</i>",
        "chart": pages.chart(drawn.properties(width="container"), "accuracy grows from 0 to 0.4", "Below it."),
        "picture": pages.picture(Image.new("RGB", (4, 3), "#c02040"), 'a "red" image', lossless=True),
    }
    path = tmp_path / "page.html"
    path.write_text(pages.render("t", facts), encoding="utf-8")
    return path


def test_what_is_told_cannot_become_markup(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "<title>A &lt;i&gt;run&lt;/i&gt;</title>" in text and "<i>" not in text
    assert "</script><b>" not in text and 'alt="a &#34;red&#34; image"' in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert len(text) < 1.5e6


def test_a_missing_fact_is_an_error(written: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="name"):
        pages.render("t", {})


def test_data_that_no_browser_reads_are_refused() -> None:
    drawn = altair.Chart(altair.Data(values=[{"x": float("nan")}])).mark_point().encode(x="x:Q")
    with pytest.raises(ValueError, match="JSON"):
        pages.chart(drawn, "words")


@pytest.mark.slow
def test_in_a_browser(written: Path, browser: Browser) -> None:
    with browser.opened(written) as page:
        page.wait_for_selector("figure.chart[data-drawn=light] svg")
        assert page.locator(".vega").get_attribute("aria-label") == "accuracy grows from 0 to 0.4"
        assert page.evaluate("document.querySelector('img').naturalWidth") == 4
        heading = page.get_by_role("columnheader", name="gain")
        for order in (["a", "b", "c"], ["b", "a", "c"]):  # what is missing stays last
            heading.get_by_role("button").press("Enter")  # by the keyboard
            assert page.locator("tbody td:first-child").all_inner_texts() == order
        assert heading.get_attribute("aria-sort") == "descending"
        # numbers and a word, then words and a number
        for name, order in (("test", ["b", "c", "a"]), ("it", ["b", "a", "c"])):
            page.get_by_role("columnheader", name=name).get_by_role("button").click()
            assert page.locator("tbody td:first-child").all_inner_texts() == order
        page.get_by_role("columnheader", name="test").get_by_role("button").click()
        page.get_by_role("columnheader", name="test").get_by_role("button").click()
        assert page.locator("tbody td:first-child").all_inner_texts() == ["c", "b", "a"]
        heading.get_by_role("button").click()
        heading.get_by_role("button").click()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy table").click()
        page.wait_for_function("document.getElementById('said').textContent.startsWith('Copied')")
        assert page.evaluate("navigator.clipboard.readText()").split("\n")[1:] == [
            "b\t+2.5\t9.5\t1st",
            "a\t−10.0\tfailed\td",
            "c\t–\t10.1\tz",
        ]
        page.get_by_role("button", name="Colours").click()  # light
        page.get_by_role("button", name="Colours").click()  # dark
        page.wait_for_selector("figure.chart[data-drawn=dark] svg")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 30)"
    with browser.opened(written, dark=True) as page:
        page.wait_for_selector("figure.chart[data-drawn=dark] svg")


@pytest.mark.slow
def test_paper_is_light_and_holds_what_one_reads(written: Path, browser: Browser) -> None:
    """Printed from dark colours: at once, for nothing can be drawn anew between the command and the print."""

    def style(of: str, name: str, part: str = "") -> str:
        return str(page.evaluate(f"getComputedStyle(document.querySelector('{of}'), '{part}')['{name}']"))

    with browser.opened(written, dark=True) as page:
        page.wait_for_selector("figure.chart[data-drawn=dark] svg")
        assert style(".vega .role-axis-title text", "fill") == "rgb(230, 232, 235)"
        page.evaluate("document.querySelector('main').append(document.createElement('pre'))")
        page.set_viewport_size({"width": 600, "height": 800})  # Vega draws on resizing alone, so paper only scales
        page.emulate_media(media="print", color_scheme="dark")
        assert style("body", "backgroundColor") == "rgb(255, 255, 255)" and style("body", "color") == "rgb(31, 35, 40)"
        assert style(".vega .role-axis-title text", "fill") == "rgb(31, 35, 40)"
        assert style(".vega .role-axis-label text", "fill") == "rgb(89, 99, 110)"
        assert style(".vega .role-axis-grid line", "stroke") == "rgb(216, 221, 227)"
        assert style(".vega", "printColorAdjust") == "exact"
        assert not page.get_by_role("button", name="Copy table").is_visible()
        assert style("th button", "display", "::after") == "none" and style("pre", "whiteSpace") == "pre-wrap"
        page.evaluate("document.querySelector('.vega').style.width = '300px'")
        drawn = page.locator(".vega svg").first.evaluate(
            "s => [s.clientWidth / s.clientHeight, s.viewBox.baseVal.width / s.viewBox.baseVal.height]"
        )
        assert drawn[0] == pytest.approx(drawn[1], rel=0.02), "no gaps above and below"
