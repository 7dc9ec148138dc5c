"""What conditional prompts look at: DINOv2, CLIP, or the backbone itself. All frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection, Dinov2Model, PreTrainedModel

from sd4match.backbones.cached import CachedImageEncoder, beside
from sd4match.backbones.preprocessing import crop_centre
from sd4match.errors import CheckpointError, InputError
from sd4match.hashing import digest, weights_digest
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import ImageFeatureSpec
from sd4match.structures.tensors import ImageFeatures, PromptEmbedding, Sampling

_SIDE = 224
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class Dinov2Encoder:
    """DINOv2 on a 224 x 224 central crop: patch vectors without CLS, and the pooled output (CLS)."""

    def __init__(self, model: Dinov2Model) -> None:
        self.model = model.requires_grad_(False).eval()
        width: int = model.config.hidden_size
        self.spec = ImageFeatureSpec((_SIDE // model.config.patch_size) ** 2, width, width)

    def prepare(self, photo: Photo) -> View:
        """Shorter side to 256, centre to 224, ImageNet's normalisation: what DINOv2's processor does."""
        return crop_centre(photo, shorter=256, side=_SIDE, mean=_IMAGENET[0], deviation=_IMAGENET[1])

    def weights_digest(self) -> str:
        """Of the model."""
        return weights_digest(self.model)

    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        """(B, P, d) and (B, d)."""
        found = [self.model(pixel_values=one) for one in _pixels(views, self.model)]
        return _joined([(out.last_hidden_state[:, 1:], out.pooler_output) for out in found])


class ClipEncoder:
    """CLIP on a 224 x 224 central crop: patch vectors without CLS, and the image embedding, not normalised."""

    def __init__(self, model: CLIPVisionModelWithProjection) -> None:
        self.model = model.requires_grad_(False).eval()
        config = model.config
        self.side: int = config.image_size
        self.spec = ImageFeatureSpec((self.side // config.patch_size) ** 2, config.hidden_size, config.projection_dim)

    def prepare(self, photo: Photo) -> View:
        """Shorter side to the model's, central crop, CLIP's normalisation: what CLIP's processor does."""
        return crop_centre(photo, shorter=self.side, side=self.side, mean=_CLIP[0], deviation=_CLIP[1])

    def weights_digest(self) -> str:
        """Of the model."""
        return weights_digest(self.model)

    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        """(B, P, d) and (B, e)."""
        found = [self.model(pixel_values=one) for one in _pixels(views, self.model)]
        return _joined([(out.last_hidden_state[:, 1:], out.image_embeds) for out in found])


class BackboneEncoder:
    """The backbone's own features under the empty prompt, average-pooled to `side` x `side` patches.

    Vectors are scaled to a root mean square of 1, as DINOv2's have about. Pooled: their mean.
    """

    def __init__(self, backbone: Backbone, *, side: int = 8, timestep: int = 50) -> None:
        if backbone.text is None:
            raise InputError(f"the backbone ({backbone.spec.architecture}) takes no prompt, and so cannot look")
        self.backbone = backbone
        self.side = side
        self.sampling = Sampling(timestep, posterior="mode")
        channels = backbone.spec.channels
        self.spec = ImageFeatureSpec(side * side, channels, channels)
        with torch.no_grad():
            text = backbone.text
            self._empty = PromptEmbedding(text.transform(text.embed(text.tokenize([""]))))

    def prepare(self, photo: Photo) -> View:
        """As the backbone."""
        return self.backbone.prepare(photo)

    def weights_digest(self) -> str | None:
        """Of the whole backbone, and how its features are pooled; None if it is no module."""
        if not isinstance(self.backbone, nn.Module):
            return None
        return digest(weights_digest(self.backbone), self._empty.values, self.backbone.spec, self.spec, self.sampling)

    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        """(B, side^2, C) and (B, C)."""
        maps = [
            self.backbone.extract(self.backbone.encode(one), self._empty, self.sampling).values for one in views.each()
        ]
        local = F.adaptive_avg_pool2d(torch.cat(maps), self.side).flatten(2).transpose(1, 2)
        local = local / local.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-6)
        return ImageFeatures(local, local.mean(dim=1))


def _pixels(views: Views, model: PreTrainedModel) -> Iterator[Tensor]:
    """Photo by photo, so that no feature depends on what else is in the batch."""
    return (one.pixels.to(model.device, model.dtype) for one in views.each())


def _joined(found: Sequence[tuple[Tensor, Tensor]]) -> ImageFeatures:
    local, pooled = (torch.cat(parts).float() for parts in zip(*found, strict=True))
    return ImageFeatures(local, pooled)


def load_dinov2(weights: str, *, backbone: Backbone) -> CachedImageEncoder:
    """DINOv2 from a transformers folder or from the hub, beside the backbone.

    Raises:
        CheckpointError: not found, or not a DINOv2.
    """
    return beside(Dinov2Encoder(_load(Dinov2Model, weights, backbone)), backbone)


def load_clip(weights: str, *, backbone: Backbone) -> CachedImageEncoder:
    """CLIP's image tower from a transformers folder or from the hub, beside the backbone.

    Raises:
        CheckpointError: not found, or not a CLIP.
    """
    return beside(ClipEncoder(_load(CLIPVisionModelWithProjection, weights, backbone)), backbone)


def load_backbone_encoder(side: int, timestep: int, *, backbone: Backbone) -> CachedImageEncoder:
    """The backbone itself as an encoder."""
    return beside(BackboneEncoder(backbone, side=side, timestep=timestep), backbone)


def _load(model_class: type[PreTrainedModel], weights: str, backbone: Backbone) -> Any:
    try:
        model = model_class.from_pretrained(weights)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot load the image encoder {weights!r}: give a transformers folder of a {model_class.__name__}, "
            f"or a name that the hub can be asked for ({reason})"
        ) from None
    if isinstance(backbone, nn.Module):
        model = model.to(next(backbone.parameters()).device)
    return model
