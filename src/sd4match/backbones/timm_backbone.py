"""Features of a frozen model of timm: vision transformers, convolutional and hybrid networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from sd4match.backbones.config import TimmConfig
from sd4match.backbones.joined import joined
from sd4match.backbones.precision import without_autocast
from sd4match.backbones.preprocessing import Colors, check_views, normalize_colors, put_into_frame
from sd4match.backbones.timm_models import declared, load, settings_digest
from sd4match.checks import check_each_finite
from sd4match.errors import CheckpointError, InputError, shown
from sd4match.fingerprints import network_fingerprint
from sd4match.geometry import Grid
from sd4match.hashing import digest, weights_digest
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling


class TimmBackbone(Backbone):
    """Backbone that reads features from a model of timm.

    The map is the result of `forward_intermediates` for a layer: the patch tokens of a transformer's block before the
    final norm, or the output of a stage of a convolutional network. Several layers are resized to the finest and
    concatenated, as in Stable Diffusion. All computation is in `encode`, whose result is cached; neither a prompt nor
    noise changes the features.

    Convention: cells and pixels cover the same area ("centers").

    Args:
        config: model, layers and options.
        model: loaded model; it is frozen, and the layers after the last requested one are removed.
        spec: shapes of the model's features; see `declared`.
        normalization: mean and standard deviation of the colors, which are in [0, 1].

    Raises:
        InputError: the image size does not fit the model.
    """

    def __init__(
        self, config: TimmConfig, *, model: Any, spec: FeatureSpec, normalization: tuple[Colors, Colors]
    ) -> None:
        super().__init__()
        self.config = config
        self.model = model.requires_grad_(False).eval()
        self.spec = spec
        self.layers = tuple(int(layer) for layer in str(spec.layer).split("+"))
        side = config.image_size or spec.native_size[0]
        if side % spec.size_multiple:
            raise InputError(f"image_size must be a multiple of {spec.size_multiple}, not {side}")
        self.image_size = (side, side)
        self._cells = (side // spec.stride, side // spec.stride)
        self._settings = digest(settings_digest(model), normalization)
        self.fingerprint = network_fingerprint("timm", model, config=self._settings)
        self._mean, self._std = (torch.tensor(colors)[:, None, None] for colors in normalization)
        if hasattr(model, "prune_intermediate_layers"):
            model.prune_intermediate_layers(sorted(self.layers), prune_norm=False, prune_head=True)

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
            CheckpointError: the model fails, or returns features of another shape than it declares.
            NonFiniteError: the features are not finite; the message names photo, layer and dtype.
        """
        check_views(views, self.image_size)
        weight = next(self.model.parameters())
        features = []
        with without_autocast(weight.device):
            for view in views.each():
                maps = [layer.float() for layer in self._intermediates(view.pixels.to(weight.device, weight.dtype))]
                for layer, values in zip(self.layers, maps, strict=True):
                    check_each_finite("the features", view.names, f"at layer {layer}", values, weight.dtype)
                features.append(joined(maps, self._cells))
        values = torch.cat(features)
        if tuple(values.shape[1:]) != self.encoded_shapes["features"]:
            raise CheckpointError(
                f"{shown(self.config.weights)} declares features {self.encoded_shapes['features']}, and computes "
                f"{tuple(values.shape[1:])}"
            )
        return Encoded({"features": values}, views.frames, views.keys, views.names)

    @override
    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        features = encoded.tensors["features"].to(next(self.model.parameters()).device)
        height, width = features.shape[-2:]
        return FeatureMap(features, Grid(encoded.frames, (height, width), "centers"), self.spec.groups)

    @property
    def encoded_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each encoded tensor of one photo."""
        return {"features": (self.spec.channels, *self._cells)}

    @override
    def weights_digest(self) -> str:
        return digest(weights_digest(self.model), self._settings, self.layers)

    def _intermediates(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps of the layers, in the order of the config; timm returns them by depth."""
        depths = sorted(self.layers)
        try:
            maps = self.model.forward_intermediates(
                pixels, indices=depths, stop_early=True, output_fmt="NCHW", intermediates_only=True
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model of timm may raise any
            side = self.image_size[0]
            raise CheckpointError(
                f"{shown(self.config.weights)} cannot compute features of an image of {side} x {side} pixels: "
                f"{' '.join(str(error).split())[:300] or shown(error)}"
            ) from None
        return [maps[depths.index(layer)] for layer in self.layers]


def load_timm(config: TimmConfig, *, device: str | torch.device = "cpu") -> TimmBackbone:
    """Load a model of timm.

    Args:
        config: model, layers and options.
        device: device of the weights.

    Raises:
        ConfigError: timm cannot be imported.
        InputError: the image size does not fit the model.
        CheckpointError: the model is not found, damaged, or has no intermediates that can be read.
    """
    about = declared(config)
    model = load(config, about).to(getattr(torch, config.dtype))
    return TimmBackbone(config, model=model, spec=about.spec, normalization=about.normalization).to(device)
