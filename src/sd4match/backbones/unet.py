"""Running a UNet only as far as it is read."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor


def features_at(
    unet: UNet2DConditionModel,
    noisy: Float[Tensor, "batch latent_channels height width"],
    timestep: int,
    context: Float[Tensor, "batch slots text_width"],
    layer: int,
) -> Float[Tensor, "batch channels h w"]:
    """Output of up-block `layer`, from 0; later blocks do not run.

    Args:
        unet: Stable Diffusion 1 or 2, or any of their block types.
        noisy: z_t.
        timestep: t.
        context: what cross-attention reads.
        layer: 0 <= layer < number of up-blocks.

    Returns:
        (B, C, h, w), after the block's upsampling.
    """
    times = torch.full((noisy.shape[0],), timestep, device=noisy.device)
    embedding = unet.time_embedding(unet.get_time_embed(sample=noisy, timestep=times))
    hidden: Tensor = unet.conv_in(noisy)
    skipped: tuple[Tensor, ...] = (hidden,)
    for block in unet.down_blocks:
        hidden, outputs = block(hidden, temb=embedding, **_conditioning(block, context))
        skipped += outputs
    hidden = unet.mid_block(hidden, embedding, encoder_hidden_states=context)
    for block in unet.up_blocks[: layer + 1]:
        used = len(block.resnets)
        hidden = block(hidden, temb=embedding, res_hidden_states_tuple=skipped[-used:], **_conditioning(block, context))
        skipped = skipped[:-used]
    return hidden


def _conditioning(block: torch.nn.Module, context: Tensor) -> dict[str, Tensor]:
    """Blocks without cross-attention do not take the context."""
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
