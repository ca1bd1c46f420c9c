"""Documents that mean harm end in a clear error, within a second and 200 MB above an imported augkit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import processes
import pytest

from augkit.errors import AugkitError
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.strategy.reading import MAX_BYTES

SECONDS = 1.0
MEGABYTES = 200


def document(**parts: Any) -> str:
    return json.dumps({"augkit": 1, "name": "hostile", "pipeline": [], **parts})


def flip(expression: Any) -> str:
    return document(pipeline=[{"hflip": {"p": expression}}])


def laughs(levels: int = 30) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


MILLION = MAX_BYTES - 200
HOSTILE: dict[str, tuple[str, str]] = {
    "brackets": ("[" * MILLION, "nests more than 32 deep"),
    "braces": ("{a: " * (MILLION // 4), "nests more than 32 deep"),
    "dashes": ("- " * (MILLION // 2), "nests more than 32 deep"),
    "indentation": ("\n".join(" " * n + "a:" for n in range(1000)), "nests more than 32 deep"),
    "questions": ("? " * (MILLION // 2), "a key is a name"),
    "laughs": (laughs(), "anchors are not allowed"),
    "merge": ("a: &a {b: 1}\n<<: *a\n", "anchors are not allowed"),
    "alias": ("augkit: *a\n", "aliases are not allowed"),
    "python tag": ("!!python/object/apply:os.system ['true']", "tags are not allowed"),
    "local tag": ("a: !import x", "tags are not allowed"),
    "binary": ("a: !!binary aGk=", "tags are not allowed"),
    "ten megabytes": ("a: " + "x" * 10_000_000, "at most 1048576 bytes"),
    "items": ("[" + "1," * (MILLION // 2) + "1]", "at most 20000 parts"),
    "keys": ("\n".join(f"k{n}: 1" for n in range(100_000)), "at most 20000 parts"),
    "one scalar": ("a: " + "x" * MILLION, "there is no key"),
    "one key": ("x" * MILLION + ": 1", "this is not YAML"),
    "quoted key": ('"' + "x" * 1000 + '": 1', "there is no key"),
    "comment": ("#" + "x" * MILLION, "the document is empty"),
    "digits": ("augkit: " + "9" * MILLION, "is not a number"),
    "null bytes": ("augkit: 1\0", "this is not YAML"),
    "not a number": ("augkit: .nan", "is not a number"),
    "unfinished": ("{augkit: 1", "this is not YAML"),
    "unknown keys": (document(**{f"kez{n}": 1 for n in range(9000)}), "there is no key"),
    "long unknown key": (document(pipeline=[{"x" * 900: {}}]), "no operator or step"),
    "many faults": (document(palette=["hflap"] * 60), '"hflap"'),
    "many duplicates": ("a: 1\n" * 9000, "was given before"),
    "many operators": (document(palette=["hflip"] * 5000), "at most 64 operators"),
    "more expressions than fit": (flip("1+" * 400_000), "at most 40000 characters together"),
    "many steps": (document(pipeline=["hflip"] * 9000), "at most 512 steps"),
    "many states": (
        document(state={f"s{n}": {"init": f"s{n + 1}"} for n in range(3000)} | {"s3000": {"init": 0}}),
        "at most 64 states",
    ),
    "many rules": (
        document(state={"s": {}}, update=[{"at": "epoch_end", "set": {"s": "s + 1"}}] * 900),
        "at most 64 rules",
    ),
    "many params": (document(params={f"p{n}": 1 for n in range(9000)}), "at most 64 params"),
    "many expressions": (
        document(state={f"s{n}": {"init": "+".join(["epochs"] * 30)} for n in range(60)}, pipeline=[1] * 500),
        "expected a step",
    ),
    "as much to check as fits": (
        document(
            state={f"s{n}": {"init": 1} for n in range(60)},
            update=[{"at": "epoch_end", "set": {f"s{n}": "+".join(["s1"] * 30)}} for n in range(60)],
            pipeline=[{"hflip": {"p": "+".join(["s1"] * 31)}} for _ in range(250)] + ["hflap"],
        ),
        'Did you mean "hflip"?',
    ),
    "as much to read as fits": (
        document(pipeline=[{"hflip": {"p": "1+" * 20 + "x"}} for _ in range(500)] + ["hflap"]),
        'no name "x"',
    ),
    "power tower": (flip("9**9**9**9"), "larger than"),
    "power tower of params": (document(params={"p": 9}, pipeline=[{"hflip": {"p": "p**p**p**p"}}]), "larger than"),
    "huge exponent": (flip("2**1e30"), "larger than"),
    "long sum": (flip("+".join(["1"] * 3000)), "at most 500 parts"),
    "deep expression": (flip("(" * 5000), "32 deep"),
    "deep minus": (flip("-" * 5000), "32 deep"),
    "long expression": (flip("1+" * 10_000), "at most 10000 characters"),
    "dunder": (flip("__class__"), "names begin with a letter"),
    "attribute": (flip("epoch.__class__.__mro__"), "no attributes"),
    "import": (flip("__import__('os').system('true')"), "names begin with a letter"),
    "lambda": (flip("(lambda x)()"), "expected `)`"),
    "comprehension": (flip("[x for x in y]"), "found `[`"),
    "string": (flip("'a' * 10**9"), "no strings"),
    "cyrillic": (flip("\u0435poch"), "U+0435"),
    "full width": (flip("\uff11"), "U+FF11"),
    "right to left": (flip("epoch \u202e 1"), "U+202E"),
    "look-alike operator": (document(pipeline=["hfl\u0456p"]), "no operator or step"),
    "look-alike key": (document(**{"p\u0456peline": []}), "there is no key"),
    "look-alike param": (document(params={"\u0440": 1}), "ASCII letters"),
    "nan literal": (flip("nan"), "is not a number"),
    "infinity": (flip("1e400"), "at most 1e+30"),
    "choose from samples": (
        document(state={"s": {"axes": ["samples"]}}, pipeline=[{"hflip": {"p": "sum(s * y, over=samples)"}}]),
        "too large",
    ),
    "use of itself": (document(pipeline=[{"use": "./hostile.yaml"}]), "in a circle"),
    "use of a device": (document(pipeline=[{"use": "/dev/zero"}]), "must be relative"),
    "use above": (document(pipeline=[{"use": "../../../../etc/passwd"}]), "must be relative"),
    **{
        f"{name} {options}": (document(pipeline=[{name: options}]), said)
        for name, options, said in (
            ("albumentations:MotionBlur", {"blur_limit": [15001, 15001]}, "numbers here go to 63"),
            ("albumentations:GlassBlur", {"iterations": 2000}, "numbers here go to 8"),
            ("albumentations:GridElasticDeform", {"num_grid_xy": [100000, 100000], "magnitude": 10}, "go to 32"),
            ("albumentations:ZoomBlur", {"max_factor": 2, "step_factor": 1e-9}, "numbers here begin at 0.005"),
            ("albumentations:CropAndPad", {"percent": 60}, "numbers here go to 4"),
            ("albumentations:AdditiveNoise", {"noise_params": {"std_range": [[[1e9]]]}}, "numbers here go to 64"),
            ("kornia:RandomMotionBlur", {"kernel_size": 5001, "angle": 35.0, "direction": 0.5}, "go to 63"),
            ("kornia:RandomElasticTransform", {"kernel_size": [40001, 40001]}, "numbers here go to 63"),
            ("kornia:RandomMedianBlur", {"kernel_size": [63, 63]}, "numbers here go to 7"),
            ("torchvision:RandomZoomOut", {"side_range": [1, 1e4]}, "numbers here go to 8"),
            ("torchvision:AugMix", {"mixture_width": 1024, "chain_depth": 64}, "numbers here go to 8"),
            ("torchvision:GaussianBlur", {"kernel_size": 9999}, "numbers here go to 63"),
        )
    },
    "expressions in options": (
        document(palette=[{"kornia:RandomAffine": {"degrees": ["+".join(["1"] * 300)] * 24}}] * 64),
        "at most 40000 characters together",
    ),
    "count": (document(palette=["hflip"], pipeline=[{"pick": {"count": 1e9, "replace": True}}]), "at most 64"),
    "many great picks": (
        document(palette=["jigsaw", "invert"], pipeline=[{"pick": {"count": 64, "replace": True}}] * 512),
        "an image can draw 32,768 operators, at most 1,024 are possible: 32,768 in pipeline",
    ),
    "many branches in many views": (
        document(
            palette=["invert"], views={"v": {"times": 16, "steps": ["hflip", {"branches": {"width": 16, "depth": 4}}]}}
        ),
        "1,040 in views.v, 16 times 65",
    ),
    "many great picks to choose from": (
        document(palette=["invert"], pipeline=[{"one_of": [{"pick": {"count": 64, "replace": True}}] * 17}]),
        "1,088 in pipeline",
    ),
    "many alternatives of nothing": (document(pipeline=[{"one_of": [[]] * 9000}]), "at most 512 steps"),
    "many mixes": (document(pipeline=[{"batch": ["mixup"] * 2000}]), "at most 512 steps"),
    "many uses": (
        document(pipeline=[{"use": {"name": "randaugment", "params": {"m": n}}} for n in range(400)]),
        "uses at most 64 others",
    ),
    "many great strings": (
        document(pipeline=[{"use": f"rand-m{15 + n}-mmax20-n18"} for n in range(300)]),
        "at most 512 steps",
    ),
    "a great string": (document(pipeline=[{"use": "rand-m15-mmax20-n20000"}]), '"n20000" is more than the 64'),
    "a long number in a string": (document(pipeline=[{"use": "rand-m" + "9" * 400}]), "more than 6 digits"),
}

SCRIPT = """
import gc, json, resource, sys, time
from augkit.errors import AugkitError
from augkit.plugins import load_registry
from augkit.strategy.document import load_strategy
registry = load_registry(plugins=False)
load_strategy("randaugment", registry)
for name in ("kornia:RandomHorizontalFlip", "albumentations:HorizontalFlip", "torchvision:RandomHorizontalFlip"):
    load_strategy({"augkit": 1, "name": "imports", "pipeline": [name]}, registry)  # an import takes seconds
gc.freeze()  # and leaves objects that collections would go through again and again
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {}
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        load_strategy(path, registry)
        message = "it loaded"
    except AugkitError as error:
        message = str(error)
    found[path] = message[:20000], len(message), time.process_time() - start
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"grown": grown, "found": found}))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, server: None) -> dict[str, Any]:
    """All hostile documents through one process of their own, which measures itself."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = {}
    for number, (name, (text, _)) in enumerate(HOSTILE.items()):
        inside = folder / str(number)
        inside.mkdir()
        paths[str(inside / "hostile.yaml")] = name
        (inside / "hostile.yaml").write_text(text, encoding="utf-8")
    script, logs = folder / "script.py", folder / "logs"
    script.write_text(SCRIPT, encoding="utf-8")
    logs.mkdir()
    done = processes.run_script(script, [*paths], folder, logs)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return {"grown": result["grown"], **{paths[path]: found for path, found in result["found"].items()}}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_at_once(name: str, outcome: dict[str, Any]) -> None:
    message, length, seconds = outcome[name]
    assert HOSTILE[name][1] in message
    assert seconds < SECONDS
    assert length < 60_000, "an error is for reading"


def test_hostile_documents_take_little_memory(outcome: dict[str, Any]) -> None:
    assert len(outcome) == len(HOSTILE) + 1 > 50
    assert outcome["grown"] < MEGABYTES


def test_mappings_that_contain_themselves(registry: Registry) -> None:
    data: dict[str, Any] = {"augkit": 1, "name": "x", "pipeline": []}
    data["pipeline"].append({"one_of": data["pipeline"]})
    with pytest.raises(AugkitError, match="nests at most 32 deep"):
        load_strategy(data, registry)


def test_many_documents_that_use_each_other(tmp_path: Path, registry: Registry) -> None:
    """A pyramid of documents, each using the one below 100 times over, is counted and not expanded."""
    for level in range(7):
        steps = [{"use": f"{level - 1}.yaml"}] * 100 if level else ["hflip"]
        text = json.dumps({"augkit": 1, "name": f"l{level}", "pipeline": steps})
        (tmp_path / f"{level}.yaml").write_text(text)
    with pytest.raises(AugkitError, match="at most 512 steps"):
        load_strategy(tmp_path / "6.yaml", registry)
    (tmp_path / "0.yaml").write_text(document())  # nothing a hundred times over, at every level
    with pytest.raises(AugkitError, match="at most 512 steps"):
        load_strategy(tmp_path / "6.yaml", registry)


def test_as_many_operators_as_are_possible(tmp_path: Path, registry: Registry) -> None:
    """16 views of 16 chains of 4 are 1,024; one more, wherever it is, is too many."""
    most = {
        "palette": ["invert"],
        "views": {"v": {"times": 16, "steps": [{"branches": {"width": 16, "depth": 4}}]}},
    }
    assert load_strategy(json.loads(document(**most)), registry).views["v"].times == 16
    (tmp_path / "most.yaml").write_text(document(**most))
    probe = {"upto": 3, "samples": 1, "steps": ["hflip"]}
    more = [
        {**most, "pipeline": ["hflip"]},
        {"pipeline": ["hflip", {"use": "most.yaml"}]},
        {**most, "probes": {"q": probe}},
    ]
    for number, parts in enumerate(more):
        (tmp_path / f"{number}.yaml").write_text(document(**parts))
        with pytest.raises(AugkitError, match="an image can draw 1,025 operators, at most 1,024 are possible"):
            load_strategy(tmp_path / f"{number}.yaml", registry)
