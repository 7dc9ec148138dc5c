"""Dense histograms of oriented gradients: a backbone without weights, and a worked example of a backbone.

A backbone has three methods: `prepare` brings a photo into the model's image, `encode` computes everything that depends
on the photo alone and can be cached, and `extract` returns the feature map. docs/how-to/own-backbone.md explains this
file step by step.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.backbones.config import HogConfig
from sd4match.backbones.precision import without_autocast
from sd4match.backbones.preprocessing import squash
from sd4match.checks import check_shape
from sd4match.fingerprints import network_fingerprint
from sd4match.geometry import Grid
from sd4match.hashing import digest
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling


class HogBackbone(Backbone):
    """Backbone of histograms of gradient directions in a window of cells (Dalal and Triggs, 2005).

    Neither a prompt nor noise changes the features. Gradients are divided by those around them, so that a brighter
    photo has nearly the same features where its gradients are above the config's `floor`.

    Convention: cells and pixels cover the same area ("centers").

    Args:
        config: sizes of cells, blocks and windows.

    >>> from sd4match.testing import random_photo
    >>> backbone = HogBackbone(HogConfig(image_size=64, window=3))
    >>> encoded = backbone.encode(Views.of([backbone.prepare(random_photo())]))
    >>> backbone.extract(encoded, None, Sampling(timestep=0)).values.shape
    torch.Size([1, 243, 8, 8])
    """

    pooling: Tensor
    """Weight of each pixel of a row or a column in each cell, (cells, pixels)."""
    weights: Tensor
    """Weight of each cell of the window, (window * window, 1)."""

    @check_arguments
    def __init__(self, config: HogConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = config.spec()
        self.fingerprint = network_fingerprint("hog", config=config)
        self.register_buffer("pooling", _pooling(config.image_size, config.cell, config.stride), persistent=False)
        self.register_buffer("weights", _gaussian_window(config.window, config.sigma), persistent=False)

    def prepare(self, photo: Photo) -> View:
        """Squash a photo to the square whose side is `image_size`; pixels are in [-1, 1].

        Args:
            photo: any.
        """
        return squash(photo, (self.config.image_size, self.config.image_size))

    def encode(self, views: Views) -> Encoded:
        """Compute the histogram of every cell. `extract` gathers the windows, so that cached tensors stay small.

        Args:
            views: B photos, as `prepare` returns them.

        Returns:
            Tensor "histograms", (B, 2 * orientations, h, w), float32: gradients per pixel, by direction.

        Raises:
            ShapeError: the views have another size than the backbone's image.
        """
        side = self.config.image_size
        check_shape("the views", views.pixels, "B C H W", C=3, H=side, W=side)
        with without_autocast(self.device):
            magnitudes, angles = _strongest_gradients(views.pixels.to(self.device, torch.float32) / 2 + 0.5)
            votes = _votes(magnitudes, angles, bins=2 * self.config.orientations)
            histograms = self.pooling @ votes @ self.pooling.T
        return Encoded({"histograms": histograms}, views.frames, views.keys, views.names)

    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Normalize the histograms and describe each cell by the window of cells around it.

        Args:
            encoded: B photos.
            prompt: without effect.
            sampling: without effect.

        Returns:
            (B, C, h, w) features with mean 0 over the cells of each photo.
        """
        signed = encoded.tensors["histograms"].to(self.device)
        # Unsigned directions do not distinguish dark-to-light from light-to-dark edges, so that an object looks similar
        # in front of a dark and of a light background.
        unsigned = signed[:, : self.config.orientations] + signed[:, self.config.orientations :]
        step = self.config.overlap  # cells overlap, so neighbors in a block or window are this many positions apart
        energy = unsigned.square().sum(dim=1, keepdim=True)
        energy = _neighbors(energy, self.config.block, step).sum(dim=2)
        # `floor` suppresses noise in plain areas, and gives a photo without gradients zeros. `clip` limits the weight
        # of a single strong edge in the cosine of two windows.
        cells = torch.cat([signed, unsigned], dim=1) / (energy + self.config.floor**2).sqrt()
        windows = _neighbors(cells.clamp(max=self.config.clip), self.config.window, step).mul_(self.weights[..., None])
        features = windows.flatten(1, 2)
        # The mean over all cells does not distinguish them.
        features -= features.mean(dim=(2, 3), keepdim=True)
        return FeatureMap(features, Grid(encoded.frames, (features.shape[2], features.shape[3]), "centers"))

    @property
    def encoded_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each encoded tensor of one photo."""
        cells = self.config.image_size // self.config.stride
        return {"histograms": (2 * self.config.orientations, cells, cells)}

    @override
    def weights_digest(self) -> str:
        return digest("hog", self.config)


def _strongest_gradients(
    pixels: Float[Tensor, "batch 3 height width"],
) -> tuple[Float[Tensor, "batch height width"], Float[Tensor, "batch height width"]]:
    """Return length and angle of the longest of the gradients of the three colors at each pixel.

    Differences are taken of the square roots of intensities, since the visibility of an edge depends on a ratio rather
    than on a difference. At the border the outermost pixels are repeated, so that no edge appears there.
    """
    padded = F.pad(pixels.sqrt(), (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    magnitudes, colors = torch.hypot(across, down).max(dim=1, keepdim=True)
    angles = torch.atan2(down.gather(1, colors), across.gather(1, colors))
    return magnitudes[:, 0], angles[:, 0]


def _votes(
    magnitudes: Float[Tensor, "batch height width"], angles: Float[Tensor, "batch height width"], *, bins: int
) -> Float[Tensor, "batch {bins} height width"]:
    """Divide each gradient between the two nearest directions, so that a small rotation changes little."""
    position = angles[:, None] * (bins / (2 * math.pi))
    directions = torch.arange(bins, device=angles.device)[:, None, None]
    away = (position - directions + bins / 2).remainder(bins) - bins / 2  # on the circle
    return (1 - away.abs()).clamp(min=0) * magnitudes[:, None]


def _pooling(side: int, cell: int, stride: int) -> Float[Tensor, "cells pixels"]:
    """Return weights that fall linearly from the center of a cell to zero at the centers of the adjacent cells."""
    centers = torch.arange(side // stride) * stride + (stride - 1) / 2
    return (1 - (torch.arange(side) - centers[:, None]).abs() / cell).clamp(min=0) / cell


def _gaussian_window(window: int, sigma: float) -> Float[Tensor, "neighbors 1"]:
    """Return Gaussian weights of the cells of a window, since shapes differ more far from its center."""
    offsets = torch.arange(window) - window // 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return torch.outer(weights, weights).reshape(-1, 1)


def _neighbors(
    maps: Float[Tensor, "batch channels h w"], side: int, step: int
) -> Float[Tensor, "batch channels _ h w"]:
    """Return the cells, `step` positions apart, of the square around each cell; zeros beyond the photo."""
    unfolded: Tensor = F.unfold(maps, side, dilation=step, padding=step * (side // 2))
    return unfolded.reshape(len(maps), maps.shape[1], side * side, *maps.shape[2:])
