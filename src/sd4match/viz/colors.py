"""Colors of all pictures and plots: eight that are distinct for any color vision.

The palette is that of Okabe and Ito, "Color Universal Design" (2008). Color is never the only distinction: hits and
misses also differ in the form of their marks, and curves in dashes and markers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RGB = tuple[int, int, int]

BLACK: RGB = (0, 0, 0)
ORANGE: RGB = (230, 159, 0)
SKY_BLUE: RGB = (86, 180, 233)
GREEN: RGB = (0, 158, 115)
YELLOW: RGB = (240, 228, 66)
BLUE: RGB = (0, 114, 178)
VERMILION: RGB = (213, 94, 0)
PURPLE: RGB = (204, 121, 167)

CYCLE: tuple[RGB, ...] = (BLUE, VERMILION, GREEN, ORANGE, SKY_BLUE, PURPLE, BLACK)
"""Colors of curves and rows, in the order of use."""
HIT, MISS = BLUE, VERMILION
"""Colors of a correct and of a wrong match."""
HEAT = "cividis"
"""Matplotlib's color map of heat maps: its lightness grows with the value, also for color-blind eyes."""


def hex_color(color: RGB) -> str:
    """Return a color as matplotlib and HTML write it.

    >>> hex_color(BLUE)
    '#0072b2'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)


_CORNERS = np.array([[(130, 215, 255), (255, 200, 110)], [(0, 50, 130), (125, 50, 0)]], dtype=np.float64)
"""Colors of the corners of a picture: two rows of two."""


def position_colors(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return the colors (..., 3) of positions in a picture, mixed from those of its corners.

    Blue changes to orange from left to right, and light to dark from top to bottom. The colors stay distinct for
    red-green and blue-yellow color blindness, and lightness for any color vision.

    Args:
        x: (...), from 0 at the left to 1 at the right.
        y: (...), from 0 at the top to 1 at the bottom.

    >>> position_colors(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0])).tolist()
    [[130, 215, 255], [128, 129, 124], [125, 50, 0]]
    """
    x, y = x[..., None], y[..., None]
    upper, lower = (left * (1 - x) + right * x for left, right in _CORNERS)
    colors: npt.NDArray[np.uint8] = np.rint(upper * (1 - y) + lower * y).astype(np.uint8)
    return colors
