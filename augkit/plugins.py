"""The plugin host: finds plugins, loads each inside its own guard, and gathers what they bring into a `Registry`.

A plugin that fails to load, misspells a hook or brings something of the wrong kind brings nothing, and is named in
`Registry.broken`; all others work. Two plugins that bring the same name are an error that names both.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from augkit import builtin, hookspecs
from augkit.errors import AugkitError, PluginError, nearest
from augkit.operators.base import Operator
from augkit.registry import Registry

if TYPE_CHECKING:
    import typer

KINDS = (
    "operators",
    "palettes",
    "strategies",
    "recipes",
    "losses",
    "samplers",
    "subsets",
    "stages",
    "answers",
    "signals",
    "sources",
)
HOOKS = (*(f"augkit_{kind}" for kind in KINDS), "augkit_commands", "augkit_report")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SINGULAR = {"strategies": "strategy", "losses": "loss"}


class PluginWarning(UserWarning):
    """A plugin cannot be used."""


class Host(NamedTuple):
    """A manager holding every plugin that works, and what they bring."""

    manager: pluggy.PluginManager
    registry: Registry


def make_host(*, plugins: bool = True) -> Host:
    """A fresh manager with augkit's own parts and, unless told otherwise, every installed plugin.

    Raises:
        PluginError: two plugins bring the same name.
    """
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    things: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    origins: dict[tuple[str, str], str] = {}
    broken: list[str] = []
    manager.register(builtin, _own_name())
    _add(things, origins, _gather(manager, builtin), _own_name())
    for origin, entry in _installed() if plugins else ():
        label = f"{origin} ({entry.name})"
        try:
            brought = _gather(manager, _register(manager, entry.load(), label))
        except (Exception, SystemExit) as error:  # whatever a plugin may do, the others still work
            if manager.has_plugin(label):
                manager.unregister(name=label)
            broken.append(f"plugin {label} cannot be used: {_reason(error)}")
        else:
            _add(things, origins, brought, origin)
    return Host(manager, Registry(**things, origins=origins, broken=tuple(broken)))


def load_registry(*, plugins: bool = True) -> Registry:
    """Everything that augkit and, unless told otherwise, the installed plugins bring; raises like `make_host`."""
    return make_host(plugins=plugins).registry


@lru_cache(maxsize=1)
def default_host() -> Host:
    """The host of this process; warns of each plugin that cannot be used."""
    host = make_host()
    for sentence in host.registry.broken:
        warnings.warn(sentence, PluginWarning, stacklevel=2)
    return host


def registry() -> Registry:
    """What `default_host()` found. `default_host.cache_clear()` makes the next call look again."""
    return default_host().registry


def add_commands(app: typer.Typer, host: Host) -> tuple[str, ...]:
    """Let each plugin add its verbs to the command line; a sentence for each that fails."""
    failed = []
    for name, plugin in host.manager.list_name_plugin():
        try:
            _only(host.manager, plugin, "augkit_commands")(app=app)
        except (Exception, SystemExit) as error:
            failed.append(f"the commands of plugin {name.partition(' (')[0]} cannot be used: {_reason(error)}")
    return tuple(failed)


def page_of(folders: Sequence[Path], host: Host) -> str | None:
    """The page of the plugin that wrote the first of some folders; None if none did.

    Raises:
        PluginError: the plugin fails at it, other than by an `AugkitError`.
    """
    for name, plugin in host.manager.list_name_plugin():
        try:
            told = _only(host.manager, plugin, "augkit_report")(folders=folders)
        except (AugkitError, OSError):
            raise
        except Exception as error:
            label = name.partition(" (")[0]
            raise PluginError(f"the report of plugin {label} cannot be made: {_reason(error)}") from error
        if told:
            return str(told[0])
    return None


def _own_name() -> str:
    try:
        return f"augkit {version('augkit')}"
    except Exception:  # run from a folder, not installed
        return "augkit"


def _installed() -> Iterator[tuple[str, EntryPoint]]:
    """Entry points in the order of their distributions' names, so that messages do not depend on the file system."""
    found = []
    for entry in entry_points(group=hookspecs.GROUP):
        distribution = getattr(entry, "dist", None)
        origin = f"{distribution.metadata['Name']} {distribution.version}" if distribution else entry.value
        found.append((origin, entry))
    return iter(sorted(found, key=lambda pair: (pair[0].lower(), pair[1].name)))


def _register(manager: pluggy.PluginManager, plugin: Any, label: str) -> Any:
    """Register a module, an object or a class (which is called), and check its hooks; returns what was registered."""
    plugin = plugin() if inspect.isclass(plugin) else plugin
    manager.register(plugin, label)
    _check(manager, plugin)
    return plugin


def _check(manager: pluggy.PluginManager, plugin: Any) -> None:
    marked = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = sorted(marked - set(HOOKS))
        hint = nearest(unknown[0], HOOKS) if unknown else ""
        raise PluginError(f'"{unknown[0]}" is no hook of augkit.{hint}' if unknown else str(error)) from error
    unmarked = [name for name in HOOKS if callable(getattr(plugin, name, None)) and name not in marked]
    if unmarked:
        raise PluginError(f'its hook "{unmarked[0]}" lacks the mark @augkit.hookimpl')
    if not marked:
        raise PluginError(f"it has none of the hooks {', '.join(HOOKS)}")


def _only(manager: pluggy.PluginManager, plugin: Any, hook: str) -> Callable[..., list[Any]]:
    """The hook as this one plugin answers it: its faults are then its own."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    return manager.subset_hook_caller(hook, remove_plugins=others)


def _gather(manager: pluggy.PluginManager, plugin: Any) -> list[tuple[str, str, Any]]:
    """Everything one plugin brings, as (kind, name, thing), checked before any of it is used."""
    return [(kind, *pair) for kind in KINDS for pair in _ask(manager, plugin, kind)]


def _add(
    things: dict[str, dict[str, Any]],
    origins: dict[tuple[str, str], str],
    brought: list[tuple[str, str, Any]],
    origin: str,
) -> None:
    for kind, name, thing in brought:
        if name in things[kind]:
            raise PluginError(
                f'{_SINGULAR.get(kind, kind[:-1])} "{name}" is brought by {origins[kind, name]} and by {origin}; '
                "rename it in one of them or uninstall one"
            )
        things[kind][name] = thing
        origins[kind, name] = origin


def _ask(manager: pluggy.PluginManager, plugin: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """The (name, thing) pairs of one kind that one plugin brings."""
    taken = _words_of_documents(kind)
    for answer in _only(manager, plugin, f"augkit_{kind}")():
        if kind in ("operators", "strategies", "recipes"):
            _check_list(answer, kind)
        if kind == "operators":
            pairs = [(_operator(item).name, item) for item in answer]
        elif kind in ("strategies", "recipes"):
            pairs = [(_document(item).stem, Path(item)) for item in answer]
        elif kind == "palettes":
            pairs = [(name, tuple(entries)) for name, entries in _mapping(answer, kind).items()]
        else:
            pairs = [(name, _function(name, thing)) for name, thing in _mapping(answer, kind).items()]
        for name, thing in pairs:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise PluginError(f"{name!r} among its {kind} is not a name of letters, digits, _ and -")
            if name in taken:
                raise PluginError(f'"{name}" among its {kind} means something else in a document; choose another name')
            yield name, thing


def _words_of_documents(kind: str) -> set[str]:
    """Names that a document could not tell from its own words. Imported late: only hosts need the whole language."""
    from augkit.strategy.build import reserved
    from augkit.strategy.steps import STEP_WORDS

    return {"operators": set(STEP_WORDS), "signals": reserved(Registry())}.get(kind, set())


def _check_list(answer: Any, kind: str) -> None:
    if isinstance(answer, (str, bytes, Mapping)) or not isinstance(answer, Iterable):
        one = "an" if type(answer).__name__[:1] in "AEIOU" else "a"
        raise PluginError(f"its hook augkit_{kind} must return a list, not {one} {type(answer).__name__}; write [...]")


def _operator(item: Any) -> Operator:
    if not isinstance(item, Operator):
        raise PluginError(f"{item!r} among its operators is not one; declare it with @augkit.operator(...)")
    return item


def _document(item: Any) -> Path:
    path = Path(item)
    if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
        raise PluginError(f"its document {path} is not a .yaml, .yml or .json file that exists")
    return path


def _mapping(answer: Any, kind: str) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping):
        raise PluginError(f"its {kind} must be a mapping of names, not {type(answer).__name__}")
    return answer


def _function(name: str, thing: Any) -> Callable[..., Any]:
    if not callable(thing):
        raise PluginError(f'"{name}" is not callable')
    function: Callable[..., Any] = thing
    return function


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, without a closing full stop; our own errors need no type name."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    if isinstance(error, PluginError):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
