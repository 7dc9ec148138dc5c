"""Model folders of the real classes and layout, with random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
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
    """A vision transformer as transformers saves it: four blocks, positions for another size than is asked for.

    Kinds: "dinov2", "dinov2_with_registers" (4 of them), "dinov3" (4 registers), "dino", "ibot" (no pooler, a mask
    token), "clip" (the image tower), "siglip" (likewise), "whole_clip", "whole_siglip" (both towers, as SigLIP 2 is
    published), "vit_mae". Colors are ImageNet's, but for those of a whole CLIP or SigLIP.
    """
    torch.manual_seed(seed)
    shape = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 48}
    large, small = {"image_size": 70, "patch_size": 14, **shape}, {"image_size": 64, "patch_size": 8, **shape}
    words = {**shape, "vocab_size": 30, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    colors = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    if kind.startswith("whole_"):
        colors = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.125]}
    model = {
        "dinov2": lambda: Dinov2Model(Dinov2Config(mlp_ratio=2, **large)),
        "dinov2_with_registers": lambda: Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=4, **large)
        ),
        "dinov3": lambda: DINOv3ViTModel(
            DINOv3ViTConfig(num_register_tokens=4, **{**small, "patch_size": 16, "num_attention_heads": 2})
        ),
        "dino": lambda: ViTModel(ViTConfig(**small)),
        "ibot": lambda: ViTModel(ViTConfig(**small), add_pooling_layer=False, use_mask_token=True),
        "whole_clip": lambda: CLIPModel(CLIPConfig(text_config=words, vision_config=small, projection_dim=12)),
        "whole_siglip": lambda: SiglipModel(SiglipConfig(text_config=words, vision_config=small)),
        "clip": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=12, **small)),
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**small)),
        "vit_mae": lambda: ViTMAEModel(ViTMAEConfig(**small)),
    }[kind]()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(colors))
    return folder


def copy_of(source: Path, folder: Path) -> Path:
    """Copy a model folder, to change the copy."""
    return Path(shutil.copytree(source, folder))


def change_json(file: Path, *without: str, **fields: object) -> None:
    """Set fields of a JSON file, and leave some out."""
    content = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in content.items() if name not in without}))


def change_weights(file: Path, change: Callable[[str, Tensor], tuple[str, Tensor] | None]) -> None:
    """Change name and value of every tensor of a safetensors file; None leaves one out."""
    pairs = (change(name, value) for name, value in sorted(load_file(file).items()))
    save_file({pair[0]: pair[1].contiguous() for pair in pairs if pair is not None}, file, metadata={"format": "pt"})


def write_pointer(file: Path) -> None:
    """Replace a file by what Git stores in its place when LFS has not fetched it."""
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n")
