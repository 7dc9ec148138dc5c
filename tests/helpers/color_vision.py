"""What eyes with other color vision see, and how far apart two colors are for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

VISIONS = {
    "trichromacy": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
"""Matrices on linear RGB: Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color
Vision Deficiency", IEEE Transactions on Visualization and Computer Graphics 15 (2009), table of severity 1.0."""
_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
"""From linear sRGB to CIE XYZ (IEC 61966-2-1), with the white point D65."""


def seen_as_lab(colors: npt.ArrayLike, vision: str) -> npt.NDArray[np.float64]:
    """Return CIE Lab (..., 3) of sRGB colors (..., 3) from 0 to 255, as eyes with a color vision see them."""
    share = np.asarray(colors, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ VISIONS[vision].T, 0, 1) @ _XYZ.T / _XYZ.sum(axis=1)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lightness(colors: npt.ArrayLike, vision: str) -> npt.NDArray[np.float64]:
    """Return L of CIE Lab, from 0 to 100."""
    return seen_as_lab(colors, vision)[..., 0]


def distance(first: npt.ArrayLike, second: npt.ArrayLike, vision: str) -> npt.NDArray[np.float64]:
    """Return delta E of 1976: 2.3 is just noticeable."""
    return np.linalg.norm(seen_as_lab(first, vision) - seen_as_lab(second, vision), axis=-1)
