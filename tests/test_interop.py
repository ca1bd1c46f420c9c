"""Policies as transforms of albumentations and torchvision, in real pipelines and real loaders."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from augkit.engine.output import Output
from augkit.errors import DocumentError, InputError
from augkit.integrations import albumentations as ours
from augkit.integrations import torchvision as theirs
from augkit.integrations.keyed import Keyed
from augkit.operators.libraries import LIBRARIES
from augkit.policy import Policy

A: Any = LIBRARIES["albumentations"].module()
V2: Any = LIBRARIES["torchvision"].module()

from PIL import Image  # noqa: E402  after torchvision's operators are there
from torchvision import tv_tensors  # noqa: E402

STILL: dict[str, Any] = {"augkit": 1, "name": "still", "pipeline": [{"solarize": {"threshold": 128, "p": 0.5}}]}
LEARNING: dict[str, Any] = {
    "augkit": 1,
    "name": "learning",
    "state": {"level": {"axes": [], "init": 0}},
    "pipeline": [{"rotate": {"strength": "level"}}],
    "update": [{"at": "epoch_end", "set": {"level": "level + 0.1"}}],
}


def document(step: Any, **more: Any) -> dict[str, Any]:
    return {"augkit": 1, "name": "one", "pipeline": [step], **more}


def picture(height: int = 40, width: int = 32, channels: int = 3) -> np.ndarray[Any, Any]:
    ramp = np.linspace(0, 200, width)[None, :, None]
    noise = np.random.default_rng(0).integers(0, 56, (height, width, channels))
    return (ramp + noise).astype(np.uint8)


def run(transform: Any, image: Any, times: int = 6) -> list[Any]:
    return [transform(image=image)["image"] for _ in range(times)]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class TestAlbumentations:
    def test_the_seed_of_a_compose_reproduces(self) -> None:
        policy = Policy.load("trivialaugment")
        first, again, other = (
            run(A.Compose([A.HorizontalFlip(), ours.to_transform(policy)], seed=seed), picture()) for seed in (3, 3, 4)
        )
        assert same(first, again) and not same(first, other)
        assert len({image.tobytes() for image in first}) > 3

    @pytest.mark.parametrize("shape", [(40, 32, 3), (40, 32, 1), (40, 32), (1, 1, 3)])
    @pytest.mark.parametrize("kind", ["uint8", "float32"])
    def test_size_shape_and_kind_stay(self, shape: tuple[int, ...], kind: str) -> None:
        image = picture(*shape[:2], channels=(*shape, 1)[2]).reshape(shape)
        given = image if kind == "uint8" else (image / 255).astype(np.float32)
        before = given.copy()
        for result in run(A.Compose([ours.to_transform("randaugment")]), given, 8):
            assert result.shape == shape and result.dtype == kind and result.flags["C_CONTIGUOUS"]
        assert np.array_equal(given, before)

    def test_it_does_what_the_policy_does(self) -> None:
        transform = ours.to_transform(STILL)
        results = run(A.Compose([transform], seed=0), picture(), 40)
        expected = np.where(picture() < 128, picture(), 255 - picture())
        changed = [np.array_equal(result, expected) for result in results]
        kept = [np.array_equal(result, picture()) for result in results]
        assert 8 < sum(changed) < 32 and sum(changed) + sum(kept) == 40

    def test_p_is_the_whole_policys(self) -> None:
        never = ours.to_transform(document("hflip"), p=0)
        assert same(run(A.Compose([never]), picture()), [picture()] * 6)
        assert ours.to_transform("randaugment").p == 1

    def test_slices_of_a_stack_get_the_same(self) -> None:
        stack = np.stack([picture()] * 3)
        made = A.Compose([ours.to_transform("trivialaugment")], seed=1)(images=stack)["images"]
        assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])

    def test_it_pickles_and_is_stored_as_its_document(self, tmp_path: Path, server: None) -> None:
        pipeline = A.Compose([ours.to_transform("randaugment", p=0.9)], seed=5)
        restored = pickle.loads(pickle.dumps(pipeline))
        stored = json.loads(json.dumps(A.to_dict(pipeline)))
        assert same(run(pipeline, picture()), run(restored, picture()))
        read = A.from_dict(stored)
        assert read.transforms[0].keyed.strategy.hash == Policy.load("randaugment").strategy.hash
        assert read.transforms[0].p == 0.9
        A.save(pipeline, tmp_path / "pipeline.json")
        code = f"""
import albumentations as A
from augkit.integrations.albumentations import PolicyTransform
print(A.load({str(tmp_path / "pipeline.json")!r}).transforms[0])
"""
        script = tmp_path / "elsewhere.py"
        script.write_text(code)
        told = processes.run_script(script, [], tmp_path, tmp_path)
        assert told.stdout.strip() == 'PolicyTransform("randaugment", p=0.9)'

    def test_changed_params_and_paths_are_stored_too(self, tmp_path: Path) -> None:
        (tmp_path / "inner.yaml").write_text("augkit: 1\nname: inner\npipeline: [hflip]\n")
        (tmp_path / "outer.yaml").write_text(
            "augkit: 1\nname: outer\nparams: {d: 10}\npipeline: [{use: inner.yaml}, {rotate: {degrees: d}}]\n"
        )
        policy = Policy.load(tmp_path / "outer.yaml", d=20)
        restored = A.from_dict(A.to_dict(ours.to_transform(policy)))
        assert restored.keyed.strategy.params == {"d": 20}
        assert restored.keyed.strategy.hash == policy.strategy.hash

    def test_a_replay_does_the_same_again(self) -> None:
        replaying = A.ReplayCompose([ours.to_transform("trivialaugment")])
        for _ in range(4):
            made = replaying(image=picture())
            again = A.ReplayCompose.replay(made["replay"], image=picture())
            assert np.array_equal(made["image"], again["image"])

    def test_masks_and_boxes_that_would_no_longer_fit_are_refused(self) -> None:
        mask = picture()[:, :, 0]
        with pytest.raises(InputError, match=r'"randaugment" moves pixels, and mask would no longer fit'):
            A.Compose([ours.to_transform("randaugment")])(image=picture(), mask=mask)
        made = A.Compose([ours.to_transform(STILL)])(image=picture(), mask=mask, label=3)
        assert np.array_equal(made["mask"], mask) and made["label"] == 3

    def test_other_images_are_refused(self) -> None:
        transform = ours.to_transform("randaugment")
        with pytest.raises(InputError, match="uint8 or float32"):
            transform(image=picture().astype(np.float64))
        with pytest.raises(InputError, match=r"0\.\.1"):
            transform(image=picture().astype(np.float32))


class TestTorchvision:
    def test_every_kind_of_image_gets_the_same(self) -> None:
        transform = theirs.to_transform("trivialaugment")
        tensor = torch.from_numpy(picture()).permute(2, 0, 1)
        kinds = {"tensor": tensor, "image": tv_tensors.Image(tensor), "pil": Image.fromarray(picture())}
        made = {}
        for name, item in kinds.items():
            torch.manual_seed(7)
            made[name] = [transform(item) for _ in range(6)]
        for one, two, three in zip(made["tensor"], made["image"], made["pil"], strict=True):
            assert type(one) is torch.Tensor and isinstance(two, tv_tensors.Image) and isinstance(three, Image.Image)
            assert torch.equal(one, two.as_subclass(torch.Tensor)) and one.dtype == torch.uint8
            assert np.array_equal(np.array(three), one.permute(1, 2, 0).numpy())
        assert len({one.numpy().tobytes() for one in made["tensor"]}) > 3

    def test_each_image_of_a_batch_draws_for_itself(self) -> None:
        batch = torch.from_numpy(picture()).permute(2, 0, 1).expand(64, -1, -1, -1)
        labels = torch.arange(64)
        result, same_labels = theirs.to_transform(STILL)(batch, labels)
        changed = (result != batch).flatten(1).any(1).sum()
        assert 16 < int(changed) < 48 and same_labels is labels
        assert result.shape == batch.shape

    def test_the_key_of_an_image_is_all_that_counts(self) -> None:
        batch = torch.from_numpy(picture()).permute(2, 0, 1).expand(5, -1, -1, -1)
        keyed, keys = Keyed("randaugment"), [3, -9, 2**62, 0, 3]
        together = keyed(batch, keys)
        for i, key in enumerate(keys):
            assert torch.equal(together[i], keyed(batch[:1], [key])[0])
        assert torch.equal(together[0], together[4]) and not torch.equal(together[0], together[1])

    def test_arrays_are_refused_where_they_would_pass_by_unchanged(self) -> None:
        transform = theirs.to_transform("randaugment")
        with pytest.raises(InputError, match=r"not arrays of numpy; put v2\.ToImage\(\) before this"):
            transform(picture())
        with pytest.raises(InputError, match="not arrays of numpy"):
            transform({"image": picture(), "label": torch.tensor(3)})
        beside = transform({"image": Image.fromarray(picture()), "other": picture()})
        assert np.array_equal(beside["other"], picture())

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_pil_images_keep_their_mode(self, mode: str) -> None:
        image = Image.fromarray(picture()).convert(mode)
        made = theirs.to_transform("randaugment")(image)
        assert made.mode == mode and made.size == image.size

    def test_the_rest_of_a_sample_passes_through(self) -> None:
        sample = {"image": Image.fromarray(picture()), "label": torch.tensor(3), "name": "a.png", "box": None}
        made = theirs.to_transform("randaugment")(sample)
        assert made["label"] is sample["label"] and made["name"] == "a.png" and made["box"] is None

    def test_it_works_in_a_compose_and_pickles(self) -> None:
        pipeline = V2.Compose([theirs.to_transform("randaugment"), V2.ToImage(), V2.ToDtype(torch.float32, scale=True)])
        restored = pickle.loads(pickle.dumps(pipeline))
        for transform in (pipeline, restored):
            torch.manual_seed(1)
            made = transform(Image.fromarray(picture()))
            assert made.shape == (3, 40, 32) and made.dtype == torch.float32
        assert "randaugment" in repr(pipeline)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_floats_stay_floats(self, dtype: torch.dtype) -> None:
        image = torch.from_numpy(picture()).permute(2, 0, 1).to(dtype) / 255
        assert theirs.to_transform("randaugment")(image).dtype == dtype

    def test_what_would_no_longer_fit_is_refused(self) -> None:
        image = tv_tensors.Image(torch.from_numpy(picture()).permute(2, 0, 1))
        mask = tv_tensors.Mask(image[0])
        with pytest.raises(InputError, match='"randaugment" cannot be used beside Mask'):
            theirs.to_transform("randaugment")(image, mask)
        made, kept = theirs.to_transform(STILL)(image, mask)
        assert torch.equal(kept, mask) and isinstance(made, tv_tensors.Image)
        with pytest.raises(InputError, match="Video"):
            theirs.to_transform(STILL)(tv_tensors.Video(image[None]))

    def test_other_images_are_refused(self) -> None:
        transform = theirs.to_transform(STILL)
        with pytest.raises(InputError, match=r'RGB or L, not RGBA; use image.convert\("RGB"\)'):
            transform(Image.fromarray(picture()).convert("RGBA"))
        with pytest.raises(InputError, match=r"\[C, H, W\] or \[B, C, H, W\]"):
            transform(torch.zeros(4, 4, dtype=torch.uint8))
        with pytest.raises(InputError, match=r"0\.\.1"):
            transform(torch.full((3, 4, 4), 2.0))


@pytest.mark.parametrize("make", [ours.to_transform, theirs.to_transform])
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (LEARNING, "it learns"),
        ("mixup", "it mixes images"),
        (document({"rotate": {"strength": "epoch / 10"}}), 'it follows "epoch"'),
        (document({"hflip": {"p": "step > 3"}}), 'it follows "step"'),
        (document({"hflip": {"p": "y == 1"}}), "class, index or group"),
        (document({"hflip": {"p": "index == 1"}}), "class, index or group"),
        (document({"hflip": {"p": "group == 1"}}), "class, index or group"),
        (document({"hflip": {"p": "max(class_count, over=classes) > 3"}}), 'it follows "class_count"'),
        (document({"use": "mixup"}), "it mixes images"),
        (document("hflip", views={"a": ["vflip"], "b": []}), "several views"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_worker_cannot_know_is_refused(make: Any, source: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"cannot run inside a loader: .*{reason}.*; call the policy on whole batches"):
        make(source)


def test_a_policy_that_normalises_is_refused() -> None:
    policy = Policy.load("randaugment", out=Output(mean=(0.5,) * 3, std=(0.2,) * 3))
    with pytest.raises(InputError, match="normalises its images"):
        ours.to_transform(policy)


def test_something_else_is_refused() -> None:
    with pytest.raises(DocumentError, match="not int"):
        theirs.to_transform(3)  # type: ignore[arg-type]


def test_external_operators_work_inside_too() -> None:
    steps = document({"albumentations:CoarseDropout": {"num_holes_range": [3, 5]}})
    made = A.Compose([ours.to_transform(steps)], seed=1)(image=picture())["image"]
    assert not np.array_equal(made, picture())


class Pictures(Dataset[Any]):
    """The same picture many times, through one transform; what comes out differs by the draw alone."""

    def __init__(self, transform: Any, *, named: bool, length: int = 16) -> None:
        self.transform, self.named, self.length = transform, named, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = picture()
        if self.named:
            return torch.from_numpy(self.transform(image=image)["image"]), index
        return V2.functional.pil_to_tensor(self.transform(Image.fromarray(image))), index


def epochs(data: Pictures, seed: int, context: str = "fork", count: int = 2) -> list[list[bytes]]:
    """What some epochs of a loader with two workers give, image by image."""
    torch.manual_seed(seed)
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context=context)
    return [[image.numpy().tobytes() for images, _ in loader for image in images] for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["albumentations", "torchvision"])
def test_workers_and_epochs_differ_and_a_seed_reproduces(named: bool) -> None:
    strategy = document({"rotate": {"degrees": "uniform(-30, 30)"}})
    transform = A.Compose([ours.to_transform(strategy)], seed=2) if named else theirs.to_transform(strategy)
    data = Pictures(transform, named=named)
    first, second = epochs(data, seed=11)
    assert len({*first, *second}) == 32  # every image of every worker and epoch got a rotation of its own
    assert epochs(data, seed=11) == [first, second]
    assert epochs(data, seed=12)[0] != first


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["albumentations", "torchvision"])
def test_workers_that_are_spawned_work_alike(named: bool) -> None:
    transform = A.Compose([ours.to_transform("randaugment")], seed=2) if named else theirs.to_transform("randaugment")
    data = Pictures(transform, named=named)
    assert epochs(data, seed=5, context="spawn", count=1) == epochs(data, seed=5, count=1)
