"""`wrap` on timm's own loaders: uint8 in, timm's normalisation after, labels of the right batch, attributes through."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytest
import torch
from seam_parts import (
    CLASSES,
    LEARNS,
    MIXES,
    NONE,
    TURNS,
    ImageSet,
    Net,
    Recorder,
    Seer,
    Stream,
    epoch,
    learned,
    loader,
)
from timm.data import FastCollateMixup
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import MultiEpochsDataLoader, PrefetchLoader, fast_collate
from torch.utils.data import DataLoader, TensorDataset

from augkit.engine.output import Output
from augkit.errors import InputError
from augkit.integrations.timm import mixup_fn, wrap
from augkit.policy import Policy


def counts(dataset: Any) -> list[int]:
    return torch.bincount(torch.tensor(dataset.targets), minlength=CLASSES).tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prefetch", [True, False])
def test_each_answer_is_counted_under_the_label_of_its_own_image(workers: int, prefetch: bool) -> None:
    source = loader(num_workers=workers, use_prefetcher=prefetch, persistent_workers=workers > 0)
    model = Seer()
    wrapped = wrap(source, LEARNS, model)
    assert isinstance(source, PrefetchLoader) == prefetch
    batches = epoch(wrapped, model)
    wrapped.policy.end_epoch()
    answered, right = learned(wrapped.policy)
    assert len(batches) == len(wrapped) == 5 and sum(answered) == 20
    assert right == answered and min(answered) >= 1


@pytest.mark.parametrize("prefetch", [True, False])
def test_a_model_that_answers_one_batch_late_is_found_out(prefetch: bool) -> None:
    """Without this the test above could pass with labels from anywhere."""
    model = Seer(late=1)
    wrapped = wrap(loader(ImageSet(40), use_prefetcher=prefetch), LEARNS, model)
    epoch(wrapped, model)
    wrapped.policy.end_epoch()
    answered, right = learned(wrapped.policy)
    assert sum(answered) == 40 and sum(right) < 30


def test_the_policy_works_one_batch_ahead_of_a_prefetching_loop() -> None:
    """This is the look-ahead of timm that the queue of labels is for; if timm drops it, this test says so."""
    model = Seer()
    policy = Recorder.load(LEARNS, class_counts=[5] * CLASSES)
    wrapped = wrap(loader(), policy, model)
    iterator = iter(wrapped)
    next(iterator)
    assert len(policy.calls) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_policy_meets_uint8_and_timm_normalises_afterwards(dtype: torch.dtype) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    policy = Recorder.load(TURNS)
    wrapped = wrap(loader(mean=mean, std=std, img_dtype=dtype), policy, None)
    drawn: list[torch.Tensor] = []
    apply = policy.apply

    def keeping(images: Any, plan: Any) -> Any:
        result = apply(images, plan)
        drawn.append(result[0])
        return result

    policy.apply = keeping  # type: ignore[method-assign]
    batches = list(wrapped)
    assert all(call["images"].dtype == torch.uint8 for call in policy.calls)
    for (images, _), augmented in zip(batches, drawn, strict=True):
        shape = (1, 3, 1, 1)
        scale = [torch.tensor([v * 255 for v in values], dtype=dtype).view(shape) for values in (mean, std)]
        assert torch.equal(images, augmented.to(dtype).sub(scale[0]).div(scale[1]))
    assert any(not torch.equal(call["images"], out) for call, out in zip(policy.calls, drawn, strict=True))


def test_unprefetched_images_are_brought_back_to_eight_bits_and_normalised_again() -> None:
    dataset = ImageSet()
    policy = Recorder.load(NONE)
    wrapped = wrap(loader(dataset, use_prefetcher=False, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)), policy, None)
    for (images, targets), call in zip(wrapped, iter_calls(policy), strict=False):
        red = call["images"][:, 0, 0, 0]
        assert call["images"].dtype == torch.uint8 and torch.equal(red.long(), targets * 20)
        assert images.dtype == torch.float32
        assert torch.allclose(images[:, 0, 0, 0], (red / 255 - 0.5) / 0.2, atol=1e-5)


def iter_calls(policy: Recorder) -> Any:
    k = 0
    while True:
        yield policy.calls[k]
        k += 1


def test_a_plain_loader_of_uint8_or_of_floats_in_0_1_needs_nothing_of_timm() -> None:
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(12) % 3
    for data in (images, images.float() / 255):
        wrapped = wrap(DataLoader(TensorDataset(data, labels), batch_size=5), NONE, None)
        batches = list(wrapped)
        assert torch.allclose(torch.cat([x for x, _ in batches]), data)
        assert batches[0][0].dtype == data.dtype and wrapped.policy.num_classes == 3


class Sample(NamedTuple):
    image: torch.Tensor
    label: int
    name: str


def test_batches_that_are_named_tuples_stay_so() -> None:
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    samples: Any = [Sample(images[i], i % 3, f"picture {i}") for i in range(12)]
    wrapped = wrap(DataLoader(samples, batch_size=5), MIXES, None, class_counts=[4, 4, 4])
    batches = list(wrapped)
    assert all(isinstance(batch, Sample) for batch in batches)
    assert [batch.label.shape for batch in batches] == [(5, 3), (5, 3), (2, 3)]
    assert [name for batch in batches for name in batch.name] == [f"picture {i}" for i in range(12)]
    assert not torch.equal(torch.cat([batch.image for batch in batches]), images)


def test_random_erasing_of_the_prefetching_loader_still_runs() -> None:
    wrapped = wrap(
        loader(no_aug=False, scale=(1, 1), ratio=(1, 1), hflip=0, color_jitter=None, re_prob=1.0), NONE, None
    )
    assert wrapped.random_erasing.probability == 1.0
    images = torch.cat([x for x, _ in wrapped])
    flat = images.flatten(2)
    assert bool((flat.amax(2) != flat.amin(2)).any())


def test_attributes_pass_through_as_timm_uses_them(tmp_path: Any) -> None:
    source = loader(mean=(0.5, 0.5, 0.5))
    wrapped = wrap(source, NONE, None)
    assert wrapped.dataset is source.dataset and wrapped.sampler is source.sampler
    assert wrapped.batch_sampler is source.batch_sampler and len(wrapped) == len(source)
    assert torch.equal(wrapped.mean, source.mean) and wrapped.img_dtype == torch.float32
    assert isinstance(source.loader, DataLoader) and source.loader.collate_fn is fast_collate
    assert not hasattr(wrapped, "no_such_thing")
    first = next(iter(source))
    assert first[0].shape == (4, 3, 8, 8), "the loader that was given must go on as before"


def test_mixup_enabled_is_what_timms_loop_sets_at_mixup_off_epoch() -> None:
    model = Seer()
    wrapped = wrap(loader(), MIXES, model)
    assert wrapped.mixup_enabled
    mixed = epoch(wrapped, model)
    assert all(targets.shape == (4, CLASSES) for _, targets in mixed)
    assert any(bool((targets.amax(1) < 0.999).any()) for _, targets in mixed)
    if wrapped.mixup_enabled:
        wrapped.mixup_enabled = False
    clean = epoch(wrapped, model)
    assert all(targets.shape == (4, CLASSES) and bool((targets.amax(1) == 1).all()) for _, targets in clean)
    assert not wrapped.mixup_enabled and not wrap(loader(), NONE, None).mixup_enabled


def test_an_odd_last_batch_and_single_images_are_served() -> None:
    source = loader(ImageSet(23))
    odd = PrefetchLoader(DataLoader(source.dataset, 11, collate_fn=fast_collate), device=torch.device("cpu"))
    wrapped = wrap(odd, MIXES, None)
    assert [len(x) for x, _ in wrapped] == [11, 11, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_index_of_each_image_travels_with_it(workers: int) -> None:
    dataset = ImageSet(24)
    policy = Recorder.load(NONE)
    wrapped = wrap(loader(dataset, num_workers=workers), policy, None)
    list(wrapped)
    for call in policy.calls:
        assert torch.equal(call["images"][:, 1, 0, 0].long(), call["index"])
        assert call["targets"].tolist() == [dataset.targets[i] for i in call["index"].tolist()]
    assert sorted(torch.cat([call["index"] for call in policy.calls]).tolist()) == list(range(24))


def test_workers_and_batch_size_do_not_change_what_happens_to_an_image() -> None:
    results = []
    for workers, batch in ((0, 4), (2, 12)):
        dataset = ImageSet(24)
        policy = Recorder.load(TURNS, seed=3)
        wrapped = wrap(loader(dataset, batch, num_workers=workers), policy, None)
        images = torch.cat([x for x, _ in wrapped])
        index = torch.cat([call["index"] for call in policy.calls])
        results.append(images[index.argsort()])
    assert torch.equal(results[0], results[1])


def test_an_iterable_data_set_works_without_indices() -> None:
    model = Seer()
    source = loader(Stream(), num_workers=2)
    policy = Recorder.load(LEARNS, class_counts=[5] * CLASSES)
    epoch(wrap(source, policy, model), model)
    assert policy.calls and all(call["index"] is None for call in policy.calls)
    policy.end_epoch()
    answered, right = learned(policy)
    assert sum(answered) == 24 and answered == right


def test_an_index_that_comes_again_is_drawn_anew_by_a_repeating_sampler() -> None:
    dataset = ImageSet(8)
    sampler = RepeatAugSampler(dataset, num_replicas=1, rank=0, num_repeats=4, selected_ratio=1, selected_round=0)
    sampler.num_selected_samples = 32
    source = loader(dataset)
    inner = DataLoader(dataset, 16, sampler=sampler, collate_fn=fast_collate)
    policy = Recorder.load(TURNS)
    wrapped = wrap(PrefetchLoader(inner, mean=(0,) * 3, std=(1,) * 3, device=source.device), policy, None)
    wrapped.sampler.set_epoch(1)
    images = torch.cat([x for x, _ in wrapped])
    index = torch.cat([call["index"] for call in policy.calls])
    assert index.bincount(minlength=8).tolist() == [4] * 8
    different = [len({tuple(x.flatten().tolist()) for x in images[index == i]}) for i in range(8)]
    assert max(different) > 1


def test_scheduled_input_sizes_keep_index_and_labels() -> None:
    dataset = ImageSet(48)
    policy = Recorder.load(LEARNS, class_counts=counts(dataset))
    model = Seer()
    source = loader(dataset, input_size_choices=[8, 12], batch_size_choices=[6, 4], num_workers=2)
    wrapped = wrap(source, policy, model)
    wrapped.batch_sampler.set_epoch(1)
    sizes = {x.shape[-1] for x, _ in epoch(wrapped, model)}
    assert sizes == {8, 12}
    for call in policy.calls:
        assert torch.equal(call["images"][:, 1, 0, 0].long(), call["index"])
    policy.end_epoch()
    answered, right = learned(policy)
    assert answered == right and sum(answered) > 40


def test_the_loader_for_many_epochs_is_served() -> None:
    dataset = ImageSet(16)
    source = loader(dataset, use_multi_epochs_loader=True, num_workers=2)
    assert isinstance(source.loader, MultiEpochsDataLoader)
    model = Seer()
    wrapped = wrap(source, LEARNS, model)
    for _ in range(3):
        assert len(epoch(wrapped, model)) == 4
    wrapped.policy.end_epoch()
    answered, right = learned(wrapped.policy)
    assert sum(answered) == 48 and answered == right


def test_augmentation_splits_repeat_the_index() -> None:
    from timm.data import AugMixDataset

    dataset = AugMixDataset(ImageSet(8), num_splits=2)
    source = loader(dataset, no_aug=False, num_aug_splits=2, scale=(1, 1), ratio=(1, 1), hflip=0, color_jitter=None)
    policy = Recorder.load(NONE, class_counts=[2] * CLASSES)
    assert [len(x) for x, _ in wrap(source, policy, None)] == [8, 8]
    for call in policy.calls:
        assert torch.equal(call["images"][:, 1, 0, 0].long(), call["index"])


def test_partners_from_the_pool_need_no_line_of_the_caller() -> None:
    document = {**MIXES, "pipeline": [{"batch": [{"mixup": {"p": 1, "alpha": 1.0, "partner": "pool"}}]}]}
    wrapped = wrap(loader(), document, None)
    assert all(targets.shape == (4, CLASSES) for _, targets in wrapped)
    assert wrapped.policy.pool is not None and int(wrapped.policy.pool.filled.sum()) == 20


def test_groups_go_with_the_sample() -> None:
    dataset = ImageSet(24)
    groups = [i % 3 for i in range(24)]
    policy = Recorder.load(NONE, groups=3)
    list(wrap(loader(dataset), policy, None, sample_groups=groups))
    assert all(torch.equal(call["group"], call["index"] % 3) for call in policy.calls)
    with pytest.raises(InputError, match="24 samples"):
        wrap(loader(dataset), policy, None, sample_groups=groups[:5])


def test_channels_last_and_half_precision_reach_the_model() -> None:
    model = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped = wrap(loader(), LEARNS, model)
    model.train()
    for images, _ in wrapped:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(images.contiguous(memory_format=torch.channels_last))
        assert out.dtype == torch.bfloat16
    assert float(wrapped.policy.statistics.seen.sum()) == 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixup_fn_serves_loops_with_normalised_images(dtype: torch.dtype) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    raw = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    shape = (3, 1, 1)
    x = ((raw / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)).to(dtype)
    kept, targets = x.clone(), torch.arange(5)
    plain = mixup_fn(Policy.load(NONE), mean, std)
    same, labels = plain(x, targets)
    assert same.dtype == dtype and torch.equal(labels, targets)
    assert torch.allclose(same.float(), x.float(), atol=1e-5 if dtype == torch.float32 else 0.04)
    mixing = mixup_fn(Policy.load(MIXES, class_counts=[1] * 5), mean, std)
    mixed, dense = mixing(x, targets)
    assert dense.shape == (5, 5) and not torch.allclose(mixed, x) and torch.equal(x, kept)
    mixing.mixup_enabled = False
    calm, dense = mixing(x, targets)
    assert torch.equal(dense.argmax(1), targets) and bool((dense.amax(1) == 1).all())
    assert torch.equal(calm, same) and not mixing.mixup_enabled


def test_what_cannot_work_is_refused_with_a_sentence() -> None:
    mixing = loader(collate_fn=FastCollateMixup(mixup_alpha=1.0, num_classes=CLASSES))
    plain = mixup_fn(Policy.load(NONE), 0.5, 0.5)
    cases: list[tuple[Any, str]] = [
        (lambda: wrap(mixing, NONE, None), "FastCollateMixup"),
        (lambda: wrap(wrap(loader(), NONE, None), NONE, None), "wrapped already"),
        (lambda: wrap(loader(), Policy.load(NONE), None, seed=3), "seed"),
        (lambda: wrap(loader(), NONE, None, base="both"), "base"),  # type: ignore[arg-type]
        (lambda: wrap(3, NONE, None), "int"),
        (lambda: wrap(loader(), Policy.load(MIXES, class_counts=[3] * 4), Seer()), "answers 5 classes"),
        (lambda: wrap(loader(), Policy.load(NONE, out=Output()), None), "without out="),
        (lambda: wrap(loader(use_prefetcher=False), NONE, None, mean=0.5), "both mean and std"),
        (lambda: mixup_fn(Policy.load(NONE), 0.5, 0.0), "above 0"),
        (lambda: mixup_fn(Policy.load(NONE), (0.5, 0.5), 0.5), "mean must hold one number or one for each of 3"),
        (lambda: mixup_fn(Policy.load(NONE), 0.5, [0.5] * 4), "std must hold .* not 4"),
        (lambda: plain(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.arange(5)), "floating point, not uint8"),
        (lambda: next(iter(wrap(DataLoader(ImageSet().targets), NONE, None, class_counts=[1]))), "images, targets"),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_it_says_which_random_transforms_it_found(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="augkit"):
        wrap(loader(no_aug=False, re_prob=0.5, auto_augment="rand-m9"), NONE, None)
    said = caplog.text
    assert "RandomResizedCropAndInterpolation, RandomHorizontalFlip, RandAugment, RandomErasing" in said
    assert "without auto_augment" in said
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="augkit"):
        wrap(loader(), NONE, None)
    assert "random transforms of the loader: none" in caplog.text
