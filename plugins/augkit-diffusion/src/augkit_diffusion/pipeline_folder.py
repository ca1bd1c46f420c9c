"""The folder of a diffusers pipeline: where it is, that all of it is there and safe to load, and its hash.

A pipeline lies in a folder with `model_index.json` and a folder for each of its parts. Weights are read from
safetensors files alone, since others can run code when they are read, and parts whose code comes with them are
refused. diffusers is imported to fetch from the hub, and for pipelines with a part of neither its own nor transformers'
kinds, such as a safety checker.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from augkit.errors import DataError
from augkit.lab.folder import write_json

INDEX, CHECKER = "model_index.json", "safety_checker"
HASHES = "hashes.json"
READ = (".json", ".txt", ".model", ".safetensors")
"""Endings of the files that loading reads."""
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5", ".onnx")
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<old>\w+))?\.safetensors"
)
_BLOCK = 1 << 22
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline's folder that `open_folder` has looked through."""

    path: Path
    kind: str
    """The name of its class, such as StableDiffusionPipeline."""
    parts: tuple[str, ...]
    """Names of the parts that are loaded."""
    variant: str | None
    """Which of several files of the same weights are read, such as those whose names end in .fp16.safetensors."""
    checked: bool
    """Whether a safety checker looks at images."""
    checker_there: bool

    @property
    def safety_checker(self) -> str:
        """`on`, `off` if the pipeline has one and it was refused, or `absent`."""
        return "on" if self.checked else "off" if self.checker_there else "absent"

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """What images depend on: configurations, vocabularies and weights."""
        found = [path for part in self.parts for path in sorted((self.path / part).iterdir()) if self._is_read(path)]
        return (self.path / INDEX, *found)

    def _is_read(self, path: Path) -> bool:
        if path.suffix not in READ or not path.is_file():
            return False
        variants = _variants(path.parent)
        wanted = self.variant if self.variant in variants else None
        match = _WEIGHTS.fullmatch(path.name)
        return match is None or (match["variant"] or match["old"]) == wanted

    def sha256(self, notes: Path, tell: Tell) -> str:
        """Of all `files`, by name and content.

        Args:
            notes: a folder where the hashes of files are noted with their sizes and times, so that a second call need
                not read gigabytes again.
            tell: called with what is done, how much of it, and of how much.
        """
        known, digest, new = _noted(notes / HASHES), hashlib.sha256(), {}
        for i, path in enumerate(self.files):
            status = path.stat()
            mark = [str(path.resolve()), status.st_size, status.st_mtime_ns]
            name = path.relative_to(self.path).as_posix()
            noted = known.get(name)
            found = noted[3] if isinstance(noted, list) and noted[:3] == mark else file_sha256(path)
            new[name] = [*mark, found]
            digest.update(f"{name}\0{found}\n".encode())
            tell("hash of the weights", i + 1, len(self.files))
        if new != known:
            notes.mkdir(parents=True, exist_ok=True)
            write_json(notes / HASHES, new)
        return digest.hexdigest()


def open_folder(model: str, *, safety_checker: bool = True) -> PipelineFolder:
    """The pipeline in a folder, or of the hub; one of the hub is fetched if it was not fetched before.

    Raises:
        DataError: there is none, a part of it is missing, or it cannot be loaded safely.
    """
    path = _locate(model, safety_checker)
    index = _index(path)
    parts = {name: one for name, one in index.items() if isinstance(one, list) and len(one) == 2 and one[1] is not None}
    there = CHECKER in parts
    if there and not safety_checker:
        parts = {name: one for name, one in parts.items() if name != CHECKER}
    for name, (library, _) in parts.items():
        _check_part(path, name, library)
    _check_code(path, parts)
    variant = _variant([path / name for name in parts])
    return PipelineFolder(path, index["_class_name"], tuple(sorted(parts)), variant, CHECKER in parts, there)


def _locate(model: str, safety_checker: bool) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.absolute()
    if path.is_file():
        raise DataError(
            "this is a file; name the folder of a diffusers pipeline (save_pretrained writes one)", file=path
        )
    if not _ID.fullmatch(model):
        raise DataError("there is no such folder; name the folder of a diffusers pipeline, or a hub id", file=model)
    return _fetch(model, safety_checker)


def _fetch(name: str, safety_checker: bool) -> Path:
    from augkit_diffusion.pipelines import quiet

    with quiet() as diffusers:
        less = {} if safety_checker else {"safety_checker": None}
        try:
            return Path(diffusers.DiffusionPipeline.download(name, use_safetensors=True, **less))
        except Exception as error:  # whatever network, hub and cache may raise: all that is told is that it failed
            reason = re.split(r"\. | \(", " ".join(str(error).split()))[0][:200].rstrip(".")
            raise DataError(
                f'"{name}" is no folder here, and could not be fetched from the hub as safetensors ({reason});'
                " name a folder, or try again with a network"
            ) from error


def _index(path: Path) -> dict[str, Any]:
    file = path / INDEX
    if not file.is_file():
        raise DataError(f"this is no folder of a diffusers pipeline (no {INDEX} in it); name another", file=path)
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        kind = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("this tells of no pipeline; get the folder anew", file=file) from error
    if not isinstance(kind, str):
        raise DataError("this pipeline comes with code of its own, which is not run; name another", file=file)
    return dict(index)


def _check_part(path: Path, name: str, library: Any) -> None:
    """Raise unless the part is there, of a known library, and its weights are safe to read."""
    folder = path / name
    if not folder.is_dir():
        raise DataError(f"the pipeline's part {name} is missing; get the folder anew", file=path)
    if library not in ("diffusers", "transformers") and not _of_diffusers(library):
        raise DataError(f"the pipeline's part {name} comes with code of its own, which is not run", file=path)
    if not (folder / "config.json").is_file():  # then it has no weights, but for a part that is not whole
        return
    endings = {file.suffix for file in folder.iterdir()}
    if ".safetensors" not in endings:
        reason = "are missing; get the folder anew"
        if endings & set(UNSAFE):
            reason = "are not safetensors, and other files can run code when read; save it with safe_serialization=True"
        raise DataError(f"the weights of the pipeline's part {name} {reason}", file=folder)


def _check_code(path: Path, names: Iterable[str]) -> None:
    """Raise if any Python file lies in the pipeline's folder, or in a part's that is linked to from there."""
    for folder in (path, *(path / name for name in names)):
        if (file := next(folder.rglob("*.py"), None)) is not None:
            raise DataError(
                "code lies in this pipeline's folder, and none of a model's is run; look at it, and remove it or name"
                " another pipeline",
                file=file,
            )


def _of_diffusers(library: Any) -> bool:
    """Whether a part's code is a module of a pipeline of diffusers, such as `stable_diffusion`.

    This asks what diffusers itself asks before it looks for code beside the weights.
    """
    from augkit_diffusion.pipelines import quiet

    if not isinstance(library, str) or not library.isidentifier():
        return False
    with quiet() as diffusers:
        return isinstance(getattr(diffusers.pipelines, library, None), ModuleType)


def _variants(folder: Path) -> set[str | None]:
    found = (_WEIGHTS.fullmatch(file.name) for file in folder.iterdir())
    return {match["variant"] or match["old"] for match in found if match is not None}


def _variant(folders: list[Path]) -> str | None:
    """The variant that is read where some part has no plain files; None where all have."""
    lacking = [variants for variants in map(_variants, folders) if variants and None not in variants]
    shared = set.intersection(*lacking) if lacking else set()
    return min((one for one in shared if one is not None), default=None)


def _noted(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def file_sha256(path: Path) -> str:
    """Of a file that may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
