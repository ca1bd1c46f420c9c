"""The class-agnostic twin of a strategy: the same document with one value for all classes wherever it had one for each.

What depends on a class then depends on the mean over the classes. A strategy that owes its reward to treating classes
differently is above its twin; one that is not might have been written without classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from augkit.errors import AugkitError, ExpressionError

if TYPE_CHECKING:
    from augkit.registry import Registry
    from augkit.strategy.expression import Node
    from augkit_llm.trace import Stage

BY_CLASS = ("class_count", "class_rank", "correct", "seen", "loss", "val_correct", "val_seen", "used", "strength_used")
RESULTS = (".correct", ".drawn")
"""Of a probe: by class too."""
EVERYWHERE = ("mean", "min", "max", "any", "all", "quantile")
"""Along classes these leave a value that is the same for all of them as it is."""
WORDS = ("augkit", "name", "title", "source", "palette", "image", "params", "use", "at", "order", "partner", "dtype")
"""Fields that hold no expression."""


class TwinError(AugkitError):
    """A strategy that has no twin, and why."""


def agnostic_twin(document: Mapping[str, Any], signals: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """The twin of a document; None if the document makes no difference between classes, and so is its own.

    Args:
        document: a strategy as a mapping.
        signals: names of further signals by class, of plugins.

    Raises:
        TwinError: it looks at a class itself, or at its place among the others, or uses another strategy.
    """
    if _uses(document.get("pipeline", [])):
        raise TwinError("it uses another strategy, whose classes are out of sight here")
    change = _Change((*BY_CLASS, *signals))
    twin: dict[str, Any] = _walk(dict(document), change)
    for spec in (twin.get("state") or {}).values():
        if "classes" in spec.get("axes", ()):
            spec["axes"] = [axis for axis in spec["axes"] if axis != "classes"]
            change.changed = True
    if not change.changed:
        return None
    return twin | {"name": f"{document.get('name', 'strategy')}-agnostic"}


def acts_alike(document: Mapping[str, Any], twin: Mapping[str, Any], registry: Registry, stage: Stage) -> bool:
    """Whether a strategy and its twin do the same, image by image, in the training that the screening plays.

    So it is where values by class are the same for all classes. Both draw the same numbers there.

    Raises:
        AugkitError: one of them cannot be played.
    """
    from augkit.strategy.document import load_strategy
    from augkit_llm.trace import play

    one, two = (play(load_strategy(dict(each), registry), registry, stage).looks for each in (document, twin))
    return [look.result for look in one] == [look.result for look in two]


def _uses(steps: Any) -> bool:
    if isinstance(steps, Mapping):
        return "use" in steps or any(_uses(value) for value in steps.values())
    return isinstance(steps, list) and any(_uses(step) for step in steps)


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: inner if key in WORDS else _walk(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


class _Change:
    """Rewrites expressions, and remembers whether there was anything to rewrite."""

    def __init__(self, by_class: tuple[str, ...]) -> None:
        self.by_class, self.changed = by_class, False

    def __call__(self, written: str) -> str:
        """An expression for all classes together; anything else as it is."""
        from augkit.strategy.expression import parse, text

        try:
            node = parse(written)
        except ExpressionError:
            return written
        return text(self.node(node))

    def node(self, node: Node) -> Node:
        from augkit.strategy.expression import Call, Index, Name, children, rebuild

        if isinstance(node, Index) and node.key in ("y", "partner"):
            self.changed = True
            return self.node(node.operand)
        if isinstance(node, Name):
            if node.name in ("y", "partner"):
                raise TwinError(f"it looks at the class itself: {node.name}")
            if node.name in self.by_class or node.name.endswith(RESULTS):
                self.changed = True
                return Call("mean", (node,), "classes")
        if isinstance(node, Call) and "classes" in (node.over, *_axes(node)):
            self.changed = True
            if node.function in EVERYWHERE:
                return self.node(node.arguments[0])
            raise TwinError(f"it compares classes with each other: {node.function}(..., over=classes)")
        return rebuild(node, tuple(self.node(child) for child in children(node)))


def _axes(node: Any) -> tuple[str, ...]:
    """Axes that a call is given as arguments."""
    return tuple(part.name for part in node.arguments if hasattr(part, "name")) if node.function == "onehot" else ()
