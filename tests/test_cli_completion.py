"""Shell completion, asked as the shells ask it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from augkit.cli import completion
from augkit.registry import Registry

LOADED = """
import sys
from augkit.cli import main
try:
    main()
finally:
    print(*(name for name in ("torch", "typer", "pydantic") if name in sys.modules), file=sys.stderr)
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, server: None) -> Path:
    """A cache of what there is to complete, filled by a first question."""
    folder = tmp_path_factory.mktemp("cache")
    assert "show" in asked(folder, "augkit", "sh")
    return folder


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(cache), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def asked(cache: Path, *words: str, code: str = "from augkit.cli import main; main()") -> str:
    """What is answered for these words to bash's script."""
    told = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), completion.VARIABLE: "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(cache) | told, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_second_question_imports_neither_torch_nor_the_application(cache: Path) -> None:
    assert asked(cache, "augkit", "show", "trivialaug", code=LOADED).splitlines() == [
        "trivialaugment",
        "trivialaugment_wide",
        "",
    ]


def test_names_are_completed_where_they_are_asked_for(
    cache: Path,
    tmp_path: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mixed.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))

    def ask(*words: str) -> set[str]:
        monkeypatch.setenv("COMP_WORDS", "\n".join(("augkit", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        assert completion.answer("complete_bash") == 0
        return set(capsys.readouterr().out.split())

    assert ask("show", "") >= {*registry.strategies, "mine.yaml"}
    assert ask("show", "mi") >= {"mixup", "mine.yaml", "mixed.yaml"}
    assert ask("preview", "randaug") >= {"randaugment"}
    assert ask("train", "de") == {"demo"}
    assert ask("validate", "randaugment", "de") >= {"demo"}, "an argument that may be repeated"
    assert ask("train", "demo", "--set", "policy", "=", "trivialaugment_") == {"trivialaugment_wide"}
    assert ask("train", "demo", "--set", "loss", "=") == set(registry.losses)
    assert ask("compare", "demo", "--policy", "none,cutm") >= {"none,cutmix"}
    assert ask("compare", "demo", "--loss", "balanced_s") == {"balanced_softmax"}
    assert ask("plugin", "") == {"new"}
    assert ask("plugins", "--js") == {"--json"}
    assert ask("train", "./") == set(), "files are the shell's own matter"
    assert ask("train", "demo", "--set", "policy", "=", "--ou") == {"--out"}, "an option stands behind a space"
    assert ask("train", "--set", "policy", "=", "") >= {"demo"}, "an empty word, too"
    assert ask("train", "demo", "--set", "seed", "=", "1", "--ou") == {"--out"}


@pytest.mark.parametrize("place", [None, "", "two"])
def test_a_place_that_is_no_number_is_the_last_word(
    place: str | None, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("COMP_WORDS", "augkit\nshow\ntrivialaugment_")
    monkeypatch.delenv("COMP_CWORD", raising=False)
    if place is not None:
        monkeypatch.setenv("COMP_CWORD", place)
    assert completion.answer("complete_bash") == 0
    assert capsys.readouterr().out.split() == ["trivialaugment_wide"]


def test_what_was_kept_is_gathered_anew_when_a_plugin_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "augkit").mkdir()
    stamp = completion._stamp()
    site = tmp_path / "site" / "augkit_fog-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: augkit-fog\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text("[augkit]\nfog = augkit_fog\n")
    assert completion._stamp() == stamp
    monkeypatch.syspath_prepend(str(site.parent))
    installed = completion._stamp()
    assert installed != stamp
    package = tmp_path / "site" / "augkit_fog"
    package.mkdir()
    (package / "__init__.py").touch()
    assert len({completion._stamp(), stamp, installed}) == 3


BASH = (
    "COMP_WORDS=(augkit show trivialaug); COMP_CWORD=2; _augkit_completion augkit; printf '%s\\n' \"${COMPREPLY[@]}\""
)
ZSH = "_arguments() { print -r -- $1 }; words=(augkit show trivialaug); CURRENT=3; _augkit_completion"
ASKING = {
    "bash": f'eval "$(augkit --show-completion)"; {BASH}',
    "zsh": f'compdef() {{ }}; eval "$(augkit --show-completion)"; {ZSH}',
    "fish": "augkit --show-completion | source; complete -C 'augkit show trivialaug'",
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", ASKING)
def test_each_shell_completes_by_the_script_that_is_shown(shell: str, cache: Path, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    script = tmp_path / "script"
    script.write_text(ASKING[shell])
    told = environment(cache) | {"HOME": str(tmp_path)}
    done = subprocess.run([shell, str(script)], env=told, capture_output=True, text=True, check=False, timeout=120)
    assert "trivialaugment" in done.stdout and "trivialaugment_wide" in done.stdout, done.stdout + done.stderr
    assert "randaugment" not in done.stdout


@pytest.mark.slow
def test_completion_is_installed_for_the_shell_it_is_asked_from(tmp_path: Path, cache: Path) -> None:
    told = environment(cache) | {"HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", "augkit --install-completion; true"], env=told, capture_output=True, text=True, check=True
    )
    assert "completion installed" in done.stdout, done.stderr
    assert "augkit.sh" in (tmp_path / ".bashrc").read_text()
    assert "_augkit_completion" in (tmp_path / ".bash_completions" / "augkit.sh").read_text()


@pytest.mark.slow
def test_a_version_needs_no_torch() -> None:
    code = "import sys, augkit; print(augkit.__version__, 'torch' in sys.modules, augkit.Policy.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["False", "Policy"]
