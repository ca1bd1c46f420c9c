"""Reports: what they tell of a search, that they claim no more than the errors allow, and what they refuse."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.evaluate import Stage
from augkit_llm.gaps import WIDTH, gap
from augkit_llm.models import Message, Question
from augkit_llm.report import write
from augkit_llm.reward import Score
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from llm_search_parts import RECIPE, document, flat, many_replies, new, recipe, reply, settings, transcript
from typer.main import get_command
from typer.testing import CliRunner

from augkit.cli.app import build
from augkit.errors import DataError, StateError

STAGES = (Stage("short", 1, 2, keep=2), Stage("full", 2, 2))
EVIL = "<script>alert(1)</script> & {{ 7 * 7 }} $x_$"


@pytest.fixture(autouse=True)
def landscape(monkeypatch: pytest.MonkeyPatch) -> None:
    flat(monkeypatch)


def searched(folder: Path, models: Sequence[str], evaluations: int = 40, **more: Any) -> Path:
    """A search on the landscape; its folder."""
    folder.mkdir(exist_ok=True)
    with new(folder / "found", settings(folder, models, 4, STAGES, **more), Budget(evaluations, usd=3.0)) as search:
        search.run()
    return folder / "found"


def told(folder: Path, *against: Path) -> tuple[dict[str, Any], str]:
    """The figures of a report and its page."""
    page = write(folder, against)
    return json.loads((folder / "report" / "results.json").read_text()), page.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags with what they point at, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_agrees_with_the_archive_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    folder = searched(tmp_path, [transcript(tmp_path / "t.jsonl", many_replies(9, 4))])
    results, page = told(folder)
    main, archive = results["searches"][0], Archive.read(folder / FILE)
    candidates, runs = archive.candidates(), archive.evaluations()
    model = main["by_model"][0]
    assert sum(row["number"] for row in main["fates"]) == len(candidates) == len(main["candidates"])
    assert main["spent"]["evaluations"] == len(runs) == sum(row["runs"] for row in main["training"])
    valid = [one for one in candidates if one.document]
    assert (model["valid_after_repair"], model["strategies"]) == (len(valid), len(candidates))
    assert model["valid_at_once"] == sum(one.attempts == 1 for one in valid) < model["valid_after_repair"]
    assert model["usd"] == pytest.approx(archive.spent().usd) and model["tokens_counted"] == archive.spent().tokens
    archive.close()
    assert f"# sha256: {main['winners'][0]['hash']}" in (folder / "best.yaml").read_text()
    points = main["curves"][1]["points"]
    assert main["winners"][0]["hash"] in [one["hash"] for one in points] and len(main["curves"][1]["controls"]) == 3
    assert [one["evaluations"] for one in points] == sorted(one["evaluations"] for one in points)
    read = Page(page)
    assert set(read.addresses) == {"data:,", "#content"} and len(main["curves"]) == page.count('class="vega"')
    assert f"{main['winners'][0]['reward']:.3f}" in read.text and "search stopped: " in read.text
    assert "The test set has not been read" in read.text  # `run` alone has no finale


@pytest.mark.slow
def test_calls_of_slots_that_were_never_filled_count(tmp_path: Path) -> None:
    """A call was lost when the search was killed, and the slot was never asked for again."""
    name = transcript(tmp_path / "t.jsonl", many_replies(9, 4))
    folder = searched(tmp_path, [f"{name}=3", "none"], 28)
    before, _ = told(folder)
    archive = Archive.open(folder / FILE)
    question = Question((Message("user", "?"),), key="g9.s0.a0")
    archive.begin_call(question, name, (700, 0.5), lambda spent: None)
    archive.close()
    Archive.open(folder / FILE).close()  # settles what was under way
    after, page = told(folder)
    old, new = (
        next(one for one in results["searches"][0]["by_model"] if one["model"] == name) for results in (before, after)
    )
    assert new["questions"] == {**old["questions"], "lost": 1} and "1 lost" in Page(page).text
    assert new["usd"] == pytest.approx(old["usd"] + 0.5) and new["tokens_counted"] == old["tokens_counted"] + 700


NO_RESULT = {"--out", "--resume", "--status", "--report", "--against", "--jobs", "--on", "--json", "--set"}
"""Options that change no result, or stand in the resolved recipe."""


@pytest.mark.slow
def test_the_command_makes_the_same_search_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names each option that there is, and a search begun by it has the same settings, limits and archive."""
    said = {
        **{"--evaluations": "48", "--budget-usd": "3.000001", "--budget-tokens": "12345678", "--budget-hours": "5"},
        **{"--population": "3", "--seed": "7", "--seeds": "3", "--limit-minutes": "2.5", "--limit-memory": "4096"},
        **{"--prompts": str(tmp_path / "own"), "--repairs": "1", "--rendering": "text", "--usd-per-mtok": "0.25,2"},
        **{"--api-base": "http://localhost:1", "--timeout": "12.5"},
    }
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "m3.j2").write_text("Simpler.")
    name = transcript(tmp_path / "t s.jsonl", many_replies(9, 3))
    words = [str(recipe(tmp_path)), "--set", "batch_size=32", "--llm", f"{name}=2", "--llm", "none", "--names"]
    words += ["--sheet", *(word for pair in said.items() for word in pair)]
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(build(), ["search", *words, "--out", "found"])
    assert first.exit_code == 0, first.output
    results, _ = told(Path("found"))
    command = shlex.split(results["searches"][0]["command"])
    known = {one.opts[0] for one in get_command(build()).commands["search"].params if one.opts[0].startswith("--")}
    assert known - NO_RESULT - {"--help"} <= set(command)
    again = CliRunner().invoke(build(), command[1:])
    assert again.exit_code == 0, again.output
    one, two = Archive.read(Path("found") / FILE), Archive.read(Path("again") / FILE)
    for part in ("settings", "budget", "options", "place"):
        assert one.meta(part) == two.meta(part)
    assert one.dump() == two.dump() and one.meta("options")["timeout"] == 12.5
    one.close(), two.close()


@pytest.mark.slow
def test_what_a_model_wrote_stays_text(tmp_path: Path) -> None:
    lines = [reply(f"g0.s{slot}.a0", {**document(0.2 + 0.1 * slot), "title": EVIL}) for slot in range(4)]
    _, page = told(searched(tmp_path, [transcript(tmp_path / "t$_$.jsonl", lines)], 28))
    read = Page(page)
    assert EVIL in read.text and "<script>alert" not in page


@pytest.mark.slow
def test_a_search_that_has_nothing_yet_is_told_too(tmp_path: Path) -> None:
    silent = transcript(tmp_path / "t.jsonl", [{"key": "g0.s0.a0", "error": "overloaded"}])
    results, page = told(searched(tmp_path, [silent]))
    assert "No strategy came through a stage yet." in page and not results["searches"][0]["winners"]
    assert results["verdicts"][0]["outcome"] == "nothing to compare"


def heights(*values: float) -> list[dict[str, Any]]:
    return [reply(f"g0.s{slot}.a0", document(value)) for slot, value in enumerate(values)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "outcome", "words"),
    [
        ((0.95, 0.9, 0.92, 0.91), "beat", "The LLM beat random search."),
        ((0.02, 0.03, 0.04, 0.05), "did not beat", "The LLM did not beat random search; it was worse"),
        ((0.5, 0.47, 0.48, 0.49), "cannot be told", "the difference is within the error"),
    ],
)
def test_whether_a_model_beat_random_search(
    tmp_path: Path, values: tuple[float, ...], outcome: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a search of strategies that chance made, all of which have the height 0.5 here."""
    monkeypatch.setattr("augkit_llm.propose.random_document", lambda rng, _: document(0.5 + 1e-6 * rng.random()))
    model = searched(tmp_path / "a", [transcript(tmp_path / "t.jsonl", heights(*values))], 28)
    control = searched(tmp_path / "b", ["none"], 28)
    results, page = told(model, control)
    (verdict,) = results["verdicts"]
    assert verdict["outcome"] == outcome and words in Page(page).text
    below_all_controls = outcome == "did not beat"  # which ends a strategy after the first stage
    assert (verdict["runs"], verdict["stage"]) == ((8, "short") if below_all_controls else (12, "full"))
    other, _ = told(control)
    assert "No language model was asked" in other["verdicts"][0]["words"]


@pytest.mark.slow
def test_random_strategies_of_the_same_search_are_a_control_at_as_many_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augkit_llm.propose.random_document", lambda rng, _: document(0.1 + 0.1 * rng.random()))
    name = transcript(tmp_path / "t.jsonl", heights(*[0.9 + 0.01 * k for k in range(8)]))
    results, _ = told(searched(tmp_path, [name, "none"], 40))
    origins = {point["who"] for point in results["searches"][0]["curves"][0]["points"]}
    assert origins >= {name, "chance (random)"}
    verdict = results["verdicts"][0]
    assert verdict["outcome"] == "beat" and verdict["runs"] < 28


@pytest.mark.slow
def test_searches_on_other_recipes_or_stages_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = searched(tmp_path / "a", ["none"], 28)
    with monkeypatch.context() as patch:
        patch.setitem(RECIPE, "epochs", 2)
        other = searched(tmp_path / "b", ["none"], 28)
    with pytest.raises(DataError, match="on another recipe"):
        write(one, [other])
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "STAGES", STAGES[:1])
        third = searched(tmp_path / "c", ["none"], 28)
    with pytest.raises(DataError, match="other stages or seeds"):
        write(one, [third])
    with pytest.raises(StateError, match="there is no search here"):
        write(tmp_path / "nowhere")
    for twice in ([tmp_path / "c" / ".." / "a" / "found"], [other, other]):
        with pytest.raises(DataError, match="against itself, nor twice"):
            write(one, twice)


@examples(suppress_health_check=[HealthCheck.too_slow])  # on a machine with much else to do
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.floats(0, 0.3), st.floats(0, 0.3))
def test_a_gap_is_symmetric_and_none_to_itself(rewards: list[float], error: float, other_error: float) -> None:
    seeds = dict(enumerate(rewards))
    one = Score("a", sum(rewards) / len(rewards), error, seeds)
    two = Score("b", 0.5, other_error, dict.fromkeys(seeds, 0.5))
    there, back = gap(one, two), gap(two, one)
    assert there.mean == pytest.approx(-back.mean) and there.low == pytest.approx(-back.high)
    assert there.high - there.low == pytest.approx(2 * WIDTH * (error**2 + other_error**2) ** 0.5)
    assert gap(one, one).mean == 0 and not gap(one, one).told


def test_the_verb_writes_a_report_and_at_the_end_of_a_search_one_is_there(tmp_path: Path) -> None:
    words = [recipe(tmp_path), "--llm", "none", "--population", "4", "--evaluations", "26", "--out", tmp_path / "found"]
    done = CliRunner().invoke(build(), ["search", *map(str, words)])
    page = tmp_path / "found" / "report" / "index.html"
    assert done.exit_code == 0 and f"report: {page}" in done.output and page.exists()
    told_again = CliRunner().invoke(build(), ["search", "--report", str(tmp_path / "found")])
    assert told_again.exit_code == 0 and told_again.stdout.strip() == str(page)
    for refused, why in (
        (["--against", "found"], "--against belongs to --report"),
        (["--report", str(tmp_path)], "there is no search here"),
        (["--report", "found", "--seed", "1"], "leave out --seed"),
    ):
        answer = CliRunner().invoke(build(), ["search", *refused])
        assert answer.exit_code == 2 and why in answer.stderr, answer.output
