"""Features as colors: principal components of all maps together, so that equal colors mean equal features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.linalg import eigh
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.structures.images import Photo
from sd4match.structures.photo_cells import PhotoCells
from sd4match.structures.tensors import FeatureMap
from sd4match.viz.layout import (
    LARGEST_HEIGHT,
    Panel,
    at_height,
    columns_for,
    gray_of,
    hatched,
    in_rows,
    interpolated,
    pixel_positions,
)

_OPPONENTS = np.array([[0.75, 0.75, 0.75], [0.3, 0.1, -0.45], [0.25, -0.15, 0.1]])
"""Contributions of the components to red, green and blue: lightness, yellow-blue, magenta-green."""
_TAIL = 0.01
"""Share of the cells beyond either end of the scale of a component."""
_NOTHING = Panel(Image.new("RGB", (1, 1), "white"))
"""Filler of a row, so that features are below their photos."""


@check_arguments
def principal_components(maps: Sequence[FeatureMap], *, count: int = 3) -> list[npt.NDArray[np.float64]]:
    """Return the first principal components of the features of several maps together.

    Features are divided by their L2 norm, as a correlation does, and centered on the mean over the cells of all maps
    that lie on the photos and in the masks. The sign of a component is such that its channel of largest magnitude is
    positive.

    Args:
        maps: maps (1, C, h, w), one of each photo; sizes and grids may differ.
        count: number of components, from 1 to C.

    Returns:
        For each map (h, w, count): the components of all of its cells, the strongest first.

    Raises:
        InputError: there is no map, or it has fewer channels than components.
        ShapeError: a map is not of one photo, or has other channels than the first.
        NonFiniteError: a feature is NaN or infinite.

    >>> from sd4match.testing import random_correlation
    >>> [components.shape for components in principal_components([random_correlation(batch=1).source])]
    [(8, 8, 3)]
    """
    if not maps:
        raise InputError("maps must hold one feature map or more")
    channels = maps[0].values.shape[1]
    check_count("count", count, 1, channels)
    cells, used = [], []
    for number, features in enumerate(maps):
        if len(features) != 1 or features.values.shape[1] != channels:
            raise ShapeError(f"maps[{number}] must be (1, {channels}, h, w), not {tuple(features.values.shape)}")
        cells.append(_unit_cells(features.values))
        used.append(cells[-1][PhotoCells(features.grid).used & _mask(features)])
        if not np.isfinite(cells[-1]).all():
            raise NonFiniteError(f"maps[{number}] must be finite, and holds NaN or infinite values")
    together = np.concatenate(used)
    mean = together.mean(axis=0) if len(together) else np.zeros(channels)
    centered = together - mean
    _, vectors = eigh(centered.T @ centered, subset_by_index=[channels - count, channels - 1])
    vectors = vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)])
    return [(own - mean) @ (vectors * signs) for own in cells]


@check_arguments
def draw_features(
    photos: Sequence[Photo],
    maps: Sequence[FeatureMap],
    *,
    captions: Sequence[str] = (),
    title: str = "",
    height: int = 320,
) -> Image.Image:
    """Draw photos, and below each its features in colors: equal colors mean equal features, in all of the photos.

    Colors are the first three components of `principal_components` of all maps together, each scaled from its lowest to
    its highest percentile. The first is lightness, so that the strongest variation shows for any color vision; the
    second ranges from blue to yellow, the third from green to magenta. Cells outside of a mask are hatched.

    Args:
        photos: one photo or more.
        maps: map of each photo, (1, C, h, w) with three channels or more, for example from
            `SemanticMatcher.feature_map`.
        captions: text above each photo; (): its name.
        title: text above all of them.
        height: height of each photo in the picture, in pixels, from 1 to 4000.

    Raises:
        ShapeError: there is not one map and one caption for each photo, or a map is of another photo.
        InputError, NonFiniteError: as in `principal_components`.

    >>> from sd4match.testing import random_correlation, random_photo
    >>> features = random_correlation(batch=1).source
    >>> draw_features([random_photo(features.grid.frames[0].original_size)], [features], height=100).height
    234
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    captions = captions or [photo.name for photo in photos]
    if not len(photos) == len(maps) == len(captions):
        raise ShapeError(f"expected maps and captions for {len(photos)} photos, got {len(maps)} and {len(captions)}")
    components = principal_components(maps)
    for photo, features in zip(photos, maps, strict=True):
        if features.grid.frames[0].original_size != photo.size:
            raise ShapeError(f"the map of {photo.name} must be of a photo of {photo.size}")
    used = [
        each[PhotoCells(features.grid).used & _mask(features)] for each, features in zip(components, maps, strict=True)
    ]
    low, high = np.quantile(np.concatenate(used), [_TAIL, 1 - _TAIL], axis=0)
    width = np.where(high > low, high - low, 1.0)
    upper, lower = [], []
    for photo, caption, features, each in zip(photos, captions, maps, components, strict=True):
        picture = at_height(photo, height)
        upper.append(Panel(picture, caption))
        lower.append(Panel(_colored(picture, photo, features, ((each - low) / width).clip(0, 1))))
    columns = columns_for([panel.picture.size for panel in upper])
    missing = -len(photos) % columns
    panels = []
    for first in range(0, len(photos), columns):
        for row in (upper, lower):
            panels += [*row, *[_NOTHING] * missing][first : first + columns]
    return in_rows(panels, title=title, columns=columns)


def feature_colors(components: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return the colors (..., 3) of three components in [0, 1]."""
    mixed = 0.5 + (components - 0.5) @ _OPPONENTS
    colors: npt.NDArray[np.uint8] = np.rint(255 * mixed.clip(0, 1)).astype(np.uint8)
    return colors


def _colored(picture: Image.Image, photo: Photo, features: FeatureMap, shares: npt.NDArray[np.float64]) -> Image.Image:
    cells, (x, y) = PhotoCells(features.grid), pixel_positions(picture, photo)
    colors = feature_colors(interpolated(shares, cells, x, y))
    seen = _mask(features)[np.ix_(cells.nearest(y, axis=1), cells.nearest(x, axis=0))]
    return Image.fromarray(np.where(seen[..., None], colors, hatched(gray_of(picture))))


def _unit_cells(values: Tensor) -> npt.NDArray[np.float64]:
    """Return the features of the cells (h, w, C), each divided by its L2 norm."""
    cells = values[0].detach().double().permute(1, 2, 0).cpu().numpy()
    norms = np.linalg.norm(cells, axis=-1, keepdims=True)
    unit: npt.NDArray[np.float64] = cells / np.where(norms > 0, norms, 1.0)
    return unit


def _mask(features: FeatureMap) -> npt.NDArray[np.bool_]:
    if features.mask is None:
        return np.ones(features.size, dtype=np.bool_)
    mask: npt.NDArray[np.bool_] = features.mask[0].cpu().numpy()
    return mask
