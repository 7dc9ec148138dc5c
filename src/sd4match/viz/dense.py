"""Pictures of dense matches: the target warped to the source, matches as colors, and the flow as arrows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.dense import DenseMatch
from sd4match.structures.images import Photo
from sd4match.structures.resampling import sampled
from sd4match.viz.colors import position_colors
from sd4match.viz.layout import LARGEST_HEIGHT, Panel, at_height, gray_of, in_rows, pixel_positions, scaled

_LINES = 8
"""Number of bands of the width and of the height of a photo, with lines between them."""
_ARROWS = 10
"""Number of arrows along the longer side of a photo."""
_WIDEST_ROW = 7.5
"""Largest width of a row of four pictures as a multiple of its height; wider ones fill two rows."""
_PHOTO = 0.25
"""Share of the gray photo in a pixel of a picture of colors."""


@check_arguments
def draw_dense(match: DenseMatch, *, height: int = 320) -> Image.Image:
    """Draw four pictures side by side: source, target, the target warped to the source, and the flow.

    The picture of the flow is the source in gray. Its arrows point from some pixels to their matches in the target,
    with both photos scaled to one size. Longer displacements have longer arrows, and pixels without a match have none.
    `draw_correspondence` draws every match.

    Args:
        match: matches from `SemanticMatcher.match_dense`.
        height: height of each picture in pixels, from 1 to 4000.

    >>> from sd4match.geometry import Grid, own_frame
    >>> photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> still = DenseMatch(photo, photo, Grid((own_frame((40, 60)),), (1, 1), "centers"),
    ...                    np.array([[[29.5, 19.5]]]), np.ones((1, 1)))
    >>> draw_dense(still, height=80).size
    (516, 80)
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    source, target = (at_height(photo, height) for photo in (match.source, match.target))
    pictures = [source, target, _warped(match, source, target), _arrows(match, source, height)]
    most = 4 if sum(picture.width for picture in pictures) <= _WIDEST_ROW * height else 2
    return in_rows([Panel(picture) for picture in pictures], most=most)


@check_arguments
def draw_warp(match: DenseMatch, *, title: str = "", height: int = 320) -> Image.Image:
    """Draw the source, the target, and the target in the frame of the source, where each pixel is its match.

    Args:
        match: matches from `SemanticMatcher.match_dense`.
        title: text above the photos.
        height: height of each photo in the picture, in pixels, from 1 to 4000.

    >>> from sd4match.geometry import Grid, own_frame
    >>> photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> still = DenseMatch(photo, photo, Grid((own_frame((40, 60)),), (1, 1), "centers"),
    ...                    np.array([[[29.5, 19.5]]]), np.ones((1, 1)))
    >>> draw_warp(still, height=100).size
    (485, 122)
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    source, target = (at_height(photo, height) for photo in (match.source, match.target))
    warped = _warped(match, source, target)
    return in_rows(
        [Panel(source, "source"), Panel(target, "target"), Panel(warped, "target, warped to source")], title=title
    )


@check_arguments
def draw_correspondence(match: DenseMatch, *, title: str = "", height: int = 320) -> Image.Image:
    """Draw both photos, and below them every match: the target in colors by position, carried to the source.

    In the target, colors change from blue on the left to orange on the right, and from light at the top to dark at the
    bottom; lines divide width and height into eight bands. A pixel of the source has the color of its match, and its
    lines are where matches cross those of the target, so regions of equal color match. Pixels without a match are gray.

    Args:
        match: matches from `SemanticMatcher.match_dense`.
        title: text above the photos.
        height: height of each photo in the picture, in pixels, from 1 to 4000.

    >>> from sd4match.geometry import Grid, own_frame
    >>> photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> still = DenseMatch(photo, photo, Grid((own_frame((40, 60)),), (1, 1), "centers"),
    ...                    np.array([[[29.5, 19.5]]]), np.ones((1, 1)))
    >>> draw_correspondence(still, height=100).size
    (312, 256)
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    source, target = (at_height(photo, height) for photo in (match.source, match.target))
    x, y = pixel_positions(source, match.source)
    valid = match.valid_pixels[np.ix_(np.rint(y).astype(int), np.rint(x).astype(int))]
    carried = _coded(source, _matches(match, source), match.target, valid)
    own = _coded(target, _pixels(target, match.target), match.target, np.ones(target.size[::-1], dtype=np.bool_))
    panels = [
        Panel(source, "source"), Panel(target, "target"),
        Panel(carried, "colors of the matches"), Panel(own, "colors by position"),
    ]  # fmt: skip
    return in_rows(panels, title=title, most=2)


def _pixels(picture: Image.Image, photo: Photo) -> npt.NDArray[np.float64]:
    """Return the pixels of a picture of a photo as points of the photo, (height, width, 2)."""
    return np.stack(np.meshgrid(*pixel_positions(picture, photo)), axis=-1)


def _matches(match: DenseMatch, source: Image.Image) -> npt.NDArray[np.float64]:
    """Return the match of every pixel of a picture of the source, (height, width, 2), in pixels of the target."""
    pixels = _pixels(source, match.source)
    return match.at(pixels.reshape(-1, 2)).reshape(pixels.shape)


def _warped(match: DenseMatch, source: Image.Image, target: Image.Image) -> Image.Image:
    scale = np.array(target.size) / match.target.size[::-1]
    points = (_matches(match, source) + 0.5) * scale - 0.5
    return Image.fromarray(sampled(np.asarray(target), points, nearest=False))


def _coded(
    picture: Image.Image, locations: npt.NDArray[np.float64], photo: Photo, valid: npt.NDArray[np.bool_]
) -> Image.Image:
    """Return a picture in the colors of locations (height, width, 2) in a photo, with lines between bands."""
    x, y = np.moveaxis((locations + 0.5) / photo.size[::-1], -1, 0)
    gray = gray_of(picture)
    mixed = (1 - _PHOTO) * position_colors(x, y) + _PHOTO * gray
    bands = np.floor(np.stack([x, y], axis=-1) * _LINES)
    lines = np.zeros(valid.shape, dtype=np.bool_)
    lines[1:] |= (bands[1:] != bands[:-1]).any(axis=-1)
    lines[:, 1:] |= (bands[:, 1:] != bands[:, :-1]).any(axis=-1)
    mixed = np.where(lines[..., None], 0.3 * mixed + 0.7 * 255, mixed)
    return Image.fromarray(np.where(valid[..., None], np.rint(mixed), gray).astype(np.uint8))


def _arrows(match: DenseMatch, source: Image.Image, height: int) -> Image.Image:
    """Return the source in gray with arrows from pixels toward their matches, in the source's size."""
    picture = source.convert("L").convert("RGB")
    draw = ImageDraw.Draw(picture)
    step = max(source.size) / _ARROWS
    x, y = (
        np.linspace(-0.5, side - 0.5, max(1, round(shown / step)) * 2 + 1)[1::2].clip(0, side - 1)
        for side, shown in zip(match.source.size[::-1], source.size, strict=True)
    )
    starts = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    rows, columns = np.rint(starts[:, 1]).astype(int), np.rint(starts[:, 0]).astype(int)
    starts = starts[match.valid_pixels[rows, columns]]
    if not len(starts):
        return picture
    share = np.array(match.source.size[::-1]) / match.target.size[::-1]
    ways = (match.at(starts) + 0.5) * share - 0.5 - starts
    longest = max(float(np.hypot(*ways.T).max()), 1.0)
    for start, way in zip(scaled(starts, match.source, height), ways / longest * step, strict=True):
        for color, width in (("black", 5), ("white", 2)):
            _arrow(draw, start - way / 2, start + way / 2, color, width)
    return picture


def _arrow(
    draw: ImageDraw.ImageDraw, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], color: str, width: int
) -> None:
    """Draw an arrow; a dot where it has no length."""
    length = float(np.hypot(*(end - start)))
    if length < 1:
        x, y = start
        draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=color)
        return
    ahead = (end - start) / length
    across = np.array([-ahead[1], ahead[0]])
    draw.line([*start, *end], fill=color, width=width)
    for side in (-1, 1):
        draw.line([*end, *(end + 0.5 * length * (0.6 * side * across - ahead))], fill=color, width=width)
