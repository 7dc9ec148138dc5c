"""Dense matches: one for every cell of the source's feature map, interpolated at any point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sd4match.arguments import check_fields
from sd4match.checks import check_flag, check_number
from sd4match.errors import InputError, ShapeError, shown
from sd4match.geometry import Grid
from sd4match.results import check_array
from sd4match.structures.images import Photo, channels_last, tensor_to_array
from sd4match.structures.inputs import as_photo, check_points
from sd4match.structures.photo_cells import PhotoCells
from sd4match.structures.resampling import sampled

_PIXELS_AT_ONCE = 1 << 18
"""Pixels of a photo that are resampled at once."""


@dataclass(frozen=True, eq=False, repr=False)
class DenseMatch:
    """Matches of all cells of the source's feature map, and of all pixels between the cells.

    The displacement of a pixel is interpolated between the displacements of the four cells around it. Beyond the
    outermost cells on the photo, it is that of the nearest of them. Cells in the padding of a photo are not used, and a
    cell without a match takes the displacement of the nearest cell that has one.

    Raises:
        InputError: a field is of another type.
        ShapeError: the grid is not that of the source alone, an array has another number of cells, or the backward
            matches are not of photos of the target's and the source's size.
        NonFiniteError: a value is NaN or infinite.

    >>> from sd4match.geometry import own_frame
    >>> photo = Photo(np.zeros((4, 8, 3), dtype=np.uint8))
    >>> grid = Grid((own_frame((4, 8)),), (2, 4), "centers")
    >>> centers = np.stack(np.meshgrid([0.5, 2.5, 4.5, 6.5], [0.5, 2.5]), axis=-1)
    >>> dense = DenseMatch(photo, photo, grid, centers + [1.0, 0.0], np.ones((2, 4)))
    >>> dense
    DenseMatch(2 x 4 cells of photo, 8 x 4 pixels, in photo, 8 x 4 pixels)
    >>> dense.at([(2.0, 3.0)]), dense.flow.shape, dense.warp().shape
    (array([[3., 3.]]), (4, 8, 2), (4, 8, 3))
    """

    source: Photo
    target: Photo
    grid: Grid
    """Grid of the (h, w) cells on the source."""
    target_points: npt.NDArray[np.float64]
    """(h, w, 2), in pixels of the target."""
    scores: npt.NDArray[np.float64]
    """(h, w), in [0, 1]."""
    backward: DenseMatch | None = None
    """Matches of the target's cells in the source; None if they were not computed."""
    valid: npt.NDArray[np.bool_] = None  # type: ignore[assignment] # set below
    """(h, w), False where a cell has no match: the matcher rejected it, or it is outside the source's mask. None: all
    True."""

    def __post_init__(self) -> None:
        if self.valid is None:
            object.__setattr__(self, "valid", np.ones(self.scores.shape, dtype=np.bool_))
        check_fields(self)
        if len(self.grid) != 1 or self.grid.frames[0].original_size != self.source.size:
            sizes = [frame.original_size for frame in self.grid.frames[:2]]
            raise ShapeError(f"the grid must be that of the source, {self.source.size}, not of {sizes}")
        check_array("target_points", self.target_points, (*self.grid.size, 2))
        check_array("scores", self.scores, self.grid.size)
        check_array("valid", self.valid, self.grid.size)
        if self.backward is not None:
            sizes, wanted = (
                [photo.size for photo in photos]
                for photos in ((self.backward.source, self.backward.target), (self.target, self.source))
            )
            if sizes != wanted:
                raise ShapeError(f"backward must be of photos of {wanted} pixels, not {sizes}")

    @cached_property
    def source_points(self) -> npt.NDArray[np.float64]:
        """(h, w, 2), centers of the cells in pixels of the source."""
        return self._photo_cells.centers

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        """(h, w), True where a cell lies on the source photo, not on its padding."""
        return self._photo_cells.inside

    @cached_property
    def valid_pixels(self) -> npt.NDArray[np.bool_]:
        """(H, W), True where the nearest cell of a pixel of the source has a match."""
        y, x = (np.arange(side, dtype=np.float64) for side in self.source.size)
        rows, columns = self._photo_cells.nearest(y, axis=1), self._photo_cells.nearest(x, axis=0)
        return self.valid[rows[:, None], columns]

    @cached_property
    def flow(self) -> npt.NDArray[np.float32]:
        """(H, W, 2), displacement (x, y) from every pixel of the source to its match, in pixels."""
        flow = np.empty((*self.source.size, 2), dtype=np.float32)
        for rows, pixels, found in self._pieces():
            flow[rows] = found - pixels
        return flow

    def at(self, points: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Return the matches of points, interpolated between the matches of the cells.

        Args:
            points: (N, 2), (x, y) in pixels of the source.

        Returns:
            (N, 2), (x, y) in pixels of the target, inside it.

        Raises:
            InputError: the points are not (N, 2) numbers, or one is outside the source.
        """
        wanted = check_points(points, replace(self.source, mask=None)).double().numpy()
        left, right, across = self._photo_cells.around(wanted[:, 0], axis=0)
        top, bottom, down = self._photo_cells.around(wanted[:, 1], axis=1)
        across, down, moved = across[:, None], down[:, None], self._displacements
        near = moved[top, left] * (1 - down) + moved[bottom, left] * down
        far = moved[top, right] * (1 - down) + moved[bottom, right] * down
        return _clamped(wanted + near * (1 - across) + far * across, self.target)

    def warp(
        self,
        photo: Photo | str | Path | Image.Image | npt.NDArray[Any] | Tensor | None = None,
        *,
        nearest: bool = False,
    ) -> npt.NDArray[Any]:
        """Resample the target, or an array of its size, into the frame of the source: each pixel takes its match.

        It carries a mask or a map of labels from the target to the source; `transfer` carries one in the other
        direction.

        Args:
            photo: a photo, or an array (H, W) or (H, W, C), of the target's height and width; None: the target. A
                tensor may be (3, H, W) too. Floats and bytes are interpolated between pixels; booleans and other whole
                numbers are masks and labels, of which the nearest is taken.
            nearest: take the nearest pixel for every data type.

        Returns:
            (H, W) or (H, W, C) of the source's height and width, in the data type of the photo.

        Raises:
            ShapeError: the photo is not of the target's size.
            InputError: it is neither a photo nor an array of numbers.
            PhotoError: it is a file that cannot be read.
            NonFiniteError: an array holds NaN or infinite values.
        """
        check_flag("nearest", nearest)
        values = _pixels(self.target if photo is None else photo, self.target)
        nearest = nearest or values.dtype.kind in "bi" or (values.dtype.kind == "u" and values.dtype != np.uint8)
        warped = np.empty((*self.source.size, *values.shape[2:]), dtype=values.dtype)
        for rows, _, found in self._pieces():
            warped[rows] = sampled(values, found, nearest=nearest)
        return warped

    @cached_property
    def reversed(self) -> DenseMatch:
        """Dense match from the target to the source, whose backward matches are the matches of this one.

        Raises:
            InputError: there are no backward matches.
        """
        if self.backward is None:
            raise InputError("there are no backward matches: match_dense(..., cycle=True) computes them")
        return replace(self.backward, backward=replace(self, backward=None))

    @property
    def cycle(self) -> npt.NDArray[np.bool_]:
        """(h, w), True where the match of a cell, matched back, comes within 1.5 cells of it; see `consistent`."""
        return self.consistent()

    def consistent(self, cells: float = 1.5) -> npt.NDArray[np.bool_]:
        """Return the cells whose match, matched back, comes close to their center.

        The backward match is interpolated between the cells of the target, as in `at`. Cells in the padding, cells
        without a match, and cells whose match has none back, are not consistent.

        Args:
            cells: largest distance in x and in y, in cells of the source; >= 0.

        Returns:
            (h, w), True where a cell is consistent.

        Raises:
            InputError: the distance is not a number or is negative, or there are no backward matches.
        """
        limit = check_number("cells", cells, 0)
        found = _clamped(self.target_points, self.target).reshape(-1, 2)
        back = self.reversed.at(found)
        rows, columns = (self.reversed._photo_cells.nearest(found[:, axis], axis=axis) for axis in (1, 0))
        returns = self.reversed.valid[rows, columns].reshape(self.grid.size)
        start = _clamped(self.source_points, self.source).reshape(-1, 2)
        cells_of = [self.grid.to_cells(torch.from_numpy(points)[None])[0] for points in (start, back)]
        close = ((cells_of[1] - cells_of[0]).abs() <= limit).all(dim=-1).reshape(self.grid.size).numpy()
        consistent: npt.NDArray[np.bool_] = close & self.inside & self.valid & returns
        return consistent

    def transfer(self, mask: npt.NDArray[np.bool_] | Tensor) -> npt.NDArray[np.bool_]:
        """Carry a mask of the source to the target; pixels of the target without a match are outside it.

        Convention (SD+DINO's figures of dense matches): each pixel of the target takes the value of its own match in
        the source, so the mask has no holes. `warp` carries a mask from the target to the source.

        Args:
            mask: (H, W) booleans, mask of the source.

        Returns:
            (H, W) booleans, mask of the target.

        Raises:
            InputError: the mask is not of booleans, or there are no backward matches.
            ShapeError: the mask is not of the source's size.
        """
        return self.reversed.warp(_mask("mask", mask, self.source)) & self.reversed.valid_pixels

    def swap(self, mask: npt.NDArray[np.bool_] | Tensor | None = None) -> npt.NDArray[np.uint8]:
        """Return the source with the appearance of the target's object: each pixel of the mask takes that of its match.

        Pixels without a match do not change.

        Convention (SD+DINO's figures of swapped objects): pixels may also match the background of the target. To take
        only pixels of its object, use `swap(mask & warp(target_mask))`. `reversed.swap(target_mask)` is the picture of
        the target.

        Args:
            mask: (H, W) booleans, True on the object in the source; None: the mask of the source, or the whole photo if
                it has none.

        Returns:
            (H, W, 3), of the source's height and width.

        Raises:
            InputError: the mask is not of booleans.
            ShapeError: the mask is not of the source's size.
        """
        mask = self.source.mask if mask is None else _mask("mask", mask, self.source)
        chosen = self.valid_pixels if mask is None else self.valid_pixels & mask
        return np.where(chosen[..., None], self.warp(), self.source.pixels)

    def draw(self, *, height: int = 320) -> Image.Image:
        """Draw source, target, the target warped to the source, and the flow in colors; see `viz.draw_dense`.

        Args:
            height: height of each photo in the picture, in pixels.
        """
        from sd4match.viz.dense import draw_dense

        return draw_dense(self, height=height)

    def _repr_png_(self) -> bytes | None:
        """Return the picture that notebooks show."""
        return self.draw()._repr_png_()

    def __repr__(self) -> str:
        height, width = self.grid.size
        source, target = (f"{p.name}, {p.size[1]} x {p.size[0]} pixels" for p in (self.source, self.target))
        return f"DenseMatch({height} x {width} cells of {source}, in {target})"

    @cached_property
    def _photo_cells(self) -> PhotoCells:
        return PhotoCells(self.grid)

    @cached_property
    def _displacements(self) -> npt.NDArray[np.float64]:
        """(h, w, 2), matches minus cells, both clamped into their photos, which the cells of a small photo exceed.

        A cell without a match has that of the nearest cell that has one.
        """
        from scipy.ndimage import distance_transform_edt

        moved = _clamped(self.target_points, self.target) - _clamped(self.source_points, self.source)
        known = self.valid & self.inside
        if self.valid.all() or not known.any():
            return moved
        rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
        return np.where(self.valid[..., None], moved, moved[rows, columns])

    def _pieces(self) -> Iterator[tuple[slice, npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """Yield some rows of the source at a time, their pixels (rows, W, 2), and the matches of these."""
        height, width = self.source.size
        left, right, across = self._photo_cells.around(np.arange(width, dtype=np.float64), axis=0)
        top, bottom, down = self._photo_cells.around(np.arange(height, dtype=np.float64), axis=1)
        across, down = across[None, :, None], down[:, None, None]
        count = max(1, _PIXELS_AT_ONCE // width)
        for start in range(0, height, count):
            rows = slice(start, min(start + count, height))
            moved = self._displacements[top[rows]] * (1 - down[rows]) + self._displacements[bottom[rows]] * down[rows]
            x, y = np.meshgrid(np.arange(width), np.arange(rows.start, rows.stop))
            pixels = np.stack([x, y], axis=-1).astype(np.float64)
            found = pixels + moved[:, left] * (1 - across) + moved[:, right] * across
            yield rows, pixels, _clamped(found, self.target)


def _clamped(points: npt.NDArray[np.float64], photo: Photo) -> npt.NDArray[np.float64]:
    """Return points (..., 2), each moved into the photo."""
    return np.clip(points, 0.0, np.array(photo.size[::-1]) - 1.0)


def _pixels(photo: object, like: Photo) -> npt.NDArray[Any]:
    """Return the picture to resample as an array (H, W) or (H, W, C).

    Raises:
        InputError: it is neither a photo nor an array of numbers.
        ShapeError: it is not of the size of the photo `like`.
        NonFiniteError: it holds NaN or infinite values.
    """
    if isinstance(photo, (Image.Image, str, Path)):
        photo = as_photo(photo)
    if isinstance(photo, Tensor):
        photo = tensor_to_array("photo", channels_last(photo))
    values = photo.pixels if isinstance(photo, Photo) else photo
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise InputError(f"photo must be a Photo, a pillow image or an array of numbers, not {shown(photo)}")
    if values.ndim not in (2, 3):
        raise ShapeError(f"photo must be (H, W) or (H, W, C), not {values.shape}")
    check_array("photo", values, (*like.size, *values.shape[2:]))
    return values


def _mask(name: str, mask: object, photo: Photo) -> npt.NDArray[np.bool_]:
    """Return a mask of a photo.

    Raises:
        InputError: it is not an array of booleans.
        ShapeError: it is not of the size of the photo.
    """
    if isinstance(mask, Tensor):
        mask = tensor_to_array(name, mask)
    if not isinstance(mask, np.ndarray) or mask.dtype.kind != "b":
        raise InputError(f"{name} must be an array (H, W) of booleans, as `numbers > 0` makes, not {shown(mask)}")
    check_array(name, mask, photo.size)
    return mask
