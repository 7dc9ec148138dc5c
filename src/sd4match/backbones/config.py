"""Configs of backbones and image encoders, with the shapes that they declare before weights load.

Importing this module loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from typing_extensions import override

from sd4match.backbones.fusion_spec import debiased_spec, fused_spec, mirrored_spec
from sd4match.backbones.layers import Layers, stable_diffusion_spec
from sd4match.backbones.pretrained import declared_configs, declared_transformer, is_known_as_clean
from sd4match.backbones.transformer_spec import transformer_spec
from sd4match.devices import resolve_device
from sd4match.errors import ConfigError
from sd4match.fields import BatchSize, Cells, Count, Factor, Pixels, PositiveNumber, Text
from sd4match.registry import Component, Config, Registry, backbones, image_encoders, register
from sd4match.structures.specs import FeatureSpec

if TYPE_CHECKING:
    import torch

    from sd4match.backbones.debiased import DebiasedBackbone
    from sd4match.backbones.fusion import Fusion
    from sd4match.backbones.hog import HogBackbone
    from sd4match.backbones.mirrored import MirroredBackbone
    from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
    from sd4match.backbones.timm_backbone import TimmBackbone
    from sd4match.backbones.vision_transformer import VisionTransformerBackbone
    from sd4match.interfaces import Backbone, ImageEncoder


_Intermediate = Annotated[int, Field(ge=0, le=1024)]
_MOST_VALUES = 2**27
"""Largest number of values of a feature map that `HogConfig` allows: half a gigabyte in float32."""


class BackboneConfig(Component):
    """Base class of configs of backbones. Subclasses define `build`, and `spec` if the shapes are known before.

    >>> config = backbones.parse({"kind": "hog", "image_size": 128})
    >>> isinstance(config, BackboneConfig), config.spec().native_size
    (True, (128, 128))
    """

    registry: ClassVar[Registry[Any, Any]] = backbones

    @property
    def model_name(self) -> str:
        """Name of the model in reports and prompt files: the kind, or the `weights` of a model that is loaded."""
        return str(self.kind)

    def spec(self) -> FeatureSpec | None:
        """Return the shapes that the backbone will have, without loading weights; None (default) if not known."""
        return None

    def check(self) -> None:
        """Check the fields against the spec, without loading weights.

        Raises:
            ConfigError: a field does not fit the model.
        """

    def build(self, *, device: str | torch.device = "cpu") -> Backbone:
        """Load the backbone.

        Args:
            device: device of the weights, for example "cpu", "cuda" or "mps".
        """
        raise NotImplementedError(f"{type(self).__name__} does not define build")


class ModelConfig(BackboneConfig):
    """Base class of configs of backbones that are one pretrained model."""

    weights: Text
    image_size: Pixels | None = Field(
        default=None, description="side of the model's image in pixels; None: what the model was trained on"
    )
    frame: Literal["squash", "pad"] = Field(
        default="squash", description="squash photos to the model's square, or scale the longer side and pad with black"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="of weights and arithmetic; feature maps are float32"
    )

    @property
    def model_name(self) -> str:
        """Name, folder or hub id of the weights."""
        return self.weights

    def spec(self) -> FeatureSpec:
        """Return the shapes that the model declares in its JSON files."""
        raise NotImplementedError(f"{type(self).__name__} does not define spec")

    def check(self) -> None:
        """Check that the model and the layer exist, and that the image size fits.

        Raises:
            ConfigError: the image size is not a multiple of the model's stride.
            CheckpointError: there is no such model or layer.
        """
        spec = self.spec()
        if self.image_size is not None and self.image_size % spec.size_multiple:
            raise ConfigError(
                f"backbone.image_size = {self.image_size} does not fit backbone ({spec.architecture}): "
                f"it must be a multiple of {spec.size_multiple}"
            )


@register
class StableDiffusionConfig(ModelConfig):
    """Config of the features of a frozen Stable Diffusion, or of any model of the same diffusers classes.

    >>> spec = StableDiffusionConfig(weights="mini", layers=("0.1", 1)).spec()
    >>> spec.layer, spec.channels, spec.groups
    ('0.1+1', 288, (192, 96))
    """

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    weights: Text = Field(
        default="mini", description="a known name, a diffusers folder, or a hub id; see `sd4match models list`"
    )
    layers: Layers = Field(
        default=1, description='UNet up-blocks (1) or sub-blocks of them ("1.2") whose outputs make the feature map'
    )
    cells: Cells | None = Field(
        default=None,
        description="side of the feature map, which divides that of the image; None: that of the finest layer",
    )
    variant: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        description='of the weight files, for example "fp16"; None: the one that exists',
    )
    clean: bool | None = Field(
        default=None,
        description="no noise and no timestep (CleanDIFT); None: as is known of the model, otherwise false",
    )
    passes_at_once: BatchSize = Field(
        default=8,
        description="images x ensemble members per pass of the UNet; larger values are faster and take memory",
    )
    channels_last: bool = Field(
        default=False,
        description="memory format in which some devices convolve faster; the same numbers up to rounding",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="recompute the UNet's blocks in the backward pass to save memory; the same numbers"
    )

    @property
    def is_clean(self) -> bool:
        """True if the UNet takes latents without noise: `clean`, or the property of the known model."""
        return is_known_as_clean(self.weights) if self.clean is None else self.clean

    def spec(self) -> FeatureSpec:
        """Return the shapes that the model declares in its JSON files, or that are known of its name.

        Raises:
            CheckpointError: there is no such model or layer, or the model has another layout.
        """
        configs, where = declared_configs(self.weights)
        return stable_diffusion_spec(
            configs, where=where, layers=self.layers, frame=self.frame, dtype=self.dtype, image_size=self.image_size,
            cells=self.cells, clean=self.is_clean,
        )  # fmt: skip

    def build(self, *, device: str | torch.device = "cpu") -> StableDiffusionBackbone:
        """Load the model: the encoder of the VAE, the text encoder, and the UNet up to the last layer that is read.

        Args:
            device: of the weights.

        Raises:
            CheckpointError: the model is not found, incomplete or damaged.
        """
        device = resolve_device(device)

        from sd4match.backbones.stable_diffusion import load_stable_diffusion

        return load_stable_diffusion(self, device=device)


@register
class VisionTransformerConfig(ModelConfig):
    """Config of the patch features of a vision transformer (DINO, DINOv2, DINOv3, iBOT, CLIP, SigLIP), without prompt.

    >>> spec = VisionTransformerConfig(weights="dinov2-base").spec()
    >>> spec.channels, spec.stride, spec.layer
    (768, 14, 11)
    """

    kind: Literal["vision_transformer"] = "vision_transformer"
    weights: Text = Field(default="dinov2-base", description="a known name, a transformers folder, or a hub id")
    layer: int | None = Field(default=None, ge=0, description="block; None: the last")
    facet: Literal["token", "key"] = Field(
        default="token", description="the block's output, or the keys of its attention"
    )

    def spec(self) -> FeatureSpec:
        """Return the shapes that the model declares in its JSON file, or that are known of its name.

        Raises:
            CheckpointError: there is no such model or layer, or the model has another layout.
        """
        config = declared_transformer(self.weights)
        return transformer_spec(
            config, where=self.weights, layer=self.layer, facet=self.facet, frame=self.frame, dtype=self.dtype
        )

    def build(self, *, device: str | torch.device = "cpu") -> VisionTransformerBackbone:
        """Load the model up to the block that is read.

        Args:
            device: of the weights.

        Raises:
            CheckpointError: the model is not found, damaged, or not a vision transformer.
        """
        device = resolve_device(device)

        from sd4match.backbones.vision_transformer import load_vision_transformer

        return load_vision_transformer(self, device=device)


@register
class TimmConfig(ModelConfig):
    """Config of the features of any timm model with `forward_intermediates`. It needs the extra `timm`, and no prompt.

    >>> TimmConfig(weights="resnet50", layers=(2, 3)).model_name
    'resnet50'
    """

    kind: Literal["timm"] = "timm"
    weights: Text = Field(
        default="vit_small_patch14_reg4_dinov2.lvd142m",
        description="a name of timm, a folder of config.json and weights, or a hub id",
    )
    layers: _Intermediate | tuple[_Intermediate, ...] | None = Field(
        default=None,
        description="intermediates that make the feature map: blocks of a transformer, stages of other networks; "
        "None: the last",
    )

    def spec(self) -> FeatureSpec:
        """Return the shapes of the model, which is created without memory for its weights.

        Raises:
            ConfigError: timm cannot be imported, or a layer is given twice.
            CheckpointError: there is no such model or layer, or the model has no intermediates that can be read.
        """
        from sd4match.backbones.timm_models import declared

        return declared(self).spec

    def build(self, *, device: str | torch.device = "cpu") -> TimmBackbone:
        """Load the model up to the last layer that is read.

        Args:
            device: of the weights.

        Raises:
            ConfigError: timm cannot be imported.
            InputError: the image size does not fit.
            CheckpointError: the model is not found, damaged, or has no intermediates that can be read.
        """
        device = resolve_device(device)

        from sd4match.backbones.timm_backbone import load_timm

        return load_timm(self, device=device)


@register
class HogConfig(BackboneConfig):
    """Config of dense histograms of oriented gradients: features without weights and without a prompt.

    >>> HogConfig(image_size=64, window=3).spec().channels
    243
    """

    kind: Literal["hog"] = "hog"
    image_size: Pixels = Field(default=256, description="side in pixels of the square that photos are squashed to")
    cell: int = Field(default=16, ge=2, le=256, description="side of a cell in pixels")
    overlap: int = Field(default=2, ge=1, le=16, description="positions of cells per side of a cell; 1: no overlap")
    orientations: int = Field(
        default=9,
        ge=2,
        le=36,
        description="directions of edges; twice as many with light and dark side told apart",
    )
    block: int = Field(default=3, ge=1, le=15, description="side in cells of the block whose energy divides each cell")
    floor: float = Field(
        default=0.01,
        ge=1e-6,
        le=1,
        description="gradient per pixel, of roots of intensities, below which areas are plain",
    )
    clip: float = Field(default=0.2, gt=0, le=1, description="largest value of a cell after that division")
    window: int = Field(default=9, ge=1, le=31, description="side in cells of the window that describes a cell")
    sigma: PositiveNumber = Field(default=3.0, description="standard deviation in cells of the window's weights")

    @model_validator(mode="after")
    def _whole_cells(self) -> HogConfig:
        for name in ("block", "window"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, so that it has a center, not {getattr(self, name)}")
        if self.cell % self.overlap or self.image_size % self.stride:
            raise ValueError(
                f"overlap must divide cell, and cell / overlap the image_size: not {self.overlap}, {self.cell} and "
                f"{self.image_size}"
            )
        spec = self.spec()
        values = spec.channels * (self.image_size // spec.stride) ** 2
        if values > _MOST_VALUES:
            raise ValueError(f"the map would have {values:,} values; at most {_MOST_VALUES:,} are allowed")
        return self

    @property
    def stride(self) -> int:
        """Pixels from one position of a cell to the next."""
        return self.cell // self.overlap

    def spec(self) -> FeatureSpec:
        """Return the shapes: signed and unsigned directions of every cell of a window, at every position."""
        return FeatureSpec(
            channels=3 * self.orientations * self.window**2, stride=self.stride, prompt_width=None, max_length=0,
            layers=1, native_size=(self.image_size, self.image_size), size_multiple=self.stride,
            architecture=f"hog, {self.orientations} orientations, windows of {self.window} x {self.window} cells of "
            f"{self.cell} pixels",
        )  # fmt: skip

    def build(self, *, device: str | torch.device = "cpu") -> HogBackbone:
        """Return the backbone; there are no weights to load.

        Args:
            device: device on which it computes.
        """
        device = resolve_device(device)

        from sd4match.backbones.hog import HogBackbone

        return HogBackbone(self).to(device)


class FusionOptions(Config):
    """Options for combining the maps of several backbones.

    >>> FusionOptions(weights=(1, 0.5)).factors(2)
    (1.0, 0.5)
    """

    weights: tuple[Factor, ...] | None = Field(default=None, description="factor of each backbone's map; None: all 1")
    normalize: bool = Field(
        default=True, description="normalize each backbone's map over its channels; False leaves it to a pair transform"
    )

    def factors(self, count: int) -> tuple[float, ...]:
        """Return the factor of each map.

        Args:
            count: number of maps.

        Returns:
            `weights`, or `count` times 1.0 if there are none.
        """
        return (1.0,) * count if self.weights is None else self.weights


InnerBackbone = Annotated[SerializeAsAny[BackboneConfig], BeforeValidator(backbones.parse)]
"""Field that holds the config of a backbone that can be checked before it is built."""


@register
class FusionConfig(FusionOptions, BackboneConfig):
    """Config of several backbones as one, for example Stable Diffusion and DINOv2.

    >>> config = FusionConfig(backbones=({"kind": "stable_diffusion", "weights": "mini"}, "hog"))
    >>> config.spec().groups
    (96, 2187)
    """

    kind: Literal["fusion"] = "fusion"
    backbones: tuple[InnerBackbone, ...] = Field(
        min_length=2, max_length=16, description="the feature map lies on the grid of the first one"
    )

    @model_validator(mode="after")
    def _weight_for_each(self) -> FusionConfig:
        if self.weights is not None and len(self.weights) != len(self.backbones):
            raise ValueError(
                f"weights must be one for each of the {len(self.backbones)} backbones, not {len(self.weights)}"
            )
        return self

    def spec(self) -> FeatureSpec:
        """Return the shapes of all backbones together.

        Raises:
            ConfigError: two backbones take a prompt, or one does not declare its shapes.
        """
        specs = [_declared(backbone) for backbone in self.backbones]
        return fused_spec(specs, weights=self.factors(len(specs)), normalize=self.normalize)

    @override
    def check(self) -> None:
        for backbone in self.backbones:
            backbone.check()
        self.spec()

    def build(self, *, device: str | torch.device = "cpu") -> Fusion:
        """Load all backbones.

        Args:
            device: of the weights.
        """
        from sd4match.backbones.fusion import Fusion

        return Fusion(self, backbones=[backbone.build(device=device) for backbone in self.backbones])


class WrapperConfig(BackboneConfig):
    """Base class of configs of backbones that wrap another backbone.

    >>> config = backbones.parse({"kind": "mirrored", "backbone": "hog"})
    >>> isinstance(config, WrapperConfig), config.backbone.kind
    (True, 'hog')
    """

    backbone: InnerBackbone = Field(description="the backbone whose features are changed")

    @property
    def model_name(self) -> str:
        """Name of the model of the inner backbone."""
        return self.backbone.model_name

    def spec(self) -> FeatureSpec:
        """Return the shapes of the inner backbone as the wrapper changes them."""
        raise NotImplementedError(f"{type(self).__name__} does not define spec")

    def check(self) -> None:
        """Check the inner backbone and that the wrapper fits it."""
        self.backbone.check()
        self.spec()


@register
class MirroredConfig(WrapperConfig):
    """Config of a backbone that also extracts each photo mirrored; used with the pair transform `mirrored_alignment`.

    >>> MirroredConfig(backbone="hog").spec().groups
    (2187, 2187)
    """

    kind: Literal["mirrored"] = "mirrored"

    def spec(self) -> FeatureSpec:
        """Return the shapes of the inner backbone with every channel group twice.

        Raises:
            ConfigError: the inner backbone does not declare its shapes.
        """
        return mirrored_spec(_declared(self.backbone))

    def build(self, *, device: str | torch.device = "cpu") -> MirroredBackbone:
        """Load the inner backbone.

        Args:
            device: of the weights.
        """
        from sd4match.backbones.mirrored import MirroredBackbone

        return MirroredBackbone(self.backbone.build(device=device))


@register
class DebiasedConfig(WrapperConfig):
    """Config of a backbone whose features lose the directions that depend on the position only.

    The directions are those in which the features of a blank image vary.

    >>> DebiasedConfig(backbone="hog", components=3).spec().options
    'without 3 directions of a blank image'
    """

    kind: Literal["debiased"] = "debiased"
    components: Count = Field(default=5, description="principal directions that each channel group loses")
    brightness: float = Field(default=0.5, ge=0, le=1, description="of the blank image; 0 is black, 1 white")

    def spec(self) -> FeatureSpec:
        """Return the shapes of the inner backbone, which do not change.

        Raises:
            ConfigError: the inner backbone does not declare its shapes, or has too few channels.
        """
        return debiased_spec(_declared(self.backbone), components=self.components)

    def build(self, *, device: str | torch.device = "cpu") -> DebiasedBackbone:
        """Load the inner backbone.

        Args:
            device: of the weights.
        """
        from sd4match.backbones.debiased import DebiasedBackbone

        return DebiasedBackbone(self, backbone=self.backbone.build(device=device))


def _declared(backbone: BackboneConfig) -> FeatureSpec:
    """Return the shapes that a backbone inside another one declares."""
    spec = backbone.spec()
    if spec is None:
        raise ConfigError(
            f"backbone {backbone.kind!r} does not declare its shapes, and so cannot be inside another backbone"
        )
    return spec


class ImageEncoderConfig(Component):
    """Base class of configs of image encoders. Subclasses define `build`.

    >>> config = image_encoders.parse("dinov2")
    >>> isinstance(config, ImageEncoderConfig), config.weights
    (True, 'facebook/dinov2-base')
    """

    registry: ClassVar[Registry[Any, Any]] = image_encoders

    def build(self, *, backbone: Backbone) -> ImageEncoder:
        """Load the image encoder.

        Args:
            backbone: backbone whose device and cache on disk, if there is one, the encoder shares.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define build")

    def attach(self, built: Any, **context: Any) -> Any:
        """Wrap an image encoder so that each photo is encoded once.

        Args:
            built: the image encoder.
            context: keyword `backbone`, whose cache on disk is used.
        """
        from sd4match.backbones.cached import cached_image_encoder

        return cached_image_encoder(built, context["backbone"])


@register
class Dinov2Config(ImageEncoderConfig):
    """Config of DINOv2, the image encoder of CPM.

    >>> Dinov2Config().weights
    'facebook/dinov2-base'
    """

    kind: Literal["dinov2"] = "dinov2"
    weights: Text = Field(default="facebook/dinov2-base", description="a transformers folder, or its name on the hub")

    def build(self, *, backbone: Backbone) -> ImageEncoder:
        """Load DINOv2.

        Args:
            backbone: backbone whose device and cache on disk, if there is one, the encoder shares.

        Raises:
            CheckpointError: the model is not found, or is not a DINOv2.
        """
        from sd4match.backbones.image_encoders import load_dinov2

        encoder: ImageEncoder = self.attach(load_dinov2(self, device=backbone.device), backbone=backbone)
        return encoder


@register
class ClipConfig(ImageEncoderConfig):
    """Config of CLIP's image tower, the image encoder of the implicit captioner.

    >>> ClipConfig().weights
    'openai/clip-vit-large-patch14'
    """

    kind: Literal["clip"] = "clip"
    weights: Text = Field(
        default="openai/clip-vit-large-patch14", description="a transformers folder, or its name on the hub"
    )

    def build(self, *, backbone: Backbone) -> ImageEncoder:
        """Load CLIP's image tower.

        Args:
            backbone: backbone whose device and cache on disk, if there is one, the encoder shares.

        Raises:
            CheckpointError: the model is not found, or is not a CLIP.
        """
        from sd4match.backbones.image_encoders import load_clip

        encoder: ImageEncoder = self.attach(load_clip(self, device=backbone.device), backbone=backbone)
        return encoder


@register
class BackboneEncoderConfig(ImageEncoderConfig):
    """Config of an image encoder that is the backbone itself under the empty prompt.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> BackboneEncoderConfig(side=4).build(backbone=backbone).spec
    ImageFeatureSpec(patches=16, local=48, pooled=48)
    """

    kind: Literal["backbone"] = "backbone"
    side: int = Field(default=8, ge=1, le=128, description="patches per side, pooled from the feature map")
    timestep: int = Field(default=50, ge=0, lt=1000, description="timestep of the extraction")

    def build(self, *, backbone: Backbone) -> ImageEncoder:
        """Return an image encoder around the backbone.

        Args:
            backbone: backbone whose features are pooled; it must take a prompt.

        Raises:
            InputError: the backbone takes no prompt.
        """
        from sd4match.backbones.image_encoders import BackboneEncoder

        encoder: ImageEncoder = self.attach(BackboneEncoder(self, backbone=backbone), backbone=backbone)
        return encoder
