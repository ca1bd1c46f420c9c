"""Robustness to corruptions from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.output import Json, resumable, show_json, show_rows


def add_to(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command()(robustness)


def robustness(
    run: Annotated[list[Path], typer.Argument(help="Folders of finished runs, or folders that hold some.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="A reference to normalise by; repeat it for one run of each seed."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the tables of all runs together.")] = None,
    memory: Annotated[
        int | None, typer.Option(min=0, help="MiB that test images may take on the device; by default the recipe's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask finished runs about corrupted test images: ImageNet-C's corruptions but frost, at five severities.

    Each run's folder gets robustness.json and a picture. What stands there is not measured again, so the same command
    goes on where a stopped one was. The test set is read; choose nothing by it.

    \b
        augkit robustness runs/demo/none-seed0
        augkit robustness runs/demo --against runs/demo/none-seed0 --against runs/demo/none-seed1 --out runs/corrupted
    """
    from augkit.lab import robustness as lab
    from augkit.lab import robustness_tables as tables
    from augkit.lab.folder import write, write_json
    from augkit.lab.progress import Display
    from augkit.report.robustness import draw_robustness

    folders, references = lab.find(run), lab.find(against or [])
    everything = lab.find([*references, *folders])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)

    def check(records: list[lab.Record]) -> None:
        tables.check(records, records[: len(references)])  # they come first in everything

    with resumable(), Display() as display:
        measured = lab.measure(everything, memory=memory, say=display.say, check=check)
        records = dict(zip(everything, measured, strict=True))
    for folder, record in records.items():
        draw_robustness(tables.tabulate([record]), folder / lab.PICTURE)
    results = tables.tabulate([records[one] for one in everything], [records[one] for one in references])
    if out is not None:
        write_json(out / lab.RECORD, results)
        write(out / "robustness.md", tables.markdown(results))
        draw_robustness(results, out / lab.PICTURE)
    if as_json:
        show_json(results)
        return
    show_rows(tables.lines(results), as_json=False, spare=("seeds",))
    print()
    show_rows(tables.by_corruption(results), as_json=False)
    print("", *tables.notes(results), *([out] if out is not None else everything), sep="\n")
