"""What the site has beside the Markdown files of this folder: pages from the code, from plugins and from examples.

A link that leaves this folder in a clone leads on the site to the page that was made of its target.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import augkit
from augkit.cli import docs
from augkit.cli.reference import documents_page
from augkit.plugins import load_registry

ROOT = Path(__file__).resolve().parent.parent
COPIED = {
    "CHANGELOG.md": "changes.md",
    "examples/README.md": "examples.md",
    **{str(path.relative_to(ROOT)): str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("plugins/**/README.md"))},
}
"""Files elsewhere in the repository that are pages as they are, and where they stand on the site."""
SHOWN = {
    "README.md": "index.md",
    "augkit/__init__.py": "reference/python.md",
    "augkit/cli/app.py": "reference/command-line.md",
    "augkit/strategy/library": "reference/strategies.md",
    "augkit/strategy/model.py": "reference/documents.md",
}
"""Code whose page is made from it."""
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/."""
    from mkdocs.structure.files import File

    registry = load_registry()
    made = {
        "reference/command-line.md": docs.commands_page(),
        "reference/documents.md": documents_page(registry),
        "reference/python.md": docs.python_page(augkit.__all__),
        "reference/strategies.md": docs.strategies_page(registry),
        "reference/strategy.schema.json": docs.schema_text(registry),
        **{there: (ROOT / here).read_text(encoding="utf-8") for here, there in COPIED.items()},
        "examples.md": docs.examples_page(ROOT / "examples"),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links by the repository's folders into links by the site's."""
    place = page.file.src_uri
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lambda found: _link(found, place), part) for part in parts[::2]]
    return "".join(parts)


def _link(found: re.Match[str], place: str) -> str:
    words, target, anchor = found.groups()
    origin = next((here for here, there in COPIED.items() if there == place), f"docs/{place}")
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if meant.startswith("examples/") and meant.endswith(".py"):  # its code is a part of the examples' page
        meant, anchor = "examples/README.md", f"#{posixpath.basename(meant).replace('.', '')}"
    there = {**COPIED, **SHOWN}.get(meant)
    if there is None and not meant.startswith("docs/") and (ROOT / meant).exists():
        return words  # code that has no page, which a clone can open
    there = there or meant.removeprefix("docs/")
    return f"[{words}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{anchor or ''})"
