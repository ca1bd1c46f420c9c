"""The source `folder`: other real images, such as crawled ones, in class folders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from augkit.errors import DataError
from augkit.lab.class_folders import folder_name
from augkit_diffusion.sources import Context, Source, Wish


def folder(context: Context, *, path: Path, batch: Annotated[int, Field(ge=1)] = 16) -> Source:
    """Other real images, such as crawled ones: those of class folders, in turn."""
    return Folder(path, context.data.train.size, batch)


class Folder:
    """Images of class folders that have the data's classes' names, resized and cropped as the data's images are.

    Image k of a class is file k of its folder, in the order of their names; after the last file comes the first again.
    For groups the folders are GROUP/CLASS.
    """

    from_real = False

    def __init__(self, root: Path, size: int, batch: int) -> None:
        self.batch, self.size, self.root = batch, size, root.expanduser().absolute()
        if not self.root.is_dir():
            raise DataError("there is no such folder of images; name one with --option path=DIR", file=root)
        self.files = lru_cache(maxsize=None)(self._files)

    def identity(self) -> dict[str, Any]:
        """The names and sizes of all image files, and the images' size."""
        from augkit.lab.readers import IMAGE_ENDINGS

        digest = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            if path.suffix.lower() in IMAGE_ENDINGS:
                digest.update(
                    f"{path.relative_to(self.root)}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape")
                )
        return {"files_sha256": digest.hexdigest(), "size": self.size}

    def complete(self, wish: Wish) -> Wish:
        """With the name of its file."""
        return replace(wish, source_image=str(self._file(wish).relative_to(self.root)))

    def make(self, wishes: Sequence[Wish]) -> list[np.ndarray | None]:
        """The images of files."""
        from augkit.lab.data import fit
        from augkit.lab.readers import Files

        files = Files([self._file(wish) for wish in wishes], np.array([wish.label for wish in wishes]))
        return [fit(files.read(i), self.size).numpy().transpose(1, 2, 0) for i in range(len(wishes))]

    def _file(self, wish: Wish) -> Path:
        files = self.files(wish.class_name, wish.group_name)
        return files[wish.number % len(files)]

    def _files(self, class_name: str, group_name: str | None) -> list[Path]:
        from augkit.lab.readers import IMAGE_ENDINGS

        parts = [folder_name(name) for name in (group_name, class_name) if name is not None]
        folder = self.root.joinpath(*parts)
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS) if folder.is_dir() else []
        if not found:
            raise DataError(f'there is no image of class "{class_name}" for it; add some to this folder', file=folder)
        return found
