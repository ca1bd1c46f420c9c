"""The page of a search as `augkit report` gives it, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from augkit_llm.budget import Budget
from augkit_llm.evaluate import Stage
from augkit_llm.report import write
from browser import executable, started
from llm_search_parts import flat, many_replies, new, settings, transcript
from typer.testing import CliRunner

from augkit.cli.app import build


@pytest.mark.slow
@pytest.mark.skipif(executable() is None, reason="there is no Chromium on this machine")
def test_a_search_has_its_report_by_the_core_s_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat(monkeypatch)
    model = transcript(tmp_path / "t.jsonl", many_replies(9, 4))
    stages = (Stage("short", 1, 2, keep=2), Stage("full", 2, 2))
    with new(tmp_path / "found", settings(tmp_path, [model, "none"], 4, stages), Budget(40, usd=3.0)) as search:
        search.run()
    done = CliRunner().invoke(build(), ["report", str(tmp_path / "found")])
    page = tmp_path / "found" / "report.html"
    assert done.exit_code == 0 and done.stdout.strip() == str(page), done.output
    assert page.read_text() == write(tmp_path / "found").read_text()
    with started() as browser, browser.opened(page, dark=True, width=400) as opened:
        opened.wait_for_function("[...document.querySelectorAll('figure.chart')].every(f => f.dataset.drawn == 'dark')")
        assert opened.locator(".vega svg").count() == 2
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        opened.locator("#table-fates").get_by_role("button", name="how many").click()
        counts = [int(text) for text in opened.locator("#table-fates tbody td:nth-child(2)").all_inner_texts()]
        assert counts == sorted(counts)
    refused = CliRunner().invoke(
        build(), ["report", str(tmp_path / "found"), str(tmp_path / "found"), "--out", "x.html"]
    )
    assert refused.exit_code == 2 and "against itself" in refused.stderr
