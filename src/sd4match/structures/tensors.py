"""What travels between the parts. All frozen; tensors carry their shapes in their annotations.

Letters: B images or pairs, N points, C channels, (H, W) pixels, (h, w) feature cells, L text slots, D text width.
Points are (x, y) in the pixels of the original photo, pixel centres at whole numbers; sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sd4match.errors import ShapeError
from sd4match.geometry import Alignment, ImageFrame, Size


@dataclass(frozen=True)
class Keypoints:
    """Points of a batch with what is visible of them. Places of invisible points mean nothing."""

    points: Float[Tensor, "batch points 2"]
    visible: Bool[Tensor, "batch points"]


@dataclass(frozen=True)
class EvaluationNoise:
    """Noise that depends on (seed, photo, ensemble member) alone: not on batch order, not on processes."""

    seed: int = 0


@dataclass(frozen=True)
class TrainingNoise:
    """Noise that depends on (seed, step, place in the global batch): not on how the batch is cut or shared out."""

    seed: int
    step: int
    places: tuple[int, ...] = ()
    """Of each image in the global batch; (): they are 0, 1, 2, ..."""


@dataclass(frozen=True)
class Sampling:
    """How latents become noisy latents; training and evaluation differ here and only here."""

    timestep: int
    """t of Eq. 1, in [0, 1000)."""
    ensemble_size: int = 1
    """Features are averaged over so many noises."""
    noise: EvaluationNoise | TrainingNoise = EvaluationNoise()
    posterior: Literal["image", "member", "mode"] = "image"
    """z0 is drawn once an image (SD4Match), once an ensemble member (DIFT), or is the posterior's mode."""


@dataclass(frozen=True)
class Latents:
    """The posterior's moments, which do not depend on the prompt and may be kept."""

    mean: Float[Tensor, "batch latent_channels latent_height latent_width"]
    log_variance: Float[Tensor, "batch latent_channels latent_height latent_width"]
    frames: tuple[ImageFrame, ...]
    keys: tuple[str, ...]
    others: tuple[Latents, ...] = ()
    """Of the further parts of a backbone that is made of several."""


@dataclass(frozen=True)
class PromptEmbedding:
    """What a backbone is conditioned on: the text encoder's output, or something learned in its place."""

    values: Float[Tensor, "batch slots width"]


@dataclass(frozen=True)
class ImageFeatures:
    """What conditional prompts look at."""

    local: Float[Tensor, "batch patches features"]
    pooled: Float[Tensor, "batch pooled_features"]


@dataclass(frozen=True)
class FeatureMap:
    """Features of B images with the frame of each, so that points need no other context."""

    values: Float[Tensor, "batch channels h w"]
    frames: tuple[ImageFrame, ...]
    alignment: Alignment = "corners"
    patch_offset: float | None = None
    """For the alignment "patch"; see `sd4match.geometry.pixels_to_cells`."""
    groups: tuple[int, ...] = ()
    """Sizes of the channel groups (layers) in order; () for one group."""

    def __post_init__(self) -> None:
        if len(self.frames) != self.values.shape[0]:
            raise ShapeError(
                f"a feature map of {self.values.shape[0]} images needs as many frames, not {len(self.frames)}"
            )

    @property
    def map_size(self) -> Size:
        """(h, w)."""
        return self.values.shape[2], self.values.shape[3]

    @cached_property
    def norms(self) -> Float[Tensor, "batch h w"]:
        """The L2 norm of every cell, in float32 at least: computed once, however many pairs the photos are in."""
        kind = torch.promote_types(self.values.dtype, torch.float32)
        norms: Tensor = torch.linalg.vector_norm(self.values, dim=1, dtype=kind)
        return norms

    def laid(
        self, frames: tuple[ImageFrame, ...], alignment: Alignment, patch_offset: float | None = None
    ) -> FeatureMap:
        """The same values with cells that lie otherwise on the photos."""
        if (frames, alignment, patch_offset) == (self.frames, self.alignment, self.patch_offset):
            return self
        moved = replace(self, frames=frames, alignment=alignment, patch_offset=patch_offset)
        vars(moved)["norms"] = self.norms
        return moved

    def __getitem__(self, rows: slice | Sequence[int]) -> FeatureMap:
        """The maps of some of the images."""
        frames = self.frames[rows] if isinstance(rows, slice) else tuple(self.frames[i] for i in rows)
        return replace(self, values=self.values[rows], frames=frames)

    @property
    def parts(self) -> tuple[FeatureMap, ...]:
        """What lies apart in memory; see `joined`."""
        return (self,)

    @staticmethod
    def joined(parts: Sequence[FeatureMap]) -> FeatureMap:
        """Maps of one kind as a batch that stays apart in memory: values are copied together only when they are read.

        Copying a map takes as long as correlating it with a few points.
        """
        return parts[0] if len(parts) == 1 else _JoinedMaps(parts)


class _JoinedMaps(FeatureMap):
    """A batch whose maps lie apart in memory."""

    def __init__(self, parts: Sequence[FeatureMap]) -> None:
        first = parts[0]
        vars(self).update(
            _parts=tuple(parts), frames=tuple(frame for part in parts for frame in part.frames),
            alignment=first.alignment, patch_offset=first.patch_offset, groups=first.groups,
        )  # fmt: skip

    @property
    def parts(self) -> tuple[FeatureMap, ...]:
        found: tuple[FeatureMap, ...] = vars(self)["_parts"]
        return found

    @cached_property
    def values(self) -> Float[Tensor, "batch channels h w"]:
        return torch.cat([part.values for part in self.parts])

    @cached_property
    def norms(self) -> Float[Tensor, "batch h w"]:
        return torch.cat([part.norms for part in self.parts])

    @property
    def map_size(self) -> Size:
        return self.parts[0].map_size

    def laid(
        self, frames: tuple[ImageFrame, ...], alignment: Alignment, patch_offset: float | None = None
    ) -> FeatureMap:
        own = iter(frames)
        return _JoinedMaps(
            [part.laid(tuple(islice(own, len(part.frames))), alignment, patch_offset) for part in self.parts]
        )

    def __getitem__(self, rows: slice | Sequence[int]) -> FeatureMap:
        return FeatureMap(self.values, self.frames, self.alignment, self.patch_offset, self.groups)[rows]


@dataclass(frozen=True)
class Correlation:
    """Similarity of N source points to every target cell, with all that a matcher could want."""

    values: Float[Tensor, "batch points h w"]
    query_points: Float[Tensor, "batch points 2"]
    """In original pixels of the source photos."""
    query_cells: Float[Tensor, "batch points 2"]
    """Where the source maps were read."""
    source: FeatureMap
    target: FeatureMap
    corners: Float[Tensor, "batch points 4 2"] | None = None
    """The best target cell of each of the four source cells around a query, where a matcher said that it reads them."""
    shared: dict[object, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """What a matcher has computed of the values and another may want; see `sd4match.matching.correlation`."""


@dataclass(frozen=True)
class Matches:
    """Where the query points are in the target photo, in its original pixels."""

    points: Float[Tensor, "batch points 2"]
    scores: Float[Tensor, "batch points"]
    """In [0, 1]: the probability mass around the match; see `sd4match.matching.functional.probability_mass`."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are learned at `scale` times the base learning rate."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    scale: float = 1.0
