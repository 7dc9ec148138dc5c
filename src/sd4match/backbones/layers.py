"""Names of UNet layers (up-blocks and sub-blocks), and the spec of their features. Importing this loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sd4match.backbones.model_files import Fields
from sd4match.backbones.network_fields import TEXT_ENCODER, UNET, VAE, check_table
from sd4match.errors import CheckpointError, ConfigError, shown
from sd4match.fields import LARGEST_SIDE
from sd4match.structures.specs import FeatureSpec

Layer = int | str
"""Name of an up-block (1), or of a sub-block ("1.2"): a resnet and its attention, before the block upsamples."""
Layers = Layer | tuple[Layer, ...]


class LayerIndex(NamedTuple):
    """Index of an up-block, and of a sub-block of it or None for the output of the block; both from 0."""

    block: int
    sub_block: int | None


def parse_layers(layers: Layers | Sequence[Layer]) -> tuple[LayerIndex, ...]:
    """Return the indices of one or several layers, in the order given.

    Args:
        layers: up-blocks (1) or sub-blocks of them ("1.2").

    Raises:
        ConfigError: one of them is not a layer, or is given twice.

    >>> parse_layers(1)
    (LayerIndex(block=1, sub_block=None),)
    >>> parse_layers(("0.1", 2))
    (LayerIndex(block=0, sub_block=1), LayerIndex(block=2, sub_block=None))
    """
    indices = []
    for layer in layers if isinstance(layers, list | tuple) else [layers]:
        text = layer if isinstance(layer, str) else shown(layer)
        found = re.fullmatch(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?", text)
        if found is None or not isinstance(layer, int | str):
            raise ConfigError(f"a layer is an up-block (1) or a sub-block of one ('1.2'), not {shown(layer)}")
        indices.append(LayerIndex(int(found[1]), None if found[2] is None else int(found[2])))
    if not indices or len(set(indices)) < len(indices):
        raise ConfigError(f"layers must be at least one, each once, not {shown(layers)}")
    return tuple(indices)


def layer_name(indices: Sequence[LayerIndex]) -> int | str:
    """Return the name of layers in specs and prompt files: 1 for one up-block, "0.1+1.1" for several layers.

    Args:
        indices: one or several layers.

    >>> layer_name(parse_layers(1)), layer_name(parse_layers(("0.1", 2)))
    (1, '0.1+2')
    """
    names = [str(i.block) if i.sub_block is None else f"{i.block}.{i.sub_block}" for i in indices]
    return int(names[0]) if len(names) == 1 and names[0].isdigit() else "+".join(names)


def stable_diffusion_spec(
    configs: Mapping[str, Mapping[str, Any]],
    *,
    where: str,
    layers: Layers | Sequence[Layer],
    frame: Literal["squash", "pad"],
    dtype: str,
    image_size: int | None,
    cells: int | None,
    clean: bool,
) -> FeatureSpec:
    """Return the spec of a Stable Diffusion's features at some layers.

    Args:
        configs: content of the JSON files of unet, vae and text_encoder.
        where: name of the model in error messages.
        layers: one or several layers.
        frame: how photos are fitted into the model's image.
        dtype: dtype of weights and arithmetic.
        image_size: side of the model's image in pixels; None: the size that the model was trained on.
        cells: side of the feature map in cells; None: that of the finest layer.
        clean: whether the UNet takes latents without noise.

    Raises:
        CheckpointError: a field is missing or has a value that cannot work, the UNet needs other inputs than a prompt,
            UNet, VAE and text encoder do not fit together, or there is no such layer.
        ConfigError: a layer is given twice or is none, or `cells` does not divide the side of the image.
    """
    indices = parse_layers(layers)
    unet, vae, text = (
        Fields(configs[name], f"{where} ({name}/config.json)") for name in ("unet", "vae", "text_encoder")
    )
    widths = unet.whole_list("block_out_channels")[::-1]
    blocks, sub_blocks = len(widths), unet.whole("layers_per_block", high=64, default=2) + 1
    down = 2 ** (len(vae.whole_list("block_out_channels")) - 1)
    native = unet.whole("sample_size", high=LARGEST_SIDE // down) * down
    width, heads = unet.whole("cross_attention_dim"), _heads(unet, blocks)
    latents = _check_parts(unet, vae, text, blocks=blocks, width=width)
    if image_size is None and native % (down * 2 ** (blocks - 1)):
        raise unet.refuse(
            f"sample_size must be a multiple of {2 ** (blocks - 1)}, not {native // down}; or set backbone.image_size"
        )
    _check_exist(indices, blocks, sub_blocks, where)
    channels = tuple(widths[index.block] for index in indices)
    strides = [_stride(index, blocks, down) for index in indices]
    return FeatureSpec(
        channels=sum(channels), stride=_stride_of(cells, image_size or native, min(strides)), prompt_width=width,
        max_length=text.whole("max_position_embeddings", low=3, high=4096), layers=blocks,
        native_size=(native, native), size_multiple=down * 2 ** (blocks - 1),
        architecture=(
            f"UNet {'-'.join(map(str, widths[::-1]))}, heads {heads}, latents {latents}, "
            f"text {width} x {text.whole('num_hidden_layers', high=512)} layers, {text.whole('vocab_size')} tokens"
        ),
        layer=layer_name(indices), frame=frame, dtype=dtype, groups=channels if len(channels) > 1 else (),
        options="clean" if clean else "",
    )  # fmt: skip


def _check_parts(unet: Fields, vae: Fields, text: Fields, *, blocks: int, width: int) -> int:
    """Check that UNet, VAE and text encoder form a Stable Diffusion, and return the number of latent channels."""
    for fields, table in ((unet, UNET), (vae, VAE), (text, TEXT_ENCODER)):
        check_table(fields, table)
    for fields, sides in ((unet, ("down", "up")), (vae, ("down", "up"))):
        count = blocks if fields is unet else len(vae.content["block_out_channels"])
        for side in sides:
            if f"{side}_block_types" in fields.content:
                fields.text_list(f"{side}_block_types", length=count, choices=_BLOCKS[fields is unet, side])
    latents, given = unet.whole("in_channels", high=1024), vae.whole("latent_channels", high=1024, default=4)
    if latents != given:
        raise unet.refuse(
            f"in_channels = {latents} asks for more than the latents of a photo, of which the VAE gives {given}: "
            "models for inpainting, depth or upscaling are not supported"
        )
    if text.whole("hidden_size", default=width) != width:
        raise CheckpointError(
            f"{text.where}: the text encoder gives vectors of width {text.content['hidden_size']}, and the UNet reads "
            f"{width}"
        )
    return latents


_BLOCKS = {
    (True, "down"): ("DownBlock2D", "CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
    (True, "up"): ("UpBlock2D", "CrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    (False, "down"): ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    (False, "up"): ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
}
"""Types of blocks of UNets (True) and VAEs (False)."""


def _heads(unet: Fields, blocks: int) -> int | list[int]:
    """Return the number of attention heads, of all blocks or of each."""
    if isinstance(unet.content.get("attention_head_dim"), list | tuple):
        return unet.whole_list("attention_head_dim", length=blocks)
    return unet.whole("attention_head_dim", default=8 if unet.content.get("num_attention_heads") else None)


def _stride_of(cells: int | None, side: int, finest: int) -> int:
    """Return the image pixels per cell of a map of `cells` per side, or of the finest layer if that is None."""
    if cells is None:
        return finest
    if not 1 <= cells <= side or side % cells:
        raise ConfigError(f"backbone.cells = {cells} must divide the side of the model's image, which is {side} pixels")
    return side // cells


def _check_exist(indices: Sequence[LayerIndex], blocks: int, sub_blocks: int, where: str) -> None:
    for index in indices:
        if index.block >= blocks or (index.sub_block or 0) >= sub_blocks:
            raise CheckpointError(
                f"layer {layer_name([index])} does not exist in {where}: its up-blocks are 0 to {blocks - 1}, each of "
                f"sub-blocks 0 to {sub_blocks - 1}"
            )


def _stride(index: LayerIndex, blocks: int, down: int) -> int:
    """Return image pixels per cell. A block upsamples after its sub-blocks; the last block does not upsample."""
    inside = down * 2 ** (blocks - 1 - index.block)
    return int(inside if index.sub_block is not None else max(inside // 2, down))
