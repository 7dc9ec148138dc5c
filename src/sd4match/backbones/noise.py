"""Noisy latents of Eq. 1. Every image has its own random streams."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.structures.tensors import Encoded, Sampling
from sd4match.structures.tensors import EvaluationNoise as EvaluationNoise
from sd4match.structures.tensors import TrainingNoise as TrainingNoise

Draw = tuple[str | int, ...]
"""Name of a draw from an image's stream, for example ("noise", member)."""


def noisy_latents(
    encoded: Encoded, sampling: Sampling, members: Sequence[int], *, scale: float, alpha_cumprod: Float[Tensor, ""]
) -> Float[Tensor, "rows latent_channels latent_height latent_width"]:
    """Compute z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (Eq. 1) for some ensemble members of all B images.

    z_0 is the posterior's mean, or mean + std * noise, times the scale of the VAE.

    Args:
        encoded: B images, with tensors "mean" and "log_variance" (B, C, h, w) of the VAE's posterior.
        sampling: noise and posterior policies.
        members: indices of the ensemble members.
        scale: scaling factor of the VAE.
        alpha_cumprod: abar_t in (0, 1), on the device where the result is needed.

    Returns:
        (members * B, C, h, w): all images of the first member, then of the next.
    """
    mean = encoded.tensors["mean"].to(alpha_cumprod.device)
    std = torch.exp(0.5 * encoded.tensors["log_variance"].to(mean))
    clean: dict[int, Tensor] = {}
    rows = []
    for member in members:
        draw = member if sampling.posterior == "member" else 0
        if draw not in clean and sampling.posterior == "mode":
            clean[draw] = mean * scale
        elif draw not in clean:
            clean[draw] = (mean + std * image_noise(encoded, sampling, ("posterior", draw)).to(mean)) * scale
        noise = image_noise(encoded, sampling, ("noise", member)).to(mean)
        rows.append(alpha_cumprod.sqrt() * clean[draw] + (1 - alpha_cumprod).sqrt() * noise)
    return torch.cat(rows)


def image_noise(encoded: Encoded, sampling: Sampling, draw: Draw) -> Float[Tensor, "batch _ _ _"]:
    """Draw standard normal noise for each image from its own stream.

    Noise is drawn on the CPU, so that it has the same bits on every device.

    Args:
        encoded: B images, with a tensor "mean" (B, C, h, w).
        sampling: noise policy, which seeds the streams.
        draw: name of the draw.

    Returns:
        (B, C, h, w), float32, on the CPU.
    """
    policy = sampling.noise
    rows = []
    for row, key in enumerate(encoded.keys):
        stream: tuple[int | str, ...]
        if isinstance(policy, TrainingNoise):
            stream = (policy.seed, policy.step, policy.indices[row] if policy.indices else row)
        else:
            stream = (policy.seed, key)
        digest = hashlib.blake2b(repr((*stream, *draw)).encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        rows.append(torch.randn(encoded.tensors["mean"].shape[1:], generator=generator))
    return torch.stack(rows)
