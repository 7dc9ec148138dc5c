"""Hypothesis strategies for the inputs and results of components. This module needs the extra `testing`.

Hypothesis draws the values themselves. Examples therefore include zeros, ones, bounds, ties, whole cells and borders,
and shrink to the simplest failing one: sizes to the smallest, numbers to zero or the nearest bound, flags to False.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jaxtyping import Bool, Float
from torch import Tensor

from sd4match.config.experiment import ExperimentConfig
from sd4match.config.protocols import EvaluationProtocol
from sd4match.config.sections import SamplingConfig
from sd4match.geometry import Alignment, Grid, ImageFrame, Size, pad_frame, squash_frame
from sd4match.matching.correlation import correlate_maps
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.matching.matchers import KernelSoftArgmax
from sd4match.prompting.config import (
    ClassPromptConfig,
    EmptyPromptConfig,
    PromptConfig,
    SinglePromptConfig,
    TextPromptConfig,
)
from sd4match.registry import matchers
from sd4match.structures.images import ImageBatch, Photo
from sd4match.structures.pairs import PairBatch
from sd4match.structures.tensors import Correlation, FeatureMap, Keypoints

_WORDS = ("cat", "dog", "fish", "car")
_ALPHAS = (0.05, 0.1, 0.15, 0.01, 0.2, 1.0)

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


def composite(
    function: Callable[Concatenate[st.DrawFn, Arguments], Drawn],
) -> Callable[Arguments, st.SearchStrategy[Drawn]]:
    """Make a strategy as `hypothesis.strategies.composite` does, and preserve the state of Python's `random`.

    Type checkers at run time sample containers with `random`, which hypothesis reports as hidden randomness.

    Args:
        function: function whose first argument draws from strategies.
    """

    @wraps(function)
    def with_same_chance(draw: st.DrawFn, /, *args: Arguments.args, **options: Arguments.kwargs) -> Drawn:
        state = random.getstate()
        try:
            return function(draw, *args, **options)
        finally:
            random.setstate(state)

    return st.composite(with_same_chance)


def _float32(number: float) -> float:
    """Return the nearest number of single precision."""
    return float(np.float32(number)) + 0.0  # no -0.0, which is not above 0.0


@composite
def values(
    draw: st.DrawFn, shape: Sequence[int], *, low: float = -1.0, high: float = 1.0, nan: bool = False
) -> Float[Tensor, "*shape"]:
    """Draw a float32 tensor in [low, high]; zeros, ones, bounds and ties are frequent.

    Shrinks to a constant tensor, of 0 if possible, or to one of few different numbers.

    Args:
        draw: function that hypothesis passes.
        shape: shape of the tensor.
        low: smallest number.
        high: largest number.
        nan: whether a number may be NaN.
    """
    low, high = _float32(low), _float32(high)
    special = sorted({number for number in (0.0, 1.0, -1.0, low, high) if low <= number <= high}, key=abs)
    numbers = st.sampled_from(special) | st.floats(low, high, width=32)
    if nan:
        numbers |= st.just(float("nan"))
    drawn = draw(arrays.arrays(np.float32, tuple(shape), elements=numbers, fill=st.sampled_from(special)))
    return torch.from_numpy(drawn.copy())


@composite
def sizes(draw: st.DrawFn, *, min_side: int = 1, max_side: int = 64) -> Size:
    """Draw (height, width), independently; shrinks to the smallest side.

    Args:
        draw: function that hypothesis passes.
        min_side: smallest side.
        max_side: largest side.
    """
    return draw(st.integers(min_side, max_side)), draw(st.integers(min_side, max_side))


@composite
def photos(draw: st.DrawFn, *, min_side: int = 1, max_side: int = 24, mask: bool = False) -> Photo:
    """Draw a photo; shrinks to a small black one.

    Args:
        draw: function that hypothesis passes.
        min_side: smallest side in pixels.
        max_side: largest side in pixels.
        mask: whether the photo has a mask, of one pixel or more.
    """
    height, width = draw(sizes(min_side=min_side, max_side=max_side))
    numbers = st.sampled_from([0, 255]) | st.integers(0, 255)
    pixels = draw(arrays.arrays(np.uint8, (height, width, 3), elements=numbers, fill=st.sampled_from([0, 255])))
    if not mask:
        return Photo(pixels.copy())
    marked = draw(arrays.arrays(np.bool_, (height, width), elements=st.booleans())).copy()
    marked[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return Photo(pixels.copy(), mask=marked)


@composite
def frames(draw: st.DrawFn, *, model_size: Size | None = None, min_side: int = 1, max_side: int = 64) -> ImageFrame:
    """Draw the frame of a photo in a model's image, squashed or padded to a square.

    Shrinks to a photo and an image of one pixel, squashed.

    Args:
        draw: function that hypothesis passes.
        model_size: (H, W) of the model's image; None: drawn.
        min_side: smallest side of the photo and of a drawn image.
        max_side: largest side of both.
    """
    size = draw(sizes(min_side=min_side, max_side=max_side))
    is_padded = draw(st.booleans())
    if model_size is None:
        height, width = draw(sizes(min_side=min_side, max_side=max_side))
        model_size = height, height if is_padded else width
    if is_padded and model_size[0] == model_size[1]:
        return pad_frame(size, model_size[0])
    return squash_frame(size, model_size)


@composite
def grids(
    draw: st.DrawFn, *, batch: int | None = None, min_side: int = 1, max_side: int = 8, max_batch: int = 3
) -> Grid:
    """Draw the grid of a batch of maps of any alignment; shrinks to one photo, one cell and "corners".

    Args:
        draw: function that hypothesis passes.
        batch: number of photos; None: drawn up to `max_batch`.
        min_side: smallest number of cells in a row or column.
        max_side: largest number of cells in a row or column.
        max_batch: largest number of photos.
    """
    count = batch or draw(st.integers(1, max_batch))
    height, width = draw(sizes(min_side=min_side, max_side=max_side))
    stride = draw(st.integers(1, 16))
    model = (height * stride, width * stride)
    alignments: tuple[Alignment, ...] = ("corners", "centers", "patch")
    alignment = draw(st.sampled_from(alignments))
    offset = draw(st.floats(0, stride, width=32)) if alignment == "patch" else None
    return Grid(tuple(draw(frames(model_size=model)) for _ in range(count)), (height, width), alignment, offset)


@composite
def feature_maps(
    draw: st.DrawFn,
    *,
    grid: Grid | None = None,
    channels: int | None = None,
    max_batch: int = 3,
    min_side: int = 1,
    max_side: int = 6,
    max_channels: int = 5,
    nan: bool = False,
    mask: bool = False,
) -> FeatureMap:
    """Draw feature maps, with frequent cells of zeros and equal cells; shrinks to one cell of zeros.

    Args:
        draw: function that hypothesis passes.
        grid: grid of the maps; None: drawn with the bounds below.
        channels: number of channels; None: drawn up to `max_channels`.
        max_batch: largest number of photos.
        min_side: smallest number of cells in a row or column.
        max_side: largest number of cells in a row or column.
        max_channels: largest number of channels.
        nan: whether a number may be NaN.
        mask: whether some cells, but not all cells of a photo, may be masked.
    """
    grid = grid or draw(grids(min_side=min_side, max_side=max_side, max_batch=max_batch))
    count = channels or draw(st.integers(1, max_channels))
    found = draw(values((len(grid), count, *grid.size), nan=nan))
    if not mask or not draw(st.booleans()):
        return FeatureMap(found, grid)
    allowed = torch.from_numpy(draw(arrays.arrays(np.bool_, (len(grid), *grid.size), elements=st.booleans())).copy())
    allowed[:, draw(st.integers(0, grid.size[0] - 1)), draw(st.integers(0, grid.size[1] - 1))] = True
    return FeatureMap(found, grid, mask=allowed)


@composite
def points(draw: st.DrawFn, shape: Sequence[int], size: Size, *, margin: float = 0.0) -> Float[Tensor, "... 2"]:
    """Draw points (*shape, 2), (x, y), in a photo or map of (height, width), or up to `margin` outside it.

    Corners, whole numbers and equal points are frequent; shrinks to (0, 0).

    Args:
        draw: function that hypothesis passes.
        shape: shape of the points, without the last dimension.
        size: (height, width) of the photo or map.
        margin: largest distance outside of it, >= 0.
    """
    coordinates = []
    for side in (size[1], size[0]):
        inside = st.integers(0, side - 1).map(float) | st.sampled_from([0.0, side - 1.0])
        within = st.floats(_float32(-margin), _float32(side - 1 + margin), width=32)
        coordinates.append(draw(arrays.arrays(np.float32, tuple(shape), elements=inside | within, fill=st.nothing())))
    return torch.from_numpy(np.stack(coordinates, axis=-1))


@composite
def cells(
    draw: st.DrawFn, batch: int, count: int, map_size: Size, *, margin: float = 0.0
) -> Float[Tensor, "batch points 2"]:
    """Draw points (B, N, 2), (x, y), inside a map, or up to `margin` cells outside it.

    Args:
        draw: function that hypothesis passes.
        batch: number B of maps.
        count: number N of points of each map.
        map_size: (h, w) of the map in cells.
        margin: largest distance outside of it in cells, >= 0.
    """
    return draw(points((batch, count), map_size, margin=margin))


@composite
def visibility(draw: st.DrawFn, batch: int, count: int) -> Bool[Tensor, "batch points"]:
    """Draw any pattern of visible points, including none and all; shrinks to none.

    Args:
        draw: function that hypothesis passes.
        batch: number B of photos.
        count: number N of points of each photo.
    """
    flags = draw(st.lists(st.booleans(), min_size=batch * count, max_size=batch * count))
    return torch.tensor(flags, dtype=torch.bool).reshape(batch, count)


@composite
def keypoints(
    draw: st.DrawFn,
    *,
    batch: int | None = None,
    count: int | None = None,
    size: Size = (24, 32),
    max_batch: int = 3,
    max_points: int = 4,
) -> Keypoints:
    """Draw points in photos of (height, width) pixels, any of them visible; shrinks to one invisible point at (0, 0).

    Args:
        draw: function that hypothesis passes.
        batch: number of photos; None: drawn up to `max_batch`.
        count: number of points of each photo; None: drawn up to `max_points`.
        size: (H, W) of the photos.
        max_batch: largest number of photos.
        max_points: largest number of points.
    """
    rows, columns = batch or draw(st.integers(1, max_batch)), count or draw(st.integers(1, max_points))
    return Keypoints(draw(points((rows, columns), size)), draw(visibility(rows, columns)))


@composite
def boxes(draw: st.DrawFn, size: Size) -> tuple[float, float, float, float]:
    """Draw a box (left, top, right, bottom) of one pixel or more in a photo of (height, width).

    Half of the boxes are the whole photo, to which boxes shrink.

    Args:
        draw: function that hypothesis passes.
        size: (height, width) of the photo.
    """
    height, width = size
    if not draw(st.booleans()):
        return 0.0, 0.0, float(width), float(height)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (
        float(left), float(top), float(draw(st.integers(left + 1, width))), float(draw(st.integers(top + 1, height))),
    )  # fmt: skip


@composite
def correlations(
    draw: st.DrawFn,
    *,
    max_batch: int = 3,
    max_points: int = 4,
    min_side: int = 1,
    max_side: int = 6,
    max_channels: int = 5,
    peaked: bool = False,
    nan: bool = False,
) -> Correlation:
    """Draw correlations of query points with every cell of target maps, as inputs of matchers and losses.

    Shrinks to one query at (0, 0) and one cell.

    Args:
        draw: function that hypothesis passes.
        max_batch: largest number of pairs.
        max_points: largest number of query points.
        min_side: smallest number of cells in a row or column.
        max_side: largest number of cells in a row or column.
        max_channels: largest number of channels.
        peaked: whether one target cell has the source's feature, so that each query point has a unique best match.
        nan: whether a feature may be NaN.
    """
    source = draw(
        feature_maps(max_batch=max_batch, min_side=min_side, max_side=max_side, max_channels=max_channels, nan=nan)
    )
    grid = draw(grids(batch=len(source), min_side=min_side, max_side=max_side))
    target = draw(feature_maps(grid=grid, channels=source.values.shape[1], nan=nan))
    count = draw(st.integers(1, max_points))
    smallest = (min(frame.original_size[0] for frame in source.grid.frames),
                min(frame.original_size[1] for frame in source.grid.frames))  # fmt: skip
    queries = draw(points((len(source), count), smallest))
    correlation = correlate_maps(source, target, queries)
    if not peaked:
        return correlation
    height, width = grid.size
    rows, columns = (
        torch.from_numpy(draw(arrays.arrays(np.int64, (len(source), count), elements=st.integers(0, side - 1))).copy())
        for side in (height, width)
    )
    peak = (rows * width + columns)[..., None]
    lower = (correlation.values.flatten(2) - 1) / 2  # at most 0
    return Correlation(
        lower.scatter(2, peak, 1.0).unflatten(2, (height, width)), correlation.query_points, source, target
    )


@composite
def pair_batches(
    draw: st.DrawFn, *, max_batch: int = 3, max_points: int = 4, size: Size = (24, 32), categories: bool = True
) -> PairBatch:
    """Draw the points of a batch of pairs of photos of one size, without views.

    Args:
        draw: function that hypothesis passes.
        max_batch: largest number of pairs.
        max_points: largest number of points of a pair.
        size: (H, W) of all photos.
        categories: whether pairs have categories.
    """
    batch, count = draw(st.integers(1, max_batch)), draw(st.integers(1, max_points))
    visible = draw(visibility(batch, count))
    names = tuple(draw(st.sampled_from(_WORDS)) if categories else None for _ in range(batch))
    source, target = (Keypoints(draw(points((batch, count), size)), visible) for _ in range(2))
    images = ImageBatch({}, names)
    return PairBatch(images, images, source, target, tuple(f"pair-{index}" for index in range(batch)))


@composite
def protocols(draw: st.DrawFn, *, max_alphas: int = 4) -> EvaluationProtocol:
    """Draw an evaluation protocol; shrinks to that of SD4Match with one alpha.

    Args:
        draw: function that hypothesis passes.
        max_alphas: largest number of alphas.
    """
    error_frame = draw(st.sampled_from(["squash", "pad", "photo"]))
    in_photos = error_frame == "photo"
    some_alphas = st.lists(st.sampled_from(_ALPHAS), min_size=1, max_size=max_alphas, unique=True)
    fields: dict[str, Any] = {
        "name": "drawn",
        "error_frame": error_frame,
        "frame": draw(st.sampled_from(["squash", "pad"])) if in_photos else error_frame,
        "side": None if in_photos else draw(st.integers(2, 1024)),
        "alphas": tuple(draw(some_alphas)),
        "inclusive": draw(st.booleans()),
        "clamp_truth": draw(st.booleans()),
        "reference": draw(st.sampled_from(["data", "box", "photo"])),
        "alignment": draw(st.sampled_from(["corners", "centers"] if in_photos else ["corners", "centers", "patch"])),
        "query_mode": draw(st.sampled_from(["bilinear", "floor", "pixel"])),
        "average": draw(st.sampled_from(["image", "point", "category_point"])),
    }
    return EvaluationProtocol(**fields)


@composite
def prompt_configs(
    draw: st.DrawFn,
    *,
    kinds: Sequence[Literal["empty", "text", "single", "class"]] = ("empty", "text", "single", "class"),
    max_tokens: int = 75,
) -> PromptConfig:
    """Draw the config of a prompt that needs no image encoder; shrinks to the first kind.

    Args:
        draw: function that hypothesis passes.
        kinds: kinds to draw from.
        max_tokens: largest number of learned vectors, at most 75 for `FakeTextEncoder`.
    """
    kind = draw(st.sampled_from(kinds))
    if kind == "empty":
        return EmptyPromptConfig()
    if kind == "text":
        return TextPromptConfig(template=draw(st.sampled_from(["a {category}", "{category}", "photo"])))
    fields: Mapping[str, Any] = {
        "num_tokens": draw(st.integers(1, max_tokens)),
        "init": draw(st.sampled_from(["empty", "random", "uniform"])),
        "space": draw(st.sampled_from(["token", "hidden"])),
        "seed": draw(st.integers(0, 3)),
    }
    if kind == "single":
        return SinglePromptConfig(**fields)
    return ClassPromptConfig(
        **fields, categories=tuple(draw(st.lists(st.sampled_from(_WORDS), min_size=1, unique=True)))
    )


@composite
def experiment_configs(draw: st.DrawFn, *, max_tokens: int = 75) -> ExperimentConfig:
    """Draw a valid experiment on synthetic pairs; shrinks to the empty prompt and the first matcher.

    Args:
        draw: function that hypothesis passes.
        max_tokens: largest number of learned vectors of a prompt.
    """
    kinds = [kind for kind in matchers.kinds() if kind not in ("mutual", "cycle", "ratio", "threshold")]
    matcher: Any = draw(st.sampled_from(kinds).map(matchers.parse))
    return ExperimentConfig(
        prompt=draw(prompt_configs(max_tokens=max_tokens)),
        matcher=draw(st.sampled_from([matcher, matchers.parse({"kind": "mutual", "inner": KernelSoftArgmax()})])),
        loss=GaussianCrossEntropyConfig(temperature=draw(st.sampled_from([0.04, 0.1, 1.0]))),
        data={"kind": "synthetic", "pairs": draw(st.integers(1, 8)), "photos_per_category": 2},
        training={"steps": draw(st.integers(1, 8)), "batch_size": draw(st.integers(1, 4))},
        evaluation={
            "sampling": SamplingConfig(
                timestep=draw(st.integers(0, 999)), ensemble_size=draw(st.integers(1, 4)),
                ensemble=draw(st.sampled_from(["independent", "antithetic", "matched"])),
            )
        },
    )  # fmt: skip
