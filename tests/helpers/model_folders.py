"""Model folders of the real classes and layout, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_random_model(folder: Path, *, width: int = 32, seed: int = 0, like: str = "2.1") -> Path:
    """As Stable Diffusion 2 is laid out: four blocks, 8 x VAE, pad token other than EOS, PNDM scheduler file.

    Like "1.5": another native size, one number of heads, EOS as pad token, convolutions around its transformers.
    """
    second = like == "2.1"
    torch.manual_seed(seed)
    UNet2DConditionModel(
        sample_size=8 if second else 16,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(8, 16, 16, 16),
        norm_num_groups=4,
        cross_attention_dim=width,
        attention_head_dim=(2, 2, 2, 2) if second else 2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        use_linear_projection=second,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
        layers_per_block=1,
        sample_size=64,
    ).save_pretrained(folder / "vae")
    tokens = ["!", *LETTERS, *(f"{c}</w>" for c in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], pad_token="!" if second else "<|endoftext|>", model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=vocab["<|startoftext|>"],
            eos_token_id=vocab["<|endoftext|>"],
            pad_token_id=0,
            hidden_act="quick_gelu",
        )
    ).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def write_random_transformer(folder: Path, *, kind: str = "dinov2", seed: int = 0) -> Path:
    """DINOv2 or DINO as transformers saves them: four blocks, positions for another size than is asked for."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 48}
    if kind == "dinov2":
        Dinov2Model(Dinov2Config(image_size=70, patch_size=14, mlp_ratio=2, **shape)).save_pretrained(folder)
    else:
        ViTModel(ViTConfig(image_size=64, patch_size=8, **shape)).save_pretrained(folder)
    return folder
