"""The benchmarks run, check what they compare, and make their page. No timings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import harness  # noqa: E402
import page  # noqa: E402
import torch  # noqa: E402


def script(name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow(10)
def test_a_quick_run_becomes_a_page_and_a_picture(tmp_path: Path) -> None:
    found, text, picture = (tmp_path / name for name in ("found.json", "page.md", "picture.svg"))
    script("run.py", "--quick", "--only", "jitter-32", "operator-invert-32", "plan-jitter", "--out", str(found))
    results = json.loads(found.read_text())
    assert {"machine", "policies", "operators", "plans"} <= results.keys()
    assert {row["name"] for row in results["policies"]} >= {
        "augkit",
        "Kornia",
        "albumentations",
        "torchvision on Pillow",
    }
    assert {"augkit, batched", "augkit, opencv"} <= {row["name"] for row in results["policies"]}
    text.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    for _ in range(2):  # filling a filled page changes nothing
        script("page.py", str(found), "--page", str(text), "--picture", str(picture))
        once = text.read_text()
    assert text.read_text() == once
    ours = next(row for row in results["policies"] if row["name"] == "augkit")
    assert f"| augkit | {ours['images_per_second']:,.0f} |" in once
    assert "<svg" in picture.read_text()


def test_every_block_of_the_page_is_known() -> None:
    named = {match.group(2) for match in page.MARKED.finditer((ROOT / "docs" / "benchmarks.md").read_text())}
    assert named == set(page.BLOCKS)


def test_a_page_that_names_an_unknown_block_is_refused() -> None:
    with pytest.raises(SystemExit, match="nonsense"):
        page.fill("<!-- measured: nonsense -->\n<!-- end -->", {})


def test_a_page_says_where_augkit_is_behind() -> None:
    rows = [
        {"case": "x", "title": "X", "size": 32, "batch": 4, "name": name, "draws": draws, "images_per_second": speed}
        for name, draws, speed in (("augkit", "image", 10.0), ("A", "image", 20.0), ("B", "batch", 90.0))
    ]
    text = page.policies({"policies": rows})
    assert "behind in 1 of 1: X at 32 px (A)" in text
    assert "**0.50** (A)" in text


def test_contenders_take_turns_evenly() -> None:
    order: list[str] = []

    def contender(name: str) -> harness.Contender:
        return harness.Contender(lambda: order.append(name) or torch.empty(0))

    ticks = iter(range(10**6))
    times = harness.measure({"a": contender("a"), "b": contender("b")}, 20.0, most=7, clock=lambda: next(ticks))
    assert [len(found) for found in times.values()] == [7, 7]
    assert order[2:] == ["a", "b"] * 7


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.zeros(2, 3, 4, 5), "[2, 3, 4, 5]"),
        (torch.full((2, 3, 4, 4), float("nan")), "finite"),
        (torch.rand(2, 3, 4, 4) * 255, "not normalised"),
    ],
)
def test_a_contender_that_does_other_work_is_refused(result: torch.Tensor, message: str) -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    with pytest.raises(harness.Unequal) as refused:
        harness.changed(harness.Contender(lambda: result), images)
    assert message in str(refused.value)


def test_images_that_did_not_change_are_noticed() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (harness.MEAN, harness.STD))
    plain = (images / 255 - mean) / std
    half = harness.Contender(lambda: torch.cat([plain[:2], -plain[2:]]))
    assert harness.changed(half, images) == 0.5
    with pytest.raises(harness.Unequal, match="only 50%"):
        harness.changed(half, images, least=0.6, calls=3)


def test_every_operator_is_compared_or_has_no_peer() -> None:
    import operators

    from augkit.operators import ALL

    names = {operator.name for operator in ALL}
    assert names == operators.TABLE.keys() | operators.WITHOUT_PEER
    assert not operators.TABLE.keys() & operators.WITHOUT_PEER
