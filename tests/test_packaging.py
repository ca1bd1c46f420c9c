"""What is installed, what is pinned, and torchvision beside any torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from fixtures import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from augkit.errors import DocumentError
from augkit.registry import Registry
from augkit.strategy.document import load_strategy
from augkit.torchvision_compat import nms


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in found.items()}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    """What augkit asks for beside its own extras."""
    found = [Requirement(text) for text in importlib.metadata.requires("augkit") or ()]
    return [requirement for requirement in found if requirement.name != "augkit"]


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("augkit")
    assert metadata["Name"] == "augkit"
    assert metadata["License-Expression"] == "Apache-2.0"
    supported = SpecifierSet(metadata["Requires-Python"])
    assert [minor for minor in range(8, 16) if f"3.{minor}.5" in supported] == [10, 11, 12, 13]
    assert {"dev", "tensorboard", "ray"} <= set(metadata.get_all("Provides-Extra") or ())
    scripts = importlib.metadata.entry_points(group="console_scripts", name="augkit")
    assert [script.value for script in scripts] == ["augkit.cli:main"]


def test_torch_has_a_lower_bound_only() -> None:
    torch_bound = next(r for r in requirements() if r.name == "torch")
    assert [clause.operator for clause in torch_bound.specifier] == [">="]


def test_every_requirement_is_pinned_to_a_version_it_allows() -> None:
    pinned = pins()
    assert len(requirements()) > 20
    for requirement in requirements():
        assert normal(requirement.name) in pinned, f"{requirement.name} is missing from constraints.txt"
        assert pinned[normal(requirement.name)] in requirement.specifier


def test_no_host_is_named() -> None:
    files = ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run", ".github/workflows/ci.yml"]
    for file in files:
        assert not re.search(r"index-url|find-links|https?://", (REPOSITORY / file).read_text()), file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """augkit's own wheel, built from a copy so that no build folder is left behind."""
    work = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY / "augkit", work / "source" / "augkit", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, work / "source")
    return build(work / "source", work)


def build(source: Path, target: Path) -> Path:
    """The wheel of a distribution, made with nothing from elsewhere."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, timeout=300)
    (made,) = target.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_every_file(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    folder = REPOSITORY / "augkit"
    kept = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert len(kept) > 60
    assert {str(path.relative_to(REPOSITORY)) for path in kept} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)


def run_in(folder: Path, *command: str | Path) -> str:
    """What a command says that must succeed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


INSTALL = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed")


def site_of(environment: Path) -> Path:
    """Where it has its packages."""
    (site,) = environment.glob("lib/python*/site-packages")
    return site


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that has augkit's wheel. Libraries come from this environment, pip too, after what is installed
    in the new one, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("environment")
    run_in(folder, sys.executable, "-m", "venv", "--without-pip", "fresh")
    (site_of(folder / "fresh") / "libraries.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    run_in(folder, folder / "fresh/bin/python", *INSTALL, wheel)
    return folder / "fresh"


def said_by(folder: Path, python: Path, *commands: list[str]) -> list[str]:
    """What commands of augkit say that must succeed, one after another in one process of that Python."""
    code = """
import json, sys
from typer.testing import CliRunner
from augkit.cli.app import build
results = [CliRunner().invoke(build(), words) for words in json.loads(sys.argv[1])]
assert all(result.exit_code == 0 for result in results), [result.output for result in results]
print(json.dumps([result.output for result in results]))
"""
    said: list[str] = json.loads(run_in(folder, python, "-c", code, json.dumps(commands)))
    return said


@pytest.mark.slow(15)
def test_a_new_plugin_builds_installs_and_works_in_a_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        return run_in(tmp_path, *command)

    run(sys.executable, "-m", "augkit.cli", "plugin", "new", "augkit-mist", "--out", "mist")
    python, command, site = fresh / "bin/python", fresh / "bin/augkit", site_of(fresh)
    run(python, *INSTALL, build(tmp_path / "mist", tmp_path))

    assert re.search(r"^augkit-mist 0\.1\.0 +1 operators, 1 strategies$", run(command, "plugins"), re.MULTILINE)
    operators, shown = said_by(tmp_path, python, ["operators"], ["show", "mist"])
    assert re.search(r"^mist +opaque +0\.\.0\.5 share of white .*augkit-mist 0\.1\.0$", operators, re.MULTILINE)
    assert "mist" in shown
    code = """
import torch, augkit, augkit_mist
from augkit import Policy
print(augkit.__file__, augkit_mist.__file__)
images = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
result, _ = Policy.load("mist", seed=3)(images, torch.zeros(64, dtype=torch.int64))
white = (result > 0).flatten(1).any(1).float().mean()
assert 0.1 < white < 0.6, white
"""
    assert all(Path(path).is_relative_to(site) for path in run(python, "-c", code).split())
    own_tests = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "mist")
    assert "3 passed" in own_tests


OWN_PLUGINS = {
    "augkit-cuda": ("bcl_views_cuda", "cuda", "cuda_agnostic", "cuda_monotone", "cuda_online"),
    "augkit-diffusion": ("domain_mixup",),
    "augkit-doda": ("doda", "doda_uniform"),
    "augkit-llm": (),
}


def test_every_plugin_is_a_distribution_of_its_own() -> None:
    folders = sorted(path.parent for path in (REPOSITORY / "plugins").glob("*/pyproject.toml"))
    assert set(OWN_PLUGINS) <= {folder.name for folder in folders}
    for folder in folders:
        assert (folder / "LICENSE").read_text() == (REPOSITORY / "LICENSE").read_text()
        assert (folder / "README.md").is_file() and list((folder / "tests").glob("test_*.py"))


@pytest.mark.slow(15)
def test_our_plugins_build_and_install_beside_augkit(fresh: Path, tmp_path: Path) -> None:
    python, command, site = fresh / "bin/python", fresh / "bin/augkit", site_of(fresh)
    wheels = []
    for name in OWN_PLUGINS:
        source = tmp_path / "source" / name
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / "plugins" / name, source, ignore=ignore)
        kept = {str(path.relative_to(source / "src")) for path in (source / "src").rglob("*.*") if path.is_file()}
        (tmp_path / name).mkdir()
        wheels.append(build(source, tmp_path / name))
        assert any(file.endswith(".yaml") for file in kept)
        assert kept <= set(zipfile.ZipFile(wheels[-1]).namelist())
    run_in(tmp_path, python, *INSTALL, *wheels)
    modules = [name.replace("-", "_") for name in OWN_PLUGINS]
    code = f"import {', '.join(modules)}; print({', '.join(f'{module}.__file__' for module in modules)})"
    assert all(Path(path).is_relative_to(site) for path in run_in(tmp_path, python, "-c", code).split())
    listed = run_in(tmp_path, command, "policies", "--json")
    for distribution, names in OWN_PLUGINS.items():
        assert listed.count(f'"from": "{distribution} 0.1.0"') == len(names)
    strategies = [name for names in OWN_PLUGINS.values() for name in names]
    options = {"levels": "--state", "write": "--llm", "search": "--evaluations", "synth": "plan"}
    commands = [["show", name] for name in strategies] + [[verb, "--help"] for verb in options]
    told = said_by(tmp_path, python, *commands)
    for (first, second), said in zip(commands, told, strict=True):
        assert said.startswith(f"{second}: ") if first == "show" else options[first] in said


@pytest.mark.parametrize("name", [name for names in OWN_PLUGINS.values() for name in names])
def test_where_a_plugin_is_missing_its_strategies_are_known_by_name(name: str, registry: Registry) -> None:
    distribution = next(d for d, names in OWN_PLUGINS.items() if name in names)
    told = rf'^there is no strategy "{name}"; it comes with the distribution {distribution}, which is not installed'
    todo = rf"pip install {distribution}, or pip install \./plugins/{distribution} in a clone$"
    with pytest.raises(DocumentError, match=rf"{told}: {todo}"):
        load_strategy(name, registry)


def in_new_process(code: str, folder: Path | None = None) -> None:
    environment = {**os.environ, **({"PYTHONPATH": str(folder)} if folder else {})}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_torchvision_and_timm_import() -> None:
    in_new_process(
        """
from augkit import torchvision_compat as compat
import sys, torch
assert "torchvision" not in sys.modules and not hasattr(torch.ops.torchvision, "nms")  # importing did nothing
compat.ensure_torchvision()
compat.ensure_torchvision()
assert len(compat._registered) <= 1
import torchvision, timm
from torchvision.transforms import v2
boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30.0]])
kept = torch.ops.torchvision.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
assert kept.tolist() == [1, 2]
v2.RandAugment()(torch.zeros(3, 8, 8, dtype=torch.uint8))
"""
    )


@pytest.mark.slow
@pytest.mark.parametrize("loads", [True, False], ids=["a library that loads", "a library that does not"])
def test_operators_are_registered_only_where_the_library_does_not_load(loads: bool, tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    numpy = importlib.util.find_spec("numpy")
    assert numpy is not None and numpy.submodule_search_locations
    library = next(Path(numpy.submodule_search_locations[0]).rglob("_multiarray_umath*.so"))
    (package / "_C.so").write_bytes(library.read_bytes() if loads else b"not a library")
    in_new_process(
        f"""
import torch
from augkit import torchvision_compat as compat
compat.ensure_torchvision()
assert (len(compat._registered) == 0) is {loads}
assert hasattr(torch.ops.torchvision, "nms") is not {loads}
""",
        tmp_path,
    )


@pytest.mark.slow
def test_operators_that_exist_are_left_alone_and_a_missing_torchvision_is_no_error() -> None:
    in_new_process(
        """
import sys, torch
from augkit import torchvision_compat as compat
own = torch.library.Library("torchvision", "DEF")
own.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
compat.ensure_torchvision()
assert compat._registered == []
"""
    )
    in_new_process(
        """
import sys
sys.modules["torchvision"] = None
from augkit import torchvision_compat as compat
compat.ensure_torchvision()
assert compat._registered == []
"""
    )


def slow_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """The definition, one box at a time."""
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        for j in kept:
            width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            shared = max(float(width), 0.0) * max(float(height), 0.0)
            areas = [float((boxes[k, 2] - boxes[k, 0]) * (boxes[k, 3] - boxes[k, 1])) for k in (i, j)]
            if shared / (sum(areas) - shared) > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_nms_is_what_it_should_be(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(40, 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(40, 2, generator=generator) / 2], dim=1)
    scores = torch.randperm(40, generator=generator).float()
    kept = nms(boxes, scores, 0.3)
    assert 1 < len(kept) < 40
    assert kept.tolist() == slow_nms(boxes, scores, 0.3)


def test_nms_of_nothing() -> None:
    kept = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0,) and kept.dtype == torch.int64
