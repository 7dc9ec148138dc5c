"""Backbone whose features do not contain the directions that depend on the position of a cell alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.backbones.config import DebiasedConfig
from sd4match.backbones.fusion_spec import debiased_spec
from sd4match.hashing import digest
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.tensors import Encoded, EvaluationNoise, FeatureMap, PromptEmbedding, Sampling

_SMALLEST_SHARE = 1e-10
"""Share of a blank image's energy below which a direction is rounding error, as in a backbone without positions."""
_PROMPTS = 64
"""Number of prompts whose directions are cached."""


class DebiasedBackbone(Backbone):
    """Backbone that removes the directions in which the features of a blank image vary.

    A blank image is the same everywhere, so its features differ from cell to cell by position alone. Let the rows of V
    be the first principal directions of these differences, of each group of channels. Features F become F - V^T V F.

    The blank image is encoded once, and extracted once for each prompt, with evaluation noise of seed 0.

    Args:
        config: number of directions, and brightness of the blank image.
        backbone: any.

    Raises:
        ConfigError: a group has no more channels than directions are removed.

    >>> from sd4match.testing import FakeBackbone
    >>> DebiasedBackbone(DebiasedConfig(backbone="hog", components=2), backbone=FakeBackbone()).spec.options
    'without 2 directions of a blank image'
    """

    @check_arguments
    def __init__(self, config: DebiasedConfig, *, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.spec = debiased_spec(backbone.spec, components=config.components)
        self.text_encoder = backbone.text_encoder
        self.fingerprint = backbone.fingerprint
        self.encoded_at_once = backbone.encoded_at_once
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    @override
    def prepare(self, photo: Photo) -> View:
        return self.backbone.prepare(photo)

    @override
    def encode(self, views: Views) -> Encoded:
        return self.backbone.encode(views)

    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Compute the maps with the inner backbone, and project the directions of the blank image out of them.

        Args:
            encoded: B photos.
            prompt: (B, L, D) or (1, L, D), for the photos and the blank image. No gradient goes through the directions.
            sampling: timestep, ensemble and noise; the blank image has the same timestep and ensemble.

        Returns:
            (B, C, h, w) features on the grid of the inner backbone.

        Raises:
            InputError: the inner backbone needs a prompt and there is none.
            ShapeError: the prompt has another width or batch.
        """
        maps = self.backbone.extract(encoded, prompt, sampling)
        rows = [None] if prompt is None else [PromptEmbedding(row.detach()[None]) for row in prompt.values]
        directions = torch.stack([self._directions(row, sampling) for row in rows]).to(maps.values)
        cells = maps.values.flatten(2)
        removed = directions.transpose(1, 2) @ (directions @ cells)
        return replace(maps, values=(cells - removed).unflatten(2, maps.size))

    @property
    def encoded_shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Shape of each encoded tensor of one photo; None if the inner backbone does not declare it."""
        return getattr(self.backbone, "encoded_shapes", None)

    @override
    def weights_digest(self) -> str | None:
        return self.backbone.weights_digest()

    @cached_property
    def _blank(self) -> Encoded:
        height, width = self.spec.native_size
        pixels = np.full((height, width, 3), round(255 * self.config.brightness), np.uint8)
        return self.backbone.encode(Views.of([self.backbone.prepare(Photo(pixels, "blank"))]))

    @torch.no_grad()
    def _directions(self, prompt: PromptEmbedding | None, sampling: Sampling) -> Float[Tensor, "directions channels"]:
        """Return the directions of the blank image under a prompt."""
        sampling = replace(sampling, noise=EvaluationNoise())
        key = digest(None if prompt is None else prompt.values, sampling)
        if key not in self._known:
            blank = self.backbone.extract(self._blank, prompt, sampling)
            groups = blank.values[0].flatten(1).split(blank.groups or (blank.values.shape[1],))
            found = [_principal_directions(group, self.config.components) for group in groups]
            self._known[key] = torch.block_diag(*found)
        self._known.move_to_end(key)
        while len(self._known) > _PROMPTS:
            self._known.popitem(last=False)
        return self._known[key]


def _principal_directions(cells: Float[Tensor, "channels cells"], count: int) -> Float[Tensor, "{count} channels"]:
    """Return the first principal directions of cells; zeros for those of which only rounding error is left."""
    exact = cells.double()
    centered = exact - exact.mean(dim=1, keepdim=True)
    energies, vectors = torch.linalg.eigh(centered @ centered.T)
    real = energies[-count:] > _SMALLEST_SHARE * exact.square().sum()
    directions: Tensor = vectors[:, -count:] * real
    return directions.T.to(cells)
