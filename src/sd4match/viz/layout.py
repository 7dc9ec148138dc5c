"""What pictures are made of: photos at a height, marks on them, captions, and rows of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sd4match.errors import InputError, shown
from sd4match.structures.images import Photo
from sd4match.viz.colors import HEAT

GAP = 12
INK = (30, 30, 30)
LARGEST_HEIGHT = 4000
_WIDEST = 8
"""Largest width of a photo in the picture, as a multiple of its height; a wider one is drawn smaller."""
_NARROWEST = 120
"""Least width of a column in pixels, so that a caption fits."""
_MOST_COLUMNS = 3
"""Pictures in a row, so that each is large enough where a page shows the row 800 pixels wide."""
_TEXTS_IN_WIDTH = 55
"""Width of a picture in heights of its text: a page that shows it 800 pixels wide shows text of 14 pixels."""

PointArray = npt.NDArray[np.float64]
Points = PointArray | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """A picture with a caption above and, for a heat map, its colors with their lowest and highest value below."""

    picture: Image.Image
    caption: str = ""
    limits: tuple[float, float] | None = None


def at_height(photo: Photo, height: int) -> Image.Image:
    """Return a photo at a height, or smaller if it would be more than eight times as wide."""
    scale = scale_at(photo, height)
    size = max(1, round(photo.size[1] * scale)), max(1, round(photo.size[0] * scale))
    return photo.to_image().resize(size, Image.Resampling.BICUBIC)


def scale_at(photo: Photo, height: int) -> float:
    """Return the pixels of the picture per pixel of the photo."""
    return min(height / photo.size[0], _WIDEST * height / photo.size[1])


def scaled(points: PointArray, photo: Photo, height: int) -> PointArray:
    """Return where points of a photo lie in its picture `at_height`."""
    return (points + 0.5) * scale_at(photo, height)


def pixel_positions(picture: Image.Image, photo: Photo) -> tuple[PointArray, PointArray]:
    """Return where the columns (width,) and rows (height,) of a picture of a photo lie in it, in its pixels."""
    x, y = (
        ((np.arange(count) + 0.5) * side / count - 0.5).clip(0, side - 1)
        for count, side in zip(picture.size, photo.size[::-1], strict=True)
    )
    return x, y


def check_drawable(name: str, points: object, photo: Photo) -> PointArray:
    """Return points (N, 2) as an array; lines that end far away would take pillow without end.

    Raises:
        InputError: they are not (N, 2) numbers, or farther from the photo than its size.
    """
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"{name} must be (N, 2) numbers, not {shown(points)}")
    size = np.array([photo.size[1], photo.size[0]])
    if not ((array >= -size) & (array <= 2 * size)).all():
        raise InputError(f"{name} must be finite and not farther from {photo.name} than its size")
    return array


def draw_ring(picture: Image.Image, point: npt.NDArray[np.float64], *, height: int) -> None:
    """Draw a ring around a point, white with a black border, so that it shows on any color."""
    draw, (x, y), radius = ImageDraw.Draw(picture), point, _radius(height)
    for reach, color, width in ((radius + 2, "black", 6), (radius, "white", 2)):
        draw.ellipse([x - reach, y - reach, x + reach, y + reach], outline=color, width=width)


def draw_cross(picture: Image.Image, point: npt.NDArray[np.float64], *, height: int) -> None:
    """Draw a cross at a point, white with a black border."""
    draw, (x, y), radius = ImageDraw.Draw(picture), point, _radius(height)
    for reach, color, width in ((radius + 1, "black", 6), (radius, "white", 2)):
        for sign in (-1, 1):
            draw.line([x - reach, y - sign * reach, x + reach, y + sign * reach], fill=color, width=width)


def _radius(height: int) -> int:
    return max(4, round(height / 40))


def text_size(width: int) -> int:
    """Return the height of text in a picture of a width, so that it can be read where a page shows it smaller.

    >>> text_size(400), text_size(1600)
    (14, 29)
    """
    return max(14, round(width / _TEXTS_IN_WIDTH))


def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of all pictures."""
    return ImageFont.load_default(size)


def fitted(text: str, width: int, size: int) -> str:
    """Return a text, shortened until it is at most `width` pixels wide.

    >>> fitted("a photo of a cat", 60, 14)
    'a phot...'
    """
    font, shortened = font_of(size), text
    while font.getlength(shortened) > width and len(text) > 1:
        text = text[:-1]
        shortened = f"{text.rstrip()}..."
    return shortened


def in_rows(panels: Sequence[Panel], *, title: str = "") -> Image.Image:
    """Draw panels side by side, in as few rows as hold them with at most three in each, and a title above.

    >>> panel = Panel(Image.new("RGB", (200, 100)))
    >>> in_rows([panel] * 3).size, in_rows([panel] * 4).size
    ((624, 100), (412, 212))
    """
    count = -(-len(panels) // _MOST_COLUMNS)
    columns = -(-len(panels) // count)
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    widths = [
        max(_NARROWEST, *(row[column].picture.width for row in rows if column < len(row))) for column in range(columns)
    ]
    width = sum(widths) + GAP * (columns - 1)
    size = text_size(width)
    line = round(size * 1.6)
    pieces = [_row(row, widths, size=size, line=line) for row in rows]
    top = line if title else 0
    height = top + sum(piece.height for piece in pieces) + GAP * (len(pieces) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    if title:
        _write(canvas, title, 0, 0, width, size=size)
    for piece in pieces:
        canvas.paste(piece, (0, top))
        top += piece.height + GAP
    return canvas


def _row(panels: Sequence[Panel], widths: Sequence[int], *, size: int, line: int) -> Image.Image:
    top = line if any(panel.caption for panel in panels) else 0
    below = line if any(panel.limits for panel in panels) else 0
    high = max(panel.picture.height for panel in panels)
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(widths) - 1), top + high + below), "white")
    left = 0
    for panel, width in zip(panels, widths, strict=False):
        _write(canvas, panel.caption, left, 0, width, size=size)
        canvas.paste(panel.picture, (left, top))
        if panel.limits is not None:
            _draw_limits(canvas, panel.limits, left, top + high, width, size=size)
        left += width + GAP
    return canvas


def _write(canvas: Image.Image, text: str, left: int, top: int, width: int, *, size: int) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.text((left + 2, top + size * 0.2), fitted(text, width - 4, size), fill=INK, font=font_of(size))


def _draw_limits(
    canvas: Image.Image, limits: tuple[float, float], left: int, top: int, width: int, *, size: int
) -> None:
    """Draw the colors of a heat map from its lowest to its highest value."""
    draw, font, y = ImageDraw.Draw(canvas), font_of(size), top + size * 0.3
    low, high = (f"{limit:.3g}" for limit in limits)
    start, end = left + 2 + font.getlength(low) + size / 2, left + width - 2 - font.getlength(high) - size / 2
    draw.text((left + 2, y), low, fill=INK, font=font)
    draw.text((end + size / 2, y), high, fill=INK, font=font)
    if end - start >= 1:
        shades = heat_colors(np.linspace(0.0, 1.0, int(end - start)))
        bar = Image.fromarray(np.broadcast_to(shades, (size, *shades.shape)).copy())
        canvas.paste(bar, (round(start), round(y)))


def heat_colors(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return the colors (..., 3) of values in [0, 1]: the higher a value, the lighter its color."""
    colors: npt.NDArray[np.uint8] = mpl.colormaps[HEAT](values, bytes=True)[..., :3]
    return colors
