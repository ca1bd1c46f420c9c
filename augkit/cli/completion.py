"""Shell completion: verbs, options and registered names, without importing torch.

The scripts that `augkit --install-completion` writes are typer's; they call `augkit` with `_AUGKIT_COMPLETE` set. What
there is to complete is gathered once from the real application, which takes seconds, and kept in the user's cache until
augkit or a plugin changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, suppress
from importlib.metadata import entry_points
from io import StringIO
from pathlib import Path
from typing import Any

VARIABLE = "_AUGKIT_COMPLETE"
SHELLS = ("complete_bash", "complete_zsh", "complete_fish")
DOCUMENTS = "*.yaml"
"""Among the names of a parameter: files of the current folder that match."""
Value = tuple[str, str]
"""What may be written, and a word about it."""


def names(*kinds: str, files: bool = False, prefix: str = "") -> Callable[[str], list[Value]]:
    """For `autocompletion=` of an argument or option: what is registered of these kinds, such as "strategies".

    Args:
        files: a document by path will do, too.
        prefix: stands before each name, such as "policy=".
    """

    def complete(incomplete: str) -> list[Value]:
        from augkit.errors import AugkitError
        from augkit.plugins import registry

        try:
            found = registry()
        except AugkitError:  # any other verb says what is wrong
            return []
        values = [(prefix + name, found.origins[kind, name]) for kind in kinds for name in sorted(getattr(found, kind))]
        values += [(DOCUMENTS, "")] if files else []
        return [value for value in values if value[0].startswith(incomplete)]

    return complete


def settings(incomplete: str) -> list[Value]:
    """For `--set`: the parts of a recipe that are names."""
    kinds = {"policy": "strategies", "loss": "losses", "sampler": "samplers", "subset": "subsets", "answer": "answers"}
    return [value for key, kind in kinds.items() for value in names(kind, prefix=f"{key}=")(incomplete)]


def answer(shell: str) -> int:
    """Print what the shell asks for in its environment; returns the exit status."""
    words = _words(shell)
    verbs = _kept() or _gathered()
    found = list(candidates(verbs, words[:-1], words[-1]))
    if shell == "complete_fish" and os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return 0 if found else 1
    if shell == "complete_bash":
        begun = words[-1].rpartition("=")[0]  # for bash a word ends at =
        found = [(value[len(begun) + 1 :] if begun else value, about) for value, about in found]
        print("\n".join(value for value, _ in found))
    elif shell == "complete_fish":
        print("\n".join(f"{value}\t{about}" for value, about in found))
    else:
        told = " ".join(f"{_quoted(value)}:{_quoted(about)}" if about else _quoted(value) for value, about in found)
        print(f"_arguments '*: :(({told}))'" if found else "_files")
    return 0


def candidates(verb: Mapping[str, Any], words: list[str], incomplete: str) -> Iterator[Value]:
    """What may stand where `incomplete` stands, behind these words of a command line."""
    position, value_of = 0, None
    for word in words:
        if value_of is not None:
            value_of = None
        elif word in verb["verbs"] and not position:
            verb = verb["verbs"][word]
        elif word.startswith("-"):
            option = verb["options"].get(word, {})
            value_of = option if option.get("takes") else None
        else:
            position += 1
    if value_of is not None:
        yield from _values(value_of["values"], incomplete)
    elif incomplete.startswith("-"):
        option, equals, begun = incomplete.partition("=")
        if equals:
            values = verb["options"].get(option, {}).get("values", [])
            yield from ((f"{option}={value}", about) for value, about in _values(values, begun))
        else:
            yield from _values([(name, one["about"]) for name, one in verb["options"].items()], incomplete)
    elif verb["verbs"]:
        yield from _values([(name, one["about"]) for name, one in verb["verbs"].items()], incomplete)
    elif verb["arguments"]:  # the last one may be repeated
        yield from _values(verb["arguments"][min(position, len(verb["arguments"]) - 1)], incomplete)


def _values(values: list[Any], incomplete: str) -> Iterator[Value]:
    """Those that begin with it; in a list with commas the last part of it."""
    before, comma, begun = incomplete.rpartition(",")
    for value, about in values:
        if value == DOCUMENTS:
            yield from ((str(path), "") for path in sorted(Path().glob(DOCUMENTS)) if str(path).startswith(incomplete))
        elif value.startswith(incomplete):
            yield value, about
        elif comma and value.startswith(begun):
            yield f"{before},{value}", about


def _words(shell: str) -> list[str]:
    """The words behind `augkit`, the last of which is begun."""
    if shell == "complete_bash":
        typed = os.environ.get("COMP_WORDS", "").split("\n")
        try:
            last = int(os.environ["COMP_CWORD"])
        except (KeyError, ValueError):  # not asked by bash: the last word is the one that is begun
            last = len(typed) - 1
        words: list[str] = []
        for word in [*typed, ""][1 : last + 1]:
            # bash makes three words of policy=none; an empty one, or an option, stands behind a space
            goes_on = word == "=" or (words[-1:] and words[-1].endswith("=") and word and not word.startswith("-"))
            if words and goes_on:
                words[-1] += word
            else:
                words.append(word)
        return words or [""]
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:] + ([""] if line[-1:].isspace() or len(line.split()) < 2 else [])


def _quoted(text: str) -> str:
    """For zsh's `_arguments`, evaluated once, between single quotes."""
    plain = "".join(sign for sign in text if sign not in "'\"`$\\")
    return '"' + plain.replace(":", "\\\\:") + '"'


def _kept() -> dict[str, Any] | None:
    """What an earlier call gathered, if nothing has changed since."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(_file().read_text(encoding="utf-8"))
        if kept["stamp"] == _stamp():
            found: dict[str, Any] = kept["verbs"]
            return found
    return None


def _gathered() -> dict[str, Any]:
    """Ask the application, and keep what it says for the next call."""
    import typer

    from augkit.cli.app import build
    from augkit.lab.folder import write

    with redirect_stderr(StringIO()):  # a plugin that cannot be used is told by the verbs, not at a half-typed line
        command: Any = typer.main.get_command(build())
        verbs = _facts(command, "augkit", None)
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write(_file(), json.dumps({"stamp": _stamp(), "verbs": verbs}))
    return verbs


def _facts(command: Any, name: str, parent: Any) -> dict[str, Any]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    options: dict[str, Any] = {}
    arguments = []
    for parameter in command.get_params(context):
        values = [
            (item.value, item.help or "") for item in parameter.shell_complete(context, "") if item.type == "plain"
        ]
        if parameter.param_type_name == "argument":
            arguments.append(values)
        elif not parameter.hidden:
            takes = not (parameter.is_flag or parameter.count)
            about = (parameter.help or "").partition(". ")[0]
            fact = {"about": about, "takes": takes, "values": values if takes else []}
            options |= dict.fromkeys((*parameter.opts, *parameter.secondary_opts), fact)
    verbs = {child: _facts(one, child, context) for child, one in getattr(command, "commands", {}).items()}
    return {"about": command.get_short_help_str(80), "options": options, "arguments": arguments, "verbs": verbs}


def _file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "augkit" / f"completion-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]}.json"


def _stamp() -> str:
    """Another one whenever augkit or a plugin is installed, removed or edited."""
    facts: list[tuple[Any, ...]] = []
    packages = {"augkit"}
    for entry in entry_points(group="augkit"):
        distribution = getattr(entry, "dist", None)
        facts.append((entry.name, entry.value, distribution.version if distribution else ""))
        packages.add(entry.value.partition(":")[0].partition(".")[0])
    for package in sorted(packages):
        spec = importlib.util.find_spec(package)
        places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
        files = [path.stat() for place in places for end in ("py", "yaml") for path in place.rglob(f"*.{end}")]
        facts.append((package, len(files), max((file.st_mtime_ns for file in files), default=0)))
    return hashlib.sha256(repr(sorted(map(repr, facts))).encode()).hexdigest()
