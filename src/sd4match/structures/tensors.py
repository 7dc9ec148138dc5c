"""Tensors passed between components: noise settings, embeddings, feature maps, correlations, matches.

Letters: B images or pairs, N points, C channels, (H, W) pixels, (h, w) feature cells, L text tokens, D text width.
Points are (x, y) in the pixels of the original photo, pixel centers at whole numbers; sizes are (height, width).

Structures that hold tensors are compared and hashed by identity: `==` on tensors has no truth value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sd4match.errors import ShapeError
from sd4match.geometry import Grid, ImageFrame, QueryMode, Size
from sd4match.matching import functional


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Points of a batch and their visibility. Coordinates of points that are not visible have no meaning."""

    points: Float[Tensor, "batch points 2"]
    visible: Bool[Tensor, "batch points"]


@dataclass(frozen=True)
class EvaluationNoise:
    """Noise that depends on (seed, photo, ensemble member) only, not on the batch order or on the processes."""

    seed: int = 0


@dataclass(frozen=True)
class TrainingNoise:
    """Noise that depends on (seed, step, index in the global batch), not on how the batch is split."""

    seed: int
    step: int
    indices: tuple[int, ...] = ()
    """Index of each image in the global batch; () for 0, 1, 2, ..."""


@dataclass(frozen=True)
class Sampling:
    """How clean latents become noisy ones. Training and evaluation differ here and only here."""

    timestep: int
    """t of Eq. 1, in [0, 1000)."""
    ensemble_size: int = 1
    """Number of noise samples over which features are averaged."""
    noise: EvaluationNoise | TrainingNoise = EvaluationNoise()
    posterior: Literal["image", "member", "mode"] = "image"
    """z0 is sampled once per image (SD4Match), once per ensemble member (DIFT), or is the posterior's mode."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Photos encoded by a backbone, independent of the prompt.

    The tensors are opaque to everyone but the backbone that made them, and may be cached as they are: the posterior's
    mean and log-variance for Stable Diffusion, features for a vision transformer.
    """

    tensors: Mapping[str, Tensor]
    """By name; the first dimension of each is B."""
    frames: tuple[ImageFrame, ...]
    keys: tuple[str, ...]
    """Key of each photo, from which evaluation noise follows."""
    names: tuple[str, ...] = ()
    """Name of each photo, for messages; () if they are not known."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, eq=False)
class PromptEmbedding:
    """What a backbone is conditioned on: the output of the text encoder, or a learned tensor in its place."""

    values: Float[Tensor, "batch tokens width"]


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Image features that conditional prompts are computed from."""

    local: Float[Tensor, "batch patches features"]
    pooled: Float[Tensor, "batch pooled_features"]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features of B images, with the grid on which their cells lie.

    Args:
        values: (B, C, h, w).
        grid: frames of the B photos, map size (h, w), alignment and offset.
        groups: number of channels of each layer, in order; () if there is one group.

    Raises:
        ShapeError: the grid is of another batch or map size than the values.
    """

    values: Float[Tensor, "batch channels h w"]
    grid: Grid
    groups: tuple[int, ...] = ()
    _same_values: FeatureMap | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        batch, _, *size = self.values.shape
        if (batch, tuple(size)) != (len(self.grid), self.grid.size):
            raise ShapeError(
                f"expected a grid of {batch} images and {tuple(size)} cells, "
                f"got {len(self.grid)} images and {self.grid.size} cells"
            )

    def __len__(self) -> int:
        return len(self.grid)

    @property
    def size(self) -> Size:
        """(h, w), the number of cells."""
        return self.grid.size

    @cached_property
    def norms(self) -> Float[Tensor, "batch h w"]:
        """L2 norm of every cell, in float32 or better. Computed once, also for other grids of the same values."""
        if self._same_values is not None:
            return self._same_values.norms
        dtype = torch.promote_types(self.values.dtype, torch.float32)
        norms: Tensor = torch.linalg.vector_norm(self.values, dim=1, dtype=dtype)
        return norms

    def with_grid(self, grid: Grid) -> FeatureMap:
        """Return the same values on another grid; nothing is copied."""
        if grid == self.grid:
            return self
        moved = replace(self, grid=grid)
        object.__setattr__(moved, "_same_values", self._same_values or self)
        return moved

    def __getitem__(self, rows: slice | Sequence[int]) -> FeatureMap:
        """Return the maps of some of the images."""
        return FeatureMap(self.values[rows], self.grid[rows], self.groups)


@dataclass(frozen=True, eq=False)
class Correlation:
    """Similarity of N source points to every target cell, with everything a matcher may need.

    Args:
        values: (B, N, h, w).
        query_points: (B, N, 2), (x, y) in original pixels of the source photos.
        source: B maps.
        target: B maps, on the grid in which matches are answered.
        query_mode: how the source maps were read; see `Grid.query_cells`.
    """

    values: Float[Tensor, "batch points h w"]
    query_points: Float[Tensor, "batch points 2"]
    source: FeatureMap
    target: FeatureMap
    query_mode: QueryMode = "bilinear"
    _probabilities: dict[float, Tensor] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def query_cells(self) -> Float[Tensor, "batch points 2"]:
        """Cells at which the source maps were read."""
        return self.source.grid.query_cells(self.query_points.to(self.source.values), self.query_mode)

    @cached_property
    def peak(self) -> Float[Tensor, "batch points 2"]:
        """Target cell of the largest value, (x, y); computed once for all matchers."""
        return functional.nearest_neighbor(self.values)

    def probability(self, temperature: float) -> Float[Tensor, "batch points h w"]:
        """Return softmax(values / temperature) over all cells (Eq. 4); computed once per temperature."""
        if temperature not in self._probabilities:
            self._probabilities[temperature] = functional.match_probability(self.values, temperature=temperature)
        return self._probabilities[temperature]


class Matches:
    """Locations of the query points in the target photos.

    Args:
        points: (B, N, 2), (x, y) in original pixels of the target photos.
        scores: (B, N), in [0, 1], or a function that computes them when they are first read.

    >>> matches = Matches(torch.zeros(1, 2, 2), lambda: torch.ones(1, 2))
    >>> matches.scores
    tensor([[1., 1.]])
    """

    def __init__(
        self,
        points: Float[Tensor, "batch points 2"],
        scores: Float[Tensor, "batch points"] | Callable[[], Float[Tensor, "batch points"]],
    ) -> None:
        self.points = points
        self._scores = scores

    @cached_property
    def scores(self) -> Float[Tensor, "batch points"]:
        """(B, N), in [0, 1]: the probability mass around each match."""
        return self._scores if isinstance(self._scores, Tensor) else self._scores()

    def __reduce__(self) -> tuple[type[Matches], tuple[Tensor, Tensor]]:
        return Matches, (self.points, self.scores)  # a function that computes scores cannot be pickled

    def __repr__(self) -> str:
        return f"Matches(points={self.points!r})"


@dataclass(frozen=True, eq=False)
class LossValue:
    """Loss of a batch, with a bound below which it cannot fall for this batch."""

    value: Float[Tensor, ""]
    lower_bound: Float[Tensor, ""] | None = None


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are learned at `scale` times the base learning rate."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    scale: float = 1.0


MatchFunction = Callable[[Correlation], Matches]
"""A `Matcher`, or any function of its form."""
PairFunction = Callable[[FeatureMap, FeatureMap], tuple[FeatureMap, FeatureMap]]
"""A `PairTransform`, or any function of its form."""
LossFunction = Callable[[Correlation, Keypoints], Tensor | LossValue]
"""A `MatchingLoss`, or any function of its form."""
