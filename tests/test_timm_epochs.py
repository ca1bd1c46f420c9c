"""When epochs end, and the learned state in its file."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from seam_parts import LEARNS, TURNS, ImageSet, Seer, epoch, history, learned, loader

from augkit.errors import StateError
from augkit.integrations.timm import wrap

WANDERS: dict[str, Any] = {
    **LEARNS,
    "name": "wanders",
    "palette": ["hflip", "invert", "rotate", "posterize"],
    "state": {**LEARNS["state"], "walk": {"axes": ["classes"], "init": 0.5, "clamp": [0, 1]}},
    "pipeline": [{"pick": {"count": 1, "strength": "walk[y]"}}],
    "update": [
        {"at": "epoch_end", "set": {**LEARNS["update"][0]["set"], "walk": "walk + normal() * 0.1 + 0.001 * correct"}}
    ],
}


def test_rules_run_when_the_next_epoch_begins_not_when_it_is_asked_for() -> None:
    model = Seer()
    wrapped = wrap(loader(), LEARNS, model)
    for number in range(3):
        epoch(wrapped, model)
        assert wrapped.policy.epoch == number
        iterator = iter(wrapped)
        assert wrapped.policy.epoch == number
        del iterator
    assert sum(learned(wrapped.policy)[0]) == 40


def test_ending_the_epoch_by_hand_is_not_done_twice() -> None:
    model = Seer()
    wrapped = wrap(loader(), LEARNS, model)
    for number in range(3):
        epoch(wrapped, model)
        wrapped.policy.end_epoch()
        assert wrapped.policy.epoch == number + 1
    assert sum(learned(wrapped.policy)[0]) == 60


@pytest.mark.parametrize("workers", [0, 2])
def test_an_abandoned_iterator_is_an_epoch_of_what_was_seen(workers: int) -> None:
    model = Seer().train()
    wrapped = wrap(loader(ImageSet(40), num_workers=workers), LEARNS, model)
    for number, (images, _) in enumerate(wrapped):
        model(images)
        if number == 2:
            break
    epoch(wrapped, model)
    assert wrapped.policy.epoch == 1 and history(wrapped.policy)[0]["seen"] != [0] * 5
    wrapped.policy.end_epoch()
    answered, right = learned(wrapped.policy)
    assert sum(answered) == 12 + 40 and answered == right


def test_a_look_at_one_batch_is_not_an_epoch() -> None:
    model = Seer()
    wrapped = wrap(loader(), LEARNS, model)
    next(iter(wrapped))
    epoch(wrapped, model)
    assert wrapped.policy.epoch == 0
    wrapped.policy.end_epoch()
    assert wrapped.policy.epoch == 1 and sum(learned(wrapped.policy)[0]) == 20


def stepping(partner: str) -> dict[str, Any]:
    pick: dict[str, Any] = {"pick": {"count": 1, "strength": "uniform() * min(1, 0.05 * step)"}}
    return {
        **WANDERS,
        "name": f"stepping_{partner}",
        "pipeline": [pick, {"batch": [{"mixup": {"p": 1, "alpha": 1.0, "partner": partner}}]}],
    }


@pytest.mark.parametrize("partner", ["batch", "pool"])
@pytest.mark.parametrize("prefetch", [True, False])
def test_a_look_at_one_batch_leaves_no_trace(prefetch: bool, partner: str) -> None:
    runs = []
    for looks in (0, 2):
        model, images = Seer(), []
        wrapped = wrap(loader(ImageSet(32), use_prefetcher=prefetch), stepping(partner), model, seed=5)
        wrapped.policy.observe(torch.eye(5), torch.arange(5), split="val")  # before any training
        for number in range(3):
            for _ in range(looks):
                next(iter(wrapped))
            torch.manual_seed(number)
            images.append(torch.cat([x for x, _ in epoch(wrapped, model)]))
        wrapped.policy.end_epoch()
        runs.append((images, wrapped.policy.step, history(wrapped.policy), wrapped.policy.memory.values[""]["walk"]))
    plain, looked = runs
    for number in range(3):
        assert torch.equal(plain[0][number], looked[0][number]), number
    assert plain[1] == looked[1] == 3 * 8 and plain[2] == looked[2] and torch.equal(plain[3], looked[3])
    assert sum(looked[2][0]["val_seen"]) == 5 and sum(looked[2][0]["seen"]) == 32


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    state = tmp_path / "run" / "policy.pt"
    model, images = Seer(), []
    straight = wrap(loader(ImageSet(24)), WANDERS, model, seed=5)
    for number in range(4):
        torch.manual_seed(number)
        images.append(torch.cat([x for x, _ in epoch(straight, model)]))
    straight.policy.end_epoch()
    for number in range(4):  # each epoch in a process of its own, in effect
        model = Seer()
        wrapped = wrap(loader(ImageSet(24)), WANDERS, model, seed=5, state=state)
        torch.manual_seed(number)
        assert torch.equal(torch.cat([x for x, _ in epoch(wrapped, model)]), images[number])
        assert [file.name for file in state.parent.iterdir()] == ["policy.pt"]
    wrapped.policy.end_epoch()
    assert wrapped.policy.epoch == straight.policy.epoch == 4
    assert history(wrapped.policy) == history(straight.policy)
    assert torch.equal(wrapped.policy.memory.values[""]["walk"], straight.policy.memory.values[""]["walk"])


def test_a_kill_in_the_middle_of_an_epoch_goes_back_to_its_beginning(tmp_path: Path) -> None:
    state, model = tmp_path / "policy.pt", Seer()
    wrapped = wrap(loader(), LEARNS, model, state=state)
    epoch(wrapped, model)
    for images, _ in wrapped:
        model(images)
        break
    again = wrap(loader(), LEARNS, model, state=state)
    assert again.policy.epoch == 1 and float(again.policy.statistics.seen.sum()) == 0
    epoch(again, model)
    again.policy.end_epoch()
    assert sum(learned(again.policy)[0]) == 40


def test_a_damaged_state_file_is_one_sentence(tmp_path: Path) -> None:
    state, model = tmp_path / "policy.pt", Seer()
    wrapped = wrap(loader(), LEARNS, model, state=state)
    epoch(wrapped, model)
    good = state.read_bytes()
    for content, words in (
        (b"nonsense", "cannot be read"),
        (good[: len(good) // 2], "cannot be read"),
        (b"", "cannot"),
        (b"\x80\x02]q\x00(K\x01e.", "cannot be read"),
        *((bytes([k]) * 40, "cannot be read") for k in (0, 40, 99, 255)),
    ):
        state.write_bytes(content)
        with pytest.raises(StateError, match=words) as caught:
            wrap(loader(), LEARNS, model, state=state)
        assert "\n" not in str(caught.value) and "delete it to start anew" in str(caught.value)
    torch.save({"something": "else"}, state)
    with pytest.raises(StateError, match="not policy state"):
        wrap(loader(), LEARNS, model, state=state)
    stored = torch.load(io.BytesIO(good), weights_only=True)
    for name in ("class_counts", "memory", "epoch"):
        rank = {key: value for key, value in stored["ranks"][0].items() if key != name}
        torch.save({**stored, "ranks": [rank]}, state)
        with pytest.raises(StateError, match=r"policy\.pt .*delete (it to start anew|the file)"):
            wrap(loader(), LEARNS, model, state=state)
    torch.save({**stored, "ranks": []}, state)
    with pytest.raises(StateError, match="holds no policy state; delete it"):
        wrap(loader(), LEARNS, model, state=state)
    state.write_bytes(good)
    with pytest.raises(StateError, match="another document"):
        wrap(loader(), TURNS, model, state=state)


def test_a_place_that_cannot_be_written_is_found_before_an_epoch_is_spent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path, tmp_path / "file" / "policy.pt", tmp_path / ("x" * 300)):
        with pytest.raises(StateError, match=r"cannot be written to .*; give state= another path"):
            wrap(loader(), LEARNS, Seer(), state=place)
    wrap(loader(), LEARNS, Seer(), state=tmp_path / "new" / "policy.pt")
    assert list((tmp_path / "new").iterdir()) == []


def test_state_of_other_numbers_of_processes_is_refused_while_counts_are_not_summed(tmp_path: Path) -> None:
    state, model = tmp_path / "policy.pt", Seer()
    wrapped = wrap(loader(), LEARNS, model, state=state)
    epoch(wrapped, model)
    stored = torch.load(state, weights_only=True)
    stored["ranks"] = stored["ranks"] * 2
    torch.save(stored, state)
    with pytest.raises(StateError, match="written by 2 processes"):
        wrap(loader(), LEARNS, model, state=state)
    torch.save({**stored, "finished": False}, state)
    assert wrap(loader(), LEARNS, model, state=state).policy.epoch == 0


def test_it_says_what_it_loaded_and_when_the_loop_is_at_another_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, model = tmp_path / "policy.pt", Seer()
    wrapped = wrap(loader(ImageSet(24)), LEARNS, model, state=state)
    epoch(wrapped, model)
    with caplog.at_level(logging.INFO, logger="augkit"):
        source = loader(ImageSet(24), input_size_choices=[8], batch_size_choices=[4])
        again = wrap(source, LEARNS, model, state=state)
        again.batch_sampler.set_epoch(5)
        epoch(again, model)
    assert f"loaded from {state}" in caplog.text and "sampler is at 5" in caplog.text
