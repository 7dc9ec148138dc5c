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
_WHOLE: dict[str, dict[str, Any]] = {
    "clip": {"model_type": "clip_vision_model", "patch_size": 32},
    "siglip": {"model_type": "siglip_vision_model", "patch_size": 16},
}
"""Model types with a text tower besides the image tower, and defaults of the image tower that differ between them."""
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224}
"""Defaults of the image tower, since a config.json may leave out these fields."""
_REFUSED = {
    "vit_mae": "a masked autoencoder drops patches of the photo at random; load its encoder as transformers' ViTModel, "
    "and save that",
    **dict.fromkeys(
        ("siglip2", "siglip2_vision_model"),
        "a NaFlex model takes a sequence of patches and no image; a SigLIP 2 of a fixed resolution is of type siglip",
    ),
}
"""Popular model types that cannot be read, with the reasons."""


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
    config = image_tower(config, where=where)
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


def image_tower(config: Mapping[str, Any], *, where: str) -> Mapping[str, Any]:
    """Return the config of the image tower of a whole CLIP or SigLIP, and any other config unchanged.

    Args:
        config: content of a config.json.
        where: name of the model in error messages.

    Raises:
        CheckpointError: `vision_config` is no object.

    >>> image_tower({"model_type": "siglip", "vision_config": {"hidden_size": 1152}}, where="m")["patch_size"]
    16
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _WHOLE:
        return config
    tower = config.get("vision_config", {})
    if not isinstance(tower, Mapping):
        raise CheckpointError(f"{where} (config.json): vision_config must be an object, not {shown(tower)}")
    return {**_BASE, **_WHOLE[model_type], **tower}


def prefix_tokens(config: Mapping[str, Any]) -> int:
    """Return the number of tokens before the patches: class token, distillation token and registers.

    Args:
        config: content of a config.json.

    >>> prefix_tokens({"model_type": "dinov3_vit", "num_register_tokens": 4})
    5
    """
    own = {"deit": 2, "siglip_vision_model": 0}.get(config["model_type"], 1)
    return own + int(config.get("num_register_tokens") or 0)


def check_family(config: Mapping[str, Any], families: tuple[str, ...], *, where: str) -> str:
    """Return the model type of a transformers config after a check.

    Args:
        config: content of a config.json.
        families: allowed model types.
        where: name of the model in error messages.

    Raises:
        CheckpointError: the model type is not allowed.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in families:
        why = _REFUSED.get(model_type) if isinstance(model_type, str) else None
        raise CheckpointError(
            f"{where} is a model of type {shown(model_type)}, and one of these is wanted: {', '.join(families)}"
            + (f" ({why})" if why else "")
        )
    return model_type


def check_transformer(fields: Fields) -> tuple[int, int, int, int]:
    """Check the fields of a vision transformer.

    Args:
        fields: fields of its config.json.

    Returns:
        Width, number of blocks, and sides of image and patch in pixels.

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
