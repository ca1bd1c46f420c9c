"""Searches: the cascade, parents, budgets and duplicates, and that nothing but settings and replies decides."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
from augkit_llm.archive import FILE, Archive
from augkit_llm.budget import Budget
from augkit_llm.cascade import Place, scores_of
from augkit_llm.evaluate import Stage
from augkit_llm.limits import misfit
from augkit_llm.opening import settle
from augkit_llm.records import (
    DUPLICATE,
    FAILED,
    FATES,
    FINISHED,
    INVALID,
    PASSED_OVER,
    STOPPED,
    UNANSWERED,
    Candidate,
    Evaluation,
)
from augkit_llm.selection import PARENTS, chances, draw, stream
from augkit_llm.standing import Standing
from hypothesis import example, given
from hypothesis import strategies as st
from llm_search_parts import (
    CONTROLS,
    RECIPE,
    STAGES,
    document,
    dump,
    flat,
    go_on,
    many_replies,
    new,
    recipe,
    reply,
    searched,
    settings,
    transcript,
)

from augkit import Policy
from augkit.errors import AugkitError, DataError, StateError


@pytest.fixture(autouse=True)
def landscape(monkeypatch: pytest.MonkeyPatch) -> None:
    flat(monkeypatch)


def fates(folder: Path) -> dict[str, str]:
    archive = Archive.read(folder / "found" / FILE)
    found = {one.key: one.fate for one in archive.candidates()}
    archive.close()
    return found


# parents


def test_chances_fall_with_the_rank() -> None:
    found = chances(4)
    assert found == sorted(found, reverse=True) and sum(found) == pytest.approx(1)
    assert found[0] / found[3] == pytest.approx((4 + 4) / (1 + 4))


@given(st.integers(0, 2**63 - 1), st.integers(1, 50), st.integers(0, 20), st.integers(0, 9))
def test_a_slots_draw_is_a_function_of_seed_generation_and_slot(
    seed: int, generation: int, slot: int, number: int
) -> None:
    ranked = [Candidate(0, k, "initial", "a", "model", hash=f"{k}") for k in range(number)]
    models = [("a", 0.7), ("none", 0.3)]
    found = draw(stream(seed, generation, slot), generation, slot, models, ranked)
    assert found == draw(stream(seed, generation, slot), generation, slot, models, ranked)
    assert len(found.parents) == len({one.slot for one in found.parents}) == PARENTS[found.operator]
    assert (found.operator == "initial") == (not ranked or found.origin == "random")
    assert found.origin == "model" if found.model == "a" else found.origin in ("random", "mutated")


def test_models_are_asked_by_their_shares_and_better_strategies_more_often() -> None:
    ranked = [Candidate(0, k, "initial", "a", "model", hash=f"{k}") for k in range(8)]
    found = [draw(stream(0, g, s), g, s, [("a", 3), ("b", 1)], ranked) for g in range(1, 101) for s in range(8)]
    assert Counter(one.model for one in found)["a"] == pytest.approx(600, abs=40)
    chosen = Counter(parent.slot for one in found for parent in one.parents)
    assert chosen[0] > 1.3 * chosen[7]
    assert {one.operator for one in found} == {"e1", "e2", "m1", "m2", "m3"}


def test_chance_makes_every_other_strategy_afresh() -> None:
    ranked = [Candidate(0, k, "initial", "none", "random", hash=f"{k}") for k in range(8)]
    found = [draw(stream(0, g, s), g, s, [("none", 1)], ranked) for g in range(1, 6) for s in range(8)]
    assert Counter(one.origin for one in found) == {"random": 20, "mutated": 20}


# the cascade


def test_the_best_go_on_and_what_is_worse_than_every_control_does_not(tmp_path: Path) -> None:
    heights = [0.9, 0.6, 0.4, 0.02]
    model = transcript(tmp_path / "t.jsonl", [reply(f"g0.s{s}.a0", document(p)) for s, p in enumerate(heights)])
    searched(tmp_path, model, Budget(evaluations=8 + 4 + 2 + CONTROLS))
    assert fates(tmp_path) == {"g0.s0": FINISHED, "g0.s1": PASSED_OVER, "g0.s2": PASSED_OVER, "g0.s3": STOPPED}
    archive = Archive.read(tmp_path / "found" / FILE)
    one = archive.candidates()
    assert [candidate.stage for candidate in one] == ["full", "warm", "short", "short"]
    assert "below every control (the lowest, none: 0.31" in str(one[3].problem)
    assert archive.spent().evaluations == 8 + 4 + 2 + CONTROLS
    text = (tmp_path / "found" / "best.yaml").read_text()
    assert "higher is better" in text and f"# sha256: {one[0].hash}" in text and "stage: full, 2 epochs" in text
    assert Policy.load(tmp_path / "found" / "best.yaml", class_counts=[5, 5]).strategy.hash == one[0].hash
    archive.close()


def test_a_crash_is_a_recorded_result_and_the_others_go_on(tmp_path: Path) -> None:
    replies = [reply("g0.s0.a0", document(0.9, "invert")), reply("g0.s1.a0", document(0.5))]
    searched(tmp_path, transcript(tmp_path / "t.jsonl", replies), Budget(evaluations=12 + CONTROLS), 2)
    assert fates(tmp_path) == {"g0.s0": FAILED, "g0.s1": FINISHED}
    archive = Archive.read(tmp_path / "found" / FILE)
    assert archive.candidates()[0].problem == "its training failed: RuntimeError: inverted"
    assert [one.state for one in archive.evaluations("short") if one.state != "done"] == ["failed", "failed"]
    archive.close()


def test_what_was_seen_before_is_counted_and_not_trained(tmp_path: Path) -> None:
    same = [reply(f"g0.s{slot}.a0", {**document(0.5), "name": f"n{slot}"}) for slot in range(3)]
    search = searched(tmp_path, transcript(tmp_path / "t.jsonl", same), Budget(evaluations=6 + 4 + 2 + CONTROLS), 3)
    assert list(fates(tmp_path).values())[:3] == [FINISHED, DUPLICATE, DUPLICATE]
    assert search.budget.evaluations == 32


def test_a_control_that_cannot_be_trained_ends_the_search_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llm_search_parts

    heights = dict(llm_search_parts.HEIGHTS)
    monkeypatch.delitem(llm_search_parts.HEIGHTS, "trivialaugment")
    with pytest.raises(StateError, match='the control "trivialaugment" cannot be trained'):
        searched(tmp_path, "none", Budget(evaluations=60), 2)
    monkeypatch.setattr(llm_search_parts, "HEIGHTS", heights)
    monkeypatch.setattr(llm_search_parts, "landscape", lambda **said: {"reward": 0.5, "standard_error": 0.01})
    assert dump(tmp_path / "found")["stop"][0] == "control failed"
    assert go_on(tmp_path / "found", minutes=7, memory=900).cascade.place == Place(minutes=7, memory=900)
    assert set(fates(tmp_path).values()) <= set(FATES)


@pytest.mark.slow
@pytest.mark.parametrize("base", [[{"random_crop": {}}], []])
def test_chance_fills_as_the_base_of_its_recipe_wants_it(tmp_path: Path, base: list[object]) -> None:
    with new(tmp_path / "found", settings(tmp_path, ["none"]), Budget(hours=1)) as search:
        proposer = search.proposer
        base_of = proposer.recipe.base.model_copy(update={"before": base, "after": []})
        proposer.recipe = proposer.recipe.model_copy(update={"base": base_of})
        nothing = search._barrier(0)
        made = [proposer._proposed(proposer.draw(0, slot, nothing), nothing).document or {} for slot in range(40)]
        assert any("image" in one for one in made)
        assert all(misfit(one, proposer.recipe, proposer.registry) is None for one in made)
        assert any(one.get("image", {}).get("fill", "black") != "black" for one in made) == (not base)


# replies


def test_faults_go_back_and_count_and_the_next_generation_is_told(tmp_path: Path) -> None:
    model = transcript(tmp_path / "t.jsonl", many_replies(6, 4))
    searched(tmp_path, model, Budget(evaluations=60))
    archive = Archive.read(tmp_path / "found" / FILE)
    found = {one.key: one for one in archive.candidates()}
    assert found["g0.s3"].attempts == 2 and found["g1.s1"].fate == INVALID and found["g1.s1"].attempts == 3
    prompts = {row["key"]: row["prompt"] for row in archive.rows("SELECT key, prompt FROM calls")}
    assert "is missing" in str(found["g1.s1"].problem)
    assert "is missing" in prompts["g2.s0.a0"] and "is missing" not in prompts["g1.s0.a0"]
    parents = [one for one in found.values() if one.generation == 1 and one.parents]
    assert parents and all(set(one.parents) <= {other.hash for other in found.values()} for one in parents)
    archive.close()


def test_a_question_without_an_answer_leaves_its_slot_empty(tmp_path: Path) -> None:
    replies = [reply("g0.s0.a0", document(0.5)), {"key": "g0.s1.a0", "error": "overloaded"}]
    searched(tmp_path, transcript(tmp_path / "t.jsonl", replies), Budget(evaluations=12 + CONTROLS), 2)
    assert fates(tmp_path) == {"g0.s0": FINISHED, "g0.s1": UNANSWERED}


def test_a_generation_without_an_answer_ends_the_search_and_can_be_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    search = searched(
        tmp_path, transcript(path, [{"key": "g0.s0.a0", "error": "overloaded"}]), Budget(evaluations=60), 2
    )
    assert dump(tmp_path / "found")["stop"][0] == "no answer" and search.standing.folder.exists()
    transcript(path, [reply(f"g{g}.s{s}.a0", document(0.3 + g / 10 + s / 5)) for g in range(3) for s in range(2)])
    go_on(tmp_path / "found")
    assert fates(tmp_path)["g0.s0"] in (FINISHED, PASSED_OVER)


def test_generations_of_nothing_new_end_the_search(tmp_path: Path) -> None:
    replies = [reply(f"g{g}.s{s}.a0", document(0.5)) for g in range(9) for s in range(2)]
    searched(tmp_path, transcript(tmp_path / "t.jsonl", replies), Budget(evaluations=500), 2)
    found = dump(tmp_path / "found")
    assert found["stop"][0] == "nothing new" and len(found["generations"]) == 4


# determinism


@pytest.mark.slow
def test_jobs_and_threads_change_nothing(tmp_path: Path) -> None:
    """Neither how many train at once nor how many are asked at once; the landscape is measured in another order."""
    model = transcript(tmp_path / "t.jsonl", many_replies(6, 4))
    chosen = settings(tmp_path, [model])
    with new(tmp_path / "one", chosen, Budget(evaluations=90)) as search:
        search.proposer.at_once = 1
        search.run()
    with new(tmp_path / "two", chosen, Budget(evaluations=90), place=Place(jobs=3)) as search:
        search.run()
    assert dump(tmp_path / "one") == dump(tmp_path / "two")
    assert len(dump(tmp_path / "one")["generations"]) > 2


def test_another_seed_is_another_search(tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        with new(tmp_path / f"n{len(found)}", settings(tmp_path, ["none"], 2, seed=seed), Budget(hours=1)) as one:
            slots = [one.proposer._proposed(one.proposer.draw(0, s, one._barrier(0)), one._barrier(0)) for s in (0, 1)]
            found.append([slot.document for slot in slots])
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_a_search_in_two_parts_is_the_search_in_one(tmp_path: Path) -> None:
    model = transcript(tmp_path / "t.jsonl", many_replies(9, 4))
    chosen = settings(tmp_path, [model])
    most = Budget(evaluations=CONTROLS + 2 * (8 + 4 + 2))
    with new(tmp_path / "parts", chosen, most) as search:
        search.run()
    go_on(tmp_path / "parts", Budget(evaluations=CONTROLS + 4 * 14))
    with new(tmp_path / "whole", chosen, Budget(evaluations=CONTROLS + 4 * 14)) as search:
        search.run()
    assert dump(tmp_path / "parts") == dump(tmp_path / "whole")
    assert len(dump(tmp_path / "whole")["generations"]) >= 4


@pytest.mark.slow
def test_nothing_is_asked_or_trained_again_when_a_finished_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(tmp_path, transcript(tmp_path / "t.jsonl", many_replies(9, 4)), Budget(evaluations=60))
    before, best = dump(tmp_path / "found"), (tmp_path / "found" / "best.yaml").read_bytes()
    (tmp_path / "t.jsonl").write_text("")
    monkeypatch.setattr("augkit.lab.jobs.map", lambda *args, **more: pytest.fail("something was trained again"))
    go_on(tmp_path / "found")
    assert dump(tmp_path / "found") == before and (tmp_path / "found" / "best.yaml").read_bytes() == best


@pytest.mark.slow
def test_the_best_is_never_lost(tmp_path: Path) -> None:
    """After each generation the best is that of the report, and within a standard error of the highest reward."""
    model = transcript(tmp_path / "t.jsonl", many_replies(9, 4))
    rewards: list[float] = []
    with new(tmp_path / "found", settings(tmp_path, [model]), Budget(evaluations=120)) as search:
        told = search.teller.generation

        def generation(number: int, best: object) -> None:
            told(number, search.standing.best())
            found = search.standing.best()
            assert found is not None and found.stage.name == "full"
            assert found.candidate == search.standing.ranked(search.archive.candidates())[0]
            highest = max(scores_of(search.archive, found.stage).values(), key=lambda one: one.reward)
            assert found.score.reward >= highest.reward - highest.standard_error
            rewards.append(found.score.reward)

        search.teller.generation = generation
        search.run()
    assert len(rewards) > 3 and len(set(rewards)) > 1 and rewards == sorted(rewards)  # all errors are alike here


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2)), min_size=1, max_size=6))
@example([(0.5, 0.03), (0.525, 0.03), (0.55, 0.03)])
def test_the_best_is_the_first_of_the_report(found: list[tuple[float, float]]) -> None:
    with closing(Archive.create(Path(":memory:"), {})) as archive:
        for slot, (reward, error) in enumerate(found):
            name = f"{slot}"
            archive.add_candidate(Candidate(0, slot, "initial", "none", "random", hash=name, document={"augkit": 1}))
            for seed in (0, 1):
                archive.begin_evaluations("full", [(name, seed)])
                archive.finish_evaluation(Evaluation("full", name, seed, "done", reward, error, {}))
        standing = Standing(archive, Path(), STAGES)
        best = standing.best()
        assert best is not None and best.candidate == standing.ranked(archive.candidates())[0]
        highest = max(found)
        assert best.score.reward >= min(reward - error for reward, error in found if reward == highest[0])


# what is refused


def test_a_second_search_in_a_folder_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augkit.lab.folder._PATIENCE", 0.2)
    chosen = settings(tmp_path, ["none"])
    with new(tmp_path / "found", chosen, Budget(hours=1)):
        with pytest.raises(StateError, match="another process is at work in this folder"):
            go_on(tmp_path / "found")
        with pytest.raises(DataError, match="go on with --resume"), new(tmp_path / "found", chosen, Budget(hours=1)):
            pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="not empty"), new(tmp_path / "other", chosen, Budget(hours=1)):
        pass


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["policy=trivialaugment"], "a search sets policy itself"),
        (["data.validation_per_class=5"], "5 reward images of each class cannot rank"),
        (["data.validation=0.1", "data.validation_per_class=0"], "too few images to rank"),
    ],
)
def test_a_recipe_that_cannot_be_searched_on_is_refused(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(AugkitError, match=words):
        settle(recipe(tmp_path), overrides, ["none"])


def test_a_recipe_without_reward_images_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    chosen = settings(tmp_path, ["none"])
    bare = replace(chosen, recipe={**chosen.recipe, "data": {**RECIPE["data"], "validation_per_class": 0}})  # type: ignore[dict-item]
    with pytest.raises(AugkitError, match="no images to reward by"), new(tmp_path / "found", bare, Budget(hours=1)):
        pass
    assert not (tmp_path / "found").exists()


# the real thing


@pytest.mark.slow
def test_chance_searches_on_real_training_and_its_best_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    stages = (Stage("short", 1, 2, keep=1), Stage("warm", 1, 2, warm=True))
    chosen = settings(tmp_path, ["none"], 2, stages)
    budget = Budget(evaluations=2 * 3 * 2 + 2 + 6)
    with processes.forked_workers(), new(tmp_path / "found", chosen, budget, place=Place(minutes=10)) as search:
        stop = search.run()
        facts = search.standing.facts(search.budget)
    assert stop.reason == "evaluations"
    best = facts["best"]
    assert 0 < best["reward"] < 1 and set(best["controls"]) == {"none", "uniform_class_choice", "trivialaugment"}
    assert best["stage"] == "warm" and best["origin"] == "random"
    policy = Policy.load(best["file"], class_counts=[9] * 10, epochs=1)
    images = np.zeros((2, 3, 8, 8), np.uint8)
    import torch

    assert policy(torch.from_numpy(images), torch.zeros(2, dtype=torch.int64))[0].shape == (2, 3, 8, 8)
    archive = Archive.read(tmp_path / "found" / FILE)
    values = [one.value for one in archive.evaluations() if one.state == "done"]
    archive.close()
    assert all(value is not None and {"groups", "intensity", "seconds"} <= value.keys() for value in values)
