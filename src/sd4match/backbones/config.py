"""Configs of backbones and image encoders, and what they declare before weights load."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sd4match.backbones.checkpoints import find_checkpoint, read_spec
from sd4match.registry import ComponentConfig, backbones, image_encoders
from sd4match.spec import FeatureSpec


class BackboneConfig(ComponentConfig):
    """What every backbone's config says before weights load."""

    image_size: int | None = Field(
        None, ge=1, description="side of the squashed image; None: what the model was trained on"
    )

    def spec(self) -> FeatureSpec:
        """What the backbone will take and give."""
        raise NotImplementedError


@backbones.register
class StableDiffusionConfig(BackboneConfig):
    """Features of a frozen Stable Diffusion (or anything of the same diffusers classes)."""

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    weights: str = Field("mini", description='"mini", or a diffusers folder')
    layer: int = Field(1, ge=0, description="UNet up-block whose output is the feature map, from 0")
    frame: Literal["squash", "pad"] = Field(
        "squash", description="squash photos to the model's square, or scale the longer side and pad with black"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    implementation = "sd4match.backbones.stable_diffusion:StableDiffusionBackbone.from_folder"

    def spec(self) -> FeatureSpec:
        """Read from the folder's JSON files; loads no weights.

        Raises:
            CheckpointError: there is no such model, or it is of another layout.
        """
        return read_spec(find_checkpoint(self.weights), layer=self.layer, frame=self.frame, dtype=self.dtype)


@image_encoders.register
class Dinov2Config(ComponentConfig):
    """DINOv2, as CPM looks at photos."""

    kind: Literal["dinov2"] = "dinov2"
    weights: str = Field("facebook/dinov2-base", description="a transformers folder, or its name on the hub")
    implementation = "sd4match.backbones.image_encoders:load_dinov2"


@image_encoders.register
class ClipConfig(ComponentConfig):
    """CLIP's image tower, as the implicit captioner looks at photos."""

    kind: Literal["clip"] = "clip"
    weights: str = Field("openai/clip-vit-large-patch14", description="a transformers folder, or its name on the hub")
    implementation = "sd4match.backbones.image_encoders:load_clip"


@image_encoders.register
class BackboneEncoderConfig(ComponentConfig):
    """The backbone itself, under the empty prompt."""

    kind: Literal["backbone"] = "backbone"
    side: int = Field(8, ge=1, description="patches a side, pooled from the feature map")
    timestep: int = Field(50, ge=0, lt=1000)
    implementation = "sd4match.backbones.image_encoders:load_backbone_encoder"
