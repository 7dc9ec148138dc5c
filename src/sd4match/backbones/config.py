"""Configs of backbones and image encoders, and what they declare before weights load."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sd4match.backbones.layers import Layers, spec_of
from sd4match.backbones.pretrained import declared_configs, declared_transformer
from sd4match.backbones.transformer_spec import transformer_spec
from sd4match.errors import ConfigError
from sd4match.registry import AnyBackbone, ComponentConfig, backbones, image_encoders
from sd4match.structures.specs import FeatureSpec, fused_spec


class BackboneConfig(ComponentConfig):
    """What every backbone's config says before weights load."""

    def spec(self) -> FeatureSpec:
        """What the backbone will take and give."""
        raise NotImplementedError


class ModelConfig(BackboneConfig):
    """Of a backbone that is one model."""

    image_size: int | None = Field(None, ge=1, description="side of its image; None: what the model was trained on")


@backbones.register
class StableDiffusionConfig(ModelConfig):
    """Features of a frozen Stable Diffusion (or anything of the same diffusers classes)."""

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    weights: str = Field(
        "mini", description="a known name, a diffusers folder, or a hub id; see `sd4match models list`"
    )
    layers: Layers = Field(
        1, description='UNet up-blocks (1) or sub-blocks of them ("1.2") whose outputs make the feature map'
    )
    cells: int | None = Field(None, ge=1, description="side of the map; None: that of the finest layer")
    variant: str | None = Field(None, description='of the weight files, for example "fp16"; None: whichever is there')
    clean: bool | None = Field(
        None, description="no noise and no timestep (CleanDIFT); None: if the name of the weights says so"
    )
    frame: Literal["squash", "pad"] = Field(
        "squash", description="squash photos to the model's square, or scale the longer side and pad with black"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    passes_at_once: int = Field(
        8, ge=1, description="images x ensemble members that the UNet takes at once: more are faster and take memory"
    )
    channels_last: bool = Field(
        False, description="weights in the order in which some devices convolve faster; the same numbers to rounding"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute the UNet's blocks again in the backward pass, for less memory; the same numbers"
    )
    implementation = "sd4match.backbones.stable_diffusion:StableDiffusionBackbone.from_folder"

    @model_validator(mode="before")
    @classmethod
    def _one_layer(cls, fields: Any) -> Any:
        """`layer` is another name of `layers`, and wins."""
        if isinstance(fields, dict) and "layer" in fields:
            return {**{k: v for k, v in fields.items() if k != "layer"}, "layers": fields["layer"]}
        return fields

    def spec(self) -> FeatureSpec:
        """Read from the model's JSON files, or from what is known of its name; loads no weights.

        Raises:
            CheckpointError: there is no such model, or it is of another layout.
        """
        configs, where = declared_configs(self.weights)
        return spec_of(
            configs, where=where, layers=self.layers, frame=self.frame, dtype=self.dtype, image_size=self.image_size,
            cells=self.cells,
        )  # fmt: skip


@backbones.register
class VisionTransformerConfig(ModelConfig):
    """Patch features of DINO or DINOv2; takes no prompt."""

    kind: Literal["vision_transformer"] = "vision_transformer"
    weights: str = Field("dinov2-base", description="a known name, a transformers folder, or a hub id")
    layer: int | None = Field(None, ge=0, description="block; None: the last")
    facet: Literal["token", "key"] = Field("token", description="a block's output, or the keys of its attention")
    frame: Literal["squash", "pad"] = "squash"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    implementation = "sd4match.backbones.vision_transformer:VisionTransformerBackbone.from_folder"

    def spec(self) -> FeatureSpec:
        """Read from the model's JSON file, or from what is known of its name; loads no weights."""
        config = declared_transformer(self.weights)
        return transformer_spec(config, where=self.weights, layer=self.layer, frame=self.frame, dtype=self.dtype)


@backbones.register
class FusionConfig(BackboneConfig):
    """Several backbones as one, for example Stable Diffusion and DINOv2."""

    kind: Literal["fusion"] = "fusion"
    parts: tuple[AnyBackbone, ...] = Field(min_length=2, description="the first one's grid is that of the map")
    weights: tuple[float, ...] | None = Field(None, description="of each part; None: all 1")
    normalize: bool = Field(True, description="each part's map, over its channels; False leaves it to a pair transform")
    implementation = "sd4match.backbones.fusion:Fusion.from_configs"

    @model_validator(mode="after")
    def _weight_for_each(self) -> FusionConfig:
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(f"weights must be one for each of the {len(self.parts)} parts, not {len(self.weights)}")
        return self

    def spec(self) -> FeatureSpec:
        """Of all parts together.

        Raises:
            ConfigError: two parts take a prompt, or a part does not declare what it gives.
        """
        specs = []
        for part in self.parts:
            declare = getattr(part, "spec", None)
            if declare is None:
                raise ConfigError(f"backbone {part.kind!r} does not declare what it gives, and so cannot be fused")
            specs.append(declare())
        return fused_spec(specs)


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
