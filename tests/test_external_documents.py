"""Transforms of other libraries in documents: what is refused and where, spelling, hash, schema."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from external_parts import document, fault, images, load, numbers, run

from augkit.operators import libraries
from augkit.operators.external import OptionError, external
from augkit.registry import Registry
from augkit.strategy.describe import words
from augkit.strategy.document import load_strategy
from augkit.strategy.schema import json_schema


def test_a_palette_may_hold_them() -> None:
    palette = ["hflip", {"albumentations:Affine": {"rotate": [10, 30]}}, "kornia:RandomPlasmaShadow"]
    policy = load({"pick": {"count": 2}}, palette=palette)
    policy(images(), torch.zeros(6, dtype=torch.int64))
    told = words(policy.strategy)
    assert "albumentations:Affine (rotate [10, 30])" in told and "kornia:RandomPlasmaShadow" in told
    message = fault({"pick": None}, palette=[{"albumentations:Affine": {"p": 0.5}}])
    assert "palette[0].albumentations:Affine.p" in message and "each_p" in message


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("imgaug:Fog", '"imgaug" is no library that augkit knows; names of other libraries begin with'),
        ("albumentations:CoarsDropout", 'no transform of images called "CoarsDropout". Did you mean "CoarseDropout"'),
        ("kornia:PlasmaShadow", '"RandomPlasmaShadow"'),
        ({"albumentations:CoarseDropout": {"num_holes": 3}}, 'Did you mean "num_holes_range"?'),
        ({"albumentations:CoarseDropout": {"num_holes_range": [3, 1]}}, "num_holes_range: first value should be less"),
        ({"albumentations:CoarseDropout": {"always_apply": True}}, 'no key "always_apply"'),
        ({"kornia:RandomAffine": {"degrees": 9, "same_on_batch": True}}, 'no key "same_on_batch"'),
        ({"torchvision:ColorJitter": {"hue": 3}}, "hue values should be between"),
        ({"torchvision:ColorJitter": {"hues": 0.1}}, 'Did you mean "hue"?'),
        ({"torchvision:AutoAugment": {"policy": "imagnet"}}, 'no policy "imagnet"; valid: imagenet, cifar10, svhn'),
        ({"kornia:RandomGaussianBlur": {"kernel_size": 5}}, "needs sigma"),
        ({"kornia:RandomGaussianBlur": {"kernel_size": [4, 4], "sigma": [0.1, 2]}}, "odd integer"),
        ({"albumentations:GaussNoise": {"std_range": [0.1, 1e9]}}, "numbers here go to 64"),
        ({"kornia:RandomAffine": {"degrees": list(range(300))}}, "more than 256 values"),
        ({"kornia:RandomCrop": {"size": [32, 32]}}, "changes the image's size"),
        ({"torchvision:Resize": {"size": 50}}, "changes the image's size"),
        *(({f"{library}:Resize": size}, "changes the image's size") for side in (131, 67, 64) for library, size in (
            ("albumentations", {"height": side, "width": side}),
            ("torchvision", {"size": [side, side]}),
            ("kornia", {"size": [side, side]}))),
        ({"torchvision:Resize": {"size": [47, 61]}}, "changes the image's size"),
        ({"torchvision:Resize": {"size": [61, 47]}}, "changes the image's size"),
        ({"albumentations:RandomCrop": {"height": 9, "width": 9}}, "changes the image's size"),
        ("torchvision:Grayscale", "changes the image's size"),
        ("albumentations:MaskDropout", "needs mask beside the image"),
        ("albumentations:HistogramMatching", "needs hm_metadata beside the image"),
        ({"albumentations:OneOf": {}}, "holds other transforms"),
        ("torchvision:RandomApply", "holds other transforms"),
        ("kornia:AugmentationSequential", "holds other transforms"),
        ("kornia:RandomMixUpV2", "mixes images"),
        ("torchvision:CutMix", "mixes images"),
        ("albumentations:Normalize", "normalises"),
        ("kornia:RandomRotation3D", "volumes"),
        ("albumentations:CubicSymmetry", "volumes"),
        ("kornia:RandomDissolving", "downloads"),
        ("albumentations:Lambda", "needs a function"),
        ("torchvision:SanitizeBoundingBoxes", "boxes"),
        ("rotate:30", 'Did you mean "rotate"?'),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_at_load(step: Any, said: str) -> None:
    message = fault(step)
    assert said in message and message.startswith("pipeline[0]")
    assert "\n" not in message and len(message) < 400


def test_the_place_of_a_wrong_option_is_told() -> None:
    assert fault({"albumentations:GaussNoise": {"std_range": [2, 3]}}).startswith(
        "pipeline[0].albumentations:GaussNoise.std_range: "
    )


def test_an_option_that_only_fails_when_run_is_named() -> None:
    message = fault({"kornia:RandomPlasmaShadow": {"roughness": "a"}})
    assert message.startswith("pipeline[0].kornia:RandomPlasmaShadow.roughness: ")
    assert '"a" for roughness' in message
    message = fault({"kornia:RandomPlasmaShadow": {"roughness": "a", "shade_intensity": [-1, 0]}})
    assert message.startswith("pipeline[0].kornia:RandomPlasmaShadow.roughness: ")


def test_one_number_has_one_spelling(registry: Registry) -> None:
    def digest(name: str, options: dict[str, Any]) -> str:
        return load_strategy(document({name: options}), registry).hash

    same = [{"degrees": value} for value in (30, 30.0, "2 * 15", "turn")]
    texts = [{"params": {"turn": 30}}, {}]
    assert len({digest("kornia:RandomAffine", options) for options in same[:3]}) == 1
    named = load_strategy(document({"kornia:RandomAffine": same[3]}, **texts[0]), registry)
    assert named.hash != digest("kornia:RandomAffine", {"degrees": 31})
    assert named.pipeline[0].choice.options == {"degrees": 30}  # type: ignore[union-attr]
    nested = [{"rotate": pair} for pair in ([-30, 30], [-30.0, 30.0], ["-30", "60 / 2"])]
    assert len({digest("albumentations:Affine", options) for options in nested}) == 1
    assert len({digest("torchvision:ColorJitter", {"hue": value}) for value in (0, 0.0)}) == 1


def test_text_that_is_no_expression_of_params_stays_text() -> None:
    load({"torchvision:AutoAugment": {"policy": "cifar10"}})
    message = fault({"kornia:RandomAffine": {"degrees": "2 * epoch"}})
    assert "degrees" in message and "2 * epoch" in message


def test_a_library_gets_one_spelling() -> None:
    u, given = numbers(6), images().float() / 255
    made = [
        run("kornia:RandomGaussianBlur", {"kernel_size": 3, "sigma": pair}, given, u) for pair in ([1, 2], [1.0, 2.0])
    ]
    assert torch.equal(*made)


def test_what_cannot_be_written_down_is_refused() -> None:
    for value in (object(), float, np.float32(3)):
        with pytest.raises(OptionError, match=r"degrees is .*, which a document cannot hold"):
            external("kornia:RandomAffine").function.check({"degrees": value})  # type: ignore[attr-defined]


def test_a_name_alone_is_no_palette() -> None:
    assert "write [kornia:RandomRain]" in fault({"pick": None}, palette="kornia:RandomRain")


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    external.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install kornia" in fault("kornia:RandomRain")


def test_the_hash_holds_options_and_version(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(options: dict[str, Any]) -> str:
        return load_strategy(document({"albumentations:Affine": options}), registry).hash

    plain = digest({"rotate": [-9, 9]})
    assert plain == digest({"shear": [0.0, 0.0], "rotate": [-9, 9]})  # which it is anyway
    assert plain != digest({"rotate": [-9, 8]})
    monkeypatch.setattr(libraries, "version", lambda name: "99.0")
    external.cache_clear()
    assert plain != digest({"rotate": [-9, 9]})
    external.cache_clear()


def test_the_schema_knows_their_names(registry: Registry) -> None:
    validator = jsonschema.Draft202012Validator(json_schema(registry))
    good = document("kornia:RandomRain", {"albumentations:Affine": {"p": "0.5", "rotate": [1, 2]}}, {"pick": None},
                    palette=["torchvision:RandomInvert", {"torchvision:ColorJitter": {"hue": 0.1}}])  # fmt: skip
    assert validator.is_valid(good)
    assert not validator.is_valid(document("imgaug:Fog"))
    assert not validator.is_valid(document({"albumentations:Affine": {}, "hflip": None}))
    assert not validator.is_valid(document({"albumentations:Affine": {"p": []}}))
    assert not validator.is_valid(document("pick", palette=[{"albumentations:Affine": {"p": 1}}]))


@pytest.mark.slow
def test_nothing_is_imported_before_it_is_named() -> None:
    code = """
import sys
from augkit.policy import Policy
from augkit.strategy.schema import json_schema
from augkit.plugins import registry
json_schema(registry())
Policy.load("randaugment")
print(*sys.modules)
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(made.stdout.split())
    assert "augkit.operators.external" in loaded
    assert loaded.isdisjoint({"albumentations", "kornia", "torchvision"})
