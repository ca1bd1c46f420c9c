"""Published data sets by name: what their folders hold, where that comes from, and who reads it. Nothing is fetched."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from augkit.errors import DataError
from augkit.lab.attribute_sets import (
    CELEBA,
    DEFAULTS,
    FACES,
    PARTITION,
    WATERBIRDS,
    Choice,
    open_celeba,
    open_utkface,
    open_waterbirds,
)
from augkit.lab.list_files import open_coco, open_list
from augkit.lab.readers import Source

_LISTS = "https://github.com/facebookresearch/classifier-balancing/raw/main/data"
_INATURALIST = "https://ml-inat-competition-datasets.s3.amazonaws.com/2018"


@dataclass(frozen=True)
class DataSet:
    """A data set that a recipe names: `data: {source: NAME, root: DIR}`."""

    title: str
    """What it is, and whose paper it is from."""
    needs: tuple[str, ...]
    """Files and folders that must lie in `data.root`."""
    fetch: tuple[str, ...]
    """Shell commands that put them there, called in `data.root`."""
    open: Callable[[Path, Choice], Source]
    first: str = ""
    """What must be done by hand before, where a page wants a person."""
    chooses: tuple[str, str] | None = None
    """Label and group unless the recipe says others; None where there is no choice."""


def _names(name: str, splits: Sequence[str] = ("train", "val", "test")) -> tuple[str, ...]:
    return tuple(f"{name}_{split}.txt" for split in splits)


def _fetch_lists(name: str) -> str:
    return f"curl -LO '{_LISTS}/{name}/{name}_{{train,val,test}}.txt'"


DATA_SETS = {
    "imagenet_lt": DataSet(
        "ImageNet-LT, 1,000 classes of 1,280 to 5 images (Liu et al., CVPR 2019)",
        (*_names("ImageNet_LT"), "train", "val"),
        (
            _fetch_lists("ImageNet_LT"),
            "mkdir -p train val && tar -xf ILSVRC2012_img_train.tar -C train && tar -xf ILSVRC2012_img_val.tar -C val",
            'for f in train/*.tar; do mkdir -p "${f%.tar}" && tar -xf "$f" -C "${f%.tar}" && rm "$f"; done',
            "sed -E 's#^val/(n[0-9]+)/(.*) [0-9]+#mkdir -p val/\\1; mv val/\\2 val/\\1/#' ImageNet_LT_test.txt | sh",
        ),
        lambda root, _: open_list(root / _names("ImageNet_LT")[0], named_by_folder=True),
        "sign in at https://image-net.org/download-images.php and get ILSVRC2012_img_train.tar and _img_val.tar",
    ),
    "places_lt": DataSet(
        "Places-LT, 365 classes of 4,980 to 5 images (Liu et al., CVPR 2019)",
        (*_names("Places_LT"), "train", "val"),
        (
            _fetch_lists("Places_LT"),
            "curl -LO http://data.csail.mit.edu/places/places365/places365standard_easyformat.tar",
            "tar -xf places365standard_easyformat.tar --strip-components=1",
        ),
        lambda root, _: open_list(root / _names("Places_LT")[0], named_by_folder=True),
    ),
    "inaturalist2018": DataSet(
        "iNaturalist 2018, 8,142 species of 1,000 to 2 images (Van Horn et al., CVPR 2018); its val is the test set",
        ("train2018.json", "val2018.json", "train_val2018"),
        tuple(
            f"curl -LO {_INATURALIST}/{name}.tar.gz && tar -xzf {name}.tar.gz"
            for name in ("train2018.json", "val2018.json", "train_val2018")
        ),
        lambda root, _: open_coco({"train": root / "train2018.json", "test": root / "val2018.json"}, root),
    ),
    "waterbirds": DataSet(
        "Waterbirds, birds of land and water before either (Sagawa et al., ICLR 2020)",
        (WATERBIRDS,),
        (
            "curl -LO https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz",
            "tar -xzf waterbird_complete95_forest2water2.tar.gz --strip-components=1",
        ),
        lambda root, _: open_waterbirds(root),
    ),
    "celeba": DataSet(
        "CelebA, faces with 40 attributes (Liu et al., ICCV 2015)",
        (CELEBA, PARTITION, FACES),
        (
            "pip install gdown",
            "python -c \"from torchvision.datasets import CelebA; CelebA('.', download=True)\"",
            "mv celeba/* .",
        ),
        open_celeba,
        chooses=DEFAULTS["celeba"],
    ),
    "utkface": DataSet(
        "UTKFace, faces with age, gender and race (Zhang et al., CVPR 2017)",
        (),
        ("tar -xzf UTKFace.tar.gz --strip-components=1",),
        open_utkface,
        "get UTKFace.tar.gz, the aligned and cropped faces, by the links of https://susanqq.github.io/UTKFace/",
        DEFAULTS["utkface"],
    ),
}


def open_named(name: str, root: str | None, choice: Choice) -> Source:
    """Open one of `DATA_SETS`.

    Raises:
        DataError: something of it is not there, which is told with what fetches it; or it cannot be read.
    """
    known = DATA_SETS[name]
    if known.chooses is None and choice != Choice():
        raise DataError(f'"{name}" has one label and one group of each image: leave out data.label, group and ages')
    holds = ", ".join(known.needs) or "its images"
    if root is None:
        raise DataError(f'"{name}" wants data.root, the folder with {holds}; {_advice(known)}')
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f'"{name}" was looked for here, and there is no such folder; {_advice(known)}', file=folder)
    missing = [entry for entry in known.needs if not (folder / entry).exists()]
    if missing:
        raise DataError(f'"{name}" lacks {", ".join(missing)} here; {_advice(known)}', file=folder)
    try:
        return known.open(folder, choice)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'a table of "{name}" cannot be read ({error}); fetch it anew', file=folder) from error


def _advice(known: DataSet) -> str:
    first = f"{known.first}, then call" if known.first else "fetch it by calling"
    return f"{first} there: {' && '.join(known.fetch)}"
