"""`augkit write` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from llm_server import refused, said, serving
from typer.testing import CliRunner, Result

from augkit.cli.app import build
from augkit.plugins import registry
from augkit.strategy.document import load_strategy

GOOD = {"augkit": 1, "name": "good", "title": "Rotate a little", "pipeline": [{"rotate": {"p": 0.5, "degrees": 5}}]}
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    bad = {"key": "write.a0", "text": {**GOOD, "pipeline": ["rotat"]}, "usd": 0.01, "prompt_tokens": 1200}
    good = {"key": "write.a1", "text": GOOD, "usd": 0.02, "completion_tokens": 30}
    Path("t.jsonl").write_text(f"{json.dumps(bad)}\n{json.dumps(good)}\n")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["write", *arguments])


def test_the_file_is_read_like_any_other_and_says_where_it_comes_from(folder: Path) -> None:
    result = run("gentle,\nplease", "--llm", "transcript:t.jsonl", "--out", "new/mine.yaml")
    assert result.exit_code == 0, result.stderr
    assert "good: Rotate a little" in result.stdout and "rotate of 5 degrees with probability 0.5" in result.stdout
    cost = "cost: 0.0300 USD, 1,200 tokens in, 30 out, 2 replies of transcript:t.jsonl in 0.0 s"
    assert cost in result.stdout and result.stdout.endswith("new/mine.yaml\n")
    text = Path("new/mine.yaml").read_text()
    assert "# wish: gentle, please\n# written by transcript:t.jsonl\n" in text and f"# {cost}\n" in text
    assert load_strategy(Path("new/mine.yaml"), registry()).hash == load_strategy(GOOD, registry()).hash
    assert [path.name for path in Path("new").iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a", "--llm", "transcript:t.jsonl", "--out", "mine.txt"), "ends in .yaml, not mine.txt"),
        (("a", "--llm", "transcript:t.jsonl", "--out", "there.yaml"), "--force"),
        (("", "--llm", "transcript:t.jsonl", "--out", "mine.yaml"), "say in a sentence"),
        (("a", "--llm", "transcript:t.jsonl", "--out", "mine.yaml", "--names"), "name a recipe with --data"),
        (("a", "--llm", "transcript:t.jsonl", "--out", "mine.yaml", "--data", "nope"), 'no recipe "nope"'),
        (("a", "--llm", "transcript:t.jsonl", "--out", "mine.yaml", "--prompts", "nope"), "there is no folder nope"),
        (("a", "--llm", "transcript:t.jsonl", "--out", "mine.yaml", "--rendering", "odd"), "strict, small, text"),
        (("a", "--llm", "transcript:t.jsonl", "--out", "mine.yaml", "--budget-usd", "0.02"), "raise --budget-usd"),
        (("a", "--llm", "transcript:t.jsonl", "--out", "t.jsonl/mine.yaml"), "no file can be written here"),
        (("a", "--llm", "transcript:t.jsonl", "--out", "folder.yaml", "--force"), "no file can be written here"),
        (("a", "--llm", "none", "--out", "mine.yaml", "--data", "nope"), 'no recipe "nope"'),
        (("a", "--llm", "openai/x", "--out", "mine.yaml", "--api-base", "http://a:b@c/v1"), "with its password"),
        (("a", "--llm", "transcript:no.jsonl", "--out", "mine.yaml"), "cannot read the transcript no.jsonl"),
        (("a", "--llm", "openai/x", "--out", "mine.yaml", "--usd-per-mtok", "2"), "two prices"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_status_2(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    Path("there.yaml").write_text("mine")
    Path("folder.yaml").mkdir()
    result = run(*arguments)
    assert result.exit_code == 2 and not Path("mine.yaml").exists() and Path("there.yaml").read_text() == "mine"
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and told in errors[0]
    assert "Traceback" not in result.output


def test_a_document_that_cannot_be_written_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("augkit_llm.files.write", full)
    result = run("a", "--llm", "transcript:t.jsonl", "--out", "mine.yaml")
    assert result.exit_code == 2 and "No space left on device" in result.stderr
    (folder / "saved.yaml").write_text(result.stdout)
    assert load_strategy(folder / "saved.yaml", registry()).hash == load_strategy(GOOD, registry()).hash


def test_a_model_that_never_gets_it_right_leaves_no_file_and_its_faults(folder: Path) -> None:
    result = run("a", "--llm", "transcript:t.jsonl", "--out", "mine.yaml", "--repairs", "0")
    assert result.exit_code == 2 and not Path("mine.yaml").exists()
    assert 'reply 1: pipeline[0]: there is no operator or step "rotat" here.' in result.stderr
    assert "cost: 0.0100 USD" in result.stderr and "the reply was no valid strategy" in result.stderr


@pytest.mark.slow
def test_a_model_behind_a_server_and_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        at = ("--llm", "openai/mine", "--api-base", server.base)
        server.answers = [said(json.dumps(GOOD), asked=900, answered=60)]
        result = run("gentle", *at, "--out", "mine.yaml", "--usd-per-mtok", "1,10", "--budget-usd", "1")
        assert result.exit_code == 0, result.stderr
        assert "cost: 0.0015 USD, 900 tokens in, 60 out, 1 reply" in result.stdout
        assert "gentle" in server.asked[0]["messages"][1]["content"]
        server.answers = [refused(401, f"wrong key {KEY}")]
        denied = run("gentle", *at, "--out", "other.yaml")
        assert denied.exit_code == 2 and "set OPENAI_API_KEY" in denied.stderr
        assert "counts as 0" in denied.stderr  # no price was given this time
    told = result.output + denied.output + Path("mine.yaml").read_text()
    assert KEY not in told


@pytest.mark.parametrize("names", [True, False])
def test_the_model_is_told_of_the_data_and_of_names_only_if_allowed(
    folder: Path, names: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        server.answers = [said(json.dumps(GOOD))]
        told = ["--data", "demo", "--sheet", *(["--names"] if names else [])]
        result = run("", "--llm", "openai/mine", "--api-base", server.base, "--out", "mine.yaml", *told)
        assert result.exit_code == 0, result.stderr
        text, picture = server.asked[0]["messages"][1]["content"]
    assert '"classes": 10' in text["text"] and picture["type"] == "image_url"
    assert ('["0", ' in text["text"]) == names


def test_chance_needs_no_model_and_is_the_same_for_the_same_seed(folder: Path) -> None:
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        result = run("", "--llm", "none", "--seed", seed, "--out", f"{name}.yaml")
        assert result.exit_code == 0, result.stderr
    one, two, three = (load_strategy(Path(f"{name}.yaml"), registry()).hash for name in "abc")
    assert one == two != three


@pytest.mark.slow
def test_the_plugin_loads_no_client_and_no_templates_before_they_are_needed() -> None:
    code = (
        "import sys, typer; before = set(sys.modules); import augkit_llm; augkit_llm.augkit_commands(typer.Typer());"
        "print(*(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    loaded = set(ran.stdout.split())
    assert "augkit_llm.write_command" in loaded
    assert loaded.isdisjoint({"litellm", "openai", "jinja2", "llama_cpp", "timm", "sqlite3"})
