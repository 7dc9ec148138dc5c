"""What a vision transformer's JSON file declares. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sd4match.errors import CheckpointError
from sd4match.structures.specs import FeatureSpec


def transformer_spec(
    config: Mapping[str, Any],
    *,
    where: str,
    layer: int | None = None,
    frame: Literal["squash", "pad"] = "squash",
    dtype: str = "float32",
) -> FeatureSpec:
    """The shape of a transformer's patch map.

    Args:
        config: its config.json.
        where: what errors call it.
        layer: the block; the last, if not given.
        frame: how photos are put into its image.
        dtype: of weights and arithmetic.

    Raises:
        CheckpointError: a field is missing, or there is no such block.
    """
    try:
        width, blocks, patch = config["hidden_size"], config["num_hidden_layers"], config["patch_size"]
        side, kind = config["image_size"], config["model_type"]
    except KeyError as error:
        raise CheckpointError(
            f"{where} is not a vision transformer as transformers saves it: field {error} missing"
        ) from None
    chosen = blocks - 1 if layer is None else layer
    if not 0 <= chosen < blocks:
        raise CheckpointError(f"layer {layer} does not exist in {where}: its blocks are 0 to {blocks - 1}")
    native = side // patch * patch
    return FeatureSpec(
        channels=width, stride=patch, prompt_width=None, token_budget=0, layers=blocks, native_size=(native, native),
        size_multiple=patch, architecture=f"{kind} {width} x {blocks} layers, patch {patch}", layer=chosen, frame=frame,
        dtype=dtype,
    )  # fmt: skip
