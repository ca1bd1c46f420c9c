"""A plugin in a wheel: an operator of one's own becomes a distribution that others install, and is used by its name.

    python examples/plugin_wheel.py                                  # in a temporary folder, half a minute
    python examples/plugin_wheel.py --folder built/ --data photos/   # keep what is built, show it on your images

It does what you would type: `augkit plugin new`, `pip wheel`, `pip install`, `augkit preview`. The wheel is installed
into a folder of its own here, so that your environment stays as it is. Building needs a setuptools of 77 or later (`pip
install -U setuptools`) and no network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path


def call(*words: str | Path, path: str = "") -> None:
    """Show a command and run it; `path` is a further folder to import from."""
    print("\n$", *words, flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))}
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True, env=environment)


def build(folder: Path, data: str) -> None:
    """Write a plugin, make its wheel, install that into a folder and use what it brings."""
    source, wheels, site = folder / "augkit-haze", folder / "wheels", folder / "site"

    call("augkit", "plugin", "new", "augkit-haze", "--out", source)
    print("\nthe operator, in src/augkit_haze/__init__.py:\n")
    print((source / "src" / "augkit_haze" / "__init__.py").read_text())  # a place for yours

    call("pip", "wheel", source, "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", wheels)
    (wheel,) = wheels.glob("augkit_haze-*.whl")
    print(f"{wheel.name}, {wheel.stat().st_size} bytes")

    call("pip", "install", wheel, "--no-deps", "--no-index", "--quiet", "--target", site)
    call("augkit", "show", "haze", path=str(site))  # augkit finds it by its entry point
    call("augkit", "preview", "haze", "--data", data, "--out", folder / "haze.png", path=str(site))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to build; a temporary folder without it")
    parser.add_argument("--data", default="digits", help="a folder of images to show it on; digits without it")
    args = parser.parse_args()
    if int(version("setuptools").split(".")[0]) < 77:
        parser.error(f"setuptools {version('setuptools')} is too old to build with; run: pip install -U setuptools")
    with tempfile.TemporaryDirectory() as temporary:
        build(args.folder or Path(temporary), args.data)


if __name__ == "__main__":
    main()
