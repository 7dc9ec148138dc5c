"""Photos with the marks of an annotation, as large as a screen needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box
from sd4match.viz.colors import BLUE, CYCLE, ORANGE, RGB

LONGEST_SIDE = 1024
_SMALLEST_SIDE = 480
"""A smaller photo is enlarged to this, so that marks do not cover it."""
_INK: RGB = (0, 0, 0)
_PAPER: RGB = (255, 255, 255)


@dataclass(frozen=True)
class Mark:
    """A point to draw.

    A circle with its number; with a square around it if it is selected; a dashed ring with a question mark if it is a
    guess, so that the form alone says what it is.
    """

    point: tuple[float, float]
    number: int
    is_selected: bool = False
    is_guess: bool = False


def scale_of(photo: Photo) -> float:
    """Return the pixels of the picture per pixel of the photo."""
    longest = max(photo.size)
    return min(max(1.0, _SMALLEST_SIDE / longest), LONGEST_SIDE / longest)


def to_photo(photo: Photo, pixel: Sequence[float]) -> tuple[float, float]:
    """Return where in the photo the center of a pixel of its picture lies.

    >>> import numpy as np
    >>> large = Photo(np.zeros((1000, 2048, 3), dtype=np.uint8))
    >>> to_photo(large, (512, 0))
    (1024.5, 0.5)
    """
    scale = scale_of(photo)
    x, y = ((float(value) + 0.5) / scale - 0.5 for value in pixel)
    return x, y


def draw_annotation(
    photo: Photo,
    marks: Sequence[Mark],
    *,
    box: Box | None = None,
    corner: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw the points of a photo, its box, and the first corner of a box to be."""
    scale = scale_of(photo)
    height, width = (max(1, round(side * scale)) for side in photo.size)
    picture = photo.to_image()
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    radius = max(width, height) / 55

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = ((value + 0.5) * scale for value in point)
        return x, y

    if box is not None:
        corners = [*place((box[0], box[1])), *place((box[2], box[3]))]
        draw.rectangle(corners, outline=_PAPER, width=5)
        draw.rectangle(corners, outline=BLUE, width=3)
    if corner is not None:
        _cross(draw, place(corner), 2 * radius)
    for mark in sorted(marks, key=lambda mark: (mark.is_guess, mark.is_selected)):
        _draw_mark(draw, place(mark.point), mark, radius, picture.size)
    return picture


def _draw_mark(
    draw: ImageDraw.ImageDraw, center: tuple[float, float], mark: Mark, radius: float, size: tuple[int, int]
) -> None:
    x, y = center
    color = ORANGE if mark.is_guess else CYCLE[(mark.number - 1) % len(CYCLE)]
    around = [x - radius, y - radius, x + radius, y + radius]
    if mark.is_guess:
        around = [x - 1.5 * radius, y - 1.5 * radius, x + 1.5 * radius, y + 1.5 * radius]
        _ring(draw, around, _INK, width=5)
        for start in range(0, 360, 60):
            draw.arc(tuple(around), start, start + 36, fill=_PAPER, width=5)
    else:
        _ring(draw, around, _PAPER, width=5)
        _ring(draw, around, color, width=3)
    draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], fill=color, outline=_PAPER)
    if mark.is_selected and not mark.is_guess:
        reach = radius * 1.6
        square = [x - reach, y - reach, x + reach, y + reach]
        draw.rectangle(square, outline=_INK, width=4)
        draw.rectangle([square[0] + 1, square[1] + 1, square[2] - 1, square[3] - 1], outline=_PAPER, width=2)
    _label(draw, (x, y), f"{mark.number}?" if mark.is_guess else str(mark.number), radius, size)


def _label(
    draw: ImageDraw.ImageDraw, center: tuple[float, float], text: str, radius: float, size: tuple[int, int]
) -> None:
    """Write a number beside a mark, on the side that lies in the picture."""
    font = ImageFont.load_default(round(1.9 * radius))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = center[0] + 1.8 * radius
    if x + width > size[0]:
        x = center[0] - 1.8 * radius - width
    y = min(max(center[1] - height / 2, 0), size[1] - height)
    draw.rectangle([x, y, x + width, y + height], fill=_PAPER, outline=_INK)
    draw.text((x + 3 - left, y + 3 - top), text, fill=_INK, font=font)


def _ring(draw: ImageDraw.ImageDraw, around: Sequence[float], color: RGB, *, width: int) -> None:
    draw.ellipse(tuple(around), outline=color, width=width)


def _cross(draw: ImageDraw.ImageDraw, center: tuple[float, float], reach: float) -> None:
    x, y = center
    for color, width in ((_PAPER, 5), (BLUE, 3)):
        draw.line([x - reach, y, x + reach, y], fill=color, width=width)
        draw.line([x, y - reach, x, y + reach], fill=color, width=width)
