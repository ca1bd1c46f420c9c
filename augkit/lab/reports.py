"""`augkit report`: which page a folder gets, and where it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augkit.errors import DataError
from augkit.lab import folder as files
from augkit.lab.grid import GRID
from augkit.lab.run_facts import read_run
from augkit.lab.several import read_comparison, several
from augkit.plugins import default_host, page_of

PAGE = "report.html"


def write(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page about some folders; its path.

    Args:
        folders: of a run, of several, of a comparison, or of what a plugin makes.
        out: the page; `report.html` in the folder if it is not given, of several runs in the folder that holds them.

    Raises:
        AugkitError: there is nothing to tell, a file is damaged, or the page cannot be written.
    """
    if out is not None and out.suffix.lower() != ".html":
        raise DataError("the page is HTML; give --out a name that ends in .html", file=out)
    for folder in folders:
        if not folder.is_dir():
            raise DataError("there is no such folder; give the folder of a run, a comparison or a search", file=folder)
    text = page(folders)
    path = out or _place(folders)
    files.write_out(path, text)
    return path


def page(folders: Sequence[Path]) -> str:
    """The page about some folders, as HTML."""
    from augkit.report import comparison_page, run_page

    host = default_host()
    if len(folders) == 1 and (folders[0] / GRID).is_file():
        return comparison_page.page(read_comparison(folders[0], host.registry))
    own = all((folder / files.METRICS).is_file() for folder in folders)
    told = None if own else page_of(folders, host)
    if told is not None:
        return told
    runs = [run for folder in folders for run in runs_in(folder)]
    if len(runs) == 1:
        return run_page.page(read_run(runs[0], host.registry))
    return comparison_page.page(several(runs, host.registry))


def runs_in(folder: Path) -> list[Path]:
    """A run folder itself, or those in it or in its `runs/`.

    Raises:
        DataError: there is none.
    """
    if (folder / files.RECIPE).is_file():
        return [folder]
    found = sorted(folder.glob(f"*/{files.RECIPE}")) or sorted(folder.glob(f"runs/*/{files.RECIPE}"))
    if not found:
        raise DataError(
            "this is the folder of no run (no recipe.yaml in it), comparison or search, and holds no run; give one"
            " that augkit train, compare or search wrote",
            file=folder,
        )
    return [path.parent for path in found]


def _place(folders: Sequence[Path]) -> Path:
    """Where the page goes that was not told.

    Raises:
        DataError: the folders have none in common.
    """
    if len(folders) == 1:
        return folders[0] / PAGE
    above = {folder.resolve().parent for folder in folders}
    if len(above) > 1:
        raise DataError("these folders lie in different ones; say with --out where the page goes", file=folders[1])
    return folders[0].parent / PAGE
