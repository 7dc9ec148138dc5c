"""Autoencoder of `mini`, whose encoder is computed in closed form: half-whitened PCA of 4 x 4 patches.

The encoder is an ordinary `AutoencoderKL` whose weights make it linear to one part in a thousand. Residual branches are
zero, so that a resnet equals its shortcut. The strided convolutions gather the patch. A group of the last normalization
holds (s, -s, K, -K), with mean 0 and the standard deviation of K, and silu(s) - silu(-s) = s. The decoder has its
initial random weights.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

LATENT_CHANNELS = 12
_PATCH = 4
_CARRIER = 100.0
_LOG_VARIANCE = -8.0


def patch_statistics(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the PCA of 4 x 4 patches.

    Args:
        images: (N, 3, H, W) in [-1, 1].

    Returns:
        Mean (48,), principal directions (48, 12) and variances (12,). The 48 values of a patch are in the order of two
        steps of 2 x 2 space-to-depth.
    """
    folded = nn.functional.pixel_unshuffle(nn.functional.pixel_unshuffle(images, 2), 2)
    values = folded.permute(0, 2, 3, 1).reshape(-1, 3 * _PATCH**2).double()
    mean = values.mean(0)
    centered = values - mean
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    order = variances.argsort(descending=True)[:LATENT_CHANNELS]
    directions = directions[:, order]
    directions = directions * torch.where(directions.sum(0) < 0, -1.0, 1.0)  # fixes the arbitrary sign
    explained = float(variances[order].sum() / variances.sum())
    print(f"autoencoder: {LATENT_CHANNELS} components hold {explained:.1%} of the variance")
    return mean, directions, variances[order]


def build_autoencoder(images: Tensor) -> AutoencoderKL:
    """Return an `AutoencoderKL` whose posterior mean is the half-whitened PCA of the patches of images.

    Args:
        images: (N, 3, H, W) in [-1, 1].
    """
    mean, directions, variances = patch_statistics(images)
    weights = directions / variances.pow(0.25)
    bias = -(mean @ weights)
    std = variances.pow(0.25)  # of each latent channel
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=LATENT_CHANNELS, block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1,
        norm_num_groups=16, mid_block_add_attention=False, sample_size=96,
        scaling_factor=float(1.0 / std.square().mean().sqrt()),
    )  # fmt: skip
    with torch.no_grad():
        _write_encoder(vae, weights.float(), bias.float(), float(std.square().mean().sqrt()))
    return vae


def _write_encoder(vae: AutoencoderKL, weights: Tensor, bias: Tensor, typical_std: float) -> None:
    """Write weights (48, 12) and bias (12,) of a linear map of patches into the encoder's convolutions."""
    encoder = vae.encoder
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            module.bias.zero_()
    _copy_channels(encoder.conv_in, 3, center=1)
    first, second, third = encoder.down_blocks
    gather = first.downsamplers[0].conv  # channel 4c + 2i + j <- channel c at (i, j), as pixel_unshuffle orders them
    for channel, i, j in np.ndindex(3, 2, 2):
        gather.weight[4 * channel + 2 * i + j, channel, i, j] = 1.0
    _copy_channels(second.resnets[0].conv_shortcut, 12, center=0)
    project = second.downsamplers[0].conv
    for channel, i, j in np.ndindex(12, 2, 2):
        project.weight[:LATENT_CHANNELS, channel, i, j] = weights[4 * channel + 2 * i + j]
    project.bias[:LATENT_CHANNELS] = bias
    carrier = _CARRIER * typical_std
    expand = third.resnets[0].conv_shortcut
    for k in range(LATENT_CHANNELS):
        expand.weight[4 * k, k] = 1.0
        expand.weight[4 * k + 1, k] = -1.0
    expand.bias[2::4] = carrier
    expand.bias[3::4] = -carrier
    encoder.conv_norm_out.weight.fill_(1.0)
    encoder.conv_norm_out.bias.zero_()
    carrier_std = carrier * (0.5 * (1.0 + 1.0 / _CARRIER**2)) ** 0.5
    for k in range(LATENT_CHANNELS):
        encoder.conv_out.weight[k, 4 * k, 1, 1] = carrier_std
        encoder.conv_out.weight[k, 4 * k + 1, 1, 1] = -carrier_std
    encoder.conv_out.bias[LATENT_CHANNELS:] = _LOG_VARIANCE
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    _copy_channels(vae.quant_conv, 2 * LATENT_CHANNELS, center=0)


def _copy_channels(conv: nn.Conv2d, channels: int, *, center: int) -> None:
    """Let the first channels of a convolution copy its input; `center` is the index of the kernel's center."""
    for channel in range(channels):
        conv.weight[channel, channel, center, center] = 1.0
