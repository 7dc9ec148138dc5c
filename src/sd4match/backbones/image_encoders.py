"""Frozen image encoders of conditional prompts: DINOv2, CLIP, or the backbone itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection, Dinov2Model, Dinov2WithRegistersModel, PreTrainedModel
from typing_extensions import override

from sd4match.backbones.config import BackboneEncoderConfig, ClipConfig, Dinov2Config
from sd4match.backbones.loading import load_whole
from sd4match.backbones.model_files import Fields, find_variant, read_json
from sd4match.backbones.network_fields import TRANSFORMER, check_table, require
from sd4match.backbones.precision import without_autocast
from sd4match.backbones.preprocessing import Colors, center_crop
from sd4match.backbones.pretrained import find_pretrained
from sd4match.backbones.transformer_spec import check_family, check_transformer
from sd4match.backbones.vision_transformer import read_normalization
from sd4match.checks import check_each_finite
from sd4match.errors import CheckpointError, InputError, shown
from sd4match.hashing import digest, weights_digest
from sd4match.interfaces import Backbone, ImageEncoder
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import ImageFeatureSpec as ImageFeatureSpec
from sd4match.structures.tensors import ImageFeatures, PromptEmbedding, Sampling

_DINOV2_SIDE = 224
_IMAGENET: tuple[Colors, Colors] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP: tuple[Colors, Colors] = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

_DINOV2_FAMILIES = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}
_DINOV2_UNUSED, _DINOV2_HEAD = (r"(^|\.)mask_token$",), (r"^classifier\.", r"(^|\.)pooler\.")
_CLIP_OTHER_TOWER = (r"^text_model\.", r"^text_projection\.", r"^logit_scale$", r"^classifier\.")
"""Tensors besides those of the image tower."""


class Dinov2Encoder(ImageEncoder):
    """DINOv2 on a 224 x 224 center crop: patch vectors without CLS and registers, and the pooled output (CLS).

    Args:
        model: loaded model; it is frozen.
        normalization: mean and standard deviation of the colors; ImageNet's if not given.
    """

    def __init__(
        self,
        model: Dinov2Model | Dinov2WithRegistersModel,
        *,
        normalization: tuple[Colors, Colors] = _IMAGENET,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.mean, self.std = normalization
        width: int = model.config.hidden_size
        self.spec = ImageFeatureSpec((_DINOV2_SIDE // model.config.patch_size) ** 2, width, width)

    def prepare(self, photo: Photo) -> View:
        """Resize the shorter side to 256, crop 224 x 224, and normalize, as DINOv2's processor does.

        Args:
            photo: any.
        """
        return center_crop(photo, shorter=256, side=_DINOV2_SIDE, mean=self.mean, std=self.std)

    @override
    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        outputs = _outputs(views, self.model)
        patches = self.spec.patches
        return _concatenate(
            [(output.last_hidden_state[:, -patches:], output.pooler_output) for output in outputs], views, self.model
        )

    @override
    def weights_digest(self) -> str:
        return weights_digest(self.model)


class ClipEncoder(ImageEncoder):
    """CLIP on a center crop of its image size: patch vectors without CLS, and the image embedding, not normalized.

    Args:
        model: loaded model; it is frozen.
        normalization: mean and standard deviation of the colors; CLIP's if not given.
    """

    def __init__(self, model: CLIPVisionModelWithProjection, *, normalization: tuple[Colors, Colors] = _CLIP) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.mean, self.std = normalization
        config = model.config
        self.side: int = config.image_size
        self.spec = ImageFeatureSpec((self.side // config.patch_size) ** 2, config.hidden_size, config.projection_dim)

    def prepare(self, photo: Photo) -> View:
        """Resize the shorter side to the model's, crop the center, and normalize, as CLIP's processor does.

        Args:
            photo: any.
        """
        return center_crop(photo, shorter=self.side, side=self.side, mean=self.mean, std=self.std)

    @override
    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        outputs = _outputs(views, self.model)
        return _concatenate(
            [(output.last_hidden_state[:, 1:], output.image_embeds) for output in outputs], views, self.model
        )

    @override
    def weights_digest(self) -> str:
        return weights_digest(self.model)


class BackboneEncoder(ImageEncoder):
    """Features of a backbone under the empty prompt, average-pooled to `side` x `side` patches.

    Patch vectors are scaled to a root mean square of 1, which is about that of DINOv2's. The pooled vector is their
    mean.

    Args:
        config: number of patches and timestep; the defaults if not given.
        backbone: backbone that takes a prompt.

    Raises:
        InputError: the backbone takes no prompt.
    """

    empty_prompt: Tensor

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
            empty = text_encoder.encode(text_encoder.embed(text_encoder.tokenize([""])))
        self.register_buffer("empty_prompt", empty, persistent=False)

    @override
    def prepare(self, photo: Photo) -> View:
        return self.backbone.prepare(photo)

    @override
    @torch.no_grad()
    def encode(self, views: Views) -> ImageFeatures:
        prompt = PromptEmbedding(self.empty_prompt)
        with without_autocast(self.backbone.device):
            maps = [
                self.backbone.extract(self.backbone.encode(view), prompt, self.sampling).values for view in views.each()
            ]
        local = F.adaptive_avg_pool2d(torch.cat(maps), self.config.side).flatten(2).transpose(1, 2)
        local = local / local.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-6)
        return ImageFeatures(local, local.mean(dim=1))

    @override
    def weights_digest(self) -> str | None:
        own = self.backbone.weights_digest()
        if own is None:
            return None
        return digest(
            own, weights_digest(self.backbone), self.empty_prompt, self.backbone.spec, self.spec, self.sampling
        )


def _outputs(views: Views, model: PreTrainedModel) -> list[Any]:
    """Return the output for each photo, computed in batches of one, so that none depends on the rest of the batch.

    The model runs in its own dtype, also inside an autocast.
    """
    with without_autocast(model.device):
        return [model(pixel_values=view.pixels.to(model.device, model.dtype)) for view in views.each()]


def _concatenate(features: Sequence[tuple[Tensor, Tensor]], views: Views, model: PreTrainedModel) -> ImageFeatures:
    """Return the features of all photos.

    Raises:
        NonFiniteError: the features are not finite; the message names photo and dtype.
    """
    local, pooled = (torch.cat(tensors).float() for tensors in zip(*features, strict=True))
    for values in (local, pooled):
        check_each_finite("the image features", views.names, "", values, model.dtype)
    return ImageFeatures(local, pooled)


def load_dinov2(config: Dinov2Config, *, device: str | torch.device = "cpu") -> Dinov2Encoder:
    """Load DINOv2, with registers or without, from a transformers folder or from the hub.

    Args:
        config: name of the weights.
        device: device of the weights.

    Raises:
        CheckpointError: the model is not found, damaged, or not a DINOv2.
    """
    folder, content = _find(config.weights, tuple(_DINOV2_FAMILIES), "DINOv2")
    fields = Fields(content, str(folder / "config.json"))
    _check(fields)
    fields.whole("patch_size", high=_DINOV2_SIDE)
    model = _load(_DINOV2_FAMILIES[content["model_type"]], folder, unused=_DINOV2_UNUSED, others=_DINOV2_HEAD)
    return Dinov2Encoder(model, normalization=read_normalization(folder, default=_IMAGENET)).to(device)


def load_clip(config: ClipConfig, *, device: str | torch.device = "cpu") -> ClipEncoder:
    """Load CLIP's image tower from a transformers folder or from the hub.

    Args:
        config: name of the weights.
        device: device of the weights.

    Raises:
        CheckpointError: the model is not found, damaged, or not a CLIP.
    """
    folder, content = _find(config.weights, ("clip", "clip_vision_model"), "CLIP")
    if content["model_type"] == "clip_vision_model":
        _check(Fields(content, str(folder / "config.json")), "hidden_act", "projection_dim")
    elif isinstance(content.get("vision_config"), dict):  # of a whole CLIP, where fields may be left out
        check_table(Fields(content["vision_config"], f"{folder / 'config.json'}: vision_config"), TRANSFORMER)
    model = _load(CLIPVisionModelWithProjection, folder, others=_CLIP_OTHER_TOWER)
    return ClipEncoder(model, normalization=read_normalization(folder, default=_CLIP)).to(device)


def _find(weights: str, families: tuple[str, ...], name: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an image encoder and its config, after a check of its family.

    Raises:
        CheckpointError: there is no such folder, or the model is of another family.
    """
    try:
        folder = find_pretrained(weights, "vision_transformer")
        content = read_json(folder / "config.json")
        check_family(content, families, where=str(folder))
    except CheckpointError as error:
        raise CheckpointError(
            f"cannot load the image encoder {shown(weights)}, which must be a {name}: {error}"
        ) from None
    return folder, content


def _check(fields: Fields, *needed: str) -> None:
    require(fields, "num_attention_heads", *needed)
    check_transformer(fields)


def _load(model_class: type[PreTrainedModel], folder: Path, **patterns: Sequence[str]) -> Any:
    return load_whole(model_class, folder, stem="model", variant=find_variant(folder, "model", None), **patterns)
