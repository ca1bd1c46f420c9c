"""Reference pages, written from what is registered: `python -m augkit.cli.docs FOLDER`, and those of the site."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augkit import __version__
from augkit.cli.listing import operator_row
from augkit.plugins import load_registry
from augkit.registry import Registry
from augkit.strategy.describe import words
from augkit.strategy.document import load_strategy
from augkit.strategy.schema import json_schema

INTEGRATED = (
    "timm.wrap",
    "timm.WrappedLoader",
    "timm.mixup_fn",
    "albumentations.to_transform",
    "torchvision.to_transform",
)
"""What the Python page tells beside `augkit.__all__`."""


def write(folder: Path) -> list[Path]:
    """Write `operators.md`, `strategies.md`, `command-line.md` and `strategy.schema.json`; returns their paths."""
    found = load_registry()
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "operators.md": operators_page(found),
        "strategies.md": strategies_page(found),
        "command-line.md": commands_page(),
        "strategy.schema.json": schema_text(found),
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in pages]


def operators_page(found: Registry) -> str:
    """Every operator with its range, options and source."""
    rows = [operator_row(item, found) for item in found.operators.values()]
    intro = "A range goes from strength 0 to strength 1; +- means that each image draws a random sign."
    return f"# Operators\n\naugkit {__version__}. {intro}\n\n{table(rows)}\n"


def strategies_page(found: Registry) -> str:
    """Every registered strategy: in words, and its document."""
    parts = [f"# Strategies\n\naugkit {__version__}.\n"]
    for name, path in sorted(found.strategies.items()):
        strategy = load_strategy(name, found)
        document = path.read_text(encoding="utf-8").strip()
        parts.append(f"## {name}\n\n```\n{words(strategy)}\n```\n\n```yaml\n{document}\n```\n")
    return "\n".join(parts)


def commands_page() -> str:
    """The help of every verb."""
    import typer

    from augkit.cli.app import build

    root: Any = typer.main.get_command(build())
    parts = ["# Command line\n"]

    def add(command: Any, words: list[str], parent: Any) -> None:
        context = command.make_context(words[-1], [], parent=parent, resilient_parsing=True)
        parts.append(f"## {' '.join(words)}\n\n```\n{command.get_help(context).rstrip()}\n```\n")
        for name, child in getattr(command, "commands", {}).items():
            add(child, [*words, name], context)

    add(root, ["augkit"], None)
    return "\n".join(parts)


def schema_text(found: Registry) -> str:
    """The JSON Schema of strategy documents."""
    return json.dumps(json_schema(found), indent=2, ensure_ascii=False) + "\n"


def python_page(public: Sequence[str]) -> str:
    """What to import, `augkit.__all__` and the integrations, for mkdocstrings to fill in."""
    parts = ["# Python\n", "What `augkit` gives to import, and the integrations. All else may change.\n"]
    parts += [f"::: augkit.{name}\n" for name in sorted(public, key=_by_use) if not name.startswith("_")]
    parts += [f"::: augkit.integrations.{name}\n" for name in INTEGRATED]
    return "\n".join(parts)


def _by_use(name: str) -> tuple[int, str]:
    first = ("Policy", "Output", "Plan", "Strategy")
    return first.index(name) if name in first else len(first), name.lower()


def examples_page(folder: Path) -> str:
    """The folder's own page and behind it the code of every example, to copy."""
    parts = [(folder / "README.md").read_text(encoding="utf-8")]
    for path in sorted(folder.glob("*.py")):
        parts.append(f"## {path.name}\n\n```python\n{path.read_text(encoding='utf-8').rstrip()}\n```\n")
    return "\n".join(parts)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    cells = [list(rows[0]), ["---"] * len(rows[0])]
    cells += [[", ".join(cell) if isinstance(cell, list) else str(cell) for cell in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in cells)


if __name__ == "__main__":
    for page in write(Path(sys.argv[1] if len(sys.argv) > 1 else "site")):
        print(page)
