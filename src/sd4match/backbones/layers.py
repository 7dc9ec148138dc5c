"""Which places of a UNet are read: up-blocks, or sub-blocks of them. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sd4match.backbones.pretrained import read_json
from sd4match.errors import CheckpointError, ConfigError
from sd4match.structures.specs import FeatureSpec

Layer = int | str
"""An up-block, from 0; or "block.sub": after that resnet and attention of the block, from 0, before its upsampling."""
Layers = Layer | tuple[Layer, ...]


class Place(NamedTuple):
    """An up-block, and a sub-block of it or None for its output."""

    block: int
    sub: int | None


def parse_layers(layers: Layers | Sequence[Layer]) -> tuple[Place, ...]:
    """One or several places, in the order given.

    Raises:
        ConfigError: not a layer, or one twice.

    >>> parse_layers(1), parse_layers(("0.1", 2))
    ((Place(block=1, sub=None),), (Place(block=0, sub=1), Place(block=2, sub=None)))
    """
    places = []
    for layer in [layers] if isinstance(layers, int | str) else layers:
        block, dot, sub = str(layer).partition(".")
        if not block.isdigit() or (dot and not sub.isdigit()):
            raise ConfigError(f"a layer is an up-block (1) or a sub-block of one ('1.2'), not {layer!r}")
        places.append(Place(int(block), int(sub) if dot else None))
    if not places or len(set(places)) < len(places):
        raise ConfigError(f"layers must be at least one, each once, not {layers}")
    return tuple(places)


def layer_name(places: Sequence[Place]) -> int | str:
    """What a prompt file says: 1 for one up-block, "0.1+1.1" for more.

    >>> layer_name(parse_layers(1)), layer_name(parse_layers(("0.1", 2)))
    (1, '0.1+2')
    """
    names = [str(p.block) if p.sub is None else f"{p.block}.{p.sub}" for p in places]
    return int(names[0]) if len(names) == 1 and names[0].isdigit() else "+".join(names)


def spec_of(
    configs: Mapping[str, Mapping[str, Any]],
    *,
    where: str,
    layers: Layers | Sequence[Layer],
    frame: Literal["squash", "pad"] = "squash",
    dtype: str = "float32",
    image_size: int | None = None,
    cells: int | None = None,
) -> FeatureSpec:
    """What a Stable Diffusion gives at some layers, from its JSON files.

    Args:
        configs: of unet, vae and text_encoder.
        where: what errors call it.
        layers: one or several.
        frame: how photos are put into its image.
        dtype: of weights and arithmetic.
        image_size: side of that image; what the model was trained on, if not given.
        cells: side of the map; the finest of the layers, if not given.

    Raises:
        CheckpointError: a config lacks a field, text and UNet do not fit, or there is no such layer.
    """
    places = parse_layers(layers)
    try:
        unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
        widths = unet["block_out_channels"][::-1]
        blocks, subs = len(widths), unet.get("layers_per_block", 2) + 1
        down = 2 ** (len(vae["block_out_channels"]) - 1)
        native = unet["sample_size"] * down
        heads, width = unet["attention_head_dim"], unet["cross_attention_dim"]
        channels = tuple(widths[place.block] for place in _existing(places, blocks, subs, where))
        strides = [_stride(place, blocks, down) for place in places]
        size = image_size or native
        stride = min(strides) if cells is None else size // cells
        if text.get("hidden_size", width) != width:
            raise CheckpointError(
                f"{where}: the text encoder gives vectors of width {text['hidden_size']}, and the UNet reads {width}"
            )
        return FeatureSpec(
            channels=sum(channels), stride=stride, prompt_width=width, token_budget=text["max_position_embeddings"],
            layers=blocks, native_size=(native, native), size_multiple=down * 2 ** (blocks - 1),
            architecture=(
                f"UNet {'-'.join(map(str, widths[::-1]))}, heads {heads}, latents {unet['in_channels']}, "
                f"text {width} x {text['num_hidden_layers']} layers, {text['vocab_size']} tokens"
            ),
            layer=layer_name(places), frame=frame, dtype=dtype, groups=channels if len(channels) > 1 else (),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{where} is not Stable Diffusion as diffusers saves it: field {error} missing") from None


def _existing(places: Sequence[Place], blocks: int, subs: int, where: str) -> Sequence[Place]:
    for place in places:
        if place.block >= blocks or (place.sub or 0) >= subs:
            raise CheckpointError(
                f"layer {layer_name([place])} does not exist in {where}: its up-blocks are 0 to {blocks - 1}, each of "
                f"sub-blocks 0 to {subs - 1}"
            )
    return places


def _stride(place: Place, blocks: int, down: int) -> int:
    """Pixels of the image a cell; a block's upsampling comes after its sub-blocks, the last block has none."""
    inside = down * 2 ** (blocks - 1 - place.block)
    return int(inside if place.sub is not None else max(inside // 2, down))


def read_spec(folder: Path, *, layers: Layers | Sequence[Layer] = 1) -> FeatureSpec:
    """What a folder on this machine declares.

    >>> from sd4match.backbones.pretrained import MINI_FOLDER
    >>> spec = read_spec(MINI_FOLDER, layers=1)
    >>> spec.channels, spec.stride, spec.prompt_width, spec.native_size
    (96, 4, 128, (96, 96))
    """
    configs = {part: read_json(folder / part / "config.json") for part in ("unet", "vae", "text_encoder")}
    return spec_of(configs, where=str(folder), layers=layers)
