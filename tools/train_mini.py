"""Train `mini`, the small latent diffusion model that comes with the package; takes about an hour on 2 cores.

    python tools/train_mini.py --output runs/mini

A run that is started again with the same recipe resumes from its last checkpoint. The model card in
src/sd4match/backbones/mini_weights explains the recipe.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from rich.progress import Progress, track
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parent))
from mini.autoencoder import LATENT_CHANNELS, build_autoencoder
from mini.captions import MAX_LENGTH, Labels, build_tokenizer, target_tokens, vocabulary, write_caption
from mini.grounding import grounding_loss, record_cross_attention
from sd4match.data.synthetic.anatomy import FRONTAL
from sd4match.data.synthetic.scene import Scene, render

TRAINING_STREAM = 1_000
"""Seed of the training photos; `SyntheticPairs` uses other seeds."""

_MAX_PARTS = 8


@dataclass(frozen=True)
class Recipe:
    """Parameters that the result depends on."""

    photos: int = 28_000
    steps: int = 2_200
    batch: int = 32
    learning_rate: float = 1.2e-3
    warmup: int = 60
    weight_decay: float = 1e-2
    ema: float = 0.998
    timestep_power: float = 1.7
    grounding_weight: float = 0.3
    grounding_until: int = 500
    text_width: int = 128
    category_grounding: float = 1.0
    absent_words: float = 0.0
    top_attention: int = 0
    distractors: float = 0.25
    seed: int = 0


@dataclass(frozen=True)
class TrainingPhotos:
    """Latents (N, 12, 24, 24), coverage of parts (N, 8, 12, 12) in units of 1/64, and labels of N photos."""

    latents: Tensor
    coverage: Tensor
    labels: list[Labels]


def _render(index: int, *, distractors: float) -> Scene:
    return render(TRAINING_STREAM, index, distractors=distractors)


def _labels(scene: Scene) -> Labels:
    facing = None if scene.category in FRONTAL else ("right" if scene.mirrored else "left")
    return Labels(scene.category, scene.part_words, scene.part_colors, scene.background, facing)


def _pixels(scenes: list[Scene]) -> Tensor:
    stacked = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _coverage(scenes: list[Scene]) -> Tensor:
    ids = torch.from_numpy(np.stack([scene.part_ids for scene in scenes])).long()
    one_hot = F.one_hot(ids, _MAX_PARTS + 1)[..., 1:].permute(0, 3, 1, 2).float()
    return (F.avg_pool2d(one_hot, 8) * 64).round().to(torch.uint8)


def prepare_photos(recipe: Recipe, folder: Path, vae: AutoencoderKL | None) -> tuple[AutoencoderKL, TrainingPhotos]:
    """Render and encode the training photos, or read them from an earlier call's files.

    Args:
        recipe: number of photos and probability of distractors.
        folder: folder of the photos and the autoencoder; written if it has no photos.
        vae: autoencoder; if not given, its encoder is fitted to the first 2,000 photos.

    Returns:
        The autoencoder and the photos.
    """
    file = folder / "photos.pt"
    if file.exists():
        return AutoencoderKL.from_pretrained(folder / "vae"), TrainingPhotos(**torch.load(file, weights_only=False))
    latents, coverage, labels, chunk = [], [], [], []
    with Pool(2) as pool:
        scenes = pool.imap(partial(_render, distractors=recipe.distractors), range(recipe.photos), chunksize=64)
        for scene in track(scenes, "rendering photos", total=recipe.photos):
            chunk.append(scene)
            labels.append(_labels(scene))
            if len(chunk) == 500 or len(labels) == recipe.photos:
                coverage.append(_coverage(chunk))
                latents.append(_pixels(chunk))
                chunk = []
    if vae is None:
        vae = build_autoencoder(torch.cat(latents[:4]))
    vae.save_pretrained(folder / "vae")
    vae.requires_grad_(False).eval()
    with torch.no_grad():
        for i, pixels in enumerate(track(latents, "encoding photos")):
            means = torch.cat([vae.encode(images).latent_dist.mean for images in pixels.split(100)])
            latents[i] = (means * vae.config.scaling_factor).half()
    photos = TrainingPhotos(torch.cat(latents), torch.cat(coverage), labels)
    torch.save({"latents": photos.latents, "coverage": photos.coverage, "labels": labels}, file)
    return vae, photos


def build_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """Return a CLIP text transformer of two layers with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=MAX_LENGTH, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=width,
        )
    )  # fmt: skip


def build_unet(text_width: int, *, top_attention: bool) -> UNet2DConditionModel:
    """Return a UNet with random weights and cross-attention on the two coarser grids (12 and 6 cells).

    Args:
        text_width: width of the text encoder.
        top_attention: whether the last and finest up-block has cross-attention too. Without it, up-block 1 is the last
            one that sees the text.
    """
    last = "CrossAttnUpBlock2D" if top_attention else "UpBlock2D"
    return UNet2DConditionModel(
        sample_size=24, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
        block_out_channels=(48, 96, 128), norm_num_groups=16, cross_attention_dim=text_width, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", last),
    )  # fmt: skip


def build_scheduler() -> DDIMScheduler:
    """Return a scheduler with the noise schedule and the v-prediction of Stable Diffusion 2."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def save_folder(
    folder: Path, unet: UNet2DConditionModel, text: CLIPTextModel, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> None:
    """Write a diffusers folder in half precision."""
    copy.deepcopy(unet).half().save_pretrained(folder / "unet", variant=None)
    copy.deepcopy(text).half().save_pretrained(folder / "text_encoder")
    copy.deepcopy(vae).half().save_pretrained(folder / "vae")
    tokenizer.save_pretrained(folder / "tokenizer")
    build_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None], "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "requires_safety_checker": False,
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_start(folder: Path, unet: UNet2DConditionModel, text: CLIPTextModel) -> AutoencoderKL:
    """Load the weights of an earlier model; attention layers that it lacks start with zero output.

    Returns:
        Its autoencoder.
    """
    earlier = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    unknown = unet.load_state_dict(earlier.state_dict(), strict=False)
    if unknown.unexpected_keys:
        raise SystemExit(f"{folder} holds another UNet: {unknown.unexpected_keys[:3]}")
    text.load_state_dict(CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").state_dict())
    for name, parameter in unet.named_parameters():
        if name in unknown.missing_keys and ".proj_out." in name:
            torch.nn.init.zeros_(parameter)
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    return vae


def train(
    recipe: Recipe,
    output: Path,
    *,
    checkpoint_every: int,
    start_from: Path | None,
    photos_from: Path | None,
    stop_after: int | None,
) -> None:
    """Train `mini` and write it to `output / "model"` in diffusers' layout.

    Args:
        recipe: parameters of the training.
        output: run directory, which also gets the photos, checkpoints and the log.
        checkpoint_every: number of steps between checkpoints.
        start_from: model folder whose weights to start from.
        photos_from: run directory of an earlier training whose photos to use.
        stop_after: step after which to stop, to be resumed later.
    """
    output.mkdir(parents=True, exist_ok=True)
    settings = output / "recipe.json"
    if settings.exists() and json.loads(settings.read_text()) != asdict(recipe):
        raise SystemExit(f"{output} holds a training with other settings; choose another --output")
    settings.write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    torch.manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    word_ids = {word: tokenizer(word).input_ids[1] for word in vocabulary()}
    text = build_text_encoder(tokenizer, recipe.text_width)
    unet = build_unet(recipe.text_width, top_attention=bool(recipe.top_attention))
    earlier = None if start_from is None else load_start(start_from, unet, text)
    vae, photos = prepare_photos(recipe, photos_from or output, earlier)
    averages = (copy.deepcopy(unet), copy.deepcopy(text))
    record = record_cross_attention(unet)
    parameters = [*unet.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    alphas_cumprod = build_scheduler().alphas_cumprod
    first = 0
    checkpoint = output / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for module, weights in zip((unet, text, *averages), state["modules"], strict=True):
            module.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    started, log = time.time(), output / "log.csv"
    if first == 0:
        log.write_text("step,diffusion,grounding,attention_accuracy,seconds\n")
    recent: list[tuple[float, float, float]] = []
    with Progress() as progress:
        task = progress.add_task("training", total=recipe.steps, completed=first)
        for step in range(first, recipe.steps):
            rng = np.random.default_rng([recipe.seed, 1, step])
            noise_stream = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            rows = rng.choice(recipe.photos, size=recipe.batch, replace=False)
            labels = [photos.labels[i] for i in rows]
            captions = [write_caption(label, rng, absent_words=recipe.absent_words) for label in labels]
            ids = tokenizer(
                captions, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
            ).input_ids
            clean = photos.latents[rows].float()
            noise = torch.randn(clean.shape, generator=noise_stream)
            timesteps = (1000 * torch.rand(recipe.batch, generator=noise_stream) ** recipe.timestep_power).long()
            scale = alphas_cumprod[timesteps].sqrt()[:, None, None, None]
            std = (1 - alphas_cumprod[timesteps]).sqrt()[:, None, None, None]
            coverage = photos.coverage[rows].float() / 64
            targets = target_tokens(ids, labels, coverage, word_ids, category_grounding=recipe.category_grounding)
            record.maps.clear()
            predicted = unet(scale * clean + std * noise, timesteps, text(ids).last_hidden_state).sample
            diffusion = F.mse_loss(predicted, scale * noise - std * clean)
            grounding, accuracy = grounding_loss(record, targets, (timesteps <= recipe.grounding_until).float())
            rate = min(1.0, (step + 1) / recipe.warmup) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate
            optimizer.zero_grad(set_to_none=True)
            (diffusion + recipe.grounding_weight * grounding).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            decay = min(recipe.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for average, module in zip(averages, (unet, text), strict=True):
                    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
            recent.append((diffusion.item(), grounding.item(), accuracy.item()))
            progress.update(task, advance=1)
            if (step + 1) % 20 == 0:
                row = np.mean(recent, axis=0)
                recent.clear()
                with log.open("a") as out:
                    out.write(f"{step + 1},{row[0]:.4f},{row[1]:.4f},{row[2]:.4f},{time.time() - started:.0f}\n")
            if (step + 1) % checkpoint_every == 0 or step + 1 in (recipe.steps, stop_after):
                state = {
                    "modules": [module.state_dict() for module in (unet, text, *averages)],
                    "optimizer": optimizer.state_dict(), "step": step + 1,
                }  # fmt: skip
                torch.save(state, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").replace(checkpoint)
                save_folder(output / "model", *averages, vae, tokenizer)
            if step + 1 == stop_after:
                return


def main() -> None:
    """Run the training that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for photos, checkpoints and the model")
    parser.add_argument(
        "--start-from", type=Path, help="model folder of an earlier training whose weights to start from"
    )
    parser.add_argument("--photos-from", type=Path, help="folder of an earlier training whose photos to use")
    parser.add_argument("--stop-after", type=int, help="stop after this step; the next call resumes")
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = vars(parser.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    output, every = arguments.pop("output"), arguments.pop("checkpoint_every")
    start = {name: arguments.pop(name) for name in ("start_from", "photos_from", "stop_after")}
    train(Recipe(**arguments), output, checkpoint_every=every, **start)


if __name__ == "__main__":
    main()
