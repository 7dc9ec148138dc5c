"""Contact sheets: pictures with captions in a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from sd4match.arguments import check_arguments
from sd4match.checks import check_count
from sd4match.errors import InputError

_MOST_PICTURES, _MOST_COLUMNS, _LARGEST_CELL = 1000, 20, 4000
_README_WIDTH, _TEXT, _TITLE = 800, 15, 18
"""Width of a README, and sizes of fonts in pixels if the sheet is shown at that width."""
_LINES = 3
_INK = (30, 30, 30)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@check_arguments
def draw_contact_sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int = 2,
    cell_width: int = 800,
    title: str = "",
) -> Image.Image:
    """Draw pictures in a grid, row by row, each above its caption.

    A picture fills the width of its cell, up to two thirds of that in height. Captions have at most three lines,
    legible where the sheet is 800 pixels wide.

    Args:
        pictures: pictures of any sizes, 1 to 1000.
        captions: caption of each picture.
        columns: columns of the grid, from 1 to 20.
        cell_width: width of a column in pixels, from 40 to 4000.
        title: text above the grid.

    Raises:
        InputError: there is no picture, or not one caption for each.

    >>> picture = Image.new("RGB", (80, 40))
    >>> draw_contact_sheet([picture] * 3, ["a", "b", "c"], cell_width=100).size
    (206, 124)
    """
    check_count("the number of pictures", len(pictures), 1, _MOST_PICTURES)
    check_count("columns", columns, 1, _MOST_COLUMNS)
    check_count("cell_width", cell_width, 40, _LARGEST_CELL)
    if len(captions) != len(pictures):
        raise InputError(f"expected one caption for each of {len(pictures)} pictures, got {len(captions)}")
    columns = min(columns, len(pictures))
    scale = columns * cell_width / _README_WIDTH
    gap = max(1, round(16 * scale / 2))
    font, title_font = (ImageFont.load_default(max(8.0, size * scale)) for size in (_TEXT, _TITLE))
    width = columns * (cell_width + gap) + gap
    shown = [_fitted(picture, cell_width) for picture in pictures]
    texts = [_wrapped(caption, font, cell_width) for caption in captions]
    heading = _wrapped(title, title_font, width - 2 * gap) if title.strip() else ""
    top = gap + (_height(heading, title_font) + gap if heading else 0)
    below = [picture.height + gap // 2 + _height(text, font) for picture, text in zip(shown, texts, strict=True)]
    heights = [max(below[first : first + columns]) for first in range(0, len(below), columns)]
    canvas = Image.new("RGB", (width, top + sum(heights) + gap * len(heights)), "white")
    draw = ImageDraw.Draw(canvas)
    if heading:
        draw.multiline_text((gap, gap), heading, fill=_INK, font=title_font)
    for index, (picture, text) in enumerate(zip(shown, texts, strict=True)):
        row, column = divmod(index, columns)
        x, y = gap + column * (cell_width + gap), top + sum(heights[:row]) + row * gap
        canvas.paste(picture, (x, y))
        draw.multiline_text((x, y + picture.height + gap // 2), text, fill=_INK, font=font)
    return canvas


def _fitted(picture: Image.Image, width: int) -> Image.Image:
    scale = min(width / picture.width, 2 / 3 * width / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _wrapped(text: str, font: _Font, width: float) -> str:
    """Return a text in at most three lines of a width in pixels; the rest is cut."""
    visible = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    lines: list[str] = []
    while visible and len(lines) < _LINES:
        end = _fitting(visible, font, width)
        if end < len(visible) and len(lines) == _LINES - 1:
            lines.append(f"{visible[: max(1, end - 3)].rstrip()}...")
            break
        space = visible.rfind(" ", 1, end + 1)
        end = space if space > 0 and end < len(visible) else end
        lines.append(visible[:end].rstrip())
        visible = visible[end:].lstrip()
    return "\n".join(lines)


def _fitting(text: str, font: _Font, width: float) -> int:
    """Return the number of first letters of a text that fit into a width; at least one."""
    low, high = 1, min(len(text), math.ceil(width))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return low


def _height(text: str, font: _Font) -> int:
    if not text:
        return 0
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return math.ceil(box[3])
