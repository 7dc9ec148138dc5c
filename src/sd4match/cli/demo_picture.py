"""Picture of the demo: pairs under the text template and under the learned prompt, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sd4match.structures.images import Photo
from sd4match.viz.matches import draw_matches

if TYPE_CHECKING:
    from sd4match.structures.pairs import PairRecord

RULE = "the first pairs of the test split, of three categories, whose two photos show every part"
"""Rule by which the pairs are chosen, independent of the results."""
_PAIRS = 3

_WIDTH, _MARGIN, _COLUMN, _HEIGHT = 800, 8, 400, 186
"""Width of the picture, margin, width of a column, and height of a photo, in pixels; 800 is the width of a page."""
_TITLE, _TEXT = 17, 15
_INK, _GRAY = (30, 30, 30), (96, 96, 96)

PointArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Matched:
    """Matches of one pair under one prompt."""

    source: Photo
    target: Photo
    points: PointArray
    """Points (N, 2) in pixels of the source."""
    predicted: PointArray
    """Matches (N, 2) in pixels of the target, like `truth`."""
    truth: PointArray
    hits: Sequence[bool]
    category: str | None


def chosen_pairs(records: Sequence[PairRecord]) -> list[PairRecord]:
    """Return the pairs that the picture shows: see `RULE`."""
    return list(_first_of_categories(records))[:_PAIRS]


def _first_of_categories(records: Sequence[PairRecord]) -> Iterator[PairRecord]:
    """Yield the first complete pair of each category; if there is none, the first pair."""
    complete = [record for record in records if record.visible.all()]
    seen: set[str | None] = set()
    for record in complete or records[:1]:
        if record.category not in seen:
            seen.add(record.category)
            yield record


def draw_columns(titles: Sequence[str], columns: Sequence[Sequence[Matched]]) -> Image.Image:
    """Draw a column of pairs for each prompt, with a legend below.

    Args:
        titles: titles of the two columns.
        columns: pairs of each column, the same pairs in the same order.
    """
    drawn = [[_drawn(pair) for pair in pairs] for pairs in columns]
    row, top, legend = max(picture.height for pictures in drawn for picture in pictures) + 30, 34, 66
    canvas = Image.new("RGB", (_WIDTH, top + row * len(columns[0]) + legend), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (title, pairs) in enumerate(zip(titles, columns, strict=True)):
        left = _MARGIN + number * _COLUMN
        draw.text((left, 8), title, fill=_INK, font=ImageFont.load_default(_TITLE))
        for line, pair in enumerate(pairs):
            y = top + line * row
            text = f"{pair.category}: {sum(pair.hits)} of {len(pair.hits)} points found"
            draw.text((left, y + 4), text, fill=_INK, font=ImageFont.load_default(_TEXT))
            canvas.paste(drawn[number][line], (left, y + 26))
    _draw_legend(canvas, canvas.height - legend + 8)
    return canvas


def _drawn(pair: Matched) -> Image.Image:
    """Draw a pair that fits into its column together with marks at the border of the photos."""
    picture = draw_matches(
        pair.source, pair.target, pair.points, pair.predicted, hits=pair.hits, truth=pair.truth, height=_HEIGHT
    )
    picture.thumbnail((_COLUMN - _MARGIN, 2 * _HEIGHT), Image.Resampling.LANCZOS)
    return picture


def _draw_legend(canvas: Image.Image, top: int) -> None:
    """Draw a legend with a hit and a miss in the style of the pairs."""
    draw, font, left = ImageDraw.Draw(canvas), ImageFont.load_default(_TEXT), _MARGIN
    middle = _HEIGHT / 2
    blank = Photo(np.full((_HEIGHT, 60, 3), 150, dtype=np.uint8), "legend")
    meanings = {True: "found: within 0.1 of the object's box", False: "missed; the cross is the true place"}
    for is_hit, label in meanings.items():
        start, end = np.array([[8.0, middle]]), np.array([[40.0 if is_hit else 8.0, middle]])
        truth = end if is_hit else np.array([[40.0, middle]])
        drawn = draw_matches(blank, blank, start, end, hits=[is_hit], truth=truth, height=_HEIGHT)
        swatch = drawn.crop((0, round(middle) - 12, drawn.width, round(middle) + 12))
        canvas.paste(swatch, (left, top))
        draw.text((left + swatch.width + 8, top + 3), label, fill=_INK, font=font)
        left += _COLUMN
    note = "mini, a small model that has seen drawings alone; its numbers are not those of Stable Diffusion"
    draw.text((_MARGIN, top + 34), note, fill=_GRAY, font=font)
