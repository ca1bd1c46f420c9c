"""The plugin host: who brings what, what becomes of a broken plugin, and who is named."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from fixtures import Command, Install

from augkit.errors import PluginError
from augkit.plugins import KINDS, PluginWarning, default_host, load_registry, registry

FOG = """
    import augkit

    @augkit.operator(range=(0.0, 0.5))
    def {name}(images, share):
        "Whiter."
        return images + (1 - images) * share[:, None, None, None]

    @augkit.hookimpl
    def augkit_operators():
        return [{name}]
"""


def test_builtins_come_through_the_hooks() -> None:
    own = load_registry(plugins=False)
    assert own.broken == ()
    assert all(origin.startswith("augkit ") for origin in own.origins.values())
    kinds = ("operators", "palettes", "strategies", "recipes", "losses", "samplers", "subsets", "stages", "answers")
    for kind in kinds:
        found = getattr(own, kind)
        assert found, kind
        assert {name for k, name in own.origins if k == kind} == set(found)


def test_a_module_brings_every_kind(install: Install, tmp_path: Path) -> None:
    for name in ("dusk.yaml", "night.yaml"):
        (tmp_path / name).write_text("augkit: 1\n")
    install(
        "augkit-fog",
        f"""
        from pathlib import Path
        import augkit

        @augkit.operator()
        def haze(images):
            return images

        @augkit.hookimpl
        def augkit_operators():
            return [haze]

        @augkit.hookimpl
        def augkit_palettes():
            return {{"weather": ["haze", {{"rotate": {{"low": 0, "high": 5}}}}]}}

        @augkit.hookimpl
        def augkit_strategies():
            return [Path({str(tmp_path)!r}) / "dusk.yaml"]

        @augkit.hookimpl
        def augkit_recipes():
            return [Path({str(tmp_path)!r}) / "night.yaml"]

        @augkit.hookimpl
        def augkit_losses():
            return {{"hinge": lambda logits, targets: None}}

        @augkit.hookimpl
        def augkit_samplers():
            return {{"rarest": lambda class_counts: 1 / class_counts}}

        @augkit.hookimpl
        def augkit_subsets():
            return {{"first": lambda labels, budgets: (labels.argsort(), labels * 0 + 1)}}

        @augkit.hookimpl
        def augkit_stages():
            return {{"finetune_stem": lambda model: model.conv1}}

        @augkit.hookimpl
        def augkit_answers():
            return {{"generous": lambda output, targets: targets >= 0}}

        @augkit.hookimpl
        def augkit_signals():
            return {{"margin": lambda logits, targets: logits[:, 0]}}

        @augkit.hookimpl
        def augkit_sources():
            return {{"drawn": lambda context: None}}
        """,
        version="2.3",
    )
    found = load_registry()
    assert found.broken == ()
    expected = ("haze", "weather", "dusk", "night", "hinge", "rarest", "first", "finetune_stem", "generous", "margin")
    expected += ("drawn",)
    for kind, name in zip(KINDS, expected, strict=True):
        assert name in getattr(found, kind)
        assert found.origins[kind, name] == "augkit-fog 2.3"
    assert found.strategies["dusk"] == tmp_path / "dusk.yaml"
    assert found.palettes["weather"][0] == "haze"
    assert "haze" not in load_registry(plugins=False).operators


def test_a_class_may_be_a_plugin(install: Install) -> None:
    install(
        "augkit-rain",
        """
        import augkit

        class Rain:
            @augkit.hookimpl
            def augkit_losses(self):
                return {"wet": print}
        """,
        target=":Rain",
    )
    assert load_registry().origins["losses", "wet"] == "augkit-rain 1.0"


BROKEN = {
    "import": ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "misspelt": (
        "import augkit\n@augkit.hookimpl\ndef augkit_operator(): return []",
        '"augkit_operator" is no hook of augkit. Did you mean "augkit_operators"?',
    ),
    "unmarked": ("def augkit_operators(): return []", 'its hook "augkit_operators" lacks the mark @augkit.hookimpl'),
    "empty": ("", "it has none of the hooks augkit_operators"),
    "arguments": ("import augkit\n@augkit.hookimpl\ndef augkit_losses(what): return {}", "PluginValidationError"),
    "raises": (
        "import augkit\n@augkit.hookimpl\ndef augkit_losses(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "function": (
        "import augkit\n@augkit.hookimpl\ndef augkit_operators(): return [print]",
        "<built-in function print> among its operators is not one",
    ),
    "one operator": (
        "import augkit\n@augkit.operator()\ndef mist(images): return images\n"
        "@augkit.hookimpl\ndef augkit_operators(): return mist",
        "its hook augkit_operators must return a list, not an Operator",
    ),
    "one document": (
        "import augkit\n@augkit.hookimpl\ndef augkit_strategies(): return '/nowhere/x.yaml'",
        "its hook augkit_strategies must return a list, not a str",
    ),
    "half a range": (
        "import augkit\n@augkit.operator(range=(0.5,))\ndef mist(images, amount): return images",
        'OperatorError: operator "mist": range must be two numbers, as in range=(0, 1), not (0.5,)',
    ),
    "list": (
        "import augkit\n@augkit.hookimpl\ndef augkit_losses(): return [1]",
        "its losses must be a mapping of names, not list",
    ),
    "uncallable": ("import augkit\n@augkit.hookimpl\ndef augkit_signals(): return {'x': 3}", '"x" is not callable'),
    "name": (
        "import augkit\n@augkit.hookimpl\ndef augkit_losses(): return {'a b': print}",
        "'a b' among its losses is not a name",
    ),
    "missing": (
        "import augkit\n@augkit.hookimpl\ndef augkit_strategies(): return ['/nowhere/x.yaml']",
        "its document /nowhere/x.yaml is not a .yaml, .yml or .json file that exists",
    ),
    "step": (
        "import augkit\n@augkit.operator()\ndef pick(images): return images\n"
        "@augkit.hookimpl\ndef augkit_operators(): return [pick]",
        '"pick" among its operators means something else in a document',
    ),
    "signal": (
        "import augkit\n@augkit.hookimpl\ndef augkit_signals(): return {'epoch': print}",
        '"epoch" among its signals means something else in a document',
    ),
    "half": (
        "import augkit\n@augkit.hookimpl\ndef augkit_signals(): return {'good': print}\n"
        "@augkit.hookimpl\ndef augkit_losses(): return {'bad': 3}",
        '"bad" is not callable',
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_and_the_rest_works(case: str, install: Install) -> None:
    code, reason = BROKEN[case]
    install("augkit-broken", code, version="0.7")
    install("augkit-fog", FOG.format(name="smog"))
    install("zz-last", FOG.format(name="haze"))
    found = load_registry()
    (sentence,) = found.broken
    assert sentence.startswith("plugin augkit-broken 0.7 (augkit_broken) cannot be used: ")
    assert reason in sentence and "\n" not in sentence
    assert {"smog", "haze", "rotate"} <= set(found.operators)
    assert not any(origin.startswith("augkit-broken") for origin in found.origins.values())


def test_two_distributions_with_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("augkit-fog", FOG.format(name="mist"), version="1.2")
    install("other-fog", FOG.format(name="mist"), version="3.4")
    with pytest.raises(
        PluginError, match=r'^operator "mist" is brought by augkit-fog 1\.2 and by other-fog 3\.4; rename'
    ):
        load_registry()


def test_a_plugin_cannot_take_a_builtin_name(install: Install) -> None:
    install("augkit-fog", FOG.format(name="rotate"))
    with pytest.raises(PluginError, match=r'^operator "rotate" is brought by augkit \S+ and by augkit-fog 1.0; rename'):
        load_registry()


def test_the_registry_of_the_process_is_made_once_and_warns_once(install: Install) -> None:
    install("augkit-broken", "import nothing_of_this_name")
    with pytest.warns(PluginWarning, match="augkit-broken 1.0"):
        first = registry()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry() is first
    default_host.cache_clear()
    with pytest.warns(PluginWarning):
        assert registry() is not first


VERB = """
    import augkit

    @augkit.hookimpl
    def augkit_commands(app):
        @app.command()
        def weather(place: str):
            "Tell the weather."
            if place == "nowhere":
                raise augkit.AugkitError("there is no weather nowhere")
            print("fog in", place)
"""


@pytest.mark.slow
def test_a_plugin_adds_a_verb_whose_errors_are_sentences_too(install: Install, augkit: Command) -> None:
    install("augkit-weather", VERB)
    assert "Tell the weather." in augkit("--help").stdout
    assert augkit("weather", "Basel").stdout == "fog in Basel\n"
    failed = augkit("weather", "nowhere")
    assert (failed.returncode, failed.stderr) == (2, "error: there is no weather nowhere\n")


def test_a_verb_that_cannot_be_added_stops_nothing(install: Install, augkit: Command) -> None:
    install("augkit-weather", "import augkit\n@augkit.hookimpl\ndef augkit_commands(app): app.no_such_thing()")
    listed = augkit("losses")
    assert listed.returncode == 0 and "balanced_softmax" in listed.stdout
    assert listed.stderr.startswith("warning: the commands of plugin augkit-weather 1.0 cannot be used: AttributeError")
    assert len(listed.stderr.splitlines()) == 1


def test_the_command_line_lists_plugins_and_names_the_broken(install: Install, augkit: Command) -> None:
    install("augkit-broken", "import nothing_of_this_name")
    install("augkit-fog", FOG.format(name="smog"), version="1.2")
    listed = augkit("plugins")
    assert listed.returncode == 0
    assert any(line.split() == ["augkit-fog", "1.2", "1", "operators"] for line in listed.stdout.splitlines())
    assert listed.stderr.splitlines() == [
        "warning: plugin augkit-broken 1.0 (augkit_broken) cannot be used: "
        "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    ]


def test_a_clash_stops_verbs_but_not_the_help(install: Install, augkit: Command) -> None:
    install("augkit-fog", FOG.format(name="rotate"))
    assert augkit("--version").returncode == 0
    failed = augkit("operators")
    assert failed.returncode == 2 and failed.stderr.startswith('error: operator "rotate" is brought by')
