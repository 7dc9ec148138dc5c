"""What pictures are made of: photos at a height, marks on them, captions, and rows of pictures."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sd4match.errors import InputError, shown
from sd4match.structures.images import Photo
from sd4match.structures.photo_cells import PhotoCells
from sd4match.viz.colors import HEAT

GAP = 12
INK = (30, 30, 30)
LARGEST_HEIGHT = 4000
_WIDEST = 8
"""Largest width of a photo in the picture, as a multiple of its height; a wider one is drawn smaller."""
_NARROWEST = 8
"""Least width of a column in heights of the text, so that a short caption and two limits fit."""
_MOST_COLUMNS = 3
"""Photos in a row, so that each is large enough where a page shows the row 800 pixels wide."""
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


def line_height(size: int) -> int:
    """Return the height of a line with text of a size."""
    return round(size * 1.6)


def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of all pictures."""
    return ImageFont.load_default(size)


def fitted(text: str, width: int, size: int) -> str:
    """Return a text on one line, shortened until it is at most `width` pixels wide.

    >>> fitted("a photo of a cat", 60, 14)
    'a phot...'
    """
    line = " ".join(text.split())
    font, most = font_of(size), max(width, 1)
    if len(line) <= most and font.getlength(line) <= width:
        return line
    lengths = range(1, min(len(line), most) + 1)
    kept = bisect.bisect_right(lengths, width, key=lambda length: math.ceil(font.getlength(f"{line[:length]}...")))
    return f"{line[: max(1, kept)].rstrip()}..."


def in_rows(
    panels: Sequence[Panel], *, title: str = "", most: int = _MOST_COLUMNS, columns: int | None = None
) -> Image.Image:
    """Draw panels side by side, and a title above.

    Args:
        panels: one or more.
        title: text above all of them.
        most: panels in a row; there are as few rows as hold them, of about the same length.
        columns: panels in every row but the last, in place of that rule.

    >>> panel = Panel(Image.new("RGB", (200, 100)))
    >>> in_rows([panel] * 3).size, in_rows([panel] * 4).size
    ((624, 100), (412, 212))
    """
    count = -(-len(panels) // most)
    columns = columns or -(-len(panels) // count)
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    widths = [max(row[column].picture.width for row in rows if column < len(row)) for column in range(columns)]
    narrowest = _NARROWEST * text_size(sum(widths))
    widths = [max(narrowest, width) for width in widths]
    width = sum(widths) + GAP * (columns - 1)
    size = text_size(width)
    line = line_height(size)
    pieces = [_row(row, widths, size=size, line=line) for row in rows]
    top = line if title else 0
    height = top + sum(piece.height for piece in pieces) + GAP * (len(pieces) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    if title:
        write(canvas, title, 0, 0, width, size=size)
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
        write(canvas, panel.caption, left, 0, width, size=size)
        canvas.paste(panel.picture, (left, top))
        if panel.limits is not None:
            _draw_limits(canvas, panel.limits, left, top + high, width, size=size)
        left += width + GAP
    return canvas


def write(canvas: Image.Image, text: str, left: int, top: int, width: int, *, size: int) -> None:
    """Write a line of text, shortened to a width."""
    draw = ImageDraw.Draw(canvas)
    draw.text((left + 2, top + size * 0.2), fitted(text, width - 4, size), fill=INK, font=font_of(size))


def _draw_limits(
    canvas: Image.Image, limits: tuple[float, float], left: int, top: int, width: int, *, size: int
) -> None:
    """Draw the colors of a heat map from its lowest to its highest value."""
    draw, font, y = ImageDraw.Draw(canvas), font_of(size), top + size * 0.3
    low, high = limit_texts(*limits)
    start, end = left + 2 + font.getlength(low) + size / 2, left + width - 2 - font.getlength(high) - size / 2
    draw.text((left + 2, y), low, fill=INK, font=font)
    draw.text((end + size / 2, y), high, fill=INK, font=font)
    if end - start >= 1:
        shades = heat_colors(np.linspace(0.0, 1.0, int(end - start)))
        bar = Image.fromarray(np.broadcast_to(shades, (size, *shades.shape)).copy())
        canvas.paste(bar, (round(start), round(y)))


def limit_texts(low: float, high: float) -> tuple[str, str]:
    """Return two limits with three digits of the larger one.

    >>> limit_texts(-0.0529, 0.8812), limit_texts(6.7e-8, 5.86e-4), limit_texts(0.0, 0.0)
    (('-0.053', '0.881'), ('0', '5.86e-04'), ('0', '0'))
    """
    largest = max(abs(low), abs(high))
    if largest and not 1e-3 <= largest < 1e4:
        first, second = (f"{limit:.2e}" if abs(limit) >= largest / 1000 else "0" for limit in (low, high))
        return first, second
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    first, second = (f"{limit:.{min(decimals, 3)}f}" for limit in (low, high))
    return ("0" if float(first) == 0 else first), ("0" if float(second) == 0 else second)


def heat_colors(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return the colors (..., 3) of values in [0, 1]: the higher a value, the lighter its color."""
    colors: npt.NDArray[np.uint8] = mpl.colormaps[HEAT](values, bytes=True)[..., :3]
    return colors


def interpolated(
    values: npt.NDArray[np.float64], cells: PhotoCells, x: PointArray, y: PointArray
) -> npt.NDArray[np.float64]:
    """Return values (h, w, ...) of cells at the columns x and rows y of a photo, bilinear between the cells."""
    left, right, across = cells.around(x, axis=0)
    top, bottom, down = cells.around(y, axis=1)
    shape = (1,) * (values.ndim - 2)
    across, down = across.reshape(-1, *shape), down.reshape(-1, 1, *shape)
    rows = values[top] * (1 - down) + values[bottom] * down
    mixed: npt.NDArray[np.float64] = rows[:, left] * (1 - across) + rows[:, right] * across
    return mixed


def gray_of(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Return a picture without its colors, (height, width, 3)."""
    return np.asarray(picture.convert("L"))[..., None].repeat(3, axis=-1)


def hatched(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a gray picture (height, width, 3) with diagonal lines, for what has no value."""
    down, across = np.indices(gray.shape[:2])
    lines = np.less((down + across) % 10, 2)
    return np.where(lines[..., None], np.uint8(255), gray // 2 + 64)
