"""Train `mini`, the small latent diffusion model that comes with the package.

    python tools/render_mini.py --output runs/photos --photos 300000
    python tools/train_mini.py --photos runs/photos --output runs/mini --vae src/sd4match/backbones/mini_weights

Runs on the CPU and, much faster, on a CUDA device. A run that is started again with the same recipe resumes from its
last checkpoint. The model card in src/sd4match/backbones/mini_weights explains the recipe.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parent))
from mini.autoencoder import LATENT_CHANNELS, build_autoencoder
from mini.captions import CAPTIONS, MAX_LENGTH, build_tokenizer, targets
from mini.grounding import AttentionRecord, grounding_loss, record_cross_attention
from mini.photos import PHOTOS_A_FILE, read_files, wait_for

_LOG_EVERY = 50
_ENCODED_AT_ONCE = 250


@dataclass(frozen=True)
class Recipe:
    """Parameters that the result depends on, beside the photos."""

    steps: int = 8_000
    batch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.5
    """Fraction of the steps over which the learning rate falls to 0."""
    weight_decay: float = 1e-2
    ema: float = 0.999
    timestep_power: float = 1.7
    grounding_weight: float = 0.5
    grounding_until: int = 500
    category_grounding: float = 0.5
    widths: str = "48,96,128"
    text_width: int = 128
    seed: int = 0


class Pool:
    """Encoded photos on the training's device, which grow while more are rendered.

    Args:
        folder: folder of the photos.
        vae: encoder.
        device: device of the training.
    """

    def __init__(self, folder: Path, vae: AutoencoderKL, device: torch.device) -> None:
        self.folder, self.vae, self.device = folder, vae, device
        self._files = 0
        self._parts: list[tuple[Tensor, ...]] = []
        self.latents, self.coverage, self.tokens, self.places = (torch.empty(0),) * 4

    def __len__(self) -> int:
        return len(self.latents)

    @torch.no_grad()
    def grow(self) -> None:
        """Encode the photos that were rendered since the last call."""
        for photos in read_files(self.folder, self._files):
            pixels = photos.pixels.to(self.device).float() / 127.5 - 1
            latents = torch.cat([self.vae.encode(part).latent_dist.mean for part in pixels.split(_ENCODED_AT_ONCE)])
            latents = (latents * self.vae.config.scaling_factor).half()
            arrays = (photos.coverage, photos.tokens, photos.places)
            self._parts.append((latents, *(array.to(self.device) for array in arrays)))
            self._files += 1
        if self._files * PHOTOS_A_FILE > len(self):
            self.latents, self.coverage, self.tokens, self.places = (
                torch.cat(kind) for kind in zip(*self._parts, strict=True)
            )
            self._parts = [(self.latents, self.coverage, self.tokens, self.places)]

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw photos and one caption of each.

        Returns:
            Latents (B, 12, 24, 24), coverage (B, 8, 24, 24) in [0, 1], token ids (B, 77) and places (B, 9).
        """
        rows = torch.from_numpy(rng.choice(len(self), size=count, replace=False)).to(self.device)
        captions = torch.from_numpy(rng.integers(CAPTIONS, size=count)).to(self.device)
        coverage = self.coverage[rows].float() / 16
        return self.latents[rows].float(), coverage, self.tokens[rows, captions].long(), self.places[rows, captions]


def build_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """Return a CLIP text transformer of two layers with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=MAX_LENGTH, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=width,
        )
    )  # fmt: skip


def build_unet(widths: tuple[int, ...], text_width: int) -> UNet2DConditionModel:
    """Return a UNet with random weights and cross-attention on 12 and 6 cells and in all up-blocks.

    Without words in the last up-block, the block before it is the last one that needs them, and matches badly.
    """
    return UNet2DConditionModel(
        sample_size=24, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
        block_out_channels=widths, norm_num_groups=16, cross_attention_dim=text_width, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D",) * 3,
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


class Training:
    """The networks, their averages and the optimizer.

    Args:
        recipe: parameters.
        device: where to train.
        vae: encoder and decoder, which are not trained.
    """

    def __init__(self, recipe: Recipe, device: torch.device, vae: AutoencoderKL) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.vae = recipe, device, vae
        self.tokenizer = build_tokenizer()
        self.text = build_text_encoder(self.tokenizer, recipe.text_width).to(device)
        self.unet = build_unet(tuple(int(w) for w in recipe.widths.split(",")), recipe.text_width).to(device)
        self.averages = (copy.deepcopy(self.unet), copy.deepcopy(self.text))
        self.record = record_cross_attention(self.unet) if recipe.grounding_weight else AttentionRecord()
        self.parameters = [*self.unet.parameters(), *self.text.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.alphas_cumprod = build_scheduler().alphas_cumprod.to(device)
        self.step = 0
        self._noise = torch.Generator(device)
        self._autocast = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()

    def advance(self, photos: Pool, progress: float) -> Tensor:
        """Do one step.

        Args:
            photos: to draw from.
            progress: fraction of the training that is done, in [0, 1].

        Returns:
            Diffusion loss, grounding loss and accuracy of attention, (3,).
        """
        recipe = self.recipe
        self._noise.manual_seed(recipe.seed * 1_000_003 + self.step)
        clean, coverage, ids, places = photos.draw(np.random.default_rng([recipe.seed, 1, self.step]), recipe.batch)
        noise = torch.randn(clean.shape, generator=self._noise, device=self.device)
        drawn = torch.rand(recipe.batch, generator=self._noise, device=self.device)
        timesteps = (1000 * drawn**recipe.timestep_power).long()
        scale = self.alphas_cumprod[timesteps].sqrt()[:, None, None, None]
        std = (1 - self.alphas_cumprod[timesteps]).sqrt()[:, None, None, None]
        self.record.maps.clear()
        with self._autocast:
            predicted = self.unet(scale * clean + std * noise, timesteps, self.text(ids).last_hidden_state).sample
        diffusion = F.mse_loss(predicted.float(), scale * noise - std * clean)
        grounding, accuracy = diffusion.new_zeros(()), diffusion.new_zeros(())
        if self.record.maps:
            tokens, wanted = targets(places, coverage, category_grounding=recipe.category_grounding)
            clear = (timesteps <= recipe.grounding_until).float()[:, None, None, None]
            grounding, accuracy = grounding_loss(self.record, tokens, wanted * clear)
        rate = min(1.0, (self.step + 1) / recipe.warmup, (1 - progress) / recipe.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        self.optimizer.zero_grad(set_to_none=True)
        (diffusion + recipe.grounding_weight * grounding).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, module in zip(self.averages, (self.unet, self.text), strict=True):
                torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
        self.step += 1
        return torch.stack([diffusion.detach(), grounding.detach(), accuracy])

    def save(self, folder: Path) -> None:
        """Write the averaged model as a diffusers folder."""
        save_folder(folder, *self.averages, self.vae, self.tokenizer)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        modules = [module.state_dict() for module in (self.unet, self.text, *self.averages)]
        return {"modules": modules, "optimizer": self.optimizer.state_dict(), "step": self.step}

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(checkpoint, weights_only=True, map_location=self.device)
        for module, weights in zip((self.unet, self.text, *self.averages), state["modules"], strict=True):
            module.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def train(
    recipe: Recipe,
    photos: Path,
    output: Path,
    *,
    device: torch.device,
    vae: Path | None,
    minutes: float | None,
    keep: tuple[float, ...],
    checkpoint_every: int,
    stop_after: int | None,
) -> None:
    """Train `mini` and write it to `output / "model"` in diffusers' layout.

    Args:
        recipe: parameters of the training.
        photos: folder of `render_mini.py`.
        output: run directory.
        device: where to train.
        vae: model folder whose autoencoder to use; if not given, an encoder is fitted to the first photos.
        minutes: how long to train instead of the recipe's number of steps; the photos that are there are used, and
            the number of steps is written to the recipe at the end.
        keep: fractions of the training after which the model is also written to `output / "at-..."`.
        checkpoint_every: number of steps between checkpoints.
        stop_after: step after which to stop, to be resumed later.
    """
    output.mkdir(parents=True, exist_ok=True)
    settings, checkpoint, log = output / "recipe.json", output / "checkpoint.pt", output / "log.csv"
    if settings.exists() and json.loads(settings.read_text()) != asdict(recipe):
        raise SystemExit(f"{output} holds a training with other settings; choose another --output")
    settings.write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    wait_for(photos, PHOTOS_A_FILE)
    encoder = _autoencoder(photos, vae)
    training = Training(recipe, device, encoder)
    if checkpoint.exists():
        training.load(checkpoint)
    else:
        log.write_text("step,diffusion,grounding,attention_accuracy,photos,seconds\n")
    pool = Pool(photos, copy.deepcopy(encoder).to(device).requires_grad_(False).eval(), device)
    pool.grow()
    started, recent, kept = time.perf_counter(), [], list(keep)
    while True:
        elapsed = time.perf_counter() - started
        progress = training.step / recipe.steps if minutes is None else elapsed / (60 * minutes)
        while kept and progress >= kept[0]:
            training.save(output / f"at-{kept.pop(0):g}")
        if progress >= 1 or training.step == stop_after:
            break
        recent.append(training.advance(pool, progress))
        if training.step % _LOG_EVERY == 0:
            row = ",".join(f"{value:.4f}" for value in torch.stack(recent).mean(dim=0).tolist())
            recent.clear()
            with log.open("a") as out:
                out.write(f"{training.step},{row},{len(pool)},{time.perf_counter() - started:.0f}\n")
            if minutes is not None:
                pool.grow()
        if training.step % checkpoint_every == 0:
            _write_checkpoint(training, checkpoint)
    _write_checkpoint(training, checkpoint)
    training.save(output / "model")
    if minutes is not None:
        settings.write_text(json.dumps(asdict(replace(recipe, steps=training.step)), indent=2) + "\n")


def _autoencoder(photos: Path, vae: Path | None) -> AutoencoderKL:
    """Return the autoencoder of a model folder, or one that is fitted to the first photos."""
    if vae is not None:
        loaded: AutoencoderKL = AutoencoderKL.from_pretrained(vae, subfolder="vae", torch_dtype=torch.float32)
        return loaded
    return build_autoencoder(next(read_files(photos, 0)).pixels.float() / 127.5 - 1)


def _write_checkpoint(training: Training, file: Path) -> None:
    """Replace the checkpoint."""
    torch.save(training.state(), file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


def main() -> None:
    """Run the training that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of render_mini.py")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the model")
    parser.add_argument("--vae", type=Path, help="model folder whose autoencoder to use; otherwise one is fitted")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, help="train for so long instead of --steps")
    parser.add_argument(
        "--keep", default="", help="fractions of the training whose models to keep, for example 0.25,0.5"
    )
    parser.add_argument("--stop-after", type=int, help="stop after this step; the next call resumes")
    parser.add_argument("--checkpoint-every", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    for field in fields(Recipe):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    train(
        recipe, options.photos, options.output, device=torch.device(options.device), vae=options.vae,
        minutes=options.minutes, keep=tuple(float(part) for part in options.keep.split(",") if part),
        checkpoint_every=options.checkpoint_every, stop_after=options.stop_after,
    )  # fmt: skip


if __name__ == "__main__":
    main()
