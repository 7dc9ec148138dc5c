"""Conversion and checks of photos and points that users pass in many forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sd4match.errors import InputError, PhotoError, shown
from sd4match.structures.images import Photo, tensor_to_array

PhotoLike = Photo | str | Path | Image.Image | npt.NDArray[Any] | Tensor
"""Photo as a path, a pillow image, an array (H, W, 3), a tensor (3, H, W) or (H, W, 3), or a `Photo`."""
Points = Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]] | Tensor
"""(N, 2), (x, y) in pixels of a photo."""

_LARGEST_POINTS = 1_000_000
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def as_photo(photo: object) -> Photo:
    """Return a `Photo` from a path, a pillow image, an array, a tensor or a `Photo`.

    Raises:
        PhotoError: it is none of these, or cannot be read.
    """
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, Image.Image):
        return Photo.from_image(photo)
    if isinstance(photo, (np.ndarray, Tensor)):
        return Photo.from_array(photo)
    if isinstance(photo, (str, Path)):
        if _URL.match(str(photo)):
            raise PhotoError(f"{shown(photo)} is a URL: download the photo, and give its path")
        return Photo.open(photo)
    raise PhotoError(
        f"a photo is a path, a pillow image, an array (H, W, 3), a tensor (3, H, W) or a Photo, not "
        f"{type(photo).__name__}: {shown(photo)}"
    )


def _holds_flags(points: object) -> bool:
    """Return whether a list of points contains a boolean, which NumPy would read as 0 or 1."""
    if isinstance(points, (list, tuple)):
        return any(_holds_flags(row) for row in points)
    return isinstance(points, (bool, np.bool_))


def check_points(points: object, photo: Photo) -> torch.Tensor:
    """Return points as (N, 2) in float32 on the CPU, each inside the photo, and inside its mask if it has one.

    Raises:
        InputError: the points have another shape, are none or more than a million, or one lies outside the photo or its
            mask; the message names it.
    """
    if isinstance(points, Tensor):
        points = tensor_to_array("points", points)
    if isinstance(points, np.ma.MaskedArray):
        raise InputError("points must be an array without a mask: leave out the points that are masked")
    try:
        array = np.asarray(points)
    except Exception:  # raised by NumPy or by a foreign `__array__`
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf" or _holds_flags(points):
        raise InputError(f"points must be (x, y) pairs of numbers, not {shown(points)}")
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise InputError(f"points must be (N, 2), at least one, not {array.shape}")
    if len(array) > _LARGEST_POINTS:
        raise InputError(f"at most {_LARGEST_POINTS:,} points are matched at once, not {len(array):,}")
    array = array.astype(np.float64)
    height, width = photo.size
    outside = ~((array >= 0) & (array <= [width - 1, height - 1])).all(axis=1)
    if outside.any():
        x, y = array[outside][0]
        raise InputError(
            f"point {x:g},{y:g} is outside {photo.name}, which is {width} x {height} pixels "
            f"(x from 0 to {width - 1}, y from 0 to {height - 1})"
        )
    if photo.mask is not None:
        columns, rows = np.rint(array).astype(int).T
        masked = ~photo.mask[rows, columns]
        if masked.any():
            x, y = array[masked][0]
            raise InputError(f"point {x:g},{y:g} is outside the mask of {photo.name}")
    return torch.from_numpy(array).float()
