"""What a strategy under search may not do, beyond what the format allows: one place for every source of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from augkit.errors import DocumentError
from augkit.operators.external import is_external
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.strategy.expression import IS_SYNTHETIC
from augkit.strategy.model import Strategy
from augkit.strategy.needs import nested
from augkit.strategy.order import has_probes

if TYPE_CHECKING:
    from augkit.lab.recipe import Recipe

FORBIDDEN = ("val_correct", "val_seen")
"""Signals of the held-out images, by which strategies are rewarded."""


def admit(document: Mapping[str, Any], registry: Registry) -> Strategy:
    """The strategy of a document that a search may train: valid, and within the limits that a search sets.

    Those are: no `val_*` signals, which tell of the images that give the reward; no probes, which cost passes of the
    model; no views, which multiply the batch and need a loss of their own; no groups; nothing about which images are
    synthetic; and none of the transforms of other libraries, since making one runs that library's code on arguments
    that a stranger chose.

    Raises:
        DocumentError: with every fault of the document, or the one limit that it breaks, in a sentence.
    """
    strange = next((name for name in _names(document) if is_external(name)), None)
    if strange is not None:
        raise DocumentError(f'"{strange[:60]}" is of another library, and a search uses augkit\'s own operators alone')
    strategy = load_strategy(document, registry)
    broken = limit_broken(strategy)
    if broken is not None:
        raise DocumentError(f"a search does not train this strategy: {broken}")
    return strategy


def limit_broken(strategy: Strategy) -> str | None:
    """The limit of a search that a valid strategy breaks, in a sentence that begins with "it"; None for none."""
    read = sorted({*FORBIDDEN} & strategy.reads)
    if read:
        return f"it reads {' and '.join(read)}, which count answers to the images by which it is rewarded"
    if strategy.view_names:
        return "it has views, which multiply the batch and need a loss of their own"
    if any(map(has_probes, (strategy, *nested(strategy.pipeline)))):
        return "it has probes, which ask the model with passes that its rivals do not get"
    if IS_SYNTHETIC in strategy.needs:
        return "it asks which images are synthetic, and a search judges strategies for real ones"
    return "it reads groups, and a search has no groups of images" if "group" in strategy.needs else None


def misfit(document: Mapping[str, Any], recipe: Recipe, registry: Registry) -> str | None:
    """Why a recipe cannot train a strategy that is valid by itself, in one sentence; None if it can.

    It may disagree with the recipe's base, such as by a fill that would show at the edges of the base's crops.
    """
    from augkit.lab.augmentation import strategy_of
    from augkit_llm.files import write_document

    with TemporaryDirectory() as folder:  # a recipe names its policy by path, and the check is the one of its training
        path = Path(folder) / "strategy.yaml"
        write_document(path, document, registry)
        policy = recipe.policy.model_copy(update={"load": str(path), "params": {}})
        try:
            strategy_of(recipe.model_copy(update={"policy": policy}), registry)
        except DocumentError as error:
            first = error.problems[0]
            return f"the recipe cannot train it: {first.path}: {first.message}" if first.path else first.message
    return None


def _names(document: Any) -> Iterator[str]:
    """Whatever may name an operator: entries of lists, and keys, of the palette and of every list of steps."""
    if not isinstance(document, Mapping):
        return
    waiting = [document.get(key) for key in ("palette", "pipeline", "views", "probes")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield from (key for key in value if isinstance(key, str))
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, str))
            waiting.extend(value)
