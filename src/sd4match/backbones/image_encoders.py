"""Image encoders of conditional prompts: DINOv2, CLIP, or the backbone itself. All are frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection, Dinov2Model, PreTrainedModel

from sd4match.backbones.config import BackboneEncoderConfig, ClipConfig, Dinov2Config
from sd4match.backbones.preprocessing import center_crop
from sd4match.errors import CheckpointError, InputError
from sd4match.hashing import digest, weights_digest
from sd4match.interfaces import Backbone, ImageEncoder
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import ImageFeatureSpec as ImageFeatureSpec
from sd4match.structures.tensors import ImageFeatures, PromptEmbedding, Sampling

_DINOV2_SIDE = 224
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Dinov2Encoder(ImageEncoder):
    """DINOv2 on a 224 x 224 center crop: patch vectors without CLS, and the pooled output (CLS).

    Args:
        model: loaded; it is frozen.
    """

    def __init__(self, model: Dinov2Model) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        width: int = model.config.hidden_size
        self.spec = ImageFeatureSpec((_DINOV2_SIDE // model.config.patch_size) ** 2, width, width)

    def prepare(self, photo: Photo) -> View:
        """Resize the shorter side to 256, crop 224 x 224, normalize as ImageNet, as DINOv2's processor does."""
        return center_crop(photo, shorter=256, side=_DINOV2_SIDE, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)

    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        """Return (B, P, d) and (B, d) features."""
        outputs = [self.model(pixel_values=pixels) for pixels in _pixels(views, self.model)]
        return _concatenate([(output.last_hidden_state[:, 1:], output.pooler_output) for output in outputs])

    def weights_digest(self) -> str:
        """Return the digest of the model."""
        return weights_digest(self.model)


class ClipEncoder(ImageEncoder):
    """CLIP on a center crop of its image size: patch vectors without CLS, and the image embedding, not normalized.

    Args:
        model: loaded; it is frozen.
    """

    def __init__(self, model: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        config = model.config
        self.side: int = config.image_size
        self.spec = ImageFeatureSpec((self.side // config.patch_size) ** 2, config.hidden_size, config.projection_dim)

    def prepare(self, photo: Photo) -> View:
        """Resize the shorter side to the model's, crop the center, normalize, as CLIP's processor does."""
        return center_crop(photo, shorter=self.side, side=self.side, mean=_CLIP_MEAN, std=_CLIP_STD)

    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        """Return (B, P, d) and (B, e) features."""
        outputs = [self.model(pixel_values=pixels) for pixels in _pixels(views, self.model)]
        return _concatenate([(output.last_hidden_state[:, 1:], output.image_embeds) for output in outputs])

    def weights_digest(self) -> str:
        """Return the digest of the model."""
        return weights_digest(self.model)


class BackboneEncoder(ImageEncoder):
    """Features of a backbone under the empty prompt, average-pooled to `side` x `side` patches.

    Patch vectors are scaled to a root mean square of 1, which is about that of DINOv2's. The pooled vector is their
    mean.

    Args:
        config: number of patches and timestep; the defaults if not given.
        backbone: it must take a prompt.

    Raises:
        InputError: the backbone takes no prompt.
    """

    def __init__(self, config: BackboneEncoderConfig | None = None, *, backbone: Backbone) -> None:
        super().__init__()
        self.config = config or BackboneEncoderConfig()
        text_encoder = backbone.text_encoder
        if text_encoder is None:
            raise InputError(
                f"the backbone ({backbone.spec.architecture}) takes no prompt, and so cannot be an image encoder"
            )
        self.backbone = backbone
        self.sampling = Sampling(self.config.timestep, posterior="mode")
        channels = backbone.spec.channels
        self.spec = ImageFeatureSpec(self.config.side**2, channels, channels)
        with torch.no_grad():
            self._empty_prompt = PromptEmbedding(text_encoder.encode(text_encoder.embed(text_encoder.tokenize([""]))))

    def prepare(self, photo: Photo) -> View:
        """Preprocess a photo for the backbone."""
        return self.backbone.prepare(photo)

    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        """Return (B, side^2, C) and (B, C) features."""
        maps = [
            self.backbone.extract(self.backbone.encode(view), self._empty_prompt, self.sampling).values
            for view in views.each()
        ]
        local = F.adaptive_avg_pool2d(torch.cat(maps), self.config.side).flatten(2).transpose(1, 2)
        local = local / local.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-6)
        return ImageFeatures(local, local.mean(dim=1))

    def weights_digest(self) -> str | None:
        """Return a digest of the whole backbone, prompt and pooling; None if the backbone's digest is not known."""
        own = self.backbone.weights_digest()
        if own is None:
            return None
        values = self._empty_prompt.values
        return digest(own, weights_digest(self.backbone), values, self.backbone.spec, self.spec, self.sampling)


def _pixels(views: Views, model: PreTrainedModel) -> Iterator[Tensor]:
    """Iterate over the photos in batches of one, so that no feature depends on the rest of the batch."""
    return (view.pixels.to(model.device, model.dtype) for view in views.each())


def _concatenate(features: Sequence[tuple[Tensor, Tensor]]) -> ImageFeatures:
    local, pooled = (torch.cat(tensors).float() for tensors in zip(*features, strict=True))
    return ImageFeatures(local, pooled)


def load_dinov2(config: Dinov2Config, *, device: str | torch.device = "cpu") -> Dinov2Encoder:
    """Load DINOv2 from a transformers folder or from the hub.

    Raises:
        CheckpointError: the model is not found, or is not a DINOv2.
    """
    return Dinov2Encoder(_load(Dinov2Model, config.weights).to(device))


def load_clip(config: ClipConfig, *, device: str | torch.device = "cpu") -> ClipEncoder:
    """Load CLIP's image tower from a transformers folder or from the hub.

    Raises:
        CheckpointError: the model is not found, or is not a CLIP.
    """
    return ClipEncoder(_load(CLIPVisionModelWithProjection, config.weights).to(device))


def _load(model_class: type[PreTrainedModel], weights: str) -> Any:
    try:
        return model_class.from_pretrained(weights)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot load the image encoder {weights!r}: give a transformers folder of a {model_class.__name__}, "
            f"or a name that the hub can be asked for ({reason})"
        ) from None
