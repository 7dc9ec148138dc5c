"""Train the decoder of `mini`'s autoencoder, which makes its latents visible; takes less than half an hour.

    python tools/train_mini_decoder.py --model src/sd4match/backbones/mini_weights --output runs/decoder

The encoder (closed-form PCA) is not changed, so latents, features and prompts remain the same.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.progress import Progress, track
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from sd4match.data.synthetic.scene import render

TRAINING_STREAM = 1_000
HELD_OUT_STREAM = 2_000
CROPPED = 0.9


def draw(stream: int, count: int) -> Tensor:
    """Render the first photos of a stream.

    Returns:
        (N, 3, 96, 96) uint8; divide by 127.5 and subtract 1 for the model's range [-1, 1].
    """
    with Pool(2) as pool:
        photos = list(track(pool.imap(_Draw(stream), range(count), chunksize=64), "rendering photos", total=count))
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2)


class _Draw:
    def __init__(self, stream: int) -> None:
        self.stream = stream

    def __call__(self, index: int) -> np.ndarray:
        return render(self.stream, index).pixels


def loss_of(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Compute the mean absolute error of pixels and of differences of neighboring pixels, which keeps edges sharp."""
    value = (decoded - pixels).abs().mean()
    for axis in (2, 3):
        value = value + (decoded.diff(dim=axis) - pixels.diff(dim=axis)).abs().mean()
    return value


def main() -> None:
    """Run the training that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder whose autoencoder to use")
    parser.add_argument("--output", type=Path, required=True, help="folder to which vae/ is written")
    parser.add_argument("--photos", type=int, default=6_000)
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    vae: AutoencoderKL = AutoencoderKL.from_pretrained(options.model, subfolder="vae").float()
    vae.requires_grad_(False)
    for trained in (vae.post_quant_conv, vae.decoder):
        for module in trained.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        trained.requires_grad_(True)
    photos, held_out = draw(TRAINING_STREAM, options.photos), draw(HELD_OUT_STREAM, 200)
    learned = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=options.learning_rate, weight_decay=1e-4, fused=True)
    options.output.mkdir(parents=True, exist_ok=True)
    log = options.output / "log.csv"
    log.write_text("step,loss,held_out_absolute_error\n")
    with Progress() as progress:
        task = progress.add_task("training", total=options.steps)
        for step in range(options.steps):
            rows = np.random.default_rng([options.seed, step]).choice(options.photos, options.batch, replace=False)
            pixels = photos[rows].float() / 127.5 - 1
            if step < CROPPED * options.steps:  # a quarter of the work; whole photos at the end
                top, left = 4 * np.random.default_rng([options.seed, step, 1]).integers(0, 13, size=2)
                pixels = pixels[:, :, top : top + 48, left : left + 48]
            latents = vae.encode(pixels).latent_dist.sample()
            loss = loss_of(vae.decode(latents).sample, pixels)
            rate = min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * rate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            progress.update(task, advance=1)
            if (step + 1) % 250 == 0 or step + 1 == options.steps:
                with log.open("a") as out:
                    out.write(f"{step + 1},{loss.item():.4f},{held_out_error(vae, held_out):.4f}\n")
    shutil.rmtree(options.output / "vae", ignore_errors=True)
    vae.half().save_pretrained(options.output / "vae")


@torch.no_grad()
def held_out_error(vae: AutoencoderKL, photos: Tensor) -> float:
    """Compute the mean absolute error, in units of the range of a pixel, of photos that were not trained on."""
    errors = [
        F.l1_loss(vae.decode(vae.encode(images).latent_dist.mode()).sample, images).item() / 2
        for images in (photos.float() / 127.5 - 1).split(50)
    ]
    return float(np.mean(errors))


if __name__ == "__main__":
    main()
