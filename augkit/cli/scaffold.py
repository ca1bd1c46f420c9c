"""`augkit plugin new`: write a distribution that works, to change into one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
import string
from pathlib import Path
from typing import Annotated

import typer

from augkit import __version__
from augkit.cli.output import Json, show_json
from augkit.errors import AugkitError
from augkit.plugins import registry

TEMPLATE = Path(__file__).parent / "template"

app = typer.Typer(help="Write a plugin.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Write a plugin: a distribution of your own that brings operators and strategies."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the distribution, such as augkit-haze.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; by default NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Write a distribution with an operator, a strategy and tests that pass.

    \b
        augkit plugin new augkit-haze
        pip install -e augkit-haze
        augkit show haze
    """
    folder = write(name, out or Path(name))
    label = _label(name)
    if as_json:
        show_json({"folder": str(folder), "distribution": name, "operator": label, "strategy": label})
        return
    print(f"{folder}: a plugin that brings the operator {label} and the strategy {label}")
    print(f"next: pip install -e {folder} && augkit show {label} && pytest {folder}")


def write(name: str, folder: Path) -> Path:
    """Write the distribution `name` into `folder`, which must not exist or be empty.

    Raises:
        AugkitError: the name does not do, or is taken, or the folder is not empty.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise AugkitError(f'"{name}" is no name for a distribution; use a-z, 0-9 and -, such as augkit-haze')
    package, label = name.replace("-", "_"), _label(name)
    found = registry()
    if label in found.operators or label in found.strategies:
        kind = "operators" if label in found.operators else "strategies"
        raise AugkitError(f'the name "{label}" is already brought by {found.origins[kind, label]}; choose another')
    if keyword.iskeyword(label) or keyword.iskeyword(package) or importlib.util.find_spec(package) is not None:
        raise AugkitError(f'a Python module or keyword is already called "{package}"; choose another name')
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AugkitError(f"{folder} already exists and is not an empty folder; choose another with --out")
    words = {"distribution": name, "package": package, "name": label, "version": __version__}
    for source in sorted(TEMPLATE.rglob("*.txt")):
        relative = str(source.relative_to(TEMPLATE)).removesuffix(".txt")
        target = folder / relative.replace("PACKAGE", package).replace("NAME", label)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(string.Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        except OSError as error:
            raise AugkitError(
                f"cannot write here ({error.strerror}); choose another with --out", file=folder
            ) from error
    return folder


def _label(name: str) -> str:
    """What its operator and strategy are called: the name without augkit."""
    return name.replace("-", "_").removeprefix("augkit_")
