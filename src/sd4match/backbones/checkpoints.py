"""Where model folders are and what their JSON files say. Loads no weights and no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from sd4match.errors import CheckpointError
from sd4match.spec import FeatureSpec

MINI_FOLDER = Path(__file__).parent / "mini_weights"
"""The diffusers folder that the package carries."""

PARTS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
"""The folders of a Stable Diffusion checkpoint in diffusers' layout, and the file that each must have."""


def find_checkpoint(weights: str) -> Path:
    """The folder of a model.

    Args:
        weights: "mini", or the path of a diffusers folder.

    Raises:
        CheckpointError: there is no such folder, or parts are missing in it.
    """
    folder = MINI_FOLDER if weights == "mini" else Path(weights).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"no model folder {weights!r}; give 'mini' or the path of a diffusers folder")
    missing = [f"{part}/{file}" for part, file in PARTS.items() if not (folder / part / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{weights!r} is not a diffusers folder of Stable Diffusion: {', '.join(missing)} missing"
        )
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: not readable, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def read_spec(
    folder: Path, *, layer: int, frame: Literal["squash", "pad"] = "squash", dtype: str = "float32"
) -> FeatureSpec:
    """What a Stable Diffusion folder declares, for the output of up-block `layer`.

    Raises:
        CheckpointError: a config lacks a field, or there is no such layer.

    >>> spec = read_spec(MINI_FOLDER, layer=1)
    >>> spec.channels, spec.stride, spec.prompt_width, spec.native_size
    (96, 4, 128, (96, 96))
    """
    unet, vae, text = (read_json(folder / part / "config.json") for part in ("unet", "vae", "text_encoder"))
    try:
        widths = unet["block_out_channels"]
        blocks = len(widths)
        down = 2 ** (len(vae["block_out_channels"]) - 1)
        native = unet["sample_size"] * down
        heads, width = unet["attention_head_dim"], unet["cross_attention_dim"]
        if not 0 <= layer < blocks:
            raise CheckpointError(f"layer {layer} does not exist in {folder.name}: its up-blocks are 0 to {blocks - 1}")
        return FeatureSpec(
            channels=widths[::-1][layer],
            stride=down * 2 ** max(blocks - 2 - layer, 0),
            prompt_width=width,
            token_budget=text["max_position_embeddings"],
            layers=blocks,
            native_size=(native, native),
            size_multiple=down * 2 ** (blocks - 1),
            architecture=(
                f"UNet {'-'.join(map(str, widths))}, heads {heads}, latents {unet['in_channels']}, "
                f"text {width} x {text['num_hidden_layers']} layers, {text['vocab_size']} tokens"
            ),
            layer=layer,
            frame=frame,
            dtype=dtype,
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} is not Stable Diffusion as diffusers saves it: field {error} missing"
        ) from None
