"""Running and pruning a UNet up to the last requested layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.backbones.layers import LayerIndex


def features_at(
    unet: UNet2DConditionModel,
    noisy: Float[Tensor, "batch latent_channels height width"],
    timestep: int,
    context: Float[Tensor, "batch tokens text_width"],
    layers: Sequence[LayerIndex],
) -> list[Float[Tensor, "batch _ _ _"]]:
    """Return the outputs of some layers of the up path; blocks after the last of them do not run.

    Args:
        unet: UNet of Stable Diffusion 1 or 2, or of any of their block types; pruned or not.
        noisy: noisy latents z_t, (B, C, h, w).
        timestep: t.
        context: prompt embedding that cross-attention reads, (B, L, D).
        layers: up-blocks (after their upsampling) or sub-blocks of them (after resnet and attention).

    Returns:
        Features (B, C, h, w) of each layer, in the order of `layers`.
    """
    outputs: dict[LayerIndex, Tensor] = {}
    times = torch.full((noisy.shape[0],), timestep, device=noisy.device)
    embedding = unet.time_embedding(unet.get_time_embed(sample=noisy, timestep=times))
    hidden: Tensor = unet.conv_in(noisy)
    residuals: tuple[Tensor, ...] = (hidden,)
    for block in unet.down_blocks:
        hidden, skipped = block(hidden, temb=embedding, **_conditioning(block, context))
        residuals += skipped
    hidden = unet.mid_block(hidden, embedding, encoder_hidden_states=context)
    last = max(layer.block for layer in layers)
    for index, block in enumerate(unet.up_blocks[: last + 1]):
        hooks = [
            _sub_block(block, layer.sub_block).register_forward_hook(_output_recorder(outputs, layer))
            for layer in layers
            if layer.block == index and layer.sub_block is not None
        ]
        used = len(block.resnets)
        try:
            hidden = block(
                hidden, temb=embedding, res_hidden_states_tuple=residuals[-used:], **_conditioning(block, context)
            )
        finally:
            for hook in hooks:
                hook.remove()
        residuals = residuals[:-used]
        outputs[LayerIndex(index, None)] = hidden
    return [outputs[layer] for layer in layers]


def prune(unet: UNet2DConditionModel, layers: Sequence[LayerIndex]) -> None:
    """Remove everything after the last requested layer, in place.

    Args:
        unet: UNet to prune.
        layers: requested layers.
    """
    last = max(layer.block for layer in layers)
    unet.up_blocks = unet.up_blocks[: last + 1]
    unet.conv_norm_out = unet.conv_act = unet.conv_out = None
    sub_blocks = [layer.sub_block for layer in layers if layer.block == last]
    if None not in sub_blocks:
        count = max(index for index in sub_blocks if index is not None) + 1
        block = unet.up_blocks[last]
        block.resnets = block.resnets[:count]
        if _has_cross_attention(block):
            block.attentions = block.attentions[:count]
        block.upsamplers = None


def _sub_block(block: nn.Module, index: int | None) -> nn.Module:
    """Return the last module of a sub-block: its attention if it has one, else its resnet."""
    modules: nn.ModuleList = block.attentions if _has_cross_attention(block) else block.resnets  # type: ignore[assignment]
    return modules[index or 0]


def _output_recorder(outputs: dict[LayerIndex, Tensor], layer: LayerIndex) -> Callable[..., None]:
    """Return a forward hook that stores the output of a module in `outputs`."""

    def record(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs[layer] = output if isinstance(output, Tensor) else output[0]

    return record


def _has_cross_attention(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _conditioning(block: nn.Module, context: Tensor) -> dict[str, Tensor]:
    """Return the context as a keyword argument for blocks with cross-attention; {} for other blocks."""
    return {"encoder_hidden_states": context} if _has_cross_attention(block) else {}
