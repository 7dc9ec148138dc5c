"""What a backbone declares before any of its weights load: plain numbers that a config can be checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sd4match.errors import ConfigError


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
    layer: int | str | None = None
    """The chosen layer; None for a backbone that has only one."""
    frame: Literal["squash", "pad"] = "squash"
    """How it puts a photo into its image; the measurement must be made for it."""
    dtype: str = "float32"
    """Of weights and arithmetic."""
    groups: tuple[int, ...] = ()
    """Channels of each layer, where there are several."""


@dataclass(frozen=True)
class ImageFeatureSpec:
    """The shape of what an image encoder gives."""

    patches: int
    """Places P of the photo that have a vector."""
    local: int
    """Width of a patch's vector."""
    pooled: int
    """Width of the vector of the whole photo."""


def fused_spec(parts: Sequence[FeatureSpec]) -> FeatureSpec:
    """What several backbones declare as one: the first one's grid, all channels, the prompt of the one that takes one.

    Raises:
        ConfigError: two of them take a prompt.
    """
    prompted = [part for part in parts if part.prompt_width is not None]
    if len(prompted) > 1:
        names = " and ".join(f"[{part.architecture}]" for part in prompted)
        raise ConfigError(f"at most one part of a fusion may take a prompt, and {names} do")
    prompt = prompted[0] if prompted else parts[0]
    groups = [size for part in parts for size in (part.groups or (part.channels,))]
    return replace(
        parts[0], channels=sum(part.channels for part in parts), prompt_width=prompt.prompt_width,
        token_budget=prompt.token_budget, architecture=" + ".join(part.architecture for part in parts),
        layer="+".join(str(part.layer) for part in parts), groups=tuple(groups),
        dtype="+".join(part.dtype for part in parts),
    )  # fmt: skip
