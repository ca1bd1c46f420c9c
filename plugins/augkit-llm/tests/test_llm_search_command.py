"""`augkit search`: what it prints, what it refuses, how it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import llm_search_parts
import pytest
from augkit_llm.archive import Archive
from augkit_llm.records import Spent
from click.testing import Result
from llm_search_parts import document, flat, many_replies, recipe, reply, transcript
from typer.testing import CliRunner

from augkit.cli.app import build


@pytest.fixture(autouse=True)
def landscape(monkeypatch: pytest.MonkeyPatch) -> None:
    flat(monkeypatch)
    monkeypatch.setattr("augkit.lab.folder._PATIENCE", 0.2)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(build(), ["search", *map(str, words)])


def begin(folder: Path, *words: str | Path, model: str = "") -> Result:
    name = model or transcript(folder / "t.jsonl", many_replies(9, 4))
    return run(recipe(folder), "--llm", name, "--out", folder / "found", "--population", "4", *words)


def test_a_search_tells_what_it_plans_does_and_finds(tmp_path: Path) -> None:
    done = begin(tmp_path, "--evaluations", "60", "--budget-usd", "3", "--sheet")
    assert done.exit_code == 0, done.output
    for words in (
        "sees no images, so that --sheet shows it none",
        "4 strategies a generation",
        "quick (1 epochs, the best 4 go on), warm (1 epochs, the best 2 go on), full (1 epochs); 2 seeds",
        "beside none, uniform_class_choice, trivialaugment",
        "estimate: 60 evaluations for 8 more strategies in 2 generations; at most 24 questions, about ",
        " USD for the first; repairs are longer)",
        "about 1 min for all evaluations that were planned",
        "g0.s0  initial by transcript:",
        "generation 0 is finished; ",
    ):
        assert words in done.stderr, words
    assert "best: reward 0." in done.stdout and "trivialaugment: 0.36" in done.stdout
    assert "above it (95 % interval +0." in done.stdout and "cannot be told" not in done.stdout
    last, page = done.stdout.strip().splitlines()[-2:]
    assert page == f"report: {tmp_path / 'found' / 'report' / 'index.html'}"
    assert (
        last.startswith("stopped (evaluations): ") and "evaluations are made and one more strategy may take 6" in last
    )
    assert (tmp_path / "found" / "best.yaml").exists()


@pytest.mark.slow
def test_the_status_is_that_of_the_archive(tmp_path: Path) -> None:
    begin(tmp_path, "--evaluations", "60", "--budget-usd", "3")
    told = run("--status", tmp_path / "found")
    assert told.exit_code == 0 and "stopped (evaluations)" in told.stdout
    facts = json.loads(run("--status", tmp_path / "found", "--json").stdout)
    assert facts["generations"] == 3 and sum(facts["candidates"].values()) >= 8  # some are faulty, and others come
    assert facts["spent"]["evaluations"] <= 60 and facts["budget"]["usd"] == 3
    assert sum(sum(states.values()) for states in facts["evaluations"].values()) == facts["spent"]["evaluations"]
    assert facts["calls"]["answered"] > sum(facts["candidates"].values())
    above = facts["best"]["controls"]["none"]
    assert above["above_it"] > above["low"] > 0 and above["told"]
    assert facts["stopped"]["reason"] == "evaluations"


@pytest.mark.slow
def test_a_search_goes_on_with_a_raised_budget_and_nothing_else(tmp_path: Path) -> None:
    begin(tmp_path, "--evaluations", "45", "--budget-usd", "3")
    first = json.loads(run("--status", tmp_path / "found", "--json").stdout)
    done = run("--resume", tmp_path / "found", "--evaluations", "80", "--jobs", "2", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["budget"]["evaluations"] == 80 and facts["budget"]["usd"] == 3
    assert facts["spent"]["evaluations"] > first["spent"]["evaluations"]
    refused = run("--resume", tmp_path / "found", "--evaluations", "10")
    assert refused.exit_code == 2 and "is less than the 80 of this search; raise it" in refused.stderr
    refused = run("--resume", tmp_path / "found", "--llm", "none", "--set", "epochs=3")
    assert refused.exit_code == 2 and "leave out --llm, --set" in refused.stderr


@pytest.mark.slow
def test_an_interrupted_search_says_how_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(llm_search_parts, "landscape", interrupt)
        stopped = begin(tmp_path, "--evaluations", "60", "--budget-usd", "3")
    assert stopped.exit_code == 130
    assert f"interrupted; go on with: augkit search --resume {tmp_path / 'found'}" in stopped.stderr
    assert "not stopped: it runs, or was killed" in run("--status", tmp_path / "found").stdout
    assert run("--resume", tmp_path / "found").exit_code == 0


def test_what_cannot_be_told_apart_is_said_to_be_so(tmp_path: Path) -> None:
    """As in the report: by the errors of images and seeds together."""
    at_once = [reply(f"g0.s{slot}.a0", document(0.375 + 0.001 * slot)) for slot in range(4)]
    done = begin(tmp_path, "--evaluations", "34", "--budget-usd", "3", model=transcript(tmp_path / "t.jsonl", at_once))
    assert "; the best is +0.00" in done.stdout and "which cannot be told from none" in done.stdout


@pytest.mark.slow
def test_what_follows_a_search_waits_where_its_hours_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr("augkit_llm.finale.close", lambda search: closed.append(search.archive.stopped()["reason"]))
    plain, hour = Archive.spent, 3600.0

    def late(archive: Archive) -> Spent:
        spent = plain(archive)
        return replace(spent, seconds=spent.seconds + (hour if spent.evaluations > 26 else 0.0))

    monkeypatch.setattr(Archive, "spent", late)
    done = begin(tmp_path, "--evaluations", "90", "--budget-usd", "3", "--budget-hours", "1")
    assert done.exit_code == 0 and "stopped (hours)" in done.stdout and closed == []
    assert f"the test set is read by augkit search --resume {tmp_path / 'found'}" in done.stderr
    assert run("--resume", tmp_path / "found").exit_code == 0 and closed == ["hours"]
    assert run("--resume", tmp_path / "found", "--budget-hours", "99").exit_code == 0
    assert closed == ["hours", "evaluations"]


def test_models_that_do_not_answer_are_a_failure(tmp_path: Path) -> None:
    silent = transcript(tmp_path / "t.jsonl", [{"key": "g0.s0.a0", "error": "overloaded"}])
    done = begin(tmp_path, "--evaluations", "60", model=silent)
    assert done.exit_code == 1 and "no question of generation 0 was answered" in done.stdout
    assert "no strategy came through a stage yet" in done.stdout


@pytest.mark.slow
def test_several_models_share_the_questions(tmp_path: Path) -> None:
    name = transcript(tmp_path / "t.jsonl", many_replies(9, 4))
    done = begin(tmp_path, "--llm", f"{name}=3", "--evaluations", "60", "--budget-usd", "3", "--json", model="none")
    assert done.exit_code == 0, done.output
    asked = json.loads(done.stdout)["by_origin"]
    assert {origin.rpartition(": ")[2] for origin in asked} >= {"model", "random"}


def test_nothing_that_a_model_writes_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    evil = {**document(0.5), "title": "\x1b[2J[bold]hello\x07\nsecond line"}
    name = transcript(tmp_path / "t.jsonl", [reply("g0.s0.a0", evil)])
    done = begin(tmp_path, "--evaluations", "26", "--budget-usd", "3", model=name)
    assert "[bold]hello second line" in done.stderr and "\x1b" not in done.output and "\x07" not in done.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "a new search needs a recipe and --out"),
        (["demo", "--llm", "none"], "a new search needs a recipe and --out"),
        (["RECIPE", "--llm", "none", "--out", "OUT"], "give --evaluations or --budget-hours"),
        (["RECIPE", "--out", "OUT", "--evaluations", "9"], "--llm"),
        (["RECIPE", "--llm", "none=0", "--out", "OUT", "--evaluations", "9"], "a share above 0"),
        (["RECIPE", "--llm", "none", "--out", "OUT", "--evaluations", "9", "--on", "mars"], 'not on "mars"'),
        (["RECIPE", "--llm", "none", "--out", "OUT", "--evaluations", "9", "--rendering", "x"], "--rendering is one"),
        (["RECIPE", "--llm", "none", "--out", "OUT", "--evaluations", "9", "--set", "seed=1"], "sets seed itself"),
        (["demo", "--llm", "none", "--out", "OUT", "--evaluations", "9"], "no images to reward by"),
        (["--status", "OUT"], "there is no search here (no search.sqlite); give the folder that --out named"),
        (["--resume", "OUT"], "there is no search here to go on with; give the folder that --out named"),
        (["--status", "OUT", "--evaluations", "9"], "leave out --evaluations"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(tmp_path: Path, words: list[str], told: str) -> None:
    places = {"OUT": str(tmp_path / "found"), "RECIPE": str(recipe(tmp_path))}
    done = run(*(places.get(word, word) for word in words))
    assert done.exit_code == 2 and told in done.stderr, done.output
    assert not (tmp_path / "found").exists()
    assert "Traceback" not in done.output
