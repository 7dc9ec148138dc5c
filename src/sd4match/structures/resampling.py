"""Interpolation of NumPy pictures between their pixels, with any number of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]


def neighbors(
    positions: npt.NDArray[np.float64], first: int, last: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return the whole positions around others: the lower one, the upper one, and the weight of the upper one.

    Positions beyond the first or the last one take its value.

    >>> neighbors(np.array([-1.0, 0.25, 2.0]), 0, 2)
    (array([0, 0, 1]), array([1, 1, 2]), array([0.  , 0.25, 1.  ]))
    """
    within = np.clip(positions, first, last)
    lower = np.clip(np.floor(within), first, max(first, last - 1)).astype(np.intp)
    return lower, np.minimum(lower + 1, last), within - lower


def sampled(values: Numbers, points: npt.NDArray[np.float64], *, nearest: bool) -> Numbers:
    """Return the values of a picture (H, W, ...) at points (..., 2), (x, y) inside it, in the data type of the picture.

    Args:
        values: (H, W) or (H, W, C).
        points: (..., 2).
        nearest: take the value of the nearest pixel; otherwise interpolate between the four pixels around the point.

    >>> sampled(np.array([[0.0, 1.0]]), np.array([[0.25, 0.0]]), nearest=False)
    array([0.25])
    """
    height, width = values.shape[:2]
    if nearest:
        x, y = np.moveaxis(np.floor(points + 0.5).astype(np.intp), -1, 0)
        chosen: Numbers = values[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        return chosen
    left, right, across = neighbors(points[..., 0], 0, width - 1)
    top, bottom, down = neighbors(points[..., 1], 0, height - 1)
    pixels, dtype = values.reshape(height * width, *values.shape[2:]), np.result_type(values.dtype, np.float32)

    def row(y: npt.NDArray[np.intp]) -> Numbers:
        return _mixed(pixels.take(y * width + left, axis=0), pixels.take(y * width + right, axis=0), across, dtype)

    mixed = _mixed(row(top), row(bottom), down, dtype)
    if values.dtype.kind == "u":
        np.rint(mixed, out=mixed)
    result: Numbers = mixed.astype(values.dtype, copy=False)
    return result


def _mixed(first: Numbers, second: Numbers, weights: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> Numbers:
    """Interpolate between two arrays: the first where a weight is 0, the second where it is 1."""
    weights = weights.astype(dtype).reshape(weights.shape + (1,) * (first.ndim - weights.ndim))
    mixed: Numbers = first * (1 - weights)
    mixed += second * weights
    return mixed
