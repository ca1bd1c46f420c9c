"""The command line, as a person meets it: in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from fixtures import Command
from PIL import Image

from augkit.cli.docs import commands_page, write
from augkit.policy import Policy
from augkit.registry import Registry
from augkit.report.preview import title_of

GOOD = """\
augkit: 1
name: good
palette: [hflip, {rotate: {low: 0, high: 20}}]
pipeline:
  - pick: {count: 1}
"""
BAD = """\
augkit: 1
name: bad
palette: [hflip, rotat]
pipeline:
  - pick: {count: 1}
"""
WRONG_AXIS = """\
augkit: 1
name: wrong_axis
palette: [hflip, rotate]
state:
  weight: {axes: [classes, ops], init: 1}
pipeline:
  - pick: {p: weight, count: 1}
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six pictures: gradients, so that every operator shows."""
    folder = tmp_path / "photos"
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    for label, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            picture = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], np.uint8(40 * i + 20 * label)), axis=-1)
            Image.fromarray(np.ascontiguousarray(picture)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.slow
def test_the_help_of_every_verb_teaches_by_an_example(augkit: Command) -> None:
    overview = augkit("--help").stdout
    verbs = re.findall(r"^  (\w+)  +\S", overview.partition("Commands:")[2], re.MULTILINE)
    assert len(verbs) >= 13  # and those of plugins
    shown = dict(re.findall(r"^## augkit (.+?)\n\n```\n(.+?)^```$", commands_page(), re.MULTILINE | re.DOTALL))
    inner = {verb for verb in shown if " " in verb}
    over = {verb.partition(" ")[0] for verb in inner}
    assert set(shown) == {*verbs, *inner} and "plugin new" in inner and over <= set(verbs)
    for verb in shown.keys() - over:
        assert f"\n      augkit {verb}" in shown[verb]


def test_reference_pages_are_written_from_what_is_registered(tmp_path: Path, registry: Registry) -> None:
    pages = {page.name: page.read_text() for page in write(tmp_path / "site")}
    assert set(pages) == {"operators.md", "strategies.md", "command-line.md", "strategy.schema.json"}
    assert all(f"| {name} | " in pages["operators.md"] for name in registry.operators)
    assert all(f"## {name}\n" in pages["strategies.md"] for name in registry.strategies)


def test_version(augkit: Command) -> None:
    assert augkit("--version").stdout == "augkit 0.1.0\n"
    command = [sys.executable, "-m", "augkit", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "augkit 0.1.0\n"


@pytest.mark.slow
def test_lists_and_their_json_tell_the_same(augkit: Command, registry: Registry) -> None:
    kinds = {"operators": "name", "policies": "policy", "losses": "loss", "answers": "answer", "recipes": "recipe"}
    kinds |= {"samplers": "sampler", "subsets": "chooser", "stages": "stage", "palettes": "palette"}
    for verb, key in kinds.items():
        known = set(getattr(registry, verb if verb != "policies" else "strategies"))
        listed, machine = augkit(verb), augkit(verb, "--json")
        rows = json.loads(machine.stdout)
        assert (listed.returncode, machine.returncode) == (0, 0)
        assert {row[key] for row in rows} >= known
        assert all(row["from"] for row in rows)
        assert {line.split()[0] for line in listed.stdout.splitlines()[1:]} == {row[key] for row in rows}
        assert "cannot be used" not in listed.stdout
    rotate = next(row for row in json.loads(augkit("operators", "--json").stdout) if row["name"] == "rotate")
    assert (rotate["low"], rotate["high"], rotate["unit"], rotate["signed"]) == (0, 30, "degrees", True)


TWICE = """
import os
from augkit.cli import main
try:
    main(["losses"])
except SystemExit:
    print("--no colour--", flush=True)
os.environ["NO_COLOR"] = "1"
main(["losses"])
"""


@pytest.mark.slow
def test_colour_only_on_a_terminal(augkit: Command) -> None:
    assert "\x1b[" not in augkit("losses").stdout
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    done = subprocess.Popen([sys.executable, "-c", TWICE], stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says so when the other end is closed
        pass
    assert done.wait(timeout=60) == 0
    colourful, plain = shown.split(b"--no colour--")
    assert b"\x1b[36m" in colourful and b"balanced_softmax" in colourful
    assert not re.search(rb"\x1b\[[39]\dm", plain) and b"balanced_softmax" in plain


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m augkit.cli operators | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("operator") and "Traceback" not in done.stderr


def test_validate(augkit: Command, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(BAD)
    fine = augkit("validate", good)
    assert fine.returncode == 0 and re.search(
        r"good\.yaml: valid, strategy good, hash [0-9a-f]{12}$", fine.stdout.strip()
    )
    both = augkit("validate", bad, good)
    assert both.returncode == 2
    assert f"{good}: valid" in both.stdout
    (line,) = both.stderr.splitlines()
    assert line.startswith(f"error: {bad}:3: ") and "rotat" in line and 'Did you mean "rotate"?' in line


def test_validate_takes_names_too(augkit: Command) -> None:
    done = augkit("validate", "randaugment", "rand-m9-mstd0.5", "randaugmint", "timm15")
    assert done.returncode == 2
    assert re.findall(r"^(\S+): valid", done.stdout, re.MULTILINE) == ["randaugment", "rand-m9-mstd0.5"]
    one, two = done.stderr.splitlines()
    assert 'Did you mean "randaugment"?' in one and "timm15 is a palette" in two


def test_palettes_are_listed_with_their_ranges(augkit: Command) -> None:
    lines = {line.split()[0]: line for line in augkit("palettes").stdout.splitlines()}
    assert "posterize 8..4; solarize 256..0" in lines["randaugment14"] and "rotate +-0..30" in lines["randaugment14"]
    assert "motion_blur" in lines["imagenet_c"]


def test_validate_a_recipe(augkit: Command, tmp_path: Path, registry: Registry) -> None:
    assert "valid, recipe demo" in augkit("validate", "--recipe", registry.recipes["demo"]).stdout
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("augkit: 1\nname: mine\ndata: digits\nmodel: resnet8_cifar\nepoch: 3\n")
    failed = augkit("validate", "--recipe", recipe)
    assert failed.returncode == 2 and f"{recipe}:5" in failed.stderr and "epochs" in failed.stderr


def test_a_script_reads_what_is_wrong_with_a_document(augkit: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    done = augkit("validate", tmp_path / "bad.yaml", "randaugment", "--json")
    wrong, right = json.loads(done.stdout)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    (problem,) = wrong["problems"]
    assert not wrong["valid"] and (problem["line"], problem["path"]) == (3, "palette[1]")
    assert problem["file"] == str(tmp_path / "bad.yaml") and "rotat" in problem["message"]
    assert right["valid"] and right["name"] == "randaugment" and len(right["hash"]) == 64
    shown = json.loads(augkit("show", "randaugment", "--json").stdout)
    assert shown["hash"] == right["hash"] and "each image:" in shown["words"]
    made = json.loads(augkit("plugin", "new", "augkit-mist", "--json").stdout)
    assert made == {"folder": "augkit-mist", "distribution": "augkit-mist", "operator": "mist", "strategy": "mist"}


def test_schema_knows_what_is_installed(augkit: Command) -> None:
    schema = json.loads(augkit("schema").stdout)
    text = json.dumps(schema)
    assert all(f'"{name}"' in text for name in ("rotate", "pick", "pipeline", "randaugment"))


def test_show_tells_the_operators(augkit: Command, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    for source, word in ((tmp_path / "good.yaml", "rotate"), ("trivialaugment", "posterize")):
        shown = augkit("show", source)
        assert shown.returncode == 0 and word in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["trivialaugment", "uniform_class_choice", "mixup_cutmix", "augmix", "rand-m9-n3"])
def test_preview_draws_a_grid(policy: str, augkit: Command, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "preview.png"
    done = augkit("preview", policy, "--data", photos, "--out", out, "--images", "10", "--seed", "1")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{out}\n")
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1100 and pixels.shape[0] > 700  # six or eight columns, two rows or more
    again = tmp_path / "again.png"
    augkit("preview", policy, "--data", photos, "--out", again, "--images", "10", "--seed", "1")
    assert again.read_bytes() == out.read_bytes()
    other = tmp_path / "other.png"
    augkit("preview", policy, "--data", photos, "--out", other, "--images", "10", "--seed", "2")
    assert other.read_bytes() != out.read_bytes()


@pytest.mark.slow
def test_preview_of_a_later_epoch(augkit: Command, photos: Path, tmp_path: Path) -> None:
    for epoch in ("0", "50"):
        done = augkit("preview", "cmo", "--data", photos, "--out", tmp_path / f"{epoch}.png", "--epoch", epoch)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "50.png").read_bytes()


def test_a_preview_in_which_nothing_happens_says_so() -> None:
    policy = Policy.load("cmo", class_counts=[50, 20], epochs=10)
    targets, images = torch.arange(40) % 2, torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    plan = policy.plan(targets, images=images)
    assert title_of(policy, plan, 8).endswith("epoch 0, where nothing was drawn: try a later one")
    policy.epoch, policy.began = 5, False
    assert title_of(policy, policy.plan(targets, images=images), 8).endswith("; epoch 5")
    still = Policy.load("none")
    assert title_of(still, still.plan(targets), 8).endswith("after below")


def test_preview_of_a_flat_folder(augkit: Command, photos: Path, tmp_path: Path) -> None:
    done = augkit(
        "preview", "randaugment", "--data", photos / "cats", "--out", "p.png", "--images", "3", "--size", "64"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "p.png").stat().st_size > 1000


@pytest.fixture
def wrong(tmp_path: Path, photos: Path) -> Path:
    """A folder full of things that do not do."""
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "axis.yaml").write_text(WRONG_AXIS)
    (tmp_path / "torn.yaml").write_text("augkit: 1\nname: [torn\n")
    (tmp_path / "corrupt").mkdir()
    (tmp_path / "corrupt" / "a.png").write_bytes((photos / "cats" / "0.png").read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    shutil.copytree(photos, tmp_path / "domains" / "art")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    return tmp_path


WRONG = {
    "missing file": ("validate {}/none.yaml", "none.yaml"),
    "missing file shown": ("show {}/none.yaml", "none.yaml"),
    "unknown operator": ("validate {}/bad.yaml", 'Did you mean "rotate"?'),
    "wrong axis": ("validate {}/axis.yaml", "pipeline[0].pick.p"),
    "torn document": ("validate {}/torn.yaml", "torn.yaml:"),
    "not a document": ("validate {}/corrupt/a.png", "a.png"),
    "a folder as document": ("validate {}/empty", "empty"),
    "unknown policy": ("show trivialaugmnt", 'Did you mean "trivialaugment"?'),
    "policy that was only begun": ("show triv", 'there is no strategy "triv". Did you mean "trivialaugment"?'),
    "operator, nearly, as policy": ("show rotat", 'Did you mean "rotate"? That is an operator, not a strategy.'),
    "operator as policy": ("show rotate", "rotate is an operator, not a strategy; write it as a step"),
    "unknown policy previewed": ("preview trivialaugmnt --data {}/photos", 'Did you mean "trivialaugment"?'),
    "corrupt image": ("preview randaugment --data {}/corrupt", "corrupt/a.png: the image cannot be read"),
    "one image": (
        "preview randaugment --data {}/photos/cats/0.png",
        "0.png: this is one image; give the folder it is in",
    ),
    "a level too high": (
        "preview randaugment --data {}/domains",
        'such as "cats": give the folder whose own folders hold the images of one class each',
    ),
    "a slip in a folder": ("preview randaugment --data {}/fotos/", 'fotos/" (did you mean "'),
    "an argument for --set": ("train demo policy=randaugment", "write --set policy=randaugment"),
    "an argument without a verb for it": ("operators rotat", "augkit operators takes no names"),
    "no image": ("preview randaugment --data {}/empty", "empty: no image file"),
    "no data": ("preview randaugment --data {}/nowhere", "nowhere"),
    "unwritable out": ("preview randaugment --data {}/photos --out {}/bad.yaml/p.png", "bad.yaml"),
    "unknown picture": ("preview randaugment --data {}/photos --out p.xyz", "call it .html for a page"),
    "unknown recipe": ("train dem", 'Did you mean "demo"?'),
    "unknown policy trained": ("train demo --set policy=trivialaugmnt", 'Did you mean "trivialaugment"?'),
    "unwritable run": ("train demo --out {}/bad.yaml/run", "bad.yaml"),
    "unknown setting": ("train demo --set epoch=3", "epoch"),
    "torn setting": ("train demo --set epochs=[1", "--set epochs=[1: this is not YAML"),
    "recipe as strategy": ("validate demo", "demo is a recipe, not a strategy; add --recipe"),
    "strategy as recipe": ("validate --recipe randaugment", "randaugment is a strategy, not a recipe; leave out"),
    "no policy to compare": ("compare demo --policy ,", "--policy names no policy"),
    "no run at all": ("robustness {}/empty", "there is no run folder here"),
    "unwritable plugin": ("plugin new augkit-mist --out /proc/mist", "choose another with --out"),
    "unknown verb": ("opertors", "opertors"),
    "unknown option": ("operators --jsn", "--jsn"),
    "negative seed": ("preview randaugment --data digits --seed -1", "--seed"),
    "plugin with a bad name": ("plugin new Fog!", '"Fog!" is no name for a distribution'),
    "plugin with a taken name": ("plugin new augkit-rotate", '"rotate" is already brought by augkit'),
    "plugin over a folder": ("plugin new augkit-mist --out {}/full", "full already exists"),
    "plugin like a module": ("plugin new json", 'already called "json"'),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_status_2(case: str, augkit: Command, wrong: Path) -> None:
    command, expected = WRONG[case]
    done = augkit(*command.replace("{}", str(wrong)).split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout
    complaints = [line for line in done.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(complaints) == 1 and expected in complaints[0], done.stderr
    if case not in ("unknown verb", "unknown option", "negative seed"):  # those come with the verb's usage
        assert done.stderr.splitlines() == complaints


@pytest.mark.slow
def test_training_ends_with_its_accuracy_and_folder(augkit: Command) -> None:
    told = [part for setting in ("epochs=1", "data.image_size=8", "seed=3") for part in ("--set", setting)]
    for resume in ([], ["--resume"]):
        done = augkit("train", "demo", *told, *resume)
        assert done.returncode == 0, done.stderr
        accuracy, folder = done.stdout.splitlines()
        assert re.fullmatch(r"runs/demo-none-seed3-[0-9a-f]{8}", folder)
        facts = json.loads(augkit("train", "demo", *told, "--resume", "--json").stdout)
        assert facts["folder"] == folder and 0 <= facts["test"]["all"] <= 1
        assert re.fullmatch(
            r"test accuracy after the last epoch: all [\d.]+%  many (absent|[\d.]+%)  medium [\d.]+%  few [\d.]+%",
            accuracy,
        )


def test_debug_shows_the_traceback(augkit: Command) -> None:
    done = augkit("show", "trivialaugmnt", AUGKIT_DEBUG="1")
    assert done.returncode == 1 and "Traceback" in done.stderr


INTERRUPTED = {
    "train demo --set epochs=500 --out {}": (
        "checkpoint.pt",
        "go on from the last checkpoint with: augkit train demo --set epochs=500 --out {} --resume",
    ),
    "demo --out {}": ("none-seed0/checkpoint.pt", "the same command goes on: augkit demo --out {}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", INTERRUPTED)
def test_an_interrupted_training_says_how_to_go_on(command: str, tmp_path: Path, server: None) -> None:
    out = tmp_path / "run"
    checkpoint, told = INTERRUPTED[command]
    running = processes.Command(command.format(out).split(), tmp_path, os.environ, tmp_path)
    deadline = time.monotonic() + 90
    while not (out / checkpoint).exists() and running.process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(running.process.pid or 0, signal.SIGINT)
    ended = running.end(120)
    assert (out / checkpoint).exists() and ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == f"error: interrupted; {told.format(out)}"


WHILE_IMPORTING = """
import os, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
from augkit.cli import main
main(["operators"])
"""


def test_ctrl_c_before_a_verb_has_begun_ends_it_without_a_word() -> None:
    done = subprocess.run([sys.executable, "-c", WHILE_IMPORTING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
