"""Patch features of a frozen vision transformer of transformers, such as DINO, iBOT, CLIP's or SigLIP's image tower."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, CLIPVisionModel, PreTrainedModel, SiglipVisionModel
from typing_extensions import override

from sd4match.backbones.config import VisionTransformerConfig
from sd4match.backbones.loading import load_whole
from sd4match.backbones.model_files import Fields, find_variant, read_json
from sd4match.backbones.network_fields import require
from sd4match.backbones.precision import without_autocast
from sd4match.backbones.preprocessing import Colors, check_views, normalize_colors, put_into_frame
from sd4match.backbones.pretrained import PRETRAINED, find_pretrained
from sd4match.backbones.transformer_spec import image_tower, prefix_tokens, transformer_spec
from sd4match.checks import check_each_finite
from sd4match.errors import CheckpointError, InputError
from sd4match.fingerprints import network_fingerprint
from sd4match.geometry import Grid
from sd4match.hashing import digest, weights_digest
from sd4match.interfaces import Backbone
from sd4match.paths import exists
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling

_IMAGENET: tuple[Colors, Colors] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_IMAGENETS_COLORS = ("dinov2", "dinov2_with_registers")
"""Model types of which every published model has ImageNet's colors, as every known name has."""
_TOWERS = {"clip": CLIPVisionModel, "siglip": SiglipVisionModel}
"""Classes of the image tower of models that also have a text tower, by model type."""

_UNUSED = (r"(^|\.)pooler\.", r"(^|\.)mask_token$")
"""Tensors on which no block depends; the checkpoints of DINO have no pooler."""
_HEADS = (r"^classifier\.", r"^cls_classifier\.", r"^distillation_classifier\.", r"^visual_projection\.",
          r"^text_model\.", r"^text_projection\.", r"^logit_(scale|bias)$")  # fmt: skip
"""Tensors after the transformer, and those of a text tower."""


class VisionTransformerBackbone(Backbone):
    """Backbone that reads patch features from a vision transformer.

    The map is the output of a block ("token", before the final norm, as SD+DINO reads it) or the keys of its attention
    ("key", all heads concatenated), for the patch tokens only. Positions are interpolated for images of another size
    than the model's. All computation is in `encode`, whose result is cached; neither a prompt nor noise changes the
    features.

    Convention: patches and pixels cover the same area ("centers").

    Args:
        config: facet and image size.
        model: loaded model; it is frozen, and its blocks after `spec.layer` are removed.
        spec: shapes of the model's features; see `transformer_spec`.
        normalization: mean and standard deviation of the colors; ImageNet's if not given.

    Raises:
        InputError: the image size is not a multiple of the patch, or there is no such block.
    """

    def __init__(
        self,
        config: VisionTransformerConfig,
        *,
        model: PreTrainedModel,
        spec: FeatureSpec,
        normalization: tuple[Colors, Colors] = _IMAGENET,
    ) -> None:
        super().__init__()
        self.config = config
        self.model = model.requires_grad_(False).eval()
        self.spec = spec
        side = config.image_size or spec.native_size[0]
        if side % spec.size_multiple:
            raise InputError(f"image_size must be a multiple of the patch, {spec.size_multiple}, not {side}")
        self.image_size = (side, side)
        self.fingerprint = network_fingerprint("transformer", model, unused=_UNUSED, config=normalization)
        blocks, layer = _blocks(model), spec.layer
        if not (isinstance(layer, int) and 0 <= layer < len(blocks)):
            raise InputError(f"layer must be a block, 0 to {len(blocks) - 1}, not {layer}")
        del blocks[layer + 1 :]
        self._forward_options: dict[str, Any] = {}
        self._mean, self._std = (torch.tensor(colors)[:, None, None] for colors in normalization)
        if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:  # DINOv2 and 3 always do
            self._forward_options["interpolate_pos_encoding"] = True

    def prepare(self, photo: Photo) -> View:
        """Squash or pad a photo to the model's square, as `spec.frame` says, and normalize its colors.

        Args:
            photo: any.
        """
        return normalize_colors(put_into_frame(photo, self.spec.frame, self.image_size), self._mean, self._std)

    @torch.no_grad()
    def encode(self, views: Views) -> Encoded:
        """Compute the features, in batches of one photo and in the model's own dtype, also inside an autocast.

        Args:
            views: B photos, as `prepare` returns them.

        Returns:
            Tensor "features", (B, C, h, w), float32.

        Raises:
            ShapeError: the views have another size than the model's image.
            CheckpointError: the model returns another number of tokens than it declares.
            NonFiniteError: the features are not finite; the message names photo, layer and dtype.
        """
        check_views(views, self.image_size)
        outputs: list[Tensor] = []
        block = _blocks(self.model)[-1]
        module = block if self.config.facet == "token" else _key_projection(block)

        def record(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            outputs.append(output if isinstance(output, Tensor) else output[0])

        hook = module.register_forward_hook(record)
        try:
            with without_autocast(self.model.device):
                for view in views.each():
                    pixels = view.pixels.to(self.model.device, self.model.dtype)
                    self.model(pixel_values=pixels, **self._forward_options)
        finally:
            hook.remove()
        height, width = (side // self.spec.stride for side in self.image_size)
        tokens, others = outputs[0].shape[1], prefix_tokens(self.model.config.to_dict())
        if tokens != others + height * width:
            raise CheckpointError(
                f"{self.spec.architecture}: a block gives {tokens} tokens, where {others} and {height} x {width} "
                "patches are declared"
            )
        patches = torch.cat(outputs)[:, others:].float()
        check_each_finite("the features", views.names, f"at layer {self.spec.layer}", patches, self.model.dtype)
        features = patches.transpose(1, 2).unflatten(2, (height, width))
        return Encoded({"features": features}, views.frames, views.keys, views.names)

    @override
    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        features = encoded.tensors["features"].to(self.model.device)
        height, width = features.shape[-2:]
        return FeatureMap(features, Grid(encoded.frames, (height, width), "centers"))

    @property
    def encoded_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each encoded tensor of one photo."""
        height, width = (side // self.spec.stride for side in self.image_size)
        return {"features": (self.spec.channels, height, width)}

    @override
    def weights_digest(self) -> str:
        return digest(weights_digest(self.model), self.spec.layer, self.config.facet)


def load_vision_transformer(
    config: VisionTransformerConfig, *, device: str | torch.device = "cpu"
) -> VisionTransformerBackbone:
    """Load a transformers folder.

    Args:
        config: model, block and options.
        device: device of the weights.

    Raises:
        CheckpointError: the model is not found, damaged, or not a vision transformer, or does not say how its colors
            are normalized.
    """
    folder = find_pretrained(config.weights, "vision_transformer")
    content = read_json(folder / "config.json")
    spec = transformer_spec(
        content, where=str(folder), layer=config.layer, facet=config.facet,
        frame=config.frame, dtype=config.dtype,
    )  # fmt: skip
    require(Fields(image_tower(content, where=str(folder)), str(folder / "config.json")), "num_attention_heads")
    known = config.weights in PRETRAINED or content["model_type"] in _IMAGENETS_COLORS
    normalization = read_normalization(folder, default=_IMAGENET if known else None)
    model: PreTrainedModel = load_whole(
        _TOWERS.get(content["model_type"], AutoModel), folder, stem="model",
        variant=find_variant(folder, "model", None), unused=_UNUSED, others=_HEADS, dtype=getattr(torch, config.dtype),
    )  # fmt: skip
    return VisionTransformerBackbone(config, model=model, spec=spec, normalization=normalization).to(device)


def read_normalization(folder: Path, *, default: tuple[Colors, Colors] | None) -> tuple[Colors, Colors]:
    """Return mean and standard deviation of the colors, as the file of a model's image processor gives them.

    That is preprocessor_config.json, or `image_processor` in processor_config.json.

    Args:
        folder: folder of the model.
        default: values for a model without such a file or field; None: both are required.

    Raises:
        CheckpointError: the file is missing or damaged, or a field is missing or not three numbers.
    """
    file, content = folder / "preprocessor_config.json", None
    if exists(file):
        content = read_json(file)
    elif exists(folder / "processor_config.json"):
        content = read_json(folder / "processor_config.json").get("image_processor")
    if not isinstance(content, dict):
        if default is not None:
            return default
        raise CheckpointError(
            f"{file} is missing, and models of this type differ in how colors are normalized: save the model's image "
            'processor beside it, or write {"image_mean": [R, G, B], "image_std": [R, G, B]}'
        )
    fields = Fields(content, str(file))
    fields.only("do_rescale", True, why="since pixels are scaled to [0, 1]")
    fields.number("rescale_factor", low=0.00392, high=0.003923, default=1 / 255)
    if not fields.flag("do_normalize", default=True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = default or (None, None)
    return fields.colors("image_mean", low=-10.0, default=mean), fields.colors("image_std", low=1e-3, default=std)


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of the transformer, whose attribute differs between classes of transformers."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layer", "layers", "blocks"):
            return module
    raise CheckpointError(f"{type(model).__name__} is not a vision transformer with blocks that can be read")


def _key_projection(block: nn.Module) -> nn.Module:
    """Return the projection to keys in the attention of a block."""
    modules: dict[str, nn.Module] = dict(block.named_modules())
    for name, module in modules.items():
        if name.rpartition(".")[2] in ("k_proj", "key"):
            return module
    raise CheckpointError(f"{type(block).__name__} has no projection to keys")
