"""Pictures of photos with the marks of an annotation, in a size that suits the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sd4match.app.marks import color_of
from sd4match.geometry import Size
from sd4match.structures.images import Photo
from sd4match.structures.pairs import Box
from sd4match.viz.colors import BLUE, ORANGE, RGB

LONGEST_SIDE = 1024
_SMALLEST_SIDE = 480
"""Size in pixels to which smaller photos are enlarged, so that marks do not cover them."""
_MARK, _NUMBER = 8, 15
"""Radius of a mark and height of its number, in CSS pixels of the page."""
_REACH, _REACH_OF_A_FINGER = 12, 20
"""Distance of a click from a mark that selects it, in CSS pixels."""
_INK: RGB = (0, 0, 0)
_PAPER: RGB = (255, 255, 255)

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of a picture."""


@dataclass(frozen=True)
class Mark:
    """Point to draw.

    A point is a circle with its number, with a square around it if it is selected. A guess is a dashed ring with a
    question mark. The kinds of marks thus differ by their shape and not only by their color.
    """

    point: tuple[float, float]
    number: int
    is_selected: bool = False
    is_guess: bool = False


@dataclass(frozen=True)
class Room:
    """Space that a page has for a photo, which decides the size of marks.

    Args:
        width: largest width of a picture in CSS pixels.
        height: largest height in CSS pixels.
        is_touched: whether the user has a touch screen, which needs larger marks.
    """

    width: float = 580
    height: float = 540
    is_touched: bool = False

    @classmethod
    def read(cls, text: str | None) -> Room:
        """Return the space that a page reports as "[width, height, is touched]"; the default if that is not valid.

        >>> Room.read("[358, 250, true]")
        Room(width=358.0, height=250.0, is_touched=True)
        >>> Room.read("nothing"), Room.read("[0, NaN, false]")
        (Room(width=580, height=540, is_touched=False), Room(width=580, height=540, is_touched=False))
        """
        try:
            width, height, is_touched = json.loads(text or "")
            width, height = float(width), float(height)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return cls()
        is_sensible = 50 <= width <= 5000 and 50 <= height <= 5000
        return cls(width, height, bool(is_touched)) if is_sensible else cls()

    def shrinkage(self, size: Size) -> float:
        """Return the pixels of a picture (H, W) per CSS pixel of the page."""
        return max(size[0] / self.height, size[1] / self.width, 1.0)

    def reach(self, size: Size) -> float:
        """Return the largest distance of a click that selects a mark, in pixels of a photo of size (H, W)."""
        scale = _scale(size)
        shown = round(size[0] * scale), round(size[1] * scale)
        return (_REACH_OF_A_FINGER if self.is_touched else _REACH) * self.shrinkage(shown) / scale


def scale_of(photo: Photo) -> float:
    """Return the pixels of the picture per pixel of the photo."""
    return _scale(photo.size)


def _scale(size: Size) -> float:
    longest = max(size)
    return min(max(1.0, _SMALLEST_SIDE / longest), LONGEST_SIDE / longest)


def to_photo(photo: Photo, pixel: Sequence[float]) -> tuple[float, float]:
    """Return the point of the photo at the center of a pixel of its picture.

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
    room: Room | None = None,
) -> Image.Image:
    """Draw the points of a photo, its box, and the first corner of a new box, in sizes that suit the page."""
    scale = scale_of(photo)
    height, width = (max(1, round(side * scale)) for side in photo.size)
    picture = photo.to_image()
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    unit = (room or Room()).shrinkage((height, width))

    def drawn(point: tuple[float, float]) -> tuple[float, float]:
        x, y = ((value + 0.5) * scale for value in point)
        return x, y

    if box is not None:
        corners = [*drawn((box[0], box[1])), *drawn((box[2], box[3]))]
        draw.rectangle(corners, outline=_PAPER, width=round(3 * unit))
        draw.rectangle(corners, outline=BLUE, width=round(1.8 * unit))
    if corner is not None:
        _cross(draw, drawn(corner), unit)
    in_order = sorted(marks, key=lambda mark: (mark.is_guess, mark.is_selected))
    for mark in in_order:
        _draw_mark(draw, drawn(mark.point), mark, unit)
    occupied = [_square(drawn(mark.point), _MARK * unit) for mark in marks]
    for mark in in_order:
        text = f"{mark.number}?" if mark.is_guess else str(mark.number)
        occupied.append(_label(draw, drawn(mark.point), text, unit, picture.size, occupied))
    return picture


def _draw_mark(draw: ImageDraw.ImageDraw, center: tuple[float, float], mark: Mark, unit: float) -> None:
    wide, narrow, radius = round(3 * unit), round(1.8 * unit), _MARK * unit
    color = ORANGE if mark.is_guess else color_of(mark.number)
    if mark.is_guess:
        around = _square(center, 1.5 * radius)
        draw.ellipse(around, outline=_INK, width=wide)
        for start in range(0, 360, 60):
            draw.arc(around, start, start + 36, fill=_PAPER, width=wide)
    else:
        draw.ellipse(_square(center, radius), outline=_PAPER, width=wide)
        draw.ellipse(_square(center, radius), outline=color, width=narrow)
    draw.ellipse(_square(center, 1.5 * unit), fill=color, outline=_PAPER)
    if mark.is_selected and not mark.is_guess:
        draw.rectangle(_square(center, 1.6 * radius), outline=_INK, width=wide)
        draw.rectangle(_square(center, 1.6 * radius - 0.7 * unit), outline=_PAPER, width=narrow)


def _label(
    draw: ImageDraw.ImageDraw,
    center: tuple[float, float],
    text: str,
    unit: float,
    size: tuple[int, int],
    occupied: Sequence[Rectangle],
) -> Rectangle:
    """Write a number beside a mark, where it covers the least of the others, and return where it stands."""
    font = ImageFont.load_default(round(_NUMBER * unit))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    edge, away = round(2 * unit), 1.8 * _MARK * unit
    width, height = right - left + 2 * edge, bottom - top + 2 * edge
    corners = [
        (center[0] + away, center[1] - height / 2), (center[0] - away - width, center[1] - height / 2),
        (center[0] - width / 2, center[1] + away), (center[0] - width / 2, center[1] - away - height),
    ]  # fmt: skip

    def cost(corner: tuple[float, float]) -> float:
        x, y = corner
        around = x, y, x + width, y + height
        inside = _overlap(around, (0, 0, *size))
        return width * height - inside + sum(_overlap(around, other) for other in occupied)

    x, y = min(corners, key=cost)  # the first of equal ones: on the right
    x, y = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
    draw.rectangle([x, y, x + width, y + height], fill=_PAPER, outline=_INK)
    draw.text((x + edge - left, y + edge - top), text, fill=_INK, font=font)
    return x, y, x + width, y + height


def _overlap(first: Rectangle, other: Rectangle) -> float:
    """Return the area that two rectangles share, in pixels."""
    width = min(first[2], other[2]) - max(first[0], other[0])
    height = min(first[3], other[3]) - max(first[1], other[1])
    return max(width, 0) * max(height, 0)


def _square(center: tuple[float, float], reach: float) -> Rectangle:
    x, y = center
    return x - reach, y - reach, x + reach, y + reach


def _cross(draw: ImageDraw.ImageDraw, center: tuple[float, float], unit: float) -> None:
    left, top, right, bottom = _square(center, 2 * _MARK * unit)
    for color, width in ((_PAPER, 3), (BLUE, 1.8)):
        draw.line([left, center[1], right, center[1]], fill=color, width=round(width * unit))
        draw.line([center[0], top, center[0], bottom], fill=color, width=round(width * unit))
