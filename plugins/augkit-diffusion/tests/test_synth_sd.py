"""The source `sd`: a pipeline by path, the same images however they are made, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from augkit_diffusion.pipeline_folder import HASHES, open_folder
from safetensors.torch import load_file, save_file
from sd_parts import SIDE, made, opened, save_pipeline, save_xl, wishes

from augkit.errors import AugkitError, DataError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("model") / "pipeline", checker=False)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a safety checker that flags nothing."""
    return save_pipeline(tmp_path_factory.mktemp("watched") / "pipeline")


def test_images_have_the_datas_size_or_the_models(tmp_path: Path, model: Path) -> None:
    small, large = opened("sd", tmp_path, model), opened("sd", tmp_path, model, size="model")
    own = opened("sd", tmp_path, model, size=10, made_at=24)
    one, two, three = (made(source, wishes(source, 0, range(3))) for source in (small, large, own))
    assert one.shape == (3, 16, 16, 3) and two.shape == (3, SIDE, SIDE, 3) and three.shape == (3, 10, 10, 3)
    assert one.dtype == np.uint8 and one.std() > 1
    halved = two.reshape(3, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(halved - one).mean() < 0.5 * np.abs(halved[[1, 2, 0]] - one).mean(), "not the same image in small"
    assert (own.identity()["made_at"], own.identity()["size"]) == (24, 10)


def test_an_image_is_the_same_however_it_is_made(tmp_path: Path, model: Path) -> None:
    before = torch.get_rng_state()
    source = opened("sd", tmp_path, model)
    all_of_them = made(source, wishes(source, 1, range(7)))
    later = opened("sd", tmp_path, model)  # as another process would
    again = [made(later, wishes(later, 1, numbers)) for numbers in (range(3, 6), range(3), range(6, 7))]
    assert np.array_equal(all_of_them, np.concatenate([again[1], again[0], again[2]]))
    assert source.identity() == later.identity()
    assert not np.array_equal(all_of_them, made(source, wishes(source, 2, range(7)))), "seeds and prompts have no say"
    assert len({image.tobytes() for image in all_of_them}) == 7 and torch.equal(torch.get_rng_state(), before)


def test_prompt_guidance_steps_and_negative_reach_the_model(tmp_path: Path, model: Path) -> None:
    def image(**options: Any) -> np.ndarray:
        source = opened("sd", tmp_path, model, **options)
        return made(source, wishes(source, 0, range(1)))

    plain = image()
    assert np.array_equal(plain, image(template="a photo of {class}", guidance=7.5))
    for other in ({"template": "a {class}!"}, {"guidance": 1.0}, {"steps": 3}, {"negative": "a dog"}):
        assert not np.array_equal(plain, image(**other)), other


@pytest.mark.slow
def test_everything_that_pixels_depend_on_is_in_the_identity(tmp_path: Path, model: Path) -> None:
    told = opened("sd", tmp_path, model).identity()
    assert told["precision"] == "float32" and told["guidance"] == 7.5 and told["safety_checker"] == "absent"
    assert len(told["model"]) == 64 and told["pipeline"] == "StableDiffusionPipeline" and told["batch"] == 3
    for option, value in (("precision", "bf16"), ("guidance", 2.0), ("steps", 3), ("batch", 2), ("memory", "low")):
        other = opened("sd", tmp_path, model, **{option: value}).identity()
        assert {name for name in told if told[name] != other[name]} == {option}
    assert opened("sd", tmp_path, model, template="{class}").identity()["prompts"] != told["prompts"]


def test_half_precision_and_little_memory_make_nearly_the_same_image(tmp_path: Path, model: Path) -> None:
    image, half, low = (
        made(source, wishes(source, 0, range(3))).astype(int)
        for source in (opened("sd", tmp_path, model, **more) for more in ({}, {"precision": "bf16"}, {"memory": "low"}))
    )
    assert np.abs(image - half).max() > 0 and np.abs(image - low).max() <= 2
    with pytest.raises(AugkitError, match="CPU does not compute in float16; say --precision float32"):
        opened("sd", tmp_path, model, precision="float16")


@pytest.mark.slow
def test_out_of_memory_it_tries_once_more_with_less(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = opened("sd", tmp_path, model)
    wished, vae = wishes(source, 0, range(3)), source.pipeline.pipe.vae
    decode, fails = vae.decode, [1]

    def short(*arguments: Any, **more: Any) -> Any:
        if fails:
            fails.pop()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return decode(*arguments, **more)

    monkeypatch.setattr(vae, "decode", short)
    images = made(source, wished)
    assert vae.use_tiling and vae.use_slicing and "out of memory: going on" in capsys.readouterr().err
    assert np.array_equal(images, made(opened("sd", tmp_path, model, memory="low"), wished))
    fails.append(1)
    with pytest.raises(AugkitError, match=r"out of memory; make fewer images at once \(--batch 1\)"):
        source.make(wished)


@pytest.mark.slow
def test_what_the_safety_checker_flags_is_no_image(tmp_path: Path, watched: Path) -> None:
    strict = shutil.copytree(watched, tmp_path / "strict")
    weights = load_file(strict / "safety_checker/model.safetensors")
    weights["concept_embeds_weights"][:] = -2.0  # every cosine is above it
    save_file(weights, strict / "safety_checker/model.safetensors", {"format": "pt"})
    careful, easy = opened("sd", tmp_path, strict), opened("sd", tmp_path, watched)
    off = opened("sd", tmp_path, strict, safety_checker=False)
    wished = wishes(careful, 0, range(4))
    assert careful.make(wished) == [None] * 4
    assert np.array_equal(made(easy, wished), made(off, wished))
    assert [one.identity()["safety_checker"] for one in (careful, easy, off)] == ["on", "on", "off"]
    assert careful.identity()["model"] != easy.identity()["model"] != off.identity()["model"]


def test_the_hash_is_of_content_and_read_once(tmp_path: Path, model: Path) -> None:
    told: list[tuple[str, int, int]] = []
    copy = shutil.copytree(model, tmp_path / "copy")
    notes = tmp_path / "notes"

    def hashed(folder: Path) -> str:
        return open_folder(str(folder)).sha256(notes, lambda *what: told.append(what))

    first = hashed(model)
    assert hashed(copy) == first and told[-1][1] == told[-1][2] > 6
    noted = json.loads((notes / HASHES).read_text())
    name = "unet/diffusion_pytorch_model.safetensors"
    noted[name][3] = "0" * 64
    (notes / HASHES).write_text(json.dumps(noted))
    assert hashed(copy) != first, "the file was read again although nothing about it changed"
    (copy / name).touch()
    assert hashed(copy) == first
    (notes / HASHES).write_text("broken")
    (copy / "README.md").write_text("nothing that is loaded")
    assert hashed(copy) == first
    scheduler = copy / "scheduler/scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    assert hashed(copy) != first


def test_a_variant_is_read_where_there_is_nothing_else(tmp_path: Path, model: Path) -> None:
    half = save_pipeline(tmp_path / "half", checker=False, variant="fp16")
    assert (half / "unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    source, plain = opened("sd", tmp_path, half), opened("sd", tmp_path, model)
    assert np.array_equal(made(source, wishes(source, 0, range(3))), made(plain, wishes(plain, 0, range(3))))


@pytest.mark.slow
def test_other_kinds_of_pipelines_are_loaded_as_well(tmp_path: Path) -> None:
    model = save_xl(tmp_path / "xl")
    source, later = opened("sd", tmp_path, model), opened("sd", tmp_path, model)
    told = source.identity()
    assert told["pipeline"] == "StableDiffusionXLPipeline" and told["guidance"] == 5.0 and told["made_at"] == SIDE
    images = made(source, wishes(source, 0, range(6)))
    assert np.array_equal(images[3:], made(later, wishes(later, 0, range(3, 6)))) and len(np.unique(images)) > 50
    changed = opened("translate", tmp_path, model, begin="inter")
    assert made(changed, wishes(changed, 0, range(3))).shape == (3, 16, 16, 3)


def test_numbers_that_overflow_are_told(tmp_path: Path, model: Path) -> None:
    source = opened("sd", tmp_path, model)
    with torch.no_grad():
        source.pipeline.pipe.vae.decoder.conv_out.bias[:] = float("nan")
    with pytest.raises(AugkitError, match="numbers overflow in float32; say --precision"):
        source.make(wishes(source, 0, range(3)))


def broken(model: Path, folder: Path, what: str) -> Path:
    copy = shutil.copytree(model, folder / what)
    unet = copy / "unet/diffusion_pytorch_model.safetensors"
    index = json.loads((copy / "model_index.json").read_text())
    if what == "pickled":
        torch.save(load_file(unet), unet.with_suffix(".bin"))
        unet.unlink()
    elif what == "no weights":
        unet.unlink()
    elif what == "no part":
        shutil.rmtree(copy / "vae")
    elif what == "cut":
        unet.write_bytes(unet.read_bytes()[:5000])
    elif what == "own code":
        (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", "Mine"]}))
    elif what == "own part":
        (copy / "model_index.json").write_text(json.dumps(index | {"unet": ["my_unet", "MyUNet"]}))
    elif what == "unknown":
        (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "DiTPipeline"}))
    elif what == "no index":
        (copy / "model_index.json").unlink()
    else:
        (copy / "model_index.json").write_text("[]")
    return copy


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("pickled", "weights of the pipeline's part unet are not safetensors, .* save it with safe_serialization=True"),
        ("no weights", "weights of the pipeline's part unet are missing"),
        ("no part", "part vae is missing"),
        ("cut", "this StableDiffusionPipeline cannot be loaded for text-to-image"),
        ("own code", "comes with code of its own, which is not run"),
        ("own part", "part unet comes with code of its own"),
        ("unknown", "this DiTPipeline cannot be loaded for text-to-image"),
        ("no index", r"no folder of a diffusers pipeline \(no model_index.json in it\)"),
        ("bad index", "tells of no pipeline"),
    ],
)
def test_a_folder_that_cannot_be_loaded_safely_is_told_in_a_sentence(
    tmp_path: Path, model: Path, what: str, told: str
) -> None:
    folder = broken(model, tmp_path, what)
    with pytest.raises(DataError, match=told) as caught:
        opened("sd", tmp_path, folder).identity()
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


CODE = "open({mark!r}, 'w').close()\nfrom diffusers import UNet2DConditionModel as Mine\n"


@pytest.mark.parametrize("library", ["kolors", "my_unet", "diffusers"])
@pytest.mark.parametrize("linked", [False, True])
def test_code_beside_the_weights_is_not_run(tmp_path: Path, model: Path, library: str, linked: bool) -> None:
    """Not even under the name of a folder of diffusers that is a module of it only with further packages."""
    copy, mark = shutil.copytree(model, tmp_path / "copy"), tmp_path / "was run"
    index = json.loads((copy / "model_index.json").read_text())
    named = [library, "UNet2DConditionModel" if library == "diffusers" else "Mine"]
    (copy / "model_index.json").write_text(json.dumps(index | {"unet": named}))
    (copy / "unet" / f"{library}.py").write_text(CODE.format(mark=str(mark)))
    if linked:
        (copy / "unet").rename(tmp_path / "elsewhere")
        (copy / "unet").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"code of its own, which is not run|none of a model's is run; .* name another"):
        made(source := opened("sd", tmp_path, copy), wishes(source, 0, range(3)))
    assert not mark.exists()


def test_what_is_no_pipeline_at_all_is_told(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = model / "model_index.json"
    for name, told in (
        (str(tmp_path / "none"), "there is no such folder; name the folder of a diffusers pipeline, or a hub id"),
        (str(file), "this is a file; name the folder"),
        ("someone/some-model", '"someone/some-model" is no folder here, and could not be fetched from the hub'),
    ):
        with pytest.raises(DataError, match=told) as caught:
            opened("sd", tmp_path, name)
        assert "\n" not in str(caught.value)


def test_what_the_pipeline_refuses_is_told(tmp_path: Path, model: Path) -> None:
    source = opened("sd", tmp_path, model, made_at=25)
    with pytest.raises(AugkitError, match=r"StableDiffusionPipeline refuses this: .*divisible by 8"):
        source.make(wishes(source, 0, range(3)))
    with pytest.raises(AugkitError, match=r'there is no option "guidence" here\. Did you mean "guidance"'):
        opened("sd", tmp_path, model, guidence=3.0)
