"""Stable Diffusion 2.1's architecture with random weights, whole or a quarter as wide: speed does not ask for more."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sd4match.testing import random_photo

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = ["!", *LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
_LOG_VARIANCE = -8.0
"""Of the posteriors of mini."""
NUM_TOKENS = 49_409
"""Tokens of the vocabulary: CLIP's and one more, so that it is not taken for CLIP's, whose words are known."""


def build_unet(*, quarter: bool = False) -> UNet2DConditionModel:
    """865.9 M parameters, or a 16th of them."""
    width = 80 if quarter else 320
    return UNet2DConditionModel(
        sample_size=96,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        norm_num_groups=16 if quarter else 32,
        cross_attention_dim=256 if quarter else 1024,
        attention_head_dim=(1, 2, 5, 5) if quarter else (5, 10, 20, 20),
        use_linear_projection=True,
    )


def build_vae(*, quarter: bool = False) -> AutoencoderKL:
    """Return an encoder of 34.2 M parameters and its decoder, or 16ths of them."""
    width = 32 if quarter else 128
    return AutoencoderKL(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=768,
    )


@torch.no_grad()
def like_trained(vae: AutoencoderKL) -> AutoencoderKL:
    """Give a random encoder latents of unit variance and narrow posteriors, as trained ones have.

    Otherwise the noise of Eq. 1 would hide the photo at any timestep, and features would depend on noise alone.
    """
    last = vae.quant_conv
    assert last is not None
    assert last.bias is not None
    photo = random_photo((256, 256)).pixels
    latents = vae.encode(torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mean
    mean, std = (found[0, :, 0, 0] for found in (latents.mean((2, 3), keepdim=True), latents.std((2, 3), keepdim=True)))
    scale = 1 / (vae.config.scaling_factor * std)
    last.weight[:4] *= scale[:, None, None, None]
    last.bias[:4] = (last.bias[:4] - mean) * scale
    last.bias[4:] = _LOG_VARIANCE
    return vae


def build_text_encoder(*, quarter: bool = False) -> CLIPTextModel:
    """OpenCLIP's ViT-H text transformer without its last block, or one a quarter as wide."""
    width = 256 if quarter else 1024
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=NUM_TOKENS,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=23,
            num_attention_heads=width // 64,
            max_position_embeddings=77,
            hidden_act="gelu",
            bos_token_id=TOKENS.index("<|startoftext|>"),
            eos_token_id=TOKENS.index("<|endoftext|>"),
            pad_token_id=TOKENS.index("!"),
        )
    )


def write_stable_diffusion_2(folder: Path, *, quarter: bool = False) -> Path:
    """Write a folder as diffusers lays it out, float32: 5 GB, or 0.3."""
    torch.manual_seed(0)
    build_unet(quarter=quarter).save_pretrained(folder / "unet")
    like_trained(build_vae(quarter=quarter)).save_pretrained(folder / "vae")
    build_text_encoder(quarter=quarter).save_pretrained(folder / "text_encoder")
    tokens = TOKENS + [chr(0x20000 + number) for number in range(NUM_TOKENS - len(TOKENS))]  # letters of their own
    vocab = {token: number for number, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocab, merges=[], pad_token="!", model_max_length=77).save_pretrained(folder / "tokenizer")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder
