"""Published data sets and one's own lists, in small folders of their real layouts."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from augkit.cli.app import build
from augkit.errors import DataError, DocumentError
from augkit.lab.attribute_sets import Choice, age_names
from augkit.lab.data import load
from augkit.lab.datasets import DATA_SETS
from augkit.lab.recipe import load_recipe
from augkit.lab.recipe_parts import DataRecipe
from augkit.lab.run import train
from augkit.lab.sources import open_source
from augkit.lab.subsets import long_tailed_counts
from augkit.registry import Registry


def picture(path: Path, shade: int = 0) -> str:
    """An image file whose pixels are all `shade`; its path as lists write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(path, format="PNG")
    return path.as_posix()


def long_tailed(root: Path, name: str, suffix: str) -> None:
    """Three classes of 6, 3 and 2 training images, one each to validate and two to test, as OLTR's lists say it."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, folder in enumerate(("n0144", "n0177", "n0193")):
        for i in range((6, 3, 2)[label] + 3):
            split = "train" if i >= 3 else "val" if i == 2 else "test"
            place = f"{'val' if split == 'test' else 'train'}/{folder}/{label}{i}.{suffix}"
            picture(root / place, 50 * label + i)
            lists[split].append(f"{place} {label}\n")
    for split, lines in lists.items():
        (root / f"{name}_{split}.txt").write_text("".join(lines))


def inaturalist(root: Path) -> None:
    for split, count in (("train", 3), ("val", 1)):
        images, annotations = [], []
        for label, kingdom in ((0, "Aves"), (1, "Fungi")):
            for i in range(count):
                file, number = f"train_val2018/{kingdom}/{label}/{split}{i}.jpg", 100 * label + i
                picture(root / file, 100 * label + i)
                images.append({"id": number, "file_name": file, "width": 8, "height": 8})
                annotations.append({"id": number, "image_id": number, "category_id": label})
        categories = [{"id": 1, "name": "Amanita muscaria"}, {"id": 0, "name": "Corvus corax"}]
        text = {"images": images[::-1], "annotations": annotations, "categories": categories, "licenses": []}
        (root / f"{split}2018.json").write_text(json.dumps(text))


def waterbirds(root: Path) -> None:
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for i in range(12):
        picture(root / f"00{i}.Bird/B, {i}.jpg", i)
        lines.append(f'{i},"00{i}.Bird/B, {i}.jpg",{i % 2},{i % 3},{i // 3 % 2},/b/bamboo_forest/{i}.jpg')
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")


def celeba(root: Path) -> None:
    rows = []
    for i in range(1, 10):
        picture(root / f"img_align_celeba/{i:06d}.jpg", i)
        rows.append(f"{i:06d}.jpg {'-1' if i % 2 else ' 1'} {' 1' if i < 5 else '-1'}  1 \n")
    (root / "list_attr_celeba.txt").write_text("9\nBlond_Hair Male Young \n" + "".join(rows))
    (root / "list_eval_partition.txt").write_text("".join(f"{i:06d}.jpg {i // 5}\n" for i in range(1, 10)))


def utkface(root: Path) -> None:
    for age in (1, 19, 20, 59, 60, 101):
        for gender in (0, 1):
            for race in range(5):
                for copy in range(2):
                    picture(root / f"{age}_{gender}_{race}_2017010920{copy}.jpg.chip.jpg", age)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "imagenet_lt": lambda root: long_tailed(root, "ImageNet_LT", "JPEG"),
    "places_lt": lambda root: long_tailed(root, "Places_LT", "jpg"),
    "inaturalist2018": inaturalist,
    "waterbirds": waterbirds,
    "celeba": celeba,
    "utkface": utkface,
}


@pytest.fixture
def laid_out(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        root = tmp_path / name
        root.mkdir()
        LAYOUTS[name](root)
        return root

    return make


@pytest.mark.parametrize("name", DATA_SETS)
def test_absent_data_is_told_with_what_fetches_it(name: str, laid_out: Callable[[str], Path]) -> None:
    known = DATA_SETS[name]
    with pytest.raises(DataError, match=rf'^"{name}" wants data\.root, the folder with ') as caught:
        open_source(name)
    assert all(command in str(caught.value) for command in known.fetch)
    root = laid_out(name)
    for entry in known.needs:
        (root / entry).rename(root / "elsewhere")
        with pytest.raises(DataError) as caught:
            open_source(name, root=str(root))
        text = str(caught.value)
        assert text.startswith(f'{root}: "{name}" lacks {entry} here; ') and known.fetch[-1] in text
        (root / "elsewhere").rename(root / entry)
    with pytest.raises(DataError, match=r"gone: .* was looked for here, and there is no such folder"):
        open_source(name, root=str(root / "gone"))


@pytest.mark.parametrize("name", ["imagenet_lt", "places_lt"])
def test_long_tailed_lists(name: str, laid_out: Callable[[str], Path]) -> None:
    source = open_source(name, root=str(laid_out(name)))
    assert source.class_names == ("n0144", "n0177", "n0193") and not source.groups
    counts = {split: np.bincount(reader.labels).tolist() for split, reader in source.splits.items()}
    assert counts == {"train": [6, 3, 2], "val": [1, 1, 1], "test": [2, 2, 2]}
    assert [int(source.splits["test"].read(i)[0, 0, 0]) for i in range(6)] == [0, 1, 50, 51, 100, 101]


def test_inaturalist(laid_out: Callable[[str], Path]) -> None:
    root = laid_out("inaturalist2018")
    source = open_source("inaturalist2018", root=str(root))
    assert source.class_names == ("Corvus corax", "Amanita muscaria") and set(source.splits) == {"train", "test"}
    train = source.splits["train"]
    assert [(int(train.labels[i]), int(train.read(i)[0, 0, 0])) for i in (0, 2, 3)] == [(0, 0), (0, 2), (1, 100)]
    (root / "val2018.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match=r"val2018\.json: its categories are not those of train2018\.json"):
        open_source("inaturalist2018", root=str(root))
    (root / "train2018.json").write_text('{"images": []}')
    with pytest.raises(DataError, match=r"train2018\.json: no images, annotations and categories .*'annotations'"):
        open_source("inaturalist2018", root=str(root))


def test_waterbirds(laid_out: Callable[[str], Path]) -> None:
    root = laid_out("waterbirds")
    source = open_source("waterbirds", root=str(root))
    assert (source.class_names, source.group_names) == (("landbird", "waterbird"), ("land", "water"))
    for split, rows in (("train", [0, 3, 6, 9]), ("val", [1, 4, 7, 10]), ("test", [2, 5, 8, 11])):
        reader = source.splits[split]
        assert reader.labels.tolist() == [i % 2 for i in rows]
        assert source.groups[split].tolist() == [i // 3 % 2 for i in rows]
        assert [int(reader.read(i)[0, 0, 0]) for i in range(4)] == rows
    with (root / "metadata.csv").open("a") as file:
        file.write("12,x.jpg,2,0,0,\n")
    with pytest.raises(DataError, match=r"metadata\.csv:14: split, y and place must be"):
        open_source("waterbirds", root=str(root))


def test_celeba_by_any_attributes(laid_out: Callable[[str], Path]) -> None:
    root = laid_out("celeba")
    source = open_source("celeba", root=str(root))
    assert (source.class_names, source.group_names) == (("not Blond_Hair", "Blond_Hair"), ("not Male", "Male"))
    assert source.splits["train"].labels.tolist() == [0, 1, 0, 1] and source.groups["train"].tolist() == [1] * 4
    assert source.splits["val"].labels.tolist() == [0, 1, 0, 1, 0] and "test" not in source.splits
    other = open_source("celeba", root=str(root), choice=Choice("Male", "Young"))
    assert other.class_names == ("not Male", "Male") and other.groups["val"].tolist() == [1] * 5
    with pytest.raises(DataError, match=r'list_attr_celeba\.txt:2: there is no attribute "Mail"\. Did you mean "Male"'):
        open_source("celeba", root=str(root), choice=Choice("Mail"))
    with pytest.raises(DataError, match=r'data\.label and data\.group are both "Male"'):
        open_source("celeba", root=str(root), choice=Choice("Male"))
    table = root / "list_attr_celeba.txt"
    table.write_text(table.read_text().replace("000004.jpg  1", "000004.jpg  0"))
    with pytest.raises(DataError, match=r"list_attr_celeba\.txt:6: a line must be FILE and 3 times -1 or 1"):
        open_source("celeba", root=str(root))
    celeba(root)
    (root / "list_eval_partition.txt").write_text("000001.jpg 3\n")
    with pytest.raises(DataError, match=r"list_eval_partition\.txt:1: a line must be FILE and 0, 1 or 2"):
        open_source("celeba", root=str(root))
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(DataError, match=r'"000002\.jpg" has no line here'):
        open_source("celeba", root=str(root))


def test_utkface_from_names(laid_out: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = laid_out("utkface")
    picture(root / "61_1_20170109142408075.jpg")  # the published set has three such names
    source = open_source("utkface", root=str(root))
    assert source.class_names == ("male", "female")
    assert source.group_names == ("white", "black", "asian", "indian", "other")
    assert "left out" in capsys.readouterr().err and len(source.splits["train"].labels) == 120
    by_age = open_source("utkface", root=str(root), choice=Choice("race", "age", (20, 60)))
    shades = [int(by_age.splits["train"].read(i)[0, 0, 0]) for i in range(120)]
    expected = [0 if age < 20 else 1 if age < 60 else 2 for age in shades]
    assert by_age.groups["train"].tolist() == expected and by_age.group_names == ("0-19", "20-59", "60+")
    data = load(DataRecipe(source="utkface", root=str(root), label="age", image_size=8))
    assert data.class_names == age_names((20, 40, 60)) == ("0-19", "20-39", "40-59", "60+")
    assert data.test.groups is not None and len(data.test) + len(data.train) == 120
    with pytest.raises(DataError, match='tells no "smile" of an image: say one of age, gender, race'):
        open_source("utkface", root=str(root), choice=Choice("smile"))
    for i in range(3):
        picture(root / f"holiday{i}.jpg")
    with pytest.raises(DataError, match=r"4 of 124 images are not called AGE_GENDER_RACE_DATE\.jpg, such as 61_1_"):
        open_source("utkface", root=str(root))


# -- one's own lists --------------------------------------------------------------------------------------------------


def own_lists(root: Path, **lists: str) -> Path:
    for name, text in lists.items():
        (root / f"{name}.txt").write_text(text)
    return root / "my_train.txt"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a one", "b", "c", "d", "e"):
        picture(tmp_path / "photos" / f"{name}.jpg")
    return tmp_path


def test_lists_of_ones_own(photos: Path) -> None:
    train = own_lists(photos, my_train="photos/a one.jpg cat\n\nphotos/b.jpg dog\r\n", my_test="photos/c.jpg dog")
    source = open_source(str(train))
    assert source.class_names == ("cat", "dog") and source.splits["test"].labels.tolist() == [1]
    assert source.splits["train"].read(0).shape == (8, 8, 3)
    lists = photos / "lists"
    lists.mkdir()
    train = own_lists(lists, my_train="a one.jpg 1\nb.jpg 0\nd.jpg 0", my_valid="c.jpg 0", classes="cat\ndog\n")
    source = open_source(str(train), root=str(photos / "photos"))
    assert source.class_names == ("cat", "dog") and set(source.splits) == {"train", "test"}
    tabs = own_lists(
        photos, my_train="photos/a one.jpg\tcat\tsnow\nphotos/b.jpg\tdog\tgrass\n", my_test="photos/c.jpg\tdog\n"
    )
    source = open_source(str(tabs))
    assert source.group_names == ("grass", "snow") and source.groups["train"].tolist() == [1, 0]
    assert "test" not in source.groups


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"my_train": "photos/b.jpg 0\nphotos/c.jpg\n"}, r"my_train\.txt:2: a line must be PATH LABEL, not"),
        ({"my_train": "photos/b.jpg\t0\nphotos/c.jpg 1\n"}, r"my_train\.txt:2: a line must be PATH<TAB>LABEL"),
        ({"my_train": "\n \n"}, r"my_train\.txt: the list names no image"),
        ({"my_train": "photos/b.jpg 1\nphotos/c.jpg 1\n"}, r"my_train\.txt: labels begin at 1; count classes from 0"),
        (
            {"my_train": "photos/b.jpg 0\nphotos/c.jpg 9\n"},
            r"my_train\.txt:2: there are 2 training images and the label is 9",
        ),
        (
            {"my_train": f"photos/b.jpg 0\nphotos/c.jpg {10**30}\n"},
            r"my_train\.txt:2: there are 2 training images and the",
        ),
        ({"my_train": "photos/b.jpg 0\n\nphotos/gone.jpg 1\n"}, r'my_train\.txt:3: the image ".*gone\.jpg" is listed'),
        (
            {"my_train": "photos/b.jpg 0\nphotos/c.jpg 1\n", "my_test": "photos/d.jpg 0\nphotos/c.jpg 1\n"},
            r'my_test\.txt:2: "photos/c\.jpg" is in another list too \(my_train\.txt:2\)',
        ),
        (
            {"my_train": "photos/b.jpg 0\nphotos/a one.jpg 1\n", "my_test": "./photos//a one.jpg 1\n"},
            r'my_test\.txt:1: "\./photos//a one\.jpg" is in another list too \(my_train\.txt:2\)',
        ),
        (
            {"my_train": "photos/b.jpg 0\nphotos/c.jpg 1\nphotos/../photos/b.jpg 1\n"},
            r'my_train\.txt:3: "photos/\.\./photos/b\.jpg" has the label "1" here and "0" in line 1: remove one',
        ),
        (
            {"my_train": "photos/b.jpg 0\nphotos/c.jpg -1\n"},
            r"my_train\.txt:2: the label is -1; count classes from 0 without gaps",
        ),
        (
            {"my_train": "photos/b.jpg cat\nphotos/c.jpg dog\n", "my_test": "photos/d.jpg dig\n"},
            r'my_test\.txt:1: "dig" is not among the names of the training images\. Did you mean "dog"\?',
        ),
        ({"my_train": "photos/b.jpg 0\nphotos/c.jpg 1\n", "classes": "cat\n"}, r"classes\.txt: 1 lines of names"),
    ],
)
def test_wrong_lists_are_told_with_their_line(photos: Path, lists: dict[str, str], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        open_source(str(own_lists(photos, **lists)))
    assert "\n" not in str(caught.value)


def test_an_absolute_path_is_the_same_image_and_a_line_may_come_again(photos: Path) -> None:
    train = own_lists(photos, my_train=f"{photos}/photos/b.jpg 0\nphotos/c.jpg 1\n", my_test="photos/b.jpg 0")
    with pytest.raises(DataError, match=r'my_test\.txt:1: "photos/b\.jpg" is in another list too'):
        open_source(str(train))
    train = own_lists(photos, my_train="photos/b.jpg 0\nphotos/c.jpg 1\nphotos/b.jpg 0\n", my_test="photos/d.jpg 0")
    assert open_source(str(train)).splits["train"].labels.tolist() == [0, 1, 0]


def test_a_gap_in_labels_is_told_with_its_list(photos: Path) -> None:
    told = own_lists(photos, my_train="photos/b.jpg 0\nphotos/c.jpg 0\nphotos/d.jpg 2\n", my_test="photos/e.jpg 0")
    with pytest.raises(DataError, match=r'my_train\.txt: class "1" has no training image; count .* without gaps'):
        load(DataRecipe(source=str(told), image_size=8))


def test_a_file_that_goes_missing_later_is_told_by_its_line(tmp_path: Path) -> None:
    names = [picture(tmp_path / f"{i}.jpg") for i in range(100)]
    reader = open_source(
        str(own_lists(tmp_path, my_train="".join(f"{name} {i % 2}\n" for i, name in enumerate(names))))
    )
    (tmp_path / "41.jpg").unlink()
    with pytest.raises(DataError, match=r'my_train\.txt:42: the image ".*41\.jpg" is listed here and there is no such'):
        reader.splits["train"].read(41)


# -- timm's names -----------------------------------------------------------------------------------------------------


def cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's CIFAR-10 of 30 and then 10 images of each class, the number of the image in its first pixel."""
    from augkit.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    md5 = {}
    for name, first, count in (("data_batch_1", 0, 300), ("test_batch", 300, 100)):
        data = np.zeros((count, 3072), np.uint8)
        data[:, 0], data[:, 1] = (np.arange(count) + first) % 256, (np.arange(count) + first) // 256
        entry = {"data": data, "labels": (np.arange(count) % 10).tolist()}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"name{i}" for i in range(10)]}))
    for path in folder.iterdir():
        md5[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})


def test_timms_cifar_made_long_tailed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10(tmp_path, monkeypatch)
    data = load(DataRecipe(source="torch/cifar10", root=str(tmp_path), imbalance=10, image_size=32))
    assert data.class_counts.tolist() == long_tailed_counts(30, 10, 10) and len(data.test) == 100
    assert data.class_names == tuple(f"name{i}" for i in range(10))
    assert data.train.held is not None
    shown = data.train.held[:, 0, 0, 0].int() + 256 * data.train.held[:, 0, 0, 1].int()
    assert shown.tolist() == data.train.rows.tolist()


# -- in recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"source": "waterbirds", "label": "y"}, "has one label and one group of each image: leave out data.label"),
        ({"source": "digits", "group": "Male"}, "are for celeba, utkface, not for"),
        ({"source": "celeba", "groups": "folder"}, "data.groups: folder is for a folder of GROUP/CLASS folders"),
        ({"source": "waterbird"}, r"another name of `augkit datasets` \(such as waterbirds\)"),
    ],
)
def test_refused_of_a_source(told: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(DataRecipe(**told))


def test_ages_that_do_not_rise(registry: Registry) -> None:
    with pytest.raises(DocumentError, match=r"data: ages are whole numbers above 0 that rise"):
        load_recipe("demo", registry, ["data.source=utkface", "data.ages=[40, 20]"])


def test_a_name_is_no_folder_beside_the_recipe(laid_out: Callable[[str], Path], registry: Registry) -> None:
    root = laid_out("waterbirds")
    (root.parent / "r.yaml").write_text("augkit: 1\nname: birds\ndata: {source: waterbirds, root: waterbirds}\n")
    recipe = load_recipe(root.parent / "r.yaml", registry)
    assert (recipe.data.source, recipe.data.root) == ("waterbirds", str(root))


def test_a_run_on_a_named_set_tells_of_its_groups(laid_out: Callable[[str], Path], tmp_path: Path) -> None:
    settings = ["data.source=waterbirds", f"data.root={laid_out('waterbirds')}", "data.image_size=16", "epochs=1"]
    settings += ["model=resnet8_cifar", "data.imbalance=null", "batch_size=4"]
    summary = json.loads((train("demo", settings, tmp_path / "run") / "summary.json").read_text())
    assert set(summary["groups"]["by_group"]) == {"land", "water"}


def test_named_sets_are_listed() -> None:
    listed, machine = (CliRunner().invoke(build(), ["datasets", *more]).stdout for more in ((), ("--json",)))
    rows = json.loads(machine)
    assert {row["dataset"] for row in rows} == set(DATA_SETS) and all(row["fetch"] for row in rows)
    assert {line.split()[0] for line in listed.splitlines()[1:]} == set(DATA_SETS)


def test_the_page_has_every_command_and_name() -> None:
    page = (Path(__file__).parent.parent / "docs/data.md").read_text()
    for name, known in DATA_SETS.items():
        assert f"`{name}`" in page and f"source: {name}, root: DIR" in page
        assert all(f"\n    {command}\n" in page for command in known.fetch), name
