"""The autoencoder of `mini`: an encoder in closed form, half-whitened PCA of 4 x 4 patches, as an `AutoencoderKL`.

Residual branches are zero, so a resnet is its shortcut; the strided convolutions gather the patch; a group of the last
normalisation holds (s, -s, K, -K), whose mean is 0 and whose deviation is K's, and silu(s) - silu(-s) = s: the
encoder is linear to one part in a thousand. The decoder is left as initialised.
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
    """Mean (48,), principal directions (48, 12) and variances (12,) of 4 x 4 patches of (N, 3, H, W) in [-1, 1].

    The 48 values of a patch are in the order that two steps of 2 x 2 space-to-depth give.
    """
    folded = nn.functional.pixel_unshuffle(nn.functional.pixel_unshuffle(images, 2), 2)
    values = folded.permute(0, 2, 3, 1).reshape(-1, 3 * _PATCH**2).double()
    mean = values.mean(0)
    centred = values - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    order = variances.argsort(descending=True)[:LATENT_CHANNELS]
    directions = directions[:, order]
    directions = directions * torch.where(directions.sum(0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    explained = float(variances[order].sum() / variances.sum())
    print(f"autoencoder: {LATENT_CHANNELS} components hold {explained:.1%} of the variance")
    return mean, directions, variances[order]


def build_autoencoder(images: Tensor) -> AutoencoderKL:
    """An `AutoencoderKL` whose posterior mean is the half-whitened PCA of the patches of `images`."""
    mean, directions, variances = patch_statistics(images)
    weights = directions / variances.pow(0.25)
    bias = -(mean @ weights)
    deviations = variances.pow(0.25)  # of each latent channel
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=LATENT_CHANNELS, block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1,
        norm_num_groups=16, mid_block_add_attention=False, sample_size=96,
        scaling_factor=float(1.0 / deviations.square().mean().sqrt()),
    )  # fmt: skip
    with torch.no_grad():
        _write_encoder(vae, weights.float(), bias.float(), float(deviations.square().mean().sqrt()))
    return vae


def _write_encoder(vae: AutoencoderKL, weights: Tensor, bias: Tensor, typical: float) -> None:
    encoder = vae.encoder
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            module.bias.zero_()
    _copy_channels(encoder.conv_in, 3, centre=1)
    first, second, third = encoder.down_blocks
    gather = first.downsamplers[0].conv  # channel 4c + 2i + j <- channel c at (i, j), as pixel_unshuffle orders them
    for channel, i, j in np.ndindex(3, 2, 2):
        gather.weight[4 * channel + 2 * i + j, channel, i, j] = 1.0
    _copy_channels(second.resnets[0].conv_shortcut, 12, centre=0)
    project = second.downsamplers[0].conv
    for channel, i, j in np.ndindex(12, 2, 2):
        project.weight[:LATENT_CHANNELS, channel, i, j] = weights[4 * channel + 2 * i + j]
    project.bias[:LATENT_CHANNELS] = bias
    carrier = _CARRIER * typical
    spread = third.resnets[0].conv_shortcut
    for k in range(LATENT_CHANNELS):
        spread.weight[4 * k, k] = 1.0
        spread.weight[4 * k + 1, k] = -1.0
    spread.bias[2::4] = carrier
    spread.bias[3::4] = -carrier
    encoder.conv_norm_out.weight.fill_(1.0)
    encoder.conv_norm_out.bias.zero_()
    deviation = carrier * (0.5 * (1.0 + 1.0 / _CARRIER**2)) ** 0.5
    for k in range(LATENT_CHANNELS):
        encoder.conv_out.weight[k, 4 * k, 1, 1] = deviation
        encoder.conv_out.weight[k, 4 * k + 1, 1, 1] = -deviation
    encoder.conv_out.bias[LATENT_CHANNELS:] = _LOG_VARIANCE
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    _copy_channels(vae.quant_conv, 2 * LATENT_CHANNELS, centre=0)


def _copy_channels(conv: nn.Conv2d, channels: int, *, centre: int) -> None:
    for channel in range(channels):
        conv.weight[channel, channel, centre, centre] = 1.0
