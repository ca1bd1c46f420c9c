"""Recipes: reading, overriding, faults with their places, identity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from augkit.errors import DocumentError
from augkit.lab import named
from augkit.lab.folder import write_yaml
from augkit.lab.recipe import load_recipe, read_recipe
from augkit.plugins import load_registry

REGISTRY = load_registry(plugins=False)
PLAIN = {"augkit": 1, "name": "plain"}


def faults(document: str, tmp_path: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    path = tmp_path / "recipe.yaml"
    path.write_text(document)
    with pytest.raises(DocumentError) as caught:
        load_recipe(path, REGISTRY, overrides)
    return [str(problem).replace(str(tmp_path), "") for problem in caught.value.problems]


@pytest.mark.parametrize("name", sorted(REGISTRY.recipes))
def test_built_in_recipes_load_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, REGISTRY)
    write_yaml(tmp_path / "recipe.yaml", recipe.model_dump(mode="json"))
    again = read_recipe(tmp_path / "recipe.yaml")
    assert again == recipe
    assert again.hash == recipe.hash


def test_there_are_recipes() -> None:
    assert {"demo", "cifar100-lt", "imagefolder"} <= set(REGISTRY.recipes)


def test_published_cifar_recipe() -> None:
    recipe = load_recipe("cifar100-lt", REGISTRY)
    assert (recipe.epochs, recipe.batch_size, recipe.model.name, recipe.loss.name) == (200, 128, "resnet32_cifar", "ce")
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("momentum", 0.1, 0.9, 2e-4)
    assert recipe.schedule.name == "published"
    assert recipe.data.mean == (0.4914, 0.4822, 0.4465)


def test_single_words_stand_for_parts() -> None:
    recipe = load_recipe(PLAIN | {"policy": "randaugment", "model": "resnet8_cifar"}, REGISTRY)
    assert recipe.policy.load == "randaugment"
    assert recipe.model.name == "resnet8_cifar"
    long = PLAIN | {"policy": {"load": "randaugment"}, "model": {"name": "resnet8_cifar"}}
    assert load_recipe(long, REGISTRY).hash == recipe.hash


def test_bare_flips_of_a_base_flip_every_second_image() -> None:
    recipe = load_recipe(PLAIN | {"base": {"before": ["random_crop", "hflip"], "after": [{"hflip": {}}]}}, REGISTRY)
    assert recipe.base.before == ("random_crop", {"hflip": {"p": 0.5}})
    assert recipe.base.after == ({"hflip": {}},)


def test_overrides() -> None:
    told = [
        "policy=randaugment",
        "policy.params.m=5",
        "data.imbalance=2e1",
        "epochs=7",
        "data.mean=[0, 0.5, 1]",
        "base.before=[hflip]",
        "title=no",
        "seed=3",
        "seed=4",
    ]
    recipe = load_recipe(PLAIN, REGISTRY, told)
    assert (recipe.policy.load, recipe.policy.params) == ("randaugment", {"m": 5})
    assert (recipe.data.imbalance, recipe.epochs, recipe.data.mean) == (20.0, 7, (0.0, 0.5, 1.0))
    assert recipe.base.before == ({"hflip": {"p": 0.5}},)
    assert (recipe.title, recipe.seed) == ("no", 4)
    assert (
        load_recipe(PLAIN | {"policy": {"load": "x", "params": {"m": 5}}}, REGISTRY, ["policy=none"]).policy.params
        == {}
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("epochs=many", '--set epochs=many: this should be a valid integer, not "many"'),
        ("epochs=0", "--set epochs=0: this should be greater than or equal to 1, not 0"),
        ("data.imbalence=50", '--set data.imbalence=50: there is no "imbalence" here. Did you mean "imbalance"?'),
        ("data={imbalence: 50}", '--set data={imbalence: 50}: data.imbalence: there is no "imbalence" here. Did'),
        ("epochs", "--set takes path=value"),
        ("epochs.x=1", "epochs is 200 and has no parts"),
        ("precision=half", "--set precision=half: this should be 'float32' or 'bf16'"),
        ("loss=balancedsoftmax", '--set loss=balancedsoftmax: there is no loss "balancedsoftmax" here. Did you mean'),
        ("loss.wrong=1", '--set loss.wrong=1: there is no option "wrong" here'),
    ],
)
def test_wrong_overrides(override: str, says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load_recipe(PLAIN | {"epochs": 200}, REGISTRY, ["loss=ldam_drw", override])
    assert says in str(caught.value)


def test_a_fault_of_an_override_names_no_file_that_the_user_never_wrote(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r'^--set epoch=3: there is no "epoch" here\. Did you mean "epochs"\?$'):
        load_recipe("demo", REGISTRY, ["epoch=3"])
    (tmp_path / "mine.yaml").write_text("augkit: 1\nname: x\ndata: {sourse: digits}\n")
    with pytest.raises(DocumentError) as caught:
        load_recipe(tmp_path / "mine.yaml", REGISTRY, ["epochs=no"])
    override, own = str(caught.value).splitlines()
    assert override.startswith("--set epochs=no: ") and own.startswith(f"{tmp_path}/mine.yaml:3: data.sourse: ")


def test_every_fault_with_its_line_path_and_nearest_name(tmp_path: Path) -> None:
    document = (
        "augkit: 1\nname: x\ndata:\n  sourse: digits\n  validation: 2\nmodel: {nme: resnet18}\nbase: {before: [3]}\n"
    )
    assert faults(document, tmp_path) == [
        '/recipe.yaml:4: data.sourse: there is no "sourse" here. Did you mean "source"?',
        "/recipe.yaml:5: data.validation: this should be less than 1, not 2",
        '/recipe.yaml:6: model.nme: there is no "nme" here. Did you mean "name"?',
        "/recipe.yaml:7: base.before[0]: a step is an operator's name, or a mapping with that name as its only key",
    ]


def test_documents_that_are_no_recipe(tmp_path: Path) -> None:
    assert faults("- a\n", tmp_path) == ["/recipe.yaml:1: a recipe is a mapping, not a list"]
    assert faults("name: x\n", tmp_path) == ["/recipe.yaml:1: augkit: this is missing"]
    assert faults("augkit: 2\nname: x\n", tmp_path) == ["/recipe.yaml:1: augkit: this should be 1, not 2"]
    assert faults("augkit: 1\nname: x\ndata: [1]\n", tmp_path) == [
        "/recipe.yaml:3: data: this should be a mapping, not a list"
    ]
    with pytest.raises(DocumentError, match=r'no recipe "cifar100lt".*Did you mean "cifar100-lt"'):
        load_recipe("cifar100lt", REGISTRY)
    with pytest.raises(DocumentError, match="No such file"):
        load_recipe(tmp_path / "absent.yaml", REGISTRY)


def test_relative_paths_are_meant_from_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "pictures").mkdir(parents=True)
    (tmp_path / "a" / "mine.npz").touch()
    (tmp_path / "a" / "policy.yaml").touch()
    (tmp_path / "a" / "recipe.yaml").write_text("augkit: 1\nname: x\ndata: {source: mine.npz}\npolicy: policy.yaml\n")
    monkeypatch.chdir(tmp_path / "b")
    recipe = load_recipe("../a/recipe.yaml", REGISTRY)
    assert Path(recipe.data.source).resolve() == tmp_path / "a" / "mine.npz"
    assert Path(recipe.policy.load).resolve() == tmp_path / "a" / "policy.yaml"
    told = load_recipe("../a/recipe.yaml", REGISTRY, ["data.source=pictures", "policy=none"])
    assert (told.data.source, told.policy.load) == (str(tmp_path / "b" / "pictures"), "none")


def test_hash_changes_with_what_changes_the_run() -> None:
    hashes = {
        load_recipe(PLAIN, REGISTRY, [o] if o else []).hash for o in ("", "seed=1", "epochs=3", "policy.params.m=1")
    }
    assert len(hashes) == 4


def test_options_of_a_function_are_checked_by_their_annotations() -> None:
    def loss(
        logits: object,
        *,
        class_counts: object,
        power: Annotated[float, Field(gt=0)],
        pair: tuple[int, int] = (1, 2),
        from_: float = 0.5,
        free: object = None,
    ) -> tuple[object, ...]:
        return logits, class_counts, power, pair, from_, free

    def told(**options: object) -> list[tuple[str, str]]:
        return list(named.faults(loss, options, named.LOSS_FACTS))

    assert told(power=2, pair=[3, 4], free={"any": "thing"}, **{"from": 1}) == []
    bound = named.bind(loss, {"power": 2, "pair": [3, 4], "from": 1}, named.LOSS_FACTS)
    assert bound("z", class_counts="n", epoch=3) == ("z", "n", 2.0, (3, 4), 1.0, None)
    assert told() == [("power", 'the option "power" is missing')]
    assert told(power=0) == [("power", "this should be greater than 0, not 0")]
    assert [option for option, _ in told(power="1", pair=[1], from_=1, class_counts=3)] == [
        "power",
        "pair",
        "from_",
        "class_counts",
    ]


def test_annotations_that_cannot_be_read_check_nothing() -> None:
    def loss(logits: object, *, tau: NothingOfThisName = 1) -> object:  # type: ignore[name-defined]  # noqa: F821
        return tau

    assert list(named.faults(loss, {"tau": "x"})) == []
    assert named.bind(loss, {"tau": "x"})(0, epoch=3) == "x"
