"""What the seam reads from data sets: class counts, indices, transforms; and the base augmentation it can turn off."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from seam_parts import CLASSES, NONE, ImageSet, Seer, Stream, loader
from timm.data import ImageDataset, create_dataset, create_transform
from timm.data.scheduled_sampler import ScheduledTransformDataset
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms as tv

from augkit.errors import DataError, DocumentError, InputError
from augkit.integrations.datasets import IndexedCollate, IndexedDataset, class_counts
from augkit.integrations.timm import wrap
from augkit.integrations.transforms import describe, normalisation, parts, transforms_of, without_chance

RANKED: dict[str, Any] = {
    "augkit": 1,
    "name": "ranked",
    "palette": ["hflip"],
    "pipeline": [{"pick": {"p": "where(class_rank[y] > 1, 1, 0)", "count": 1}}],
}


def folder(path: Path) -> Path:
    for number, (name, count) in enumerate({"ash": 3, "birch": 1, "cedar": 4}.items()):
        (path / name).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (9, 8), (number * 20, k, 0)).save(path / name / f"{k}.png")
    return path


def test_class_counts_are_read_from_every_usual_data_set(tmp_path: Path) -> None:
    timm_folder = create_dataset("", root=str(folder(tmp_path)))
    assert isinstance(timm_folder, ImageDataset)
    plain = ImageSet(targets=[0, 0, 1, 2, 2, 2])
    tensors = TensorDataset(torch.zeros(4, 3, 2, 2), torch.tensor([1, 0, 1, 1]))
    scheduled = ScheduledTransformDataset(plain, [lambda image: image])
    cases: list[tuple[Any, list[int]]] = [
        (timm_folder, [3, 1, 4]),
        (plain, [2, 1, 3]),
        (Subset(plain, [0, 3, 4]), [1, 0, 2]),
        (Subset(timm_folder, [7, 6, 3]), [0, 1, 2]),
        (ConcatDataset([plain, plain]), [4, 2, 6]),
        (tensors, [1, 3]),
        (scheduled, [2, 1, 3]),
        (IndexedDataset(plain), [2, 1, 3]),
    ]
    for dataset, expected in cases:
        assert class_counts(dataset) == expected, type(dataset).__name__
    assert class_counts(plain, 5) == [2, 1, 3, 0, 0]


def test_a_target_transform_is_part_of_the_label(tmp_path: Path) -> None:
    dataset = ImageDataset(str(folder(tmp_path)), target_transform=lambda y: 2 - y)
    assert class_counts(dataset) == [4, 1, 3]


def test_labels_that_cannot_be_read_are_a_clear_error() -> None:
    class Silent(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(3, 8, 8, dtype=torch.uint8), i % 2

    for dataset, words in (
        (Silent(), "lists no labels"),
        (Stream(), "iterable"),
        (ImageSet(targets=[0, -1]), "label -1"),
        (ImageSet(targets=["a", "b"]), "not class numbers"),  # type: ignore[list-item]
        (ImageSet(targets=[]), "no samples"),
    ):
        with pytest.raises(DataError, match=words):
            class_counts(dataset)
    with pytest.raises(DataError, match="model's 3 classes"):
        class_counts(ImageSet(targets=[0, 3]), 3)
    with pytest.raises(DataError, match=r"class_counts.*Silent"):
        wrap(DataLoader(Silent(), 2), RANKED, None)
    assert len(list(wrap(DataLoader(Silent(), 2), RANKED, None, class_counts=[2, 2]))) == 2
    assert len(list(wrap(DataLoader(Silent(), 2), NONE, None))) == 2


def test_counts_reach_the_document_and_classes_of_the_model_without_images_count_zero() -> None:
    wrapped = wrap(loader(), RANKED, Seer(classes=8))
    assert wrapped.policy.num_classes == 8
    assert wrapped.policy.memory.values[""]["class_count"].tolist() == [5, 4, 5, 4, 5, 0, 0, 0]
    with pytest.raises(DocumentError, match="epochs"):
        wrap(loader(), {**RANKED, "pipeline": [{"pick": {"p": "epoch / epochs"}}]}, None)
    named = wrap(loader(), RANKED, None, class_counts={0: 1, 1: 2, 2: 3, 3: 4, 4: 5}, seed=7)
    assert named.policy.seed == 7 and named.policy.memory.values[""]["class_rank"].tolist() == [4, 3, 2, 1, 0]


def test_indices_survive_pickling_and_batched_reading() -> None:
    class Batched(ImageSet):
        def __getitems__(self, keys: list[int]) -> list[tuple[int, int]]:
            return [(k * 10, self.targets[k]) for k in keys]

    many = pickle.loads(pickle.dumps(IndexedDataset(ImageSet(4))))
    assert many[3][1] == 3 and many.targets == ImageSet(4).targets and not many.__getitems__
    assert IndexedDataset(Batched(4)).__getitems__([2, 1]) == [((20, 4), 2), ((10, 2), 1)]
    batch, index = IndexedCollate(lambda samples: torch.tensor(samples))([((1, 2), 5), ((3, 4), 9)])
    assert batch.tolist() == [[1, 2], [3, 4]] and index.tolist() == [5, 9]


def test_transforms_are_found_through_wrappers() -> None:
    dataset = ImageSet()
    dataset.transform = create_transform((3, 8, 8), is_training=True, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    random, unknown = describe(transforms_of(Subset(dataset, [0])))
    assert random == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "ColorJitter"] and unknown == []
    mean, std = normalisation(transforms_of(dataset)) or ((), ())
    assert mean == pytest.approx((0.1, 0.2, 0.3)) and std == pytest.approx((0.4, 0.5, 0.6))
    dataset.transform = tv.Compose([tv.RandomApply([tv.ColorJitter(0.1)]), lambda image: image, tv.ToTensor()])
    assert describe(transforms_of(dataset)) == (["RandomApply"], ["function"])
    assert normalisation(transforms_of(dataset)) is None
    evaluation = create_transform((3, 8, 8), is_training=False, crop_mode="border")
    assert describe(list(parts(evaluation))) == ([], [])


@pytest.mark.parametrize("mode", [None, "rkrc", "rkrr"])
@pytest.mark.parametrize("prefetch", [True, False])
def test_base_policy_turns_every_random_transform_of_timm_off(mode: str | None, prefetch: bool) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))

    class Pictures(ImageSet):
        def __getitem__(self, i: int) -> tuple[Any, int]:
            return self.transform(picture), self.targets[i]

    def images(base: Any) -> torch.Tensor:
        source = loader(Pictures(), no_aug=False, train_crop_mode=mode, re_prob=1.0, use_prefetcher=prefetch)
        return torch.cat([x for x, _ in wrap(source, NONE, None, base=base)])

    calm, wild = images("policy"), images("loader")
    assert calm.shape == wild.shape == (20, 3, 8, 8)
    assert torch.equal(calm, calm[:1].expand_as(calm)) and not torch.equal(wild, wild[:1].expand_as(wild))


def test_base_policy_works_for_scheduled_sizes_and_leaves_the_callers_data_set_alone() -> None:
    dataset = ImageSet(48)
    source = loader(dataset, no_aug=False, input_size_choices=[8, (8, 12)], batch_size_choices=[6, 4])
    before = source.dataset.transforms
    wrapped = wrap(source, NONE, None, base="policy")
    images = [x for x, _ in wrapped]
    assert {tuple(x.shape[2:]) for x in images} == {(8, 8), (8, 12)}
    assert source.dataset.transforms is before
    assert all(bool((x.flatten(2).amax(2) == x.flatten(2).amin(2)).all()) for x in images)


def test_base_policy_replaces_torchvisions_training_crop() -> None:
    composed = tv.Compose([tv.RandomCrop(8, padding=2), tv.RandomHorizontalFlip(), tv.PILToTensor()])
    dataset = ImageSet()
    dataset.transform = composed
    kept = without_chance(dataset).transform.transforms
    assert [type(part).__name__ for part in kept] == ["CenterCrop", "PILToTensor"] and dataset.transform is composed


def test_base_policy_refuses_what_it_cannot_judge() -> None:
    dataset = ImageSet()
    dataset.transform = lambda image: torch.zeros(3, 8, 8)
    with pytest.raises(InputError, match="function is random"):
        wrap(DataLoader(dataset, 2), NONE, None, base="policy")
    with pytest.raises(InputError, match="TensorDataset has none"):
        wrap(DataLoader(TensorDataset(torch.zeros(2, 3, 2, 2), torch.zeros(2).long())), NONE, None, base="policy")


def test_the_number_of_classes_in_these_tests() -> None:
    assert class_counts(ImageSet(23)) == [5, 4, 5, 4, 5] and len(class_counts(ImageSet(23))) == CLASSES
