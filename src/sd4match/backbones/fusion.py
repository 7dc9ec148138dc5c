"""Several backbones as one: their maps, each normalised, weighted, and laid on the first one's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sd4match import geometry, registry
from sd4match.errors import ConfigError
from sd4match.hashing import digest
from sd4match.interfaces import Backbone, EncodesByWeights, TextEncoder
from sd4match.registry import ComponentConfig
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec, fused_spec
from sd4match.structures.tensors import FeatureMap, Latents, PromptEmbedding, Sampling


class Fusion(nn.Module):
    """The reference's SD+DINO, for any backbones.

    Each map is L2-normalised over its channels. Maps after the first are read at the photo pixels where the first one's
    cells lie (a squashed and a padded view of a photo do not share a grid), multiplied by their weight, concatenated.
    At most one of the parts takes a prompt.

    Convention: outside a part's view its outermost cells are taken.
    """

    def __init__(
        self, parts: Sequence[Backbone], weights: Sequence[float] | None = None, *, normalize: bool = True
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.parts = tuple(parts)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.parts)
        if len(self.parts) < 2 or len(self.weights) != len(self.parts):
            raise ConfigError(f"a fusion has two parts or more, and a weight for each, not {len(self.weights)} weights")
        self.modules_of_parts = nn.ModuleList(part for part in self.parts if isinstance(part, nn.Module))
        self.spec: FeatureSpec = fused_spec([part.spec for part in self.parts])
        self.text: TextEncoder | None = next((part.text for part in self.parts if part.text is not None), None)
        names = [part.fingerprint for part in self.parts]
        self.fingerprint = "unknown" if "unknown" in names else " ".join(names)

    @classmethod
    def from_configs(
        cls,
        parts: Sequence[ComponentConfig],
        weights: Sequence[float] | None = None,
        *,
        normalize: bool = True,
        device: str = "cpu",
    ) -> Fusion:
        """Build each part.

        Raises:
            ConfigError: fewer than two parts, another number of weights, or two parts with a prompt.
        """
        return cls([registry.backbones.build(part, device=device) for part in parts], weights, normalize=normalize)

    def weights_digest(self) -> str | None:
        """Of all parts; None if one cannot tell."""
        names = [part.weights_digest() if isinstance(part, EncodesByWeights) else None for part in self.parts]
        return None if None in names else digest(*names)

    def prepare(self, photo: Photo) -> View:
        """Every part's view; the first one's frame is that of the map."""
        first, *others = (part.prepare(photo) for part in self.parts)
        return replace(first, others=tuple(others))

    def encode(self, views: Views) -> Latents:
        """Every part's latents."""
        first, *others = (part.encode(view) for part, view in zip(self.parts, (views, *views.others), strict=True))
        return replace(first, others=tuple(others))

    def extract(self, latents: Latents, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Every part's map, on the first one's grid."""
        maps = [
            part.extract(own, prompt if part.spec.prompt_width is not None else None, sampling)
            for part, own in zip(self.parts, (latents, *latents.others), strict=True)
        ]
        first = maps[0].values
        laid = [first, *(_warped(one, maps[0]).to(first) for one in maps[1:])]
        scaled = [F.normalize(one, dim=1) if self.normalize else one for one in laid]
        values = [weight * one for weight, one in zip(self.weights, scaled, strict=True)]
        groups = [size for one in maps for size in (one.groups or (one.values.shape[1],))]
        return replace(maps[0], values=torch.cat(values, dim=1), groups=tuple(groups))


def _warped(features: FeatureMap, onto: FeatureMap) -> Tensor:
    """A map's values at the places of another one's cells."""
    height, width = onto.map_size
    across, down = (torch.arange(n, dtype=torch.float32, device=features.values.device) for n in (width, height))
    cells = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).flatten(0, 1)
    cells = cells.expand(len(onto.frames), -1, -1)
    pixels = geometry.cells_to_photo(
        cells, onto.frames, onto.map_size, alignment=onto.alignment, patch_offset=onto.patch_offset
    )
    own = geometry.photo_to_cells(
        pixels, features.frames, features.map_size, alignment=features.alignment, patch_offset=features.patch_offset
    )
    extent = own.new_tensor([max(features.map_size[1] - 1, 1), max(features.map_size[0] - 1, 1)])
    grid = (2 * own / extent - 1).unflatten(1, (height, width))
    sampled: Tensor = F.grid_sample(features.values, grid, padding_mode="border", align_corners=True)
    return sampled
