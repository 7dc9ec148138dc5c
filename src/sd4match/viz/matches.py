"""Pictures of matches: two photos side by side with lines between matching points."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError
from sd4match.structures.images import Photo
from sd4match.viz.colors import HIT, MISS
from sd4match.viz.layout import GAP, INK, LARGEST_HEIGHT, Points, at_height, check_drawable, font_of, scaled


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
    """Draw both photos at one height with a line for each match.

    A photo whose width would be more than eight times that height is drawn as large as fits into it.

    Args:
        source: photo on the left.
        target: photo on the right.
        source_points: (N, 2), in pixels of the source.
        target_points: (N, 2), in pixels of the target.
        hits: whether each match is correct: draws it blue or vermilion; without it every match has its own color.
        scores: draw matches of lower score thinner.
        truth: (N, 2), true points in the target, drawn as crosses.
        title: text above the photos.
        height: height of both photos in the picture, in pixels, at most 4000.

    Raises:
        InputError: points that are not (N, 2), not finite or far outside their photo, or another number of targets,
            hits or scores than sources.

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
    left, right = (at_height(photo, height) for photo in (source, target))
    top = 30 if title else 0
    canvas = Image.new("RGB", (left.width + GAP + right.width, height + top), "white")
    canvas.paste(left, (0, top))
    canvas.paste(right, (left.width + GAP, top))
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((6, 7), title, fill=INK, font=font_of(15))
    starts = scaled(source_points, source, height) + np.array([0, top])
    shift = np.array([left.width + GAP, top])
    ends = scaled(target_points, target, height) + shift
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        color = _color(index, len(starts)) if hits is None else (HIT if hits[index] else MISS)
        strength = 1.0 if scores is None else min(1.0, 0.35 + float(scores[index]))
        draw.line([tuple(start), tuple(end)], fill=color, width=max(1, round(3 * strength)))
        _dot(draw, start, color)
        _dot(draw, end, color)
    if truth is not None:
        for x, y in scaled(check_drawable("truth", truth, target), target, height) + shift:
            draw.line([x - 6, y - 6, x + 6, y + 6], fill="white", width=2)
            draw.line([x - 6, y + 6, x + 6, y - 6], fill="white", width=2)
    return canvas


@check_arguments
def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Stack pictures below each other.

    Raises:
        InputError: there is no picture.
    """
    if not pictures:
        raise InputError("there is no picture to stack")
    canvas = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height
    return canvas


def _color(index: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(index / max(count, 1), 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _dot(draw: ImageDraw.ImageDraw, point: npt.NDArray[np.float64], color: tuple[int, int, int]) -> None:
    x, y = point
    draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=color, outline="white")
