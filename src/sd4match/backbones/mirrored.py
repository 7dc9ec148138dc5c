"""Backbone that also extracts each photo mirrored, so that the better orientation of a pair can be chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.backbones.fusion_spec import mirrored_spec
from sd4match.errors import InputError
from sd4match.hashing import digest
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling

_SIDES = ("photo.", "mirrored.")
"""Prefixes of the tensors of a photo and of its mirror image."""


@dataclass(frozen=True, eq=False)
class _MirroredView(View):
    """View of a photo, with the views of the photo and of its mirror image that the backbone made."""

    sides: tuple[View, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Digest of the views of the photo and of its mirror image."""
        return digest(*(view.digest for view in self.sides))


class MirroredBackbone(Backbone):
    """Backbone whose map holds the features of a photo and of its mirror image, on the same cells.

    The map of the mirror image is flipped back: the second half of a cell's channels describes the same spot of the
    photo as the first half, as seen in the mirror image. `MirroredAlignment` selects one of the halves when a pair is
    matched.

    Convention: prompt and noise of the mirror image are those of the photo. If a photo cannot be centered exactly in a
    padded view, its mirror image is off by one pixel of the model's image.

    Args:
        backbone: any; it encodes and extracts each photo twice.

    >>> from sd4match.testing import FakeBackbone, random_photo
    >>> backbone = MirroredBackbone(FakeBackbone())
    >>> encoded = backbone.encode(Views.of([backbone.prepare(random_photo())]))
    >>> backbone.extract(encoded, None, Sampling(timestep=0)).groups
    (48, 48)
    """

    @check_arguments
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = mirrored_spec(backbone.spec)
        self.text_encoder = backbone.text_encoder
        self.fingerprint = backbone.fingerprint
        self.encoded_at_once = backbone.encoded_at_once

    def prepare(self, photo: Photo) -> View:
        """Preprocess a photo and its mirror image; the frame is that of the photo.

        Args:
            photo: any.
        """
        mirrored = Photo(np.ascontiguousarray(photo.pixels[:, ::-1]), photo.name)
        view = self.backbone.prepare(photo)
        sides = (view, self.backbone.prepare(mirrored))
        return _MirroredView(view.pixels, view.frame, view.key, view.name, sides=sides)

    def encode(self, views: Views) -> Encoded:
        """Encode the photos and their mirror images.

        Args:
            views: B photos, as `prepare` returns them.

        Returns:
            Tensors "photo.NAME" and "mirrored.NAME".

        Raises:
            InputError: the views were not prepared by a mirrored backbone.
        """
        sides = [view.sides for view in views.views if isinstance(view, _MirroredView)]
        if len(sides) != len(views):
            raise InputError("a mirrored backbone encodes only the views that it prepares")
        tensors: dict[str, Tensor] = {}
        for side, own in zip(_SIDES, zip(*sides, strict=True), strict=True):
            tensors |= {side + name: tensor for name, tensor in self.backbone.encode(Views(own)).tensors.items()}
        return Encoded(tensors, views.frames, views.keys, views.names)

    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Compute both maps, flip the mirrored one back, and concatenate them.

        Args:
            encoded: B photos.
            prompt: (B, L, D) or (1, L, D), for the photos and their mirror images.
            sampling: timestep, ensemble and noise, for both.

        Returns:
            (B, 2 C, h, w) features on the grid of the photos.

        Raises:
            InputError: the inner backbone needs a prompt and there is none.
            ShapeError: the prompt has another width or batch.
        """
        photo, mirrored = (self.backbone.extract(_side(side, encoded), prompt, sampling) for side in _SIDES)
        groups = photo.groups or (photo.values.shape[1],)
        return FeatureMap(torch.cat([photo.values, mirrored.values.flip(-1)], dim=1), photo.grid, 2 * groups)

    @property
    def encoded_shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Shape of each encoded tensor of one photo; None if the inner backbone does not declare its own."""
        shapes: Mapping[str, tuple[int, ...]] | None = getattr(self.backbone, "encoded_shapes", None)
        return None if shapes is None else {side + name: shape for side in _SIDES for name, shape in shapes.items()}

    @override
    def weights_digest(self) -> str | None:
        inner = self.backbone.weights_digest()
        return None if inner is None else digest("mirrored", inner)


def _side(prefix: str, encoded: Encoded) -> Encoded:
    """Return the encoded photos, or their encoded mirror images."""
    items: Iterable[tuple[str, Tensor]] = encoded.tensors.items()
    tensors = {name.removeprefix(prefix): tensor for name, tensor in items if name.startswith(prefix)}
    return Encoded(tensors, encoded.frames, encoded.keys, encoded.names)
