"""Tensors passed between components: noise settings, embeddings, feature maps, correlations, matches.

Letters: B images or pairs, N points, C channels, (H, W) pixels, (h, w) feature cells, L text tokens, D text width.
Points are (x, y) in the pixels of the original photo, pixel centers at whole numbers; sizes are (height, width).

Structures that hold tensors are compared and hashed by identity: `==` on tensors has no truth value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor, nn

from sd4match.arguments import check_arguments, check_fields
from sd4match.checks import (
    LARGEST_SEED,
    check_choice,
    check_count,
    check_number,
    check_positive,
    check_rows,
    check_same_device,
    check_shape,
    check_text,
)
from sd4match.errors import InputError, ShapeError, a, shown
from sd4match.geometry import Grid, ImageFrame, QueryMode, Size
from sd4match.matching import functional
from sd4match.norms import vector_norms
from sd4match.registry import ensembles

_LARGEST_ENSEMBLE = 1000


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Points of a batch and their visibility.

    Coordinates of points that are not visible have no meaning.

    Args:
        points: (B, N, 2), (x, y) in original pixels.
        visible: (B, N), True for points that count.

    Raises:
        ShapeError: there is not one flag for each point.
        InputError: the points are not numbers, or the flags are not booleans.

    >>> Keypoints(torch.zeros(1, 2, 2), torch.tensor([[True, False]])).visible.sum()
    tensor(1)
    """

    points: Real[Tensor, "batch points 2"]
    visible: Bool[Tensor, "batch points"]

    def __post_init__(self) -> None:
        sizes = check_shape("points", self.points, "B N 2", of="numbers")
        check_shape("visible", self.visible, "B N", of="flags", B=sizes["B"], N=sizes["N"])
        check_same_device(points=self.points, visible=self.visible)


@dataclass(frozen=True)
class EvaluationNoise:
    """Noise that depends on seed, photo and ensemble member only, not on batch order or processes.

    Args:
        seed: seed of the noise, at least 0.

    Raises:
        InputError: the seed is out of bounds.

    >>> Sampling(timestep=50, noise=EvaluationNoise(seed=1)).noise
    EvaluationNoise(seed=1)
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_count("seed", self.seed, 0, LARGEST_SEED)


@dataclass(frozen=True)
class TrainingNoise:
    """Noise that depends on seed, step and index in the global batch, not on how the batch is split.

    Args:
        seed: seed of the noise, at least 0.
        step: number of the training step, at least 0.
        indices: index of each image in the global batch; () for 0, 1, 2, ...

    Raises:
        InputError: a number is out of bounds.

    >>> TrainingNoise(seed=0, step=3, indices=(4, 5)).indices
    (4, 5)
    """

    seed: int
    step: int
    indices: tuple[int, ...] = ()
    """Index of each image in the global batch; () for 0, 1, 2, ..."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_count("seed", self.seed, 0, LARGEST_SEED)
        check_count("step", self.step, 0)
        for index in self.indices:
            check_count("indices", index, 0)


Posterior = Literal["image", "member", "mode"]
"""Sampling of z0: once per image (SD4Match), once per ensemble member (DIFT), or not at all: the posterior's mode."""


@dataclass(frozen=True)
class Sampling:
    """Noising of clean latents: timestep, ensemble and noise (Eq. 1).

    Training and evaluation differ only in these settings.

    Raises:
        InputError: a field is out of bounds.

    >>> Sampling(timestep=261, ensemble_size=8, posterior="member").ensemble
    'independent'
    """

    timestep: int
    """t of Eq. 1, in [0, 1000)."""
    ensemble_size: int = 1
    """Number of noise samples over which features are averaged, from 1 to 1000."""
    noise: EvaluationNoise | TrainingNoise = EvaluationNoise()
    posterior: Posterior = "image"
    """z0 is sampled once per image (SD4Match), once per ensemble member (DIFT), or is the posterior's mode."""
    ensemble: str = "independent"
    """Kind of the noise ensemble: "independent" as published, "antithetic", "matched", or a registered one."""

    def __post_init__(self) -> None:
        check_count("timestep", self.timestep, 0, 999)
        check_count("ensemble_size", self.ensemble_size, 1, _LARGEST_ENSEMBLE)
        check_choice("posterior", self.posterior, get_args(Posterior))
        if not isinstance(self.noise, (EvaluationNoise, TrainingNoise)):
            raise InputError(f"noise must be EvaluationNoise or TrainingNoise, not {shown(self.noise)}")
        check_choice("ensemble", self.ensemble, ensembles.kinds())
        check_fields(self)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Photos encoded by a backbone, independent of the prompt.

    The tensors are opaque to all but the backbone that made them, and may be cached: the posterior's mean and
    log-variance for Stable Diffusion, features for a vision transformer.

    Raises:
        ShapeError: tensors, frames and keys are of different numbers of photos.
        InputError: one is of another type.

    >>> from sd4match.geometry import own_frame
    >>> len(Encoded({"mean": torch.zeros(1, 4, 8, 8)}, (own_frame((64, 64)),), ("key",)))
    1
    """

    tensors: Mapping[str, Tensor]
    """Tensors by name; the first dimension of each is B."""
    frames: tuple[ImageFrame, ...]
    keys: tuple[str, ...]
    """Key of each photo, from which evaluation noise follows."""
    names: tuple[str, ...] = ()
    """Name of each photo, for messages; () if unknown."""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.frames) != len(self.keys):
            raise ShapeError(f"expected a frame for each of {len(self.keys)} photos, got {len(self.frames)}")
        if self.names and len(self.names) != len(self.keys):
            raise ShapeError(f"expected names for {len(self.keys)} photos, or none, got {len(self.names)}")
        for name, tensor in self.tensors.items():
            if tensor.dim() == 0 or len(tensor) != len(self.keys):
                raise ShapeError(
                    f"expected tensors whose first dimension is of {len(self.keys)} photos, not {shown(name)}: "
                    f"{tuple(tensor.shape)}"
                )

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, eq=False)
class PromptEmbedding:
    """Conditioning of a backbone: output of the text encoder, or a learned tensor that replaces it.

    Convention: a prompt is (B, L, D), or (1, L, D) for one prompt that all images of a batch share.

    Args:
        values: (B, L, D) or (1, L, D), floating-point numbers.

    Raises:
        ShapeError: the values are not (B, L, D).
        InputError: they are not floating-point numbers.

    >>> PromptEmbedding(torch.zeros(1, 77, 1024)).values.shape
    torch.Size([1, 77, 1024])
    """

    values: Float[Tensor, "batch tokens width"]

    def __post_init__(self) -> None:
        check_shape("the values of a prompt", self.values, "B _ D", of="floats")


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Features of an image encoder, from which conditional prompts are computed.

    Args:
        local: (B, P, d), one vector for each patch.
        pooled: (B, e), one vector for each image.

    Raises:
        ShapeError: the features are not (B, P, d) and (B, e).
        InputError: they are not floating-point numbers.

    >>> ImageFeatures(local=torch.zeros(2, 256, 768), pooled=torch.zeros(2, 768)).pooled.shape
    torch.Size([2, 768])
    """

    local: Float[Tensor, "batch patches features"]
    pooled: Float[Tensor, "batch pooled_features"]

    def __post_init__(self) -> None:
        sizes = check_shape("local", self.local, "B patches d", of="floats")
        check_shape("pooled", self.pooled, "B e", of="floats", B=sizes["B"])


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features of B images on the grid of their cells.

    Args:
        values: (B, C, h, w).
        grid: grid of the B photos and (h, w) cells.
        groups: number of channels of each layer, in order; () if there is one group.
        mask: (B, h, w), cells that may be matched; None: all.

    Raises:
        ShapeError: grid or mask has another batch or map size than the values, or the groups do not sum to C.
        InputError: the values are not floating-point numbers.

    >>> from sd4match.geometry import squash_frame
    >>> grid = Grid((squash_frame((100, 100), (96, 96)),), (24, 24))
    >>> FeatureMap(torch.ones(1, 4, 24, 24), grid).norms[0, 0, 0]
    tensor(2.)
    """

    values: Float[Tensor, "batch channels h w"]
    grid: Grid
    groups: tuple[int, ...] = ()
    mask: Bool[Tensor, "batch h w"] | None = None
    _same_values: FeatureMap | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        channels = check_shape("the values of a feature map", self.values, "B C h w", of="floats")["C"]
        batch, _, *size = self.values.shape
        if (batch, tuple(size)) != (len(self.grid), self.grid.size):
            raise ShapeError(
                f"expected a grid of {batch} images and {tuple(size)} cells, "
                f"got {len(self.grid)} images and {self.grid.size} cells"
            )
        if self.groups and sum(check_count("groups", count) for count in self.groups) != channels:
            raise ShapeError(f"expected groups that sum to {channels} channels, got {self.groups}")
        if self.mask is not None:
            check_shape("the mask of a feature map", self.mask, "B h w", of="flags", B=batch, h=size[0], w=size[1])
            check_same_device(values=self.values, mask=self.mask)

    def __len__(self) -> int:
        return len(self.grid)

    @property
    def size(self) -> Size:
        """(h, w), the number of cells."""
        return self.grid.size

    @cached_property
    def norms(self) -> Float[Tensor, "batch h w"]:
        """L2 norm of every cell, (B, h, w), in float32 or float64; computed once for all grids of the same values."""
        if self._same_values is not None:
            return self._same_values.norms
        return vector_norms(self.values, dim=1)

    @check_arguments
    def with_grid(self, grid: Grid) -> FeatureMap:
        """Return the same values on another grid, without a copy.

        Args:
            grid: grid of as many photos and of the same map size.

        Raises:
            ShapeError: the grid has another number of photos or another map size.
        """
        if grid == self.grid:
            return self
        moved = replace(self, grid=grid)
        object.__setattr__(moved, "_same_values", self._same_values or self)
        return moved

    @check_arguments
    def __getitem__(self, rows: slice | Sequence[int]) -> FeatureMap:
        """Return the maps of some of the images."""
        check_rows(rows, len(self))
        mask = None if self.mask is None else self.mask[rows]
        return FeatureMap(self.values[rows], self.grid[rows], self.groups, mask)


@dataclass(frozen=True, eq=False)
class Correlation:
    """Similarity of N source points to every target cell, with the maps it comes from.

    Args:
        values: (B, N, h, w); cosines in [-1, 1] if features are normalized, -inf in cells that may not be matched.
        query_points: (B, N, 2), (x, y) in original pixels of the source photos.
        source: B maps.
        target: B maps, on the grid to which matches refer.
        query_mode: sampling of the source maps; see `Grid.query_cells`.
        normalize: True if features were divided by their L2 norm.

    Raises:
        ShapeError: values, points and maps have different numbers of pairs, points or cells.
        InputError: a field is of another type, or the query mode is unknown.

    >>> from sd4match.testing import random_correlation
    >>> correlation = random_correlation()
    >>> correlation.values.shape, correlation.peak.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 2]))
    """

    values: Float[Tensor, "batch points h w"]
    query_points: Float[Tensor, "batch points 2"]
    source: FeatureMap
    target: FeatureMap
    query_mode: QueryMode = "bilinear"
    normalize: bool = True
    _probabilities: dict[float, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        sizes = check_shape("the values of a correlation", self.values, "B N h w", of="floats")
        check_shape("query_points", self.query_points, "B N 2", of="numbers", B=sizes["B"], N=sizes["N"])
        for name, features in (("source", self.source), ("target", self.target)):
            if len(features) != sizes["B"]:
                raise ShapeError(f"expected {a(name)} of {sizes['B']} maps, got {len(features)}")
        if self.target.size != (sizes["h"], sizes["w"]):
            raise ShapeError(f"expected values of {self.target.size} cells, got {(sizes['h'], sizes['w'])}")

    @cached_property
    def query_cells(self) -> Float[Tensor, "batch points 2"]:
        """Cells at which the source maps were sampled, (B, N, 2), (x, y)."""
        return query_cells(self.source, self.query_points, self.query_mode)

    def full(self) -> Correlation:
        """Correlate every cell of the source with every cell of the target.

        Returns:
            Correlation of values (B, h * w, h', w'), source cells row by row.

        >>> from sd4match.testing import random_correlation
        >>> random_correlation().full().values.shape
        torch.Size([2, 64, 8, 8])
        """
        points = self.source.grid.cell_centers(self.query_points)
        return correlate_maps(self.source, self.target, points, normalize=self.normalize)

    @check_arguments
    def reversed(self, points: Real[Tensor, "batch points 2"]) -> Correlation:
        """Correlate points of the target photos with the source maps, in the same way.

        Args:
            points: (B, N, 2), (x, y) in original pixels of the target photos.

        Returns:
            Correlation of the N points with every cell of the source maps.

        Raises:
            ShapeError: the points are of another number of photos.
            InputError: they are not a tensor of numbers.

        >>> from sd4match.testing import random_correlation
        >>> correlation = random_correlation()
        >>> correlation.reversed(correlation.query_points).target is correlation.source
        True
        """
        return correlate_maps(self.target, self.source, points, query_mode=self.query_mode, normalize=self.normalize)

    @cached_property
    def peak(self) -> Float[Tensor, "batch points 2"]:
        """Target cell of the largest value, (B, N, 2), (x, y); computed once for all matchers."""
        return functional.nearest_neighbor(self.values)

    @check_arguments
    def probability(self, temperature: float) -> Float[Tensor, "batch points h w"]:
        """Return the match probability softmax(values / temperature) (Eq. 4); computed once per temperature.

        Args:
            temperature: divisor of the correlation, > 0.

        Returns:
            (B, N, h, w), sums to 1 over the cells of each point.

        Raises:
            InputError: the temperature is not a positive number.
        """
        temperature = check_number("temperature", temperature)
        if temperature not in self._probabilities:
            self._probabilities[temperature] = functional.match_probability(self.values, temperature=temperature)
        return self._probabilities[temperature]


@check_arguments
def correlate_maps(
    source: FeatureMap,
    target: FeatureMap,
    query_points: Real[Tensor, "batch points 2"],
    *,
    query_mode: QueryMode = "bilinear",
    normalize: bool = True,
) -> Correlation:
    """Correlate points of the source photos with every cell of the target maps (Eq. 3).

    Args:
        source: B maps.
        target: B maps; cells outside of their mask get -inf.
        query_points: (B, N, 2), (x, y) in original pixels of the source photos. A point beyond the outermost cell
            centers is clamped to them.
        query_mode: "bilinear" (SD4Match), "floor" (SD+DINO, GeoAware) or "pixel" (DIFT); see `Grid.query_cells`.
        normalize: divide features by their L2 norm.

    Returns:
        Values (B, N, h, w), in [-1, 1] if normalized, with the queries and both maps.

    Raises:
        ShapeError: the two maps differ in B or C, or the queries in B.
        InputError: an argument is of another type, or the query mode is unknown.

    >>> from sd4match.testing import random_correlation
    >>> maps = random_correlation()
    >>> correlate_maps(maps.source, maps.target, torch.tensor([[[4.0, 2.0]], [[4.0, 2.0]]])).values.shape
    torch.Size([2, 1, 8, 8])
    """
    cells = query_cells(source, query_points, query_mode)
    norms = target.norms if normalize else None
    values = functional.correlate(source.values, target.values, cells, normalize=normalize, target_norms=norms)
    if target.mask is not None:
        values = values.masked_fill(~target.mask[:, None], -torch.inf)
    return Correlation(values, query_points, source, target, query_mode, normalize)


def query_cells(source: FeatureMap, query_points: Tensor, query_mode: QueryMode) -> Tensor:
    """Return the cells, in float32 or float64, at which a map is sampled for points in original pixels."""
    check_shape("query_points", query_points, "B N 2", of="numbers", B=len(source))
    dtype = torch.promote_types(source.values.dtype, torch.float32)
    return source.grid.query_cells(query_points.to(source.values.device, dtype), query_mode)


class Matches:
    """Locations of the query points in the target photos.

    Convention: a score is the probability mass around a match. It depends on the temperature and on the size of the
    map; scores of maps of different sizes cannot be compared.

    Args:
        points: (B, N, 2), (x, y) in original pixels of the target photos.
        scores: (B, N), in [0, 1], or a function that computes them when they are first read.
        valid: (B, N), False where a point has no match; None: all points have one.

    Raises:
        ShapeError: there is not one score and one flag for each point; of a function, raised when scores are first
            read.
        InputError: the points are not floating-point numbers, or a score outside [0, 1] is read.

    >>> matches = Matches(torch.zeros(1, 2, 2), lambda: torch.ones(1, 2))
    >>> matches.scores, matches.valid
    (tensor([[1., 1.]]), tensor([[True, True]]))
    """

    @check_arguments
    def __init__(
        self,
        points: Float[Tensor, "batch points 2"],
        scores: Float[Tensor, "batch points"] | Callable[[], Float[Tensor, "batch points"]],
        valid: Bool[Tensor, "batch points"] | None = None,
    ) -> None:
        check_shape("the points of matches", points, "B N 2", of="floats")
        self.points = points
        if isinstance(scores, Tensor):
            check_shape("the scores of matches", scores, "B N", of="floats", B=points.shape[0], N=points.shape[1])
        if valid is not None:
            check_shape("the flags of matches", valid, "B N", of="flags", B=points.shape[0], N=points.shape[1])
            check_same_device(points=points, valid=valid)
        self._scores = scores
        self.valid = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device) if valid is None else valid

    @cached_property
    def scores(self) -> Float[Tensor, "batch points"]:
        """Probability mass around each match, (B, N), in [0, 1]."""
        scores = self._scores if isinstance(self._scores, Tensor) else self._scores()
        batch, points, _ = self.points.shape
        check_shape("the scores of matches", scores, "B N", of="floats", B=batch, N=points)
        if bool(((scores < 0) | (scores > 1)).any()):
            raise InputError(f"the scores of matches must be in [0, 1], not {shown(scores.flatten()[:4].tolist())}")
        return scores

    def __reduce__(self) -> tuple[type[Matches], tuple[Tensor, Tensor, Tensor]]:
        return Matches, (self.points, self.scores, self.valid)  # a function that computes scores cannot be pickled

    def __repr__(self) -> str:
        return f"Matches(points={self.points!r})"


@dataclass(frozen=True, eq=False)
class LossValue:
    """Loss of a batch, with a lower bound that it cannot fall below for this batch.

    Args:
        value: scalar.
        lower_bound: scalar, or None if the loss has none.

    Raises:
        ShapeError: one is not a scalar.
        InputError: one is not a tensor of floating-point numbers.

    >>> LossValue(torch.tensor(4.2), lower_bound=torch.tensor(3.4)).value
    tensor(4.2000)
    """

    value: Float[Tensor, ""]
    lower_bound: Float[Tensor, ""] | None = None

    def __post_init__(self) -> None:
        check_shape("the value of a loss", self.value, "", of="floats")
        if self.lower_bound is not None:
            check_shape("the lower bound of a loss", self.lower_bound, "", of="floats")


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are learned at `scale` times the base learning rate.

    Args:
        name: name of the group, in logs and checkpoints.
        parameters: the parameters.
        scale: factor of the learning rate, > 0.

    Raises:
        InputError: the name is empty, the parameters are not a tuple, or the scale is not positive.

    >>> ParameterGroup("prompt", (nn.Parameter(torch.zeros(3)),), scale=0.1).scale
    0.1
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_text("name", self.name)
        object.__setattr__(self, "scale", check_positive("scale", self.scale))


MatchFunction = Callable[[Correlation], Matches]
"""`Matcher`, or any function of its form."""
PairFunction = Callable[[FeatureMap, FeatureMap], tuple[FeatureMap, FeatureMap]]
"""`PairTransform`, or any function of its form."""
LossFunction = Callable[[Correlation, Keypoints], Tensor | LossValue]
"""`MatchingLoss`, or any function of its form."""
