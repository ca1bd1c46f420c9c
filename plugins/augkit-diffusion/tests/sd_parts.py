"""A Stable Diffusion pipeline small enough for tests, built from configuration and saved as a user's would be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augkit_diffusion.chunks import image_seed
from augkit_diffusion.sources import Context, Wish, open_source

from augkit.lab.data import load
from augkit.lab.recipe import load_recipe
from augkit.plugins import registry

SIDE = 32
"""Pixels of a side of the images that the pipeline makes."""
COUNTS = {"red_fox": 9, "cat": 5, "dog": 2}


def save_pipeline(folder: Path, *, checker: bool = True, seed: int = 0, **options: Any) -> Path:
    """Save a new pipeline; `options` are those of `save_pretrained`."""
    pipeline(folder.parent / "vocabulary", checker=checker, seed=seed).save_pretrained(folder, **options)
    return folder


def pipeline(vocabulary: Path, *, checker: bool, seed: int) -> Any:
    """UNet, autoencoder, text encoder and tokenizer of Stable Diffusion's kinds, with random weights."""
    from augkit_diffusion.pipelines import quiet

    with quiet() as diffusers, torch.random.fork_rng([]):
        torch.manual_seed(seed)
        tokenizer, text_encoder = _words(vocabulary)
        blocks: dict[str, Any] = {"block_out_channels": (16, 32), "norm_num_groups": 8}
        unet = diffusers.UNet2DConditionModel(
            sample_size=SIDE // 2,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            **blocks,
        )
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **blocks
        )
        levels = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
        scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **levels)
        watch = _checker() if checker else {"safety_checker": None, "feature_extractor": None}
        return diffusers.StableDiffusionPipeline(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            requires_safety_checker=checker,
            **watch,
        )


def save_xl(folder: Path) -> Path:
    """The same as Stable Diffusion XL is built: two text encoders, and no safety checker."""
    from augkit_diffusion.pipelines import quiet

    with quiet() as diffusers, torch.random.fork_rng([]):
        from transformers import CLIPTextModelWithProjection  # which cannot be imported before

        small = pipeline(folder.parent / "vocabulary", checker=False, seed=0)
        config = small.text_encoder.config
        config.projection_dim = 32
        unet = diffusers.UNet2DConditionModel.from_config(
            small.unet.config,
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        )
        diffusers.StableDiffusionXLPipeline(
            vae=small.vae,
            text_encoder=small.text_encoder,
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer=small.tokenizer,
            tokenizer_2=small.tokenizer,
            unet=unet,
            scheduler=small.scheduler,
        ).save_pretrained(folder)
    return folder


def _words(folder: Path) -> tuple[Any, Any]:
    """A byte-pair tokenizer without merges, so that each letter is a token, and its text encoder."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=32)
    begin, end = len(names) - 2, len(names) - 1
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    tokens = {"vocab_size": len(names), "bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    return tokenizer, CLIPTextModel(CLIPTextConfig(max_position_embeddings=32, **sizes, **tokens))


def _checker() -> dict[str, Any]:
    """Stable Diffusion's own safety checker, small; with its thresholds at 0 it flags about half of what it sees."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=16)
    )
    with torch.no_grad():
        checker.concept_embeds[:] = torch.randn(checker.concept_embeds.shape)
        checker.concept_embeds_weights[:] = 2.0  # no cosine is above it
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return {"safety_checker": checker, "feature_extractor": extractor}


def recipe(folder: Path) -> Path:
    """A recipe whose images show their class and number: class c is all of one colour, image k a little brighter."""
    labels = np.repeat(np.arange(3), list(COUNTS.values()))
    images = np.zeros((len(labels), 16, 16, 3), np.uint8)
    for label, count in enumerate(COUNTS.values()):
        images[labels == label, :, :, label] = (100 + 10 * np.arange(count))[:, None, None]
    kept = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(folder / "data.npz", **kept, class_names=np.array(list(COUNTS)))
    (folder / "recipe.yaml").write_text("augkit: 1\nname: tiny\ndata: {source: data.npz}\n")
    return folder / "recipe.yaml"


def opened(name: str, folder: Path, model: Path | str, **options: Any) -> Any:
    """A source over the recipe's data, with the store's folder `folder / "synth"`."""
    read = load_recipe(str(recipe(folder)), registry())
    context = Context(load(read.data), read, folder / "synth", torch.device("cpu"))
    quick = {"model": str(model), "steps": 2, "batch": 3}
    return open_source(name, quick | options, context, registry())


def wishes(source: Any, label: int, numbers: range) -> list[Wish]:
    """Wishes of a class, completed."""
    name = list(COUNTS)[label]
    return [source.complete(Wish(label, name, k, image_seed(0, name, None, k))) for k in numbers]


def made(source: Any, wished: list[Wish]) -> np.ndarray:
    """Images [N, H, W, 3], none of them refused."""
    images = source.make(wished)
    assert all(image is not None for image in images)
    return np.stack(images)
