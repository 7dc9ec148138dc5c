"""Patch features of a frozen vision transformer: DINO and DINOv2, which take no prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from sd4match.backbones.config import VisionTransformerConfig
from sd4match.backbones.preprocessing import pad, squash
from sd4match.backbones.pretrained import find_pretrained, read_json
from sd4match.backbones.transformer_spec import transformer_spec
from sd4match.errors import CheckpointError, InputError, ShapeError
from sd4match.geometry import Grid
from sd4match.hashing import digest, sampled_weights, weights_digest
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class VisionTransformerBackbone(Backbone):
    """Vision transformer as a feature extractor.

    The map is the output of a block ("token", before the final norm, as SD+DINO reads it) or the keys of its attention
    ("key", all heads concatenated), without the tokens that are not patches. Positions are interpolated for images of
    another size than the model's. `encode` does all the work, so that it can be cached; neither a prompt nor noise
    changes the features.

    Convention: patches and pixels cover the same area ("centers").

    Args:
        config: facet and image size.
        model: loaded; it is frozen, and its blocks after `spec.layer` are removed.
        spec: shapes of the model's features; see `transformer_spec`.

    Raises:
        InputError: the image size is not a multiple of the patch, or there is no such block.
    """

    def __init__(self, config: VisionTransformerConfig, *, model: PreTrainedModel, spec: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.model = model.requires_grad_(False).eval()
        self.spec = spec
        side = config.image_size or spec.native_size[0]
        if side % spec.size_multiple:
            raise InputError(f"image_size must be a multiple of the patch, {spec.size_multiple}, not {side}")
        self.image_size = (side, side)
        self.fingerprint = sampled_weights(model)
        blocks, layer = _blocks(model), spec.layer
        if not (isinstance(layer, int) and 0 <= layer < len(blocks)):
            raise InputError(f"layer must be a block, 0 to {len(blocks) - 1}, not {layer}")
        del blocks[layer + 1 :]
        self._forward_options: dict[str, Any] = {}
        if not model.config.model_type.startswith("dinov2"):  # DINOv2 always interpolates positions
            self._forward_options["interpolate_pos_encoding"] = True

    def prepare(self, photo: Photo) -> View:
        """Squash or pad a photo to the model's square, as `spec.frame` says, and normalize it as ImageNet."""
        view = pad(photo, self.image_size[0]) if self.spec.frame == "pad" else squash(photo, self.image_size)
        return View((view.pixels / 2 + 0.5 - _MEAN) / _STD, view.frame, view.key)

    @torch.no_grad()
    def encode(self, views: Views) -> Encoded:
        """Compute the features, in batches of one photo.

        Returns:
            Tensor "features", (B, C, h, w), float32.

        Raises:
            ShapeError: the views have another size than the model's image.
        """
        expected = (3, *self.image_size)
        if tuple(views.pixels.shape[1:]) != expected:
            raise ShapeError(f"expected views (B, {', '.join(map(str, expected))}), got {tuple(views.pixels.shape)}")
        outputs: list[Tensor] = []
        block = _blocks(self.model)[-1]
        module = block if self.config.facet == "token" else _key_projection(block)

        def record(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            outputs.append(output if isinstance(output, Tensor) else output[0])

        hook = module.register_forward_hook(record)
        try:
            for view in views.each():
                self.model(pixel_values=view.pixels.to(self.model.device, self.model.dtype), **self._forward_options)
        finally:
            hook.remove()
        height, width = (side // self.spec.stride for side in self.image_size)
        patches = torch.cat(outputs)[:, -height * width :].float()
        features = patches.transpose(1, 2).unflatten(2, (height, width))
        return Encoded({"features": features}, views.frames, views.keys)

    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Return the encoded features; neither the prompt nor the sampling changes them."""
        features = encoded.tensors["features"].to(self.model.device)
        height, width = features.shape[-2:]
        return FeatureMap(features, Grid(encoded.frames, (height, width), "centers"))

    def weights_digest(self) -> str:
        """Return a digest of the model, the layer and the facet."""
        return digest(weights_digest(self.model), self.spec.layer, self.config.facet)


def load_vision_transformer(
    config: VisionTransformerConfig, *, device: str | torch.device = "cpu"
) -> VisionTransformerBackbone:
    """Load a transformers folder.

    Args:
        config: which model, and how it is read.
        device: of the weights.

    Raises:
        CheckpointError: the model is not found, damaged, or not a vision transformer.
    """
    folder = find_pretrained(config.weights, "vision_transformer")
    spec = transformer_spec(
        read_json(folder / "config.json"), where=str(folder), layer=config.layer, facet=config.facet,
        frame=config.frame, dtype=config.dtype,
    )  # fmt: skip
    try:
        model: PreTrainedModel = AutoModel.from_pretrained(
            folder, dtype=getattr(torch, config.dtype), local_files_only=True
        )
    except Exception as error:  # transformers raises many types of errors
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"cannot load the model in {folder}: {reason}") from None
    return VisionTransformerBackbone(config, model=model, spec=spec).to(device)


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of the transformer, whose name depends on the release of transformers."""
    inner = getattr(model, "encoder", model)
    blocks = getattr(inner, "layer", None) or getattr(inner, "layers", None)
    if not isinstance(blocks, nn.ModuleList):
        raise CheckpointError(f"{type(model).__name__} is not a vision transformer with blocks that can be read")
    return blocks


def _key_projection(block: nn.Module) -> nn.Module:
    """Return the projection to keys in the attention of a block."""
    modules: dict[str, nn.Module] = dict(block.named_modules())
    for name, module in modules.items():
        if name.rpartition(".")[2] in ("k_proj", "key"):
            return module
    raise CheckpointError(f"{type(block).__name__} has no projection to keys")
