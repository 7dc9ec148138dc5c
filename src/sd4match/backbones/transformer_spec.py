"""Shapes that a vision transformer's JSON file declares. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sd4match.errors import CheckpointError
from sd4match.structures.specs import FeatureSpec


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
        CheckpointError: a field is missing, or there is no such block.
    """
    try:
        width, blocks, patch = config["hidden_size"], config["num_hidden_layers"], config["patch_size"]
        side, model_type = config["image_size"], config["model_type"]
    except KeyError as error:
        raise CheckpointError(
            f"{where} is not a vision transformer as transformers saves it: field {error} missing"
        ) from None
    chosen = blocks - 1 if layer is None else layer
    if not 0 <= chosen < blocks:
        raise CheckpointError(f"layer {layer} does not exist in {where}: its blocks are 0 to {blocks - 1}")
    native = side // patch * patch
    return FeatureSpec(
        channels=width, stride=patch, prompt_width=None, max_length=0, layers=blocks, native_size=(native, native),
        size_multiple=patch, architecture=f"{model_type} {width} x {blocks} layers, patch {patch}", layer=chosen,
        frame=frame, dtype=dtype, options=facet,
    )  # fmt: skip
