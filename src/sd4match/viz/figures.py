"""Common form of all plots: size, fonts, and conversion of figures to pictures."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.errors import InputError
from sd4match.viz.colors import CYCLE, hex_color

WIDTH = 8.0
"""Width of a plot in inches; 800 pixels at scale 1."""
_NARROW, _NARROW_LEGEND = 4.8, 26
"""Width of a plot for phones in inches, and the characters of a legend that fit in one line of it."""
TEXT, SMALL_TEXT, TITLE = 12, 11, 13
"""Sizes of fonts in points; 12 points are 17 pixels at scale 1."""
INK, GRAY, GRID_LINE = "#1e1e1e", "#5f5f5f", "#d9d9d9"
_DOTS_PER_INCH = 100
_LARGEST_SIDE = 2**15
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
LABEL_WIDTH = 22
"""Characters of a line of a label."""


def new_axes(height: float, title: str) -> tuple[Figure, Any]:
    """Return a figure of the common width with one plot in it, and that plot.

    Args:
        height: height of the figure in inches.
        title: text above the plot.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    style_axes(axes)
    set_title(figure, title)
    return figure, axes


def set_title(figure: Figure, title: str, *, width: int = 80) -> None:
    """Write a title above a figure, wrapped to a number of characters."""
    if title.strip():
        text = label(title, width=width, lines=3)
        figure.suptitle(text, fontsize=TITLE, color=INK, x=0.01, ha="left", parse_math=False)


def style_axes(axes: Any) -> None:
    """Give axes the common fonts and lines."""
    axes.tick_params(labelsize=SMALL_TEXT, colors=INK, length=3)
    axes.grid(color=GRID_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRAY)


def style(number: int) -> dict[str, Any]:
    """Return color, marker and dashes of a row; no two of the first 280 rows agree in all three.

    >>> style(0)["color"], style(0)["marker"], style(1)["marker"]
    ('#0072b2', 'o', 's')
    """
    color = hex_color(CYCLE[number % len(CYCLE)])
    dashes = _DASHES[number % len(_DASHES)]
    return {"color": color, "marker": _MARKERS[number % len(_MARKERS)], "linestyle": dashes}


def label(text: str, *, width: int = LABEL_WIDTH, lines: int = 2) -> str:
    r"""Return a name for a plot: without control characters, wrapped, and cut where it is too long.

    >>> label("a name\nthat goes over more than one line", width=16)
    'a name that goes\nover more...'
    """
    visible = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    return "\n".join(textwrap.wrap(visible, width, max_lines=lines, placeholder="..."))


def make_narrow(figure: Figure) -> None:
    """Set a plot to the width of a phone; texts keep their size, and title and legend take more lines.

    Args:
        figure: of `sd4match.viz.plots`.
    """
    figure.set_size_inches(_NARROW, figure.get_size_inches()[1])
    set_title(figure, figure.get_suptitle(), width=44)
    for legend in list(figure.legends):
        names = [text.get_text() for text in legend.get_texts()]
        handles = legend.legend_handles
        legend.remove()
        columns = 3 if sum(map(len, names[:3])) <= _NARROW_LEGEND else 1
        write_legend(figure, handles, names, columns=columns)


def write_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], *, columns: int) -> None:
    """Draw the legend of marks below the plot.

    Args:
        figure: to write on.
        handles: marks.
        names: names of the marks.
        columns: at most that many beside one another.
    """
    legend = figure.legend(
        handles, names, loc="outside lower center", ncols=min(columns, len(names)), fontsize=SMALL_TEXT, frameon=False,
        labelcolor=INK,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


@check_arguments
def figure_to_image(figure: Figure, *, scale: float = 2.0) -> Image.Image:
    """Render a figure of matplotlib as a picture.

    Args:
        figure: for example of `plot_bars`.
        scale: 1 makes plots 800 pixels wide, as a README shows them; 2 is for print; from 0.25 to 10.

    Raises:
        InputError: the picture would have a side of more than 32768 pixels.

    >>> figure_to_image(Figure(figsize=(8, 4)), scale=1).size
    (800, 400)
    """
    check_number("scale", scale, 0.25, 10.0)
    dots = _DOTS_PER_INCH * scale
    if max(figure.get_size_inches()) * dots > _LARGEST_SIDE:
        raise InputError(f"at scale {scale:g} the picture has a side of over {_LARGEST_SIDE} pixels: choose a smaller")
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # drawn as boxes
        figure.savefig(content, format="png", dpi=dots)
    return Image.open(content).convert("RGB")


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as the content of a PNG file."""
    content = io.BytesIO()
    picture.save(content, format="png")
    return content.getvalue()
