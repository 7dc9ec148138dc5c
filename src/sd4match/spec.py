"""What a backbone declares before any of its weights load: plain numbers that a config can be checked against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FeatureSpec:
    """The shape of what a backbone takes and gives."""

    channels: int
    """Channels of its feature map at the chosen layer."""
    stride: int
    """Pixels of the model's image per feature cell."""
    prompt_width: int | None
    """Width D of the text vectors; None for a backbone without a prompt."""
    token_budget: int
    """Text slots L, BOS and EOS included; 0 without a prompt."""
    layers: int
    """How many layers there are to choose from."""
    native_size: tuple[int, int]
    """(H, W) of the image that the model was trained on."""
    size_multiple: int
    """Image sizes must be multiples of this."""
    architecture: str
    """One line that two interchangeable checkpoints share."""
    layer: int | None = None
    """The chosen layer; None for a backbone that has only one."""
    frame: Literal["squash", "pad"] = "squash"
    """How it puts a photo into its image; the measurement must be made for it."""
    dtype: str = "float32"
    """Of weights and arithmetic."""


@dataclass(frozen=True)
class ImageFeatureSpec:
    """The shape of what an image encoder gives."""

    patches: int
    """Places P of the photo that have a vector."""
    local: int
    """Width of a patch's vector."""
    pooled: int
    """Width of the vector of the whole photo."""
