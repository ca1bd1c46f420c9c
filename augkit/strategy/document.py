"""Loading a strategy: by name, from a file, or from a mapping; read, resolved, checked, and given its identity.

A file or a mapping can name other strategies with `use`. Registered names always work; a path works only in a document
that itself came from a path, is relative to that document's folder, and may not leave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from augkit.errors import DocumentError, closest
from augkit.registry import Registry
from augkit.strategy.build import Builder
from augkit.strategy.canonical import canonical, digest
from augkit.strategy.checks import Checker
from augkit.strategy.draft import Context, Draft
from augkit.strategy.model import Facts, Strategy
from augkit.strategy.needs import needs_of, reads_of
from augkit.strategy.problems import Problems, TooManyError, hint, shown
from augkit.strategy.reading import Source, read_file, read_mapping
from augkit.strategy.timm_strings import is_timm, timm_document

ENDINGS = (".yaml", ".yml", ".json")
MAX_USE = 8
MAX_USED = 64
ELSEWHERE = {
    **dict.fromkeys(("cuda", "cuda_monotone", "cuda_online", "cuda_agnostic", "bcl_views_cuda"), "augkit-cuda"),
    **dict.fromkeys(("doda", "doda_uniform"), "augkit-doda"),
    "domain_mixup": "augkit-diffusion",
}
"""Strategies that augkit's own plugins bring, for the message where one is not installed."""


def load_strategy(
    source: str | Path | Mapping[str, Any],
    registry: Registry,
    params: Mapping[str, Any] | None = None,
    image: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Strategy:
    """Load a strategy.

    Args:
        source: a registered name; one of timm's strings, such as rand-m9-mstd0.5-inc1; a path, which has a path
            separator or ends in .yaml, .yml or .json; or a document.
        registry: the operators, palettes, strategies and signals that it may name.
        params: values that override the document's `params`.
        image: settings that override the document's `image`.
        folder: where the relative paths of a mapping start; without it a mapping can only `use` registered names.

    Raises:
        DocumentError: with everything that is wrong in `problems`, each with file, line, path and what was expected.
    """
    return _Loading(registry, folder).load(source, params or {}, image or {})


def is_path(source: str) -> bool:
    """Whether text means a file and not a registered name."""
    return "/" in source or "\\" in source or source.endswith(ENDINGS)


@dataclass(frozen=True)
class _Loading:
    """One call of `load_strategy`: what is being loaded around this document, and what was loaded already."""

    registry: Registry
    folder: Path | None = None
    """Of the document that is being read, if its path came from the user."""
    chain: tuple[str, ...] = ()
    done: dict[tuple[Any, ...], Strategy | DocumentError] = field(default_factory=dict)

    def load(
        self, source: str | Path | Mapping[str, Any], params: Mapping[str, Any], image: Mapping[str, Any]
    ) -> Strategy:
        if isinstance(source, Mapping):
            return self.strategy(read_mapping(source), params, image)
        if isinstance(source, Path) or (isinstance(source, str) and is_path(source)):
            path = Path(source)
            inner = replace(self, folder=path.parent, chain=(*self.chain, _key(path)))
            return inner.strategy(read_file(path), params, image)
        if not isinstance(source, str):
            raise DocumentError(f"a strategy is a name, a path or a mapping, not {shown(source)}")
        if self.timm(source):
            return self.strategy(read_mapping(timm_document(source)), params, image)
        path = self.registered(source)
        inner = replace(self, folder=None, chain=(*self.chain, _key(path)))
        return inner.strategy(read_file(path), params, image)

    def timm(self, name: str) -> bool:
        """Whether a name is one of timm's strings; a registered name goes first."""
        return is_timm(name) and name not in self.registry.strategies

    def registered(self, name: str) -> Path:
        if name not in self.registry.strategies:
            raise DocumentError(_unknown(name, self.registry))
        return self.registry.strategies[name]

    def use(self, name: str, params: Mapping[str, Any]) -> Strategy:
        """Another strategy, for a document of this loading."""
        given = tuple(sorted(params.items()))
        if self.timm(name):
            return self.once((name, False, given), name, params)
        path = self.beside(name) if is_path(name) else self.registered(name)
        key = _key(path)
        if key in self.chain:
            circle = " -> ".join(Path(part).name for part in (*self.chain[self.chain.index(key) :], key))
            raise DocumentError(f"strategies use each other in a circle: {circle}")
        if len(self.chain) >= MAX_USE:
            raise DocumentError(f"strategies use each other more than {MAX_USE} deep")
        return self.once((key, is_path(name), given), path if is_path(name) else name, params)

    def once(self, key: tuple[Any, ...], source: str | Path, params: Mapping[str, Any]) -> Strategy:
        """A strategy in use, loaded when it is met first."""
        if key not in self.done:
            if len(self.done) >= MAX_USED:
                raise DocumentError(f"a strategy uses at most {MAX_USED} others, one for each set of params")
            try:
                self.done[key] = self.load(source, params, {})
            except DocumentError as error:  # remembered too, or a pyramid of faulty documents is climbed on every path
                self.done[key] = error
        found = self.done[key]
        if isinstance(found, DocumentError):
            raise found
        return found

    def beside(self, name: str) -> Path:
        """The file of a relative path, below the folder of the document that names it."""
        if self.folder is None:
            raise DocumentError("a path works only in a document that came from a path itself; give a registered name")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name:
            raise DocumentError(
                f"the path {shown(name)} must be relative, with / and without .., to this document's folder"
            )
        return self.folder / name

    def strategy(self, source: Source, params: Mapping[str, Any], image: Mapping[str, Any]) -> Strategy:
        problems = Problems(source.file, source.lines)
        draft, checker = Draft(), None
        try:
            builder = Builder(Context(self.registry, problems, self.use), params, image)
            draft = builder.build(source.data)
            checker = Checker(draft, self.registry, problems)
            checker.run()
        except TooManyError:
            pass
        if problems.found or checker is None:
            raise problems.error()
        return _finished(draft, checker, source)


def _unknown(name: str, registry: Registry) -> str:
    """What to say of a name that is no strategy's, but perhaps that of something else, or nearly so."""
    if name in registry.palettes:
        return f"{name} is a palette, not a strategy; write palette: {name} in a document that picks"
    if name in registry.operators:
        return f"{name} is an operator, not a strategy; write it as a step of a document, as in pipeline: [{name}]"
    told = f"there is no strategy {shown(name)}"
    if name in ELSEWHERE:
        package = ELSEWHERE[name]
        told += f"; it comes with the distribution {package}, which is not installed"
        return f"{told}: pip install {package}, or pip install ./plugins/{package} in a clone"
    others = {**dict.fromkeys(registry.palettes, "a palette"), **dict.fromkeys(registry.operators, "an operator")}
    other = closest(name, others) if len(name) <= 60 and not closest(name, registry.strategies) else ""
    if other:
        return f'{told}. Did you mean "{other}"? That is {others[other]}, not a strategy.'
    return f"{told}.{hint(name, registry.strategies)}"


def _finished(draft: Draft, checker: Checker, source: Source) -> Strategy:
    made = Strategy(
        name=draft.name,
        title=draft.title,
        source=draft.source,
        params=draft.params,
        palette=draft.palette,
        image=draft.image,
        state=draft.state,
        pipeline=draft.pipeline,
        views=draft.views,
        probes=draft.probes,
        max_probe_images=draft.max_probe_images,
        update=tuple(rule for rule in draft.update if rule is not None),
    )
    reads = reads_of(draft, checker.typed)
    made._facts = Facts(
        draft.choices,
        checker.typed,
        needs_of(draft, checker.typed, checker.registry),
        reads,
        digest(canonical(draft, checker.registry, reads)),
        source.file,
        source.data,
    )
    return made


def _key(path: Path) -> str:
    """One name for one file, however its path is written."""
    try:
        return str(path.resolve())
    except (OSError, RuntimeError):  # links in a circle; reading it says so
        return str(path)
