"""Colors of all pictures and plots: eight that eyes with any color vision can tell apart.

The palette is that of Okabe and Ito, "Color Universal Design" (2008). Meaning never hangs on color alone: hits and
misses differ in the form of their marks too, and curves in their dashes and markers.
"""

from __future__ import annotations

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
