"""Noisy latents of Eq. 1, with random streams of their own for every image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from sd4match.checks import check_shape
from sd4match.errors import ComponentError, InputError
from sd4match.interfaces import NoiseEnsemble
from sd4match.interfaces.calls import call_component, describe_component
from sd4match.registry import ensembles
from sd4match.structures.tensors import Encoded, Sampling
from sd4match.structures.tensors import EvaluationNoise as EvaluationNoise
from sd4match.structures.tensors import TrainingNoise as TrainingNoise


def noisy_latents(
    encoded: Encoded, sampling: Sampling, members: Sequence[int], *, scale: float, alpha_cumprod: Float[Tensor, ""]
) -> Float[Tensor, "rows latent_channels latent_height latent_width"]:
    """Compute z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (Eq. 1) for some ensemble members of all B images.

    z_0 is the posterior's mean, or mean + std * noise, times the scale of the VAE.

    Args:
        encoded: B images, with tensors "mean" and "log_variance" (B, C, h, w) of the VAE's posterior.
        sampling: noise, ensemble and posterior policies.
        members: indices of the ensemble members.
        scale: scaling factor of the VAE.
        alpha_cumprod: abar_t in (0, 1), on the device where the result is needed.

    Returns:
        (members * B, C, h, w): all images of the first member, then of the next.

    Raises:
        ComponentError: a custom ensemble raises an error, or returns noises of another shape or that are not finite.
    """
    mean = encoded.tensors["mean"].to(alpha_cumprod.device)
    std = torch.exp(0.5 * encoded.tensors["log_variance"].to(mean))
    images = range(len(encoded))
    draws = [member if sampling.posterior == "member" else 0 for member in members]
    ensemble = ensembles.parse(sampling.ensemble).build()

    def clean(draw: int) -> Tensor:
        if sampling.posterior == "mode":
            return mean * scale
        noise = torch.stack([image_noise(encoded, sampling, image, "posterior", draw) for image in images])
        return (mean + std * noise.to(mean)) * scale

    latents = {draw: clean(draw) for draw in set(draws)}
    noises = [_member_noises(ensemble, encoded, sampling, image, members) for image in images]
    return torch.cat(
        [
            alpha_cumprod.sqrt() * latents[draw] + (1 - alpha_cumprod).sqrt() * noise
            for draw, noise in zip(draws, torch.stack(noises, dim=1).to(mean), strict=True)
        ]
    )


def image_noise(
    encoded: Encoded, sampling: Sampling, image: int, purpose: str, number: int
) -> Float[Tensor, "latent_channels latent_height latent_width"]:
    """Draw standard normal noise from the stream of one image.

    Noise is drawn on the CPU, so that it has the same bits on every device.

    Args:
        encoded: B images, with a tensor "mean" (B, C, h, w).
        sampling: noise policy, which seeds the streams.
        image: index of the image.
        purpose: "noise" of Eq. 1, or "posterior" of the VAE.
        number: index of the draw.

    Returns:
        (C, h, w), float32, on the CPU.
    """
    policy = sampling.noise
    stream: tuple[int | str, ...]
    if isinstance(policy, TrainingNoise):
        stream = (policy.seed, policy.step, policy.indices[image] if policy.indices else image)
    else:
        stream = (policy.seed, encoded.keys[image])
    digest = hashlib.blake2b(repr((*stream, purpose, number)).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(encoded.tensors["mean"].shape[1:], generator=generator)


def _member_noises(
    ensemble: NoiseEnsemble, encoded: Encoded, sampling: Sampling, image: int, members: Sequence[int]
) -> Float[Tensor, "members latent_channels latent_height latent_width"]:
    """Return the noises of some ensemble members of one image."""
    draw = partial(image_noise, encoded, sampling, image, "noise")
    answer = call_component("noise ensemble", ensemble, ensemble.noises, draw, sampling.ensemble_size, tuple(members))
    _, channels, height, width = encoded.tensors["mean"].shape
    try:
        check_shape("its noises", answer, "M C h w", of="floats", M=len(members), C=channels, h=height, w=width)
    except InputError as error:
        raise ComponentError(f"{describe_component('noise ensemble', ensemble)}: {error}") from None
    noises: Tensor = answer
    if not bool(noises.isfinite().all()):
        raise ComponentError(f"{describe_component('noise ensemble', ensemble)}: its noises are not finite")
    return noises
