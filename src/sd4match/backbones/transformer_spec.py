"""Shapes that a vision transformer's JSON file declares. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sd4match.backbones.model_files import Fields
from sd4match.backbones.network_fields import TRANSFORMER, check_table
from sd4match.errors import CheckpointError, shown
from sd4match.fields import LARGEST_SIDE
from sd4match.structures.specs import FeatureSpec

FAMILIES = (
    "vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "clip_vision_model", "siglip_vision_model",
)  # fmt: skip
"""Model types of transformers whose blocks see every patch of the photo, with the patches last among their tokens."""


def transformer_spec(
    config: Mapping[str, Any],
    *,
    where: str,
    layer: int | None,
    facet: Literal["token", "key"],
    frame: Literal["squash", "pad"],
    dtype: str,
) -> FeatureSpec:
    """Return the spec of a vision transformer's patch features.

    Args:
        config: content of its config.json.
        where: name of the model in error messages.
        layer: index of the block; None: the last one.
        facet: the block's output, or the keys of its attention.
        frame: how photos are fitted into the model's image.
        dtype: of weights and arithmetic.

    Raises:
        CheckpointError: the model is of another family, a field is missing or has a value that cannot work, or there
            is no such block.
    """
    model_type = check_family(config, FAMILIES, where=where)
    fields = Fields(config, f"{where} (config.json)")
    width, blocks, side, patch = check_transformer(fields)
    chosen = blocks - 1 if layer is None else layer
    if not 0 <= chosen < blocks:
        raise CheckpointError(f"layer {layer} does not exist in {where}: its blocks are 0 to {blocks - 1}")
    native = side // patch * patch
    return FeatureSpec(
        channels=width, stride=patch, prompt_width=None, max_length=0, layers=blocks, native_size=(native, native),
        size_multiple=patch, architecture=f"{model_type} {width} x {blocks} layers, patch {patch}", layer=chosen,
        frame=frame, dtype=dtype, options=facet,
    )  # fmt: skip


def check_family(config: Mapping[str, Any], families: tuple[str, ...], *, where: str) -> str:
    """Return the model type of a transformers config, which must be one of some.

    Raises:
        CheckpointError: it is another one.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in families:
        raise CheckpointError(
            f"{where} is a model of type {shown(model_type)}, and one of these is wanted: {', '.join(families)}"
        )
    return model_type


def check_transformer(fields: Fields) -> tuple[int, int, int, int]:
    """Check the fields of a vision transformer; return its width, its blocks, and the sides of its image and patch.

    Raises:
        CheckpointError: a field is missing or has a value that cannot work.
    """
    check_table(fields, TRANSFORMER)
    width, blocks = fields.whole("hidden_size"), fields.whole("num_hidden_layers", high=512)
    heads = fields.whole("num_attention_heads", high=1024, default=1)
    if width % heads:
        raise fields.refuse(f"num_attention_heads must divide hidden_size, {width}, and {heads} does not")
    side = fields.whole("image_size", high=LARGEST_SIDE)
    return width, blocks, side, fields.whole("patch_size", high=side)
