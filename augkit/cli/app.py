"""The application: its verbs, and what becomes of errors."""

from __future__ import annotations

import os
import re
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from augkit.cli import compare, documents, listing, report, robustness, runs, scaffold
from augkit.cli.output import command, fail, note
from augkit.errors import AugkitError
from augkit.plugins import PluginWarning, add_commands, default_host

HELP = """Augmentation policies as documents.

A strategy is a YAML document that says which operators an image meets, how strongly, and how that changes as a model
learns. Look around, write one, see what it does to your images, train with it:

\b
    augkit policies
    augkit show trivialaugment
    augkit preview trivialaugment --data photos/ --out preview.png
    augkit validate my.yaml
    augkit train demo --set policy=my.yaml
"""
EPILOG = "Wrong input ends in one sentence and exit status 2; AUGKIT_DEBUG=1 shows the traceback as well."


UsageError: Any = typer.BadParameter.__mro__[1]
"""click's; typer brings a click of its own or takes the one that is installed."""


class Verbs(TyperGroup):
    """Turns what is the user's to mend into a sentence on stderr and exit status 2, for plugins' verbs too."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `augkit operators | head`: nobody reads on
            raise
        except (AugkitError, OSError) as error:
            if os.environ.get("AUGKIT_DEBUG"):
                raise
            fail(error)
            raise typer.Exit(2) from None
        except UsageError as error:
            told = _stray(error)
            if not told:
                raise  # click's own sentence, with the verb's usage
            fail(told)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            fail(f"interrupted; give the same command again: {command(sys.argv[1:])}")
            raise typer.Exit(130) from None


def _stray(error: Any) -> str:
    """What to do about words that a verb does not take; "" if something else is wrong."""
    found = re.fullmatch(r"Got unexpected extra argument\S* \((.*)\)", error.format_message())
    if found is None or error.ctx is None:
        return ""
    words, verb, path = found[1].split(), error.ctx.command, error.ctx.command_path
    settings = [f"--set {word}" for word in words if "=" in word]
    if settings and any("--set" in parameter.opts for parameter in verb.params):
        return f"{path}: a setting is an option: write {' '.join(settings)}"
    if any(parameter.param_type_name == "argument" for parameter in verb.params):
        return f'{path}: "{found[1]}" is too much: leave it out, or put what has spaces in it in quotes'
    look = f", or look for it with {path} | grep {words[0]}" if verb.callback.__module__ == listing.__name__ else ""
    return f'{path} takes no names: leave out "{found[1]}"{look}'


def build() -> typer.Typer:
    """The application with every verb, those of plugins included."""
    app = typer.Typer(
        name="augkit",
        cls=Verbs,
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for part in (listing, documents, runs, compare, robustness, report):
        part.add_to(app)
    app.add_typer(scaffold.app, name="plugin")
    _add_plugins(app)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=lambda on: _version(on))
    ] = False,
) -> None:
    pass


def _version(asked: bool) -> None:
    if asked:
        from augkit import __version__

        print(f"augkit {__version__}")
        raise typer.Exit


def _add_plugins(app: typer.Typer) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)
            host = default_host()
    except AugkitError:  # the verb that needs the registry says so; --help and --version work
        return
    for sentence in (*host.registry.broken, *add_commands(app, host)):
        note(sentence)
