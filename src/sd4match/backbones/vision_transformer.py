"""Patch features of a frozen vision transformer: DINO and DINOv2, which take no prompt."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from sd4match.backbones.preprocessing import pad, squash
from sd4match.backbones.pretrained import find_checkpoint, read_json
from sd4match.backbones.transformer_spec import transformer_spec
from sd4match.errors import CheckpointError, InputError, ShapeError
from sd4match.hashing import digest, weights_digest
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import FeatureMap, Latents, PromptEmbedding, Sampling

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class VisionTransformerBackbone(nn.Module):
    """A vision transformer as a feature extractor.

    The map is the output of a block ("token", before the final norm, as SD+DINO reads it) or the keys of its attention
    ("key", all heads side by side), without the tokens that are no patches. Positions are interpolated for images of
    another size than the model's. `encode` does all the work, so that a cache keeps it; there is no prompt and no
    noise.

    Convention: patches are aligned by the middles of their areas.
    """

    text = None

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        spec: FeatureSpec,
        layer: int = 11,
        facet: Literal["token", "key"] = "token",
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.spec = spec
        self.facet = facet
        side = image_size or spec.native_size[0]
        if side % spec.size_multiple:
            raise InputError(f"image_size must be a multiple of the patch, {spec.size_multiple}, not {image_size}")
        self.image_size = (side, side)
        self.fingerprint = _sketch(model)
        blocks = _blocks(model)
        if not 0 <= layer < len(blocks):
            raise InputError(f"layer must be a block, 0 to {len(blocks) - 1}, not {layer}")
        del blocks[layer + 1 :]
        self._asked: dict[str, Any] = {}
        if not model.config.model_type.startswith("dinov2"):  # which interpolates positions unasked
            self._asked["interpolate_pos_encoding"] = True

    @classmethod
    def from_folder(
        cls,
        weights: str = "dinov2-base",
        *,
        layer: int | None = None,
        facet: Literal["token", "key"] = "token",
        image_size: int | None = None,
        frame: Literal["squash", "pad"] = "squash",
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        device: str | torch.device = "cpu",
    ) -> VisionTransformerBackbone:
        """Load a transformers folder, and keep of it the blocks up to the one that is read.

        Args:
            weights: a known name, the path of a transformers folder, or an id of the hub.
            layer: the block, from 0; the last, if not given.
            facet: "token" or "key".
            image_size: side of the model's image, a multiple of the patch; what it was trained on, if not given.
            frame: "squash" a photo to that square, or "pad" it.
            dtype: of weights and arithmetic; feature maps come out in float32.
            device: where it runs.

        Raises:
            CheckpointError: the model is nowhere, damaged, or not a vision transformer.
        """
        folder = find_checkpoint(weights, "vision_transformer")
        config = read_json(folder / "config.json")
        spec = transformer_spec(config, where=str(folder), layer=layer, frame=frame, dtype=dtype)
        try:
            model: PreTrainedModel = AutoModel.from_pretrained(folder, dtype=_DTYPES[dtype], local_files_only=True)
        except Exception as error:  # transformers raises whatever the files lead it to
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"cannot load the model in {folder}: {reason}") from None
        assert isinstance(spec.layer, int)
        return cls(model=model, spec=spec, layer=spec.layer, facet=facet, image_size=image_size).to(device)

    def prepare(self, photo: Photo) -> View:
        """Into the model's square, squashed or padded with black, normalised as ImageNet is."""
        view = pad(photo, self.image_size[0]) if self.spec.frame == "pad" else squash(photo, self.image_size)
        return View((view.pixels / 2 + 0.5 - _MEAN) / _DEVIATION, view.frame, view.key)

    def weights_digest(self) -> str:
        """Of the model, and what is read of it."""
        return digest(weights_digest(self.model), self.spec.layer, self.facet)

    @torch.no_grad()
    def encode(self, views: Views) -> Latents:
        """The features themselves, as the posterior's mean; photo by photo."""
        expected = (3, *self.image_size)
        if tuple(views.pixels.shape[1:]) != expected:
            raise ShapeError(f"expected views (B, {', '.join(map(str, expected))}), got {tuple(views.pixels.shape)}")
        seen: list[Tensor] = []
        module = _blocks(self.model)[-1] if self.facet == "token" else _keys(_blocks(self.model)[-1])

        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            seen.append(output if isinstance(output, Tensor) else output[0])

        hook = module.register_forward_hook(keep)
        try:
            for one in views.each():
                self.model(pixel_values=one.pixels.to(self.model.device, self.model.dtype), **self._asked)
        finally:
            hook.remove()
        height, width = (side // self.spec.stride for side in self.image_size)
        patches = torch.cat(seen)[:, -height * width :].float()
        features = patches.transpose(1, 2).unflatten(2, (height, width))
        return Latents(features, torch.zeros(1).expand_as(features), views.frames, views.keys)

    def extract(self, latents: Latents, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """What was encoded; neither the prompt nor the sampling changes it."""
        return FeatureMap(latents.mean.to(self.model.device), latents.frames, "centers")


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer's blocks, whatever a release of transformers calls them."""
    inner = getattr(model, "encoder", model)
    found = getattr(inner, "layer", None) or getattr(inner, "layers", None)
    if not isinstance(found, nn.ModuleList):
        raise CheckpointError(f"{type(model).__name__} is not a vision transformer with blocks that can be read")
    return found


def _keys(block: nn.Module) -> nn.Module:
    """The projection to keys in a block's attention."""
    named: dict[str, nn.Module] = dict(block.named_modules())
    for name, module in named.items():
        if name.rpartition(".")[2] in ("k_proj", "key"):
            return module
    raise CheckpointError(f"{type(block).__name__} has no projection to keys")


def _sketch(model: PreTrainedModel) -> str:
    """A digest of a few weights, rounded so that it survives another dtype."""
    values = [f"{float(value.flatten()[value.numel() // 2]):.3g}" for _, value in sorted(model.state_dict().items())]
    digest = hashlib.blake2b(" ".join(values).encode(), digest_size=6).digest()
    return str(int.from_bytes(digest, "little"))
