"""Layers of a UNet whose outputs are read: up-blocks, or sub-blocks of them. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sd4match.errors import CheckpointError, ConfigError
from sd4match.structures.specs import FeatureSpec

Layer = int | str
"""Up-block (1), or "block.sub-block" ("1.2"): the output of a resnet and its attention, before the block upsamples."""
Layers = Layer | tuple[Layer, ...]


class LayerIndex(NamedTuple):
    """Index of an up-block, and of a sub-block of it or None for the output of the block; both from 0."""

    block: int
    sub_block: int | None


def parse_layers(layers: Layers | Sequence[Layer]) -> tuple[LayerIndex, ...]:
    """Return the indices of one or several layers, in the order given.

    Raises:
        ConfigError: one of them is not a layer, or is given twice.

    >>> parse_layers(1)
    (LayerIndex(block=1, sub_block=None),)
    >>> parse_layers(("0.1", 2))
    (LayerIndex(block=0, sub_block=1), LayerIndex(block=2, sub_block=None))
    """
    indices = []
    for layer in [layers] if isinstance(layers, int | str) else layers:
        block, dot, sub_block = str(layer).partition(".")
        if not block.isdigit() or (dot and not sub_block.isdigit()):
            raise ConfigError(f"a layer is an up-block (1) or a sub-block of one ('1.2'), not {layer!r}")
        indices.append(LayerIndex(int(block), int(sub_block) if dot else None))
    if not indices or len(set(indices)) < len(indices):
        raise ConfigError(f"layers must be at least one, each once, not {layers}")
    return tuple(indices)


def layer_name(indices: Sequence[LayerIndex]) -> int | str:
    """Return what specs and prompt files call layers: 1 for one up-block, "0.1+1.1" for more.

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
        layers: one or several.
        frame: how photos are fitted into the model's image.
        dtype: of weights and arithmetic.
        image_size: side of the model's image in pixels; None: the size that the model was trained on.
        cells: side of the feature map in cells; None: that of the finest layer.
        clean: whether the UNet takes latents without noise.

    Raises:
        CheckpointError: a config lacks a field, text encoder and UNet do not fit, or there is no such layer.
    """
    indices = parse_layers(layers)
    try:
        unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
        widths = unet["block_out_channels"][::-1]
        blocks, sub_blocks = len(widths), unet.get("layers_per_block", 2) + 1
        down = 2 ** (len(vae["block_out_channels"]) - 1)
        native = unet["sample_size"] * down
        heads, width = unet["attention_head_dim"], unet["cross_attention_dim"]
        _check_exist(indices, blocks, sub_blocks, where)
        channels = tuple(widths[index.block] for index in indices)
        strides = [_stride(index, blocks, down) for index in indices]
        size = image_size or native
        stride = min(strides) if cells is None else size // cells
        if text.get("hidden_size", width) != width:
            raise CheckpointError(
                f"{where}: the text encoder gives vectors of width {text['hidden_size']}, and the UNet reads {width}"
            )
        return FeatureSpec(
            channels=sum(channels), stride=stride, prompt_width=width, max_length=text["max_position_embeddings"],
            layers=blocks, native_size=(native, native), size_multiple=down * 2 ** (blocks - 1),
            architecture=(
                f"UNet {'-'.join(map(str, widths[::-1]))}, heads {heads}, latents {unet['in_channels']}, "
                f"text {width} x {text['num_hidden_layers']} layers, {text['vocab_size']} tokens"
            ),
            layer=layer_name(indices), frame=frame, dtype=dtype, groups=channels if len(channels) > 1 else (),
            options="clean" if clean else "",
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{where} is not Stable Diffusion as diffusers saves it: field {error} missing") from None


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
