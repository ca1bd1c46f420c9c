"""The verb `augkit synth sources`."""

from __future__ import annotations

from typing import Any

from augkit.cli.listing import first_line
from augkit.cli.output import Json, show_rows


def sources(as_json: Json = False) -> None:
    """List what can make images, with the options of each.

    \b
        augkit synth sources
        augkit synth make recipe.yaml --target 500 --source folder --option path=crawled --out synth
    """
    from augkit.plugins import registry
    from augkit_diffusion.sources import options_of

    found = registry()
    rows: list[dict[str, Any]] = []
    for name, factory in sorted(found.sources.items()):
        options = {key: None if value is ... else value for key, value in options_of(name, found).items()}
        told = options if as_json else [key if value is None else f"{key}: {value}" for key, value in options.items()]
        rows.append(
            {
                "source": name,
                "what it does": first_line(factory),
                "options": told,
                "from": found.origins["sources", name],
            }
        )
    show_rows(rows, as_json=as_json, spare=("from",))
