"""Writing a preview: the strategy, the images, and the page or picture of both."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

from augkit.cli.output import note
from augkit.cli.samples import sample
from augkit.errors import AugkitError
from augkit.lab.folder import write_out
from augkit.plugins import registry
from augkit.policy import Policy
from augkit.report.preview import Samples
from augkit.strategy.document import load_strategy

EPOCHS = 100
"""The planned length of the training that a previewed policy is told."""
COUNTS, ROW = {".html": 24, ".png": 8}, {".html": 2, ".png": 1}
"""Images unless it is said, and the fewest of a class, by what is written."""

TOLD = 5
"""Unreadable files that `--json` names."""


def write_preview(
    source: str, data: str, out: Path, *, images: int | None, seed: int, epoch: int, size: int | None
) -> dict[str, Any]:
    """Write `out`, a page or a picture as its ending says, whole or not at all; returns what `--json` tells.

    Raises:
        AugkitError: of the strategy, the images or the place that is to be written.
    """
    kind = out.suffix.lower()
    if kind not in COUNTS:
        raise AugkitError(f"{out.name}: call it .html for a page with a slider, or .png for a picture")
    found = registry()
    strategy = load_strategy(source, found)
    samples = sample(data, count=images or COUNTS[kind], size=size, seed=seed, each=ROW[kind])

    def policy() -> Policy:
        return Policy(
            strategy,
            class_counts=samples.class_counts,
            class_names=samples.class_names,
            groups=1,
            num_samples=sum(samples.class_counts),
            epochs=EPOCHS,
            seed=seed,
            registry=found,
        )

    if kind == ".png":
        from augkit.report.preview import picture

        buffer = io.BytesIO()
        picture(policy(), samples, epoch).save(buffer, "PNG")
        content: str | bytes = buffer.getvalue()
    else:
        from augkit.report.preview_page import page

        given = {"--images": images, "--seed": seed or None, "--epoch": epoch or None, "--size": size}
        options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
        command = shlex.join(["augkit", "preview", source, "--data", data, "--out", str(out), *options])
        named = Path(data).expanduser()
        called = named.resolve().name if named.exists() else data
        content = page(policy, samples, data=called, command=command, epoch=epoch)
    write_out(out, content)
    if samples.warning:
        note(samples.warning)
    return _told(out, strategy.name, strategy.hash, samples, seed)


def _told(out: Path, name: str, digest: str, samples: Samples, seed: int) -> dict[str, Any]:
    shown = sorted({samples.class_names[label] for label in samples.targets.tolist()})
    size = samples.images.shape[-1]
    facts = {"strategy": name, "hash": digest, "images": len(samples.images), "classes": shown, "size": size}
    broken = {"unreadable": len(samples.unreadable), "unreadable_files": list(samples.unreadable[:TOLD])}
    tried = len(samples.images) + len(samples.unreadable)
    return {"path": str(out), **facts, "seed": seed, "bytes": out.stat().st_size, "tried": tried, **broken}
