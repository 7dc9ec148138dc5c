"""Shapes that backbones and image encoders declare, so that configs are checked before weights load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sd4match.arguments import check_fields
from sd4match.checks import check_count


@dataclass(frozen=True)
class FeatureSpec:
    """Input and output shapes of a backbone.

    Raises:
        InputError: a size is not a whole number, or not positive.

    >>> spec = FeatureSpec(
    ...     channels=1280, stride=16, prompt_width=1024, max_length=77, layers=4, native_size=(768, 768),
    ...     size_multiple=64, architecture="U-Net of Stable Diffusion 2.1", layer=1,
    ... )
    >>> spec.channels
    1280
    """

    channels: int
    """Channels C of its feature map at the chosen layer."""
    stride: int
    """Pixels of the model's image per feature cell."""
    prompt_width: int | None
    """Width D of the text vectors; None for a backbone without a prompt."""
    max_length: int
    """Number of text tokens L, BOS and EOS included; 0 without a prompt."""
    layers: int
    """Number of layers to choose from."""
    native_size: tuple[int, int]
    """(H, W) of the images that the model was trained on."""
    size_multiple: int
    """Image sizes must be multiples of this."""
    architecture: str
    """Description in one line, equal for two interchangeable checkpoints."""
    layer: int | str | None = None
    """Chosen layer; None for a backbone that has only one."""
    frame: Literal["squash", "pad"] = "squash"
    """Layout of a photo in the model's image; an evaluation protocol must use the same."""
    dtype: str = "float32"
    """Data type of weights and arithmetic."""
    groups: tuple[int, ...] = ()
    """Channels of each layer, if there are several."""
    options: str = ""
    """Other options that change the features, for example "clean" or "key"."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("channels", "stride", "size_multiple"):
            check_count(f"{name} of a FeatureSpec", getattr(self, name))
        if self.prompt_width is not None:
            check_count("prompt_width of a FeatureSpec", self.prompt_width)
        check_count("max_length of a FeatureSpec", self.max_length, low=0)
        for side in self.native_size:
            check_count("native_size of a FeatureSpec", side)


@dataclass(frozen=True)
class ImageFeatureSpec:
    """Output shapes of an image encoder.

    Raises:
        InputError: a size is not a whole number, or not positive.

    >>> ImageFeatureSpec(patches=256, local=768, pooled=768).patches
    256
    """

    patches: int
    """Number P of patches."""
    local: int
    """Width d of the vector of a patch."""
    pooled: int
    """Width e of the vector of the whole photo."""

    def __post_init__(self) -> None:
        for name in ("patches", "local", "pooled"):
            check_count(f"{name} of an ImageFeatureSpec", getattr(self, name))
