"""Running a UNet, and keeping it, only as far as it is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.backbones.layers import Place


def features_at(
    unet: UNet2DConditionModel,
    noisy: Float[Tensor, "batch latent_channels height width"],
    timestep: int,
    context: Float[Tensor, "batch slots text_width"],
    places: Sequence[Place],
) -> list[Float[Tensor, "batch _ _ _"]]:
    """Outputs at some places of the up path; blocks after the last of them do not run.

    Args:
        unet: Stable Diffusion 1 or 2, or any of their block types; pruned or not.
        noisy: z_t.
        timestep: t.
        context: what cross-attention reads.
        places: up-blocks (after their upsampling) or sub-blocks of them (after resnet and attention).

    Returns:
        A (B, C, h, w) for each place, in their order.
    """
    found: dict[Place, Tensor] = {}
    times = torch.full((noisy.shape[0],), timestep, device=noisy.device)
    embedding = unet.time_embedding(unet.get_time_embed(sample=noisy, timestep=times))
    hidden: Tensor = unet.conv_in(noisy)
    skipped: tuple[Tensor, ...] = (hidden,)
    for block in unet.down_blocks:
        hidden, outputs = block(hidden, temb=embedding, **_conditioning(block, context))
        skipped += outputs
    hidden = unet.mid_block(hidden, embedding, encoder_hidden_states=context)
    last = max(place.block for place in places)
    for number, block in enumerate(unet.up_blocks[: last + 1]):
        hooks = [
            _sub_block(block, place.sub).register_forward_hook(_keeper(found, place))
            for place in places
            if place.block == number and place.sub is not None
        ]
        used = len(block.resnets)
        try:
            hidden = block(
                hidden, temb=embedding, res_hidden_states_tuple=skipped[-used:], **_conditioning(block, context)
            )
        finally:
            for hook in hooks:
                hook.remove()
        skipped = skipped[:-used]
        found[Place(number, None)] = hidden
    return [found[place] for place in places]


def prune(unet: UNet2DConditionModel, places: Sequence[Place]) -> None:
    """Drop, in place, whatever comes after the last place that is read."""
    last = max(place.block for place in places)
    unet.up_blocks = unet.up_blocks[: last + 1]
    unet.conv_norm_out = unet.conv_act = unet.conv_out = None
    subs = [place.sub for place in places if place.block == last]
    if None not in subs:
        kept = max(sub for sub in subs if sub is not None) + 1
        block = unet.up_blocks[last]
        block.resnets = block.resnets[:kept]
        if _conditioned(block):
            block.attentions = block.attentions[:kept]
        block.upsamplers = None


def _sub_block(block: nn.Module, sub: int | None) -> nn.Module:
    """The module whose output is the sub-block's: its attention, if it has one."""
    modules: nn.ModuleList = block.attentions if _conditioned(block) else block.resnets  # type: ignore[assignment]
    return modules[sub or 0]


def _keeper(found: dict[Place, Tensor], place: Place):  # type: ignore[no-untyped-def]
    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        found[place] = output if isinstance(output, Tensor) else output[0]

    return keep


def _conditioned(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _conditioning(block: nn.Module, context: Tensor) -> dict[str, Tensor]:
    """Blocks without cross-attention do not take the context."""
    return {"encoder_hidden_states": context} if _conditioned(block) else {}
