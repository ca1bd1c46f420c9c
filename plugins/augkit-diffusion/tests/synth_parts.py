"""Data, a source and processes to make images with."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, here and in processes that begin meanwhile

import hashlib
import multiprocessing
import resource
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from augkit.cli.app import build
from augkit.plugins import default_host

NAMES = ("dog", "T-shirt/top", "..", "grün blau")
COUNTS = (12, 7, 3, 1)
SERVER = multiprocessing.get_context("forkserver")

STAMPS = """
    import hashlib, os, time
    import numpy as np
    import augkit

    class Stamps:
        def __init__(self, batch, refused, seconds, fails):
            self.batch, self.refused, self.seconds, self.fails = batch, refused, seconds, fails

        def identity(self):
            return {"model": hashlib.sha256(b"stamps").hexdigest(), "steps": 7}

        def complete(self, wish):
            from dataclasses import replace
            return replace(wish, prompt=f"a photo of {wish.class_name}", row=wish.seed % 20)

        def make(self, wishes):
            "The last digits depend on all that is made at once, as they do for a network."
            time.sleep(self.seconds)
            if self.fails and any(wish.number >= self.fails for wish in wishes):
                raise RuntimeError("the model broke")
            together = sum(wish.seed for wish in wishes) % 7
            return [self.image(wish, together) for wish in wishes]

        def image(self, wish, together):
            if self.refused and wish.number % self.refused == self.refused - 1:
                return None
            image = np.random.default_rng(wish.seed).integers(0, 240, (12, 12, 3), dtype=np.uint8)
            return image + np.uint8(together)

    def stamps(context, *, batch: int = 4, refused: int = 0, seconds: float = 0.0, fails: int = 0):
        "Noise."
        return Stamps(batch, refused, seconds, fails)

    def odd(context, *, gives: str = "few"):
        "Wrong images."
        class Odd(Stamps):
            def make(self, wishes):
                images = super().make(wishes)
                return images[1:] if gives == "few" else [image / 255 for image in images]
        return Odd(4, 0, 0.0, 0)

    @augkit.hookimpl
    def augkit_sources():
        return {"stamps": stamps, "odd": odd}
"""


@contextmanager
def plugged(site: Path) -> Iterator[None]:
    """The sources `stamps` and `odd`, here and in processes that begin meanwhile."""
    metadata = site / "augkit_stamps-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "augkit_stamps.py").write_text(textwrap.dedent(STAMPS))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: augkit-stamps\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[augkit]\nstamps = augkit_stamps\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", str(site))
        default_host.cache_clear()
        yield
    sys.modules.pop("augkit_stamps", None)
    default_host.cache_clear()


def recipe(folder: Path, *, groups: bool = False, names: tuple[str, ...] = NAMES) -> Path:
    """A recipe with a few images of 8 x 8 pixels; the images of class c are in groups 0 and 1 in turn."""
    labels = np.repeat(np.arange(4), COUNTS)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    kept: dict[str, Any] = {"train_images": images, "train_labels": labels, "class_names": np.array(names)}
    kept |= {"test_images": images, "test_labels": labels}
    if groups:
        numbers = np.concatenate([np.arange(count) % 2 for count in COUNTS])
        kept |= {"train_groups": numbers, "test_groups": numbers, "group_names": np.array(["on/land", "on water"])}
    np.savez(folder / "data.npz", **kept)
    path = folder / "recipe.yaml"
    path.write_text("augkit: 1\nname: tiny\ndata: {source: data.npz}\n")
    return path


def crawled(folder: Path, size: int = 20, count: int = 5) -> Path:
    """Class folders with real-looking images of another size."""
    random = np.random.default_rng(1)
    for name in ("dog", "T-shirt%2Ftop", "%2E%2E", "grün blau"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            coarse = random.integers(0, 256, (8, 10, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((size + 4, size)).save(folder / name / f"photo {number}.jpg")
    return folder


def synth(*words: str | Path | float) -> Result:
    """`augkit synth ...` in this process."""
    return CliRunner().invoke(build(), ["synth", *map(str, words)])


def tree(folder: Path) -> dict[str, str]:
    """The hash of every image, and of every refusal, by its path."""
    files = [path for part in ("train", "rejected", "refused") for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass
class Process:
    """`augkit ...` in a process of its own."""

    process: Any
    paths: tuple[Path, Path]

    def wait(self, timeout: float = 240) -> tuple[int, str, str]:
        """Its exit status, and what it wrote."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError
        out, errors = (path.read_text(encoding="utf-8") for path in self.paths)
        return self.process.exitcode, out, errors


def begin(folder: Path, *words: str | Path | float, largest: int | None = None) -> Process:
    """Begin `augkit ...`; `largest` is the size in bytes of a file beyond which the disk counts as full."""
    SERVER.set_forkserver_preload(["augkit.cli.app", "augkit.lab.run", "pyarrow.parquet", "augkit_diffusion.fit_model"])
    forkserver.ensure_running()
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "stdout", folder / "stderr"
    process = SERVER.Process(target=_command, args=([*map(str, words)], dict(os.environ), paths, largest))
    process.start()
    return Process(process, paths)


def _command(words: list[str], environment: Mapping[str, str], paths: tuple[Path, Path], largest: int | None) -> None:
    for number, path in enumerate(paths, 1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    if "PYTHONPATH" in environment:
        sys.path.insert(0, environment["PYTHONPATH"])
    sys.argv = ["augkit", *words]
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    from augkit.cli import main

    main()
