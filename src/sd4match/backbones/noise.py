"""Eq. 1: clean latents out of the posterior, noise out of a stream for each image, noisy latents out of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.structures.tensors import Latents, Sampling, TrainingNoise

Draw = tuple[str | int, ...]
"""What is drawn of an image's stream: for example ("noise", member)."""


def noisy_latents(
    latents: Latents, sampling: Sampling, members: Sequence[int], *, scale: float, signal: Float[Tensor, ""]
) -> Float[Tensor, "rows latent_channels latent_height latent_width"]:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (Eq. 1), for some members of the ensemble of all B images.

    z_0 is the posterior's mean, or mean + deviation * noise, times the VAE's scale.

    Args:
        latents: the posterior's moments, of B images.
        sampling: noise policy and posterior.
        members: numbers of the ensemble's members.
        scale: of the VAE.
        signal: abar_t, on the device where the result is wanted.

    Returns:
        All images of the first member, then of the next.
    """
    mean = latents.mean.to(signal.device)
    deviation = torch.exp(0.5 * latents.log_variance.to(mean))
    clean: dict[int, Tensor] = {}
    rows = []
    for member in members:
        draw = member if sampling.posterior == "member" else 0
        if draw not in clean and sampling.posterior == "mode":
            clean[draw] = mean * scale
        elif draw not in clean:
            clean[draw] = (mean + deviation * image_noise(latents, sampling, ("posterior", draw)).to(mean)) * scale
        noise = image_noise(latents, sampling, ("noise", member)).to(mean)
        rows.append(signal.sqrt() * clean[draw] + (1 - signal).sqrt() * noise)
    return torch.cat(rows)


def image_noise(latents: Latents, sampling: Sampling, draw: Draw) -> Float[Tensor, "batch _ _ _"]:
    """Standard normal noise for each image, from a stream of its own; drawn on the CPU, so the same on any device."""
    policy = sampling.noise
    rows = []
    for row, key in enumerate(latents.keys):
        name: tuple[int | str, ...]
        if isinstance(policy, TrainingNoise):
            name = (policy.seed, policy.step, policy.places[row] if policy.places else row)
        else:
            name = (policy.seed, key)
        digest = hashlib.blake2b(repr((*name, *draw)).encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        rows.append(torch.randn(latents.mean.shape[1:], generator=generator))
    return torch.stack(rows)
