"""Fusion of several backbones: their maps, normalized and weighted, on the grid of the first one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from sd4match.arguments import check_arguments
from sd4match.backbones.config import FusionOptions
from sd4match.backbones.fusion_spec import fused_spec
from sd4match.checks import check_each_finite
from sd4match.errors import ConfigError, InputError
from sd4match.geometry import ImageFrame
from sd4match.hashing import digest
from sd4match.interfaces import Backbone
from sd4match.norms import unit_vectors
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling


@dataclass(frozen=True, eq=False)
class _FusedView(View):
    """View of the first backbone, with the views of all backbones."""

    views: tuple[View, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Digest of the views of all backbones."""
        return digest(*(view.digest for view in self.views))


class Fusion(Backbone):
    """Backbone that fuses the maps of several backbones, as SD+DINO fuses two.

    Each map is L2-normalized over its channels. Maps after the first are read at the photo pixels of the first map's
    cells (a squashed and a padded view of a photo do not share a grid), multiplied by their weights and concatenated.
    At most one of the backbones takes a prompt.

    Convention: outside a backbone's view, its outermost cells are read.

    Args:
        config: weights and normalization; weights of 1 and normalized maps if not given.
        backbones: two or more; the feature map lies on the grid of the first one.

    Raises:
        ConfigError: there are fewer than two backbones, another number of weights, or two backbones with a prompt.

    >>> from sd4match.backbones import HogBackbone, HogConfig
    >>> from sd4match.testing import FakeBackbone
    >>> Fusion(backbones=[FakeBackbone(), HogBackbone(HogConfig(image_size=64, window=3))]).spec.groups
    (48, 243)
    """

    @check_arguments
    def __init__(self, config: FusionOptions | None = None, *, backbones: Sequence[Backbone]) -> None:
        super().__init__()
        self.config = config or FusionOptions()
        self.weights = self.config.factors(len(backbones))
        if len(backbones) < 2 or len(self.weights) != len(backbones):
            raise ConfigError(
                f"a fusion has two backbones or more, and a weight for each, not {len(self.weights)} weights"
            )
        self.backbones = nn.ModuleList(backbones)
        specs = [backbone.spec for backbone in backbones]
        self.spec = fused_spec(specs, weights=self.weights, normalize=self.config.normalize)
        encoders = (backbone.text_encoder for backbone in backbones)
        self.text_encoder = next((encoder for encoder in encoders if encoder is not None), None)
        names = [backbone.fingerprint for backbone in backbones]
        self.fingerprint = "unknown" if "unknown" in names else " ".join(names)

    def prepare(self, photo: Photo) -> View:
        """Preprocess a photo for every backbone; the frame is that of the first one.

        Args:
            photo: any.
        """
        views = tuple(backbone.prepare(photo) for backbone in self._all())
        return _FusedView(views[0].pixels, views[0].frame, views[0].key, views[0].name, views=views)

    def encode(self, views: Views) -> Encoded:
        """Encode the photos with every backbone.

        Args:
            views: B photos, as `prepare` returns them.

        Returns:
            Tensors "0.NAME", "1.NAME", ... of the backbones, and "frame.1", ...: the frames of all but the first one.

        Raises:
            InputError: the views were not prepared by a fusion of as many backbones.
        """
        tensors: dict[str, Tensor] = {}
        for index, (backbone, own) in enumerate(zip(self._all(), self._split(views), strict=True)):
            encoded = backbone.encode(own)
            tensors |= {f"{index}.{name}": tensor for name, tensor in encoded.tensors.items()}
            if index > 0:
                tensors[f"frame.{index}"] = _pack_frames(encoded.frames)
        return Encoded(tensors, views.frames, views.keys, views.names)

    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Compute the maps of every backbone and fuse them on the grid of the first one.

        Args:
            encoded: B photos.
            prompt: (B, L, D) or (1, L, D), for the backbone that takes one.
            sampling: timestep, ensemble and noise, for every backbone.

        Returns:
            (B, C, h, w) features of all backbones, concatenated.

        Raises:
            InputError: a backbone needs a prompt and there is none.
            ShapeError: the prompt has another width or batch.
            NonFiniteError: the fused features are not finite.
        """
        maps = []
        for index, backbone in enumerate(self._all()):
            own_prompt = prompt if backbone.spec.prompt_width is not None else None
            maps.append(backbone.extract(_encoded_of(index, encoded), own_prompt, sampling))
        first = maps[0].values
        values = [first, *(_resample(features, maps[0]).to(first) for features in maps[1:])]
        if self.config.normalize:
            values = [unit_vectors(features, dim=1) for features in values]
        weighted = [weight * features for weight, features in zip(self.weights, values, strict=True)]
        groups = [size for features in maps for size in (features.groups or (features.values.shape[1],))]
        fused = torch.cat(weighted, dim=1)
        check_each_finite("the fused features", encoded.names or encoded.keys, "", fused, fused.dtype)
        return FeatureMap(fused, maps[0].grid, tuple(groups))

    @property
    def encoded_shapes(self) -> dict[str, tuple[int, ...]] | None:
        """Shape of each encoded tensor of one photo; None if a backbone does not declare its own."""
        shapes: dict[str, tuple[int, ...]] = {}
        for index, backbone in enumerate(self._all()):
            own = getattr(backbone, "encoded_shapes", None)
            if own is None:
                return None
            shapes |= {f"{index}.{name}": shape for name, shape in own.items()}
            shapes |= {f"frame.{index}": (8,)} if index else {}
        return shapes

    @override
    def weights_digest(self) -> str | None:
        digests = [backbone.weights_digest() for backbone in self._all()]
        return None if None in digests else digest(*digests)

    def _all(self) -> Iterable[Backbone]:
        return cast(Iterable[Backbone], self.backbones)

    def _split(self, views: Views) -> list[Views]:
        """Return the views of each backbone."""
        fused = [view.views for view in views.views if isinstance(view, _FusedView)]
        if len(fused) != len(views) or any(len(own) != len(self.backbones) for own in fused):
            raise InputError(f"a fusion of {len(self.backbones)} backbones encodes only the views that it prepares")
        return [Views(tuple(own[index] for own in fused)) for index in range(len(self.backbones))]


def _encoded_of(index: int, encoded: Encoded) -> Encoded:
    """Return the encoded photos of one of the backbones."""
    prefix = f"{index}."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in encoded.tensors.items() if name.startswith(prefix)}
    frames = encoded.frames if index == 0 else _unpack_frames(encoded.tensors[f"frame.{index}"])
    return Encoded(tensors, frames, encoded.keys, encoded.names)


def _pack_frames(frames: Sequence[ImageFrame]) -> Int[Tensor, "batch 8"]:
    """Return the numbers of frames as int64 bits of float64, since a cache rounds only floating-point tensors."""
    rows = [(*frame.original_size, *frame.model_size, *frame.scale, *frame.offset) for frame in frames]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 8).view(torch.int64)


def _unpack_frames(packed: Int[Tensor, "batch 8"]) -> tuple[ImageFrame, ...]:
    """Rebuild frames; inverse of `_pack_frames`."""
    return tuple(
        ImageFrame((int(row[0]), int(row[1])), (int(row[2]), int(row[3])), (row[4], row[5]), (row[6], row[7]))
        for row in packed.cpu().view(torch.float64).tolist()
    )


def _resample(features: FeatureMap, onto: FeatureMap) -> Float[Tensor, "batch channels h w"]:
    """Read a map, bilinearly, at the photo pixels of the cells of another map."""
    height, width = onto.size
    across, down = (torch.arange(n, dtype=torch.float32, device=features.values.device) for n in (width, height))
    cells = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).flatten(0, 1)
    pixels = onto.grid.to_pixels(cells.expand(len(onto), -1, -1))
    own = features.grid.to_cells(pixels)
    extent = own.new_tensor([max(features.size[1] - 1, 1), max(features.size[0] - 1, 1)])
    grid = (2 * own / extent - 1).unflatten(1, (height, width))
    sampled: Tensor = F.grid_sample(features.values, grid, padding_mode="border", align_corners=True)
    return sampled
