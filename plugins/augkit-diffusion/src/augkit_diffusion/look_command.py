"""The verb `augkit synth look`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from augkit.cli.output import Json, command, resumable, show_json
from augkit.errors import AugkitError
from augkit_diffusion import filters
from augkit_diffusion.filter_command import Model, Run, StoreFolder, Weights
from augkit_diffusion.progress import Meter
from augkit_diffusion.store import Store

METHODS = ("tsne", "pca")


def look(
    store: StoreFolder,
    run: Run = None,
    model: Model = None,
    weights: Weights = None,
    map_: Annotated[str, typer.Option("--map", metavar="METHOD", help="Of the feature map: tsne or pca.")] = "tsne",
    as_json: Json = False,
) -> None:
    """Look at a store: pictures and figures in STORE/look/index.html.

    Real images beside synthetic ones, counts by class, a map of features, whether the two can be told apart,
    near-copies of training images, and the filters' scores. Nothing else in the store changes. The network that looks
    is that of --run or --model, else the one that the store's filters asked last, else the pixels are compared.

    \b
        augkit synth look synth
        augkit synth look synth --run runs/baseline
    """
    from augkit_diffusion.evidence import Evidence
    from augkit_diffusion.features import check_viewer
    from augkit_diffusion.look import RESULTS, write

    check_viewer(run, model, weights)
    if map_ not in METHODS:
        raise AugkitError(f'--map is {" or ".join(METHODS)}, not "{map_}"')
    opened = Store.open(store)
    if run is None and model is None:
        noted = filters.read(store).viewer
        run, weights = (None if (path := noted.get(name)) is None else Path(path) for name in ("run", "weights"))
        model = noted.get("model")
    again = f"nothing is kept of it; begin again: {command(sys.argv[1:])}"
    with resumable(again), opened.writing("look"), Meter() as meter:
        evidence = Evidence(opened, opened.images(rejected=True), run, model, weights, meter)
        page = write(opened, evidence, map_)
    if as_json:
        show_json({"page": str(page), "results": str(page.with_name(RESULTS))})
    else:
        print(page)
