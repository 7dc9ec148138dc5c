"""Heat maps: a value of every cell of a photo, in colors over the photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError, NonFiniteError, ShapeError
from sd4match.geometry import Grid
from sd4match.structures.images import Photo
from sd4match.structures.photo_cells import PhotoCells
from sd4match.structures.tensors import Correlation
from sd4match.viz.layout import (
    LARGEST_HEIGHT,
    Mark,
    Panel,
    at_height,
    check_drawable,
    gray_of,
    hatched,
    heat_colors,
    in_rows,
    interpolated,
    marked,
    pixel_positions,
    scaled,
)

Values = Float[Tensor, "h w"] | npt.NDArray[np.floating[Any]]
Point = Sequence[float] | npt.NDArray[np.floating[Any]]
"""(x, y) in pixels of a photo."""

_HEAT = 0.65
"""Share of the heat's color in a pixel; the rest is the gray photo."""


@check_arguments
def draw_heat_map(
    photo: Photo,
    values: Values,
    grid: Grid,
    *,
    point: Point | None = None,
    truth: Point | None = None,
    title: str = "",
    height: int = 320,
    legend: bool = True,
) -> Image.Image:
    """Draw a value of every cell over the gray photo; higher values are lighter and yellower.

    Each map has its own scale: dark blue is the lowest and light yellow the highest finite value of the cells on the
    photo, and both are written below. Cells in the padding of the photo are not used. Values are interpolated between
    the centers of cells (bilinear) and constant beyond the outermost ones. Cells of -inf, which a mask excludes, are
    hatched.

    Args:
        photo: photo that the map was computed from.
        values: (h, w), finite or -inf.
        grid: grid of the cells, of this photo alone.
        point: (x, y) in pixels of the photo, drawn as a ring; near the border, a white margin around the photo keeps it
            whole.
        truth: (x, y) in pixels of the photo, drawn as a cross, likewise.
        title: text above the photo.
        height: height of the photo in the picture, in pixels, from 1 to 4000; a photo more than 2.4 times as wide is
            smaller.
        legend: draw colors and limits below; without legend and title, the picture is only the photo.

    Raises:
        ShapeError: the values are not of the grid's cells, or the grid is not of this photo alone.
        NonFiniteError: a value is NaN or +inf, or no value on the photo is finite.
        InputError: an argument is of another type, or a point is not finite or far outside the photo.

    >>> from sd4match.geometry import own_frame
    >>> photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> grid = Grid((own_frame((40, 60)),), (2, 3), "centers")
    >>> draw_heat_map(photo, np.arange(6.0).reshape(2, 3), grid, height=160).size
    (240, 182)
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    panel = heat_panel(photo, values, grid, title, point=point, truth=truth, height=height)
    if legend or title:
        return in_rows([panel if legend else replace(panel, limits=None)])
    return marked(panel)


@check_arguments
def draw_heat_maps(
    source: Photo,
    target: Photo,
    correlations: Mapping[str, Correlation],
    *,
    query: int = 0,
    truth: Point | None = None,
    title: str = "",
    height: int = 320,
) -> Image.Image:
    """Draw the source with a query point, and the similarity of the target to it under several prompts.

    The picture has the form of the paper's Fig. 6. Each map has its own scale, because similarities under different
    prompts have different ranges; a ring marks the most similar cell.

    Args:
        source: photo of the query point, which is drawn as a ring.
        target: photo under each map.
        correlations: correlations by name of the prompt, each of this pair alone and of the same query points.
        query: index of the query point in the correlations.
        truth: true match, (x, y) in pixels of the target, drawn as a cross.
        title: text above the photos.
        height: height of each photo in the picture, in pixels, from 1 to 4000; very wide photos are smaller and
            stacked.

    Raises:
        InputError: there is no correlation, no query of that index, or the query points differ.
        ShapeError: a correlation is not of this pair of photos alone.
        NonFiniteError: a correlation holds NaN.

    >>> from sd4match.testing import random_correlation, random_photo
    >>> correlation = random_correlation(batch=1)
    >>> photos = [random_photo(features.grid.frames[0].original_size)
    ...           for features in (correlation.source, correlation.target)]
    >>> draw_heat_maps(*photos, {"empty": correlation, "text": correlation}, height=100).height
    144
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    if not correlations:
        raise InputError("correlations must hold one prompt or more")
    queries = {name: _query_point(name, own, query, source) for name, own in correlations.items()}
    point = next(iter(queries.values()))
    for name, other in queries.items():
        if not np.allclose(other, point, rtol=0, atol=1e-3):
            raise InputError(
                f"the correlations must be of the same query points, and point {query} of {name!r} is another"
            )
    panels = [Panel(at_height(source, height), "source", marks=(Mark(scaled(point, source, height)),))]
    for name, correlation in correlations.items():
        grid = correlation.target.grid
        peak = grid.to_pixels(correlation.peak[:1, query : query + 1].detach().cpu())[0, 0].double().numpy()
        inside = np.clip(peak, 0.0, np.array(target.size[::-1]) - 1.0)
        values = correlation.values[0, query]
        panels.append(heat_panel(target, values, grid, name, point=inside, truth=truth, height=height))
    return in_rows(panels, title=title)


def _query_point(name: str, correlation: Correlation, query: int, source: Photo) -> npt.NDArray[np.float64]:
    batch, count, _ = correlation.query_points.shape
    if batch != 1 or correlation.source.grid.frames[0].original_size != source.size:
        raise ShapeError(f"the correlation {name!r} must be of this pair of photos alone")
    check_count("query", query, 0, count - 1)
    return correlation.query_points[0, query].detach().double().cpu().numpy()


def heat_panel(
    photo: Photo,
    values: Values,
    grid: Grid,
    caption: str,
    *,
    point: Point | None = None,
    truth: Point | None = None,
    height: int,
) -> Panel:
    """Return the panel of a heat map with its marks; the errors are those of `draw_heat_map`."""
    picture, limits = _overlay(photo, values, grid, height=height)
    marks = tuple(
        Mark(scaled(check_drawable(name, [location], photo), photo, height)[0], is_cross=name == "truth")
        for name, location in (("point", point), ("truth", truth))
        if location is not None
    )
    return Panel(picture, caption, limits, marks)


def _overlay(photo: Photo, values: Values, grid: Grid, *, height: int) -> tuple[Image.Image, tuple[float, float]]:
    """Return the photo under the colors of a map, and the values of its lowest and its highest color."""
    if len(grid) != 1 or grid.frames[0].original_size != photo.size:
        raise ShapeError(f"the grid must be of {photo.name} alone, {photo.size}")
    array = _as_array(values)
    if array.shape != grid.size:
        raise ShapeError(f"values must be {grid.size}, the cells of the grid, not {array.shape}")
    cells = PhotoCells(grid)
    known: npt.NDArray[np.bool_] = np.isfinite(array)
    if np.isnan(array).any() or np.isposinf(array).any() or not (known & cells.used).any():
        raise NonFiniteError("values must be finite, or -inf for some of the cells on the photo")
    low, high = (float(limit(array[known & cells.used])) for limit in (np.min, np.max))
    picture = at_height(photo, height)
    x, y = pixel_positions(picture, photo)
    shares = (np.where(known, array, low) - low) / (high - low or 1.0)
    gray, heat = gray_of(picture), heat_colors(interpolated(shares, cells, x, y))
    mixed = np.rint(_HEAT * heat + (1 - _HEAT) * gray).astype(np.uint8)
    seen = known[np.ix_(cells.nearest(y, axis=1), cells.nearest(x, axis=0))][..., None]
    return Image.fromarray(np.where(seen, mixed, hatched(gray))), (low, high)


def _as_array(values: Values) -> npt.NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
