"""Pictures of photos with numbered marks, and the conversion of a click to a point of the photo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

from sd4match.structures.images import Photo
from sd4match.viz.colors import CYCLE, RGB

LONGEST_SHOWN = 1024
"""Longer side of a shown photo in its own pixels: more than the page has room for, so that it never shows one enlarged,
and clicks are as fine as the screen."""
_RADIUS = 20
_FONT = 38

Point = tuple[float, float]


def shown_size(photo: Photo) -> tuple[int, int]:
    """Return (width, height) of a photo as it is shown: its longer side has `LONGEST_SHOWN` pixels.

    >>> import numpy as np
    >>> shown_size(Photo(np.zeros((60, 90, 3), dtype=np.uint8)))
    (1024, 683)
    """
    height, width = photo.size
    scale = LONGEST_SHOWN / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def point_of_click(photo: Photo, click: Sequence[float]) -> Point:
    """Return the point of the photo, in its original pixels, that a click on the shown photo means.

    Args:
        photo: as it was read.
        click: (x, y) from the left upper corner of the shown photo, in its pixels.

    Returns:
        (x, y) inside the photo; the center of the left upper pixel is (0, 0).

    >>> import numpy as np
    >>> point_of_click(Photo(np.zeros((60, 90, 3), dtype=np.uint8)), (512, 0))
    (44.5, 0.0)
    """
    x, y = (
        min(max(position * side / shown - 0.5, 0.0), side - 1.0)
        for position, shown, side in zip(click, shown_size(photo), photo.size[::-1], strict=True)
    )
    return x, y


def draw_marks(photo: Photo, points: Iterable[tuple[int, Point]]) -> Image.Image:
    """Draw the photo as it is shown, with a numbered mark on each point.

    Args:
        photo: as it was read.
        points: (number, (x, y)), the numbers from 1, in original pixels of the photo. Equal numbers have equal colors.

    >>> import numpy as np
    >>> draw_marks(Photo(np.zeros((60, 90, 3), dtype=np.uint8)), [(1, (40.0, 20.0))]).size
    (1024, 683)
    """
    size = shown_size(photo)
    picture = photo.to_image().resize(size, Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT)
    for number, point in points:
        x, y = (
            (position + 0.5) * shown / side for position, shown, side in zip(point, size, photo.size[::-1], strict=True)
        )
        _draw_mark(draw, (x, y), str(number), color_of(number), font, size)
    return picture


def color_of(number: int) -> RGB:
    """Return the color of the mark of a number.

    >>> color_of(1) == color_of(1 + len(CYCLE))
    True
    """
    return CYCLE[(number - 1) % len(CYCLE)]


def ink_on(color: RGB) -> str:
    """Return black or white, whichever can be read better on a color.

    >>> ink_on((0, 114, 178)), ink_on((230, 159, 0))
    ('white', 'black')
    """
    red, green, blue = color
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 140 else "white"


def _draw_mark(
    draw: ImageDraw.ImageDraw,
    center: Point,
    text: str,
    color: RGB,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Draw a ring with a dot in its center, and its number beside it, on the side where there is room."""
    x, y = center
    for radius, line, ink in ((_RADIUS + 3, 13, "white"), (_RADIUS, 7, color)):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=ink, width=line)
    draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=color, outline="white")
    width, height = draw.textlength(text, font=font) + 12, _FONT + 6
    left = x + _RADIUS + 4 if x + _RADIUS + 4 + width <= size[0] else x - _RADIUS - 4 - width
    top = min(max(y - _RADIUS - height / 2, 0), size[1] - height)
    draw.rounded_rectangle([left, top, left + width, top + height], radius=6, fill=color, outline="white", width=2)
    draw.text((left + width / 2, top + height / 2), text, fill=ink_on(color), font=font, anchor="mm")
