"""Components of pictures: photos at a height, marks, captions, and rows of pictures."""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sd4match.errors import InputError, shown
from sd4match.structures.images import Photo
from sd4match.structures.photo_cells import PhotoCells
from sd4match.viz.colors import HEAT

GAP = 12
INK = (30, 30, 30)
LARGEST_HEIGHT = 4000
_WIDEST = 2.4
"""Largest width of a photo in the picture, as a multiple of its height; a wider one is drawn smaller."""
_MOST_COLUMNS = 3
"""Largest number of photos in a row, so that each is large enough on a page 800 pixels wide."""
_LEAST_FILLED = 0.6
"""Smallest share of a picture that photos fill; otherwise a row has fewer photos."""
_FLATTEST = 14
"""Largest width of a row as a multiple of its height, so that photos are 57 pixels high on a page 800 pixels wide."""
_TEXTS_IN_WIDTH = 55
"""Width of a picture in heights of its text: on a page 800 pixels wide, text is 14 pixels high."""
_WIDEST_TEXT, _WIDEST_TEXTS = 14, 46
"""Widths of the captions of one column and of all columns, in heights of the text, that narrow photos make room for."""
_WIDEST_TITLE = 400
"""Largest width in pixels that a narrow picture gets for its title."""
_BORDER = 4
"""Pixels of the border of a mark beyond its radius."""

PointArray = npt.NDArray[np.float64]
Points = PointArray | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Mark:
    """Ring or cross, with its center (2,) in pixels of a picture."""

    center: PointArray
    is_cross: bool = False


@dataclass(frozen=True)
class Panel:
    """Picture with a caption above and, for a heat map, its colors with their limits below."""

    picture: Image.Image
    caption: str = ""
    limits: tuple[float, float] | None = None
    marks: tuple[Mark, ...] = ()


def at_height(photo: Photo, height: int) -> Image.Image:
    """Return a photo at a height; smaller if it would be more than 2.4 times as wide."""
    scale = scale_at(photo, height)
    size = max(1, round(photo.size[1] * scale)), max(1, round(photo.size[0] * scale))
    return photo.to_image().resize(size, Image.Resampling.BICUBIC)


def scale_at(photo: Photo, height: int) -> float:
    """Return the pixels of the picture per pixel of the photo."""
    return min(height / photo.size[0], _WIDEST * height / photo.size[1])


def scaled(points: PointArray, photo: Photo, height: int) -> PointArray:
    """Return points of a photo in pixels of its picture `at_height`."""
    return (points + 0.5) * scale_at(photo, height)


def pixel_positions(picture: Image.Image, photo: Photo) -> tuple[PointArray, PointArray]:
    """Return the columns (width,) and rows (height,) of a picture of a photo, in pixels of the photo."""
    x, y = (
        ((np.arange(count) + 0.5) * side / count - 0.5).clip(0, side - 1)
        for count, side in zip(picture.size, photo.size[::-1], strict=True)
    )
    return x, y


def check_drawable(name: str, points: object, photo: Photo) -> PointArray:
    """Return points (N, 2) as an array; lines to far points would take pillow very long.

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


def draw_ring(picture: Image.Image, center: PointArray, *, radius: int) -> None:
    """Draw a ring around a point, white with a black border, so that it shows on any color."""
    draw, (x, y) = ImageDraw.Draw(picture), center
    for reach, color, width in ((radius + 2, "black", 6), (radius, "white", 2)):
        draw.ellipse([x - reach, y - reach, x + reach, y + reach], outline=color, width=width)


def draw_cross(picture: Image.Image, center: PointArray, *, radius: int) -> None:
    """Draw a cross at a point, white with a black border."""
    draw, (x, y) = ImageDraw.Draw(picture), center
    for reach, color, width in ((radius + 1, "black", 6), (radius, "white", 2)):
        for sign in (-1, 1):
            draw.line([x - reach, y - sign * reach, x + reach, y + sign * reach], fill=color, width=width)


def margin_for(centers: PointArray, size: tuple[int, int], *, radius: int) -> int:
    """Return the width of a margin around a picture, so that marks on its border are whole.

    Args:
        centers: (N, 2), in pixels of the picture; marks of points farther outside are cut.
        size: (width, height) of the picture.
        radius: radius of the marks.

    >>> margin_for(np.array([[50.0, 50.0]]), (100, 80), radius=7), margin_for(np.zeros((1, 2)), (100, 80), radius=7)
    (0, 11)
    """
    reach = radius + _BORDER
    outside = np.concatenate([reach - centers, centers + reach - np.array(size)])
    return math.ceil(min(float(outside.max(initial=0.0)), reach))


def _radius(text: int) -> int:
    """Return the radius of a mark, proportional to the height of the text."""
    return text // 2


def _margin(panels: Sequence[Panel], *, text: int) -> int:
    """Return the margin that the marks of all panels need."""
    return max(
        margin_for(np.stack([mark.center for mark in panel.marks]), panel.picture.size, radius=_radius(text))
        if panel.marks else 0
        for panel in panels
    )  # fmt: skip


def marked(panel: Panel, *, text: int | None = None, margin: int | None = None) -> Image.Image:
    """Return the picture of a panel with its marks, in a margin if marks on its border need one.

    Args:
        panel: whose caption and limits are left out.
        text: height of the text beside it; that of a picture of its width, if not given.
        margin: on each side; as wide as its own marks need, if not given.
    """
    text = text_size(panel.picture.width) if text is None else text
    margin = _margin([panel], text=text) if margin is None else margin
    picture = ImageOps.expand(panel.picture, margin, "white")
    for mark in panel.marks:
        draw = draw_cross if mark.is_cross else draw_ring
        draw(picture, mark.center + margin, radius=_radius(text))
    return picture


def text_size(width: int) -> int:
    """Return the height of text in a picture of a width, so that it can be read where a page shows it smaller.

    >>> text_size(400), text_size(1600)
    (14, 29)
    """
    return max(14, round(width / _TEXTS_IN_WIDTH))


def line_height(size: int) -> int:
    """Return the height of a line with text of a size."""
    return round(size * 1.6)


@functools.lru_cache(maxsize=64)
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
    letters = bisect.bisect_right(lengths, width, key=lambda length: math.ceil(font.getlength(f"{line[:length]}...")))
    return f"{line[: max(1, letters)].rstrip()}..."


def columns_for(sizes: Sequence[tuple[int, int]], *, most: int = _MOST_COLUMNS) -> int:
    """Return how many pictures to draw side by side: as many as fill few rows of about the same length.

    There are fewer if most of the picture would be white, as a very wide photo beside others makes it, or if the
    pictures would be too flat to be seen on a page.

    Args:
        sizes: (width, height) of each picture.
        most: pictures in a row.

    >>> columns_for([(200, 100)] * 3), columns_for([(200, 100)] * 4), columns_for([(768, 5), (320, 240)])
    (3, 2, 1)
    """
    common = -(-len(sizes) // -(-len(sizes) // most))
    shares = {columns: _legible_share(sizes, columns) for columns in range(common, 0, -1)}
    return common if shares[common] >= _LEAST_FILLED else max(shares, key=lambda columns: shares[columns])


def _legible_share(sizes: Sequence[tuple[int, int]], columns: int) -> float:
    """Return the share of the picture that is filled, less where its rows are flat."""
    rows = [sizes[first : first + columns] for first in range(0, len(sizes), columns)]
    heights = [max(height for _, height in row) for row in rows]
    width = sum(max(width for width, _ in sizes[column::columns]) for column in range(columns))
    filled = sum(width * height for width, height in sizes) / (width * sum(heights))
    return filled * min(1.0, _FLATTEST * max(heights) / width)


def in_rows(
    panels: Sequence[Panel], *, title: str = "", most: int = _MOST_COLUMNS, columns: int | None = None
) -> Image.Image:
    """Draw panels side by side, and a title above.

    Args:
        panels: one panel or more.
        title: text above all of them.
        most: panels in a row; `columns_for` tells how many there are.
        columns: panels in every row but the last, in place of that rule.

    >>> panel = Panel(Image.new("RGB", (200, 100)))
    >>> in_rows([panel] * 3).size, in_rows([panel] * 4).size
    ((624, 100), (412, 212))
    """
    columns = columns or columns_for([panel.picture.size for panel in panels], most=most)
    limits = limit_texts([panel.limits for panel in panels])
    widths, size, margin = _measured(panels, limits, columns, title)
    line = line_height(size)
    rows = [
        _row(panels[first : first + columns], limits[first : first + columns], widths, size=size, margin=margin)
        for first in range(0, len(panels), columns)
    ]
    width = max(rows[0].width, titled_width(title))
    top = line if title else 0
    height = top + sum(row.height for row in rows) + GAP * (len(rows) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    if title:
        write(canvas, title, 0, 0, width, size=size)
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height + GAP
    return canvas


def titled_width(title: str) -> int:
    """Return the width that a narrow picture has for its title, so that it can be read.

    >>> titled_width(""), titled_width("long " * 100)
    (0, 400)
    """
    return min(math.ceil(_length(title) * text_size(0)) + 5, _WIDEST_TITLE) if title else 0


def _measured(
    panels: Sequence[Panel], limits: Sequence[tuple[str, str] | None], columns: int, title: str
) -> tuple[list[int], int, int]:
    """Return the widths of the columns, the height of the text and the margin around each picture.

    Text grows with the width of the whole picture, and columns of narrow photos with their text: so both are found
    together. The texts of all columns need less than the whole width, so that this ends.
    """
    most = min(_WIDEST_TEXT, _WIDEST_TEXTS / columns)
    texts = [
        min(most, max(_length(panel.caption) + 0.5 if panel.caption else 0.0, _limits_length(pair)))
        for panel, pair in zip(panels, limits, strict=True)
    ]
    size = text_size(titled_width(title))
    while True:
        margin = _margin(panels, text=size)
        widths = [
            max(
                max(panel.picture.width, math.ceil(text * size)) + 2 * margin
                for panel, text in list(zip(panels, texts, strict=True))[column::columns]
            )
            for column in range(columns)
        ]
        needed = text_size(sum(widths) + GAP * (columns - 1))
        if needed <= size:
            return widths, size, margin
        size = needed


def _length(text: str) -> float:
    """Return the length of the beginning of a text, in heights of the text."""
    return font_of(100).getlength(" ".join(text[:200].split())) / 100


def _limits_length(limits: tuple[str, str] | None) -> float:
    """Return the length of two limits with colors between them, in heights of the text."""
    return sum(_length(limit) for limit in limits) + 3 if limits else 0.0


def _row(
    panels: Sequence[Panel],
    limits: Sequence[tuple[str, str] | None],
    widths: Sequence[int],
    *,
    size: int,
    margin: int,
) -> Image.Image:
    line = line_height(size)
    top = line if any(panel.caption for panel in panels) else 0
    below = line if any(limits) else 0
    pictures = [marked(panel, text=size, margin=margin) for panel in panels]
    high = max(picture.height for picture in pictures)
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(widths) - 1), top + high + below), "white")
    left = 0
    for panel, picture, texts, width in zip(panels, pictures, limits, widths, strict=False):
        write(canvas, panel.caption, left + margin, 0, width - margin, size=size)
        canvas.paste(picture, (left, top))
        if texts is not None:
            needed = max(panel.picture.width, math.ceil(_limits_length(texts) * size))
            _draw_limits(canvas, texts, left + margin, top + high, min(needed, width - 2 * margin), size=size)
        left += width + GAP
    return canvas


def write(canvas: Image.Image, text: str, left: int, top: int, width: int, *, size: int) -> None:
    """Write a line of text, shortened to a width."""
    draw = ImageDraw.Draw(canvas)
    draw.text((left + 2, top + size * 0.2), fitted(text, width - 4, size), fill=INK, font=font_of(size))


def _draw_limits(canvas: Image.Image, limits: tuple[str, str], left: int, top: int, width: int, *, size: int) -> None:
    """Draw the colors of a heat map from its lowest to its highest value."""
    draw, font, y = ImageDraw.Draw(canvas), font_of(size), top + size * 0.3
    low, high = limits
    start, end = left + 2 + font.getlength(low) + size / 2, left + width - 2 - font.getlength(high) - size / 2
    draw.text((left + 2, y), low, fill=INK, font=font)
    draw.text((end + size / 2, y), high, fill=INK, font=font)
    if end - start >= 1:
        shades = heat_colors(np.linspace(0.0, 1.0, int(end - start)))
        bar = Image.fromarray(np.broadcast_to(shades, (size, *shades.shape)).copy())
        canvas.paste(bar, (round(start), round(y)))


def limit_texts(limits: Sequence[tuple[float, float] | None]) -> list[tuple[str, str] | None]:
    """Return the limits of several maps in one notation, for comparison.

    Args:
        limits: lowest and highest value of each map, None for a picture that has none.

    >>> limit_texts([(-0.0529, 0.8812), None, (0.0, 0.21)])
    [('-0.053', '0.881'), None, ('0.000', '0.210')]
    >>> limit_texts([(6.7e-8, 5.86e-4), (0.0, 0.21)])
    [('6.70e-8', '5.86e-4'), ('0', '2.10e-1')]
    """
    largest = [max(map(abs, pair)) for pair in limits if pair is not None]
    if any(value and not 1e-2 <= value < 1e4 for value in largest):
        return [None if pair is None else (_short(pair[0]), _short(pair[1])) for pair in limits]
    decimals = min(max(2 - math.floor(math.log10(min(filter(None, largest), default=1.0))), 0), 3)
    return [None if pair is None else (f"{pair[0]:z.{decimals}f}", f"{pair[1]:z.{decimals}f}") for pair in limits]


def _short(value: float) -> str:
    """Return a number with three digits and an exponent.

    >>> _short(-12345.0), _short(1e-11), _short(0.0)
    ('-1.23e4', '1.00e-11', '0')
    """
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits}e{int(exponent)}" if value else "0"


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
    """Return a gray picture (height, width, 3) with diagonal lines, for pixels without a value."""
    down, across = np.indices(gray.shape[:2])
    lines = np.less((down + across) % 10, 2)
    return np.where(lines[..., None], np.uint8(255), gray // 2 + 64)
