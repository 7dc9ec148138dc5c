"""Pictures of matches: two photos side by side with lines between matching points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError
from sd4match.structures.images import Photo
from sd4match.viz.colors import CYCLE, HIT, MISS, RGB, YELLOW
from sd4match.viz.layout import (
    GAP,
    LARGEST_HEIGHT,
    PointArray,
    Points,
    at_height,
    check_drawable,
    columns_for,
    draw_cross,
    line_height,
    margin_for,
    scaled,
    text_size,
    titled_width,
    write,
)

_COLORS = (*CYCLE[:-1], YELLOW)
"""Colors of matches without `hits`, in the order of use; black would not show on dark photos."""
_LARGEST_SCALE = 3.0


@check_arguments
def draw_matches(
    source: Photo,
    target: Photo,
    source_points: Points,
    target_points: Points,
    *,
    hits: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    scores: Sequence[float] | npt.NDArray[np.float64] | None = None,
    truth: Points | None = None,
    title: str = "",
    height: int = 480,
) -> Image.Image:
    """Draw both photos with a line for each match, side by side or, if they are very wide, one above the other.

    A photo more than 2.4 times as wide as the height is drawn smaller. A white margin keeps marks on the border of a
    photo whole.

    Args:
        source: photo on the left.
        target: photo on the right.
        source_points: (N, 2), (x, y) in pixels of the source.
        target_points: (N, 2), (x, y) in pixels of the target.
        hits: (N,), True for correct matches: solid blue lines between discs; wrong ones are dashed vermilion lines
            between open squares. None: colors have no meaning.
        scores: (N,), in [0, 1]; matches of lower score are thinner.
        truth: (M, 2), true points in the target, drawn as crosses.
        title: text above the photos.
        height: height of each photo in the picture, in pixels, from 1 to 4000.

    Raises:
        InputError: points are not (N, 2), not finite or far outside their photo, or there is not one target point, hit
            or score for each source point.

    >>> photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> points = np.array([[10.0, 10.0]])
    >>> draw_matches(photo, photo, points, points, height=80).size
    (252, 80)
    """
    check_count("height", height, 1, LARGEST_HEIGHT)
    source_points = check_drawable("source_points", source_points, source)
    target_points = check_drawable("target_points", target_points, target)
    for name, values in (("target_points", target_points), ("hits", hits), ("scores", scores)):
        if values is not None and len(values) != len(source_points):
            raise InputError(f"expected {name} for {len(source_points)} source_points, got {len(values)}")
    if scores is not None and not np.isfinite(np.asarray(scores, dtype=np.float64)).all():
        raise InputError("scores must be finite")
    crosses = np.empty((0, 2)) if truth is None else scaled(check_drawable("truth", truth, target), target, height)
    upper, lower = (at_height(photo, height) for photo in (source, target))
    shift, extent = _placed(upper, lower, height=height)
    mark = max(height, extent[0] // 3)
    starts = scaled(source_points, source, height)
    ends, crosses = (points + shift for points in (scaled(target_points, target, height), crosses))
    margin = max(
        margin_for(np.concatenate([starts, ends]), extent, radius=_radius(mark)),
        margin_for(crosses, extent, radius=_truth_radius(mark)),
    )
    width = max(extent[0] + 2 * margin, titled_width(title))
    size = text_size(width)
    corner = np.array([margin, margin + (line_height(size) if title else 0)])
    canvas = Image.new("RGB", (width, extent[1] + margin + int(corner[1])), "white")
    for picture, (x, y) in ((upper, corner), (lower, corner + shift)):
        canvas.paste(picture, (int(x), int(y)))
    if title:
        write(canvas, title, 0, 0, width, size=size)
    starts, ends, crosses = (points + corner for points in (starts, ends, crosses))
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        strength = 1.0 if scores is None else min(1.0, 0.35 + float(scores[index]))
        thickness = max(1 if hits is None else 2, round(strength * mark / 120))
        if hits is None:
            _draw_match(canvas, start, end, _COLORS[index % len(_COLORS)], thickness, mark=mark)
        else:
            _draw_match(canvas, start, end, HIT if hits[index] else MISS, thickness, mark=mark, hit=hits[index])
    for cross in crosses:
        draw_cross(canvas, cross, radius=_truth_radius(mark))
    return canvas


def _placed(source: Image.Image, target: Image.Image, *, height: int) -> tuple[PointArray, tuple[int, int]]:
    """Return the offset of the target's upper left corner from the source's, and the size of both together.

    Narrow photos are apart, so that lines between them show.
    """
    if columns_for([source.size, target.size]) == 2:
        gap = max(GAP, height // 2 - source.width - target.width)
        shift = np.array([source.width + gap, 0])
    else:
        gap = max(GAP, height // 2 - source.height - target.height)
        shift = np.array([0, source.height + gap])
    width, depth = np.maximum(source.size, shift + target.size).tolist()
    return shift, (width, depth)


def _radius(mark: int) -> int:
    """Return the radius of the ends of a match in a picture of photos of this height."""
    return max(4, round(mark / 72))


def _truth_radius(mark: int) -> int:
    return max(4, round(mark / 57))


@check_arguments
def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Stack pictures vertically, with a gap between them.

    Narrower pictures are enlarged to the width of the widest, at most to three times their size, so that text stays
    legible.

    Args:
        pictures: one picture or more, from top to bottom.

    Raises:
        InputError: there is no picture.

    >>> stack([Image.new("RGB", (60, 20)), Image.new("RGB", (30, 10))]).width
    60
    """
    if not pictures:
        raise InputError("there is no picture to stack")
    width = max(picture.width for picture in pictures)
    pictures = [
        ImageOps.scale(picture, min(width / picture.width, _LARGEST_SCALE), Image.Resampling.LANCZOS)
        for picture in pictures
    ]
    height = sum(picture.height for picture in pictures) + GAP * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + GAP
    return canvas


def _draw_match(
    canvas: Image.Image,
    start: PointArray,
    end: PointArray,
    color: RGB,
    thickness: int,
    *,
    mark: int,
    hit: bool | None = None,
) -> None:
    """Draw a match: solid between discs, or dashed between open squares if it is a miss."""
    draw, radius = ImageDraw.Draw(canvas), _radius(mark)
    dash = None if hit in (None, True) else mark / 48
    if hit is not None:  # an outline shows on a photo of the same color
        _line(draw, start, end, "white", thickness + 2, dash=dash)
    _line(draw, start, end, color, thickness, dash=dash)
    for x, y in (start, end):
        box = [x - radius, y - radius, x + radius, y + radius]
        if hit in (None, True):
            draw.ellipse(box, fill=color, outline="white")
        else:
            draw.rectangle(box, fill="white", outline=color, width=max(2, radius // 2))


def _line(
    draw: ImageDraw.ImageDraw,
    start: PointArray,
    end: PointArray,
    color: RGB | str,
    width: int,
    *,
    dash: float | None,
) -> None:
    """Draw a line; with dashes of length `dash`, if it is given."""
    length = float(np.hypot(*(end - start)))
    if dash is None or length < 2 * dash:
        draw.line([*start, *end], fill=color, width=width)
        return
    ahead = (end - start) / length
    for first in np.arange(0.0, length, 2 * dash):
        draw.line([*(start + first * ahead), *(start + min(first + dash, length) * ahead)], fill=color, width=width)
