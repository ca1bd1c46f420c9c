"""Previews: what a page shows is what the policy draws, at every position of what changes while a model learns."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import Command
from hypothesis import HealthCheck, given, settings
from PIL import Image
from strategies_gen import documents

from augkit.cli import samples as samples_module
from augkit.cli.previews import write_preview
from augkit.cli.samples import sample
from augkit.errors import AugkitError
from augkit.plugins import load_registry, registry
from augkit.policy import Policy
from augkit.report import preview_board
from augkit.report.dials import at_epoch, dials_of
from augkit.report.preview import Samples, draw, picture
from augkit.report.preview_page import page
from augkit.strategy.document import load_strategy

NAMES, COUNTS = ("<b>cats", "dogs", "newts & co"), (7, 500, 30)
PALETTE = ["invert", {"rotate": {"low": 0, "high": 45}}, "posterize"]
LEVEL = {
    "augkit": 1,
    "name": "level",
    "palette": PALETTE,
    "state": {"level": {"axes": ["classes"], "init": 0.25, "clamp": [0, 1]}},
    "pipeline": [{"pick": {"count": 2, "strength": "level[y]"}}],
    "update": [{"at": "epoch_end", "set": {"level": "where(correct > 0.5 * seen, level + 0.1, level - 0.1)"}}],
}


def samples(side: int = 24, each: int = 3) -> Samples:
    """Smooth gradients of three classes, in the order of the class numbers."""
    targets = torch.arange(3).repeat_interleave(each)
    ramp = torch.linspace(0, 200, side)
    images = torch.stack(
        [
            torch.stack(
                [ramp.expand(side, side), ramp[:, None].expand(side, side), 20.0 * (ramp * 0 + i).expand(side, side)]
            )
            for i in range(3 * each)
        ]
    )
    return Samples(images.to(torch.uint8), targets, torch.arange(3 * each) + 100, NAMES, COUNTS)


def maker(source: Any, seed: int = 0, shown: Samples | None = None) -> Callable[[], Policy]:
    strategy, shown = load_strategy(source, registry()), shown or samples()
    facts = {"class_counts": shown.class_counts, "class_names": shown.class_names, "groups": 1, "epochs": 100}
    return lambda: Policy(strategy, **facts, num_samples=sum(shown.class_counts), seed=seed, registry=registry())


def data_of(text: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.+?)</script>', text)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def pixels(text: str) -> dict[int, np.ndarray]:
    """The pictures of a page by their numbers, [S, S, 3]."""
    shown = re.findall(r'<img src="(data:[^"]+)" data-shot="(\d+)"', text)
    held = {**data_of(text)["shots"], **{number: source for source, number in shown}}
    return {
        int(number): np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))
        for number, source in held.items()
    }


def test_a_page_tells_all_and_nothing_in_it_is_markup_or_fetched() -> None:
    text = page(maker("trivialaugment"), samples(), data="my <i>photos", command="augkit preview 'a&b'")
    again = page(maker("trivialaugment"), samples(), data="my <i>photos", command="augkit preview 'a&b'")
    assert again == text and page(maker("trivialaugment", seed=1), samples(), data="my <i>photos") != text
    rows = re.findall(r"<h3>(.+?) <span class=\"small\">(.+?)</span>", text)
    assert rows == [
        ("dogs", "500 training images"),
        ("newts &amp; co", "30 training images"),
        ("&lt;b&gt;cats", "7 training images"),
    ]
    assert text.count("data-at=") == 18 and text.count('as it is"') == 9
    assert "my &lt;i&gt;photos" in text and "augkit preview &#39;a&amp;b&#39;" in text and "<b>" not in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text) and "vegaEmbed = " not in text
    assert "does the same in every epoch" in text and 'type="range"' not in text


def test_every_picture_is_what_the_policy_draws() -> None:
    shown, make = samples(), maker(LEVEL)
    text = page(make, shown)
    (dial,) = data_of(text)["dials"]
    assert (dial["name"], [frame["label"] for frame in dial["frames"]]) == (
        "level",
        ["0", "0.2", "0.4", "0.6", "0.8", "1"],
    )
    held, order = pixels(text), [*range(3, 9), 0, 1, 2]  # dogs, newts, cats
    sorted_samples = Samples(shown.images[order], shown.targets[order], shown.index[order], NAMES, COUNTS)
    for frame in dial["frames"]:
        # a document that begins there draws the same, and again the second draw
        level = float(frame["label"])
        fixed = maker({**LEVEL, "state": {"level": {"axes": ["classes"], "init": level}}})()
        for number in range(2):
            drawn = draw(fixed, sorted_samples)
            mine = slice(9 * number, 9 * number + 9)
            assert tuple(frame["words"][mine]) == drawn.words
            for image, shot in zip(drawn.images, frame["shots"][mine], strict=True):
                assert np.array_equal(held[shot], image.permute(1, 2, 0).numpy())
    words = [frame["words"] for frame in dial["frames"]]
    assert all(a != b for a, b in pairwise(words))
    assert dial["start"] == 1  # the position next to 0.25


def test_a_slider_of_epochs_changes_the_epoch_alone() -> None:
    make = maker("scheduled_trivialaugment")
    (dial,) = data_of(page(make, samples(), epoch=50))["dials"]
    assert [frame["label"] for frame in dial["frames"]] == ["0", "14", "28", "42", "50", "57", "71", "85", "99"]
    assert dial["start"] == 4
    operators = [[words.split()[0] for words in frame["words"]] for frame in dial["frames"]]
    assert all(one == operators[0] for one in operators), "the same operators everywhere, at other strengths"
    assert dial["frames"][0]["words"] != dial["frames"][-1]["words"]


@pytest.mark.parametrize("source", ["trivialaugment", "augmix", "mixup_cutmix", "randaugment"])
def test_who_follows_no_epoch_looks_the_same_in_each(source: str) -> None:
    make, shown = maker(source), samples()
    assert dials_of(make()) == ()
    assert page(make, shown, epoch=0) == page(make, shown, epoch=60)
    assert picture(make(), shown, 0).tobytes() == picture(make(), shown, 60).tobytes()


def names_of(document: dict[str, Any]) -> list[tuple[str, list[str], int]]:
    dials = dials_of(maker(document)())
    return [(dial.name, [place.label for place in dial.positions], dial.start) for dial in dials]


def test_what_can_be_turned() -> None:
    rule = {"at": "epoch_end", "set": {"a": "a + 1"}}
    document = {"augkit": 1, "name": "x", "palette": PALETTE, "update": [rule]}

    def turned(state: dict[str, Any], **pick: Any) -> list[tuple[str, list[str], int]]:
        return names_of({**document, "state": {"a": state}, "pipeline": [{"pick": pick}]})

    whole = turned({"dtype": "int", "init": 1, "clamp": [0, 3]}, count="a")
    assert whole == [("a", ["0", "1", "2", "3"], 1)]
    ((_, labels, start),) = turned({"dtype": "int", "init": 0, "clamp": [0, 60]}, count="a")
    assert (len(labels), labels[0], labels[-1], start) == (12, "0", "60", 0)
    ((_, labels, _),) = turned({"init": 2}, strength="a / 10")  # without a clamp
    assert (labels[0], labels[-1]) == ("0", "4")
    ((_, labels, _),) = turned({"init": 0.2, "clamp": [0.1, 1]}, strength="a")
    assert labels == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    operators = turned({"axes": ["classes", "ops"], "init": 1, "clamp": [0.1, 10]}, weights="a[y]")
    assert operators == [("a", ["as it begins", "invert", "rotate", "posterize"], 0)]
    assert turned({"init": 1}, count=1) == []  # learned, but nothing that is drawn reads it
    still = {**document, "update": [], "state": {"a": {"init": 1}}, "pipeline": [{"pick": {"strength": "a"}}]}
    assert names_of(still) == []
    answers = {**document, "update": [], "pipeline": [{"pick": {"strength": "correct[y] / max(1, seen[y])"}}]}
    ((name, labels, _),) = names_of(answers)
    assert (name, labels[0], labels[-1]) == ("accuracy", "0%", "100%")
    assert [name for name, _, _ in names_of({**LEVEL, "pipeline": [*LEVEL["pipeline"], {"use": "cmo"}]})] == [
        "level", "epoch"
    ]  # fmt: skip


def test_all_weight_on_an_operator_shows_that_operator() -> None:
    state = {"weight": {"axes": ["classes", "ops"], "init": 1, "clamp": [0, 5]}}
    rule = {"at": "epoch_end", "set": {"weight": "weight + used"}}
    pick = [{"pick": {"count": 1, "weights": "weight[y]"}}]
    make = maker({"augkit": 1, "name": "w", "palette": PALETTE, "state": state, "pipeline": pick, "update": [rule]})
    text = page(make, samples())
    for frame in data_of(text)["dials"][0]["frames"][1:]:
        assert {words.split()[0] for words in frame["words"]} == {frame["label"]}
    assert "slider changes weight (one operator after the other)" in text


def test_mixed_labels_are_told() -> None:
    drawn = draw(maker("mixup")(), samples())
    told = [words for words in drawn.words if "; label" in words]
    assert told and all(re.search(r"keeps [\d.]+\); label \d+% .+ and \d+% .+$", words) for words in told)


@pytest.mark.slow
def test_a_page_that_would_be_too_large_shows_less_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, make = samples(), maker({**LEVEL, "pipeline": [{"use": "scheduled_randaugment"}, *LEVEL["pipeline"]]})
    full, told = len(page(make, shown)), []
    for percent in range(80, 5, -10):
        monkeypatch.setattr(preview_board, "MOST_BYTES", full * percent // 100)
        text = page(make, shown)
        assert text.count("data-at=") in (9, 18)
        told.append(re.findall(r"Left out, to keep the page small: (.+?)\.</p>", text))
    steps = ["each image is drawn only once", "the slider has fewer positions", "there is no slider for epoch"]
    assert all(one == steps[: len(one)] for one in told) and {len(one) for one in told} >= {1, 2, 3}
    monkeypatch.setattr(preview_board, "MOST_BYTES", 1000)
    with pytest.raises(AugkitError, match="larger than 5 MB; ask for fewer --images"):
        page(make, shown)


def test_small_images_keep_each_pixel_and_large_ones_are_reduced() -> None:
    small, large = page(maker("none"), samples(24)), page(maker("none"), samples(160, each=1))
    assert "image-rendering: pixelated" in small and "enlarged 4 times without smoothing" in small
    assert "image-rendering: pixelated" not in large and "squares of 160 pixels, reduced to 128" in large
    assert pixels(large)[0].shape == (128, 128, 3)


def test_one_small_image_does_not_make_all_small(tmp_path: Path) -> None:
    for number, side in enumerate([20, 100, 120, 140]):
        Image.new("RGB", (side, side + 9)).save(tmp_path / f"{number}.png")
    assert sample(str(tmp_path)).images.shape == (4, 3, 110, 110)


def test_many_classes_are_shown_from_the_most_frequent_to_the_rarest(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(40), np.arange(1, 41))
    np.savez(tmp_path / "many.npz", train_images=np.zeros((len(labels), 8, 8, 3), np.uint8), train_labels=labels)
    many = sample(str(tmp_path / "many.npz"), count=24, each=2)
    shown = many.targets.tolist()
    assert (len(set(shown)), min(shown), max(shown), len(shown)) == (12, 0, 39, 24)
    text = page(maker("none", shown=many), many)
    counts = [int(count) for count in re.findall(r">(\d+) training image", text)]
    assert counts == sorted(counts, reverse=True) and "24 images of 12 of 40 classes" in text


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Four classes of six images; of dogs two cannot be read, of newts none can, of cats there is none."""
    for number, name in enumerate(("cats", "dogs", "newts", "rats")):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(6 * (name != "cats")):
            Image.new("RGB", (40, 40), (9 * i, 90, 40 * number)).save(tmp_path / "all" / name / f"{i}<i>&.png")
    for path in (*(tmp_path / "all" / "newts").iterdir(), *sorted((tmp_path / "all" / "dogs").iterdir())[:2]):
        path.write_bytes(path.read_bytes()[:60])
    return tmp_path / "all"


def test_the_next_of_the_class_stands_in_for_an_image_that_cannot_be_read(damaged: Path) -> None:
    shown = sample(str(damaged), count=12, each=2)
    assert shown.targets.tolist() == [1, 1, 1, 1, 3, 3, 3, 3]
    assert all(int(shown.images[i, 0, 0, 0]) == 9 * int(name[5]) for i, name in enumerate(shown.names))
    dogs = [name for name in shown.names if name.startswith("dogs/")]
    assert dogs == [f"dogs/{i}<i>&.png" for i in (2, 3, 4, 5)]
    newts = [name for name in shown.unreadable if name.startswith("newts/")]
    assert len(newts) == 6 and set(shown.unreadable) - set(newts) <= {f"dogs/{i}<i>&.png" for i in (0, 1)}
    text = page(maker("none", shown=shown), shown)
    broken = len(shown.unreadable)
    assert f"{broken} images of the {broken + 8} that were tried cannot be read and are left out (" in text
    assert f" and {broken - 5} more); training" in text
    assert "8 images of 2 of 3 classes, each" in text and "1 class has no images: cats." in text
    assert (
        'title="dogs/2&lt;i&gt;&amp;.png">' in text
        and ": 2&lt;i&gt;&amp;.png</figcaption>" in text
        and "<i>" not in text
    )
    assert sample(str(damaged / "rats")).unreadable == () and sample("digits").names == ()


def test_no_more_than_some_are_tried(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "MOST_BROKEN", 3)
    with pytest.raises(AugkitError, match=r"newts/\d.*: the image cannot be read .*, nor can any other of the 4 that"):
        sample(str(damaged / "newts"), count=2)


def test_what_could_not_be_read_is_told_beside_the_page(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("p.html", "p.png"):
        told = write_preview("none", str(damaged), tmp_path / name, images=12, seed=0, epoch=0, size=None)
        assert told["tried"] == told["images"] + told["unreadable"] and len(told["unreadable_files"]) == 5
        assert f"warning: {told['unreadable']} images of the {told['tried']} that" in capsys.readouterr().err
    told = write_preview("none", "digits", tmp_path / "p.html", images=4, seed=0, epoch=0, size=None)
    assert (told["tried"], told["unreadable"], told["unreadable_files"]) == (4, 0, [])
    assert capsys.readouterr().err == ""


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents(load_registry(plugins=False), samples=True))
def test_any_document_can_be_previewed(document: dict[str, Any]) -> None:
    make = maker(document, shown=samples(8, 1))
    for dial in dials_of(make()):
        for place in (dial.positions[0], dial.positions[-1]):
            policy = make()
            place.put(policy)
            assert draw(policy, samples(8, 1)).images.shape[1:] == (3, 8, 8)
    at_epoch(make(), 7)


def test_the_command_writes_a_page_unless_told_otherwise(augkit: Command, tmp_path: Path) -> None:
    done = augkit("preview", "cmo", "--data", "digits", "--images", "4", "--json")
    told = json.loads(done.stdout)
    assert (told["path"], told["strategy"], told["images"], told["size"]) == ("preview.html", "cmo", 4, 32)
    written = (tmp_path / "here" / "preview.html").read_text(encoding="utf-8")
    assert len(written.encode()) == told["bytes"]
    assert "augkit preview cmo --data digits --out preview.html --images 4" in written
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["preview.html"]


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    wrong = {"page.html": "page.html: it cannot be written", "page.jpg": "call it .html for a page", "page": "or .png"}
    for name, sentence in wrong.items():
        with pytest.raises(AugkitError, match=sentence):
            write_preview("none", "digits", tmp_path / name, images=1, seed=0, epoch=0, size=None)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
